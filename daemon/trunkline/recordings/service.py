"""Everything of this room that runs: the uploads, the sweeper, the maintenance; on the asyncio thread."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import structlog

from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.jobs import JobRunner
from trunkline.recordings.maintenance import Maintenance
from trunkline.recordings.opus import NoEncoder, OpusEncoder
from trunkline.recordings.spool import Directories
from trunkline.recordings.sweep import Sweeper
from trunkline.recordings.upload import Uploader
from trunkline.store.pool import Pool, open_pool
from trunkline.threads import in_thread

log = structlog.get_logger(__name__)


class Keeping(NamedTuple):
    """How recordings are kept. Days count from a recording's beginning; None is for ever."""

    prefix: str = ""
    keep_local: bool = False
    opus: bool = False
    ffmpeg: str = "ffmpeg"
    at_once: int = 4
    sweep_s: float = 60.0
    retention_days: int | None = None
    retention_days_by_queue: Mapping[str, int] = {}


class RecordingService:
    """The recordings of one account."""

    def __init__(
        self,
        pool: Pool,
        store: ObjectStore,
        account: str,
        directories: Directories,
        keeping: Keeping,
    ) -> None:
        """Use `open`."""
        self._pool = pool
        self.store = store
        self.uploader = Uploader(
            pool,
            store,
            directories.of,
            account=account,
            prefix=keeping.prefix,
            keep=keeping.keep_local,
            at_once=keeping.at_once,
            opus=OpusEncoder(keeping.ffmpeg) if keeping.opus else None,
        )
        self.runner = JobRunner(pool, self.uploader.take, at_once=keeping.at_once)
        self.maintenance = Maintenance(pool, account, keeping.retention_days, keeping.retention_days_by_queue)
        self.sweeper = Sweeper(
            pool,
            account,
            directories,
            every_s=keeping.sweep_s,
            keep=keeping.keep_local,
            away=lambda: self.uploader.breaker.fault,
        )

    @classmethod
    async def open(
        cls,
        url: str,
        store: ObjectStore,
        account: str,
        directories: Directories,
        keeping: Keeping,
    ) -> "RecordingService":
        """Open without needing the database or the store."""
        return cls(await open_pool(url, max_size=keeping.at_once + 4), store, account, directories, keeping)

    async def run(self, spools_here: bool = True) -> None:
        """Never returns; whatever is away is waited for. Without spools here only what is overdue is looked for."""
        if spools_here:
            await self.prepare()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.maintenance.run(), name="recordings.maintenance")
            if spools_here:
                tasks.create_task(self.runner.run(), name="recordings.jobs")
                tasks.create_task(self.sweeper.run(), name="recordings.sweep")

    async def prepare(self) -> None:
        """Find out whether there is what makes Opus; without it recordings are stored as they are."""
        if self.uploader.opus is not None:
            try:
                await in_thread(self.uploader.opus.check)
            except NoEncoder as error:
                todo = "install ffmpeg (Debian's has libopus), or set recordings.ffmpeg to its path; then restart"
                log.warning("recordings.no_opus", error=str(error), meanwhile="stored as they are", todo=todo)
                self.uploader.opus = None

    async def close(self) -> None:
        """Stop what waits; what is in a thread is left behind."""
        await self.uploader.breaker.close()
        self.cut()

    def cut(self) -> None:
        """Hang up on PostgreSQL."""
        self._pool.terminate()
        self.store.close()
