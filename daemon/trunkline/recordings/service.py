"""Everything of this room that runs: the uploads, the sweeper, the maintenance; on the asyncio thread."""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.jobs import JobRunner
from trunkline.recordings.maintenance import Maintenance
from trunkline.recordings.spool import RecordingSpool
from trunkline.recordings.sweep import Sweeper
from trunkline.recordings.upload import Uploader
from trunkline.store.pool import Pool, open_pool


class Keeping(NamedTuple):
    """How recordings are kept. Days count from a recording's beginning; None is for ever."""

    prefix: str = ""
    keep_local: bool = False
    at_once: int = 4
    sweep_s: float = 60.0
    retention_days: int | None = None
    retention_days_by_queue: Mapping[str, int] = {}


class RecordingService:
    """The recordings of one account.

    spools, mailboxes: the directories of the PBXs that are followed now, by the PBX's name.
    """

    def __init__(
        self,
        pool: Pool,
        store: ObjectStore,
        account: str,
        spools: Callable[[], Mapping[str, RecordingSpool]],
        mailboxes: Callable[[], Mapping[str, RecordingSpool]],
        keeping: Keeping,
    ) -> None:
        """Use `open`."""
        self._pool = pool
        self.store = store
        self.uploader = Uploader(
            pool,
            store,
            lambda pbx: spools().get(pbx),
            account=account,
            prefix=keeping.prefix,
            keep=keeping.keep_local,
            at_once=keeping.at_once,
            mailboxes_of=lambda pbx: mailboxes().get(pbx),
        )
        self.runner = JobRunner(pool, self.uploader.take, at_once=keeping.at_once)
        self.maintenance = Maintenance(pool, account, keeping.retention_days, keeping.retention_days_by_queue)
        self.sweeper = Sweeper(
            pool,
            account,
            spools,
            every_s=keeping.sweep_s,
            keep=keeping.keep_local,
            mailboxes=mailboxes,
            away=lambda: self.uploader.breaker.fault,
        )

    @classmethod
    async def open(
        cls,
        url: str,
        store: ObjectStore,
        account: str,
        spools: Callable[[], Mapping[str, RecordingSpool]],
        mailboxes: Callable[[], Mapping[str, RecordingSpool]],
        keeping: Keeping,
    ) -> "RecordingService":
        """Open without needing the database or the store."""
        return cls(await open_pool(url, max_size=keeping.at_once + 4), store, account, spools, mailboxes, keeping)

    async def run(self, spools_here: bool = True) -> None:
        """Never returns; whatever is away is waited for. Without spools here only what is overdue is looked for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.maintenance.run(), name="recordings.maintenance")
            if spools_here:
                tasks.create_task(self.runner.run(), name="recordings.jobs")
                tasks.create_task(self.sweeper.run(), name="recordings.sweep")

    async def close(self) -> None:
        """Stop what waits; what is in a thread is left behind."""
        await self.uploader.breaker.close()
        self.cut()

    def cut(self) -> None:
        """Hang up on PostgreSQL."""
        self._pool.terminate()
        self.store.close()
