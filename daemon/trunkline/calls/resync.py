"""Putting the picture right after a gap: what the PBX lists against what we believed.

A channel that is listed and unknown is made, with the times that its Duration allows; one that is known and not listed
went away unseen. Both make their Call ESTIMATED: its times are bounds.
"""

from trunkline.asterisk.lists import Snapshot
from trunkline.calls.bridging import parked_now
from trunkline.calls.during import name_recording
from trunkline.calls.live import Live
from trunkline.calls.model import UP, Call, Channel, ParkState, TransferState, VisitState
from trunkline.calls.names import age, known
from trunkline.calls.record import LegEnd, Quality, TransferKind

_LONGEST_S = 30 * 86_400.0  # no channel is believed to be older


def reconcile(live: Live, snapshot: Snapshot, hung_up: set[str]) -> None:
    """hung_up: Uniqueids whose Hangup is among the events that came meanwhile, and will be told by those."""
    at = snapshot.at
    if snapshot.whole:
        _end_what_is_gone(live, snapshot, hung_up, at)
    rows = sorted(snapshot.channels.items(), key=lambda item: age(item[0], 0.0))
    for uniqueid, row in rows:
        if uniqueid not in live.gone and row.get("Linkedid") and row.get("Channel"):
            _see_channel(live, uniqueid, row, at)
    _see_bridges(live, snapshot, at)
    for entry in snapshot.queue_entries:
        _see_queue_entry(live, entry, at)
    live.queues.reconcile(snapshot)
    for row in snapshot.parked:
        ch = live.channels.get(row.get("ParkeeUniqueid", ""))
        if ch is not None and parked_now(ch) is None:
            by = known(row.get("ParkerDialString"))
            space = row.get("ParkingSpace", "")
            ch.call.parked.append(ParkState(ch.uniqueid, by.rpartition("/")[2] if by else None, space, at))
            live.mark(ch.call)
    for uniqueid, variables in snapshot.variables.items():
        _see_variables(live, uniqueid, variables, at)


def _end_what_is_gone(live: Live, snapshot: Snapshot, hung_up: set[str], at: float) -> None:
    for ch in list(live.channels.values()):
        if ch.name in snapshot.unreadable:
            continue
        if ch.uniqueid not in snapshot.channels and ch.uniqueid not in hung_up and ch.uniqueid in live.channels:
            ch.call.quality = Quality.ESTIMATED
            _was_with_its_partner(live, ch)
            if not _seen_ending(ch.call) and not any(u in snapshot.channels or u in hung_up for u in ch.call.channels):
                ch.call.lost = True  # nobody of it is left, and we did not see how it ended
            if ch.call.lost and ch.end_reason is None:
                ch.end_reason = LegEnd.PBX_LOST
            live.hang_up(ch, at)


def _was_with_its_partner(live: Live, ch: Channel) -> None:
    """Nobody is in a bridge alone: of two that had answered, the other's BridgeEnter was lost."""
    other = ch.partner
    if ch.bridge is None or ch.bridge.holding or ch.connected_at is not None or other is None:
        return
    if other.bridge is None and other.connected_at is None:
        live.enter(other, ch.bridge, max(ch.answered_at or 0.0, other.answered_at or 0.0) or ch.started_at)


def _seen_ending(call: Call) -> bool:
    """Was it coming to its end before our eyes, so that only a last Hangup is missing?"""
    if call.talks and call.talks[-1][1] < 0 and call.hung_up_by is None:
        return False
    return call.hung_up_by is not None or any(
        leg.ended_at is not None or leg.soft_hangup_at is not None or leg.requested_hangup is not None
        for leg in call.legs.values()
    )


def _seconds(row: dict[str, str]) -> float:
    """How long the channel has been there: Status' Seconds, else Duration hh:mm:ss."""
    if _whole_number(row.get("Seconds")) is not None:
        return min(float(row["Seconds"]), _LONGEST_S)
    numbers = [_whole_number(part) for part in row.get("Duration", "").split(":")]
    if len(numbers) != 3 or None in numbers:
        return 0.0
    hours, minutes, seconds = (n or 0 for n in numbers)
    return min(hours * 3600.0 + minutes * 60.0 + seconds, _LONGEST_S)


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 9 and text.isascii() and text.isdigit() else None


