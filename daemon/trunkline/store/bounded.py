"""A transaction that is over by its deadline, one way or another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trunkline.store.faults import of_the_server
from trunkline.store.pool import Connection, Pool


@asynccontextmanager
async def bounded_transaction(pool: Pool, deadline_s: float) -> AsyncIterator[Connection]:
    """A connection in a transaction. Raises TimeoutError where it takes longer: the server counts as away then."""
    async with pool.acquire(timeout=deadline_s) as connection:
        # A server that hangs is left by cutting the connection: asking it to cancel would wait for it, too.
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(deadline_s, connection.terminate)
        try:
            async with connection.transaction(isolation="read_committed"):
                yield connection
        except Exception as error:
            if loop.time() < deadline.when() or not of_the_server(error):
                raise
            raise TimeoutError(f"a write was not done within {deadline_s:g} s") from error
        finally:
            deadline.cancel()
