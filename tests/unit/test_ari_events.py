"""What ARI's JSON says of recordings, and what is not believed."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.asterisk.ari_events import (
    AriRecording,
    BadAriEvent,
    RecordingIs,
    Replaced,
    answer_of,
    decode,
    file_of,
    systemname_of,
)

# As Asterisk 22.10.1 wrote it.
STARTED: dict[str, Any] = {
    "type": "RecordingStarted",
    "timestamp": "2026-11-22T23:45:42.119+0000",
    "recording": {"name": "one\ntwo", "format": "wav", "state": "recording", "target_uri": "channel:pbx-1795391141.2"},
    "asterisk_id": "02:fc:00:00:00:01",
    "application": "all",
}
NAMED = (
    b'{"type":"RESTResponse","transaction_id":"t1","request_id":"r1","status_code":200,"reason_phrase":"OK",'
    b'"uri":"asterisk/info","content_type":"application/json","message_body":"{\\"config\\":{\\"name\\":'
    b'\\"pbx-d4afa2f471ee\\",\\"default_language\\":\\"en\\",\\"setid\\":{\\"user\\":\\"\\",\\"group\\":\\"\\"}}}",'
    b'"application":"all","timestamp":"2026-11-22T23:45:22.499+0000","asterisk_id":"02:fc:00:00:00:01"}'
)


def _event(kind: str = "RecordingStarted", timestamp: object = STARTED["timestamp"], **recording: object) -> bytes:
    event = {**STARTED, "type": kind, "timestamp": timestamp, "recording": {**STARTED["recording"], **recording}}
    return json.dumps(event).encode()


def test_a_beginning_an_end_and_a_failure() -> None:
    assert decode(_event()) == AriRecording(
        RecordingIs.STARTED, "one\ntwo", "wav", "channel:pbx-1795391141.2", 1795391142.119
    )
    finished = decode(_event("RecordingFinished", duration=7, target_uri="bridge:b1"))
    assert isinstance(finished, AriRecording)
    assert (finished.state, finished.seconds, finished.target) == (RecordingIs.FINISHED, 7, "bridge:b1")
    failed = decode(_event("RecordingFailed"))
    assert isinstance(failed, AriRecording)
    assert (failed.state, failed.seconds) == (RecordingIs.FAILED, None)


def test_what_is_about_something_else_is_passed_over() -> None:
    assert decode(b'{"type":"ChannelVarset","value":"broken') is None
    assert decode(json.dumps({"type": "ChannelVarset", "value": '"RecordingStarted"'}).encode()) is None
    assert decode(json.dumps({"type": "ChannelVarset", "value": "RecordingStarted"}).encode()) is None
    assert decode(NAMED) is None


def test_a_second_connection_of_the_same_application_is_told() -> None:
    assert decode(b'{"type":"ApplicationReplaced","application":"trunkline"}') == Replaced()


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"RecordingStarted"',
        b'{"type":"RecordingStarted","timestamp":"2026-11-22T23:45:42.119+0000"}',
        b'["RecordingStarted"]',
        _event(name=""),
        _event(name="x" * 5000),
        _event(name=3),
        _event(name="\ud800"),
        _event(format="../wav"),
        _event(format=""),
        _event(target_uri="pbx-1"),
        _event(target_uri="channel:"),
        _event(target_uri="channel:a\r\nb"),
        _event(timestamp="yesterday"),
        _event(timestamp="2026-11-22T23:45:42.119"),
        _event(timestamp=7),
        _event("RecordingFinished", duration=-1),
        b'{"type":"RecordingStarted\xff"}',
    ],
)
def test_what_asterisk_would_not_write_is_refused(message: bytes) -> None:
    with pytest.raises(BadAriEvent):
        decode(message)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_nothing_but_a_refusal_comes_of_a_damaged_event(noise: bytes, at: int) -> None:
    whole = _event()
    with suppress(BadAriEvent):
        decode(whole[:at] + noise + whole[at:])


def _name_in(message: bytes) -> str | None:
    answer = answer_of(message)
    return None if answer is None else systemname_of(answer)


def test_the_name_of_the_pbx_is_in_its_answer_alone() -> None:
    assert _name_in(NAMED) == "pbx-d4afa2f471ee"
    assert _name_in(NAMED.replace(b"200", b"403")) is None
    assert _name_in(NAMED.replace(b"pbx-d4afa2f471ee", b"")) is None
    assert _name_in(NAMED.replace(b'{\\"config', b'[\\"config')) is None
    assert _name_in(NAMED[:-9]) is None
    assert _name_in(_event()) is None
    assert _name_in(json.dumps({"type": "ChannelVarset", "value": '"RESTResponse"'}).encode()) is None


@pytest.mark.parametrize(
    ("name", "file"),
    [("one", "one.wav"), ("/tmp//one", "tmp/one.wav"), ("a/../../b", "a/../../b.wav"), ("a.b/", "a.b/.wav")],  # noqa: S108
)
def test_its_file_is_named_as_the_file_system_has_it(name: str, file: str) -> None:
    told = decode(_event(name=name))
    assert isinstance(told, AriRecording)
    assert file_of(told) == file
