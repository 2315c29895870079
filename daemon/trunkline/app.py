"""Wires the rooms and holds the root nursery; the only file that knows them all.

    trio:     link -> Following (tracker) -> write loop --+            one per PBX; one write loop for all
    asyncio:                          CallSink, HTTP <----+  aio.call, a batch every 20 ms while something changes

Stopping cancels all of it; then what is known is written, or spooled, within STOP_S.
"""

import math
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import asyncpg
import structlog
import trio

from trunkline import migrating
from trunkline.aio import AsyncioThread, open_asyncio_thread
from trunkline.api import Link as LinkState
from trunkline.api import create_app, serve
from trunkline.asterisk.ari import AriLink, AriSettings, ari_settings
from trunkline.asterisk.control import Control
from trunkline.asterisk.dial import Address, LinkSettings
from trunkline.asterisk.link import Link
from trunkline.asterisk.session import Credentials
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.record import CallRecord, CallUpdate
from trunkline.commanding import Commanding
from trunkline.config import Pbx, Settings
from trunkline.crm.matching import select_leads_by_number
from trunkline.crm.webhooks.service import Sending, WebhookService
from trunkline.following import ARI_DIRECTORY, Following
from trunkline.garbage import settle
from trunkline.identity.upkeep import Upkeep
from trunkline.inbox.service import InboxService
from trunkline.inbox.telephony import mark_missed, upsert_conversations
from trunkline.metrics import Metrics, families
from trunkline.operating import Operator, Plan
from trunkline.recordings.spool import Directories, RecordingSpool
from trunkline.serving import (
    CONNECTIONS,
    REACH_S,
    StartError,
    access,
    call_destinations,
    cannot_listen,
    commanding,
    destinations,
    open_issuer,
    open_objects,
    uploads,
    vault,
    wrong_schema,
)
from trunkline.store.command_queue import CommandQueue
from trunkline.store.faults import advice, of_the_server
from trunkline.store.integrations import Report, report_links
from trunkline.store.pool import Pool, open_pool, raise_if_cancelled
from trunkline.store.queries import select_migration
from trunkline.store.queue_writer import QueueWriter
from trunkline.store.recordings import EnqueueRecordings
from trunkline.store.revision import HEAD
from trunkline.store.sink import CallSink
from trunkline.store.spool import Spool, SpoolError
from trunkline.store.writer import CallWriter
from trunkline.store.writer_sql import INSERT_ACCOUNT

if TYPE_CHECKING:
    from trunkline.recordings.service import RecordingService

WRITE_EVERY_S = 0.02  # what changes within it is one batch
QUEUES_EVERY_S = 1.0  # queues and agents are written, and so told, no more often
BEAT_S = 3.0  # how often it is said that a PBX is seen; store/queues.py: STALE_S
ADOPT_S = 3.0  # how long a fresh link waits for the database to say which calls were live
STOP_S = 5.0
REPORT_EVERY_S = 10.0  # how the links stand
REPORT_FIRST_S = 1.0  # until a PBX has said who it is

OnUpdates = Callable[[Sequence[CallUpdate]], object]

log = structlog.get_logger(__name__)


async def run(
    settings: Settings,
    *,
    on_update: OnUpdates = lambda updates: None,
    ready: Callable[[str], object] = lambda url: None,
    migrate: bool = False,
) -> None:
    """Follow the PBXs and serve the API until cancelled.

    `on_update` is given every batch once it is stored (or spooled), `ready` the API's URL; both in trio, and both must
    return at once. `migrate` brings the schema up first. Raises StartError.
    """
    async with open_asyncio_thread() as aio:
        daemon = await _Daemon.open(settings, aio)
        settle()
        try:
            await daemon.run(on_update, ready, migrate)
        finally:
            with trio.CancelScope(shield=True):
                await daemon.close()
            log.info("daemon.stopped")


