"""Rows of `call`, `call_leg` and `call_alias` as a CallRecord: the one mapping, for the API's queries and for adoption.

A row may come from asyncpg (jsonb as text) or from SQLAlchemy (jsonb decoded); both are mappings by column name.
"""

from collections.abc import Iterable
from enum import StrEnum
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
    QueueVisit,
    RecordingRef,
    Role,
    Status,
    Transfer,
)

T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)
R = TypeVar("R", bound=CallRecord)


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
    "diverted_from", "forwarded_from", "recordings", "queue_visits", "quality", "revision", "metadata", "created_at",
)  # fmt: skip
# Every column of `call_leg` that leg_of_row reads; select them ordered by position.
LEG_COLUMNS: Final = (
    "channel_id", "endpoint", "party", "role", "started_at", "answered_at", "ended_at", "dial_status", "hangup_cause",
    "end_reason",
)  # fmt: skip


def _words(words: type[W]) -> dict[str | None, W]:
    """An enum's members as the database holds them: a look-up, for it is done for every row of a page."""
    return {word.value.lower(): word for word in words}


def _words_or_none(words: type[W]) -> dict[str | None, W | None]:
    return {**_words(words), None: None}


_EMPTY: Final = "[]"  # what most lists are, as jsonb text
_DIRECTION: Final = _words(Direction)
_STATUS: Final = _words(Status)
_END_REASON: Final = _words_or_none(EndReason)
_ENDED_BY: Final = _words_or_none(EndedBy)
_QUALITY: Final = _words(Quality)
_ROLE: Final = _words(Role)
_LEG_END: Final = _words_or_none(LegEnd)


class Call(CallRecord, rename="camel", kw_only=True):
    """A Call with what people have made of it."""

    notes: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    disposition: str | None = None  # what came of it, in the account's own words


class _Note(msgspec.Struct, array_like=True):
    """What `CALL_NOTE` selects."""

    notes: str
    tags: list[str]
    disposition: str | None


# A call's note as jsonb; NULL where it has none.
CALL_NOTE: Final = """(SELECT jsonb_build_array(call_note.notes, call_note.tags, call_note.disposition) FROM call_note
          WHERE call_note.call_id = call.id AND call_note.account_id = call.account_id)"""
_note: Final = msgspec.json.Decoder(_Note).decode


def call_of_row(row: Row, *, legs: Iterable[Row] = (), aliases: Iterable[str] = ()) -> Call:
    """As record_of_row; the row has also CALL_NOTE, as `note`."""
    call = _made_of(Call, row, legs, aliases)
    if row["note"] is not None:
        note = _note(row["note"])
        call.notes, call.tags, call.disposition = note.notes, note.tags, note.disposition
    return call


def record_of_row(row: Row, *, legs: Iterable[Row] = (), aliases: Iterable[str] = ()) -> CallRecord:
    """The Call of a row of `call`, with its rows of `call_leg` in order of position and its aliases."""
    return _made_of(CallRecord, row, legs, aliases)


def _made_of(kind: type[R], row: Row, legs: Iterable[Row], aliases: Iterable[str]) -> R:
    return kind(
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
        direction=_DIRECTION[row["direction"]],
        status=_STATUS[row["status"]],
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
        end_reason=_END_REASON[row["end_reason"]],
        ended_by=_ENDED_BY[row["ended_by"]],
        answered_by=row["answered_by"],
        last_party=row["last_party"],
        rang=list(row["rang"]),
        queue=row["queue"],
        queue_wait_seconds=row["queue_wait_seconds"],
        queue_position=row["queue_position"],
        transfers=[] if row["transfers"] == _EMPTY else _list(row["transfers"], list[Transfer]),
        holds=[] if row["holds"] == _EMPTY else _list(row["holds"], list[Hold]),
        parked=[] if row["parked"] == _EMPTY else _list(row["parked"], list[Parking]),
        conference=row["conference"],
        participants=list(row["participants"]),
        digits=row["digits"],
        diverted_from=row["diverted_from"],
        forwarded_from=row["forwarded_from"],
        recordings=[] if row["recordings"] == _EMPTY else _list(row["recordings"], list[RecordingRef]),
        queue_visits=[] if row["queue_visits"] == _EMPTY else _list(row["queue_visits"], list[QueueVisit]),
        legs=[leg_of_row(leg) for leg in legs],
        quality=_QUALITY[row["quality"]],
        revision=row["revision"],
    )


def leg_of_row(row: Row) -> Leg:
    """The Leg of a row of `call_leg`."""
    return Leg(
        channel_id=row["channel_id"],
        endpoint=row["endpoint"],
        party=row["party"],
        role=_ROLE[row["role"]],
        started_at=row["started_at"],
        answered_at=row["answered_at"],
        ended_at=row["ended_at"],
        dial_status=row["dial_status"],
        hangup_cause=row["hangup_cause"],
        end_reason=_LEG_END[row["end_reason"]],
    )


def _id(value: object) -> str | None:
    return None if value is None else str(value)


def _list(value: Any, kind: type[list[T]]) -> list[T]:
    return _json(value, kind) or []


def _json(value: Any, kind: type[T]) -> T | None:
    if value is None:
        return None
    if isinstance(value, str | bytes):
        return msgspec.json.decode(value, type=kind)
    return msgspec.convert(value, kind)
