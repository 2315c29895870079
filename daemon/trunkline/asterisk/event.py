"""The two values of this room: Frame (what the wire said) and Event (what the guard believes)."""

from typing import NamedTuple


class Frame(NamedTuple):
    """One AMI packet, decoded. Pure data; nothing about it is believed yet."""

    kind: str  # the Event's name; "" for a response
    fields: dict[str, str]  # in the order of the wire; the first of a repeated key wins
    repeated: tuple[tuple[str, str], ...] = ()  # (key, value) of the further ones, as `Output:` or `ChanVariable:`
    irregular: str = (
        ""  # the whole text, where a key repeats, a line has none, or blocks without a head of their own followed
    )


class Event(NamedTuple):
    """An event that the guard has let through. Values are text as Asterisk sent it (names still C-escaped)."""

    kind: str  # "Newchannel", "Hangup", ...
    at: float  # epoch seconds, from the event's own Timestamp; arrival time on a PBX without timestampevents
    fields: dict[str, str]
