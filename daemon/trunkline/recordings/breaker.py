"""Breaker: while the object storage is away, one job asks for it and the others wait.

Said once, when it opens and when it closes; in between the storage is asked after 1 s, then ever later up to
LONGEST_WAIT_S, however many recordings wait: a wrong credential is not hammered. A storage that answers again is tried
with one job; the others follow when that is done, for it may answer and yet take nothing.
"""

import asyncio
from types import TracebackType
from typing import Any, Final

import structlog

from trunkline.objects.faults import StoreFault
from trunkline.objects.s3 import ObjectStore
from trunkline.threads import in_thread

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0

_UNASKED: Final = "it could not be asked whether it is back"

log = structlog.get_logger(__name__)


class Breaker:
    """`async with breaker:` is entered only while the storage is believed to be there."""

    def __init__(self, store: ObjectStore, *, first_wait_s: float = FIRST_WAIT_S) -> None:
        self._store = store
        self._first_wait_s = self._wait_s = first_wait_s
        self._probe: asyncio.Task[None] | None = None  # while it is open
        self._doubted = False  # from a fault until a job was done
        self._trial: asyncio.Task[Any] | None = None  # the one job that is let through meanwhile
        self._changed = asyncio.Condition()
        self.fault: StoreFault | None = None  # why it is open
        self._said = ""  # of what is wrong, until a job was done without a fault
        self.probes = 0

    def trip(self, fault: StoreFault) -> None:
        """The storage does not work for anyone: let all wait until it does."""
        self._say(fault)
        self._doubted = True
        if self._probe is None:
            self._probe = asyncio.create_task(self._probe_on(), name="recordings.probe")

    async def close(self) -> None:
        """Stop asking."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    async def _probe_on(self) -> None:
        while True:
            await asyncio.sleep(self._wait_s)
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
            self.probes += 1
            try:
                await in_thread(self._store.check)
            except StoreFault as fault:
                self._say(fault)
                continue
            except Exception as error:  # a bug of ours, or the library's, must not keep all recordings waiting for ever
                if self.fault is None or self.fault.reason != _UNASKED:
                    log.exception("recordings.probe_failed", todo="please report it")
                self._say(StoreFault(_UNASKED, f"see recordings.probe_failed in the log: {type(error).__name__}"))
                continue
            self.fault = self._probe = None
            await self._wake()
            return

    def _passes(self) -> bool:
        return self._probe is None and (not self._doubted or self._trial is None)

    async def __aenter__(self) -> None:
        """Wait until the storage is there."""
        async with self._changed:
            await self._changed.wait_for(self._passes)
            if self._doubted:
                self._trial = asyncio.current_task()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A job that was done without a fault says that the storage works."""
        if self._trial is asyncio.current_task():  # also where another job took the doubt away meanwhile
            self._trial = None
        if not self._doubted:
            return
        if kind is None and self._probe is None:
            log.info("recordings.store_back")
            self._doubted = False
            self._said = ""
            self._wait_s = self._first_wait_s
        await self._wake()

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()  # each looks whether it may pass

    def _say(self, fault: StoreFault) -> None:
        self.fault = fault
        kind = fault.reason.partition(" (")[0]  # a bucket and an object are refused with different codes
        if kind != self._said:
            self._said = kind
            log.error("recordings.store_away", reason=fault.reason, todo=fault.todo or "nothing, it is tried again")
