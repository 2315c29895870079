"""What slows down who asks too often: token buckets for requests, in this process only.

So many callers are remembered, and the one that was not seen for the longest is forgotten, so strangers cannot fill the
memory. Tries to log in are counted in the database, for all processes (store/login_tries.py).
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_MOST: Final = 10_000

Clock = Callable[[], float]


class Buckets:
    """A token bucket for each caller: `rate` requests a second for long, `burst` of them at once."""

    def __init__(self, rate: float, burst: float | None = None, *, clock: Clock = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst if burst is not None else max(1.0, 2 * rate)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when that was

    def take(self, caller: str) -> float:
        """Take a token. 0.0: there was one; else in how many seconds there will be."""
        now = self._clock()
        left, at = self._left.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[caller] = (left if wait_s else left - 1, now)
        if len(self._left) > _MOST:
            self._left.popitem(last=False)
        return wait_s
