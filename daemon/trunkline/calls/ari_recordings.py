"""Recordings that ARI makes, tied to the Call and the leg whose sound they hold.

ARI tells of them by a connection of its own, so before or after AMI has told of the channel or bridge that is recorded.
What fits nothing yet waits in `live.untied` and is looked at again when somebody comes or enters a bridge; what never
fits is left to the sweeper. Events may come twice (those of a bridge always do), and either of them may be missing.
"""

from typing import Final

from trunkline.asterisk.ari_events import AriRecording, RecordingIs
from trunkline.calls.live import Live
from trunkline.calls.model import Call, Channel, RecordingState
from trunkline.calls.names import age
from trunkline.calls.record import RecordingKind

_KNOWN: Final = 4096  # recordings that are remembered; far more than run at once
_WAITING: Final = 256
_WAITS_S: Final = 120.0  # after its end, for its channel to be told of
_SNOOP: Final = "Snoop/"


def recorded(live: Live, told: AriRecording, path: str) -> None:
    """Take in what ARI says of a recording, whose file is `path`."""
    held = live.ari.get(path)
    if held is not None and (held.target != told.target or _is_another(held, told)):
        held = None
    if held is None:
        if told.state is RecordingIs.FAILED:
            return  # it never began, or we do not know of what it was: there may be a file, which the sweeper finds
        held = RecordingState("", path, told.at - (told.seconds or 0), RecordingKind.ARI)
        held.target = told.target
        live.ari.pop(path, None)
        live.ari[path] = live.untied[path] = held
        _forget_oldest(live)
        _tie_one(live, path, held)
        held = live.ari[path]
    if told.state is not RecordingIs.STARTED and not held.finished:
        held.ended_at, held.finished = told.at, True
        call = _call_of(live, held)
        if call is not None:
            live.mark(call)


def tie(live: Live, at: float) -> None:
    """Tie what can be tied by now to its Call."""
    for path, recording in list(live.untied.items()):
        if recording.ended_at is not None and recording.ended_at < at - _WAITS_S:
            del live.untied[path]
        else:
            _tie_one(live, path, recording)


def _tie_one(live: Live, path: str, recording: RecordingState) -> None:
    found = _place(live, recording.target)
    if found is not None:
        del live.untied[path]
        _add(live, recording, *found)


def _is_another(held: RecordingState, told: AriRecording) -> bool:
    """Has a file of the same name been begun anew?"""
    return told.state is RecordingIs.STARTED and held.ended_at is not None and told.at > held.ended_at


def _forget_oldest(live: Live) -> None:
    for some, most in ((live.ari, _KNOWN), (live.untied, _WAITING)):
        if len(some) > most:
            del some[next(iter(some))]


def _add(live: Live, recording: RecordingState, call: Call, uniqueid: str) -> None:
    """Make it the Call's, of that leg; a Call that knows the file already has been restored from the database."""
    known = next((r for r in call.recordings if r.path == recording.path and r.kind is RecordingKind.ARI), None)
    if known is None:
        recording.uniqueid = uniqueid
        call.recordings.append(recording)
    else:
        known.target, known.finished = recording.target, recording.finished
        known.ended_at = recording.ended_at
        live.ari[recording.path] = known
    live.mark(call)


def _call_of(live: Live, recording: RecordingState) -> Call | None:
    """The Call that has it, if it can still be changed."""
    return next((c for c in (*live.calls.values(), *live.recent) if any(r is recording for r in c.recordings)), None)


def _place(live: Live, target: str) -> tuple[Call, str] | None:
    """The Call and the Uniqueid of the leg that a target's sound is of; None where nobody has told of it."""
    kind, _, name = target.partition(":")
    ch = _heard(live, name) if kind == "channel" else _in_bridge(live, name)
    if ch is not None:
        return _leg(ch)
    if kind == "channel":
        return next(((call, name) for call in live.recent if name in call.legs), None)
    return None


def _heard(live: Live, uniqueid: str) -> Channel | None:
    """The channel, or the one that it snoops on. Source: res_stasis_snoop.c, `Snoop/UNIQUEID-0000002a`."""
    ch = live.channels.get(uniqueid)
    for _ in range(8):  # one may snoop on a snoop
        if ch is None or not ch.name.startswith(_SNOOP):
            break
        ch = live.channels.get(ch.name.removeprefix(_SNOOP).rpartition("-")[0])
    return ch


def _in_bridge(live: Live, uniqueid: str) -> Channel | None:
    """Of those in a bridge, who stands for all: of the Call that is oldest its lead, else who came first."""
    bridge = live.bridges.get(uniqueid)
    members = [ch for ch in bridge.members.values() if ch.call.starter is not None] if bridge is not None else []
    if not members:
        return None
    oldest = min((ch.call for ch in members), key=lambda call: age(call.external_id, call.started_at))
    of_it = [ch for ch in members if ch.call is oldest]
    return next((ch for ch in of_it if ch is oldest.lead), next((ch for ch in of_it if not ch.plumbing), of_it[0]))


def _leg(ch: Channel) -> tuple[Call, str] | None:
    """Plumbing is no leg: what it hears is its Call's lead's."""
    leg = ch.call.lead or ch.call.starter if ch.plumbing else ch
    return None if leg is None or ch.call.starter is None else (ch.call, leg.uniqueid)
