"""The Tracker: every live Call of one PBX. Events in, CallUpdates out; pure.

`handle` each event as it comes, `take` what has changed whenever it suits: a Call that changed ten times meanwhile is
taken once, as it is now. After a gap, `resync` with what the PBX says is there.
"""

from collections.abc import Callable, Iterable, Sequence

from trunkline.asterisk.ari_events import AriRecording
from trunkline.asterisk.event import Event
from trunkline.asterisk.lists import Snapshot
from trunkline.calls import ari_recordings, bridging, dialling, during, queues
from trunkline.calls.live import Fields, Live
from trunkline.calls.model import Call
from trunkline.calls.names import Trunks
from trunkline.calls.queue_record import QueuesUpdate, Visited
from trunkline.calls.record import CallRecord, CallUpdate, LegEnd, Quality, QueueOutcome, Status
from trunkline.calls.report import report
from trunkline.calls.restore import restore
from trunkline.calls.resync import reconcile
from trunkline.calls.standing import Standing, standing

_HANDLERS: dict[str, Callable[[Live, Fields, float], None]] = {
    "Newchannel": dialling.newchannel,
    "Newstate": dialling.newstate,
    "NewCallerid": dialling.new_callerid,
    "Rename": dialling.rename,
    "DialBegin": dialling.dial_begin,
    "DialEnd": dialling.dial_end,
    "OriginateResponse": dialling.originate_response,
    "HangupRequest": dialling.hangup_request,
    "SoftHangupRequest": dialling.soft_hangup_request,
    "Hangup": dialling.hangup,
    "Shutdown": dialling.shutdown,
    "BridgeEnter": bridging.bridge_enter,
    "BridgeLeave": bridging.bridge_leave,
    "BridgeMerge": bridging.bridge_merge,
    "LocalBridge": bridging.local_bridge,
    "Pickup": bridging.pickup,
    "BlindTransfer": bridging.blind_transfer,
    "AttendedTransfer": bridging.attended_transfer,
    "ParkedCall": bridging.parked_call,
    "UnParkedCall": bridging.unparked_call,
    "ParkedCallTimeOut": bridging.parked_call_timeout,
    "ConfbridgeStart": bridging.conference_start,
    "ConfbridgeJoin": bridging.conference_join,
    "ConfbridgeLeave": bridging.conference_leave,
    "QueueCallerJoin": during.queue_caller_join,
    "QueueCallerLeave": during.queue_caller_leave,
    "QueueCallerAbandon": during.queue_caller_abandon,
    "AgentCalled": during.agent_called,
    "AgentConnect": during.agent_connect,
    "AgentComplete": during.agent_complete,
    "AgentRingNoAnswer": during.agent_ring_no_answer,
    "QueueMemberAdded": queues.queue_member,
    "QueueMemberRemoved": queues.queue_member_removed,
    "QueueMemberPause": queues.queue_member,
    "QueueMemberPenalty": queues.queue_member,
    "QueueMemberRinginuse": queues.queue_member,
    "PeerStatus": queues.peer_status,
    "Hold": during.hold,
    "Unhold": during.unhold,
    "DTMFEnd": during.dtmf_end,
    "VarSet": during.varset,
    "MixMonitorStart": during.mixmonitor_start,
    "MixMonitorStop": during.mixmonitor_stop,
    "MixMonitorMute": during.mixmonitor_mute,
    "Newexten": during.newexten,
}

_MAY_TIE = frozenset({"Newchannel", "BridgeEnter"})


