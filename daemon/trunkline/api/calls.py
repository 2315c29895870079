"""`GET /api/v1/calls` and `GET /api/v1/calls/{id}`."""

from typing import cast

import msgspec
from aiohttp import web

from trunkline.api import cursor
from trunkline.api.contract import QUERY
from trunkline.api.parameters import calls_query, read_id
from trunkline.api.problem import Problem
from trunkline.api.state import STATE, json_response
from trunkline.calls.record import CallRecord, Leg, encode
from trunkline.store.queries import select_call, select_calls

# msgspec leaves an UNSET field out of the JSON: "not asked for" must not look like "has none".
_LEFT_OUT = cast("list[Leg]", msgspec.UNSET)


class CallPage(msgspec.Struct, rename="camel"):
    """A page of calls, the newest first."""

    items: list[CallRecord]
    next_cursor: str | None  # what ?cursor= takes for the page behind this one; null: this is the last


async def list_calls(request: web.Request) -> web.Response:
    """One page of calls, newest first: {"items": [...], "nextCursor": text or null}. Legs by ?include=legs only."""
    state = request.app[STATE]
    query = calls_query(request[QUERY])
    account_id = await state.account_id()
    after = None if query.cursor is None else cursor.read(account_id, query.narrow, query.cursor)
    page = await select_calls(state.pool, account_id, query.narrow, limit=query.limit, after=after, legs=query.legs)
    if not query.legs:
        for call in page.calls:
            call.legs = _LEFT_OUT
    following = None if page.end is None else cursor.write(account_id, query.narrow, page.end)
    return json_response(request, encode(CallPage(page.calls, following)))


async def get_call(request: web.Request) -> web.Response:
    """One call with its legs, transfers, holds and recordings.

    The id of a call that was folded into another one is answered with that one, and Content-Location says its own URL.
    """
    state = request.app[STATE]
    call_id = read_id(request)
    if call_id is None:
        raise _unknown()
    call = await select_call(state.pool, await state.account_id(), call_id)
    if call is None:
        raise _unknown()
    response = json_response(request, encode(call))
    if call.id != str(call_id):
        response.headers["Content-Location"] = f"/api/v1/calls/{call.id}"
    return response


def _unknown() -> Problem:
    return Problem("call_not_found", "No call has this id. GET /api/v1/calls lists the calls there are.")
