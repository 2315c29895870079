"""The AMI actions that commands become. Pure.

Every argument has a closed form and is held to it here, whatever was checked before: what a client wrote cannot become
a header, a second action, a regular expression (a Channel that begins with /), an option of an application or a piece
of dialplan (a comma, a `$`). Channels are named by Uniqueid where Asterisk takes it: names are used again.

Source: Asterisk main/manager.c, main/manager_bridges.c, main/channel.c (ast_channel_get_by_name takes either),
res/parking/parking_manager.c, apps/app_queue.c, apps/app_mixmonitor.c, apps/app_chanspy.c.
"""

import re
from typing import Final, Literal, NamedTuple

_FORMS: Final = {
    "channel id": re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,148}", re.ASCII),  # a Uniqueid
    "endpoint": re.compile(r"[A-Za-z0-9]{1,20}/[A-Za-z0-9_.\-]{1,60}(@[A-Za-z0-9_\-]{1,60})?", re.ASCII),
    "context": re.compile(r"[A-Za-z0-9_\-]{1,79}", re.ASCII),
    "extension": re.compile(r"[0-9]{2,6}", re.ASCII),
    "number": re.compile(r"\+?[0-9*#]{1,24}", re.ASCII),
    "queue": re.compile(r"[A-Za-z0-9_.\-]{1,79}", re.ASCII),
    "reason": re.compile(r"[A-Za-z0-9_.\-]([A-Za-z0-9_.\- ]{0,38}[A-Za-z0-9_.\-])?", re.ASCII),
}
_SPY_OPTIONS: Final = {"LISTEN": "", "WHISPER": "w", "BARGE": "B"}

Form = Literal["channel id", "endpoint", "context", "extension", "number", "queue", "reason"]


class BadArgument(ValueError):
    """What was to stand in an action and does not have its form; the text does not show it."""


class Action(NamedTuple):
    """An action, to be given an ActionID and sent."""

    name: str
    fields: tuple[tuple[str, str], ...]


def held_to(form: Form, text: str) -> str:
    """The text, if it has that form. Raises BadArgument."""
    if _FORMS[form].fullmatch(text) is None:
        raise BadArgument(f"this is no {form} that may stand in an AMI action")
    return text


def dial(channel_id: str, endpoint: str, extension: str, context: str, number: str, ring_s: int) -> Action:
    """Ring that endpoint; when it answers it dials the number, as if its phone had.

    CallerID is its own, which the dialplan goes by; the phone shows the number as the name of who calls it.
    """
    number = held_to("number", number)
    return Action(
        "Originate",
        (
            ("Channel", held_to("endpoint", endpoint)),
            ("Context", held_to("context", context)),
            ("Exten", number),
            ("Priority", "1"),
            ("Timeout", _ms(ring_s)),
            ("CallerID", f"<{held_to('extension', extension)}>"),
            ("Variable", f"CONNECTEDLINE(name,i)={number}"),
            ("ChannelId", held_to("channel id", channel_id)),
            ("Async", "true"),
        ),
    )


def supervise(channel_id: str, endpoint: str, spied: str, extension: str, mode: str, ring_s: int) -> Action:
    """Ring a supervisor's endpoint, which then hears the channel with the Uniqueid `spied` until that ends.

    q: no beep; u: by Uniqueid; E: ends with what is heard; w: the agent hears him, B: both do.
    """
    if mode not in _SPY_OPTIONS:
        raise BadArgument("this is no way to supervise")
    return Action(
        "Originate",
        (
            ("Channel", held_to("endpoint", endpoint)),
            ("Application", "ChanSpy"),
            ("Data", f"{held_to('channel id', spied)},quE{_SPY_OPTIONS[mode]}"),
            ("Timeout", _ms(ring_s)),
            ("CallerID", f'"supervise" <{held_to("extension", extension)}>'),
            ("ChannelId", held_to("channel id", channel_id)),
            ("Async", "true"),
        ),
    )


def hangup(channel: str) -> Action:
    """Hang up a channel; cause 16, as a phone does."""
    return Action("Hangup", (("Channel", held_to("channel id", channel)), ("Cause", "16")))


