"""The control login of one PBX: it hears no events and has commands carried out, each once and in time, or not at all.

The same session as the link's: login by challenge, keepalive, unguessable ActionIDs, CR, LF and NUL refused. What is
different is what happens to an action that gets no answer: it is never sent again, and the connection is reset, so
that what still waits in a buffer on this side is thrown away and cannot reach the PBX late. Before each action the PBX
has to answer a Ping: one that hangs is told nothing that it would do once it hangs no more. Decision 12.
"""

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

import structlog
import trio
from trio.abc import Stream

from trunkline.asterisk.actions import Action
from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.codec import encode_action
from trunkline.asterisk.dial import LinkSettings, open_stream
from trunkline.asterisk.event import Frame
from trunkline.asterisk.session import LinkError, Reason
from trunkline.asterisk.wire import Patience, Wire

ANSWER_S: Final = 4.0
ALIVE_S: Final = 1.5  # to answer the Ping before an action
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s
_PATIENCE: Final = Patience(login=5.0, fully_booted=0.0, answer=ANSWER_S, ping=5.0, dead=12.0)

T = TypeVar("T")

log = structlog.get_logger(__name__)


class NotSent(Exception):
    """The PBX was not told: it is away, or it was too late. Nothing has happened, and nothing will."""


class NotAnswered(Exception):
    """The PBX was told, and has not answered: whether it did it nobody can say."""


class Control:
    """One PBX's control login; `run()` is its life."""

    def __init__(self, settings: LinkSettings, *, backoff: Backoff | None = None) -> None:
        self.name = settings.name
        self.failure: LinkError | None = None  # why it is not up; None while it is
        self.sent: dict[str, int] = {}  # actions, by name
        self.unanswered = 0
        self._settings = settings
        self._backoff = backoff or Backoff()
        self._wire: Wire | None = None  # ready
        self._over = trio.Event()  # of this wire
        self._up = trio.Event()
        self._nudged = trio.Event()

    @property
    def up(self) -> bool:
        """Whether it is logged in."""
        return self._wire is not None

    async def wait_up(self) -> None:
        """Return once it is logged in, however many sessions fail before."""
        while not self.up:
            await self._up.wait()

    async def run(self) -> NoReturn:
        """Keep it logged in, for ever: only cancellation ends it."""
        while True:
            since = trio.current_time()
            self.failure = failure = await self._session()
            self._backoff.held(trio.current_time() - since)
            wait_s = self._backoff.next_s(refused=failure.reason is Reason.LOGIN_REFUSED)
            log.warning(
                "control.down",
                pbx=self.name,
                reason=failure.reason.value,
                detail=failure.detail,
                todo=failure.todo,
                retry_s=round(wait_s, 1),
            )
            self._nudged = trio.Event()
            with trio.move_on_after(wait_s):
                await self._nudged.wait()

    def nudge(self) -> None:
        """The PBX is there (the link says so): do not wait any longer to log in, unless it was refused."""
        if self.failure is None or self.failure.reason is not Reason.LOGIN_REFUSED:
            self._nudged.set()

    async def _session(self) -> LinkError:
        try:
            stream = await open_stream(self._settings.address)
        except LinkError as error:
            return error
        _reset_on_close(stream)
        wire = Wire(stream, self._settings, lambda frame: None, wanted={}, events="off", patience=_PATIENCE)
        failure = LinkError(Reason.SHUTDOWN, "the daemon ends the login", "nothing: it was asked to")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._when_ready, wire)
                failure = await wire.run()
                nursery.cancel_scope.cancel()
        finally:
            if self._wire is not None:  # whoever waits since an earlier session goes on waiting for the same
                self._wire, self._up = None, trio.Event()
            self._over.set()
        return failure

    async def _when_ready(self, wire: Wire) -> None:
        await wire.ready.wait()
        self._over, self._wire, self.failure = trio.Event(), wire, None
        self._up.set()
        log.info("control.connected", pbx=self.name)

    async def act(self, action: Action, *, before: float, action_id: str = "") -> Frame:
        """Have the PBX do it; its response. before: of trio's clock, after which nothing is sent.

        Raises NotSent and NotAnswered; ValueError where the action cannot be written.
        """
        encode_action(action.name, action.fields, action_id)  # refused before anything is asked
        wire = self._wire
        if wire is None:
            why = self.failure.detail if self.failure is not None else "the control login is not there yet"
            raise NotSent(f"the PBX cannot be told anything: {why}")
        pong: Frame | None = None
        with trio.move_on_after(ALIVE_S):
            pong = await self._or_over(lambda: wire.ask("Ping"))
        if pong is None or self._wire is not wire:
            raise NotSent("the PBX does not answer its control login")
        if trio.current_time() >= before:
            raise NotSent("its time was over before the PBX could be told")
        self.sent[action.name] = self.sent.get(action.name, 0) + 1
        # Told it is told: who gives up waiting, gives up the connection too.
        with trio.CancelScope(shield=True):
            answer = await self._or_over(lambda: wire.ask(action.name, action.fields, action_id=action_id))
        if answer is None:
            self.unanswered += 1
            wire.fail(
                LinkError(Reason.SILENT, f"the PBX did not answer {action.name}", "nothing: the login is made again")
            )
            raise NotAnswered(f"the PBX did not answer {action.name}")
        return answer

    async def _or_over(self, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """What that gives, or None as soon as the connection is over."""
        answer: T | None = None
        over = self._over
        async with trio.open_nursery() as nursery:

            async def asking() -> None:
                nonlocal answer
                answer = await ask()
                nursery.cancel_scope.cancel()

            nursery.start_soon(asking)
            await over.wait()
            nursery.cancel_scope.cancel()
        return answer


def _reset_on_close(stream: Stream) -> None:
    """Have what was not sent thrown away when the connection is closed; and closed by the kernel when it gets stuck."""
    inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if isinstance(inner, trio.SocketStream):
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(ANSWER_S * 1000))
