"""The guard against forged events: what Asterisk wrote passes, what a caller wrote does not, whatever he writes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.event import Event
from trunkline.asterisk.guard import Guard
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.tracker import Tracker

PBX = "pbx1"
CUT = 80  # characters of a number that reach AMI


def event(kind: str, number: str = "1555", exten: str = "2000", uniqueid: str = "pbx1-1.0", *extra: str) -> bytes:
    """As Asterisk 22 writes a channel's event: the values raw."""
    lines = [
        f"Event: {kind}", "Privilege: call,all", "Timestamp: 1795347136.298375", f"SystemName: {PBX}",
        "Channel: PJSIP/trunk-00000000", "ChannelState: 4", "ChannelStateDesc: Ring", f"CallerIDNum: {number[:CUT]}",
        "CallerIDName: x", "ConnectedLineNum: <unknown>", "ConnectedLineName: <unknown>", "Language: en",
        "AccountCode: ",
        "Context: from-trunk", f"Exten: {exten[:CUT]}", "Priority: 1", f"Uniqueid: {uniqueid}", f"Linkedid: {uniqueid}",
        *extra,
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def judged(data: bytes, guard: Guard | None = None, *, raw: bool = False) -> list[Event]:
    guard = guard or Guard(PBX)
    decoder = Decoder() if raw else Decoder(wanted=NEEDED, fields=FIELDS)
    return [e for f in decoder.feed(data) if (e := guard.check(f, 5.0)) is not None]


def test_a_genuine_event_passes_with_its_own_time():
    (passed,) = judged(event("Newchannel"))
    assert (passed.kind, passed.at, passed.fields["Uniqueid"]) == ("Newchannel", 1795347136.298375, "pbx1-1.0")


@pytest.mark.parametrize("raw", [True, False])
def test_a_forged_hangup_in_the_number_is_not_believed(raw: bool):
    forged = "1\r\n\r\nEvent: Hangup\r\nUniqueid: pbx1-0.0\r\nCause: 16\r\nX: y"
    guard = Guard(PBX)
    passed = judged(event("Newstate", forged) + event("Newstate"), guard, raw=raw)
    assert [e.kind for e in passed] == ["Newstate", "Newstate"]
    assert {e.fields["Uniqueid"] for e in passed} == {"pbx1-1.0"}
    assert guard.mended == 1
    assert guard.suspicious == 1


def test_a_forged_head_and_tail_in_two_values_is_not_believed():
    head = "1\r\n\r\nEvent: Hangup\r\nPrivilege: call,all\r\nTimestamp: 1.000000\r\nSystemName: pbx1"
    tail = "1\r\nUniqueid: pbx1-0.0\r\nLinkedid: pbx1-0.0\r\nCause: 16\r\nCause-txt: x\r\n\r\nA: b"
    for data in (event("Newstate", head, tail), event("Newchannel", head, tail), event("BridgeEnter", head, tail)):
        assert "pbx1-0.0" not in {e.fields.get("Uniqueid") for e in judged(data)}


def test_another_channels_ids_behind_the_dialled_number_are_not_believed():
    """A block that is whole in itself, and not the event that Asterisk wrote: the tail behind it gives it away."""
    lie = "1\r\nPriority: 1\r\nUniqueid: pbx1-0.0\r\nLinkedid: pbx1-0.0\r\n\r\n"
    for kind in ("Newchannel", "Newstate", "Unhold"):
        (passed,) = judged(event(kind, exten=lie))
        assert passed.fields["Uniqueid"] == "pbx1-1.0"


def test_even_cut_at_the_lie_it_is_not_believed():
    """The same, with the bytes behind the lie coming later: the tracker knows the victim by another channel's name."""
    victim = event("Newchannel", uniqueid="pbx1-0.0").replace(b"trunk-00000000", b"1001-00000009")
    lie = "1\r\nPriority: 1\r\nUniqueid: pbx1-0.0\r\nLinkedid: pbx1-0.0\r\n\r\n"
    attack = event("Newstate", exten=lie).replace(b"ChannelState: 4", b"ChannelState: 6")
    cut = attack.index(b"\r\n\r\n") + 4
    tracker, guard, decoder = Tracker(PBX), Guard(PBX), Decoder(wanted=NEEDED, fields=FIELDS)
    for data in (victim, attack[:cut], attack[cut:]):
        for frame in decoder.feed(data):
            if (passed := guard.check(frame, 0.0)) is not None:
                tracker.handle(passed)
    assert tracker.misnamed == 1
    assert guard.refused == {"continuation": 1}
    (update,) = tracker.take()
    assert update.record.legs[0].answered_at is None


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "\r\n", "\r\n\r\n", "Event: Hangup", "Event: Newstate", "Privilege: call,all", "Timestamp: 1.000001",
                "SystemName: pbx1", "Channel: x", "Uniqueid: victim", "Linkedid: victim", "Cause: 16", "Priority: 1",
                "Exten: 1", "ActionID: 1", "Response: Success", "1", ": ",
            ]
        ),
        max_size=12,
    ).map("".join),
    st.lists(
        st.sampled_from(["\r\n", "Uniqueid: victim", "Linkedid: victim", "Cause: 16", "\r\n\r\n"]), max_size=8
    ).map("".join),
    st.sampled_from(["Newchannel", "Newstate", "Hangup", "HangupRequest", "BridgeEnter", "Hold"]),
)  # fmt: skip
def test_nothing_a_caller_writes_names_another_channel(number: str, exten: str, kind: str):
    extra = {"Hangup": ["Cause: 16", "Cause-txt: Normal Clearing"], "HangupRequest": ["Cause: 16"]}.get(kind, [])
    data = event(kind, number, exten, "pbx1-1.0", *extra)
    if kind == "BridgeEnter":
        data = data.replace(b"Channel: PJSIP", b"BridgeUniqueid: b1\r\nBridgeNumChannels: 1\r\nChannel: PJSIP", 1)
    for passed in judged(data + event("Newstate")):
        assert "victim" not in (passed.fields.get("Uniqueid"), passed.fields.get("Linkedid"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b"SystemName: pbx1", b"SystemName: pbx2"), "systemname"),
        ((b"Timestamp: 1795347136.298375\r\n", b""), "head"),
        ((b"\r\nUniqueid: pbx1-1.0", b""), "incomplete"),
        (
            (b"Channel: PJSIP/trunk-00000000\r\nChannelState: 4", b"ChannelState: 4\r\nChannel: PJSIP/trunk-00000000"),
            "order",
        ),
    ],
)
def test_what_lacks_a_mark_is_refused_and_counted(change: tuple[bytes, bytes], reason: str):
    guard = Guard(PBX)
    assert judged(event("Newstate").replace(*change), guard) == []
    assert guard.refused == {reason: 1}


