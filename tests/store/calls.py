"""Calls for the tests of the store: a plain inbound one, and what may differ."""

from datetime import UTC, datetime, timedelta
from typing import Any

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Leg, Role, Status

START = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)


def record(external_id: str = "pbx1-1767225600.1", revision: int = 1, **fields: Any) -> CallRecord:
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


def ringing(external_id: str = "pbx1-1767225600.1", revision: int = 1, **fields: Any) -> CallUpdate:
    return CallUpdate(record(external_id, revision, **fields), ("call.ringing",))


def answered(external_id: str = "pbx1-1767225600.1", revision: int = 2, **fields: Any) -> CallUpdate:
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


def ended(external_id: str = "pbx1-1767225600.1", revision: int = 3, **fields: Any) -> CallUpdate:
    over = {
        "status": Status.COMPLETED,
        "answered_at": START + timedelta(seconds=5),
        "ended_at": START + timedelta(seconds=65),
        "duration": 65,
    }
    return CallUpdate(record(external_id, revision, **over | fields), ("call.ended",))
