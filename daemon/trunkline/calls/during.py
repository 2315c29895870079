"""What happens while a Call lives: queue, hold, digits, recording, variables and the dialplan's steps."""

from trunkline.calls.dialling import rang_out_behind, redirected, rings
from trunkline.calls.live import Fields, Live
from trunkline.calls.model import READ, WRITE, Call, Channel, HoldState, Mute, RecordingState, VisitState
from trunkline.calls.names import known
from trunkline.calls.queues import extension_of_interface
from trunkline.calls.record import QueueOutcome, RecordingKind

# ---- queue


def _in_queue(live: Live, f: Fields, at: float) -> tuple[Channel, Call] | None:
    ch = live.channel(f, at)
    if ch is None:
        return None
    call = ch.call
    if call.queue is None:  # its QueueCallerJoin was lost
        call.queue = f["Queue"]
        call.queue_joined_at = at
        call.visits.append(VisitState(ch.uniqueid, f["Queue"], at, None))
    return ch, call


def _visit(call: Call, ch: Channel) -> VisitState | None:
    """The last time in a queue of this channel."""
    return next((visit for visit in reversed(call.visits) if visit.uniqueid == ch.uniqueid), None)


def _end_visit(call: Call, ch: Channel, at: float, outcome: QueueOutcome) -> VisitState | None:
    visit = _visit(call, ch)
    if visit is not None:
        visit.over(at, outcome)
    return visit


