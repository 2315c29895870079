"""The live state: Channel, Bridge, Call. Mutable, without any rule of when to change them.

Times are the events' own, epoch seconds; they become datetimes only in `report.py`.
"""

from typing import NamedTuple

from trunkline.calls.names import endpoint_of, extension_of, is_plumbing, known
from trunkline.calls.record import LegEnd, Quality, QueueOutcome, RecordingKind, Role, Status, TransferKind

DOWN, RING, RINGING, UP, BUSY = "0", "4", "5", "6", "7"  # ChannelState
READ, WRITE = 1, 2  # the sides of a recording, as bits


class Channel:
    """One channel of Asterisk, from the first event that names it to its Hangup."""

    __slots__ = (
        "answered_at", "application", "blind_by", "bridge", "call", "came_in", "cause", "connected_at", "dial_status",
        "dialled_by", "dialled_number", "digit_at", "end_reason", "ended_at", "endpoint", "exten", "is_trunk", "left",
        "linkedid", "local_peer", "mixmonitor_always", "name", "number", "partner", "plumbing", "pulled_at", "rang_at",
        "requested_hangup", "rings", "role", "soft_hangup_at", "started_at", "state", "uniqueid", "was_bridged",
    )  # fmt: skip

    def __init__(self, uniqueid: str, name: str, linkedid: str, call: "Call", at: float, is_trunk: bool) -> None:
        self.uniqueid = uniqueid
        self.name = name
        self.endpoint = endpoint_of(name)
        self.linkedid = linkedid
        self.call = call
        self.plumbing = is_plumbing(name)
        self.is_trunk = is_trunk
        self.started_at = at
        self.state = DOWN
        self.came_in = False  # it called the PBX, and was not rung by it
        self.number: str | None = None  # CallerIDNum when first seen
        self.exten: str | None = None
        self.answered_at: float | None = None  # Up
        self.rang_at: float | None = None
        self.rings = False  # the phone of somebody inside is being offered the Call
        self.connected_at: float | None = None  # first bridged with another human
        self.ended_at: float | None = None
        self.cause: int | None = None
        self.dial_status: str | None = None
        self.dialled_by: Channel | None = None  # itself: the PBX rings it (Originate)
        self.dialled_number: str | None = None
        self.end_reason: LegEnd | None = None
        self.role: Role | None = None
        self.bridge: Bridge | None = None
        self.left = ""  # BridgeUniqueid of the bridge it left last
        self.was_bridged = False
        self.partner: Channel | None = None  # who is to be bridged with it: answered, picked up, retrieved
        self.local_peer: Channel | None = None  # the other half of a Local pair
        self.requested_hangup: float | None = None  # the party hung up
        self.soft_hangup_at: float | None = None  # the PBX hung up
        self.pulled_at: float | None = None  # left a talk without anyone hanging up
        self.blind_by: str | None = None  # name of the channel that blind-transferred it
        self.application: str | None = None
        self.digit_at = 0.0
        self.mixmonitor_always = False  # MixMonitor without option b: it records even if nobody is bridged

    @property
    def party(self) -> str | None:
        """The human on it: an extension inside, a number outside; None where nobody knows."""
        if self.is_trunk:
            return self.dialled_number or known(self.number)
        return extension_of(self.endpoint, self.number)


class Bridge:
    """One bridge; `holding`: parking lots and waiting rooms, in which nobody hears anybody."""

    __slots__ = ("conference", "holding", "members", "uniqueid")

    def __init__(self, uniqueid: str) -> None:
        self.uniqueid = uniqueid
        self.members: dict[str, Channel] = {}
        self.holding = False
        self.conference: str | None = None


class TransferState:
    __slots__ = ("at", "by", "kind", "result", "to", "transferee")

    def __init__(self, kind: TransferKind, by: str | None, to: str | None, at: float, transferee: str) -> None:
        self.kind = kind
        self.by = by
        self.to = to
        self.at = at
        self.transferee = transferee  # Uniqueid
        self.result: str | None = None


class HoldState:
    __slots__ = ("by", "ended_at", "started_at", "uniqueid")

    def __init__(self, uniqueid: str, by: str | None, at: float) -> None:
        self.uniqueid = uniqueid
        self.by = by
        self.started_at = at
        self.ended_at: float | None = None


class ParkState:
    __slots__ = ("at", "by", "retrieved_by", "space", "timed_out", "uniqueid")

    def __init__(self, uniqueid: str, by: str | None, space: str, at: float) -> None:
        self.uniqueid = uniqueid
        self.by = by
        self.space = space
        self.at = at
        self.retrieved_by: str | None = None
        self.timed_out = False


class VisitState:
    """A caller's time in one queue."""

    __slots__ = (
        "answered_by", "joined_at", "left_at", "outcome", "position", "queue", "settled", "told", "uniqueid",
    )  # fmt: skip

    def __init__(self, uniqueid: str, queue: str, at: float, position: int | None) -> None:
        self.uniqueid = uniqueid
        self.queue = queue
        self.joined_at = at
        self.position = position
        self.left_at: float | None = None
        self.outcome: QueueOutcome | None = None
        self.answered_by: str | None = None
        self.told = False  # that he came
        self.settled = False  # and how he left

    def over(self, at: float, outcome: QueueOutcome) -> None:
        """He is not in the queue any more; what was said first of the end stays."""
        if self.left_at is None:
            self.left_at = at
        if self.outcome is None:
            self.outcome = outcome


