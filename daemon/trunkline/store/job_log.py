"""The log of the queues that jobs.py runs; without pgqueuer, which a process loads once it has a job."""

from trunkline.store.pool import Connection, Pool


async def purge_log(database: Connection | Pool) -> None:
    """Forget what became of jobs a month ago; pgqueuer itself keeps it for ever."""
    await database.execute("DELETE FROM jobs.pgqueuer_log WHERE created < now() - interval '30 days'")
