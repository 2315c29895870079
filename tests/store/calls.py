"""Calls for the tests of the store: a plain inbound one, what may differ, and how it is read back."""

from datetime import UTC, datetime, timedelta
from typing import Any

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Leg, Role, Status
from trunkline.store.pool import Pool
from trunkline.store.rows import LEG_COLUMNS, record_of_row

A = "pbx1-1767225600.1"
B = "pbx1-1767225600.7"
START = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)


def record(external_id: str = A, revision: int = 1, **fields: Any) -> CallRecord:
    """An inbound call of +15551234567 to +442070001001 that rings, unless `fields` say otherwise."""
    plain: dict[str, Any] = {
        "pbx": "pbx1",
        "channel_id": external_id,
        "direction": Direction.INBOUND,
        "status": Status.RINGING,
        "from_": "15551234567",
        "to": "442070001001",
        "phone_number": "15551234567",
        "from_e164": "+15551234567",
        "to_e164": "+442070001001",
        "caller_name": "Jane",
        "started_at": START,
        "legs": [leg(external_id)],
    }
    return CallRecord(external_id=external_id, revision=revision, **plain | fields)


def leg(channel_id: str, **fields: Any) -> Leg:
    """A leg of the caller."""
    plain = {"endpoint": "PJSIP/trunk", "party": "15551234567", "role": Role.CALLER, "started_at": START}
    return Leg(channel_id=channel_id, **plain | fields)


def ringing(external_id: str = A, revision: int = 1, **fields: Any) -> CallUpdate:
    return CallUpdate(record(external_id, revision, **fields), ("call.ringing",))


def answered(external_id: str = A, revision: int = 2, **fields: Any) -> CallUpdate:
    talking = {
        "status": Status.IN_PROGRESS,
        "answered_at": START + timedelta(seconds=5),
        "answered_by": "1001",
        "wait_seconds": 5,
        "legs": [
            leg(external_id, answered_at=START + timedelta(seconds=5)),
            leg(external_id + "9", endpoint="PJSIP/1001", party="1001", role=Role.AGENT, dial_status="ANSWER"),
        ],
    }
    return CallUpdate(record(external_id, revision, **talking | fields), ("call.answered",))


def ended(external_id: str = A, revision: int = 3, **fields: Any) -> CallUpdate:
    over = {
        "status": Status.COMPLETED,
        "answered_at": START + timedelta(seconds=5),
        "ended_at": START + timedelta(seconds=65),
        "duration": 65,
    }
    return CallUpdate(record(external_id, revision, **over | fields), ("call.ended",))


async def stored(pool: Pool, external_id: str = A) -> CallRecord:
    """The Call of a row, read back by the mapping that the API uses."""
    row = await pool.fetchrow("SELECT * FROM call WHERE external_id = $1", external_id)
    assert row is not None
    legs = await pool.fetch(
        f"SELECT {', '.join(LEG_COLUMNS)} FROM call_leg WHERE call_id = $1 ORDER BY position", row["id"]
    )
    aliases = await pool.fetch("SELECT external_id FROM call_alias WHERE call_id = $1 ORDER BY 1", row["id"])
    return record_of_row(row, legs=legs, aliases=[alias["external_id"] for alias in aliases])


async def count(pool: Pool, table: str) -> int:
    return await pool.fetchval(f"SELECT count(*) FROM {table}")


async def events(pool: Pool) -> list[tuple[int, str, str]]:
    """(number, type, externalId) of all events of calls, in order; checks that the sequence has no gap."""
    rows = await pool.fetch("SELECT seq, type, data->'call'->>'externalId' AS call FROM event ORDER BY account_id, seq")
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    of_calls = [row for row in rows if row["type"].startswith("call.")]
    return [(n, row["type"], row["call"]) for n, row in enumerate(of_calls, 1)]
