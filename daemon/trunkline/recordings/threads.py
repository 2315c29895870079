"""Blocking work beside the event loop, in threads that do not outlive the process.

asyncio.to_thread's threads are joined when the interpreter ends: one that waits for a storage which hangs would hold up
the stop of the daemon for as long. These are left behind; what they were at is begun again at the next start.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(work: Callable[[*Ts], T], *arguments: *Ts) -> T:
    """What `work` returns or raises. Cancelled, the caller goes on and the thread's result is dropped."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():
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
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, fault)

    threading.Thread(target=run, name=f"recordings {getattr(work, '__name__', 'work')}", daemon=True).start()
    return await done
