"""One PBX followed: what its link tells goes to its tracker, and what the tracker makes of it waits to be written.

Invariant: a call that was live is carried on, adopted or ended; never forgotten, whoever restarts.
"""

from collections.abc import Callable, Sequence

import structlog
import trio

from trunkline.asterisk.ari_events import AriRecording, file_of
from trunkline.asterisk.event import Event
from trunkline.asterisk.link import Hello
from trunkline.asterisk.lists import Snapshot
from trunkline.calls.queue_record import QueuesUpdate, Visited
from trunkline.calls.record import CallRecord, CallUpdate
from trunkline.calls.standing import Standing
from trunkline.calls.tracker import Tracker

ARI_DIRECTORY = "/var/spool/asterisk/recording"
"""Where Asterisk keeps what ARI records, unless it was told otherwise."""
_HELD = 1000  # recordings that ARI tells of before AMI is there

log = structlog.get_logger(__name__)


class Following:
    """A link's Consumer. `wake` is called whenever there may be something to take.

    name: of the link; it is what a PBX without a systemname is called. ari_directory: what the PBX calls the directory
    of ARI's recordings.
    A fresh tracker is fed only after `adopt`: until then what the link tells is held back, in order.
    """

    def __init__(
        self,
        name: str,
        *,
        trunks: Sequence[str],
        region: str | None,
        wake: Callable[[], None],
        ari_directory: str = ARI_DIRECTORY,
    ) -> None:
        self.name = name
        self.faults = 0  # events that the tracker could not take: each is a bug of ours
        self.misnamed = 0  # events not believed, for they put one channel's name on another's ids
        self.request_resync: Callable[[str], None] = lambda reason: None  # the link's, once there is one
        self.saw: Callable[[Event], None] = lambda event: None  # told of each event, as it comes
        self.greeted: Callable[[], None] = lambda: None  # told that the PBX is there
        self._trunks = tuple(trunks)
        self._region = region
        self._wake = wake
        self._tracker: Tracker | None = None  # None until the PBX has said its name
        self._pbx = ""
        self._named_itself = False
        self._named = trio.Event()
        self._held: list[Callable[[], None]] | None = None
        self._ari_directory = ari_directory.rstrip("/")
        self._told_early: list[AriRecording] = []  # by ARI, before the PBX has said its name
        self._left: list[CallUpdate] = []  # of a tracker that was put away
        self._last_seen_at: float | None = None
        self._misnamed = 0  # of the tracker's, those that were told

    @property
    def calls_by_status(self) -> dict[str, int]:
        """How many calls live, by status."""
        states = {} if self._tracker is None else dict(self._tracker.states)
        return {status.value: count for status, count in states.items()}

    @property
    def pbx(self) -> str:
        """What the PBX is called in the database: its systemname or `name`; "" until it has said so."""
        return self._pbx

    def said(self) -> str:
        """The systemname that the PBX has told, "" where it has none, or has not told it."""
        return self._pbx if self._named_itself else ""

    @property
    def channels(self) -> int:
        """How many channels are tracked."""
        return 0 if self._tracker is None else self._tracker.channels

    async def wait_for_name(self) -> str:
        """Return what the PBX is called as soon as it has a tracker that waits for `adopt`."""
        await self._named.wait()
        self._named = trio.Event()
        return self._pbx

    def adopt(self, pbx: str, records: Sequence[CallRecord]) -> None:
        """Take over calls that were live before; those that are gone end with the next resync. May come twice."""
        if self._tracker is None or pbx != self._pbx:
            return  # it asks again, under the name of another PBX
        if records:
            self._tracker.adopt(records)
            log.info("calls.adopted", pbx=self.name, calls=len(records))
        held, self._held = self._held or [], None
        for feed in held:
            feed()
        self._wake()

    @property
    def ready(self) -> bool:
        """Whether its calls are known: those that were live before were taken over."""
        return self._tracker is not None and self._held is None

    def standing(self, external_id: str) -> Standing | None:
        """The live Call of that externalId as it stands; None: none is known."""
        return None if self._tracker is None else self._tracker.standing(external_id)

    def channel_state(self, uniqueid: str) -> str | None:
        """The ChannelState of a channel; None: it is not known."""
        return None if self._tracker is None else self._tracker.channel_state(uniqueid)

    def connected(self, hello: Hello) -> None:
        """Take up the calls of this PBX, or end those that its restart has cut."""
        self._named_itself = bool(hello.systemname)
        self.greeted()
        pbx = hello.systemname or self.name
        if self._tracker is None or pbx != self._pbx:
            if self._tracker is not None:  # another PBX answers at this address now
                self._held = None
                self._end_all()
                self._left += self._tracker.take()
            self._pbx, self._held = pbx, []
            self._misnamed = 0
            self._tracker = Tracker(pbx, trunks=self._trunks, region=self._region)
            self._named.set()
            early, self._told_early = self._told_early, []
            for told in early:
                self.recorded(told)
        elif hello.restarted:
            self._feed(self._end_all)

    def event(self, event: Event) -> None:
        """Feed the tracker."""
        self.saw(event)
        if self._held is None:
            self._handle(event)
            self._wake()
        else:
            self._held.append(lambda: self._handle(event))

    def resynced(self, snapshot: Snapshot, buffered: list[Event]) -> None:
        """Reconcile with what the PBX says is there."""
        for event in buffered:
            self.saw(event)
        self._feed(lambda: self._resync(snapshot, buffered))

    def recorded(self, told: AriRecording) -> None:
        """Take what ARI says of a recording; the ARI link's consumer."""
        if self._tracker is not None:
            self._feed(lambda: self._record(told))
        elif len(self._told_early) < _HELD:
            self._told_early.append(told)

    def disconnected(self, reason: str, at: float) -> None:
        """Keep the calls: they may well go on, and the next resync tells."""
        self._last_seen_at = at
        self._wake()

    def take(self) -> list[CallUpdate]:
        """Return what has changed since the last time."""
        left, self._left = self._left, []
        if self._tracker is None:
            return left
        if self._tracker.misnamed != self._misnamed:
            self.misnamed += self._tracker.misnamed - self._misnamed
            self._misnamed = self._tracker.misnamed
            log.warning(
                "tracker.misnamed_event",
                pbx=self.name,
                events=self._misnamed,
                todo="someone sends CR LF in the number he dials; FILTER() it in the dialplan",
            )
            self.request_resync("misnamed_event")
        faults = self._tracker.faults
        taken = self._tracker.take()
        if self._tracker.faults != faults:
            self.faults += self._tracker.faults - faults
            log.error("tracker.fault", pbx=self.name, kind="take", todo="please report it, with a recording")
            self.request_resync("tracker_fault")
        return left + taken

    def take_queues(self) -> QueuesUpdate | None:
        """Return what has changed in the queues since the last time; None: nothing."""
        return None if self._tracker is None else self._tracker.take_queues()

    def take_visits(self) -> list[Visited]:
        """Return who came into queues and left them."""
        return [] if self._tracker is None else self._tracker.take_visits()

    def _feed(self, feed: Callable[[], None]) -> None:
        if self._held is None:
            feed()
            self._wake()
        else:
            self._held.append(feed)

    def _handle(self, event: Event) -> None:
        # A fault costs this event, which a resync makes good, and never the daemon.
        try:
            self._known().handle(event)
        except Exception:
            self.faults += 1
            log.exception("tracker.fault", pbx=self.name, kind=event.kind, todo="please report it, with a recording")
            self.request_resync("tracker_fault")

    def _resync(self, snapshot: Snapshot, buffered: list[Event]) -> None:
        try:
            self._known().resync(snapshot, buffered)
        except Exception:
            self.faults += 1
            log.exception("tracker.fault", pbx=self.name, kind="resync", todo="please report it, with a recording")

    def _record(self, told: AriRecording) -> None:
        try:
            self._known().recorded(told, f"{self._ari_directory}/{file_of(told)}")
        except Exception:
            self.faults += 1
            log.exception("tracker.fault", pbx=self.name, kind="ari", todo="please report it, with a recording")

    def _end_all(self) -> None:
        if self._last_seen_at is not None:
            self._known().lost(self._last_seen_at)

    def _known(self) -> Tracker:
        if self._tracker is None:
            raise RuntimeError("the link told of events before it was connected")
        return self._tracker