def queue_caller_join(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    call = ch.call
    if call.queue_joined_at is not None and call.queue_ended_at is None and call.queue == f["Queue"]:
        return
    redirected(live, ch, f.get("Exten"), at)
    call.queue = f["Queue"]
    call.queue_joined_at = at
    call.queue_ended_at = None
    call.queue_outcome = None
    position = f.get("Position", "")
    call.queue_position = int(position) if position.isdigit() else None
    live.queues.join(f["Queue"], ch.uniqueid, call.queue_position, at)
    _end_visit(call, ch, at, QueueOutcome.LEFT)  # whose own end was lost
    call.visits.append(VisitState(ch.uniqueid, f["Queue"], at, call.queue_position))
    live.mark(call, "call.queued")


def queue_caller_leave(live: Live, f: Fields, at: float) -> None:
    found = _in_queue(live, f, at)
    if found is None:
        return
    live.queues.leave(found[0].uniqueid)
    visit = _visit(found[1], found[0])
    if visit is not None and visit.left_at is None:
        visit.left_at = at  # how comes next, or has come
        live.mark(found[1])
    if found[1].queue_ended_at is not None:
        return
    call = found[1]
    call.queue_ended_at = at
    if call.queue_outcome is None:
        call.queue_outcome = "LEFT"
    live.mark(call)


def queue_caller_abandon(live: Live, f: Fields, at: float) -> None:
    found = _in_queue(live, f, at)
    if found is None:
        return
    call = found[1]
    live.queues.leave(found[0].uniqueid)
    _end_visit(call, found[0], at, QueueOutcome.ABANDONED)
    call.queue_ended_at = call.queue_ended_at or at
    if call.queue_outcome != "TIMEOUT":
        call.queue_outcome = "ABANDONED"  # app_queue says so too when its own time is up; QUEUESTATUS then follows
    live.mark(call)


def agent_called(live: Live, f: Fields, at: float) -> None:
    found = _in_queue(live, f, at)
    dest = live.channel(f, at, "Dest")
    if found is None or dest is None:
        return
    if dest.dialled_by is None:
        dest.dialled_by = found[0]
    if not dest.plumbing:
        rings(live, dest, at)


def agent_connect(live: Live, f: Fields, at: float) -> None:
    found = _in_queue(live, f, at)
    if found is None:
        return
    call = found[1]
    live.queues.leave(found[0].uniqueid)
    live.queues.connected(f["Queue"], f.get("Interface", ""))
    visit = _end_visit(call, found[0], at, QueueOutcome.ANSWERED)
    if visit is not None:
        visit.outcome = QueueOutcome.ANSWERED
        visit.answered_by = extension_of_interface(f.get("StateInterface") or f.get("Interface", "")) or None
    call.queue_outcome = "CONNECTED"
    if call.queue_ended_at is None:
        call.queue_ended_at = at
    live.mark(call)


def agent_complete(live: Live, f: Fields, at: float) -> None:
    if live.channel(f, at) is not None:
        live.queues.completed(f["Queue"], f.get("Interface", ""), at)


def agent_ring_no_answer(live: Live, f: Fields, at: float) -> None:
    found = _in_queue(live, f, at)
    dest = live.channel(f, at, "Dest")
    if found is not None and dest is not None and dest.dial_status is None:
        dest.dial_status = "NOANSWER"
        if dest.plumbing:
            rang_out_behind(dest)
        live.mark(found[1])


# ---- hold


def hold(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None or ch.plumbing:
        return
    call = ch.call
    for held in call.holds:
        if held.uniqueid == ch.uniqueid and held.ended_at is None:
            if held.started_at == at:
                return
            held.ended_at = at  # its Unhold was lost
    by = call.who if ch is call.starter else ch.party
    call.holds.append(HoldState(ch.uniqueid, by, at))
    if ch.endpoint in live.agents_phones:
        live.queues.phone(ch, at)
    live.mark(call, "call.held")


def unhold(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    for held in ch.call.holds:
        if held.uniqueid == ch.uniqueid and held.ended_at is None:
            held.ended_at = at
            if ch.endpoint in live.agents_phones:
                live.queues.phone(ch, at)
            live.mark(ch.call, "call.resumed")


# ---- digits

_ASKS_FOR_A_PIN = frozenset({"ConfBridge", "VoiceMailMain", "Authenticate"})


def dtmf_end(live: Live, f: Fields, at: float) -> None:
    """A digit of the caller, while no human hears it. Two people's may be a card number: never kept; nor is a PIN."""
    ch = live.channel(f, at)
    if ch is None or f.get("Direction") != "Received" or ch is not ch.call.starter or at <= ch.digit_at:
        return
    ch.digit_at = at
    if ch.application in _ASKS_FOR_A_PIN:
        return
    if ch.call.answered_at is None and not live.humans_with(ch) and len(ch.call.digits) < 64:
        ch.call.digits += f.get("Digit", "")[:1]
        live.mark(ch.call)


# ---- recording


# Those of who had come in. FULL, JOINEMPTY and JOINUNAVAIL: he was never let in.
_QUEUE_STATUS = {
    "TIMEOUT": QueueOutcome.TIMEOUT,
    "LEAVEEMPTY": QueueOutcome.EMPTY,
    "LEAVEUNAVAIL": QueueOutcome.EMPTY,
    "WITHDRAW": QueueOutcome.LEFT,
}


def varset(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    call = ch.call
    name = f["Variable"].lstrip("_")
    value = f["Value"]
    if name == "MIXMONITOR_FILENAME":
        if value and not any(r.path == value for r in _monitored(ch)):
            name_recording(live, ch, value, at)
    elif name == "BLINDTRANSFER":
        ch.blind_by = value or ch.blind_by
    elif name == "DIALSTATUS":
        if value and value != "ANSWER" and ch is call.starter and call.answered_at is None:
            call.dial_status = value
            live.mark(call)
    elif name == "QUEUESTATUS":
        visit, outcome = _visit(call, ch), _QUEUE_STATUS.get(value)
        if visit is not None and outcome is not None and visit.outcome is not QueueOutcome.ANSWERED:
            visit.outcome = outcome  # app_queue calls a caller whose time is up abandoned at first
            live.mark(call)
        if value and call.queue is not None and call.queue_outcome != "CONNECTED":
            call.queue_outcome = "TIMEOUT"  # or JOINEMPTY, FULL, …: the queue gave up, not the caller
            live.mark(call)
    elif name == "STASISSTATUS":
        if value == "FAILED" and ch is call.starter:
            call.stasis_failed = True
    elif name == "VMSTATUS":
        if call.answered_at is None and (ch is call.starter or ch.plumbing):
            call.voicemail = True
    elif name == "TL_DID":
        if ch is call.starter and value and call.asked_for is None:
            call.asked_for = value
            live.mark(call)
    elif name == "TL_HOLD":  # by command, of who holds the other
        if value:
            hold(live, f, at)
        else:
            unhold(live, f, at)
    elif name == "TL_DIVERSION" and ch is call.starter and known(value) is not None:
        call.diverted_from = value
        live.mark(call)


def _monitored(ch: Channel) -> list[RecordingState]:
    """The recordings that MixMonitor makes of a channel; those of ARI tell of themselves (ari_recordings.py)."""
    return [r for r in ch.call.recordings if r.uniqueid == ch.uniqueid and r.kind is RecordingKind.CALL]


def name_recording(live: Live, ch: Channel, path: str, at: float) -> None:
    """A file of this channel: that of the recording which has no name yet, else of one that begins."""
    call = ch.call
    unnamed = next((r for r in _monitored(ch) if not r.path and r.may_run(at)), None)
    if unnamed is not None:
        unnamed.path = path
    else:
        call.recordings.append(RecordingState(ch.uniqueid, path, at))
    live.mark(call)


def mixmonitor_start(live: Live, f: Fields, at: float) -> None:
    """It says neither file nor id: a VarSet just before does, unless it was lost."""
    ch = live.channel(f, at)
    if ch is None:
        return
    mine = _monitored(ch)
    if any(r.started and r.started_at == at for r in mine):
        return
    recording = next((r for r in reversed(mine) if not r.started and r.may_run(at)), None)
    if recording is None:
        recording = RecordingState(ch.uniqueid, "", at)
        ch.call.recordings.append(recording)
    recording.started = True
    recording.started_at = at
    live.mark(ch.call)


def mixmonitor_stop(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    for recording in _monitored(ch):
        if recording.ended_at is None:
            recording.ended_at = at
            live.mark(ch.call)
            return


_SIDES = {"read": READ, "write": WRITE, "both": READ | WRITE}


def mixmonitor_mute(live: Live, f: Fields, at: float) -> None:
    """Pause (State 1) or resume (0) of all recordings of a channel that run; it names none of them."""
    ch = live.channel(f, at)
    sides = _SIDES.get(f.get("Direction", "").lower())
    if ch is None or sides is None or f.get("State") not in {"0", "1"}:
        return
    mute = Mute(at, f["State"] == "1", sides)
    call = ch.call
    mine = _monitored(ch)
    if not mine and mute.on:  # only what is recorded can be muted: its beginning was lost
        mine = [RecordingState(ch.uniqueid, "", at)]
        call.recordings += mine
    for recording in mine:
        before = recording.paused()
        if mute not in recording.mutes:
            recording.mutes.append(mute)
        if recording.paused() != before:
            live.mark(call)


def newexten(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    ch.application = f["Application"]
    call = ch.call
    if ch.application == "VoiceMail" and (ch is call.starter or ch.plumbing) and call.answered_at is None:
        call.voicemail = True
        live.mark(call)
    elif ch.application == "MixMonitor":
        options = f.get("AppData", "").split(",")[1:2]
        ch.mixmonitor_always = not options or "b" not in options[0].split("(")[0]
    if ch.application in {"VoiceMail", "Queue", "ConfBridge", "Read", "Stasis"}:
        redirected(live, ch, f.get("Extension"), at)
