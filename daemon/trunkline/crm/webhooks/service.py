"""Everything of webhooks that runs: handing over, delivering, looking after both; on the asyncio thread."""

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, NamedTuple
from uuid import UUID

import structlog

from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.deliver import Deliverer, OthersTurn
from trunkline.crm.webhooks.destination import Destinations
from trunkline.crm.webhooks.feed import Feed
from trunkline.store.faults import of_the_server, summary
from trunkline.store.job_log import purge_log
from trunkline.store.pool import Connection, Pool, open_pool, raise_if_cancelled
from trunkline.store.webhook_line import Waiting, purge, select_due, select_waiting
from trunkline.threads import in_thread

QUEUE: Final = "webhooks"
SWEEP_S: Final = 1.0  # how late a try may be whose time has come
MEASURE_EVERY: Final = 10  # sweeps
PURGE_EVERY: Final = 3600
_AGAIN_S: Final = 10.0  # after the database was away

log = structlog.get_logger(__name__)


class Sending(NamedTuple):
    """How webhooks are sent. at_once: receivers at a time; keep_days: of the log of deliveries."""

    destinations: Destinations = Destinations()
    at_once: int = 128
    keep_days: int = 30


class WebhookService:
    """The webhooks of all accounts of the database; several daemons may do it at once.

    The jobs, and with them 20 MB, are loaded once there is something to deliver.
    """

    def __init__(self, pool: Pool, sending: Sending, *, step: Callable[[str], None] = lambda name: None) -> None:
        """Use `open`. step: as Deliverer's."""
        self._pool = pool
        self._sending = sending
        self._needed = asyncio.Event()
        self.client = WebhookClient(sending.destinations)
        self.deliverer = Deliverer(pool, self.client, suspects=max(1, sending.at_once // 2), step=step)
        self.feed = Feed(pool, self._enqueue)
        self.waiting = Waiting(0, 0.0, 0)

    @classmethod
    async def open(cls, url: str, sending: Sending) -> "WebhookService":
        """Open without needing the database."""
        return cls(await open_pool(url, max_size=8), sending)

    async def run(self) -> None:
        """Never returns; whatever is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.feed.run(), name="webhooks.feed")
            tasks.create_task(self._look_after(), name="webhooks.look_after")
            tasks.create_task(self._work(), name="webhooks.jobs")

    def cut(self) -> None:
        """Hang up on PostgreSQL."""
        self._pool.terminate()

    async def sweep(self) -> None:
        """Make jobs for what has become due, and for what lost its job. Raises as asyncpg does."""
        if due := await select_due(self._pool):
            async with self._pool.acquire() as connection, connection.transaction():
                jobs = await in_thread(import_module, "trunkline.store.jobs")
                waiting = await jobs.queued(connection, QUEUE, due)
                await self._enqueue(connection, [one for one in due if one not in waiting])

    async def _enqueue(self, connection: Connection, webhook_ids: Sequence[UUID]) -> None:
        # Not once: a job that has ended is there for another moment, one whose daemon was killed for HEARTBEAT_S, and
        # would keep a new one from being made. One too many finds nothing to do.
        jobs = await in_thread(import_module, "trunkline.store.jobs")
        await jobs.enqueue(connection, QUEUE, webhook_ids, once=False)
        self._needed.set()

    async def _work(self) -> None:
        await self._needed.wait()
        jobs = await in_thread(import_module, "trunkline.store.jobs")

        async def take(webhook_id: UUID) -> None:
            try:
                await self.deliverer.take(webhook_id)
            except OthersTurn as turn:
                raise jobs.Later(str(turn), turn.delay_s) from turn

        await jobs.JobRunner(self._pool, QUEUE, take, at_once=max(1, self._sending.at_once // jobs.HEADROOM)).run()

    async def _look_after(self) -> None:
        count = 0
        while True:
            try:
                await self.sweep()
                if count % MEASURE_EVERY == 0:
                    await self._measure()
                if count % PURGE_EVERY == 0:
                    await self._purge()
                count += 1
            except Exception as error:
                raise_if_cancelled()
                if of_the_server(error):
                    log.warning("webhooks.sweep_failed", error=summary(error), again_in_s=_AGAIN_S)
                else:
                    log.exception("webhooks.sweep_failed")
                await asyncio.sleep(_AGAIN_S)
            await asyncio.sleep(SWEEP_S)

    async def _measure(self) -> None:
        self.waiting = await select_waiting(self._pool)

    async def _purge(self) -> None:
        await purge_log(self._pool)
        if count := await purge(self._pool, self._sending.keep_days):
            log.info("webhooks.purged", deliveries=count)
