"""What happens, as it happens: `GET /api/v1/events`, page by page or waiting, and the WebSocket `/api/v1/ws`.

Both are the same commit-ordered sequence of the account: who goes on behind the last seq that it has seen misses none
and sees none twice, whatever broke in between.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal, NamedTuple

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from trunkline.api.contract import QUERY
from trunkline.api.feed import PAGE
from trunkline.api.guard import Guard, check_origin, credentials_of
from trunkline.api.parameters import MAX_WAIT_S, events_query
from trunkline.api.problem import Problem
from trunkline.api.state import DEADLINE, KNOWN, STATE, json_response
from trunkline.identity.scopes import allows
from trunkline.store.events import EventLine, StoredEvent
from trunkline.store.faults import of_the_server, summary

PROTOCOL: Final = "trunkline"
_SCOPE: Final = "events:read"
_BEARER: Final = "bearer."  # a subprotocol that is this and a key, as browsers can send no header with a socket
AUTH_S: Final = 5.0  # for the first message, where the request came without a key
HEARTBEAT_S: Final = 15.0  # of silence, after which the cursor is told
_PING_S: Final = 2 * HEARTBEAT_S  # of silence of a client's, after which it is asked whether it is there
RECHECK_S: Final = 10.0  # until it is asked again whether the key or token is good
SLOW_S: Final = 10.0  # that a client may let us wait before it is cut
AGAIN_S: Final = 1.0  # until a read is tried again that the database failed
_PAGES: Final = 20  # of a table that are looked through for one answer
_UNREAD: Final = 1 << 16  # bytes that may wait for a client before we wait for it
_LONGEST_MESSAGE: Final = 4096  # bytes, of a client's
CLOSE_NO_KEY: Final = 4401
CLOSE_AHEAD: Final = 4409
_STOPS: Final = (WSCloseCode.GOING_AWAY, "the server stops; come back with after=")

log = structlog.get_logger(__name__)


class EventPage(msgspec.Struct, rename="camel"):
    """Events in order."""

    items: list[StoredEvent]
    next_after: int  # what ?after= takes to go on


class Wanted(NamedTuple):
    """Which events a client wants: types such as call.ended or call.* (none: all), of an extension (None: any)."""

    types: tuple[str, ...] = ()
    extension: str | None = None

    def takes(self, line: EventLine) -> bool:
        """Is it one of them?"""
        if self.extension is not None and self.extension not in line.parties:
            return False
        return not self.types or any(
            line.type.startswith(wanted[:-1]) if wanted.endswith("*") else line.type == wanted for wanted in self.types
        )


class _Auth(msgspec.Struct, forbid_unknown_fields=True):
    """A client's first message."""

    type: Literal["auth"]
    key: str


async def list_events(request: web.Request) -> web.Response:
    """Events behind `after`; with `wait` the answer comes when there are some, or when that time is over."""
    asked = events_query(request[QUERY])
    feed, wanted = request.app[STATE].feed, Wanted(asked.types, asked.extension)
    loop = asyncio.get_running_loop()
    over = loop.time() + asked.wait_s
    request[DEADLINE].reschedule(over + MAX_WAIT_S)
    after = asked.after or 0
    found: list[EventLine] = []
    lines: list[EventLine] = []
    pages = 0
    while len(found) < asked.limit and pages < _PAGES:
        lines = await feed.read(after, fresh=not pages or len(lines) == PAGE)
        pages += 1
        for line in lines:
            after = line.seq
            if wanted.takes(line):
                found.append(line)
                if len(found) == asked.limit:
                    break
        if len(lines) < PAGE and (found or feed.stopping or not await feed.news(after, over - loop.time())):
            break
    items = b",".join(line.json for line in found)
    return json_response(request, b'{"items":[' + items + b'],"nextAfter":' + str(after).encode() + b"}")


async def open_socket(request: web.Request) -> web.StreamResponse:
    """The same as messages: a hello, then each event, and after a silence a heartbeat with the cursor."""
    asked = events_query(request[QUERY])
    state = request.app[STATE]
    check_origin(request, state.origins)
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,), heartbeat=_PING_S, max_msg_size=_LONGEST_MESSAGE, compress=False
    )
    if not socket.can_prepare(request):
        raise Problem("no_websocket", "This route takes WebSockets only; GET /api/v1/events has the same by HTTP.")
    await socket.prepare(request)
    request[DEADLINE].reschedule(None)
    try:
        await _serve(request, socket, Wanted(asked.types, asked.extension), asked.after)
    except Exception:  # it is no HTTP any more: no error can be answered
        log.exception("api.socket_failed")
        await socket.close(code=WSCloseCode.INTERNAL_ERROR, message=b"something failed inside; come back with after=")
    return socket


async def _serve(request: web.Request, socket: web.WebSocketResponse, wanted: Wanted, after: int | None) -> None:
    """Let the client in, or not, and tell it what comes until one of us has enough."""
    state = request.app[STATE]
    credentials = await _credentials(request, socket)
    try:
        async with asyncio.timeout(AUTH_S):
            let_in = await _may_listen(state.guard, credentials)
    except Exception as error:
        if not _passes(error):
            raise
        log.warning("api.socket_unproven", error=summary(error))
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"who you are cannot be looked up for now")
        return
    if not let_in:
        await socket.close(code=CLOSE_NO_KEY, message=b"no key or token that may read events")
        return
    listener = _Listener(request, socket, credentials, wanted)
    sending = asyncio.create_task(listener.send_on(after), name="api.socket")
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:  # what it says is of no interest, that it speaks is
                break
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


