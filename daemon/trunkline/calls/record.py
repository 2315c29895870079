"""CallRecord: one Call as it is stored, served by the API and printed by `trunkline replay`.

On the wire (`encode`): camelCase, times RFC 3339 UTC with Z, durations whole seconds, enums UPPERCASE.
What each field means is in docs/calls.md; the comments here give only units and what None says.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec


class Direction(StrEnum):
    INBOUND = "INBOUND"
    OUTBOUND = "OUTBOUND"
    INTERNAL = "INTERNAL"


class Status(StrEnum):
    RINGING = "RINGING"
    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    MISSED = "MISSED"
    NO_ANSWER = "NO_ANSWER"
    ABANDONED = "ABANDONED"
    VOICEMAIL = "VOICEMAIL"
    BUSY = "BUSY"
    FAILED = "FAILED"


LIVE = frozenset({Status.RINGING, Status.QUEUED, Status.IN_PROGRESS})


class EndReason(StrEnum):
    CANCELED = "CANCELED"
    RING_TIMEOUT = "RING_TIMEOUT"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    DECLINED = "DECLINED"
    UNAVAILABLE = "UNAVAILABLE"
    BUSY = "BUSY"
    CONGESTION = "CONGESTION"
    UNALLOCATED = "UNALLOCATED"
    AGENT_NO_ANSWER = "AGENT_NO_ANSWER"
    PBX_LOST = "PBX_LOST"


class EndedBy(StrEnum):
    CALLER = "CALLER"
    CALLEE = "CALLEE"
    PBX = "PBX"


class Role(StrEnum):
    CALLER = "CALLER"
    AGENT = "AGENT"
    TRANSFER_TARGET = "TRANSFER_TARGET"
    CONSULT = "CONSULT"
    PICKUP = "PICKUP"
    PARTICIPANT = "PARTICIPANT"


class LegEnd(StrEnum):
    """Why a leg ended, where the Hangup's cause alone does not say it."""

    ANSWERED_ELSEWHERE = "ANSWERED_ELSEWHERE"
    PICKED_UP = "PICKED_UP"
    RING_TIMEOUT = "RING_TIMEOUT"
    DECLINED = "DECLINED"
    BUSY = "BUSY"
    CANCELED = "CANCELED"
    CONGESTION = "CONGESTION"
    UNAVAILABLE = "UNAVAILABLE"
    UNALLOCATED = "UNALLOCATED"
    FORWARDED = "FORWARDED"
    TRANSFERRED = "TRANSFERRED"
    HANGUP = "HANGUP"
    PBX_LOST = "PBX_LOST"


class TransferKind(StrEnum):
    BLIND = "BLIND"
    ATTENDED = "ATTENDED"
    REDIRECT = "REDIRECT"


class Quality(StrEnum):
    OBSERVED = "OBSERVED"
    REPAIRED = "REPAIRED"
    ESTIMATED = "ESTIMATED"


class RecordingKind(StrEnum):
    CALL = "CALL"
    VOICEMAIL = "VOICEMAIL"
    ARI = "ARI"


class _Wire(msgspec.Struct, rename="camel", kw_only=True):
    pass


class QueueOutcome(StrEnum):
    """How a caller's time in a queue ended."""

    ANSWERED = "ANSWERED"  # an agent of the queue took him
    ABANDONED = "ABANDONED"  # he hung up
    TIMEOUT = "TIMEOUT"  # the queue gave him up
    EMPTY = "EMPTY"  # the queue let him go, for it had no agent left
    LEFT = "LEFT"  # otherwise: by a key, a transfer, or unseen


class Leg(_Wire):
    channel_id: str  # Uniqueid
    endpoint: str  # "PJSIP/1001", "PJSIP/trunk"
    party: str | None  # extension or number of the human on it
    role: Role
    started_at: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    dial_status: str | None = None  # app_dial's word; None when it was not dialled
    hangup_cause: int | None = None  # Q.850
    end_reason: LegEnd | None = None


class Transfer(_Wire):
    kind: TransferKind
    by: str | None
    to: str | None
    at: datetime
    result: str | None = None  # ANSWERED, FAILED, or None while it is not known


class Hold(_Wire):
    by: str | None
    started_at: datetime
    ended_at: datetime | None = None


class Parking(_Wire):
    by: str | None
    space: str
    at: datetime
    retrieved_by: str | None = None
    timed_out: bool = False


class QueueVisit(_Wire):
    queue: str
    joined_at: datetime
    left_at: datetime | None = None  # None: he waits
    outcome: QueueOutcome | None = None
    position: int | None = None  # when he came, from 1
    answered_by: str | None = None  # the agent's extension


class PausedSpan(_Wire):
    started_at: datetime
    ended_at: datetime | None = None  # None: it is paused now


class RecordingRef(_Wire):
    path: str  # as the PBX named it
    channel_id: str
    started_at: datetime
    ended_at: datetime | None = None
    kind: RecordingKind = RecordingKind.CALL
    paused_spans: list[PausedSpan] = []  # when one side or both were not recorded, in order


class CallRecord(_Wire, kw_only=True):
    """A Call. Fields from `id` to `created_at` are the store's: None until a row exists (as in `replay`)."""

    id: str | None = None
    account_id: str | None = None
    integration_id: str | None = None
    lead_id: str | None = None
    conversation_id: str | None = None
    recording_id: str | None = None
    metadata: dict[str, Any] | None = None
    created_at: datetime | None = None

    pbx: str  # systemname of the PBX; its host:port when it has none
    external_id: str  # Linkedid of the first channel
    aliases: list[str] = []  # Linkedids whose calls were folded into this one
    channel_id: str | None = None  # Uniqueid of the customer's channel
    direction: Direction
    status: Status
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    phone_number: str = ""  # the customer's side
    from_e164: str | None = msgspec.field(name="fromE164", default=None)
    to_e164: str | None = msgspec.field(name="toE164", default=None)
    from_private: bool = False
    caller_name: str | None = None
    started_at: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    duration: int | None = None  # s; None while alive
    wait_seconds: int | None = None
    talk_seconds: int | None = None
    hold_seconds: int | None = None
    end_reason: EndReason | None = None
    ended_by: EndedBy | None = None
    answered_by: str | None = None
    last_party: str | None = None
    rang: list[str] = []
    queue: str | None = None
    queue_wait_seconds: int | None = None
    queue_position: int | None = None
    transfers: list[Transfer] = []
    holds: list[Hold] = []
    parked: list[Parking] = []
    conference: str | None = None
    participants: list[str] = []
    digits: str | None = None
    diverted_from: str | None = None
    forwarded_from: str | None = None
    recordings: list[RecordingRef] = []
    queue_visits: list[QueueVisit] = []  # in order of time
    legs: list[Leg] = []
    quality: Quality = Quality.OBSERVED
    revision: int = 1


class CallUpdate(msgspec.Struct, frozen=True):
    """What the tracker hands out: the Call as it is now, and what has happened to it since the last time.

    `happened`: event types of the live sequence, in order, each once: call.ringing, call.ring_cleared, call.queued,
    call.answered, call.held, call.resumed, call.transferred, call.parked, call.merged, call.ended; empty when only a
    detail changed.
    """

    record: CallRecord
    happened: tuple[str, ...] = ()


encode = msgspec.json.Encoder().encode
