"""The link to one PBX: connected, logged in, in step with it, and made again whenever it is lost.

What a consumer is told, always synchronously and in this order:

    connected(hello)              logged in, fully booted. If hello.restarted, every channel from before is gone: the
                                  consumer ends those calls (tracker.lost) before anything else comes
    resynced(snapshot, buffered)  the PBX's own lists, and the events that came since connected(), in order
    event(event) ...              each as it is read
    resynced(snapshot, buffered)  again, whenever a resync was asked for: the events of that time are in it
    disconnected(reason, at)      the link is lost; `at` is when the PBX was last heard. Its calls may well go on:
                                  the next resynced() shows which ones did

The link awaits nothing of the consumer, so nothing downstream can slow its reading.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn, Protocol

import structlog
import trio

from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.codec import Wanted
from trunkline.asterisk.dial import LinkSettings, open_stream, tell_down
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.guard import Guard
from trunkline.asterisk.lists import LIST_KINDS, Snapshot
from trunkline.asterisk.resync import Resync
from trunkline.asterisk.session import EVENTS, LinkError, Pbx, Reason, clock
from trunkline.asterisk.wire import Patience, Wire

VARIABLES = ("MIXMONITOR_FILENAME", "TL_DID", "CDR(start)", "CDR(answer)")
"""Asked by Getvar, for every channel whose beginning the link has not seen."""

MAX_BUFFERED = 50_000  # events kept during a resync: 5,000/s for 10 s, about 120 MB
MISFITS = 20  # so many, and nothing believed between: the PBX was told otherwise. No caller can write so many at once
PING_TRUSTED_S = 1.0  # an answer that takes longer says more about the way than about the clock
RESYNC_GAP_S = 5.0  # between two resyncs; doubles while each is followed by a reason for another
RESYNC_GAP_CAP_S = 300.0
_WHOLE_EVENT = frozenset({"Privilege", "Channel", "ChannelState", "CallerIDName", "Exten", "Uniqueid", "Linkedid"})
_SAME_BOOT_S = 3.0  # Uptime is whole seconds, cut off, and read a little later
_OWN_FIELDS = frozenset(("Timestamp", "SystemName", "ActionID", "Uniqueid", "Uptime"))
_OWN_KINDS: dict[str, None] = dict.fromkeys([*LIST_KINDS, "FullyBooted", "Shutdown"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hello:
    """What a PBX is, told at each login."""

    systemname: str  # "" when it has none
    version: str  # "" when the login may not ask
    uptime_s: int | None  # None when the login lacks the class `system`
    restarted: bool  # has it been started anew since the last session of this link?


class Consumer(Protocol):
    """Who is fed by a link. Each method returns at once and raises nothing."""

    def connected(self, hello: Hello) -> None:
        """Logged in; the lists follow."""

    def event(self, event: Event) -> None:
        """One believed event."""

    def resynced(self, snapshot: Snapshot, buffered: list[Event]) -> None:
        """What the PBX says is there, and the events since `connected` or since the resync began."""

    def disconnected(self, reason: str, at: float) -> None:
        """The link is lost; `at` (epoch seconds, the PBX's clock) is when it was last heard."""


class Link:
    """One PBX's link; `run()` is its life. The public attributes are for metrics and readiness to read.

    wanted, fields: the events, and of them the fields, that the consumer has a use for; None for all. See Decoder.
    """

    def __init__(
        self,
        settings: LinkSettings,
        consumer: Consumer,
        *,
        wanted: Wanted | None = None,
        fields: frozenset[str] | None = None,
        variables: Sequence[str] = VARIABLES,
        events: str = EVENTS,
        patience: Patience | None = None,
        backoff: Backoff | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = settings.name
        self.up = False  # logged in, booted and resynced
        self.hello: Hello | None = None  # of the last login
        self.failure: LinkError | None = None  # why it is not up; None while it is
        self.connects = 0
        self.reconnects = 0
        self.resyncs = 0
        self.resync_s = 0.0  # how long the last one took
        self.resyncs_failed = 0
        self.resync_requests: dict[str, int] = {}
        self.connect_failures: dict[str, int] = {}  # by Reason; a link that was up and was lost counts too
        self.events_read: dict[str, int] = {}  # by kind
        self.refused: dict[str, int] = {}  # by the guard's reason
        self.mended = 0  # events that were broken by a caller's value, and put right
        self.last_event_at: float | None = None  # epoch seconds, its own Timestamp
        self.clock_offset_s = 0.0  # the PBX's clock less ours
        self._skipped: dict[str, int] = {}  # of the sessions before this one
        self._bad: dict[str, int] = {}
        self._settings = settings
        self._consumer = consumer
        self._wanted = None if wanted is None else {**wanted, **_OWN_KINDS}
        self._fields = None if fields is None else fields | _OWN_FIELDS
        self._variables = tuple(variables)
        self._events = events
        self._patience = patience or Patience()
        self._backoff = backoff or Backoff()
        self._clock = now
        self._read_at = now()
        self._event_read_at = self._read_at
        self._wire: Wire | None = None
        self._guard: Guard | None = None  # None until the PBX has said who it is
        self._timestamps: bool | None = None  # does it set timestampevents? None: no event seen yet
        self._suspicious = 0
        self._misfits = 0  # events in a row that have a Timestamp where none is expected, or none where one is
        self._passed = 0
        self._boot: tuple[str | None, float | None] = (None, None)  # CoreStatus' start; trio time of the start
        self._shutdown_seen = False
        self._early: list[Frame | Event] = []  # came before the PBX said who it is
        self._buffer: list[Event] | None = []  # a list while a resync is on
        self._resync: Resync | None = None
        self._stale: set[str] = set()  # ActionIDs of lists that were given up
        self._known: set[str] = set()  # Uniqueids seen from their beginning, or asked about, in this session
        self._resync_wanted = trio.Event()

    @property
    def lag_s(self) -> float:
        """How long after its Timestamp the last event was read, the difference of the clocks taken off."""
        if self.last_event_at is None:
            return 0.0
        return max(0.0, self._event_read_at + self.clock_offset_s - self.last_event_at)

    @property
    def heard_at(self) -> datetime | None:
        """When something was last read of the PBX, by our clock; None: never."""
        return datetime.fromtimestamp(self._read_at, UTC) if self.connects else None

    @property
    def skipped(self) -> dict[str, int]:
        """Events passed over undecoded, by kind."""
        return _added(self._skipped, self._wire.decoder.skipped) if self._wire is not None else self._skipped

    @property
    def bad(self) -> dict[str, int]:
        """Frames that could not be decoded, by reason."""
        return _added(self._bad, self._wire.decoder.bad) if self._wire is not None else self._bad

    def request_resync(self, reason: str) -> None:
        """Ask for a resync soon. Requests are taken together, and kept apart by a gap that grows."""
        self.resync_requests[reason] = self.resync_requests.get(reason, 0) + 1
        self._resync_wanted.set()

    async def run(self) -> NoReturn:
        """Keep the link up, for ever: only cancellation ends it."""
        while True:
            connects, since = self.connects, trio.current_time()
            failure = self.failure = await self._session()
            self.connect_failures[failure.reason] = self.connect_failures.get(failure.reason, 0) + 1
            if self.connects > connects:
                self.reconnects += 1
                self._backoff.held(trio.current_time() - since)
            wait_s = self._backoff.next_s(refused=failure.refused)
            tell_down("link.down", self.name, self._settings.address, failure, wait_s)
            await trio.sleep(wait_s)

    async def _session(self) -> LinkError:
        """One connection from its opening to its end; returns why it ended."""
        try:
            stream = await open_stream(self._settings.address)
        except LinkError as error:
            return error
        wire = Wire(
            stream,
            self._settings,
            self._on_frame,
            wanted=self._wanted,
            fields=self._fields,
            on_chunk=self._on_chunk,
            events=self._events,
            patience=self._patience,
        )
        self._wire, self._guard = wire, None
        self._early, self._buffer, self._shutdown_seen = [], [], False
        self._resync, self._stale, self._known = None, set(), set()
        connects = self.connects
        failure = LinkError(Reason.SHUTDOWN, "the daemon ends the link", "nothing: it was asked to")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow, wire)
                failure = await wire.run()
                if self._shutdown_seen and failure.reason is Reason.CLOSED:
                    failure = LinkError(
                        Reason.RESTARTING, "Asterisk was stopped or restarted", "wait, or start it again"
                    )
                nursery.cancel_scope.cancel()
        finally:
            self.up = False
            self._skipped, self._bad, self._wire = self.skipped, self.bad, None
            if self.connects > connects:
                # the offset of the clocks is known to some ms: never before the last thing that we know happened
                heard_at = max(self._read_at + self.clock_offset_s, self.last_event_at or 0.0)
                self._consumer.disconnected(failure.reason.value, heard_at)
        return failure

    async def _follow(self, wire: Wire) -> None:
        """Bring a fresh connection into step, then resync it as often as something asks for it."""
        await wire.ready.wait()
        pbx = wire.session.pbx
        expected = self._settings.systemname
        if expected is not None and pbx.systemname and pbx.systemname != expected:
            wire.fail(
                LinkError(
                    Reason.WRONG_PBX,
                    f"the PBX calls itself {pbx.systemname!r}, but {expected!r} is configured",
                    "correct systemname in the [[pbx]] section, or in the PBX's asterisk.conf",
                )
            )
            return
        self._greet(pbx)
        self._resync_wanted = trio.Event()
        gap_s, began = RESYNC_GAP_S, trio.current_time() - 2 * RESYNC_GAP_S  # the first request is heard at once
        if not await self._resynchronise(wire):
            wire.fail(_resync_failed())
            return
        while True:
            await self._resync_wanted.wait()
            waited_s = trio.current_time() - began
            gap_s = min(gap_s * 2, RESYNC_GAP_CAP_S) if waited_s < 2 * gap_s else RESYNC_GAP_S
            await trio.sleep_until(began + gap_s)
            self._resync_wanted = trio.Event()
            began = trio.current_time()
            self._buffer = []
            if not await self._resynchronise(wire):
                self.request_resync("failed")

    def _greet(self, pbx: Pbx) -> None:
        """The PBX has said who it is: tell the consumer, and judge what came meanwhile."""
        if pbx.clock is not None:
            self.clock_offset_s = pbx.clock - self._clock()
        restarted = self._restarted(pbx)
        systemname = pbx.systemname or self._settings.systemname or ""
        self.hello = Hello(systemname, pbx.version, pbx.uptime_s, restarted)
        self.connects += 1
        log.info(
            "link.connected", pbx=self.name, systemname=systemname, version=pbx.version, uptime_s=pbx.uptime_s,
            restarted=restarted, clock_offset_s=round(self.clock_offset_s, 3),
        )  # fmt: skip
        if pbx.uptime_s is None:
            log.warning("link.no_fullybooted", pbx=self.name, todo="add `system` to the login's read= in manager.conf")
        if not systemname:
            log.warning(
                "link.no_systemname",
                pbx=self.name,
                todo="set systemname in asterisk.conf: forged events pass more easily",
            )
        self._watch(systemname)
        self._consumer.connected(self.hello)
        early, self._early = self._early, []
        for frame in early:
            self._on_frame(frame)

    def _restarted(self, pbx: Pbx) -> bool:
        """Was Asterisk started anew since the last session? CoreStatus' start time tells, or else Uptime.

        Two witnesses, because daylight saving time moves the first one (by whole quarters of an hour), and a corrected
        clock the second. Two starts in one and the same second look like one; the lists show then which calls are gone.
        """
        started, booted = self._boot
        now_booted = None if pbx.uptime_s is None else trio.current_time() - pbx.uptime_s
        self._boot = (pbx.started or started, booted if now_booted is None else now_booted)
        if started is not None and pbx.started is not None:
            if started == pbx.started:
                return False
            if not _zone_moved(started, pbx.started):
                return True
        return booted is not None and now_booted is not None and abs(now_booted - booted) > _SAME_BOOT_S

    async def _resynchronise(self, wire: Wire) -> bool:
        """Ask the lists, while events are buffered, and hand both over; False when the answers did not come."""
        began = trio.current_time()
        self._resync = resync = Resync(wire)
        asked_at, pong = self._clock(), await wire.ask("Ping")
        took_s = self._clock() - asked_at
        if pong is not None and (pbx_clock := clock(pong)) is not None and took_s < PING_TRUSTED_S:
            self.clock_offset_s = pbx_clock - asked_at - took_s / 2
        snapshot = await resync.lists(self._clock() + self.clock_offset_s)
        if snapshot is not None:
            new = [row for uniqueid, row in snapshot.channels.items() if uniqueid not in self._known]
            variables, unanswered = await resync.variables(new, self._variables)
            snapshot = snapshot._replace(variables=variables)
            self._known.update(row["Uniqueid"] for row in new if row["Uniqueid"] not in unanswered)
            if unanswered:
                self.request_resync("variables_unanswered")
        self._resync = None
        buffered, self._buffer = self._buffer or [], None
        if snapshot is None:
            self.resyncs_failed += 1
            self._stale |= resync.action_ids.keys()
            log.warning("link.resync_failed", pbx=self.name, todo="is the PBX overloaded?")
            for event in buffered if self.up else ():
                self._consumer.event(event)
            return False
        born = {event.fields["Uniqueid"] for event in buffered if event.kind == "Newchannel"}
        self._known &= snapshot.channels.keys() | born  # a Hangup that was not believed leaves nothing behind
        self.resyncs += 1
        self.resync_s = trio.current_time() - began
        for action, words in resync.collector.failed.items():
            if action != "ParkedCalls":  # needs write = call, which an events login had better not have
                log.warning(
                    "link.list_refused",
                    pbx=self.name,
                    action=action,
                    said=words,
                    todo="set write = reporting for the login",
                )
        log.info(
            "link.resynced", pbx=self.name, channels=len(snapshot.channels), whole=snapshot.whole,
            buffered=len(buffered), seconds=round(self.resync_s, 3),
        )  # fmt: skip
        self.up, self.failure = True, None
        self._consumer.resynced(snapshot, buffered)
        if not snapshot.whole and not resync.collector.failed:
            self.request_resync("broken_list")
        return True

    def _on_frame(self, frame: Frame | Event) -> None:
        """Every frame of the connection comes through here; this is the hot path."""
        if isinstance(frame, Frame) and "ActionID" in frame.fields:
            if self._resync is not None and self._resync.feed(frame):
                return
            if frame.fields["ActionID"] in self._stale:
                return
        guard = self._guard
        if guard is None:
            self._early.append(frame)
            return
        event = guard.check(frame, self._read_at)
        if guard.suspicious != self._suspicious and isinstance(frame, Frame):
            event = self._suspect(guard, frame, event)
        if event is None:
            return
        kind, self.last_event_at = event.kind, event.at
        self._event_read_at = self._read_at
        read = self.events_read
        read[kind] = read.get(kind, 0) + 1
        if kind == "Newchannel":
            self._known.add(event.fields["Uniqueid"])
        elif kind == "Hangup":
            self._known.discard(event.fields["Uniqueid"])
        elif kind == "Shutdown":
            self._shutdown_seen = True
        if self._buffer is None:
            self._consumer.event(event)
        elif len(self._buffer) < MAX_BUFFERED:
            self._buffer.append(event)
        elif self._wire is not None:
            self._wire.fail(_resync_failed(f"{MAX_BUFFERED} events came before the lists were complete"))

    def _on_chunk(self, _: bytes) -> None:
        self._read_at = self._clock()

    def _watch(self, systemname: str) -> Guard:
        self._guard = guard = Guard(systemname or None, timestamps=self._timestamps is not False)
        guard.refused = self.refused  # counted over all sessions
        if self._wire is not None:
            self._wire.decoder.trust(guard)
        self._suspicious = self._misfits = self._passed = 0
        return guard

    def _suspect(self, guard: Guard, frame: Frame, event: Event | None) -> Event | None:
        """The guard did not like this frame: say so and resync, unless only timestampevents is not as assumed."""
        # Only a whole event counts as a witness: what a caller writes is too short for one, however often he writes it.
        keys = frame.shape.keys if frame.shape is not None else ()
        stamped = keys[:3] == ("Event", "Privilege", "Timestamp")
        odd = event is None and stamped != guard.timestamps and _WHOLE_EVENT.issubset(keys)
        self._misfits = self._misfits + 1 if odd and guard.passed == self._passed else int(odd)
        self._passed = guard.passed
        if self._misfits >= (MISFITS if self.events_read else 1):
            self._timestamps = stamped
            if not stamped:
                log.warning("link.no_timestamps", pbx=self.name, todo="set timestampevents = yes in manager.conf")
            guard = self._watch(guard.systemname or "")
            event = guard.check(frame, self._read_at)
            if event is not None:
                return event
        self._suspicious = guard.suspicious
        self.mended += event is not None
        if not self._resync_wanted.is_set():  # one line for each resync: a forger may fill the log no faster
            log.warning(
                "link.forged_event", pbx=self.name, kind=frame.kind[:40], mended=event is not None,
                refused=sum(self.refused.values()), todo="someone sends CR LF in a number; FILTER() it in the dialplan",
            )  # fmt: skip
        self.request_resync("forged_event")
        return event


def _zone_moved(started: str, now_started: str) -> bool:
    """May these be the same moment in two time zones?"""
    try:
        moved = datetime.fromisoformat(now_started) - datetime.fromisoformat(started)
    except ValueError:
        return False
    return moved.total_seconds() % 900 == 0


def _added(some: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {key: some.get(key, 0) + more.get(key, 0) for key in {**some, **more}}


def _resync_failed(detail: str = "the lists did not come in time") -> LinkError:
    return LinkError(Reason.RESYNC_FAILED, detail, "is the PBX, or this machine, overloaded?")
