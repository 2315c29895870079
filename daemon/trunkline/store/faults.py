"""What a failure of PostgreSQL means: the server is away, or this one record can't be stored."""

import asyncio
from typing import Final

import asyncpg

# SQLSTATE classes that a record causes, whatever the state of the server: its data (22), constraints (23), the same key
# twice (21), a row too wide for an index (54), a trigger's refusal (P0), a fault inside the server met by one row (XX).
_OF_THE_RECORD: Final = frozenset({"21", "22", "23", "44", "54", "P0", "XX"})

_ADVICE: Final = {
    "28": "the database refuses the login: check user and password in database.url, and pg_hba.conf",
    "3D": "the database does not exist: create it, or correct database.url",
    "42": "the schema does not fit this version, or rights are missing: run `trunkline migrate` as the tables' owner",
    "3F": "the schema does not fit this version: run `trunkline migrate`",
    "53": "the server is out of connections, memory or disk: see its log",
    "25": "the server is read-only, a standby perhaps: point database.url at the primary",
}
_ADVICE_ELSE: Final = "check that PostgreSQL runs and that database.url reaches it"


def of_the_record(error: BaseException) -> bool:
    """Whether writing the same again would fail again, and another record would not."""
    if isinstance(error, asyncpg.DeadlockDetectedError | asyncpg.SerializationError):
        return False
    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, TypeError | ValueError | OverflowError) and not isinstance(
            error, asyncpg.InterfaceError
        )
    return state[:2] in _OF_THE_RECORD


def of_the_server(error: BaseException) -> bool:
    """Whether the database can't be written for now, so that the same write is to be tried again later."""
    if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return not of_the_record(error)
    return isinstance(error, OSError | asyncio.TimeoutError)


def advice(error: BaseException) -> str:
    """What an admin should do about a server that is away."""
    return _ADVICE.get((getattr(error, "sqlstate", None) or "")[:2], _ADVICE_ELSE)
