"""The queue of recordings (store/jobs.py): every recording has at most one job, made with its row."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

from trunkline.store import jobs
from trunkline.store.jobs import HEARTBEAT_S, LONGEST_DELAY_S, SCHEMA, Later, Manager, queries
from trunkline.store.pool import Connection, Pool

__all__ = [
    "HEARTBEAT_S",
    "LONGEST_DELAY_S",
    "QUEUE",
    "SCHEMA",
    "JobRunner",
    "Later",
    "Manager",
    "enqueue_recordings",
    "queries",
]

QUEUE: Final = "recordings"


async def enqueue_recordings(connection: Connection, recording_ids: Sequence[UUID]) -> None:
    """Make a job for each recording that has none, in the connection's transaction."""
    await jobs.enqueue(connection, QUEUE, recording_ids)


class JobRunner(jobs.JobRunner):
    """Runs the jobs of recordings."""

    def __init__(self, pool: Pool, work: Callable[[UUID], Awaitable[None]], *, at_once: int = 4) -> None:
        super().__init__(pool, QUEUE, work, at_once=at_once)
