"""Waiting for what a real server will have done."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def until(
    what: str,
    happens: Callable[[], Any],
    told: Callable[[], Awaitable[object]],
    deadline_s: float,
    every_s: float = 0.05,
) -> Any:
    """Poll until `happens` (which may be a coroutine function) gives something true; else `told` is said."""
    end = time.monotonic() + deadline_s
    while True:
        result = happens()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}; {await told()}")
        await asyncio.sleep(every_s)
