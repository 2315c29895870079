"""When a delivery is tried, and for how long a receiver that fails is left alone. Pure."""

from itertools import pairwise
from typing import Final

# Source: the example schedule of https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
WAITS_S: Final = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
"""Before each try, counted from the one before it: 10 tries over 75 h 35 m and 5 s."""

TRIES: Final = len(WAITS_S)
WHOLE_S: Final = sum(WAITS_S)

HOLDING: Final = 2
"""Tries during which a delivery keeps its place: later events wait for it, for 5 s at most. After them they overtake,
for a message that its receiver cannot digest must not silence it for three days."""

OPENS_AT: Final = 5  # failures in a row
_FIRST_OPEN_S: Final = 10
_LONGEST_OPEN_S: Final = 300

assert all(earlier < later for earlier, later in pairwise(WAITS_S))  # noqa: S101


def wait_s(attempts: int) -> int | None:
    """How long to wait after so many failed tries; None: that was the last one."""
    return WAITS_S[attempts] if attempts < TRIES else None


def open_s(failures: int) -> int:
    """How long a receiver is left alone after so many failures in a row; 0: the circuit stays closed."""
    if failures < OPENS_AT:
        return 0
    return min(_FIRST_OPEN_S << min(failures - OPENS_AT, 16), _LONGEST_OPEN_S)
