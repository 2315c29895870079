"""Where trio and asyncio meet, and the only place: `await aio.call(fn, *args)` runs fn on the uvloop thread.

trio owns the main thread (links, tracker, timers); one uvloop thread holds what is asyncio by nature (asyncpg,
aiohttp). A crossing costs about 120 µs there and back, so what crosses is a batch, never a single event.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio
import uvloop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SHUTDOWN_S = 5.0


class AsyncioThreadDied(RuntimeError):
    """The uvloop thread ended although nobody asked it to; nothing can be called on it any more."""


class AsyncioCancelled(RuntimeError):
    """The asyncio task was cancelled by something on the asyncio side, not by trio."""


class _Crossing:
    """One call under way: the trio task that waits and the asyncio task that works for it."""

    __slots__ = ("raise_cancel", "task", "waiting")

    def __init__(self, waiting: trio.lowlevel.Task) -> None:
        self.waiting = waiting
        self.task: asyncio.Task[Any] | None = None  # touched on the uvloop thread only
        self.raise_cancel: Callable[[], Any] | None = None  # set once trio wants it cancelled


class AsyncioThread:
    """The uvloop thread, seen from trio. Made by `open_asyncio_thread()`."""

    def __init__(self, name: str) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        self._crossings: set[_Crossing] = set()
        self._started = trio.Event()
        self._ended = trio.Event()
        self._error: BaseException | None = None
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        # A daemon thread, so that a task which refuses to end can delay the end of the process but not prevent it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def call(self, fn: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
        """Run `fn(*args)` as a task on the uvloop thread and return what it returns.

        Cancelled here, the asyncio task is cancelled and waited for; if it finishes anyway, its result is returned.
        Raises what `fn` raises, AsyncioCancelled if asyncio cancelled it, AsyncioThreadDied if the thread is gone.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._ended.is_set() or self._stopping:
            raise AsyncioThreadDied("the asyncio thread has ended: nothing can be called on it") from self._error
        crossing = _Crossing(trio.lowlevel.current_task())

        def start() -> None:
            try:
                crossing.task = self._loop.create_task(fn(*args))
            except Exception as error:  # fn refused its arguments before there was anything to await
                self._hand_back(crossing, outcome.Error(error))
            else:
                crossing.task.add_done_callback(finished)

        def finished(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                self._hand_back(crossing, outcome.Error(asyncio.CancelledError()))
            elif (error := task.exception()) is not None:
                self._hand_back(crossing, outcome.Error(error))
            else:
                self._hand_back(crossing, outcome.Value(task.result()))

        def cancel() -> None:
            if crossing.task is not None:
                crossing.task.cancel()

        def abort(raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
            crossing.raise_cancel = raise_cancel
            with suppress(RuntimeError):  # the loop is closed: _thread_ended wakes the task
                self._loop.call_soon_threadsafe(cancel)
            return trio.lowlevel.Abort.FAILED

        self._crossings.add(crossing)
        try:
            self._loop.call_soon_threadsafe(start)
        except RuntimeError as error:
            self._crossings.discard(crossing)
            raise AsyncioThreadDied("the asyncio thread has ended: nothing can be called on it") from error
        try:
            return await trio.lowlevel.wait_task_rescheduled(abort)  # type: ignore[no-any-return]  # trio says Any
        except asyncio.CancelledError:
            if crossing.raise_cancel is not None:
                crossing.raise_cancel()
            raise AsyncioCancelled(f"{getattr(fn, '__qualname__', fn)} was cancelled on the asyncio thread") from None

    def tell(self, fn: Callable[[*Ts], object], *args: *Ts) -> None:
        """From the asyncio side: have `fn(*args)` called in trio soon. It must not raise."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(fn, *args)

    def later(self, seconds: float, fn: Callable[[], object]) -> None:
        """From trio: have `fn()` called on the uvloop thread after that time, unless it is closed before."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, fn)

    def _hand_back(self, crossing: _Crossing, result: outcome.Outcome[Any]) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._wake, crossing, result)

    def _wake(self, crossing: _Crossing, result: outcome.Outcome[Any]) -> None:
        if crossing in self._crossings:
            self._crossings.discard(crossing)
            trio.lowlevel.reschedule(crossing.waiting, result)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            # Runner cancels what is left, waits for it, and shuts down generators and the executor.
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as raised:  # SystemExit in a task ends the thread too, and must be told
            error = raised
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._thread_ended, error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._token.run_sync_soon(self._started.set)
        await self._stop.wait()

    def _thread_ended(self, error: BaseException | None) -> None:
        self._error = error
        self._ended.set()
        self._started.set()
        if not self._stopping:
            self._scope.cancel()
        died = AsyncioThreadDied("the asyncio thread ended while this call was under way")
        died.__cause__ = error
        for crossing in list(self._crossings):
            self._wake(crossing, outcome.Error(died))

    async def _close(self) -> None:
        self._stopping = True
        with trio.CancelScope(shield=True), trio.move_on_after(SHUTDOWN_S):
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
            await self._ended.wait()
            self._thread.join()
            return
        raise AsyncioThreadDied(f"asyncio tasks did not end within {SHUTDOWN_S:g} s of being cancelled")


@asynccontextmanager
async def open_asyncio_thread(name: str = "trunkline-asyncio") -> AsyncIterator[AsyncioThread]:
    """Start the uvloop thread; at the end cancel what is left on it and join it.

    Raises AsyncioThreadDied, after cancelling the body, if the thread dies by itself or its tasks refuse to end.
    """
    aio = AsyncioThread(name)
    aio._thread.start()
    with trio.CancelScope(shield=True):
        await aio._started.wait()
    try:
        with aio._scope:
            yield aio
    finally:
        died = aio._ended.is_set()
        if not died:
            await aio._close()
    if died:
        raise AsyncioThreadDied("the asyncio thread ended by itself") from aio._error
