"""Mailboxes: the messages where app_voicemail keeps them, each a .txt that tells of a sound beside it.

No event names a message's file, and its number changes whenever another one is deleted, so a message is known by who
left it and when. The files are the mailbox's own: they are read and never removed. Source: apps/app_voicemail.c.
"""

import re
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from trunkline.recordings.spool import Found, Missing, RecordingSpool, Refused

_SOUNDS: Final = (".wav", ".WAV", ".gsm", ".ulaw", ".alaw", ".g722", ".sln")
_LONGEST_TXT: Final = 8192  # bytes
_MESSAGE: Final = re.compile(r"(?:.*/)?msg\d{4}\.txt")
_NUMBER: Final = re.compile(r"<([^<>]{1,80})>\s*\Z")


class Message(NamedTuple):
    """A message in a mailbox."""

    path: str  # of its sound, as the PBX calls it
    caller: str  # number, "" when withheld
    began_at: datetime
    ended_at: datetime


def messages(spool: RecordingSpool, listed: Iterable[Found]) -> list[Message]:
    """Every message among what was listed of the mailboxes. Blocks."""
    found = {file.name: file for file in listed if not file.fault}
    return [
        message for name in found if _MESSAGE.fullmatch(name) and (message := _message(spool, name, found)) is not None
    ]


def _message(spool: RecordingSpool, name: str, found: dict[str, Found]) -> Message | None:
    """What a .txt tells; None for one that is being written, or has no sound."""
    stem = name.removesuffix(".txt")
    sound = next((stem + ending for ending in _SOUNDS if stem + ending in found), None)
    if sound is None:
        return None
    try:
        with closing(spool.open(name)) as file:
            text = (file.read(_LONGEST_TXT) or b"").decode("utf-8", "replace")
        told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith(";"))
        began_at = datetime.fromtimestamp(int(told["origtime"]), UTC)
        ended_at = began_at + timedelta(seconds=int(told["duration"]))
    except (OSError, Missing, Refused, KeyError, ValueError, OverflowError):
        return None
    number = _NUMBER.search(told.get("callerid", ""))
    return Message(
        spool.path_of(sound), (number[1] if number else told.get("callerid", "")).strip(), began_at, ended_at
    )
