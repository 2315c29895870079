"""What a request changes: one transaction, which also looks at If-Match, keeps the answer and tells of what happened.

A handler asks `changing(request)` for the connection once it has done all that takes time, and changes all that it
changes there. The commit comes behind the handler, and only where it has looked at what the client made a condition:
neither If-Match nor Idempotency-Key can be forgotten.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import structlog
from aiohttp import hdrs, web

from trunkline.api.guard import CALLER
from trunkline.api.problem import Problem
from trunkline.api.representation import is_version
from trunkline.api.state import STATE, State
from trunkline.store.events import NewEvent, insert_events
from trunkline.store.faults import of_the_server, summary
from trunkline.store.kept_answers import Asked, KeptAnswer, claim, insert_kept, purge_kept, select_kept
from trunkline.store.pool import Connection, raise_if_cancelled

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
LONGEST_KEY: Final = 255
PURGE_S: Final = 900.0
_FIRST_PURGE_S: Final = 30.0
_KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_KEPT_HEADERS: Final = (hdrs.CONTENT_TYPE, hdrs.CONTENT_LOCATION, hdrs.LOCATION, hdrs.ETAG, hdrs.CACHE_CONTROL)
# The writer of calls waits for whoever numbers an event: one who hangs between two statements is hung up on.
_IMPATIENT: Final = "SET LOCAL idle_in_transaction_session_timeout = '3s'"

log = structlog.get_logger(__name__)


class Repeats(StrEnum):
    """What becomes of a POST that comes again under the same Idempotency-Key."""

    KEPT = "kept"  # its answer is kept for 24 h, in the transaction of what it did
    BY_CONTENT = (
        "by_content"  # as KEPT; its handler keeps it, for only it knows what was sent: begin_keyed, keep_answer
    )
    HANDLED = "handled"  # the handler sees to it that it is done once, and needs one: idempotency_key(request)
    REFUSED = "refused"  # it takes no key: its answer holds a secret, or it may be done twice


class _Replayed(Exception):
    """The answer is there already."""

    def __init__(self, response: web.Response) -> None:
        super().__init__()
        self.response = response


class Change:
    """What one request changes; nothing yet where `connection` was not asked for.

    versioned: its resource has an ETag, so that If-Match has to be looked at where it comes. queued: the request is in
    the line before the database already.
    """

    def __init__(self, request: web.Request, *, versioned: bool, kept: bool, queued: bool) -> None:
        self._request = request
        self._versioned = versioned
        self._kept = kept
        self._queued = queued
        self._scope = AsyncExitStack()
        self._connection: Connection | None = None
        self._account_id: UUID | None = None
        self._asked: Asked | None = None
        self._looked = False
        self._events: list[NewEvent] = []
        self._afterwards: list[Callable[[], object]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._scope.__aexit__(kind, error, trace)

    async def connection(self) -> Connection:
        """The connection, in a transaction. Raises what ends the request where it was answered before, and Problem."""
        if self._connection is not None:
            return self._connection
        state, request = self._request.app[STATE], self._request
        account_id = self._account_id = await state.account_id()  # before: it may need a connection of its own
        if not self._queued:
            await self._scope.enter_async_context(state.room)
        connection = await self._scope.enter_async_context(state.pool.acquire())
        await self._scope.enter_async_context(connection.transaction())
        await connection.execute(_IMPATIENT)
        key = idempotency_key(request) if self._kept else None
        if key is not None:
            self._asked = asked_under(key, request, await request.read())
            if (replayed := await begin_keyed(connection, account_id, self._asked)) is not None:
                raise _Replayed(replayed)
        self._connection = connection
        return connection

    def look(self, version: str) -> None:
        """Go on only where the client knows this version of what he changes, or did not ask. Raises Problem."""
        self._looked = True
        header = self._request.headers.get(hdrs.IF_MATCH)
        if header is not None and not is_version(header, version):
            raise Problem(
                "precondition_failed",
                "If-Match: this was changed since, or the tag is of another resource. GET it again, and begin from "
                "what it is now.",
            )

    def tell(self, event: NewEvent) -> None:
        """Tell of this once all else is done: who numbers an event keeps all others of the account waiting."""
        self._events.append(event)

    def afterwards(self, do: Callable[[], object]) -> None:
        """Do this behind the commit."""
        self._afterwards.append(do)

    async def finish(self, response: web.StreamResponse) -> None:
        """Keep the answer and tell of what happened, right before the commit. Raises where a condition was not met."""
        if self._versioned and hdrs.IF_MATCH in self._request.headers and not self._looked:
            raise RuntimeError("the handler changed something without a look at If-Match: nothing is committed")
        if self._kept and self._connection is None:
            raise RuntimeError("the handler did something beside changing(request), so that its answer cannot be kept")
        if self._connection is None or self._account_id is None:
            return
        if self._asked is not None:
            await keep_answer(self._connection, self._account_id, self._asked, response)
        if self._events:
            await insert_events(self._connection, self._account_id, self._events)

    def finished(self) -> None:
        """It is committed."""
        for do in self._afterwards:
            do()


CHANGE: Final = web.RequestKey("change", Change)


async def serve_change(
    request: web.Request, change: Change, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Run a handler, commit what it changed, and answer; or answer what was answered before."""
    request[CHANGE] = change
    try:
        async with change:
            response = await handler(request)
            await change.finish(response)
    except _Replayed as replayed:
        return replayed.response
    finally:
        request.pop(CHANGE, None)  # it holds the request
    change.finished()
    return response


