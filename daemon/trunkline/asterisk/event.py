"""The values of this room: Frame (what the wire said), its Shape, and Event (what the guard believes)."""

from typing import Protocol

import msgspec


class Shape:
    """The kind and keys of a frame, in their order. One object for all frames alike, so that it is judged only once."""

    __slots__ = ("keys", "kind")

    def __init__(self, kind: str, keys: tuple[str, ...]) -> None:
        self.kind = kind
        self.keys = keys


class Frame(msgspec.Struct, frozen=True):
    """One AMI packet, decoded. Pure data; nothing about it is believed yet."""

    kind: str  # the Event's name; "" for a response
    fields: dict[str, str]  # in the order of the wire; the first of a repeated key wins
    shape: Shape | None = None  # None for one with repeated keys or broken lines
    repeated: tuple[tuple[str, str], ...] = ()  # (key, value) of the further ones, as `Output:` or `ChanVariable:`
    irregular: str = ""  # the whole text, where a key repeats, a line has none, or headless blocks followed


class Event(msgspec.Struct, frozen=True):
    """An event that the guard has let through. Values are text as Asterisk sent it (names still C-escaped)."""

    kind: str  # "Newchannel", "Hangup", ...
    at: float  # epoch seconds, from the event's own Timestamp; arrival time on a PBX without timestampevents
    fields: dict[str, str]


class Judge(Protocol):
    """Who says, once for all frames of a shape, whether Asterisk wrote them: the guard."""

    systemname: str | None

    def trusts(self, shape: Shape) -> bool:
        """Are frames of this shape genuine if SystemName and Timestamp are as they must be?"""
