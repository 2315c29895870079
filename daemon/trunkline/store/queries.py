"""What the API reads of calls. Every statement names the account; no value is ever part of a statement's text.

A page has to come in 20 ms from a million calls whatever the filter, so no statement may walk past calls that it will
not return. PostgreSQL keeps an index in order only behind columns that are fixed, therefore each page is gathered from
*runs*: one per (number column, direction, status) that the filter allows, each an ordered slice of one index, cut at
the page's size, then merged. At most 4 x 3 x 10 runs, a few microseconds each when empty.

Only `from` and `to` together have to look at calls that they may not return: all of the customer's, who is the rarer of
the two. The planner is not left to choose there: the wrong index took 28 s.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from trunkline.calls.record import Direction, Status
from trunkline.store.pool import Connection, Pool
from trunkline.store.rows import CALL_COLUMNS, CALL_NOTE, LEG_COLUMNS, Call, Row, call_of_row

MAX_LIMIT: Final = 200
# A LIMIT given as a parameter would have the planner guess a tenth of the table: each of these is planned once instead.
_LIMITS: Final = (26, 51, 101, MAX_LIMIT + 1)
_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_NO_ID: Final = UUID(int=0)  # sorts before every id: (t, _NO_ID) is just before whatever started at t


class Position(NamedTuple):
    """Where a page ended: the sort key of its last call."""

    started_at: datetime
    id: UUID


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls; what is empty or None does not narrow. Numbers match exactly, as the PBX saw them or in E.164."""

    statuses: tuple[Status, ...] = ()
    directions: tuple[Direction, ...] = ()
    from_: str | None = None
    to: str | None = None
    number: str | None = None  # either side; not together with from_ or to
    since: datetime | None = None  # started at or after
    until: datetime | None = None  # started before


class Page(NamedTuple):
    """Calls, newest first; `end` is where the next page starts, None when this was the last one."""

    calls: list[Call]
    end: Position | None


_CALL: Final = (
    ", ".join(f"call.{column}" for column in CALL_COLUMNS)
    + f""",
       {CALL_NOTE} AS note,
       ARRAY(SELECT call_alias.external_id
               FROM call_alias
              WHERE call_alias.call_id = call.id
                AND call_alias.account_id = call.account_id
              ORDER BY call_alias.created_at, call_alias.external_id) AS aliases"""
)

_SELECT_CALLS: Final = f"""
SELECT {_CALL}
  FROM call
 WHERE account_id = $1
   AND (started_at, id) < ($2::timestamptz, $3::uuid)
   AND started_at >= $4::timestamptz
 ORDER BY started_at DESC, id DESC
 LIMIT %(limit)d
"""

_SELECT_CALLS_BY_RUNS: Final = f"""
SELECT {_CALL}
  FROM (
        SELECT started_at, id
          FROM (%(runs)s) AS found
         GROUP BY started_at, id
         ORDER BY started_at DESC, id DESC
         LIMIT %(limit)d
       ) AS page
  JOIN call ON call.id = page.id
 ORDER BY page.started_at DESC, page.id DESC
"""

_RUN: Final = """
SELECT run.started_at, run.id
  FROM unnest($5::text[]) AS d(direction)
 CROSS JOIN unnest($6::text[]) AS s(status)
 CROSS JOIN LATERAL (
        SELECT started_at, id
          FROM call
         WHERE account_id = $1
           AND (started_at, id) < ($2::timestamptz, $3::uuid)
           AND started_at >= $4::timestamptz
           AND direction = d.direction
           AND status = s.status
           %(numbers)s
         ORDER BY started_at DESC, id DESC
         LIMIT %(limit)d
       ) AS run
"""

# OFFSET 0 keeps the other side's number out of the choice of an index.
_RUN_OF_PAIR: Final = """
SELECT run.started_at, run.id
  FROM unnest($5::text[]) AS d(direction)
 CROSS JOIN unnest($6::text[]) AS s(status)
 CROSS JOIN LATERAL (
        SELECT started_at, id
          FROM (
                SELECT started_at, id, %(others)s
                  FROM call
                 WHERE account_id = $1
                   AND (started_at, id) < ($2::timestamptz, $3::uuid)
                   AND started_at >= $4::timestamptz
                   AND direction = d.direction
                   AND status = s.status
                   AND %(number)s
                 ORDER BY started_at DESC, id DESC
                OFFSET 0
               ) AS customers
         WHERE %(other)s IN (%(others)s)
         ORDER BY started_at DESC, id DESC
         LIMIT %(limit)d
       ) AS run
 WHERE %(directions)s
"""

_SELECT_LEGS: Final = f"""
SELECT call_id, {", ".join(LEG_COLUMNS)}
  FROM call_leg
 WHERE call_id = ANY($1::uuid[])
   AND account_id = $2
 ORDER BY call_id, position
"""

# The coalesce is in a SELECT of its own: beside `id =` PostgreSQL takes it for leaky, and behind row level security it
# would read all of the account's calls before it asked which of them it is.
_SELECT_CALL: Final = f"""
SELECT {_CALL}
  FROM call
 WHERE account_id = $1
   AND id = (SELECT coalesce(
        (SELECT call_id FROM call_alias WHERE account_id = $1 AND folded_id = $2 LIMIT 1),
        $2
       ))
"""

