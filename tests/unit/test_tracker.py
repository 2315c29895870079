"""The tracker, given events, then Calls: what the captures do not show."""

import gc
import tracemalloc
from pathlib import Path

import pytest

from trunkline.asterisk.event import Event
from trunkline.asterisk.lists import Snapshot
from trunkline.calls.record import CallRecord, CallUpdate, Direction, EndedBy, EndReason, Quality, Status
from trunkline.calls.tracker import Tracker

T0 = 1_795_000_000.0


class Pbx:
    """Says what an Asterisk would: short to write, complete in the fields that the tracker reads."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.at = T0
        self.channels: dict[str, dict[str, str]] = {}

    def say(self, kind: str, *parts: dict[str, str], **fields: str) -> None:
        self.at += 0.1
        merged = {k: v for part in parts for k, v in part.items()} | fields
        self.tracker.handle(Event(kind, self.at, merged))

    def new(self, uid: str, name: str, number: str, exten: str = "s", state: str = "4", linkedid: str = "") -> None:
        self.channels[uid] = {
            "Channel": name, "ChannelState": state, "CallerIDNum": number, "CallerIDName": "", "Exten": exten,
            "Uniqueid": uid, "Linkedid": linkedid or uid,
        }  # fmt: skip
        self.say("Newchannel", self.channels[uid])

    def dest(self, uid: str) -> dict[str, str]:
        return {f"Dest{k}": v for k, v in self.channels[uid].items()}

    def dial(self, source: str, uid: str, name: str, number: str, dial_string: str) -> None:
        self.new(uid, name, number, state="0", linkedid=self.channels[source]["Linkedid"])
        self.say("DialBegin", self.channels[source], self.dest(uid), DialString=dial_string)

    def up(self, uid: str) -> None:
        self.channels[uid]["ChannelState"] = "6"
        self.say("Newstate", self.channels[uid])

    def answer(self, source: str, uid: str) -> None:
        self.up(uid)
        self.say("DialEnd", self.channels[source], self.dest(uid), DialStatus="ANSWER")
        self.bridge("b-" + uid, uid, source)

    def bridge(self, bridge: str, *uids: str) -> None:
        for n, uid in enumerate(uids):
            self.say("BridgeEnter", self.channels[uid], BridgeUniqueid=bridge, BridgeNumChannels=str(n + 1))

    def hangup(self, uid: str, cause: str = "16", *, by_party: bool = False) -> None:
        if by_party:
            self.say("HangupRequest", self.channels[uid])
        self.say("Hangup", self.channels.pop(uid), Cause=cause)

    def inbound(self, number: str = "15551234567", did: str = "442070001001", uid: str = "p-1.0") -> str:
        self.new(uid, f"PJSIP/trunk-{uid[-3:]}", number, did)
        return uid


@pytest.fixture
def pbx() -> Pbx:
    return Pbx(Tracker("p"))


def only(updates: list[CallUpdate]) -> CallRecord:
    (update,) = updates
    return update.record


def test_what_happened_is_told_in_order_and_once(pbx: Pbx):
    a = pbx.inbound()
    pbx.dial(a, "p-1.1", "PJSIP/1001-1", "1001", "1001")
    (first,) = pbx.tracker.take()
    assert first.happened == ("call.ringing",)
    assert (first.record.status, first.record.rang, first.record.revision > 0) == (Status.RINGING, ["1001"], True)
    pbx.answer(a, "p-1.1")
    (second,) = pbx.tracker.take()
    assert second.happened == ("call.answered",)
    assert second.record.status is Status.IN_PROGRESS
    assert second.record.revision > first.record.revision
    assert pbx.tracker.take() == []
    pbx.hangup(a, by_party=True)
    pbx.hangup("p-1.1")
    (third,) = pbx.tracker.take()
    assert third.happened == ("call.ended",)
    assert (third.record.status, third.record.ended_by) == (Status.COMPLETED, EndedBy.CALLER)
    assert pbx.tracker.live == pbx.tracker.channels == 0


def test_a_phone_that_rings_no_more_is_told_while_the_call_goes_on(pbx: Pbx):
    a = pbx.inbound()
    pbx.dial(a, "p-1.1", "PJSIP/1001-1", "1001", "1001")
    pbx.dial(a, "p-1.2", "PJSIP/1002-1", "1002", "1002")
    pbx.tracker.take()
    pbx.say("DialEnd", pbx.channels[a], pbx.dest("p-1.1"), DialStatus="NOANSWER")
    assert [u.happened for u in pbx.tracker.take()] == [()]
    pbx.hangup("p-1.1", "0")
    assert [u.happened for u in pbx.tracker.take()] == [("call.ring_cleared",)]
    pbx.up("p-1.2")  # it has the call, though nobody is bridged with anybody yet
    assert [u.happened for u in pbx.tracker.take()] == [("call.ring_cleared",)]
    pbx.answer(a, "p-1.2")
    assert [u.happened for u in pbx.tracker.take()] == [("call.answered",)]
    pbx.dial(a, "p-1.3", "PJSIP/1003-1", "1003", "1003")
    pbx.tracker.take()
    pbx.say("DialEnd", pbx.channels[a], pbx.dest("p-1.3"), DialStatus="ANSWER")  # whose Newstate was lost
    assert [u.happened for u in pbx.tracker.take()] == [("call.ring_cleared",)]


def test_a_phone_that_rang_before_a_restart_of_ours_is_cleared(pbx: Pbx):
    a = pbx.inbound()
    pbx.dial(a, "p-1.1", "PJSIP/1001-1", "1001", "1001")
    after = Tracker("p")
    after.adopt([only(pbx.tracker.take())])
    after.resync(Snapshot(pbx.at, {a: pbx.channels[a]}, {}, [], [], {}))
    (update,) = after.take()
    assert update.happened == ("call.ring_cleared",)


def test_uniqueids_of_any_form_and_reused_names(pbx: Pbx):
    pbx.new("any string, really", "PJSIP/trunk-00000001", "1555", "2000")
    pbx.hangup("any string, really", by_party=True)
    pbx.new("another", "PJSIP/trunk-00000001", "1556", "2000")
    assert [u.record.from_ for u in pbx.tracker.take()] == ["1555", "1556"]


def test_merged_calls_keep_the_elder_by_counter_not_by_text(pbx: Pbx):
    a = pbx.inbound(uid="p-100.9")
    pbx.dial(a, "p-100.11", "PJSIP/1001-1", "1001", "1001")
    pbx.answer(a, "p-100.11")
    pbx.new("p-100.10", "PJSIP/1001-2", "1001", "1002")
    pbx.tracker.take()
    pbx.bridge("b-p-100.11", "p-100.10")
    (update,) = pbx.tracker.take()
    assert (update.record.external_id, update.record.aliases) == ("p-100.9", ["p-100.10"])
    assert "call.merged" in update.happened


def test_outbound_declined_busy_and_unallocated(pbx: Pbx):
    outcomes = {}
    for n, (cause, status) in enumerate([("21", "NOANSWER"), ("17", "BUSY"), ("1", "NOANSWER"), ("34", "CONGESTION")]):
        uid, dest = f"p-2.{n * 2}", f"p-2.{n * 2 + 1}"
        pbx.new(uid, f"PJSIP/1001-{n}", "1001", "15557654321")
        pbx.dial(uid, dest, f"PJSIP/trunk-{n}", "", "15557654321@trunk")
        pbx.say("DialEnd", pbx.channels[uid], pbx.dest(dest), DialStatus=status)
        pbx.hangup(dest, cause)
        pbx.hangup(uid, cause)
        record = only(pbx.tracker.take())
        assert record.direction is Direction.OUTBOUND
        outcomes[cause] = (record.status, record.end_reason, record.ended_by)
    assert outcomes == {
        "21": (Status.NO_ANSWER, EndReason.DECLINED, EndedBy.CALLEE),
        "17": (Status.BUSY, EndReason.BUSY, EndedBy.CALLEE),
        "1": (Status.FAILED, EndReason.UNALLOCATED, EndedBy.PBX),
        "34": (Status.FAILED, EndReason.CONGESTION, EndedBy.PBX),
    }


def test_a_lost_pbx_ends_its_calls(pbx: Pbx):
    a = pbx.inbound()
    pbx.dial(a, "p-1.1", "PJSIP/1001-1", "1001", "1001")
    pbx.answer(a, "p-1.1")
    pbx.inbound("1556", uid="p-9.9")
    pbx.tracker.take()
    pbx.tracker.lost(pbx.at + 5)
    talking, ringing = sorted((u.record for u in pbx.tracker.take()), key=lambda r: r.external_id)
    assert (talking.status, talking.end_reason, talking.ended_by) == (Status.COMPLETED, EndReason.PBX_LOST, EndedBy.PBX)
    assert (ringing.status, ringing.end_reason) == (Status.MISSED, EndReason.PBX_LOST)
    assert talking.quality is ringing.quality is Quality.ESTIMATED
    assert pbx.tracker.channels == 0


def test_a_broken_list_ends_no_call(pbx: Pbx):
    pbx.inbound()
    pbx.tracker.resync(Snapshot(pbx.at + 1, {}, {}, [], [], {}, whole=False))
    assert pbx.tracker.live == 1
    pbx.tracker.resync(Snapshot(pbx.at + 2, {}, {}, [], [], {}))
    assert pbx.tracker.live == 0


def test_a_call_outlives_its_daemon(pbx: Pbx):
    a = pbx.inbound()
    pbx.dial(a, "p-1.1", "PJSIP/1001-00000001", "1001", "1001")
    pbx.answer(a, "p-1.1")
    before = only(pbx.tracker.take())
    again = Tracker("p")
    again.adopt([before])
    rows = {u: row | {"BridgeId": "b-p-1.1", "Duration": "00:01:00"} for u, row in pbx.channels.items()}
    again.resync(Snapshot(pbx.at + 60, rows, {}, [], [], {}))
    pbx.tracker = again
    pbx.at += 60
    pbx.hangup("p-1.1", by_party=True)
    pbx.hangup(a)
    after = only(again.take())
    assert after.external_id == before.external_id
    assert after.revision > before.revision
    assert (after.status, after.answered_by, after.ended_by) == (Status.COMPLETED, "1001", EndedBy.CALLEE)
    assert (after.answered_at, after.started_at) == (before.answered_at, before.started_at)


def test_an_adopted_call_that_is_gone_ends(pbx: Pbx):
    pbx.inbound()
    before = only(pbx.tracker.take())
    again = Tracker("p")
    again.adopt([before])
    assert again.live == 1
    again.resync(Snapshot(pbx.at + 60, {}, {}, [], [], {}))
    after = only(again.take())
    assert (after.status, after.end_reason, after.quality) == (Status.MISSED, EndReason.PBX_LOST, Quality.ESTIMATED)


def test_a_caller_on_the_busy_tone_was_refused_not_impatient(pbx: Pbx):
    a = pbx.inbound()
    pbx.dial(a, "p-1.1", "PJSIP/1001-1", "1001", "1001")
    pbx.say("DialEnd", pbx.channels[a], pbx.dest("p-1.1"), DialStatus="BUSY")
    pbx.hangup("p-1.1", "17")
    pbx.hangup(a, "17", by_party=True)
    record = only(pbx.tracker.take())
    assert (record.status, record.end_reason, record.ended_by) == (Status.BUSY, EndReason.BUSY, EndedBy.CALLEE)


def test_digits_before_anybody_answers_are_kept(pbx: Pbx):
    a = pbx.inbound()
    pbx.up(a)
    for digit in "12":
        pbx.say("DTMFEnd", pbx.channels[a], Digit=digit, Direction="Received")
    assert only(pbx.tracker.take()).digits == "12"


def test_nothing_a_pbx_can_send_raises(pbx: Pbx):
    """Each kind with the fewest fields the guard lets through, in no order that makes sense."""
    from trunkline.asterisk.guard import REQUIRED

    a = pbx.inbound()
    for kind, required in REQUIRED.items():
        fields = {key: pbx.channels[a].get(key, "x") for key in required}
        for uniqueid in ("p-1.0", "unknown", ""):
            pbx.say(kind, fields | {k: uniqueid for k in required if k.endswith(("Uniqueid", "Linkedid"))})
    pbx.tracker.take()


def one_call(pbx: Pbx, n: int) -> None:
    a, b = f"p-{n}.0", f"p-{n}.1"
    pbx.new(a, f"PJSIP/trunk-{n:08x}", f"1555{n % 40:07}", "442070001001")  # callers come again: E.164 is cached
    pbx.dial(a, b, f"PJSIP/1001-{n:08x}", "1001", "1001")
    pbx.answer(a, b)


def test_memory_of_a_live_call_is_small_and_of_an_ended_one_nothing(pbx: Pbx):
    for n in range(50):
        one_call(pbx, n)
    pbx.tracker.take()
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(1000, 1500):
            one_call(pbx, n)
        pbx.tracker.take()
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / 500
        assert each < 20_000
        for uid in list(pbx.channels):
            pbx.hangup(uid, by_party=True)
        pbx.tracker.take()
        pbx.at += 1000
        for n in range(2000, 2400):  # time goes on: what was remembered of them is let go
            one_call(pbx, n)
            for uid in list(pbx.channels):
                pbx.hangup(uid)
            pbx.at += 10
            pbx.tracker.take()
        gc.collect()
        settled = tracemalloc.get_traced_memory()[0]
        for n in range(3000, 4000):
            one_call(pbx, n)
            for uid in list(pbx.channels):
                pbx.hangup(uid)
            pbx.at += 10
            pbx.tracker.take()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < settled + 20_000
    finally:
        tracemalloc.stop()


def test_the_rooms_invariant_holds_in_its_source():
    """No clock, no chance, no I/O: the import contract says it, and nothing hides it in a function."""
    for path in Path("daemon/trunkline/calls").glob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.startswith("    import "), f"{path}: {line}"


def test_a_call_that_cannot_be_told_is_not_the_others_fault(pbx: Pbx):
    pbx.inbound()
    pbx.at = 1e300
    pbx.inbound("1556", uid="p-7.7")
    (update,) = pbx.tracker.take()
    assert update.record.external_id == "p-1.0"
    assert pbx.tracker.faults == 1
    assert pbx.tracker.take() == []
