"""The durable queues: pgqueuer's, in the schema `jobs` of our own database.

A job is only a reminder that something is to be done for one row: what that is stands in the row. It is made in the
transaction that writes the row, so neither is there without the other, and lives until its handler returns; a job whose
daemon was killed is taken up again once its heartbeat is HEARTBEAT_S old.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

import structlog
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import FailingListenerError, RetryRequested
from pgqueuer.domain.models import HealthCheckEvent, Job
from pgqueuer.domain.settings import DBSettings

from trunkline.store.faults import of_the_server, summary
from trunkline.store.pool import Connection, Pool

SCHEMA: Final = "jobs"
HEARTBEAT_S: Final = 20.0
LONGEST_DELAY_S: Final = 300.0
_POLL_S: Final = 1.0  # how late a job may be noticed that is tried again, or whose NOTIFY was lost
_AGAIN_S: Final = 3.0  # after the database was away
_HEALTHY: Final = timedelta(seconds=10)
_STOP_S: Final = 2.0  # for the jobs at hand to be put back
HEADROOM: Final = 4  # jobs taken for each that there is room for
_SETTINGS: Final = DBSettings(db_schema=SCHEMA)

_COUNT_DUE: Final = f"""
SELECT count(*) FROM {_SETTINGS.qualified.queue_table}
WHERE entrypoint = $1 AND execute_after < now() + interval '1 minute'
"""
_SELECT_QUEUED: Final = f"""
SELECT convert_from(payload, 'UTF8') AS id FROM {_SETTINGS.qualified.queue_table}
WHERE entrypoint = $1 AND status = 'queued' AND payload = ANY ($2::bytea[])
"""

log = structlog.get_logger(__name__)


class Later(Exception):
    """The job is to be tried again, after `delay_s` or, where that is None, ever later."""

    def __init__(self, reason: str, delay_s: float | None = None) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


def queries(driver: AsyncpgDriver | AsyncpgPoolDriver) -> Queries:
    """The queue's statements."""
    return Queries(
        driver,
        qbe=QueryBuilderEnvironment(_SETTINGS),
        qbq=QueryQueueBuilder(_SETTINGS),
        qbs=QuerySchedulerBuilder(_SETTINGS),
    )


async def enqueue(connection: Connection, queue: str, ids: Sequence[UUID], *, once: bool = True) -> None:
    """Make a job for each id, in the connection's transaction; with `once` only where it has none."""
    if ids:
        count = len(ids)
        await queries(AsyncpgDriver(cast("Any", connection))).enqueue(
            [queue] * count,
            [str(one).encode() for one in ids],
            [0] * count,
            dedupe_key=[f"{queue}:{one}" if once else None for one in ids],
            on_conflict="skip",
        )


async def queued(connection: Connection, queue: str, ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that a job waits for; one that runs, or that somebody died over, does not count."""
    rows = await connection.fetch(_SELECT_QUEUED, queue, [str(one).encode() for one in ids])
    return {UUID(row["id"]) for row in rows}


class Manager(QueueManager):
    """pgqueuer's, but for its first look at whether NOTIFY arrives, which it takes before it listens."""

    async def listener_healthy(self, timeout: timedelta = _HEALTHY) -> HealthCheckEvent:
        """Ask a second time before the listener counts as broken. Raises FailingListenerError."""
        try:
            return await super().listener_healthy(timeout=timeout / 10)
        except FailingListenerError:
            return await super().listener_healthy(timeout=timeout)


class JobRunner:
    """Runs the jobs of one queue for as long as `run` is not cancelled.

    queue: its name, which the log lines begin with. work: is given each job's id. at_once: how many the work has room
    for. So many more are at hand (HEADROOM times as many at most) that it has some while pgqueuer asks for more, and
    says what is done, which is up to 0.1 s late.
    """

    def __init__(self, pool: Pool, queue: str, work: Callable[[UUID], Awaitable[None]], *, at_once: int = 4) -> None:
        self._pool = pool
        self._queue = queue
        self._work = work
        self._batch = HEADROOM // 2 * at_once
        self._working: set[asyncio.Task[None]] = set()
        self.done: dict[str, int] = {"done": 0, "retried": 0, "failed": 0}

    async def run(self) -> None:
        """Never returns; a database that is away is waited for."""
        logging.getLogger("pgqueuer").setLevel(logging.CRITICAL)  # what it says, we say with the row's id
        while True:
            manager = Manager(queries(AsyncpgPoolDriver(self._pool)))
            manager.entrypoint(self._queue)(self._run)
            running = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=_POLL_S),
                    batch_size=self._batch,
                    max_concurrent_tasks=2 * self._batch,
                    shutdown_on_listener_failure=True,
                    heartbeat_timeout=timedelta(seconds=HEARTBEAT_S),
                )
            )
            try:
                await asyncio.wait({running})  # a cancellation leaves it alone: it would wait for its jobs, for ever
                running.result()
            except asyncio.CancelledError:
                manager.shutdown.set()
                for work in self._working:
                    work.cancel()
                await asyncio.wait({running}, timeout=_STOP_S)
                running.cancel()
                raise
            except Exception as error:
                level = log.warning if of_the_server(error) else log.error
                level(f"{self._queue}.queue_away", error=summary(error), again_in_s=_AGAIN_S)
            await asyncio.sleep(_AGAIN_S)

    async def _run(self, job: Job) -> None:
        id_ = UUID((job.payload or b"").decode())
        work = asyncio.ensure_future(self._work(id_))
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        try:
            await work
        except asyncio.CancelledError:  # we stop: the next start goes on with it
            raise _again(job, Later("the daemon stopped", 0.0)) from None
        except Later as later:
            self.done["retried"] += 1
            raise _again(job, later) from later
        except Exception as error:  # ours or the database's: the job is not given up for it
            self.done["failed"] += 1
            if not of_the_server(error):
                log.exception(f"{self._queue}.job_failed", job_of=str(id_))
            raise _again(job, Later(summary(error))) from error
        self.done["done"] += 1

    async def due(self) -> int:
        """Jobs that run, or are to be run within the next minute. Raises as asyncpg does."""
        return int(await self._pool.fetchval(_COUNT_DUE, self._queue))


def _again(job: Job, later: Later) -> RetryRequested:
    delay_s = later.delay_s
    if delay_s is None:
        delay_s = min(2.0 ** min(job.attempts, 16), LONGEST_DELAY_S)
    return RetryRequested(delay=timedelta(seconds=delay_s), reason=str(later))
