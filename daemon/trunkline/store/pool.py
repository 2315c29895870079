"""Connections to PostgreSQL: settings that hold for every one of them, and row level security for the API's.

A Pool is opened without a connection, so that a database which is down at the start is nothing special.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from trunkline.store.row_security import ACCOUNT_SETTING, API_ROLE, NAME_SETTING

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


_ENTER: Final = f"""
SELECT set_config('role', '{API_ROLE}', false),
    set_config('{ACCOUNT_SETTING}', coalesce((SELECT id::text FROM account WHERE name = $1), ''), false)
"""


class NoRowSecurity(asyncpg.InterfaceError):
    """The API's role cannot be taken, so the database is not used at all."""

    sqlstate = "42501"


class _OfAccount(asyncpg.Connection):
    """A connection that is to see one account only."""

    entered = False

    async def enter(self, account: str) -> None:
        """Take the API's role and name the account; at each use until there is one. Raises NoRowSecurity."""
        if self.entered:
            return
        try:
            found = await self.fetchrow(_ENTER, account)
        except asyncpg.UndefinedTableError:
            return  # a database without a schema: /readyz says so
        except (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError) as error:
            raise NoRowSecurity(f"the role {API_ROLE} cannot be taken: {error}") from error
        self.entered = found is not None and found[1] != ""


async def open_pool(
    url: str, *, max_size: int = 4, connect_timeout: float = 5, reading: bool = False, account: str | None = None
) -> Pool:
    """A pool that has not connected yet; times in seconds. A connection that broke meanwhile is replaced when used.

    `reading` is for the API: a statement may take 8 s, and a connection goes back without the round trip that would
    clear its session, in which nobody leaves anything. `account`: the name of the one account whose rows its
    connections see, by row level security; None: they see all that the role of the URL sees.

    Raises ValueError when `url` is no URL of a PostgreSQL database.
    """
    settings = dict(_READING if reading else _WRITING)
    enter = None
    if account is not None:
        settings[NAME_SETTING] = account

        async def enter(connection: Any) -> None:
            await connection.enter(account)

    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=max_size,
        timeout=connect_timeout,
        max_inactive_connection_lifetime=300 if reading else 0,
        server_settings=settings,
        connection_class=asyncpg.Connection if account is None else _OfAccount,
        setup=enter,
        reset=_leave if reading else None,
    )


@asynccontextmanager
async def in_transaction(database: Connection | Pool) -> AsyncIterator[Connection]:
    """A transaction: on a connection of the pool, or within the one that the connection is in already."""
    if isinstance(database, asyncpg.Pool):
        async with database.acquire() as connection, connection.transaction():
            yield connection
    else:
        async with database.transaction():
            yield database


def raise_if_cancelled() -> None:
    """For who goes on after every error: give way where this task was cancelled.

    A connection that is hung up on while a cancellation waits for it raises its own error in the cancellation's place.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _leave(connection: Connection) -> None:
    """Clear nothing."""
