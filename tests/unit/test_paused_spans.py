"""The pauses of a recording: given events, then spans. Times are seconds of the call."""

from collections.abc import Iterator
from itertools import permutations

import pytest

from trunkline.asterisk.event import Event
from trunkline.asterisk.lists import Snapshot
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.record import CallRecord, Quality, Role
from trunkline.calls.tracker import Tracker

T0 = 1_795_000_000.0
A, B = "p-1.0", "p-1.1"
TRUNK = {"Channel": "PJSIP/trunk-1", "ChannelState": "6", "CallerIDNum": "15551234567", "Exten": "442070001001"}
AGENT = {"Channel": "PJSIP/1001-1", "ChannelState": "6", "CallerIDNum": "1001", "Exten": "s"}
CHANNELS = {A: TRUNK | {"Uniqueid": A, "Linkedid": A}, B: AGENT | {"Uniqueid": B, "Linkedid": A}}

Spans = list[tuple[float, float | None]]


def event(at: float, kind: str, uniqueid: str = A, **fields: str) -> Event:
    return Event(kind, T0 + at, CHANNELS[uniqueid] | fields)


def pause(at: float, direction: str = "both", uniqueid: str = A) -> Event:
    return event(at, "MixMonitorMute", uniqueid, Direction=direction, State="1")


def resume(at: float, direction: str = "both", uniqueid: str = A) -> Event:
    return event(at, "MixMonitorMute", uniqueid, Direction=direction, State="0")


def record_to(at: float, path: str, uniqueid: str = A) -> Iterator[Event]:
    yield event(at, "VarSet", uniqueid, Variable="MIXMONITOR_FILENAME", Value=path)
    yield event(at, "MixMonitorStart", uniqueid)


def stop(at: float, uniqueid: str = A) -> Event:
    return event(at, "MixMonitorStop", uniqueid)


def hang_up(at: float, uniqueid: str = A) -> Event:
    return event(at, "Hangup", uniqueid, Cause="16")


# Two people talk, and the customer's channel is recorded: from second 1 on.
TALK = (
    event(0, "Newchannel"),
    event(0, "Newchannel", B),
    event(0, "BridgeEnter", A, BridgeUniqueid="b"),
    event(0, "BridgeEnter", B, BridgeUniqueid="b"),
    *record_to(1, "a.wav"),
)


def taken(tracker: Tracker) -> CallRecord:
    (update,) = tracker.take()
    return update.record


def told(record: CallRecord) -> dict[str, Spans]:
    """The spans of each file."""

    def second(at: float) -> float:
        return round(at - T0, 3)

    return {
        r.path: [
            (second(s.started_at.timestamp()), None if s.ended_at is None else second(s.ended_at.timestamp()))
            for s in r.paused_spans
        ]
        for r in record.recordings
    }


def spans_of(*events: Event) -> Spans:
    """Those of the one recording of TALK and what follows it."""
    tracker = Tracker("p")
    for e in (*TALK, *events):
        tracker.handle(e)
    (spans,) = told(taken(tracker)).values()
    return spans


def test_its_event_is_read():
    assert NEEDED["MixMonitorMute"] is None
    assert {"Direction", "State"} <= FIELDS


@pytest.mark.parametrize(
    ("events", "spans"),
    [
        ([], []),
        ([pause(2)], [(2, None)]),
        ([pause(2), resume(3)], [(2, 3)]),
        ([pause(2), resume(3), pause(4), resume(6)], [(2, 3), (4, 6)]),
        ([resume(2)], []),
    ],
)
def test_a_pause_lasts_until_it_is_taken_back(events: list[Event], spans: Spans):
    assert spans_of(*events) == spans


@pytest.mark.parametrize(
    "events",
    [
        [pause(2), pause(2), resume(4), resume(4)],  # told twice
        [pause(2), resume(4), pause(2), resume(4)],  # the whole of it
        [pause(2), pause(3), resume(4), resume(5)],  # asked twice
    ],
)
def test_what_comes_twice_changes_nothing(events: list[Event]):
    assert spans_of(*events) == [(2, 4)]


def test_what_changes_nothing_is_no_new_revision():
    tracker = Tracker("p")
    for e in (*TALK, pause(2)):
        tracker.handle(e)
    tracker.take()
    for e in (pause(2), pause(3)):
        tracker.handle(e)
    assert tracker.take() == []


def test_the_order_they_arrive_in_does_not_matter():
    events = [pause(2), resume(3), pause(4), resume(5), stop(6)]
    assert {tuple(spans_of(*order)) for order in permutations(events)} == {((2, 3), (4, 5))}


@pytest.mark.parametrize(
    ("events", "spans"),
    [
        ([pause(2, "read"), resume(3, "read")], [(2, 3)]),
        ([pause(2, "write"), resume(3, "write")], [(2, 3)]),
        ([pause(2, "read"), resume(3, "write")], [(2, None)]),
        ([pause(2, "read"), pause(3, "write"), resume(4, "read"), resume(5, "write")], [(2, 5)]),
        ([pause(2, "both"), resume(3, "read"), resume(4, "write")], [(2, 4)]),
        ([pause(2, "read"), pause(3, "both"), resume(4, "both")], [(2, 4)]),
        ([pause(2, "read"), resume(3, "both")], [(2, 3)]),
        ([pause(2, "BOTH"), resume(3, "Both")], [(2, 3)]),  # Asterisk repeats the word as it was asked
    ],
)
def test_one_side_muted_is_a_pause_while_it_lasts(events: list[Event], spans: Spans):
    assert spans_of(*events) == spans