class Tracker:
    """Follows one PBX.

    pbx: its systemname (its host:port if it has none). trunks: names of carrier-facing endpoints, shell patterns.
    region: ISO country of its trunks, for the E.164 forms.
    """

    def __init__(self, pbx: str, *, trunks: Sequence[str] = ("PJSIP/trunk*",), region: str | None = None) -> None:
        self.pbx = pbx
        self._region = region
        self._live = Live(Trunks(trunks))
        self._visited: list[Visited] = []
        self.faults = 0  # Calls that could not be told; each is a bug of ours

    def handle(self, event: Event) -> None:
        """Take in one event. Never raises for what a PBX can send."""
        handler = _HANDLERS.get(event.kind)
        if handler is not None:
            handler(self._live, event.fields, event.at)
            if self._live.untied and event.kind in _MAY_TIE:
                ari_recordings.tie(self._live, event.at)

    def recorded(self, told: AriRecording, path: str) -> None:
        """Take in what ARI says of a recording, whose file the PBX calls `path`."""
        ari_recordings.recorded(self._live, told, path)

    def take(self) -> list[CallUpdate]:
        """What changed since the last time, each Call once, as it is now."""
        dirty = self._live.dirty
        if not dirty:
            return []
        updates = []
        for call in dirty.values():
            if call.starter is None:
                continue
            if call.visits:
                self._count_visits(call)
            try:
                updates.append(CallUpdate(report(call, self.pbx, self._region), _told(call.happened)))
            except (ValueError, OverflowError):  # a time that is none: one Call's fault is not the others'
                self.faults += 1
            call.happened.clear()
        dirty.clear()
        for call in self._live.put_away:
            call.fall_apart()
        self._live.put_away.clear()
        return updates

    def take_visits(self) -> list[Visited]:
        """Who came into queues and left them, in the Calls that were taken since the last time."""
        visited, self._visited = self._visited, []
        return visited

    def _count_visits(self, call: Call) -> None:
        """How somebody left is sure once he was answered, came into another queue, or his Call has ended."""
        for n, visit in enumerate(call.visits, 1):
            if not visit.told:
                visit.told = True
                self._visited.append(Visited(visit.queue, None))
            over = visit.outcome is QueueOutcome.ANSWERED or call.ended_at is not None or n < len(call.visits)
            if over and not visit.settled:
                visit.settled = True
                left_at = visit.left_at or call.ended_at or visit.joined_at
                outcome = visit.outcome or QueueOutcome.LEFT
                self._visited.append(Visited(visit.queue, outcome, max(0.0, left_at - visit.joined_at)))

    def take_queues(self) -> QueuesUpdate | None:
        """What has changed in the queues since the last time; None: nothing."""
        return self._live.queues.take(self._live, self.pbx)

    def resync(self, snapshot: Snapshot, buffered: Sequence[Event] = ()) -> None:
        """Put the picture right by what the PBX lists; then the events that came while it was asked."""
        hung_up = {e.fields["Uniqueid"] for e in buffered if e.kind == "Hangup"}
        reconcile(self._live, snapshot, hung_up)
        for event in buffered:
            self.handle(event)
        ari_recordings.tie(self._live, snapshot.at)

    def lost(self, at: float) -> None:
        """The PBX is gone, and its calls with it (a restart seen by its Uptime): all end as PBX_LOST."""
        live = self._live
        for ch in list(live.channels.values()):
            ch.call.lost = True
            ch.call.quality = Quality.ESTIMATED
            ch.end_reason = ch.end_reason or LegEnd.PBX_LOST
            if ch.uniqueid in live.channels:
                live.hang_up(ch, at)
        live.bridges.clear()
        live.queues.leave_all()

    def adopt(self, records: Iterable[CallRecord]) -> None:
        """Calls that the database has as alive, from before this daemon started; a resync then keeps or ends them."""
        for record in records:
            restore(self._live, record)

    def standing(self, external_id: str) -> Standing | None:
        """The live Call of that externalId as it stands; None: there is none."""
        return standing(self._live, external_id)

    def channel_state(self, uniqueid: str) -> str | None:
        """The ChannelState of a channel; None where there is none, or none any more."""
        ch = self._live.channels.get(uniqueid)
        return None if ch is None else ch.state

    @property
    def live(self) -> int:
        """Calls that are going on."""
        return len({id(c) for c in self._live.calls.values() if c.legs})

    @property
    def misnamed(self) -> int:
        """Events that were not believed, because they put one channel's name on another's ids: a reason to resync."""
        return self._live.misnamed

    @property
    def channels(self) -> int:
        """Channels that are up, plumbing included."""
        return len(self._live.channels)

    @property
    def states(self) -> dict[Status, int]:
        """Live Calls by status."""
        counts = dict.fromkeys((Status.RINGING, Status.QUEUED, Status.IN_PROGRESS), 0)
        for call in {id(c): c for c in self._live.calls.values() if c.legs}.values():
            counts[call.status_alive] += 1
        return counts


def _told(happened: Sequence[str]) -> tuple[str, ...]:
    """What is told of it. Who is told that a Call was answered, or ended, sees by that whose phones ring no more."""
    if "call.ring_cleared" in happened and ("call.answered" in happened or "call.ended" in happened):
        return tuple(one for one in happened if one != "call.ring_cleared")
    return tuple(happened)
