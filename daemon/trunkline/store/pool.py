"""Connections to PostgreSQL for what writes: settings that hold for every one of them.

A Pool is opened without a connection, so that a database which is down at the start is nothing special.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = Any

_SETTINGS: Final = {
    "application_name": "trunkline",
    "timezone": "UTC",
    # The writer looks keys up. A plan made while the tables were small must not scan them once they are big.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

# The writer's connections stay open however long no call comes, for the next one must not pay for a login and cold
# plans. Keepalives every minute, sent by the server, are what tells a firewall between that they are in use.
# A statement keeps one plan: it goes by index for each row of an array, whatever its length, and planning costs more.
_WRITING: Final = {**_SETTINGS, "tcp_keepalives_idle": "60", "plan_cache_mode": "force_generic_plan"}

# Each of the API's statements is made for one index in its order; sorting all of a number's calls is never better.
_READING: Final = {**_SETTINGS, "enable_bitmapscan": "off", "statement_timeout": "8000"}


async def open_pool(url: str, *, max_size: int = 4, connect_timeout: float = 5, reading: bool = False) -> Pool:
    """A pool that has not connected yet; times in seconds. A connection that broke meanwhile is replaced when used.

    `reading` is for those who only select: a statement may take 8 s, and a connection goes back without the round trip
    that would clear its session, in which they leave nothing.

    Raises ValueError when `url` is no URL of a PostgreSQL database.
    """
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=max_size,
        timeout=connect_timeout,
        max_inactive_connection_lifetime=300 if reading else 0,
        server_settings=_READING if reading else _WRITING,
        reset=_leave if reading else None,
    )


def raise_if_cancelled() -> None:
    """For who goes on after every error: give way where this task was cancelled.

    A connection that is hung up on while a cancellation waits for it raises its own error in the cancellation's place.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _leave(connection: Connection) -> None:
    """Clear nothing."""
