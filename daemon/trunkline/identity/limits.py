"""What slows down who asks too often: token buckets for requests, counted tries for logins. In this process only.

Both remember so many callers and forget the one that was not seen for the longest, so strangers cannot fill the memory.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

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


class _Tries(NamedTuple):
    made: int
    locked_until: float  # by the clock; 0.0: it is not
    at: float  # the last one


class Tries:
    """Counts tries, each before it is made, so that a hundred at once are a hundred. `most`, then none for `lock_s`.

    forget_s: after so long without any the count begins anew; None: never.
    """

    def __init__(
        self, most: int, lock_s: float, *, forget_s: float | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._most = most
        self._lock_s = lock_s
        self._forget_s = forget_s
        self._clock = clock
        self._of: OrderedDict[str, _Tries] = OrderedDict()

    def begin(self, subject: str) -> float:
        """Count a try. 0.0: it may be made; else in how many seconds one may."""
        now = self._clock()
        tries = self._of.pop(subject, _Tries(0, 0.0, now))
        if tries.locked_until > now:
            self._of[subject] = tries
            return tries.locked_until - now
        forgotten = self._forget_s is not None and now - tries.at > self._forget_s
        count = 1 if tries.locked_until or forgotten else tries.made + 1
        self._of[subject] = _Tries(count, now + self._lock_s if count >= self._most else 0.0, now)
        if len(self._of) > _MOST:
            self._of.popitem(last=False)
        return 0.0

    def went_well(self, subject: str) -> None:
        """Take one try back. Not all: who has one password could else wash off his tries for others."""
        if (tries := self._of.get(subject)) is not None:
            self._of[subject] = _Tries(max(0, tries.made - 1), 0.0, tries.at)
