"""Rows of `call`, `call_leg` and `call_alias` as a CallRecord: the one mapping, for the API's queries and for adoption.

A row may come from asyncpg (jsonb as text) or from SQLAlchemy (jsonb decoded); both are mappings by column name.
"""

from collections.abc import Iterable
from typing import Any, Final, Protocol, TypeVar

import msgspec

from trunkline.calls.record import (
    CallRecord,
    Direction,
    EndedBy,
    EndReason,
    Hold,
    Leg,
    LegEnd,
    Parking,
    Quality,
    RecordingRef,
    Role,
    Status,
    Transfer,
)

T = TypeVar("T")


class Row(Protocol):
    """A row by column name, whichever library it comes from."""

    def __getitem__(self, column: str, /) -> Any: ...


# Every column of `call` that record_of_row reads, in the table's order.
CALL_COLUMNS: Final = (
    "id", "account_id", "integration_id", "lead_id", "conversation_id", "recording_id", "pbx", "external_id",
    "channel_id", "direction", "status", "from_number", "to_number", "phone_number", "from_e164", "to_e164",
    "from_private", "caller_name", "started_at", "answered_at", "ended_at", "duration", "wait_seconds",
    "talk_seconds", "hold_seconds", "end_reason", "ended_by", "answered_by", "last_party", "rang", "queue",
    "queue_wait_seconds", "queue_position", "transfers", "holds", "parked", "conference", "participants", "digits",
    "diverted_from", "forwarded_from", "recordings", "quality", "revision", "metadata", "created_at",
)  # fmt: skip
# Every column of `call_leg` that leg_of_row reads; select them ordered by position.
LEG_COLUMNS: Final = (
    "channel_id", "endpoint", "party", "role", "started_at", "answered_at", "ended_at", "dial_status", "hangup_cause",
    "end_reason",
)  # fmt: skip


def record_of_row(row: Row, *, legs: Iterable[Row] = (), aliases: Iterable[str] = ()) -> CallRecord:
    """The Call of a row of `call`, with its rows of `call_leg` in order of position and its aliases."""
    return CallRecord(
        id=str(row["id"]),
        account_id=str(row["account_id"]),
        integration_id=_id(row["integration_id"]),
        lead_id=_id(row["lead_id"]),
        conversation_id=_id(row["conversation_id"]),
        recording_id=_id(row["recording_id"]),
        metadata=_json(row["metadata"], dict[str, Any]),
        created_at=row["created_at"],
        pbx=row["pbx"],
        external_id=row["external_id"] or "",
        aliases=list(aliases),
        channel_id=row["channel_id"],
        direction=Direction(row["direction"].upper()),
        status=Status(row["status"].upper()),
        from_=row["from_number"],
        to=row["to_number"],
        phone_number=row["phone_number"],
        from_e164=row["from_e164"],
        to_e164=row["to_e164"],
        from_private=row["from_private"],
        caller_name=row["caller_name"],
        started_at=row["started_at"],
        answered_at=row["answered_at"],
        ended_at=row["ended_at"],
        duration=row["duration"],
        wait_seconds=row["wait_seconds"],
        talk_seconds=row["talk_seconds"],
        hold_seconds=row["hold_seconds"],
        end_reason=None if row["end_reason"] is None else EndReason(row["end_reason"].upper()),
        ended_by=None if row["ended_by"] is None else EndedBy(row["ended_by"].upper()),
        answered_by=row["answered_by"],
        last_party=row["last_party"],
        rang=list(row["rang"]),
        queue=row["queue"],
        queue_wait_seconds=row["queue_wait_seconds"],
        queue_position=row["queue_position"],
        transfers=_json(row["transfers"], list[Transfer]) or [],
        holds=_json(row["holds"], list[Hold]) or [],
        parked=_json(row["parked"], list[Parking]) or [],
        conference=row["conference"],
        participants=list(row["participants"]),
        digits=row["digits"],
        diverted_from=row["diverted_from"],
        forwarded_from=row["forwarded_from"],
        recordings=_json(row["recordings"], list[RecordingRef]) or [],
        legs=[leg_of_row(leg) for leg in legs],
        quality=Quality(row["quality"].upper()),
        revision=row["revision"],
    )


def leg_of_row(row: Row) -> Leg:
    """The Leg of a row of `call_leg`."""
    return Leg(
        channel_id=row["channel_id"],
        endpoint=row["endpoint"],
        party=row["party"],
        role=Role(row["role"].upper()),
        started_at=row["started_at"],
        answered_at=row["answered_at"],
        ended_at=row["ended_at"],
        dial_status=row["dial_status"],
        hangup_cause=row["hangup_cause"],
        end_reason=None if row["end_reason"] is None else LegEnd(row["end_reason"].upper()),
    )


def _id(value: object) -> str | None:
    return None if value is None else str(value)


def _json(value: Any, kind: type[T]) -> T | None:
    if value is None:
        return None
    if isinstance(value, str | bytes):
        return msgspec.json.decode(value, type=kind)
    return msgspec.convert(value, kind)