@pytest.mark.parametrize("broken", [{"Direction": "up", "State": "1"}, {"Direction": "both"}, {"State": "1"}])
def test_an_event_that_says_no_state_or_side_says_nothing(broken: dict[str, str]):
    assert spans_of(event(2, "MixMonitorMute", **broken)) == []


def test_a_recording_that_stops_while_paused_ends_the_pause():
    assert spans_of(pause(2), stop(4)) == [(2, 4)]
    assert spans_of(pause(2), stop(4), resume(5)) == [(2, 4)]
    assert spans_of(pause(2), stop(4), pause(5)) == [(2, 4)]


def test_a_channel_that_ends_while_its_recording_is_paused_ends_the_pause():
    assert spans_of(pause(2), hang_up(4), hang_up(6, B)) == [(2, 4)]


def test_a_second_recording_has_its_own_pauses():
    tracker = Tracker("p")
    for e in (*TALK, pause(2), stop(3), *record_to(4, "b.wav"), pause(5), resume(6), pause(7), stop(8)):
        tracker.handle(e)
    assert told(taken(tracker)) == {"a.wav": [(2, 3)], "b.wav": [(5, 6), (7, 8)]}


def test_recordings_that_run_side_by_side_are_paused_together_and_another_channels_are_not():
    tracker = Tracker("p")
    for e in (*TALK, *record_to(1, "b.wav"), *record_to(1, "agent.wav", B), pause(2), resume(3)):
        tracker.handle(e)
    assert told(taken(tracker)) == {"a.wav": [(2, 3)], "b.wav": [(2, 3)], "agent.wav": []}


def test_a_recording_that_begins_during_a_pause_is_not_paused():
    tracker = Tracker("p")
    for e in (*TALK, pause(2), *record_to(3, "b.wav"), resume(4)):
        tracker.handle(e)
    assert told(taken(tracker)) == {"a.wav": [(2, 4)], "b.wav": []}


def test_the_pause_may_be_the_first_that_is_heard_of_a_channel():
    tracker = Tracker("p")
    for e in (pause(2), resume(3), event(4, "VarSet", Variable="MIXMONITOR_FILENAME", Value="a.wav")):
        tracker.handle(e)
    assert tracker.channels == 1
    assert told(taken(tracker)) == {"a.wav": [(2, 3)]}


def test_the_name_may_come_from_a_resync():
    tracker = Tracker("p")
    tracker.handle(pause(2))
    row = CHANNELS[A] | {"Duration": "00:00:04"}
    tracker.resync(Snapshot(T0 + 4, {A: row}, {}, [], [], {A: {"MIXMONITOR_FILENAME": "a.wav"}}))
    tracker.handle(resume(5))
    assert told(taken(tracker)) == {"a.wav": [(2, 5)]}


def test_a_pause_that_is_taken_back_tells_of_no_recording():
    tracker = Tracker("p")
    for e in (event(0, "Newchannel"), resume(2), hang_up(3)):
        tracker.handle(e)
    assert taken(tracker).recordings == []


def test_a_merge_keeps_the_pauses_of_both():
    tracker = Tracker("p")
    other = CHANNELS[B] | {"Uniqueid": "p-1.5", "Linkedid": "p-1.5", "Channel": "PJSIP/1002-1"}
    both = {"Direction": "both", "State": "1"}
    for e in (
        *TALK,
        pause(2),
        Event("Newchannel", T0 + 2, other),
        Event("VarSet", T0 + 2, other | {"Variable": "MIXMONITOR_FILENAME", "Value": "b.wav"}),
        Event("MixMonitorMute", T0 + 3, other | both),
        resume(4),
        Event("BridgeEnter", T0 + 5, other | {"BridgeUniqueid": "b"}),
        Event("MixMonitorMute", T0 + 6, other | {"Linkedid": A} | both | {"State": "0"}),
    ):
        tracker.handle(e)
    record = taken(tracker)
    assert record.aliases == ["p-1.5"]
    assert told(record) == {"a.wav": [(2, 4)], "b.wav": [(3, 6)]}


@pytest.mark.parametrize("direction", ["both", "read"])
def test_pauses_outlive_the_daemon(direction: str):
    tracker = Tracker("p")
    for e in (*TALK, pause(2), resume(3), pause(4, direction)):
        tracker.handle(e)
    before = taken(tracker)
    assert told(before) == {"a.wav": [(2, 3), (4, None)]}
    again = Tracker("p")
    again.adopt([before])
    rows = {u: row | {"BridgeId": "b", "Duration": "00:00:09"} for u, row in CHANNELS.items()}
    again.resync(Snapshot(T0 + 9, rows, {}, [], [], {A: {"MIXMONITOR_FILENAME": "a.wav"}}))
    for e in (pause(2), resume(10, direction), *record_to(11, "b.wav"), pause(12), hang_up(13), hang_up(13, B)):
        again.handle(e)
    after = taken(again)
    assert told(after) == {"a.wav": [(2, 3), (4, 10), (12, 13)], "b.wav": [(12, 13)]}
    assert after.recordings[0].started_at == before.recordings[0].started_at
    assert (after.quality, [leg.role for leg in after.legs]) == (Quality.OBSERVED, [Role.CALLER, Role.AGENT])


@pytest.mark.parametrize("lost", range(6))
def test_of_two_recordings_the_second_is_right_whatever_was_lost_of_the_first(lost: int):
    first = [*record_to(1, "a.wav"), pause(2), resume(3), stop(4)]
    tracker = Tracker("p")
    for e in (*TALK[:-2], *first[:lost], *first[lost + 1 :], *record_to(5, "b.wav"), pause(6), resume(7), hang_up(8)):
        tracker.handle(e)
    assert told(taken(tracker))["b.wav"] == [(6, 7)]
