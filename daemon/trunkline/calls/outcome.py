"""How a Call, and a leg, came to its end: status, reason and by whom. Pure functions of the state.

Source: docs/calls.md; hangup causes are Q.850 with Asterisk's own (include/asterisk/causes.h): 0, 26, 127.
"""

from trunkline.calls.model import Call, Channel
from trunkline.calls.names import is_outside_number
from trunkline.calls.record import Direction, EndedBy, EndReason, LegEnd, Status

_BY_CAUSE = {
    1: LegEnd.UNALLOCATED,
    3: LegEnd.UNALLOCATED,
    17: LegEnd.BUSY,
    18: LegEnd.RING_TIMEOUT,
    19: LegEnd.RING_TIMEOUT,
    20: LegEnd.UNAVAILABLE,
    21: LegEnd.DECLINED,
    26: LegEnd.ANSWERED_ELSEWHERE,
    27: LegEnd.UNAVAILABLE,
    28: LegEnd.UNALLOCATED,
    34: LegEnd.CONGESTION,
    38: LegEnd.CONGESTION,
    42: LegEnd.CONGESTION,
}
_BY_DIAL_STATUS = {
    "BUSY": LegEnd.BUSY,
    "CONGESTION": LegEnd.CONGESTION,
    "CHANUNAVAIL": LegEnd.UNAVAILABLE,
    "NOANSWER": LegEnd.RING_TIMEOUT,
    "CANCEL": LegEnd.CANCELED,
}
_REASONS = {
    LegEnd.BUSY: EndReason.BUSY,
    LegEnd.DECLINED: EndReason.DECLINED,
    LegEnd.RING_TIMEOUT: EndReason.RING_TIMEOUT,
    LegEnd.UNALLOCATED: EndReason.UNALLOCATED,
    LegEnd.CONGESTION: EndReason.CONGESTION,
    LegEnd.UNAVAILABLE: EndReason.UNAVAILABLE,
    LegEnd.CANCELED: EndReason.CANCELED,
}
# Of several phones that did not answer, what is said of the Call: that which comes first here.
_WEIGHT = [
    LegEnd.RING_TIMEOUT,
    LegEnd.DECLINED,
    LegEnd.BUSY,
    LegEnd.UNALLOCATED,
    LegEnd.CONGESTION,
    LegEnd.UNAVAILABLE,
    LegEnd.CANCELED,
]


def is_originated(call: Call) -> bool:
    """Did the PBX ring the first phone itself (Originate: click to dial, call back)?"""
    starter = call.starter
    return starter is not None and (
        call.click_to_dial or starter.dialled_by is starter or call.originated_local is not None
    )


def direction_of(call: Call) -> Direction:
    """INBOUND, OUTBOUND or INTERNAL, by who started it and who was dialled."""
    starter = call.starter
    originated = is_originated(call)
    if starter is not None and starter.is_trunk and not originated:
        return Direction.INBOUND
    if any(leg.is_trunk and not leg.came_in for leg in call.legs.values()):
        return Direction.OUTBOUND
    if originated and call.asked_for is not None and is_outside_number(call.asked_for):
        return Direction.OUTBOUND
    return Direction.INTERNAL


def leg_end(leg: Channel) -> LegEnd | None:
    """Why a leg ended; None while it has not."""
    if leg.end_reason is not None:
        return leg.end_reason
    if leg.ended_at is None:
        return None
    if leg.connected_at is not None or leg.dial_status == "ANSWER" or (leg.answered_at is not None):
        return LegEnd.HANGUP
    by_cause = _BY_CAUSE.get(leg.cause or 0)
    if leg.dial_status in {"NOANSWER", "CANCEL"} and by_cause is not None:
        return by_cause
    if leg.dial_status is not None:
        return _BY_DIAL_STATUS.get(leg.dial_status, LegEnd.HANGUP)
    if by_cause is not None:
        return by_cause
    return LegEnd.CANCELED if leg.cause == 127 else LegEnd.HANGUP