class _Daemon:
    """What lives as long as one `run`."""

    def __init__(self, settings: Settings, aio: AsyncioThread, pools: "_Pools", spools: "_Spools") -> None:
        self._settings = settings
        self._spools = spools
        self._aio = aio
        self._pools = pools
        self._sink = pools.sink
        self._metrics = Metrics(version("trunkline"))
        self._changed = trio.Event()
        self._changed_at = 0.0  # perf_counter of the oldest event that is not written
        self._queues_changed = trio.Event()
        self._unwritten: list[CallUpdate] = []  # taken from a tracker, not yet handed over
        self._ari: list[AriLink] = []
        self._controls: list[Control] = []
        self._operators: list[Operator] = []
        self._follow = [self._following(pbx) for pbx in settings.pbx if pbx.enabled]
        self._commanding = Commanding(aio, pools.commands, self._operators)
        self._measure()

    @classmethod
    async def open(cls, settings: Settings, aio: AsyncioThread) -> "_Daemon":
        """Make what can fail before anything runs."""
        try:
            spools = _Spools()
            return cls(settings, aio, await aio.call(_Pools.open, settings, spools), spools)
        except SpoolError as error:
            raise StartError(str(error)) from error

    async def run(self, on_update: OnUpdates, ready: Callable[[str], object], migrate: bool) -> None:
        await self._check_schema(migrate)
        log.info("daemon.started", version=version("trunkline"), pbxs=len(self._follow))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, ready)
            nursery.start_soon(self._write_on, on_update)
            nursery.start_soon(self._report_links)
            nursery.start_soon(self._write_queues_on)
            nursery.start_soon(self._cut_when_stopping)
            nursery.start_soon(self._aio.call, self._pools.webhooks.run)
            nursery.start_soon(self._aio.call, self._pools.upkeep.run)
            nursery.start_soon(self._aio.call, self._pools.inbox.run)
            if self._pools.recordings is not None:
                here = bool(self._spools.recordings or self._spools.voicemail or self._spools.ari)
                if not here:
                    todo = "set pbx.recordings, or run `trunkline spool` beside the PBX"
                    log.warning("recordings.not_here", meanwhile="recordings stay PENDING", todo=todo)
                nursery.start_soon(self._aio.call, self._pools.recordings.run, here)
            for following, link in self._follow:
                nursery.start_soon(self._adopt, following, link)
                nursery.start_soon(link.run)
            for ari in self._ari:
                nursery.start_soon(ari.run)
            for control in self._controls:
                nursery.start_soon(control.run)
            nursery.start_soon(self._commanding.run)

    async def close(self) -> None:
        """Write what is known, within STOP_S; what PostgreSQL does not take by then waits in the spool."""
        await self._write()
        if not self._sink.away:  # else nobody will miss it for long: store/queues.py, STALE_S
            seen = {following.pbx: False for following, _ in self._follow if following.pbx}
            await self._aio.call(self._pools.queues.write, [], seen)
        if self._sink.depth:
            log.warning("daemon.calls_left", spooled=self._sink.depth, todo="nothing: the next start writes them")
        await self._aio.call(self._pools.close)

    def _following(self, pbx: Pbx) -> tuple[Following, Link]:
        ari = None
        if pbx.ari_recordings is not None:
            ari = RecordingSpool(pbx.ari_recordings.resolve(), pbx.ari_recordings_seen_as, "ari_recordings")
        following = Following(
            pbx.systemname or f"{pbx.host}:{pbx.ami_port}",
            trunks=pbx.trunks,
            region=pbx.region,
            wake=self._wake,
            ari_directory=ari.seen_as if ari is not None else pbx.ari_recordings_seen_as or ARI_DIRECTORY,
        )
        login = _link_settings(following.name, pbx, pbx.username, pbx.secret.reveal())
        link = Link(login, following, wanted=NEEDED, fields=FIELDS)
        following.request_resync = link.request_resync
        self._operate(pbx, following, link)
        if pbx.recordings is not None:
            self._spools.recordings.append(
                (following, RecordingSpool(pbx.recordings.resolve(), pbx.recordings_seen_as))
            )
        if pbx.voicemail is not None:
            self._spools.voicemail.append((following, RecordingSpool(pbx.voicemail.resolve(), None, "voicemail")))
        if ari is not None:
            self._spools.ari.append((following, ari))
        if pbx.ari_url:
            self._ari.append(AriLink(_ari_settings(following.name, pbx), following.recorded, expected=following.said))
        return following, link

    def _operate(self, pbx: Pbx, following: Following, link: Link) -> None:
        """Have commands for this PBX carried out; without a control login each is told that there is none."""
        control = None
        if pbx.control_secret is not None:
            control = Control(_link_settings(following.name, pbx, pbx.control_username, pbx.control_secret.reveal()))
            following.greeted = control.nudge
            self._controls.append(control)
        plan = Plan(pbx.agents, pbx.agent_endpoint, pbx.agent_context, pbx.dial, pbx.hold_context)
        operator = Operator(
            following, control, plan, call_destinations(self._settings.commands, pbx.region), lambda: link.up
        )
        following.saw = operator.saw
        self._operators.append(operator)

    def _wake(self) -> None:
        if not self._changed.is_set():
            self._changed_at = time.perf_counter()
            self._changed.set()
        self._queues_changed.set()  # whoever writes calls may be at work, or wait for the database: queues do not

    async def _write_on(self, on_update: OnUpdates) -> None:
        while True:
            await self._changed.wait()
            await trio.sleep(WRITE_EVERY_S)
            if updates := await self._write():
                on_update(updates)

    async def _write_queues_on(self) -> None:
        """At once what has changed, and then for a second no more: a storm of agents is one write of each."""
        said: dict[str, bool] = {}
        said_at = -BEAT_S
        while True:
            with trio.move_on_after(BEAT_S):
                await self._queues_changed.wait()
            await trio.sleep(WRITE_EVERY_S)
            self._queues_changed = trio.Event()
            began = trio.current_time()
            updates = []
            for following, _ in self._follow:
                update = following.take_queues()
                if update is not None:
                    self._metrics.queues.picture(following.name, update)
                    updates.append(update)
            seen = {following.pbx: link.up for following, link in self._follow if following.pbx}
            if updates or seen != said or began >= said_at + BEAT_S:
                await self._aio.call(self._pools.queues.write, updates, seen)
                said, said_at = seen, began
            await trio.sleep_until(began + QUEUES_EVERY_S)

    async def _cut_when_stopping(self) -> None:
        """A server that hangs answers no cancellation either: STOP_S after we began to stop, it is hung up on."""
        try:
            await trio.sleep_forever()
        finally:
            self._aio.later(STOP_S, self._pools.cut)

    async def _write(self) -> list[CallUpdate]:
        """Hand over what has changed; return it."""
        since, began = self._changed_at, time.perf_counter()
        self._changed = trio.Event()
        for following, _ in self._follow:
            taken = following.take()
            self._metrics.count_updates(following.name, taken)
            self._metrics.queues.count(following.name, following.take_visits())
            self._unwritten += taken
        updates = self._unwritten
        if updates:
            await self._aio.call(self._sink.write, updates)
            self._unwritten = []
            if self._sink.away:
                self._metrics.count_failed_write()
            else:
                ended = time.perf_counter()
                self._metrics.observe_write(len(updates), ended - began, ended - since)
        return updates

    async def _adopt(self, following: Following, link: Link) -> None:
        """Give each tracker the calls that were live before it; without a database the spool's, the rest later."""
        async with trio.open_nursery() as nursery:
            while True:
                pbx = await following.wait_for_name()
                records: list[CallRecord] | None = None
                with trio.move_on_after(ADOPT_S):
                    records = await self._aio.call(self._sink.live, pbx)
                if records is None:
                    records = await self._aio.call(self._pools.live_spooled, pbx)
                    nursery.start_soon(self._adopt_late, following, link, pbx)
                following.adopt(pbx, records)

    async def _adopt_late(self, following: Following, link: Link, pbx: str) -> None:
        following.adopt(pbx, await self._aio.call(self._sink.live, pbx))
        link.request_resync("adopted_late")

    async def _serve(self, ready: Callable[[str], object]) -> None:
        http = self._settings.http
        app = create_app(
            self._pools.reading,
            account=self._settings.account.name,
            metrics=self._metrics,
            access=access(self._settings),
            head=HEAD,
            links=self._links,
            objects=None if self._pools.recordings is None else self._pools.recordings.store,
            uploads=uploads(self._settings),
            enqueue=self._pools.enqueue,
            webhooks=self._pools.webhooks.client,
            oidc=open_issuer(self._settings.oidc),
            vault=vault(self._settings.integrations),
            region=self._settings.region,
            commands=commanding(self._settings.commands, self._settings.region),
        )
        try:
            listen = partial(serve, reuse_port=http.reuse_port)
            await self._aio.call(listen, app, http.host, http.port, lambda url: self._aio.tell(ready, url))
        except OSError as error:
            raise StartError(cannot_listen(self._settings, error)) from error

    def _links(self) -> list[LinkState]:
        return [LinkState(link.name, link.up, str(link.failure or "")) for _, link in self._follow]

    async def _report_links(self) -> None:
        """Say in the database how the links stand, for those who ask nobody else."""
        while True:
            reports = [
                Report(following.pbx, link.up, str(link.failure or ""), link.heard_at)
                for following, link in self._follow
                if following.pbx
            ]
            await self._aio.call(self._pools.report_links, reports)
            await trio.sleep(REPORT_EVERY_S if reports else REPORT_FIRST_S)

    async def _check_schema(self, migrate: bool) -> None:
        """Refuse an older schema. A database that is away is no reason not to start: calls are spooled meanwhile."""
        try:
            with trio.fail_after(REACH_S):
                found = await self._aio.call(self._pools.migration)
            if migrate and found != HEAD:
                await migrating.migrate(self._settings.database.url.reveal())
                found = HEAD
            if found == HEAD:
                await self._aio.call(self._pools.make_account)
        except migrating.MigrationStopped as error:
            raise StartError(str(error)) from error
        except asyncpg.exceptions.ClientConfigurationError as error:
            raise StartError(f"database.url cannot be used: {error}") from error
        except (OSError, trio.TooSlowError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            detail = str(error) or f"it did not answer within {REACH_S:g} s"
            log.error("database.away", detail=detail, todo=advice(error), meanwhile="calls wait in the spool")
            return
        if found != HEAD:
            raise StartError(f"{wrong_schema(found)}: run `trunkline migrate`, or add --migrate")

    def _measure(self) -> None:
        pull, sink = self._metrics.pull, self._sink
        pull(families.SPOOL_DEPTH, "", lambda: sink.depth)
        pull(families.DATABASE_UP, "", lambda: 0 if sink.away else 1)
        pull(families.WRITE_QUEUE, "", lambda: len(self._unwritten))
        pull(families.ROWS_WRITTEN, "", lambda: sink.written)
        pull(families.EVENTS_WRITTEN, "", lambda: sink.events)
        pull(families.STALE_CHANGES, "", lambda: sink.stale)
        pull(families.REFUSED_CHANGES, "", lambda: sink.refused)
        pull(families.DROPPED_CALLS, "", lambda: sink.dropped)
        pull(families.COMMANDS, "", lambda: self._commanding.outcomes)
        for following, link in self._follow:
            _measure_pbx(self._metrics, following, link)
            self._metrics.queues.follow(following.name, partial(getattr, link, "up"))
        for ari in self._ari:
            _measure_ari(self._metrics, ari)
        for control in self._controls:
            _measure_control(self._metrics, control)
        if self._pools.recordings is not None:
            _measure_recordings(self._metrics, self._pools.recordings)
        _measure_webhooks(self._metrics, self._pools.webhooks)


class _Spools:
    """Where the PBXs that are followed record and keep voicemail, by the names that they have said so far."""

    def __init__(self) -> None:
        self.recordings: list[tuple[Following, RecordingSpool]] = []
        self.voicemail: list[tuple[Following, RecordingSpool]] = []
        self.ari: list[tuple[Following, RecordingSpool]] = []
        self.directories = Directories(
            lambda: self.named(self.recordings), lambda: self.named(self.voicemail), lambda: self.named(self.ari)
        )

    def named(self, spools: Sequence[tuple[Following, RecordingSpool]]) -> dict[str, RecordingSpool]:
        """Return some of them by name."""
        return {following.pbx: spool for following, spool in spools if following.pbx}


class _Pools:
    """What lives on the asyncio thread."""

    def __init__(
        self,
        account: str,
        writing: Pool,
        reading: Pool,
        sink: CallSink,
        queues: QueueWriter,
        recordings: "RecordingService | None",
        enqueue: EnqueueRecordings | None,
        webhooks: WebhookService,
        inbox: InboxService,
        commands: CommandQueue,
        audit_days: int,
    ) -> None:
        self._account = account
        self.upkeep = Upkeep(writing, account, audit_days)
        self._writing = writing
        self.reading = reading  # of its own, so that slow questions never keep the writer waiting
        self.sink = sink
        self.queues = queues
        self.recordings = recordings  # None: they stay where the PBX puts them
        self.enqueue = enqueue
        self.webhooks = webhooks
        self.inbox = inbox
        self.commands = commands

    @classmethod
    async def open(cls, settings: Settings, spools: _Spools) -> "_Pools":
        """Open without needing the database. Raises SpoolError."""
        url, account = settings.database.url.reveal(), settings.account.name
        writing, reading = (
            await open_pool(url),
            await open_pool(url, max_size=CONNECTIONS, reading=True, account=account),
        )
        enqueue: EnqueueRecordings | None = None
        service = None
        if settings.recordings.endpoint:
            from trunkline.recordings.jobs import enqueue_recordings  # here: 14 MB, for who uses it

            enqueue = enqueue_recordings
            service = await open_recordings(settings, spools.directories)
        writer = CallWriter(
            writing,
            account,
            leads=select_leads_by_number,
            conversations=upsert_conversations,
            missed=mark_missed,
            recordings=enqueue,
        )
        webhooks = await WebhookService.open(url, _sending(settings))
        inbox = await InboxService.open(url, None if service is None else service.store)
        sink, commands = CallSink(writer, Spool(settings.spool.path)), CommandQueue(await open_pool(url), account)
        queues = QueueWriter(writing, account)
        kept = settings.auth.audit_days
        return cls(account, writing, reading, sink, queues, service, enqueue, webhooks, inbox, commands, kept)

    async def live_spooled(self, pbx: str) -> list[CallRecord]:
        """The live calls that the spool knows; here, for the spool's file belongs to this thread."""
        try:
            return self.sink.live_spooled(pbx)
        except SpoolError as error:
            log.error("spool.failed", error=str(error))
            return []

    async def migration(self) -> str | None:
        """The revision that the schema is at; asked as who writes, for an older schema lacks the API's role."""
        return await select_migration(self._writing)

    async def report_links(self, reports: Sequence[Report]) -> None:
        """Store how the links stand; while the database is away nobody could read it."""
        try:
            await report_links(self._writing, self._account, reports)
        except Exception as error:
            raise_if_cancelled()
            if not of_the_server(error):
                log.exception("daemon.links_not_reported")

    async def make_account(self) -> None:
        """Make the account, so that the API has one to serve before the first call. Raises as asyncpg does."""
        await self._writing.execute(INSERT_ACCOUNT, self._account)

    async def close(self) -> None:
        """Close everything."""
        await self.sink.close()
        if self.recordings is not None:
            await self.recordings.close()
        self.cut()

    def cut(self) -> None:
        """Hang up on PostgreSQL; what waits for it fails at once."""
        for pool in (self._writing, self.reading):
            pool.terminate()
        if self.recordings is not None:
            self.recordings.cut()
        self.webhooks.cut()
        self.inbox.cut()
        self.commands.cut()


async def open_recordings(settings: Settings, directories: Directories) -> "RecordingService":
    """What stores the recordings of the PBXs in these directories; opened without needing database or storage."""
    from trunkline.recordings.service import Keeping, RecordingService

    kept = settings.recordings
    keeping = Keeping(
        prefix=kept.prefix,
        keep_local=kept.keep_local,
        opus=kept.format == "opus",
        ffmpeg=kept.ffmpeg,
        at_once=kept.at_once,
        sweep_s=kept.sweep_s,
        retention_days=kept.retention_days,
        retention_days_by_queue=kept.retention_days_by_queue,
    )
    return await RecordingService.open(
        settings.database.url.reveal(),
        open_objects(kept),
        settings.account.name,
        directories,
        keeping,
    )


def _link_settings(name: str, pbx: Pbx, username: str, secret: str) -> LinkSettings:
    tls = None
    if pbx.tls != "off":
        try:
            tls = ssl.create_default_context(cafile=None if pbx.tls == "on" else pbx.tls)
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"pbx.tls: {pbx.tls} cannot be used as a CA file: {error}") from error
    return LinkSettings(name, Address(pbx.host, pbx.ami_port, tls), Credentials(username, secret), pbx.systemname)


