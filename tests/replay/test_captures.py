"""Every recorded stream of a real Asterisk gives the Calls that its expected.json says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scoring import CAPTURES, as_json, compare, expected_calls, scored

from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.guard import Guard
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.record import LIVE, CallRecord, Direction, LegEnd, Quality, Role
from trunkline.calls.tracker import Tracker
from trunkline.replay import CaptureError, replay, sessions_of


@pytest.mark.parametrize("name", scored())
def test_calls_are_right(name: str):
    assert compare(name, as_json(replay(CAPTURES / name))) == []


def only(name: str, **options: str) -> CallRecord:
    (call,) = replay(CAPTURES / name, **options)
    return call


@pytest.mark.parametrize("name", [n for n in scored() if n not in {"q_callerid_forged_event"}])
def test_every_call_ended_and_adds_up(name: str):
    for call in replay(CAPTURES / name):
        assert call.status not in LIVE
        assert call.ended_at is not None
        assert call.started_at <= call.ended_at
        assert call.duration == round((call.ended_at - call.started_at).total_seconds())
        assert (call.talk_seconds or 0) + (call.wait_seconds or 0) <= (call.duration or 0) + 2
        assert all(leg.ended_at is not None and leg.end_reason is not None for leg in call.legs)
        assert sum(leg.role is Role.CALLER for leg in call.legs) == 1
        assert (call.answered_at is None) == (call.answered_by is None)


def test_waits_talks_and_holds_are_measured():
    call = only("h_hold_unhold")
    assert (call.wait_seconds, call.talk_seconds, call.hold_seconds) == (1, 2, 2)
    assert [h.by for h in call.holds] == ["1001", "1001", "15551234567"]


def test_legs_say_who_when_and_why():
    legs = {leg.endpoint: leg for leg in only("n_ring_group").legs}
    assert legs["PJSIP/1002"].end_reason is LegEnd.HANGUP
    assert legs["PJSIP/1001"].end_reason is legs["PJSIP/1003"].end_reason is LegEnd.ANSWERED_ELSEWHERE
    assert legs["PJSIP/1001"].answered_at is None
    assert legs["PJSIP/trunk"].role is Role.CALLER
    assert [leg.party for leg in only("f_blind_transfer_refer").legs] == ["15551234567", "1001", "1002"]
    assert [leg.role for leg in only("f_blind_transfer_refer").legs][2] is Role.TRANSFER_TARGET


def test_the_customers_channel_and_number_by_direction():
    inbound, outbound = only("a_inbound_caller_hangs_up", region="US"), only("d_click_to_dial", region="US")
    assert inbound.channel_id == "pbx1-1795347136.0"
    assert (inbound.phone_number, inbound.from_e164, inbound.to_e164) == (
        "15551234567",
        "+15551234567",
        "+442070001001",
    )
    assert outbound.direction is Direction.OUTBOUND
    assert outbound.external_id == "tl-click-42"
    assert outbound.channel_id not in {None, "tl-click-42"}
    assert (outbound.phone_number, outbound.to_e164) == ("15557654321", "+15557654321")


def test_an_attended_transfer_is_one_call_with_an_alias():
    call = only("g_attended_transfer_refer")
    assert len(call.aliases) == 1
    assert call.aliases[0] != call.external_id
    assert len(call.legs) == 4
    assert call.transfers[0].result == "ANSWERED"


def test_a_queue_attempt_that_rang_out_is_a_leg():
    call = only("e_queue_second_agent")
    assert [(leg.party, leg.dial_status) for leg in call.legs[1:]] == [("1001", "NOANSWER"), ("1002", "ANSWER")]
    assert call.legs[1].end_reason is LegEnd.RING_TIMEOUT
    assert (call.queue_position, call.queue_wait_seconds) == (1, 4)


def test_digits_of_two_people_talking_are_never_kept():
    assert only("q_dtmf").digits is None


def test_names_are_as_the_caller_sent_them():
    names = {c.from_: c.caller_name for c in replay(CAPTURES / "q_callerid_hostile")}
    assert names["15550000000"] == "Zoë 李雷 Ünïcödé 🎉"
    assert names["15550000001"] == r"Quote \" and \\ backslash"  # as ARI's JSON has it
    assert names["15550000003"] == "Event: Hangup"
    assert names["15550000012"] == "tab\tinside"


def test_a_withheld_number_is_anonymous():
    calls = replay(CAPTURES / "q_callerid_hostile")
    private = [c for c in calls if c.from_private]
    assert private
    assert {c.from_ for c in private} == {"anonymous"}
    assert {c.from_e164 for c in private} == {None}


def test_what_was_lost_in_a_gap_is_estimated():
    call = only("r_ami_gap")
    assert call.quality is Quality.ESTIMATED
    assert [t.to for t in call.transfers] == ["1002"]


def test_parking_says_where_and_by_whom():
    (parked,) = only("j_park_retrieve").parked
    assert (parked.by, parked.space, parked.retrieved_by, parked.timed_out) == ("1001", "701", "1002", False)


def test_forged_events_are_all_accounted_for():
    (data,) = sessions_of(CAPTURES / "q_callerid_forged_event")
    decoder, guard = Decoder(wanted=NEEDED, fields=FIELDS), Guard("pbx1")
    passed = [e for f in decoder.feed(data) if (e := guard.check(f, 0.0)) is not None]
    assert decoder.bad["headless"] == data.count(b"\r\n\r\nEvent: Hangup\r\nUniqueid: forged")
    assert guard.mended > 0
    assert not any("forged" in v for e in passed for k, v in e.fields.items() if k.endswith("Uniqueid"))


def test_the_same_whatever_the_chunks():
    (data,) = sessions_of(CAPTURES / "g_attended_transfer_dtmf")
    whole = replay(CAPTURES / "g_attended_transfer_dtmf")
    for size in (1, 7, 1000):
        decoder, guard, tracker = Decoder(wanted=NEEDED, fields=FIELDS), Guard("pbx1"), Tracker("pbx1")
        for i in range(0, len(data), size):
            for frame in decoder.feed(data[i : i + size]):
                if (event := guard.check(frame, 0.0)) is not None:
                    tracker.handle(event)
        assert [u.record for u in tracker.take()] == whole


def test_the_command_prints_a_line_a_capture(tmp_path: Path):
    names = [str(CAPTURES / n) for n in ("c_busy", "r_restart_now", "c_unknown_did")]
    done = subprocess.run(
        [sys.executable, "-m", "trunkline", "replay", *names], capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["capture"] for r in rows] == names
    assert [len(r["calls"]) for r in rows] == [1, 2, 0]
    call = rows[0]["calls"][0]
    assert (call["from"], call["fromE164"], call["status"], call["leadId"]) == ("15551234567", None, "BUSY", None)
    assert call["startedAt"].endswith("Z")


def test_the_command_says_what_is_no_capture(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "trunkline", "replay", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no ami.raw" in done.stderr
    with pytest.raises(CaptureError, match="no such file"):
        replay(tmp_path / "nothing")


def test_unscored_captures_can_be_read():
    unscored = [p.name for p in CAPTURES.iterdir() if expected_calls(p.name) is None]
    assert [len(replay(CAPTURES / name)) for name in unscored] == [5]
