"""What a failure to write means: the server is away, or this one record can't be stored."""

from typing import Final

import asyncpg

# SQLSTATE classes that a record causes, whatever the state of the server: its data (22), constraints (23), the same key
# twice (21), a view's check (44), a row too wide for an index (54), a trigger (P0), a fault that one row meets (XX).
_OF_THE_RECORD: Final = frozenset({"21", "22", "23", "44", "54", "P0", "XX"})

_ADVICE: Final = {
    "25": "the server is read-only, a standby perhaps: point database.url at the primary",
    "28": "the server refuses the login: check user and password in database.url, and pg_hba.conf",
    "3D": "the database does not exist: create it, or correct database.url",
    "3F": "the schema is missing: run `trunkline migrate`",
    "42": "the tables do not fit this version, or rights are missing: run `trunkline migrate` as their owner",
    "53": "the server is out of connections, memory or disk: see its log",
}
_ADVICE_ELSE: Final = "check that PostgreSQL runs and that database.url reaches it"


def of_the_server(error: Exception) -> bool:
    """Whether nothing can be written for now, so that the same write is to be tried again later.

    False: the same record would fail again, and others would not.
    """
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] not in _OF_THE_RECORD
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)


def advice(error: Exception) -> str:
    """What an admin should do about a server that is away."""
    return _ADVICE.get((getattr(error, "sqlstate", None) or "")[:2], _ADVICE_ELSE)


def summary(error: Exception) -> str:
    """An error in one line, without the DETAIL that PostgreSQL adds: it quotes the row."""
    lines = (str(error) if isinstance(error, OSError) else str(next(iter(error.args), ""))).splitlines()
    silent = "no answer in time" if isinstance(error, TimeoutError) else "no further word"
    return f"{type(error).__name__}: {lines[0][:200] if lines else silent}"
