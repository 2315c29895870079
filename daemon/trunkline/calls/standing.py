"""Who is on a Call right now, for who is to do something with it: the tracker's picture, as values."""

from typing import NamedTuple

from trunkline.calls.live import Live
from trunkline.calls.model import UP
from trunkline.calls.record import RecordingKind


class StandingLeg(NamedTuple):
    """One real channel that is up or rings. peers: the Uniqueids of the real channels that it talks to."""

    uniqueid: str
    party: str | None
    is_trunk: bool
    up: bool
    peers: tuple[str, ...]
    holds: bool  # the others, by its phone or by command
    waiting: bool  # in a waiting room: held by command, or parked


class Standing(NamedTuple):
    """A Call as it stands. legs: in the order they came; none where all is plumbing."""

    legs: tuple[StandingLeg, ...]
    recorded: tuple[str, ...]  # Uniqueids of the channels that a MixMonitor runs on
    recorded_by_ari: bool  # and no MixMonitorMute is heard in that
    spaces: tuple[tuple[str, str], ...]  # (Uniqueid, space) of those that are parked
    conference: bool

    def leg(self, uniqueid: str) -> StandingLeg | None:
        """The leg of that channel, if it is still there."""
        return next((leg for leg in self.legs if leg.uniqueid == uniqueid), None)


def standing(live: Live, external_id: str) -> Standing | None:
    """The live Call of that externalId, or of which it is an alias; None: there is none."""
    call = live.calls.get(external_id)
    if call is None:
        return None
    holding = {hold.uniqueid for hold in call.holds if hold.ended_at is None}
    legs = [
        StandingLeg(
            leg.uniqueid,
            leg.party,
            leg.is_trunk,
            leg.state == UP,
            tuple(peer.uniqueid for peer in live.humans_with(leg)),
            leg.uniqueid in holding,
            leg.bridge is not None and leg.bridge.holding,
        )
        for leg in call.legs.values()
        if leg.ended_at is None
    ]
    running = [recording for recording in call.recordings if recording.ended_at is None and recording.path]
    recorded = dict.fromkeys(
        recording.uniqueid
        for recording in running
        if recording.kind is RecordingKind.CALL and recording.uniqueid in live.channels
    )
    by_ari = any(recording.kind is RecordingKind.ARI for recording in running)
    spaces = tuple((p.uniqueid, p.space) for p in call.parked if p.space and p.retrieved_by is None and not p.timed_out)
    return Standing(tuple(legs), tuple(recorded), by_ari, spaces, call.conference is not None)
