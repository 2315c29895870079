"""How long to wait before the next try: doubling, jittered, forgotten after a session that held. No clock in it."""

import random
from collections.abc import Callable

FIRST_S = 0.2
CAP_S = 30.0
REFUSED_FIRST_S = 10.0  # a wrong secret does not mend itself in seconds, and fail2ban counts the tries
REFUSED_CAP_S = 300.0
STABLE_S = 10.0  # a session that held so long starts the count anew


class Backoff:
    """The waits of one link. jitter() gives 0..1; by it up to half of a wait is taken off, so that links spread out."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._tries = 0
        self._refusals = 0

    def held(self, session_s: float) -> None:
        """Tell how long the last session held."""
        if session_s >= STABLE_S:
            self._tries = 0
        self._refusals = 0

    def next_s(self, *, refused: bool) -> float:
        """Return the seconds to wait now. refused: the login was refused, or it is the wrong PBX: no hammering."""
        if refused:
            wait = min(REFUSED_CAP_S, REFUSED_FIRST_S * 2.0 ** min(self._refusals, 16))
            self._refusals += 1
        else:
            wait = min(CAP_S, FIRST_S * 2.0 ** min(self._tries, 16))
            self._tries += 1
        return wait * (1 - self._jitter() / 2)
