"""A Call's live state as the CallRecord that leaves the room."""

from datetime import UTC, datetime

from trunkline.calls.model import Call, Channel
from trunkline.calls.numbers import e164
from trunkline.calls.outcome import direction_of, ended_by, leg_end, outcome
from trunkline.calls.record import (
    CallRecord,
    Direction,
    EndedBy,
    EndReason,
    Hold,
    Leg,
    Parking,
    PausedSpan,
    QueueVisit,
    RecordingKind,
    RecordingRef,
    Role,
    Status,
    Transfer,
    TransferKind,
)


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _maybe(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def report(call: Call, pbx: str, region: str | None) -> CallRecord:
    """The Call as it is now. region: ISO country that makes national numbers E.164; None leaves only +… ones."""
    direction = direction_of(call)
    starter = call.starter
    by: EndedBy | None = None
    reason: EndReason | None = None
    status: Status = call.status_alive
    ended_at = call.ended_at
    if ended_at is not None:
        by = ended_by(call, direction)
        status, reason = outcome(call, direction, by)
        if (
            by is not EndedBy.CALLEE
            and not (call.lost or call.pbx_ended)
            and reason in {EndReason.BUSY, EndReason.DECLINED}
        ):
            by = EndedBy.CALLEE  # whose phone refused
    customer = _customer(call, direction)
    who, to, private, answered_by = call.who or "", call.asked_for or "", call.private, call.answered_by
    if direction is Direction.OUTBOUND and starter is not None and starter.is_trunk:
        # called back: the customer was rung first, then somebody inside
        inside = next((leg.party for leg in call.legs.values() if not leg.is_trunk), None)
        who, to, private = inside or to, starter.party or "", False
        answered_by = to if call.answered_at is not None else None
    talk, held = _talk_and_hold(call) if ended_at is not None else (None, None)
    until = call.answered_at if call.answered_at is not None else ended_at
    last = call.last_peer
    return (
        CallRecord(
            pbx=pbx,
            external_id=call.external_id,
            aliases=list(call.aliases),
            channel_id=customer.uniqueid if customer is not None else None,
            direction=direction,
            status=status,
            from_=who,
            to=to,
            phone_number=who if direction is Direction.INBOUND else to,
            from_e164=e164(who, region),
            to_e164=e164(to, region),
            from_private=private,
            caller_name=call.name,
            started_at=moment(call.started_at),
            answered_at=_maybe(call.answered_at),
            ended_at=_maybe(ended_at),
            duration=None if ended_at is None else round(ended_at - call.started_at),
            wait_seconds=None if until is None else round(until - call.started_at),
            talk_seconds=talk,
            hold_seconds=held,
            end_reason=reason,
            ended_by=by,
            answered_by=answered_by,
            last_party=last if last not in {answered_by, who} else None,
            rang=list(call.rang),
            queue=call.queue,
            queue_wait_seconds=_queue_wait(call),
            queue_position=call.queue_position,
            transfers=[
                Transfer(
                    kind=t.kind,
                    by=t.by,
                    to=t.to,
                    at=moment(t.at),
                    result=t.result or ("FAILED" if ended_at is not None else None),
                )
                for t in call.transfers
                if t.to is not None or t.kind is not TransferKind.ATTENDED  # a consultation that came to nothing
            ],
            holds=[Hold(by=h.by, started_at=moment(h.started_at), ended_at=_maybe(h.ended_at)) for h in call.holds],
            parked=[
                Parking(by=p.by, space=p.space, at=moment(p.at), retrieved_by=p.retrieved_by, timed_out=p.timed_out)
                for p in call.parked
            ],
            conference=call.conference,
            participants=list(call.participants),
            digits=call.digits or None,
            diverted_from=call.diverted_from,
            forwarded_from=call.forwarded_from,
            recordings=_recordings(call),
            queue_visits=[
                QueueVisit(
                    queue=v.queue,
                    joined_at=moment(v.joined_at),
                    left_at=_maybe(v.left_at),
                    outcome=v.outcome,
                    position=v.position,
                    answered_by=v.answered_by,
                )
                for v in call.visits
            ],
            legs=[_leg(leg) for leg in sorted(call.legs.values(), key=lambda leg: leg.started_at)],
            quality=call.quality,
            revision=call.revision,
        )
        if starter is not None
        else _without_legs(call, pbx)
    )


def _without_legs(call: Call, pbx: str) -> CallRecord:
    raise AssertionError(f"Call {call.external_id} of {pbx} has no real channel and must not be reported")


def _customer(call: Call, direction: Direction) -> Channel | None:
    if direction is Direction.OUTBOUND:
        return next((leg for leg in call.legs.values() if leg.is_trunk), None)
    return call.starter


def _queue_wait(call: Call) -> int | None:
    if call.queue_joined_at is None:
        return None
    until = call.queue_ended_at if call.queue_ended_at is not None else call.ended_at
    return None if until is None else round(until - call.queue_joined_at)


def _talk_and_hold(call: Call) -> tuple[int, int]:
    """Seconds talking with a human without the holds in them, and seconds held (several at once count once)."""
    end = call.ended_at or call.started_at
    held: list[list[float]] = []
    for hold in sorted(call.holds, key=lambda h: h.started_at):
        until = hold.ended_at if hold.ended_at is not None else end
        if held and hold.started_at <= held[-1][1]:
            held[-1][1] = max(held[-1][1], until)
        else:
            held.append([hold.started_at, until])
    talk = 0.0
    for start, until in call.talks:
        until = end if until < 0 else until
        talk += until - start - sum(max(0.0, min(until, b) - max(start, a)) for a, b in held)
    return round(talk), round(sum(b - a for a, b in held))


def _recordings(call: Call) -> list[RecordingRef]:
    """Without those that can have no audio: MixMonitor(b) on a channel that was never bridged."""
    found = []
    for r in call.recordings:
        leg = call.legs.get(r.uniqueid) if r.kind is RecordingKind.CALL else None
        if not r.path and call.ended_at is None:
            continue  # it will be asked for
        if call.ended_at is not None and leg is not None and not leg.was_bridged and not leg.mixmonitor_always:
            continue
        ended_at = r.ended_at if r.ended_at is not None else call.ended_at
        found.append(
            RecordingRef(
                path=r.path,
                channel_id=r.uniqueid,
                started_at=moment(r.started_at),
                ended_at=_maybe(ended_at),
                kind=r.kind,
                paused_spans=[
                    PausedSpan(started_at=moment(start), ended_at=_maybe(ended_at if end is None else end))
                    for start, end in r.paused()
                ],
            )
        )
    return found


def _leg(leg: Channel) -> Leg:
    return Leg(
        channel_id=leg.uniqueid,
        endpoint=leg.endpoint,
        party=leg.party,
        role=leg.role or Role.AGENT,
        started_at=moment(leg.started_at),
        answered_at=_maybe(leg.answered_at),
        ended_at=_maybe(leg.ended_at),
        dial_status=leg.dial_status,
        hangup_cause=leg.cause,
        end_reason=leg_end(leg),
    )