def blind_transfer(channel: str, context: str, number: str) -> Action:
    """Send whom that channel talks to elsewhere, in its name."""
    return Action("BlindTransfer", _to(channel, context, number))


def attended_transfer(channel: str, context: str, number: str) -> Action:
    """Put whom that channel talks to on hold, and let it talk to somebody else first."""
    return Action("Atxfer", _to(channel, context, number))


def cancel_attended_transfer(channel: str) -> Action:
    """Bring that channel back to whom it talked to."""
    return Action("CancelAtxfer", (("Channel", held_to("channel id", channel)),))


def park(channel: str, parker: str) -> Action:
    """Park a channel; when its time is up, the channel `parker` is who is called back."""
    return Action(
        "Park",
        (("Channel", held_to("channel id", channel)), ("TimeoutChannel", held_to("channel id", parker))),
    )


def redirect_both(channel: str, exten: str, other: str, other_exten: str, context: str) -> Action:
    """Take two channels out of their talk, each to an extension of that context."""
    return Action(
        "Redirect",
        (
            ("Channel", held_to("channel id", channel)),
            ("Context", held_to("context", context)),
            ("Exten", held_to("context", exten)),
            ("Priority", "1"),
            ("ExtraChannel", held_to("channel id", other)),
            ("ExtraContext", held_to("context", context)),
            ("ExtraExten", held_to("context", other_exten)),
            ("ExtraPriority", "1"),
        ),
    )


def bridge(channel: str, other: str) -> Action:
    """Let two channels talk."""
    return Action(
        "Bridge",
        (("Channel1", held_to("channel id", channel)), ("Channel2", held_to("channel id", other)), ("Tone", "no")),
    )


def set_hold(channel: str, extension: str) -> Action:
    """Say on a channel who holds it; "": nobody any more."""
    by = held_to("extension", extension) if extension else ""
    return Action("Setvar", (("Channel", held_to("channel id", channel)), ("Variable", "TL_HOLD"), ("Value", by)))


def dialplan_exists(context: str, exten: str) -> Action:
    """Ask whether the dialplan has that extension: Value is 1."""
    where = f"{held_to('context', context)},{held_to('context', exten)},1"
    return Action("Getvar", (("Variable", f"DIALPLAN_EXISTS({where})"),))


def mute_recording(channel: str, on: bool) -> Action:
    """Put silence into a channel's recording, both sides; or sound again."""
    return Action(
        "MixMonitorMute",
        (("Channel", held_to("channel id", channel)), ("Direction", "both"), ("State", "1" if on else "0")),
    )


def pause_member(interface: str, queue: str | None, paused: bool, reason: str | None) -> Action:
    """Let an agent have a break from a queue, or from all he is in; or end it."""
    fields = [("Interface", held_to("endpoint", interface)), ("Paused", "true" if paused else "false")]
    fields += [("Queue", held_to("queue", queue))] if queue is not None else []
    fields += [("Reason", held_to("reason", reason))] if reason is not None else []
    return Action("QueuePause", tuple(fields))


def add_member(interface: str, queue: str, penalty: int) -> Action:
    """Let an agent take a queue's calls."""
    if not 0 <= penalty <= 1000:
        raise BadArgument("this is no penalty")
    return Action(
        "QueueAdd",
        (
            ("Queue", held_to("queue", queue)),
            ("Interface", held_to("endpoint", interface)),
            ("Penalty", str(int(penalty))),
        ),
    )


def remove_member(interface: str, queue: str) -> Action:
    """Let an agent take a queue's calls no more."""
    return Action("QueueRemove", (("Queue", held_to("queue", queue)), ("Interface", held_to("endpoint", interface))))


def _to(channel: str, context: str, number: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Channel", held_to("channel id", channel)),
        ("Context", held_to("context", context)),
        ("Exten", held_to("number", number)),
    )


def _ms(seconds: int) -> str:
    if not 1 <= seconds <= 120:
        raise BadArgument("this is no time to ring")
    return str(int(seconds) * 1000)
