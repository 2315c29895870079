"""Recordings: the file that the row names is there, has sound, and carries the ids of its call."""

import wave
from contextlib import closing
from pathlib import Path

from stage import Stage, Tap, check, talk

from trunkline.calls.record import EndedBy, Status


def seconds(path: Path) -> float:
    """How long a recording is."""
    with wave.open(str(path)) as sound:
        return sound.getnframes() / sound.getframerate()


def mute(stage: Stage, channel: str, state: str) -> bytes:
    """The PBX's answer to pausing (1) or resuming (0) the recordings of a channel."""
    with closing(Tap(stage.pbx, "control", stage.pbx.secrets.ami_control)) as control:
        return control.ask("MixMonitorMute", f"Channel: {channel}\r\nDirection: both\r\nState: {state}\r\n")


def test_the_row_names_the_file(stage: Stage) -> None:
    customer, desk = stage.connect()
    talk(1.5)
    customer.hangup()
    desk.wait_end()
    record = stage.rows.ended(stage.caller)
    (recording,) = record.recordings
    path = Path(recording.path)
    assert path.parent == stage.pbx.recordings
    assert path.name == f"{record.external_id}_{record.channel_id}.wav"
    assert recording.channel_id == record.channel_id
    assert 1.2 < seconds(path) < 2.5
    assert record.recording_id is not None


def test_it_follows_the_caller_through_a_transfer(stage: Stage) -> None:
    target = stage.agent("1003")
    customer, desk = stage.connect()
    talk(1)
    desk.transfer("1003")
    other = target.wait_call()
    desk.hangup()
    other.answer()
    talk(1)
    customer.hangup()
    other.wait_end()
    (recording,) = stage.rows.ended(stage.caller).recordings
    assert seconds(Path(recording.path)) > 1.8


def test_a_pause_is_in_the_row(stage: Stage) -> None:
    customer, desk = stage.connect()
    channel = stage.tap.event("MixMonitorStart", stage.mark)["Channel"]
    assert b"Success" in mute(stage, channel, "1")
    talk(1)
    assert b"Success" in mute(stage, channel, "0")
    talk()
    customer.hangup()
    desk.wait_end()
    (recording,) = stage.rows.ended(stage.caller).recordings
    (span,) = recording.paused_spans
    assert span.ended_at is not None
    assert recording.ended_at is not None
    assert recording.started_at < span.started_at < span.ended_at < recording.ended_at
    assert 0.9 < (span.ended_at - span.started_at).total_seconds() < 2


def test_what_is_not_recorded_cannot_be_paused(stage: Stage) -> None:
    # so the tracker may take a pause for the trace of a recording
    customer, desk = stage.connect()
    channel = stage.tap.event("BridgeEnter", stage.mark, CallerIDNum="1002")["Channel"]
    assert b"Error" in mute(stage, channel, "1")
    customer.hangup()
    desk.wait_end()
    assert list(stage.tap.events(stage.mark, "MixMonitorMute")) == []
    (recording,) = stage.rows.ended(stage.caller).recordings
    assert recording.paused_spans == []


def test_no_bridge_no_recording(stage: Stage) -> None:
    customer, desk = stage.ring()
    customer.wait_ring()
    customer.cancel()
    desk.wait_end()
    record = stage.rows.ended(stage.caller)
    check(record, status=Status.MISSED, end_reason=record.end_reason, ended_by=EndedBy.CALLER, rang=["1002"])
    # Asterisk leaves an empty file all the same
    assert seconds(stage.pbx.recordings / f"{record.external_id}_{record.channel_id}.wav") == 0
