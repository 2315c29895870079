"""Recordings of ARI and their Calls: in whatever order the two connections tell of them. Times are seconds."""

from itertools import permutations

import pytest

from trunkline.asterisk.ari_events import AriRecording, RecordingIs
from trunkline.asterisk.event import Event
from trunkline.asterisk.lists import Snapshot
from trunkline.calls.record import CallRecord, RecordingKind, RecordingRef
from trunkline.calls.tracker import Tracker

T0 = 1_795_000_000.0
A, B, C, S = "p-1.0", "p-1.1", "p-1.2", "p-1.3"
CHANNELS = {
    A: {"Channel": "PJSIP/trunk-1", "ChannelState": "6", "CallerIDNum": "15551234567", "Exten": "442070001001"},
    B: {"Channel": "PJSIP/1001-1", "ChannelState": "6", "CallerIDNum": "1001", "Exten": "s"},
    C: {"Channel": "PJSIP/trunk-2", "ChannelState": "6", "CallerIDNum": "15557654321", "Exten": "442070001002"},
    S: {"Channel": f"Snoop/{A}-00000000", "ChannelState": "6", "CallerIDNum": "<unknown>", "Exten": "s"},
}
LINKED = {A: A, B: A, C: C, S: S}


def event(at: float, kind: str, uniqueid: str = A, **fields: str) -> Event:
    ids = {"Uniqueid": uniqueid, "Linkedid": LINKED[uniqueid]}
    return Event(kind, T0 + at, CHANNELS[uniqueid] | ids | fields)


def enter(at: float, uniqueid: str, bridge: str = "b") -> Event:
    return event(at, "BridgeEnter", uniqueid, BridgeUniqueid=bridge)


def hang_up(at: float, uniqueid: str = A) -> Event:
    return event(at, "Hangup", uniqueid, Cause="16")


def told(at: float, state: str, target: str = f"channel:{A}", seconds: int | None = None) -> AriRecording:
    return AriRecording(RecordingIs(state), "x", "wav", target, T0 + at, seconds)


BORN = (event(0, "Newchannel", A), event(0, "Newchannel", B))
TALK = (*BORN, enter(1, A), enter(1, B))
Told = Event | AriRecording


def fed(*some: Told) -> Tracker:
    tracker = Tracker("p")
    for one in some:
        feed(tracker, one)
    return tracker


def feed(tracker: Tracker, one: Told) -> None:
    if isinstance(one, AriRecording):
        tracker.recorded(one, f"/rec/{one.name}.{one.format}")
    else:
        tracker.handle(one)


def calls(tracker: Tracker) -> dict[str, CallRecord]:
    return {update.record.external_id: update.record for update in tracker.take()}


def spans(recordings: list[RecordingRef]) -> list[tuple[str, str, float, float | None]]:
    return [
        (r.path, r.channel_id, r.started_at.timestamp() - T0, r.ended_at and round(r.ended_at.timestamp() - T0, 3))
        for r in recordings
        if r.kind is RecordingKind.ARI
    ]


def test_it_is_tied_to_the_leg_that_it_records() -> None:
    tracker = fed(*TALK, told(2, "started", f"channel:{B}"))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", B, 2, None)]
    feed(tracker, told(9, "finished", f"channel:{B}", 7))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", B, 2, 9)]


def test_it_is_named_though_nobody_was_bridged() -> None:
    """An application recorded the caller: no MixMonitor(b), which would be without audio."""
    tracker = fed(BORN[0], told(2, "started"), told(5, "finished"), hang_up(6))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 5)]


def test_a_snoop_is_of_the_leg_that_it_hears() -> None:
    tracker = fed(*TALK, event(2, "Newchannel", S), told(2, "started", f"channel:{S}"))
    assert {name: spans(call.recordings) for name, call in calls(tracker).items()} == {A: [("/rec/x.wav", A, 2, None)]}


@pytest.mark.parametrize("target", [f"channel:{A}", "bridge:b", f"channel:{S}"])
def test_the_order_of_the_two_connections_does_not_matter(target: str) -> None:
    ami = (BORN[0], enter(1, A), event(1, "Newchannel", S))
    ari = (told(2, "started", target), told(4, "finished", target, 2))
    seen = set()
    for order in permutations([0, 0, 0, 1, 1]):
        streams = [iter(ami), iter(ari)]
        tracker = fed(*(next(streams[which]) for which in order))
        seen.add(tuple(spans(calls(tracker)[A].recordings)))
    assert seen == {(("/rec/x.wav", A, 2, 4),)}


def test_events_that_come_twice_are_one_recording() -> None:
    started, finished = told(2, "started", "bridge:b"), told(5, "finished", "bridge:b", 3)
    tracker = fed(*TALK, started, started, finished, finished)
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 5)]
    feed(tracker, finished)
    assert tracker.take() == []


