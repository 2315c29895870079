"""The events table as its readers see it: one sequence an account, in the order of the commits, without a gap.

A reader keeps the `seq` of the last event it has handled and asks for what is after it; it never misses one and never
sees one twice, also while several writers commit. NOTIFY on CHANNEL ("ACCOUNT_ID LAST_SEQ") says when to ask.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from trunkline.store.pool import Connection, Pool

CHANNEL: Final = "trunkline_event"

_SELECT_EVENTS: Final = """
SELECT seq, type, call_id, lead_id, conversation_id, data, created_at
FROM event
WHERE account_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3
"""

# $1 the account, $2 how many; then each event's type, data and subjects. As writer_sql.INSERT_EVENTS numbers them: the
# row lock on the cursor is held until the commit, which has to be next.
_INSERT_EVENTS: Final = """
WITH cursor AS (
    INSERT INTO event_cursor AS held (account_id, last_seq) VALUES ($1, $2)
    ON CONFLICT (account_id) DO UPDATE SET last_seq = held.last_seq + excluded.last_seq
    RETURNING last_seq
), written AS (
    INSERT INTO event (account_id, seq, type, data, call_id, lead_id, conversation_id)
    SELECT $1, cursor.last_seq - $2 + told.n, told.type, told.data, told.call_id, told.lead_id, told.conversation_id
    FROM cursor CROSS JOIN unnest($3::text[], $4::jsonb[], $5::uuid[], $6::uuid[], $7::uuid[])
        WITH ORDINALITY AS told (type, data, call_id, lead_id, conversation_id, n)
)
SELECT pg_notify('trunkline_event', $1::text || ' ' || last_seq::text) FROM cursor
"""


class NewEvent(NamedTuple):
    """An event to be written. data: a JSON object."""

    type: str
    data: bytes
    call_id: UUID | None = None
    lead_id: UUID | None = None
    conversation_id: UUID | None = None


class StoredEvent(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One event. `data` holds its subject as it was then: docs/api.md."""

    seq: int
    type: str
    call_id: UUID | None
    lead_id: UUID | None
    conversation_id: UUID | None
    data: dict[str, Any]
    created_at: datetime


class EventLine(NamedTuple):
    """An event as it goes out: JSON, and what readers choose by."""

    seq: int
    type: str
    parties: frozenset[str]  # the extensions that it concerns
    json: bytes


class _Line(msgspec.Struct, rename="camel", frozen=True):
    """StoredEvent, its data as PostgreSQL wrote it."""

    seq: int
    type: str
    call_id: UUID | None
    lead_id: UUID | None
    conversation_id: UUID | None
    created_at: datetime
    data: msgspec.Raw


class _Concerned(msgspec.Struct, rename="camel"):
    rang: list[str] = []
    answered_by: str | None = None
    last_party: str | None = None
    direction: str = ""
    from_: str = msgspec.field(name="from", default="")
    to: str = ""


class _Agent(msgspec.Struct):
    extension: str = ""


class _Data(msgspec.Struct):
    call: _Concerned | None = None
    agent: _Agent | None = None


_encode: Final = msgspec.json.Encoder().encode
_concerned: Final = msgspec.json.Decoder(_Data).decode


async def insert_events(connection: Connection, account_id: UUID, events: Sequence[NewEvent]) -> None:
    """Write events, in order, as the last thing before the commit: everybody else of the account waits for it."""
    await connection.execute(
        _INSERT_EVENTS,
        account_id,
        len(events),
        [event.type for event in events],
        [event.data.decode() for event in events],
        [event.call_id for event in events],
        [event.lead_id for event in events],
        [event.conversation_id for event in events],
    )


async def select_event_lines(database: Connection | Pool, account_id: UUID, after: int, limit: int) -> list[EventLine]:
    """What `select_events` finds, as it goes out."""
    lines = []
    for row in await database.fetch(_SELECT_EVENTS, account_id, after, limit):
        data = row["data"].encode()
        line = _Line(**{**row, "data": msgspec.Raw(data)})
        lines.append(EventLine(line.seq, line.type, _parties(data), _encode(line)))
    return lines


def _parties(event: bytes) -> frozenset[str]:
    try:
        data = _concerned(event)
    except msgspec.ValidationError:  # not as we write it: it concerns no extension, and is told all the same
        return frozenset()
    if data.agent is not None:
        return frozenset({data.agent.extension})
    call = data.call
    if call is None:
        return frozenset()
    parties = {*call.rang, call.answered_by, call.last_party}
    parties |= {call.from_} if call.direction != "INBOUND" else set()
    parties |= {call.to} if call.direction == "INTERNAL" else set()
    return frozenset(party for party in parties if party)


async def select_last_seq(database: Connection | Pool, account_id: UUID) -> int:
    """The seq of an account's newest event; 0 where it has none."""
    found = await database.fetchval("SELECT last_seq FROM event_cursor WHERE account_id = $1", account_id)
    return int(found or 0)


async def select_events(database: Connection | Pool, account_id: UUID, after: int, limit: int) -> list[StoredEvent]:
    """At most `limit` events of an account with a seq above `after` (0: from the first), in order."""
    rows = await database.fetch(_SELECT_EVENTS, account_id, after, limit)
    return [StoredEvent(**{**row, "data": msgspec.json.decode(row["data"])}) for row in rows]
