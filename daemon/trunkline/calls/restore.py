"""A CallRecord back into live state: how a Call that was going on outlives the daemon that followed it."""

from datetime import datetime

from trunkline.calls.live import Live
from trunkline.calls.model import (
    READ,
    UP,
    WRITE,
    Call,
    Channel,
    HoldState,
    Mute,
    ParkState,
    RecordingState,
    TransferState,
    VisitState,
)
from trunkline.calls.record import CallRecord, Direction, QueueOutcome, Role, Status


def _epoch(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def restore(live: Live, record: CallRecord) -> None:
    """Make the Call live again as the record has it; a resync must follow, which ends what is not there any more."""
    seen = live.calls.get(record.external_id)
    if seen is not None:  # the lists told of it first, as the database was away: what we say now must count as newer
        if seen.revision <= record.revision:
            seen.revision = record.revision
            live.mark(seen)
        return
    call = Call(record.external_id, record.started_at.timestamp())
    call.revision = record.revision
    call.aliases = list(record.aliases)
    for linkedid in (call.external_id, *call.aliases):
        live.calls[linkedid] = call
    for leg in record.legs:
        ch = Channel(leg.channel_id, leg.endpoint + "-", record.external_id, call, leg.started_at.timestamp(), False)
        ch.endpoint = leg.endpoint
        ch.is_trunk = leg.endpoint in live.trunks
        ch.number = leg.party
        ch.dialled_number = leg.party if ch.is_trunk and leg.role is not Role.CALLER else None
        ch.role = leg.role
        ch.came_in = leg.dial_status is None and leg.role is Role.CALLER and record.direction is not Direction.OUTBOUND
        ch.answered_at = _epoch(leg.answered_at)
        ch.ended_at = _epoch(leg.ended_at)
        ch.dial_status = leg.dial_status
        ch.cause = leg.hangup_cause
        ch.end_reason = leg.end_reason
        call.legs[ch.uniqueid] = ch
        if ch.role is Role.CALLER and call.starter is None:
            call.starter = call.lead = ch
        if ch.ended_at is None:
            ch.state = UP if ch.answered_at is not None else ch.state
            ch.rings = ch.answered_at is None and ch.role is not Role.CALLER and leg.party in record.rang
            live.channels[ch.uniqueid] = ch
            call.channels[ch.uniqueid] = ch
    if call.starter is None and call.legs:
        call.starter = call.lead = next(iter(call.legs.values()))
    _facts(call, record)
    if not call.channels:  # nothing of it can come back
        call.lost = True
        live.finish(call, max((leg.ended_at for leg in call.legs.values() if leg.ended_at), default=call.started_at))


def _facts(call: Call, record: CallRecord) -> None:
    starter = call.starter
    call.who = record.from_
    call.asked_for = record.to or None
    call.private = record.from_private
    call.name = record.caller_name
    call.answered_at = _epoch(record.answered_at)
    call.answered_by = record.answered_by
    call.last_peer = record.last_party or record.answered_by
    call.rang = list(record.rang)
    call.queue = record.queue
    call.queue_position = record.queue_position
    if record.queue is not None:
        call.queue_joined_at = call.started_at
        if record.status is not Status.QUEUED:
            call.queue_ended_at = call.queue_joined_at + (record.queue_wait_seconds or 0)
            call.queue_outcome = "CONNECTED" if call.answered_at is not None else "LEFT"
    if record.direction is Direction.OUTBOUND:
        if starter is not None and not any(leg.is_trunk for leg in call.legs.values()):
            starter.dialled_by = starter
            call.click_to_dial = True
        if call.answered_at is not None:
            call.lead = next((leg for leg in call.legs.values() if leg.is_trunk), call.lead)
    if call.answered_at is not None:
        call.talks.append([call.answered_at, -1.0])
    lead = call.lead.uniqueid if call.lead is not None else ""
    for t in record.transfers:
        state = TransferState(t.kind, t.by, t.to, t.at.timestamp(), lead)
        state.result = t.result
        call.transfers.append(state)
    by_party = {leg.party: leg.uniqueid for leg in call.legs.values()}
    for h in record.holds:
        held = HoldState(by_party.get(h.by, lead), h.by, h.started_at.timestamp())
        held.ended_at = _epoch(h.ended_at)
        call.holds.append(held)
    for p in record.parked:
        parked = ParkState(lead, p.by, p.space, p.at.timestamp())
        parked.retrieved_by, parked.timed_out = p.retrieved_by, p.timed_out
        call.parked.append(parked)
    for r in record.recordings:
        recording = RecordingState(r.channel_id, r.path, r.started_at.timestamp(), r.kind)
        recording.ended_at = _epoch(r.ended_at)
        for span in r.paused_spans:
            recording.mutes.append(Mute(span.started_at.timestamp(), True, 0))
            if span.ended_at is not None:
                recording.mutes.append(Mute(span.ended_at.timestamp(), False, READ | WRITE))
        call.recordings.append(recording)
    for v in record.queue_visits:
        visit = VisitState(lead, v.queue, v.joined_at.timestamp(), v.position)
        visit.left_at, visit.outcome, visit.answered_by = _epoch(v.left_at), v.outcome, v.answered_by
        visit.told, visit.settled = True, v.outcome is QueueOutcome.ANSWERED
        call.visits.append(visit)
    call.conference = record.conference
    call.participants = list(record.participants)
    call.digits = record.digits or ""
    call.diverted_from = record.diverted_from
    call.forwarded_from = record.forwarded_from
    call.quality = record.quality
