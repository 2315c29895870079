"""Blocking work beside the event loop, in threads that do not outlive the process.

asyncio.to_thread's threads are joined when the interpreter ends: one that waits for a storage which hangs would hold up
the stop of the daemon for as long. These are left behind; what they were at is begun again at the next start.

None of them is waited for: work that finds no thread at rest gets a new one. Those at rest are used again, for a start
makes the loop wait until the thread runs, which takes ms while others are busy.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_AT_REST: Final = 8  # at most
_RESTING_NAME: Final = "at rest"

_Work = tuple[str, Callable[[], None]]
_resting: list[SimpleQueue[_Work]] = []  # where each thread at rest waits


async def in_thread(work: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """What `work` returns or raises. Cancelled, the caller goes on and the thread's result is dropped, closed if
    it can be."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():  # cancelled
            if result is not None and hasattr(result, "close"):  # a file
                result.close()
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where T is

    def run() -> None:
        result: T | None = None
        fault: BaseException | None = None
        try:
            result = work(*arguments)
        except BaseException as error:
            fault = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, fault)

    name = f"blocking {getattr(work, '__name__', 'work')}"
    try:
        _resting.pop().put((name, run))
    except IndexError:
        threading.Thread(target=_serve, args=(name, run), name=name, daemon=True).start()
    return await done


def _serve(name: str, run: Callable[[], None]) -> None:
    """Do work after work, and end where enough others are at rest."""
    thread, mine = threading.current_thread(), SimpleQueue[_Work]()
    while True:
        thread.name = name
        run()
        del run  # and with it what it has held: a file, a buffer
        thread.name = _RESTING_NAME
        if len(_resting) >= _AT_REST:
            return
        _resting.append(mine)
        name, run = mine.get()