async def _credentials(request: web.Request, socket: web.WebSocketResponse) -> list[str]:
    """The keys or tokens of the request, the one in a subprotocol, or the one in the first message."""
    if request[KNOWN] or credentials_of(request):
        return credentials_of(request)
    for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if protocol.strip().startswith(_BEARER):
            return [protocol.strip().removeprefix(_BEARER)]
    with suppress(TimeoutError, TypeError, msgspec.MsgspecError):
        async with asyncio.timeout(AUTH_S):
            return [msgspec.json.decode(await socket.receive_str(), type=_Auth).key]
    return ["none"]


async def _may_listen(guard: Guard, credentials: Sequence[str]) -> bool:
    """Are these good, now? Raises what `_passes` where they cannot be looked up."""
    if not credentials:
        return not guard.guarded
    try:
        return allows((await guard.identify(credentials)).scopes, _SCOPE)
    except Problem as problem:
        if _passes(problem):
            raise
        return False


def _passes(error: Exception) -> bool:
    """Whether it says nothing of the client: the database is away, or the account is not in it yet."""
    return error.code == "account_missing" if isinstance(error, Problem) else of_the_server(error)


class _GoneError(Exception):
    """The client is not there any more."""


class _Listener:
    """One socket that is let in."""

    def __init__(
        self, request: web.Request, socket: web.WebSocketResponse, credentials: Sequence[str], wanted: Wanted
    ) -> None:
        self._request = request
        self._socket = socket
        self._credentials = credentials
        self._wanted = wanted
        self._good_until = time.monotonic() + RECHECK_S
        self._silent_until = 0.0  # when the next heartbeat is due

    async def send_on(self, after: int | None) -> None:
        """Send what comes until the client goes, is too slow, may not listen any more, or we stop."""
        try:
            code, why = await self._send_on(after)
        except _GoneError:
            return
        except Problem as problem:
            code = CLOSE_AHEAD if problem.code == "cursor_ahead" else WSCloseCode.TRY_AGAIN_LATER
            why = problem.code
        except Exception:
            log.exception("api.socket_failed")
            code, why = WSCloseCode.INTERNAL_ERROR, "something failed inside; come back with after="
        await self._socket.close(code=code, message=why.encode())

    async def _send_on(self, after: int | None) -> tuple[int, str]:
        """The same; with which code, and why, it is to be closed. Raises _GoneError, and Problem as `Feed.read`."""
        feed = self._request.app[STATE].feed
        if after is None:
            await feed.news(-1, HEARTBEAT_S)  # until it is known what is the newest
            if feed.last is None:
                if feed.stopping:
                    return _STOPS
                return WSCloseCode.TRY_AGAIN_LATER, "the newest event is not known for now"
            after = feed.last
        await self._send([f'{{"type":"hello","seq":{after},"heartbeatSeconds":{HEARTBEAT_S:g}}}'.encode()])
        while not feed.stopping:
            if not await self._is_good():
                return CLOSE_NO_KEY, "the key or token is no longer good"
            try:
                lines = await feed.read(after)
                if not lines:
                    await feed.news(after, self._silent_until - time.monotonic())
            except Exception as error:
                if not of_the_server(error):
                    raise
                lines = []
                await asyncio.sleep(AGAIN_S)  # what is behind `after` is told when the database is back
            if lines:
                await self._send([line.json for line in lines if self._wanted.takes(line)])
                after = lines[-1].seq
            if time.monotonic() >= self._silent_until and not feed.stopping:
                await self._send([f'{{"type":"heartbeat","seq":{after}}}'.encode()])
        return _STOPS

    async def _is_good(self) -> bool:
        """Is the key still good, or the session open? Asked every RECHECK_S; HEARTBEAT_S where all is silent."""
        if time.monotonic() < self._good_until:
            return True
        self._good_until = time.monotonic() + RECHECK_S
        try:
            return await _may_listen(self._request.app[STATE].guard, self._credentials)
        except Exception as error:  # they were good once: a database that is away sends nobody home
            if not _passes(error):
                raise
            return True

    async def _send(self, messages: Sequence[bytes]) -> None:
        """Send each as a text message. Raises _GoneError, also where the client does not read and was cut for it.

        All in one write: with hundreds of sockets a write for each message, as WebSocketResponse does, is what costs.
        """
        if not messages:
            return
        transport = self._request.transport
        if transport is None:
            raise _GoneError
        self._silent_until = time.monotonic() + HEARTBEAT_S
        transport.write(b"".join(part for json in messages for part in (_head(len(json)), json)))
        if transport.is_closing() or transport.get_write_buffer_size() > _UNREAD:
            try:
                async with asyncio.timeout(SLOW_S):
                    await self._request.writer.drain()
            except TimeoutError:
                log.info("api.socket_slow")
                transport.abort()  # it would not read why either
                raise _GoneError from None
            except ConnectionError:
                raise _GoneError from None


def _head(size: int) -> bytes:
    """What a server puts before a text message of so many bytes. Source: RFC 6455, 5.2."""
    if size < 126:
        return bytes((0x81, size))
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2)
    return b"\x81\x7f" + size.to_bytes(8)
