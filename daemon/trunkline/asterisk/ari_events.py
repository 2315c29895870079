"""What ARI says of recordings, told from the JSON of its events. Pure: bytes in, an `AriRecording` or nothing out.

ARI's JSON is written by Asterisk alone and cannot be forged by a caller; but a recording's name is chosen by whoever
uses ARI, so it is a text and nothing more until recordings/spool.py has followed it.
Source: Asterisk's rest-api/api-docs/events.json and recordings.json (LiveRecording), res/res_stasis_recording.c.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

_LONGEST_NAME: Final = 4096  # characters; no file system takes more


class BadAriEvent(ValueError):
    """An event that is not as Asterisk writes it; the text says how."""


class RecordingIs(StrEnum):
    """What has become of a recording; `finished` also if it was discarded: ARI does not tell these apart."""

    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"


class AriRecording(NamedTuple):
    """What happened to a recording. `name` and `format` make its file's name, below Asterisk's recording directory."""

    state: RecordingIs
    name: str
    format: str
    target: str  # "channel:UNIQUEID" or "bridge:ID"
    at: float  # epoch seconds, the PBX's clock
    seconds: int | None = None  # how long it was; None while it runs


class Replaced(NamedTuple):
    """Somebody else has connected as the same application: this connection is told nothing any more."""


class _Live(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1, max_length=_LONGEST_NAME)]
    format: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,40}$")]
    target_uri: Annotated[str, Meta(pattern=r"^(channel|bridge):[^\x00-\x1f\x7f]{1,400}$")]
    duration: Annotated[int, Meta(ge=0)] | None = None


class _Event(msgspec.Struct):
    type: str
    timestamp: str = ""
    recording: _Live | None = None


class Answer(msgspec.Struct):
    """What ARI answers to a request by the same socket (Asterisk 20.14, 22.4 and later)."""

    type: str
    request_id: str = ""
    status_code: int = 0
    message_body: str = ""


class _Config(msgspec.Struct, frozen=True):
    name: str = ""


class _Info(msgspec.Struct):
    config: _Config = _Config()


_STATES: Final = {
    "RecordingStarted": RecordingIs.STARTED,
    "RecordingFinished": RecordingIs.FINISHED,
    "RecordingFailed": RecordingIs.FAILED,
}
# Most events are of other kinds, 1,000 bytes each, and there are hundreds a second: they are not decoded. Within a
# value these words could only stand with a backslash before the quote.
_WORDS: Final = (b'"Recording', b'"ApplicationReplaced"')
_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_answer: Final = msgspec.json.Decoder(Answer).decode
_decode_info: Final = msgspec.json.Decoder(_Info).decode


def decode(message: bytes) -> AriRecording | Replaced | None:
    """What a message says of a recording; None where it is about something else. Raises BadAriEvent."""
    if not any(word in message for word in _WORDS):
        return None
    try:
        event = _decode_event(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAriEvent(str(error)) from None
    if event.type == "ApplicationReplaced":
        return Replaced()
    state, live = _STATES.get(event.type), event.recording
    if state is None:
        return None
    if live is None:
        raise BadAriEvent(f"a {event.type} without a recording")
    seconds = None if state is RecordingIs.STARTED else live.duration
    return AriRecording(state, live.name, live.format, live.target_uri, _epoch(event.timestamp), seconds)


def _epoch(timestamp: str) -> float:
    try:
        at = datetime.fromisoformat(timestamp)
    except ValueError:
        raise BadAriEvent(f"its timestamp is {timestamp[:40]!r}") from None
    if at.tzinfo is None:
        raise BadAriEvent(f"its timestamp {timestamp[:40]!r} does not say of which time zone")
    return at.timestamp()


def request(method: str, uri: str) -> str:
    """A request by the socket; its answer has the same words as its id."""
    asked = {"transaction_id": "trunkline", "request_id": f"{method} {uri}", "method": method, "uri": uri}
    return msgspec.json.encode({"type": "RESTRequest", **asked}).decode()


def answer_of(message: bytes) -> Answer | None:
    """The answer to a request; None where the message is none."""
    if b'"RESTResponse"' not in message:
        return None
    try:
        answer = _decode_answer(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return answer if answer.type == "RESTResponse" else None


def systemname_of(answer: Answer) -> str | None:
    """The PBX's name in the answer to `GET asterisk/info`; None where it says none."""
    try:
        return _decode_info(answer.message_body).config.name or None if answer.status_code == 200 else None
    except msgspec.DecodeError:
        return None


def file_of(told: AriRecording) -> str:
    """Its file's name below the recording directory, as the file system has it: slashes count once."""
    return "/".join(part for part in f"{told.name}.{told.format}".split("/") if part)