class Mute(NamedTuple):
    """A MixMonitorMute. Kept as it came: so the spans are the same in whatever order, and however often, they come."""

    at: float
    on: bool
    sides: int  # READ | WRITE; 0: a pause out of the database, which does not say of which side


class RecordingState:
    __slots__ = ("ended_at", "finished", "kind", "mutes", "path", "started", "started_at", "target", "uniqueid")

    def __init__(self, uniqueid: str, path: str, at: float, kind: RecordingKind = RecordingKind.CALL) -> None:
        self.uniqueid = uniqueid
        self.path = path  # "" as long as nothing told it
        self.kind = kind
        self.target = ""  # what ARI records: "channel:…", "bridge:…"
        self.started_at = at
        self.ended_at: float | None = None
        self.finished = False  # ARI has said so
        self.started = False  # its MixMonitorStart has been seen
        self.mutes: list[Mute] = []  # as they came

    @property
    def ends_with_its_channel(self) -> bool:
        """That of a bridge goes on with those who stay in it."""
        return not self.target.startswith("bridge:")

    def may_run(self, at: float) -> bool:
        """It had not ended then."""
        return self.ended_at is None or at <= self.ended_at

    def paused(self) -> list[tuple[float, float | None]]:
        """From when until when one side or both were muted; None: still, or to its end."""
        spans: list[tuple[float, float | None]] = []
        muted = 0
        for at, on, sides in sorted(self.mutes, key=lambda mute: mute.at):
            if at < self.started_at or not self.may_run(at):
                continue
            paused = bool(spans) and spans[-1][1] is None
            muted = muted | sides if on else muted & ~sides
            if on and not paused:
                spans.append((at, None))
            elif paused and not muted:
                spans[-1] = (spans[-1][0], at)
        return spans


class Call:
    """Everything known of one Call.

    `legs` keeps the real channels, also the ended ones; `channels` the live ones of any kind.
    """

    __slots__ = (
        "aliases", "answered_at", "answered_by", "asked_for", "channels", "click_to_dial", "conference", "dial_status",
        "digits", "diverted_from", "ended_at", "external_id", "first_left", "forwarded_from", "gave_up_ringing",
        "gave_up_waiting", "happened", "holds", "hung_up_by", "last_peer", "lead", "legs", "lost", "name",
        "originated_local", "parked", "participants", "pbx_ended", "private", "quality", "queue", "queue_ended_at",
        "queue_joined_at", "queue_outcome", "queue_position", "rang", "recordings", "revision", "started_at", "starter",
        "stasis_failed", "talks", "transfers", "visits", "voicemail", "who",
    )  # fmt: skip

    def __init__(self, external_id: str, at: float) -> None:
        self.external_id = external_id
        self.started_at = at
        self.channels: dict[str, Channel] = {}
        self.legs: dict[str, Channel] = {}
        self.aliases: list[str] = []
        self.rang: list[str] = []
        self.talks: list[list[float]] = []  # [from, until] spans of the lead talking to a human; until < 0: now
        self.happened: list[str] = []
        self.transfers: list[TransferState] = []
        self.holds: list[HoldState] = []
        self.parked: list[ParkState] = []
        self.participants: list[str] = []
        self.recordings: list[RecordingState] = []
        self.visits: list[VisitState] = []
        self.ended_at: float | None = None
        self.answered_at: float | None = None
        self.starter: Channel | None = None
        self.lead: Channel | None = None  # whose other side counts: the customer's channel, else the starter's
        self.who: str | None = None  # the starter's number, first seen
        self.name: str | None = None
        self.private = False
        self.asked_for: str | None = None
        self.click_to_dial = False
        self.originated_local: str | None = None  # "Local/1001@agents": the PBX rang the first phone through it
        self.answered_by: str | None = None
        self.last_peer: str | None = None
        self.queue: str | None = None
        self.queue_position: int | None = None
        self.queue_joined_at: float | None = None
        self.queue_ended_at: float | None = None
        self.queue_outcome: str | None = None  # CONNECTED, ABANDONED, TIMEOUT, LEFT
        self.conference: str | None = None
        self.digits = ""
        self.diverted_from: str | None = None
        self.forwarded_from: str | None = None
        self.dial_status: str | None = None  # of the last attempt that ended
        self.voicemail = False
        self.stasis_failed = False
        self.hung_up_by: Channel | None = None  # who hung up first since the last two came together
        self.gave_up_waiting = False  # he who hung up first was in the queue
        self.gave_up_ringing = False  # the starter hung up while somebody's phone still rang
        self.first_left: Channel | None = None  # the first to leave the talk, where nothing says who hung up
        self.pbx_ended = False
        self.lost = False
        self.quality = Quality.OBSERVED
        self.revision = 0

    def fall_apart(self) -> None:
        """Let go of the channels, which refer back: so an ended Call is gone at once, without the garbage collector."""
        self.legs = {}
        self.channels = {}
        self.starter = self.lead = self.hung_up_by = self.first_left = None

    @property
    def status_alive(self) -> Status:
        """RINGING, QUEUED or IN_PROGRESS."""
        if self.answered_at is not None:
            return Status.IN_PROGRESS
        if self.queue_joined_at is not None and self.queue_ended_at is None:
            return Status.QUEUED
        return Status.RINGING