def _see_channel(live: Live, uniqueid: str, row: dict[str, str], at: float) -> None:
    ch = live.channels.get(uniqueid)
    if ch is None:
        ch = live.make_channel(uniqueid, row["Channel"], row["Linkedid"], at - _seconds(row))
        call = ch.call
        if not ch.plumbing:
            call.quality = Quality.ESTIMATED
        call.started_at = min(call.started_at, ch.started_at)
        dialled = row.get("Application") in {"AppDial", "AppDial2", "AppQueue"}
        if dialled:
            ch.dialled_by = ch if ch is call.starter else call.starter
        live.learn(ch, row)
        if ch is call.starter and known(row.get("DNID")) is not None:
            call.asked_for = row["DNID"]
        if not ch.plumbing:
            live.mark(call, "call.ringing" if ch is call.starter else None)
    else:
        ch.name = row["Channel"]
    if row["Linkedid"] != ch.linkedid:
        ch.linkedid = row["Linkedid"]
        other = live.calls.get(ch.linkedid)
        if other is not None and other is not ch.call:
            live.merge(ch.call, other, at)
    ch.state = row.get("ChannelState", ch.state)
    if ch.state == UP and ch.answered_at is None:
        live.picks_up(ch, at)
        live.mark(ch.call)
    if row.get("Application") == "VoiceMail" and ch is ch.call.starter and ch.call.answered_at is None:
        ch.call.voicemail = True


def _see_bridges(live: Live, snapshot: Snapshot, at: float) -> None:
    moved: set[str] = set()  # customers who talked before the gap, and not there any more
    where = {u: row.get("BridgeId") or row.get("BridgeID") or "" for u, row in snapshot.channels.items()}
    for uniqueid, bridge_id in where.items():
        ch = live.channels.get(uniqueid)
        if ch is not None and ch.bridge is not None and ch.bridge.uniqueid != bridge_id:
            live.leave(ch, at)
            if ch is ch.call.lead and ch.connected_at is not None:
                moved.add(uniqueid)
    for uniqueid, bridge_id in where.items():
        ch = live.channels.get(uniqueid)
        if ch is None or not bridge_id or (ch.bridge is not None and ch.bridge.uniqueid == bridge_id):
            continue
        bridge = live.bridge(bridge_id)
        described = snapshot.bridges.get(bridge_id, {})
        bridge.holding = described.get("BridgeTechnology") == "holding_bridge" or bridge.holding
        parking = "parking" in {described.get("BridgeType"), described.get("BridgeCreator", "").lower()}
        if parking and parked_now(ch) is None and not ch.plumbing:
            ch.call.parked.append(ParkState(ch.uniqueid, None, "", at))  # where and by whom only ParkedCalls knows
        live.enter(ch, bridge, at)
    for uniqueid in moved:
        ch = live.channels[uniqueid]
        if ch.bridge is not None and not any(t.result is None for t in ch.call.transfers):
            _moved_unseen(live, ch, snapshot.channels[uniqueid], at)


def _moved_unseen(live: Live, ch: Channel, row: dict[str, str], at: float) -> None:
    """The customer talks to somebody else than before the gap: he was transferred, how we cannot know."""
    exten = known(row.get("Exten"))
    peers = [p.party for p in live.humans_with(ch)]
    if exten is not None and exten in peers and exten != ch.call.answered_by:
        transfer = TransferState(TransferKind.REDIRECT, None, exten, at, ch.uniqueid)
        transfer.result = "ANSWERED"
        ch.call.transfers.append(transfer)
        live.mark(ch.call, "call.transferred")


def _see_queue_entry(live: Live, entry: dict[str, str], at: float) -> None:
    ch = live.channels.get(entry.get("Uniqueid", ""))
    if ch is None or "Queue" not in entry:
        return
    call = ch.call
    if call.queue_joined_at is None or call.queue_ended_at is not None:
        wait = _whole_number(entry.get("Wait"))
        call.queue = entry["Queue"]
        call.queue_joined_at = at - min(wait or 0, _LONGEST_S)
        call.queue_ended_at = call.queue_outcome = None
        if not any(visit.uniqueid == ch.uniqueid and visit.left_at is None for visit in call.visits):
            position = _whole_number(entry.get("Position"))
            call.visits.append(VisitState(ch.uniqueid, call.queue, call.queue_joined_at, position))
        live.mark(call, "call.queued")


def _see_variables(live: Live, uniqueid: str, variables: dict[str, str], at: float) -> None:
    ch = live.channels.get(uniqueid)
    if ch is None:
        return
    path = variables.get("MIXMONITOR_FILENAME", "")
    if path and not any(r.path == path for r in ch.call.recordings):
        name_recording(live, ch, path, ch.started_at)
    did = variables.get("TL_DID", "")
    if did and ch is ch.call.starter and ch.call.asked_for is None:
        ch.call.asked_for = did
        live.mark(ch.call)
