"""One live AMI connection: bytes in through decoder and session, actions out, and a watch on its silence.

Reading never waits for anything but the socket: frames are handed on synchronously, sending has a task of its own, so
a consumer or a full send buffer can never make Asterisk drop us for slow reading.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from trio.abc import Stream

from trunkline.asterisk.codec import Decoder, Wanted
from trunkline.asterisk.dial import LinkSettings, open_stream
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.session import EVENTS, LinkError, Reason, Session, State

CHUNK = 1 << 18  # bytes read at once: about 550 events, a few milliseconds, then other tasks get their turn
WINDOW = 200  # actions in flight at once
_BANNER = 4096  # bytes without a line end, and it is no banner


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds. Half-open is noticed `dead` seconds after the last byte."""

    login: float = 10.0
    fully_booted: float = 20.0  # Asterisk lets us log in before its modules are loaded
    answer: float = 10.0
    ping: float = 5.0
    dead: float = 12.0


class Wire:
    """A connection in use. `run()` in a nursery, wait for `ready`, then `ask`.

    on_frame gets every frame that is not the session's own, synchronously and in order; on_chunk every read, before it
    is decoded.
    """

    def __init__(
        self,
        stream: Stream,
        settings: LinkSettings,
        on_frame: Callable[[Frame | Event], None],
        *,
        wanted: Wanted | None = None,
        fields: frozenset[str] | None = None,
        on_chunk: Callable[[bytes], None] | None = None,
        events: str = EVENTS,
        patience: Patience | None = None,
    ) -> None:
        self.decoder = Decoder(wanted=wanted, fields=fields)
        plain = settings.address.tls is not None
        self.session = Session(settings.credentials, plain=plain, events=events)
        self.ready = trio.Event()
        self._stream = stream
        self._settings = settings
        self._on_frame = on_frame
        self._on_chunk = on_chunk
        self._patience = patience or Patience()
        self._to_send = trio.Event()
        self._has_read = trio.Event()
        self._heard_at = math.inf
        self._scope = trio.CancelScope()
        self._failure: LinkError | None = None

    async def run(self) -> LinkError:
        """Keep the connection up until it ends; returns why it did. Closes the stream in any case."""
        self._heard_at = trio.current_time()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guarded, self._read)
                    nursery.start_soon(self._guarded, self._write)
                    nursery.start_soon(self._guarded, self._keep_alive)
                    nursery.start_soon(self._guarded, self._log_in)
        finally:
            await trio.aclose_forcefully(self._stream)
        assert self._failure is not None  # noqa: S101 - the tasks end by it, or by a cancellation that went past here
        return self._failure

    def fail(self, error: LinkError) -> None:
        """End the connection for this reason; the first one counts."""
        self._failure = self._failure or error
        self._scope.cancel()

    def send(self, name: str, fields: Iterable[tuple[str, str]], action_id: str) -> None:
        """Queue an action whose answers are on_frame's business."""
        self.session.ask(name, fields, None, action_id)
        self._to_send.set()

    async def ask(self, name: str, fields: Iterable[tuple[str, str]] = (), *, action_id: str = "") -> Frame | None:
        """One action, and its response; None when it did not come in time."""
        answers: list[Frame | None] = [None]
        await self._ask_window([(name, tuple(fields))], 0, answers, action_id)
        return answers[0]

    async def ask_all(self, actions: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> list[Frame | None]:
        """Many actions, some hundred at once; their responses in the same order, None where none came in time."""
        answers: list[Frame | None] = [None] * len(actions)
        for start in range(0, len(actions), WINDOW):
            await self._ask_window(actions[start : start + WINDOW], start, answers)
        return answers

    async def _ask_window(
        self,
        actions: Sequence[tuple[str, Sequence[tuple[str, str]]]],
        start: int,
        answers: list[Frame | None],
        action_id: str = "",
    ) -> None:
        done = trio.Event()
        left = len(actions)

        def answer_to(place: int) -> Callable[[Frame], None]:
            def answered(frame: Frame) -> None:
                nonlocal left
                answers[place] = frame
                left -= 1
                if not left:
                    done.set()

            return answered

        ids = [
            self.session.ask(name, fields, answer_to(start + n), action_id) for n, (name, fields) in enumerate(actions)
        ]
        self._to_send.set()
        try:
            with trio.move_on_after(self._patience.answer):
                await done.wait()
        finally:
            for sent in ids:
                self.session.forget(sent)

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except LinkError as error:
            self.fail(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.fail(_closed(f"the connection broke: {error.__cause__ or error}"))

    async def _read(self) -> None:
        session, decoder, on_frame = self.session, self.decoder, self._on_frame
        while data := bytes(await self._stream.receive_some(CHUNK)):
            self._heard_at = trio.current_time()
            if self._on_chunk is not None:
                self._on_chunk(data)
            frames = decoder.feed(data)
            if session.state is State.GREETING and decoder.banner is not None:
                session.greet(decoder.banner)
            for frame in frames:
                if (
                    isinstance(frame, Event)
                    or (frame.kind and frame.kind != "FullyBooted")
                    or not session.receive(frame)
                ):
                    on_frame(frame)
            if session.ready and not self.ready.is_set():
                self.ready.set()
            self._to_send.set()
            if not session.ready:
                self._has_read.set()
                self._has_read = trio.Event()
        if session.state is State.GREETING:
            raise LinkError(
                Reason.NOT_AMI,
                "the peer closed the connection without a banner",
                "check the port, and authlimit in manager.conf (too many sessions that have not logged in)",
            )
        raise _closed("the PBX closed the connection")

    async def _write(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send = trio.Event()
            if data := self.session.take_outgoing():
                await self._stream.send_all(data)

    async def _keep_alive(self) -> None:
        patience = self._patience
        while True:
            heard_at = self._heard_at
            await trio.sleep_until(heard_at + patience.ping)
            if self._heard_at > heard_at:
                continue
            if self.session.state not in (State.GREETING, State.CHALLENGE, State.LOGIN):
                self.session.ask("Ping", (), lambda _: None)
                self._to_send.set()
            await trio.sleep_until(heard_at + patience.dead)
            await trio.sleep(0.1)  # after a stall of our own the reader gets its turn first
            if self._heard_at == heard_at:
                raise LinkError(
                    Reason.SILENT,
                    f"not a byte from the PBX for {patience.dead:g} s, although it was pinged",
                    "the network or the PBX's host is gone, or Asterisk hangs; the daemon reconnects by itself",
                )

    async def _log_in(self) -> None:
        patience, session = self._patience, self.session
        address = self._settings.address
        with trio.move_on_after(patience.login):
            while session.state in (State.GREETING, State.CHALLENGE, State.LOGIN):
                await self._has_read.wait()
        if session.state is State.GREETING:
            raise LinkError(
                Reason.NOT_AMI,
                f"{address} sent no banner in {patience.login:g} s",
                "check host and port: AMI is port 5038, and 5039 is usual for its TLS",
            )
        if session.state in (State.CHALLENGE, State.LOGIN):
            raise LinkError(
                Reason.TIMEOUT, f"{address} did not answer the login in {patience.login:g} s", "is the PBX overloaded?"
            )
        with trio.move_on_after(patience.fully_booted):
            while session.state is State.BOOTING:
                await self._has_read.wait()
        session.go_on_without_fullybooted()
        self._to_send.set()
        with trio.move_on_after(patience.answer):
            await self.ready.wait()
        if not self.ready.is_set():
            raise LinkError(
                Reason.NOT_BOOTED,
                f"{address} let us in, but did not say who it is in {patience.answer:g} s",
                "is Asterisk still loading modules? `asterisk -rx 'core waitfullybooted'` tells",
            )


def _closed(detail: str) -> LinkError:
    return LinkError(
        Reason.CLOSED,
        detail,
        "Asterisk was stopped, or `writetimeout` in manager.conf is too short; the daemon reconnects by itself",
    )


@asynccontextmanager
async def open_wire(
    settings: LinkSettings,
    on_frame: Callable[[Frame | Event], None],
    *,
    on_chunk: Callable[[bytes], None] | None = None,
    events: str = EVENTS,
    patience: Patience | None = None,
) -> AsyncIterator[Wire]:
    """A ready connection for the time of the block. Raises LinkError when there is none, or when it ends before."""
    wire = Wire(
        await open_stream(settings.address), settings, on_frame, on_chunk=on_chunk, events=events, patience=patience
    )
    failure: LinkError | None = None
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            nonlocal failure
            failure = await wire.run()
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        await wire.ready.wait()
        yield wire
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
