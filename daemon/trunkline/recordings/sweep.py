"""The sweeper: what is in the spool and nobody told of, and what was told of and nobody did.

It lists the directory every so often and holds it against the rows. A file whose name holds the id of a channel that a
call had becomes that call's recording; any other is `unmatched` with a reason, looked at again at each sweep. A row
whose job was lost gets a new one, a file that was stored and is still there too.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from trunkline.objects.faults import StoreFault
from trunkline.recordings.jobs import enqueue_recordings
from trunkline.recordings.spool import SETTINGS, Directories, Found, RecordingSpool
from trunkline.recordings.voicemail import messages
from trunkline.store.faults import of_the_server, summary
from trunkline.store.pool import Pool, raise_if_cancelled
from trunkline.store.recordings import chunked
from trunkline.store.sweeping import (
    delete_gone,
    insert_linked,
    insert_messages,
    revive_missing,
    say_waiting,
    select_channels,
    select_integration,
    select_known,
    select_lost_jobs,
    select_waiting,
    upsert_unmatched,
)
from trunkline.threads import in_thread

BATCH: Final = 1000
GRACE_S: Final = 10.0  # the tracker tells of a file long before; until then it is its
EARLY_S: Final = 60.0  # by which clocks and file systems may differ
LOW_ROOM: Final = 1 << 30  # bytes
_SAID_EACH: Final = 20  # of the files of a batch that no call is known for; of more only the number
# [systemname-]epoch.counter; a dialplan may have put other words before it.
_UNIQUEID: Final = re.compile(r"(?<![\d.])\d{9,11}\.\d{1,9}(?![\d])")

_UNTOLD: Final = {"call": "", "ari": "ARI did not tell of it while it was listened to (pbx.ari_url), and "}

log = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps the spools of an account's PBXs."""

    def __init__(
        self,
        pool: Pool,
        account: str,
        directories: Directories,
        *,
        every_s: float = 60.0,
        grace_s: float = GRACE_S,
        keep: bool = False,
        away: Callable[[], StoreFault | None] = lambda: None,
    ) -> None:
        """away: what the storage does not work for; those that wait and have not been tried say so too."""
        self._pool = pool
        self._account = account
        self._directories = directories
        self._every_s = every_s
        self._grace_s = grace_s
        self._away = away
        self._keep = keep  # stored files stay, so that they are there is nothing to act on
        self._low = False
        self._unread: frozenset[tuple[str, str]] = frozenset()  # PBX and name of folders of which it was said
        self.unread = 0  # folders
        self._refused: set[str] = set()  # paths of which it was counted
        self.refused_names = 0  # files that no event told of and whose names are not followed
        self.files = 0  # in the spools, when last looked
        self.waiting: dict[str, int] = {}  # recordings that are not stored, by state
        self.oldest_s = 0.0  # since the oldest pending one ended
        self.linked = 0  # files that the stream had missed
        self.free_bytes = -1  # -1: not known

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                raise_if_cancelled()
                if not of_the_server(error) and not isinstance(error, OSError):
                    log.exception("recordings.sweep_failed")
                else:
                    log.warning("recordings.sweep_failed", error=summary(error))
            await asyncio.sleep(self._every_s)

    async def sweep(self) -> None:
        """Look once. Raises as asyncpg does."""
        files, free = 0, []
        unread: list[tuple[str, Found]] = []
        counted, self._refused = self._refused, set()
        await self._enqueue(await select_lost_jobs(self._pool, self._account))
        directories = self._directories
        for kind, pbx, spool in [
            *(("call", *one) for one in directories.recordings().items()),
            *(("ari", *one) for one in directories.ari().items()),
        ]:
            integration = await select_integration(self._pool, self._account, pbx)
            try:
                free.append(await in_thread(spool.free_bytes))
                found, hidden = await in_thread(_listed, spool)
            except OSError as error:
                log.warning("recordings.sweep_failed", pbx=pbx, error=summary(error), todo=f"see pbx.{SETTINGS[kind]}")
                continue
            unread += [(pbx, folder) for folder in hidden]
            if integration is None:
                continue  # nothing is known of this PBX yet: no call to link to
            files += len(found)
            for some in chunked(found, BATCH):
                await self._settle(integration, spool, some, kind)
            if (fault := self._away()) is not None:
                await say_waiting(self._pool, integration["id"], f"object storage: {fault.reason}")
            if not hidden:
                await delete_gone(self._pool, integration["id"], kind, [spool.path_of(file.name) for file in found])
        for pbx, spool in directories.voicemail().items():
            integration = await select_integration(self._pool, self._account, pbx)
            try:
                found, hidden = await in_thread(_listed, spool)
                left = await in_thread(messages, spool, found)
            except OSError as error:
                log.warning("recordings.sweep_failed", pbx=pbx, error=summary(error), todo="see pbx.voicemail")
                continue
            unread += [(pbx, folder) for folder in hidden]
            if integration is not None:
                for some in chunked(left, BATCH):
                    await self._enqueue(await insert_messages(self._pool, integration, some))
        self.files = files
        self.refused_names += len(self._refused - counted)
        self._tell_unread(unread)
        self._watch_room(min(free, default=-1))
        waiting = await select_waiting(self._pool, self._account)
        self.waiting = {state.upper(): count for state, (count, _) in waiting.items()}
        self.oldest_s = waiting["pending"][1] if "pending" in waiting else 0.0

    async def _settle(self, integration: Any, spool: RecordingSpool, found: Sequence[Found], kind: str) -> None:
        """Hold some files against the rows."""
        paths = {spool.path_of(file.name): file for file in found}
        rows = await select_known(self._pool, integration["id"], list(paths))
        # of several of one name that which belongs to a call, and is not done with
        rows.sort(key=lambda row: (row["state"] != "unmatched", row["state"] == "pending"))
        known = {row["path"]: row for row in rows}
        now = time.time()
        again: list[UUID] = []
        strays: dict[str, Found] = {}
        for path, file in paths.items():
            row = known.get(path)
            if row is None or (row["state"] == "unmatched" and row["erased_at"] is None):
                if file.fault or abs(now - file.look.modified_ns / 1e9) > self._grace_s:  # clocks may be ahead
                    strays[path] = file
            elif self._is_owed(row):
                again.append(row["id"])
        if again:
            await revive_missing(self._pool, again)
            await self._enqueue(again)
        await self._link(integration, strays, kind)

    def _is_owed(self, row: Any) -> bool:
        """Has something to be done with a file that is known: it came late, or was not removed?"""
        if row["state"] == "failed":
            return bool(row["missing"])
        return row["state"] in ("stored", "empty") and not self._keep and row["erased_at"] is None

    async def _link(self, integration: Any, strays: Mapping[str, Found], kind: str) -> None:
        if not strays:
            return
        ids = {path: _ids(file) for path, file in strays.items()}
        wanted = sorted({one for some in ids.values() for one in some})
        channels = await select_channels(self._pool, integration["id"], integration["external_id"], wanted)
        linked, unmatched = [], []
        for path, file in strays.items():
            channel = next((channels[one] for one in reversed(ids[path]) if one in channels), None)
            at = datetime.fromtimestamp(min(file.look.modified_ns / 1e9, time.time()), UTC)
            if file.fault:
                unmatched.append((path, file.fault))
                self._refused.add(path)
            elif channel is None:
                named = "no call is known with the id in its name" if ids[path] else "its name holds no call's id"
                unmatched.append((path, f"{_UNTOLD[kind]}{named}: remove it, or rename it to …_UNIQUEID.wav"))
            elif at < channel["started_at"] - timedelta(seconds=EARLY_S):  # a caller's number may look like an id
                unmatched.append((path, "it was written before the call that its name says began"))
            elif channel["call_ended_at"] is not None:
                linked.append((path, channel, at))
        new = await upsert_unmatched(self._pool, integration, kind, unmatched)
        for recording_id in new[:_SAID_EACH]:  # not by name: it may hold numbers
            log.warning("recording.unmatched", recording=str(recording_id), pbx=integration["external_id"])
        if len(new) > _SAID_EACH:
            log.warning("recording.unmatched_more", count=len(new) - _SAID_EACH, pbx=integration["external_id"])
        for recording_id in await insert_linked(self._pool, integration, kind, linked):
            self.linked += 1
            log.info("recording.found", recording=str(recording_id))
            await self._enqueue([recording_id])

    async def _enqueue(self, recording_ids: Sequence[UUID]) -> None:
        for some in chunked(recording_ids, BATCH):
            async with self._pool.acquire() as connection, connection.transaction():
                await enqueue_recordings(connection, some)

    def _tell_unread(self, folders: Sequence[tuple[str, Found]]) -> None:
        """Say once of each folder that it cannot be read, for what is in it is not seen."""
        now = {(pbx, folder.name): folder.fault for pbx, folder in folders}
        for (pbx, name), fault in now.items():
            if (pbx, name) not in self._unread:
                todo = "let the daemon read it: nothing in it is found"
                log.warning("recordings.folder_unread", pbx=pbx, folder=name, error=fault, todo=todo)
        self._unread = frozenset(now)
        self.unread = len(now)

    def _watch_room(self, free: int) -> None:
        self.free_bytes = free
        if 0 <= free < LOW_ROOM and not self._low:
            log.error("recordings.spool_nearly_full", free_bytes=free, todo="make room: MixMonitor writes nothing else")
        self._low = 0 <= free < LOW_ROOM


def _listed(spool: RecordingSpool) -> tuple[list[Found], list[Found]]:
    """Files, and folders that cannot be read."""
    found = list(spool.walk())
    return [file for file in found if not file.unread], [folder for folder in found if folder.unread]


def _ids(file: Found) -> list[str]:
    """What in a file's name may be a Uniqueid, the likeliest last: dialplans put it at the end."""
    return _UNIQUEID.findall(file.name)