def _ari_settings(name: str, pbx: Pbx) -> AriSettings:
    secret = pbx.ari_secret.reveal() if pbx.ari_secret is not None else ""
    try:
        return ari_settings(name, pbx.ari_url, pbx.ari_user, secret, None if pbx.tls in ("off", "on") else pbx.tls)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"pbx.tls: {pbx.tls} cannot be used as a CA file: {error}") from error


def _sending(settings: Settings) -> Sending:
    told = settings.webhooks
    return Sending(destinations(told), told.at_once, told.keep_days)


def _measure_recordings(metrics: Metrics, service: "RecordingService") -> None:
    uploader, sweeper, runner = service.uploader, service.sweeper, service.runner
    readings: dict[families.Pulled, Callable[[], float | dict[str, int]]] = {
        families.RECORDINGS_STORED: lambda: uploader.stored,
        families.RECORDINGS_STORED_BYTES: lambda: uploader.stored_bytes,
        families.RECORDINGS_REFUSED: lambda: uploader.refused_names + sweeper.refused_names,
        families.RECORDINGS_WAITING: lambda: sweeper.waiting,
        families.RECORDINGS_OLDEST: lambda: sweeper.oldest_s,
        families.RECORDINGS_FOUND: lambda: sweeper.linked,
        families.RECORDING_JOBS: lambda: runner.done,
        families.OBJECT_STORE_UP: lambda: 0 if uploader.breaker.fault is not None else 1,
        families.SPOOL_FREE: lambda: sweeper.free_bytes if sweeper.free_bytes >= 0 else math.nan,
        families.SPOOL_FILES: lambda: sweeper.files,
        families.SPOOL_UNREAD: lambda: sweeper.unread,
    }
    for family, read in readings.items():
        metrics.pull(family, "", read)