def test_where_the_beginning_was_missed_the_end_tells() -> None:
    tracker = fed(*TALK, told(9, "finished", seconds=7))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 9)]


def test_where_the_end_was_missed_its_channels_end_is_it() -> None:
    tracker = fed(*TALK, told(2, "started"), hang_up(6, A), hang_up(7, B))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 6)]


def test_that_of_a_bridge_goes_on_when_one_leaves() -> None:
    tracker = fed(*TALK, told(2, "started", "bridge:b"), hang_up(6, A))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, None)]
    feed(tracker, told(8, "finished", "bridge:b", 6))
    feed(tracker, hang_up(8, B))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 8)]


def test_an_end_that_comes_after_the_calls_counts() -> None:
    tracker = fed(*TALK, told(2, "started", "bridge:b"), hang_up(6, A), hang_up(6, B))
    calls(tracker)
    feed(tracker, told(6.5, "finished", "bridge:b", 4))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 6.5)]


def test_all_of_it_may_come_after_the_call() -> None:
    tracker = fed(*TALK, hang_up(6, A), hang_up(6, B))
    calls(tracker)
    feed(tracker, told(2, "started"))
    feed(tracker, told(6, "finished", seconds=4))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 6)]


def test_a_failure_ends_it_and_alone_makes_none() -> None:
    tracker = fed(*TALK, told(2, "started"), told(3, "failed"))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 3)]
    tracker = fed(*TALK, told(3, "failed"))
    assert calls(tracker)[A].recordings == []


def test_of_two_callers_in_a_bridge_it_is_the_first_ones() -> None:
    tracker = fed(*BORN, event(1, "Newchannel", C), enter(1, C), enter(2, A), told(3, "started", "bridge:b"))
    found = {name: spans(call.recordings) for name, call in calls(tracker).items()}
    assert [recordings for recordings in found.values() if recordings] == [[("/rec/x.wav", A, 3, None)]]


def test_the_same_name_again_in_another_call_is_that_calls() -> None:
    tracker = fed(*TALK, told(2, "started"), told(3, "finished"), event(4, "Newchannel", C))
    feed(tracker, told(5, "started", f"channel:{C}"))
    feed(tracker, told(6, "finished", f"channel:{C}"))
    found = {name: spans(call.recordings) for name, call in calls(tracker).items()}
    assert found == {A: [("/rec/x.wav", A, 2, 3)], C: [("/rec/x.wav", C, 5, 6)]}


def test_mixmonitor_and_ari_leave_each_other_alone() -> None:
    tracker = fed(
        *TALK,
        told(2, "started"),
        event(3, "VarSet", A, Variable="MIXMONITOR_FILENAME", Value="/mon/y.wav"),
        event(3, "MixMonitorStart", A),
        event(4, "MixMonitorMute", A, Direction="both", State="1"),
        event(5, "MixMonitorStop", A),
    )
    by_kind = {r.kind: r for r in calls(tracker)[A].recordings}
    assert by_kind[RecordingKind.ARI].ended_at is None
    assert by_kind[RecordingKind.ARI].paused_spans == []
    assert by_kind[RecordingKind.CALL].ended_at is not None
    assert len(by_kind[RecordingKind.CALL].paused_spans) == 1


def test_it_outlives_the_daemon() -> None:
    before = calls(fed(*TALK, told(2, "started")))[A]
    tracker = Tracker("p")
    tracker.adopt([before])
    rows = {uniqueid: event(3, "", uniqueid).fields for uniqueid in (A, B)}
    tracker.resync(Snapshot(T0 + 3, rows, {}, [], [], {}))
    tracker.take()
    feed(tracker, told(8, "finished", seconds=6))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, 8)]


def test_one_of_a_channel_that_only_the_lists_tell_of_is_tied_by_them() -> None:
    tracker = fed(told(2, "started"))
    rows = {A: event(3, "").fields}
    tracker.resync(Snapshot(T0 + 3, rows, {}, [], [], {}))
    assert spans(calls(tracker)[A].recordings) == [("/rec/x.wav", A, 2, None)]


def test_nothing_is_kept_for_ever() -> None:
    tracker = Tracker("p")
    for n in range(5_000):
        tracker.recorded(told(n, "started", f"channel:nobody-{n}"), f"/rec/{n}.wav")
        tracker.recorded(told(n + 1, "finished", f"channel:nobody-{n}"), f"/rec/{n}.wav")
    assert len(tracker._live.ari) <= 4096
    assert len(tracker._live.untied) <= 256
    assert tracker.take() == []