# Which columns hold a filter's number: as the PBX saw it, and in E.164.
_NUMBER_COLUMNS: Final = {
    "from": ("from_number", "from_e164"),
    "to": ("to_number", "to_e164"),
    "number": ("from_number", "from_e164", "to_number", "to_e164"),
}


async def select_account(connection: Connection | Pool, name: str) -> UUID | None:
    """Return the id of the account of that name; None when there is none yet."""
    found: UUID | None = await connection.fetchval("SELECT id FROM account WHERE name = $1", name)
    return found


async def select_migration(connection: Connection | Pool) -> str | None:
    """Return the revision that the database's schema is at; None when no migration was ever applied."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return found


async def select_calls(
    connection: Connection | Pool,
    account_id: UUID,
    narrow: CallFilter,
    *,
    limit: int,
    after: Position | None = None,
    legs: bool = False,
) -> Page:
    """Return one page of an account's calls, newest first; `limit` is 1 to MAX_LIMIT, `legs` fills in their legs.

    Calls that begin while somebody goes through the pages come before the first one: they shift nothing.
    """
    statement, arguments = _statement(account_id, narrow, limit, after)
    rows: list[Any] = await connection.fetch(statement, *arguments)
    end = None
    if len(rows) > limit:
        rows = rows[:limit]
        end = Position(rows[-1]["started_at"], rows[-1]["id"])
    legs_of = await _select_legs(connection, account_id, [row["id"] for row in rows]) if legs else {}
    return Page([call_of_row(row, legs=legs_of.get(row["id"], ()), aliases=row["aliases"]) for row in rows], end)


async def select_call(connection: Connection | Pool, account_id: UUID, call_id: UUID) -> Call | None:
    """Return one call of an account with its legs and aliases; None when the account has none of this id.

    The id of a call that was folded into another one gives that other one.
    """
    row: Any = await connection.fetchrow(_SELECT_CALL, account_id, call_id)
    if row is None:
        return None
    found: UUID = row["id"]
    legs_of = await _select_legs(connection, account_id, [found])
    return call_of_row(row, legs=legs_of.get(found, ()), aliases=row["aliases"])


async def _select_legs(connection: Connection | Pool, account_id: UUID, ids: list[UUID]) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = {}
    rows: list[Any] = await connection.fetch(_SELECT_LEGS, ids, account_id)
    for row in rows:
        found.setdefault(row["call_id"], []).append(row)
    return found


def _statement(
    account_id: UUID, narrow: CallFilter, limit: int, after: Position | None
) -> tuple[str, Sequence[object]]:
    """Choose the statement for a filter, and its arguments in order."""
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit {limit}: 1 to {MAX_LIMIT} calls to a page")
    at_most = next(rows for rows in _LIMITS if rows > limit)
    before = Position(narrow.until or _LAST, _NO_ID)
    if after is not None:
        before = min(before, after)
    arguments: list[object] = [account_id, before.started_at, before.id, narrow.since or _FIRST]
    if narrow == _by_time(narrow):
        return _SELECT_CALLS % {"limit": at_most}, arguments
    arguments.append([direction.lower() for direction in narrow.directions or Direction])
    arguments.append([status.lower() for status in narrow.statuses or Status])
    match narrow.from_, narrow.to, narrow.number:
        case None, None, None:
            runs = [_RUN % {"numbers": "", "limit": at_most}]
        case str() as from_, str() as to, None:
            arguments += [from_, to]
            runs = _pair("from", "$7", "to", "$8", "d.direction <> 'outbound'", at_most)
            runs += _pair("to", "$8", "from", "$7", "d.direction = 'outbound'", at_most)
        case str() as value, None, None:
            arguments.append(value)
            runs = _one("from", at_most)
        case None, str() as value, None:
            arguments.append(value)
            runs = _one("to", at_most)
        case None, None, str() as value:
            arguments.append(value)
            runs = _one("number", at_most)
        case _:
            raise ValueError("number is either side: it goes neither with from_ nor with to")
    return _SELECT_CALLS_BY_RUNS % {"runs": " UNION ALL ".join(runs), "limit": at_most}, arguments


def _by_time(narrow: CallFilter) -> CallFilter:
    return CallFilter(since=narrow.since, until=narrow.until)


def _one(side: str, limit: int) -> list[str]:
    return [_RUN % {"numbers": f"AND {column} = $7", "limit": limit} for column in _NUMBER_COLUMNS[side]]


def _pair(side: str, place: str, other: str, other_place: str, directions: str, limit: int) -> list[str]:
    """The runs of the calls whose customer is on `side`."""
    return [
        _RUN_OF_PAIR
        % {
            "number": f"{column} = {place}",
            "others": ", ".join(_NUMBER_COLUMNS[other]),
            "other": other_place,
            "directions": directions,
            "limit": limit,
        }
        for column in _NUMBER_COLUMNS[side]
    ]