def ended_by(call: Call, direction: Direction) -> EndedBy:
    """Which side hung up; PBX where neither did."""
    if call.lost or call.pbx_ended:
        return EndedBy.PBX
    who = call.hung_up_by
    if who is None:
        who = call.first_left if call.answered_at is not None else _gave_up(call)
    if who is None:
        return EndedBy.PBX
    if direction is Direction.OUTBOUND:
        return EndedBy.CALLEE if who.is_trunk else EndedBy.CALLER
    return EndedBy.CALLER if who is call.starter else EndedBy.CALLEE


def _gave_up(call: Call) -> Channel | None:
    """The starter, where only traces of his hanging up are left: his CANCEL (127), his BYE to an application (0)."""
    starter = call.starter
    if is_originated(call):
        return None
    if call.queue_outcome == "ABANDONED" and starter is not None and starter.cause in {None, 0, 127}:
        return starter
    if (
        call.queue_outcome is None
        and starter is not None
        and (starter.cause in {0, 127} or call.dial_status == "CANCEL")
    ):
        return starter
    return None


def outcome(call: Call, direction: Direction, by: EndedBy) -> tuple[Status, EndReason | None]:
    """Status and reason of a Call that has ended."""
    if call.answered_at is not None:
        return Status.COMPLETED, EndReason.PBX_LOST if call.lost else None
    if call.voicemail:
        return Status.VOICEMAIL, EndReason.PBX_LOST if call.lost else None
    missed = Status.NO_ANSWER if direction is Direction.OUTBOUND else Status.MISSED
    if call.lost:
        return missed, EndReason.PBX_LOST
    starter = call.starter
    tried = [end for leg in call.legs.values() if leg is not starter and (end := leg_end(leg)) is not None]
    if starter is not None and is_originated(call):
        if not starter.is_trunk and starter.answered_at is None:
            return Status.NO_ANSWER, EndReason.AGENT_NO_ANSWER
        if starter.is_trunk and starter.answered_at is not None:
            return Status.NO_ANSWER, EndReason.AGENT_NO_ANSWER  # the customer was there, nobody for him
        if starter.is_trunk:
            end = leg_end(starter)
            return _not_answered(call, missed, [end] if end is not None else [])
    if by is EndedBy.CALLER:
        if tried and not call.gave_up_ringing and call.dial_status not in {None, "CANCEL"} and call.queue is None:
            return _not_answered(call, missed, tried)  # all had refused before he hung up, on a busy tone perhaps
        reached = starter is not None and starter.answered_at is not None
        waiting = call.gave_up_waiting or (call.queue_joined_at is not None and call.queue_ended_at is None)
        in_ivr = reached and not tried and direction is Direction.INBOUND
        if waiting or call.queue_outcome == "ABANDONED" or in_ivr:
            return Status.ABANDONED, EndReason.CANCELED
        return missed, EndReason.CANCELED
    if call.queue_joined_at is not None and call.queue_outcome != "CONNECTED":
        return missed, EndReason.QUEUE_TIMEOUT
    return _not_answered(call, missed, tried)


def _not_answered(call: Call, missed: Status, tried: list[LegEnd]) -> tuple[Status, EndReason | None]:
    end = next((w for w in _WEIGHT if w in tried), None)
    if end is LegEnd.CANCELED and call.dial_status == "NOANSWER":
        end = LegEnd.RING_TIMEOUT
    if end is None and call.dial_status is not None:
        end = _BY_DIAL_STATUS.get(call.dial_status)
    if end is None:
        up = call.starter is not None and call.starter.answered_at is not None
        return (missed if up and not call.stasis_failed else Status.FAILED), None
    if end is LegEnd.BUSY:
        return Status.BUSY, EndReason.BUSY
    if end in {LegEnd.CONGESTION, LegEnd.UNALLOCATED}:
        return Status.FAILED, _REASONS[end]
    return missed, _REASONS[end]