def _measure_webhooks(metrics: Metrics, service: WebhookService) -> None:
    readings: dict[families.Pulled, Callable[[], float | dict[str, int]]] = {
        families.WEBHOOK_DELIVERIES: lambda: service.deliverer.outcomes,
        families.WEBHOOKS_WAITING: lambda: service.waiting.deliveries,
        families.WEBHOOKS_OLDEST: lambda: service.waiting.oldest_s,
        families.WEBHOOKS_OPEN: lambda: service.waiting.open,
    }
    for family, read in readings.items():
        metrics.pull(family, "", read)


def _measure_ari(metrics: Metrics, ari: AriLink) -> None:
    readings: dict[families.Pulled, Callable[[], float | dict[str, int]]] = {
        families.ARI_UP: lambda: ari.up,
        families.ARI_CONNECTS: lambda: ari.connects,
        families.ARI_RECONNECTS: lambda: ari.reconnects,
        families.ARI_CONNECTS_FAILED: lambda: ari.connect_failures,
        families.ARI_RECORDINGS: lambda: ari.recordings,
        families.ARI_BAD: lambda: ari.bad,
    }
    for family, read in readings.items():
        metrics.pull(family, ari.name, read)


def _measure_control(metrics: Metrics, control: Control) -> None:
    readings: dict[families.Pulled, Callable[[], float | dict[str, int]]] = {
        families.CONTROL_UP: lambda: control.up,
        families.CONTROL_ACTIONS: lambda: control.sent,
        families.CONTROL_UNANSWERED: lambda: control.unanswered,
    }
    for family, read in readings.items():
        metrics.pull(family, control.name, read)