def test_a_repeated_key_is_refused_unless_it_repeats_by_design():
    guard = Guard(PBX)
    twice = event("DTMFEnd", "pbx1-1.0").replace(b"Language: en", b"Language: en\r\nLanguage: de")
    assert judged(twice, guard) == []
    assert guard.refused == {"broken": 1}
    variables = event("Newstate").replace(b"Priority: 1", b"ChanVariable: A=1\r\nChanVariable: B=2\r\nPriority: 1")
    assert len(judged(variables)) == 1


def test_fully_booted_needs_no_mark():
    guard = Guard(PBX)
    booted = b"Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 5\r\nStatus: Fully Booted\r\n\r\n"
    assert [e.kind for e in judged(booted, guard, raw=True)] == ["FullyBooted"]
    assert guard.suspicious == 0


def test_without_systemname_and_timestamps_the_other_checks_hold():
    guard = Guard(None, timestamps=False)
    plain = event("Newstate").replace(b"Timestamp: 1795347136.298375\r\nSystemName: pbx1\r\n", b"")
    (passed,) = judged(plain, guard)
    assert passed.at == 5.0
    assert judged(plain.replace(b"\r\nUniqueid: pbx1-1.0", b""), guard) == []


def test_responses_and_rows_are_no_events():
    guard = Guard(PBX)
    data = b"Response: Success\r\nActionID: 1\r\n\r\nEvent: CoreShowChannel\r\nActionID: 1\r\nChannel: a\r\n\r\n"
    assert judged(data, guard, raw=True) == []
