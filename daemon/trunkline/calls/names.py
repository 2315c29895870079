"""What the names and numbers in events say: channels, endpoints, trunks, dialled numbers, caller ids.

Source: FINDINGS ("What AMI says"), Asterisk main/manager_channels.c, main/utils.c (ast_escape_c).
"""

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache

_PLUMBING = (
    "Local/",
    "Recorder/",
    "Announcer/",
    "CBAnn/",
    "CBRec/",
    "Bridge",
    "ConfBridge",
    "Message/",
    "Surrogate/",
    "AsyncGoto/",
    "Snoop/",
    "UnicastRTP/",
    "AudioSocket/",
    "WebSocket/",
    "OutgoingSpoolFailed",
)
SUPERVISING = "trunkline-spy-"
"""How the Uniqueid begins of a channel by which a supervisor listens: he is on no Call."""

_ESCAPED = re.compile(r"\\(.)", re.S)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_EXTENSION = re.compile(r"\d{2,6}")
_ID = re.compile(r"(?:.*-)?(\d+)\.(\d+)")
_WITHHELD = frozenset({"", "<unknown>", "anonymous", "Anonymous", "restricted", "unavailable", "private"})


def is_plumbing(channel: str) -> bool:
    """Is this channel the PBX's own (Local halves, recorders, announcers), and so never a party?"""
    return channel.startswith(_PLUMBING)


def endpoint_of(channel: str) -> str:
    """PJSIP/1001-0000002a -> PJSIP/1001."""
    return channel.rpartition("-")[0] or channel


def known(value: str | None) -> str | None:
    """The value, or None where Asterisk says that it has none."""
    return None if value is None or value in {"", "<unknown>"} else value


def withheld(number: str | None) -> bool:
    """Is this what stands where a caller hides his number?"""
    return number is None or number in _WITHHELD


def unescape(name: str) -> str:
    """A CallerIDName or ConnectedLineName as it was before AMI C-escaped it."""
    if "\\" not in name:
        return name
    return _ESCAPED.sub(lambda m: _ESCAPES.get(m[1], m[1]), name)


@lru_cache(maxsize=4096)  # asked at every turn of a call, about few
def extension_of(endpoint: str, caller_id: str | None) -> str:
    """The extension of someone inside: his endpoint's name where that is one, else the number that it shows."""
    name = endpoint.partition("/")[2] or endpoint
    if _EXTENSION.fullmatch(name):
        return name
    number = known(caller_id)
    return number if number is not None and _EXTENSION.fullmatch(number) else name


def dialled_number(dial_string: str) -> str | None:
    """The number in what Dial() was given, without technology: `1555@trunk`, `trunk/sip:1555@host`, `1001`."""
    text = dial_string.partition(",")[0]
    text = text.rpartition("/")[2] if "/" in text and "@" not in text.partition("/")[0] else text
    scheme, colon, rest = text.partition(":")
    number = rest if colon and scheme in {"sip", "sips"} else text
    return number.partition("@")[0] or None


def is_outside_number(number: str) -> bool:
    """Longer than any extension or feature code: someone outside."""
    return len(number.removeprefix("+")) > 6 and number.removeprefix("+").isdigit()


def age(uniqueid: str, started: float) -> tuple[float, int]:
    """What orders channels and calls by age: (epoch, counter) of the default form as numbers, never as text."""
    match = _ID.fullmatch(uniqueid)
    return (float(match[1]), int(match[2])) if match else (started, -1)


class Trunks:
    """Which endpoints face a carrier: shell patterns over their names, as `PJSIP/trunk*`."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._match = re.compile("|".join(fnmatch.translate(p) for p in patterns) or r"(?!)").match
        self._known: dict[str, bool] = {}

    def __contains__(self, endpoint: str) -> bool:
        found = self._known.get(endpoint)
        if found is None:
            found = self._match(endpoint) is not None
            if len(self._known) < 10_000:
                self._known[endpoint] = found
        return found
