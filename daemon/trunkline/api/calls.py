"""`GET /api/v1/calls`, and `GET` and `PATCH /api/v1/calls/{id}`."""

from typing import Annotated, cast
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from trunkline.api import cursor
from trunkline.api.change import changing, check_version, tell
from trunkline.api.contract import BODY, QUERY
from trunkline.api.identity_forms import VISIBLE, Name
from trunkline.api.parameters import calls_query, read_id
from trunkline.api.problem import Problem
from trunkline.api.representation import version_of
from trunkline.api.state import STATE, json_response
from trunkline.calls.record import Leg, encode
from trunkline.store.call_notes import lock_call, select_chosen_lead, update_note
from trunkline.store.queries import select_call, select_calls
from trunkline.store.rows import Call

# msgspec leaves an UNSET field out of the JSON: "not asked for" must not look like "has none".
_LEFT_OUT = cast("list[Leg]", msgspec.UNSET)


Notes = Annotated[str, Meta(max_length=10_000)]
Tag = Annotated[str, Meta(min_length=1, max_length=50, pattern=VISIBLE)]
Tags = Annotated[list[Tag], Meta(max_length=20)]


class CallChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What people say of a call; what is left out stays, null empties."""

    notes: Notes | UnsetType | None = UNSET
    tags: Tags | UnsetType | None = UNSET
    disposition: Name | UnsetType | None = UNSET
    lead_id: UUID | UnsetType | None = UNSET  # null: it is nobody's, also where a lead has the number


class CallPage(msgspec.Struct, rename="camel"):
    """A page of calls, the newest first."""

    items: list[Call]
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
    return _answer(request, call_id, call)


async def change_call(request: web.Request) -> web.Response:
    """Say what a call was about and whose it is; of one that was folded into another one, say it of that."""
    call_id = read_id(request)
    if call_id is None:
        raise _unknown()
    asked: CallChange = request[BODY]  # type: ignore[assignment]  # the route's body
    connection, account_id = await changing(request), await request.app[STATE].account_id()
    call = await lock_call(connection, account_id, call_id)
    if call is None:
        raise _unknown()
    check_version(request, _version(call))
    notes = call.notes if asked.notes is UNSET else asked.notes or ""
    tags = call.tags if asked.tags is UNSET else list(dict.fromkeys(tag.strip() for tag in asked.tags or ()))
    disposition = call.disposition if asked.disposition is UNSET else asked.disposition and asked.disposition.strip()
    lead: tuple[UUID | None] | None = None
    if asked.lead_id is not UNSET:
        lead = (None if asked.lead_id is None else await select_chosen_lead(connection, account_id, asked.lead_id),)
        if lead == (None,) and asked.lead_id is not None:
            raise Problem("lead_unknown", "leadId: no lead has this id. GET /api/v1/leads?phone= finds one by number.")
    if (notes, tags, disposition) != (call.notes, call.tags, call.disposition) or lead is not None:
        found = UUID(call.id)
        event = await update_note(
            connection, account_id, found, notes=notes, tags=tags, disposition=disposition, lead=lead
        )
        tell(request, event)
        changed = await select_call(connection, account_id, found)
        assert changed is not None  # noqa: S101  # it is locked
        call = changed
    return _answer(request, call_id, call)


def _answer(request: web.Request, asked: UUID, call: Call) -> web.Response:
    response = json_response(request, encode(call), version=_version(call))
    if call.id != str(asked):
        response.headers["Content-Location"] = f"/api/v1/calls/{call.id}"
    return response


def _version(call: Call) -> str:
    return version_of(call.notes, call.tags, call.disposition, call.lead_id)


def _unknown() -> Problem:
    return Problem("call_not_found", "No call has this id. GET /api/v1/calls lists the calls there are.")
