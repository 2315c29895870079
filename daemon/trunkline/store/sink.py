"""Where the tracker's updates go: into PostgreSQL, by way of the spool whenever that is away.

    write() --> pending --> PostgreSQL           while it answers and the spool is empty
                       \\-> spool --> drain ----> PostgreSQL, oldest first, until the spool is empty

While the spool holds anything, everything goes through it: the order of the events is the order of the calls. A write
whose answer was lost is written again; `Change` sees to it that nothing is stored twice.
"""

import asyncio
import random
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import Final

import structlog

from trunkline.calls.record import CallRecord, CallUpdate
from trunkline.store.change import Change, Key, both, change_of
from trunkline.store.faults import advice, of_the_server, summary
from trunkline.store.live import select_live_calls
from trunkline.store.spool import Spool, SpoolError
from trunkline.store.writer import BATCH, CallWriter, WriteResult

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 3.0  # writes resume within 10 s of the server's return (promises.md, 7)
# Calls that are held in memory when the spool can't be written either; about 40 MB.
MOST_PENDING: Final = 10_000

_log: Final = structlog.get_logger()


class CallSink:
    """Takes updates and never fails for a database that is away. Lives on the asyncio thread; no thread of its own."""

    def __init__(self, writer: CallWriter, spool: Spool, *, first_wait_s: float = FIRST_WAIT_S) -> None:
        """Make it on the asyncio thread: draining `spool` begins at once. `close` closes the spool."""
        self._writer = writer
        self._spool = spool
        self._first_wait_s = first_wait_s
        self._pending: dict[Key, Change] = {}
        self._turn = asyncio.Lock()
        self._drain: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._told: str | None = None  # what the log last said about PostgreSQL; None: it answers
        self.written = 0  # rows
        self.events = 0
        self.stale = 0
        self.dropped = 0  # ended Calls given up as neither PostgreSQL nor the spool took them
        self._ensure_drain()

    @property
    def depth(self) -> int:
        """Calls with changes that PostgreSQL does not have yet."""
        return self._spool.depth + len(self._pending)

    @property
    def refused(self) -> int:
        """Changes that PostgreSQL refused for what is in them; they are kept in the spool's file."""
        return self._spool.refused

    @property
    def away(self) -> bool:
        """Whether PostgreSQL did not take the last write."""
        return self._told is not None

    async def write(self, updates: Iterable[CallUpdate]) -> None:
        """Store updates, in PostgreSQL or, while that is away, in the spool; returns when they are in one of them.

        Cancelled, it leaves them to the next write or to `close`.
        """
        for update in updates:
            change = change_of(update)
            held = self._pending.get(change.key)
            self._pending[change.key] = change if held is None else both(held, change)
        async with self._turn:
            if self._drain is None and not self._spool.depth:
                try:
                    await self._write_pending()
                except Exception as error:
                    self._tell_away(error)
            if self._pending:
                self._spool_pending()
        self._ensure_drain()

    async def live(self, pbx: str) -> list[CallRecord]:
        """The Calls of a PBX that have not ended, as stored: what a tracker adopts at the start.

        Waits for the spool to be drained and for PostgreSQL to answer; give it a deadline and go on with
        `live_spooled` meanwhile.
        """
        waits = _waits(self._first_wait_s)
        while True:
            self._ensure_drain()
            if self._drain is not None:
                await self._drained.wait()
            try:
                return await select_live_calls(self._writer.pool, self._writer.account_name, pbx)
            except Exception as error:
                if not of_the_server(error):
                    raise
                self._tell_away(error)
                await asyncio.sleep(next(waits))

    def live_spooled(self, pbx: str) -> list[CallRecord]:
        """The Calls of a PBX that have not ended, as far as the spool knows."""
        return self._spool.live(pbx)

    async def close(self) -> None:
        """Leave nothing in memory: what can't be written within a moment stays in the spool for the next start."""
        if self._drain is not None:
            self._drain.cancel()
            with suppress(asyncio.CancelledError):
                await self._drain
            self._drain = None
        async with self._turn:
            if self._pending:
                self._spool_pending()
        self._spool.close()

    async def _write_pending(self) -> None:
        """Write pending changes to PostgreSQL; raises when it is away, and what is pending then was not taken."""
        while self._pending:
            keys = list(self._pending)[:BATCH]
            batch = [self._pending[key] for key in keys]
            self._count(await self._writer.write_changes(batch))
            for key, change in zip(keys, batch, strict=True):
                if self._pending.get(key) is change:
                    del self._pending[key]

    def _spool_pending(self) -> None:
        """Put pending changes into the spool; when that fails, they stay in memory as far as they fit."""
        try:
            self._spool.put(self._pending.values())
        except SpoolError as error:
            _log.error("spool.failed", error=str(error), in_memory=len(self._pending))
            self._shed()
        else:
            self._pending.clear()

    def _shed(self) -> None:
        """Give up what memory may not hold: the oldest ended Calls first, as the living ones are told of again."""
        excess = len(self._pending) - MOST_PENDING
        if excess <= 0:
            return
        ended = [key for key, change in self._pending.items() if change.record.ended_at is not None]
        for key in (ended + list(self._pending))[:excess]:
            if self._pending.pop(key, None) is not None:
                self.dropped += 1
                _log.error("call.dropped", linkedid=key.external_id, reason="neither database nor spool takes it")

    def _ensure_drain(self) -> None:
        if self._drain is None and (self._spool.depth or self._pending):
            self._drained.clear()
            self._drain = asyncio.create_task(self._drain_all(), name="spool.drain")

    async def _drain_all(self) -> None:
        """Move the spool into PostgreSQL, waiting longer and longer while that is away."""
        waits = _waits(self._first_wait_s)
        moved = 0
        while self._spool.depth or self._pending:
            try:
                moved += await self._drain_some()
            except Exception as error:
                if isinstance(error, SpoolError):
                    _log.error("spool.failed", error=str(error))
                else:
                    self._tell_away(error)
                await asyncio.sleep(next(waits))
            else:
                waits = _waits(self._first_wait_s)
        _log.info("spool.drained", calls=moved)
        self._drain = None
        self._drained.set()

    async def _drain_some(self) -> int:
        """Move the oldest changes; of how many Calls they were."""
        taken = self._spool.take(BATCH)
        if taken:
            self._count(await self._writer.write_changes(one.change for one in taken))
            self._spool.done(taken)
            return len(taken)
        async with self._turn:
            moved = len(self._pending)
            await self._write_pending()
        return moved

    def _count(self, result: WriteResult) -> None:
        """Account for a write that PostgreSQL has answered."""
        if self._told is not None:
            self._told = None
            _log.info("store.back", spooled=self._spool.depth)
        self.written += result.written
        self.stale += result.stale
        self.events += result.events
        for change, reason in result.refused:
            _log.error(
                "call.write_refused", linkedid=change.record.external_id, reason=reason, kept=str(self._spool.path)
            )
            try:
                self._spool.refuse(change, reason)
            except SpoolError as error:
                self.dropped += 1
                _log.error("spool.failed", error=str(error), linkedid=change.record.external_id)

    def _tell_away(self, error: Exception) -> None:
        """Say once what is the matter and what to do, and again when that becomes something else."""
        todo = advice(error)
        if todo != self._told:
            self._told = todo
            _log.warning("store.away", error=summary(error), todo=todo, calls_wait_in=str(self._spool.path))


def _waits(first_s: float) -> Iterator[float]:
    """Longer and longer times, never the same for two daemons that lost the same server."""
    for doublings in count():
        wait_s = min(first_s * 2.0 ** min(doublings, 16), LONGEST_WAIT_S)
        yield random.uniform(wait_s / 2, wait_s)  # no secret