async def changing(request: web.Request) -> Connection:
    """The connection on which this request changes what it changes, committed behind its handler.

    Beside it ask the pool for nothing: everybody may be holding a connection and waiting for another one.
    """
    return await request[CHANGE].connection()


def check_version(request: web.Request, version: str) -> None:
    """Go on only where this is the version that If-Match asks for. Raises Problem.

    Ask with the row locked: else somebody changes it in between.
    """
    request[CHANGE].look(version)


def tell(request: web.Request, event: NewEvent) -> None:
    """Have an event written in the request's transaction."""
    request[CHANGE].tell(event)


def afterwards(request: web.Request, do: Callable[[], object]) -> None:
    """Do this once what the request changed is committed."""
    request[CHANGE].afterwards(do)


def idempotency_key(request: web.Request) -> str | None:
    """The Idempotency-Key that a request came with. Raises Problem where it is none."""
    given = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Problem(
            "bad_idempotency_key",
            f"{IDEMPOTENCY_KEY}: has to be one, of 1 to {LONGEST_KEY} visible ASCII characters. Send a UUID.",
        )
    return given[0]


def refuse_conditions(request: web.Request, *, versioned: bool, repeats: Repeats | None) -> None:
    """Refuse a condition that the route would not look at: who made it would believe it was met. Raises Problem."""
    changes = request.method not in ("GET", "HEAD")
    if changes and not versioned and request.headers.get(hdrs.IF_MATCH, "*").strip() != "*":
        raise Problem("precondition_failed", "If-Match: nothing here has an ETag, so none can match. Leave it out.")
    if repeats is None:
        return
    key = idempotency_key(request)
    if key is not None and repeats is Repeats.REFUSED:
        raise Problem(
            "idempotency_not_kept",
            f"{IDEMPOTENCY_KEY}: what this route answers is not kept: it holds a secret, or may be asked for twice. "
            "Leave the header out.",
        )


@asynccontextmanager
async def short_transaction(state: State) -> AsyncIterator[Connection]:
    """A transaction for a part of what a request changes, for whoever changes a lot; it waits in the line first."""
    async with state.room, state.pool.acquire() as connection, connection.transaction():
        await connection.execute(_IMPATIENT)
        yield connection


async def purge_for_ever(state: State) -> None:
    """Delete answers whose time is over, every PURGE_S. Nobody reads them any more, but they hold personal data."""
    await asyncio.sleep(_FIRST_PURGE_S)  # who has just started has something else to do
    while True:
        try:
            if count := await purge_kept(state.pool, await state.account_id()):
                log.info("api.answers_purged", count=count)
        except Problem:
            pass  # the account is not there yet
        except Exception as error:
            raise_if_cancelled()
            if of_the_server(error):
                log.warning("api.purge_failed", error=summary(error), again_in_s=PURGE_S)
            else:
                log.exception("api.purge_failed")
        await asyncio.sleep(PURGE_S)


def asked_under(key: str, request: web.Request, body: bytes) -> Asked:
    """What makes a request this one: who asks, for what. Another caller is not answered what this one was."""
    caller = request.get(CALLER)
    return Asked.of(key, "" if caller is None else caller.actor, request.method, request.raw_path, body)


async def begin_keyed(connection: Connection, account_id: UUID, asked: Asked) -> web.Response | None:
    """What was answered before to this request; None: nothing, go on and `keep_answer`. Raises Problem."""
    if not await claim(connection, account_id, asked):
        raise Problem(
            "request_in_progress",
            f"A request with this {IDEMPOTENCY_KEY} is being answered right now. Ask again in a second.",
            headers={"Retry-After": "1"},
        )
    found = await select_kept(connection, account_id, asked)
    if found is None:
        return None
    kept, same = found
    if not same:
        raise Problem(
            "idempotency_key_reused",
            f"{IDEMPOTENCY_KEY}: another request was sent with this key in the last 24 hours, of another route, with "
            "another body or by another caller. Give each request a key of its own.",
        )
    return web.Response(body=kept.body, status=kept.status, headers={**kept.headers, REPLAYED: "true"})


async def keep_answer(connection: Connection, account_id: UUID, asked: Asked, response: web.StreamResponse) -> None:
    """Keep an answer for who asks again, in the transaction of what it tells of."""
    assert isinstance(response, web.Response)  # noqa: S101  # a stream cannot be kept
    headers = {str(name): response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    body = response.body if isinstance(response.body, bytes) else b""
    await insert_kept(connection, account_id, asked, KeptAnswer(response.status, headers, body))