def _measure_pbx(metrics: Metrics, following: Following, link: Link) -> None:
    readings: dict[families.Pulled, Callable[[], float | dict[str, int]]] = {
        families.EVENTS_READ: lambda: link.events_read,
        families.EVENTS_SKIPPED: lambda: link.skipped,
        families.EVENTS_REFUSED: lambda: link.refused,
        families.FRAMES_BAD: lambda: link.bad,
        families.EVENT_LAG: lambda: link.lag_s,
        families.LINK_UP: lambda: link.up,
        families.CONNECTS: lambda: link.connects,
        families.RECONNECTS: lambda: link.reconnects,
        families.RESYNCS: lambda: link.resyncs,
        families.RESYNC_TIME: lambda: link.resync_s,
        families.RESYNCS_ASKED: lambda: link.resync_requests,
        families.RESYNCS_FAILED: lambda: link.resyncs_failed,
        families.CONNECTS_FAILED: lambda: link.connect_failures,
        families.EVENTS_MENDED: lambda: link.mended,
        families.EVENTS_MISNAMED: lambda: following.misnamed,
        families.TRACKER_FAULTS: lambda: following.faults,
        families.CHANNELS_ACTIVE: lambda: following.channels,
        families.CALLS_ACTIVE: lambda: following.calls_by_status,
    }
    for family, read in readings.items():
        metrics.pull(family, following.name, read)
