"""Maintenance: recordings whose time is over are erased, whatever the bucket's own lifecycle rules do or do not."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from trunkline.recordings.jobs import enqueue_recordings
from trunkline.store.faults import of_the_server, summary
from trunkline.store.job_log import purge_log
from trunkline.store.pool import Pool, raise_if_cancelled
from trunkline.store.recordings import order_erasure, select_lost_erasures, select_overdue

EVERY_S: Final = 3600.0  # well within the 24 h that an erasure may take
_BATCH: Final = 500

log = structlog.get_logger(__name__)


class Maintenance:
    """Orders the erasure of an account's overdue recordings. Days None: for ever; a queue's own days come first."""

    def __init__(self, pool: Pool, account: str, days: int | None, days_by_queue: Mapping[str, int]) -> None:
        self._pool = pool
        self._account = account
        self._days = days
        self._days_by_queue = days_by_queue
        self.ordered = 0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.retire()
            except Exception as error:
                raise_if_cancelled()
                if of_the_server(error):
                    log.warning("recordings.maintenance_failed", error=summary(error))
                else:
                    log.exception("recordings.maintenance_failed")
            await asyncio.sleep(EVERY_S)

    async def retire(self) -> int:
        """Order what is due; how many. Raises as asyncpg does."""
        async with self._pool.acquire() as connection, connection.transaction():
            await enqueue_recordings(connection, await select_lost_erasures(connection, self._account))
            await purge_log(connection)
        if self._days is None and not self._days_by_queue:
            return 0
        count, before = 0, -1
        while count > before:  # a pass that orders nothing would for ever
            before = count
            for row in await select_overdue(self._pool, self._account, self._days, self._days_by_queue, _BATCH):
                days = self._days_by_queue.get(row["queue"], self._days)
                count += await order_erasure(
                    self._pool,
                    row["account_id"],
                    row["id"],
                    enqueue_recordings,
                    actor="maintenance",
                    detail=f"kept for {days} days",
                    action="retention",
                )
        if count:
            log.info("recordings.retired", count=count)
        self.ordered += count
        return count
