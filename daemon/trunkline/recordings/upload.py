"""One recording on its way from the spool into object storage.

    open -> complete? -> examine (-> Opus) -> put -> read back -> row, media file and event in one transaction
        -> remove the file

Each step may be the last before a kill: the key is the recording's own, so what was put is put again over itself; the
row says `stored` only after the object was read back; and the file goes last, if it still is what was hashed.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final, NamedTuple, cast
from urllib.parse import quote
from uuid import UUID

import msgspec
import structlog

from trunkline.objects.faults import NoObject, StoreFault
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.audio import Audio, NotAudio, examine, mended_header
from trunkline.recordings.breaker import Breaker
from trunkline.recordings.jobs import Later
from trunkline.recordings.opus import ENDING, MIME_TYPE, NoEncoder, NotEncoded, OpusEncoder
from trunkline.recordings.peaks import NoPeaks, peaks
from trunkline.recordings.spool import SETTINGS, Look, Missing, RecordingSpool, Refused, is_written
from trunkline.recordings.together import Together
from trunkline.store.pool import Pool
from trunkline.store.recordings import (
    Original,
    Stored,
    claim_keys,
    is_taken_over,
    select_jobs,
    set_erased,
    set_state,
    set_stored,
)
from trunkline.threads import in_thread

# Asterisk closes the file within a moment of the channel's end. Where the kernel does not say so (spool.is_written), a
# file counts as complete that was the same for this long; the longer time where its header says otherwise.
SETTLED_S: Final = 2.0
SETTLED_ODD_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.25
_STUCK_S: Final = 3600.0  # until a file is held against its object again that could not be removed
MISSING_FOR_S: Final = 600.0  # after which a file that is not there is given up
_OTHERS_S: Final = 5.0  # until a job is looked at again that somebody else is to do

log = structlog.get_logger(__name__)


class _Taken(NamedTuple):
    """A file that is complete, and open."""

    file: BinaryIO
    look: Look
    audio: Audio
    header: bytes  # what goes up before the audio

    def close(self) -> None:
        self.file.close()


class _NotYet(Exception):
    """The file is being written, or may be."""


class Uploader:
    """Takes recordings to the store.

    spool_of: where the PBX of that name keeps files of that kind of recording; None where we cannot see it.
    account: whose, None for anybody's. prefix: of every key. keep: leave the files in the spool (those of mailboxes
    always stay). at_once: transfers to and from the storage; of jobs there may be more, so that what they ask of the
    database is asked together. opus: makes Ogg/Opus of them; None: they are stored as they are. step: is told each
    step's name before it is taken (for tests that kill).
    """

    def __init__(
        self,
        pool: Pool,
        store: ObjectStore,
        spool_of: Callable[[str, str], RecordingSpool | None],
        *,
        account: str | None = None,
        prefix: str = "",
        keep: bool = False,
        at_once: int = 4,
        opus: OpusEncoder | None = None,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._pool = pool
        self._store = store
        self._spool_of = spool_of
        self._account = account
        self._prefix = prefix
        self._keep = keep
        self.opus = opus
        self._step = step
        self.breaker = Breaker(store)
        self._room = asyncio.Semaphore(at_once)
        self._encoding = asyncio.Semaphore(2)
        self._looks = asyncio.Semaphore(2)  # threads take the interpreter from the event loop, 5 ms each at a time
        self._select_job = Together(partial(select_jobs, pool))
        self._claim_key = Together(partial(claim_keys, pool))
        self._set_stored = Together(partial(set_stored, pool))
        self._stuck: dict[UUID, float] = {}  # since when a file cannot be removed
        self.stored = 0
        self.stored_bytes = 0
        self.refused_names = 0

    async def take(self, recording_id: UUID) -> None:
        """Bring one recording as far as it goes. Raises Later where that is not to the end."""
        row = await self._select_job(recording_id)
        if row is None or not (row["path"] or row["erased_at"]) or row["reason"] == "erased":
            return
        if self._account is not None and row["account"] != self._account:
            raise Later("another account's, for its own daemon", _OTHERS_S)
        spool = self._spool_of(row["kind"], row["pbx"] or "")
        if row["erased_at"] is not None:
            if row["call_id"] is not None and row["call_ended_at"] is None:  # its tracker would write the path again
                raise Later("the call goes on", _OTHERS_S)
            await self._erase(row, spool)
            return
        if spool is None:
            key = SETTINGS[row["kind"]]
            reason = f"the {key} of PBX {row['pbx']} cannot be reached from here: set pbx.{key}"
            await self._say(row, "pending", reason)
            raise Later(reason, _OTHERS_S)
        try:
            name = spool.name_of(row["path"])
            if row["state"] in ("stored", "empty"):
                await self._clean(row, spool, name)
            else:
                await self._store_one(row, spool, name)
        except Refused as refused:
            self.refused_names += 1
            await self._say(row, "failed", str(refused))
        except Missing:
            await self._missing(row)
        except _NotYet as not_yet:
            raise Later(str(not_yet), LOOK_AGAIN_S) from not_yet
        except OSError as error:
            reason = f"the file cannot be read: {error.strerror or error}"
            await self._say(row, "pending", reason)
            raise Later(reason) from error
        row = await self._select_job(recording_id)
        if row is not None and row["erased_at"] is not None and row["path"]:  # ordered while we were at it: no job made
            raise Later("its erasure was ordered meanwhile", 0.0)

    async def _store_one(self, row: Any, spool: RecordingSpool, name: str) -> None:
        if row["ended_at"] is None and row["call_id"] is not None and row["call_ended_at"] is None:
            raise Later("the call goes on", _OTHERS_S)  # its end makes a job anew
        if row["kind"] == "ari" and await is_taken_over(self._pool, row):
            await self._say(row, "failed", "a later recording took its file's name: give each a name of its own")
            return
        try:
            async with self._looks:
                taken = await in_thread(_take_complete, spool, name)
        except NotAudio as error:
            await self._say(row, "failed", f"it is no recording: {error}")
            return
        with closing(taken):
            if taken.audio.empty:
                await self._say(row, "empty", taken.audio.header_fault or "there is no audio in it")
                await self._remove(row, spool, name, taken.look)
                return
            key = row["object_key"]
            if key is None and self.opus is None:  # many at once, before they wait for room
                key = await self._claim_key((row["id"], key_of(row, name, self._prefix)))
                if key is None:
                    return  # its row went with a folded call, whose other recording is the same file
            async with self._room, self.breaker:
                with closing(await self._load(row, name, taken)) as load:
                    key = key or await self._claim_key((row["id"], key_of(row, load.name, self._prefix)))
                    if key is None:
                        return
                    try:
                        stored = await in_thread(self._send, row, key, load)
                    except StoreFault as fault:
                        await self._say(row, "pending", f"object storage: {fault.reason}")
                        if fault.of_the_store:
                            self.breaker.trip(fault)
                            raise Later(fault.reason, 0.0) from fault
                        raise Later(fault.reason) from fault
            self._step("commit")
            if await self._set_stored((row["id"], stored)):
                self.stored += 1
                self.stored_bytes += stored.size
                log.info("recording.stored", recording=str(row["id"]), bytes=stored.size, seconds=stored.seconds)
                self._step("remove")
                await self._remove(row, spool, name, taken.look)
            else:  # erased meanwhile, or gone with a folded call
                await in_thread(self._store.remove, stored.key)

    async def _load(self, row: Any, name: str, taken: _Taken) -> "_Load":
        """What is to go up of a file: itself, or Opus made of it. Raises OSError, _NotYet."""
        if self.opus is None or taken.audio.container == "ogg":
            return _Load(taken, name)
        self._step("encode")
        try:
            async with self._encoding:
                return await in_thread(_encoded, self.opus, taken, name)
        except (NotEncoded, NoEncoder) as error:
            log.warning(
                "recording.not_encoded", recording=str(row["id"]), error=str(error), meanwhile="stored as it is"
            )
            return _Load(taken, name)

    def _send(self, row: Any, key: str, load: "_Load") -> Stored:
        """Put a file and read it back; in a thread. Raises StoreFault, OSError, _NotYet."""
        taken = load.taken
        if _look(taken.file) != taken.look:  # the storage may have let it wait
            raise _NotYet("the PBX is writing it again")
        digest = _digest(load.source())
        self._step("put")
        source = load.source()
        metadata = {"Call-Id": str(row["call_id"] or ""), "Recording-Id": str(row["id"]), "Sha256": digest}
        if load.original is not None:
            metadata["Source-Sha256"] = load.original.sha256
        if row["channel_id"]:
            metadata["Channel-Id"] = quote(row["channel_id"][:255])
        self._store.put(key, cast("BinaryIO", source), source.size, mime_type=load.mime_type, metadata=metadata)
        self._step("read back")
        found = self._store.read_back(key)
        if (found.size, found.sha256) != (source.size, digest):
            raise StoreFault(
                f"what was read back is not what was put ({found.size} bytes, {source.size} put)", of_the_store=False
            )
        return Stored(
            name=load.name,
            bucket=self._store.bucket,
            key=key,
            mime_type=load.mime_type,
            size=source.size,
            sha256=digest,
            seconds=taken.audio.seconds,
            mended=taken.audio.header_fault,
            codec=load.codec,
            original=load.original,
            waveform=load.waveform,
        )

    async def _clean(self, row: Any, spool: RecordingSpool, name: str) -> None:
        """Remove a file whose recording is stored: its daemon was killed between the commit and the removal."""
        if time.monotonic() - self._stuck.get(row["id"], -_STUCK_S) < _STUCK_S:
            return
        try:
            taken = await in_thread(_take_complete, spool, name)
        except NotAudio:
            self._name_reused(row)
            return
        with closing(taken):
            if not await self._is_same(row, taken):
                self._name_reused(row)
                return
            if row["state"] == "stored":
                async with self._room, self.breaker:
                    try:
                        found = await in_thread(self._store.read_back, row["key"])
                    except NoObject:
                        log.error("recording.object_gone", recording=str(row["id"]), todo="the file stays in the spool")
                        return
                    except StoreFault as fault:
                        if fault.of_the_store:
                            self.breaker.trip(fault)
                        raise Later(fault.reason) from fault
                if found.sha256 != row["sha256"]:
                    log.error("recording.object_differs", recording=str(row["id"]), todo="the file stays in the spool")
                    return
            await self._remove(row, spool, name, taken.look)

    def _name_reused(self, row: Any) -> None:
        reason = "another file of the same name is in the spool; what is stored stays: rename the new one"
        log.warning("recording.name_reused", recording=str(row["id"]), todo=reason)

    async def _is_same(self, row: Any, taken: _Taken) -> bool:
        if row["state"] == "empty":
            return taken.audio.empty
        return bool(await in_thread(lambda: _digest(_Source(taken))) == row["source_sha256"])

    async def _erase(self, row: Any, spool: RecordingSpool | None) -> None:
        """Make a recording gone: the object, the file, what the rows say of them; and write down how that was seen."""
        if row["bucket"] not in (None, self._store.bucket):
            raise self._not_erased(row, f"its object is in the bucket {row['bucket']}", "set recordings.bucket to it")
        key = row["key"] or row["object_key"]  # the latter of a put that was killed before its commit
        async with self._room, self.breaker:
            try:
                gone = key is None or await in_thread(_gone, self._store, key)
            except StoreFault as fault:
                if fault.of_the_store:
                    self.breaker.trip(fault)
                raise Later(fault.reason) from fault
        if not gone:
            raise self._not_erased(row, "the object is still there after its removal", "the key's rights")
        proof = f"the object with sha256 {row['sha256']} is gone" if row["key"] else "there is no object"
        if row["kind"] != "voicemail" and row["path"]:
            if spool is None:
                todo = f"set pbx.{SETTINGS[row['kind']]}"
                raise self._not_erased(row, f"the files of PBX {row['pbx']} cannot be reached", todo)
            try:
                proof += f", {await in_thread(_remove_file, spool, row['path'])}"
            except (OSError, _NotYet) as error:
                raise self._not_erased(row, f"its file stays: {error}", "let the daemon write to the spool") from error
        await set_erased(self._pool, row, proof)
        log.info("recording.erased", recording=str(row["id"]), proof=proof)

    def _not_erased(self, row: Any, reason: str, todo: str) -> Later:
        log.error("recording.not_erased", recording=str(row["id"]), reason=reason, todo=todo)
        return Later(reason)

    async def _remove(self, row: Any, spool: RecordingSpool, name: str, look: Look) -> None:
        if self._keep or row["kind"] == "voicemail":
            return
        try:
            if not await in_thread(spool.remove, name, look):
                log.warning("recording.changed", todo="it was written to after it was stored; the file stays")
        except OSError as error:
            self._stuck[row["id"]] = time.monotonic()
            todo = "let the daemon write to the spool"
            log.warning("recording.not_removed", recording=str(row["id"]), error=error.strerror, todo=todo)

    async def _missing(self, row: Any) -> None:
        if row["state"] in ("stored", "empty"):
            return
        ended_at = row["ended_at"] or row["call_ended_at"]
        gone_for_s = MISSING_FOR_S if ended_at is None else (datetime.now(UTC) - ended_at).total_seconds()
        if gone_for_s < MISSING_FOR_S:
            await self._say(row, "pending", "the file is not there yet")
            raise Later("the file is not there yet")
        await self._say(row, "failed", "the file is not there: the PBX never wrote it, or somebody removed it")

    async def _say(self, row: Any, state: str, reason: str) -> None:
        """Put a state and its reason into the row, and into the log if that is news."""
        if await set_state(self._pool, row["id"], state, reason):
            level = log.warning if state in ("failed", "pending") else log.info
            level(f"recording.{state}", recording=str(row["id"]), reason=reason)


class _Source:
    """What goes up: the mended header and the audio behind it."""

    def __init__(self, taken: _Taken) -> None:
        self._file = taken.file
        self._header = taken.header
        self._left = taken.look.size - taken.audio.data_offset
        self.size = len(taken.header) + self._left
        taken.file.seek(taken.audio.data_offset)

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises _NotYet where the file has become shorter."""
        if self._header:
            data, self._header = self._header, b""
            return data
        wanted = self._left if size < 0 else min(size, self._left)
        if not wanted:
            return b""
        data = self._file.read(wanted)
        if not data:
            raise _NotYet("the file became shorter while it was read")
        self._left -= len(data)
        return data


class _Opus:
    """What goes up of a recording that was made into Opus."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        return self._file.read(size)


class _Load:
    """What is to go up of a file that was taken: itself, or the Opus that was made of it."""

    def __init__(
        self,
        taken: _Taken,
        name: str,
        opus: BinaryIO | None = None,
        original: Original | None = None,
        waveform: bytes | None = None,
    ) -> None:
        self.taken = taken
        self.original = original  # None: it is the file itself
        self.waveform = waveform  # None: it is made of the object when it is asked for
        self.name = PurePosixPath(name).name
        self.mime_type, self.codec = taken.audio.mime_type, taken.audio.codec
        self._opus = opus
        if opus is not None:
            self.name = f"{PurePosixPath(self.name).stem}{ENDING}"
            self.mime_type, self.codec = MIME_TYPE, "opus"

    def source(self) -> "_Source | _Opus":
        return _Source(self.taken) if self._opus is None else _Opus(self._opus)

    def close(self) -> None:
        if self._opus is not None:
            self._opus.close()


def _encoded(encoder: OpusEncoder, taken: _Taken, name: str) -> _Load:
    """A file as Opus, with what only the file itself can tell; in a thread. Raises NotEncoded, OSError, _NotYet."""
    original = Original(sha256=_digest(_Source(taken)), size=_Source(taken).size, codec=taken.audio.codec)
    waveform = None
    with suppress(NoPeaks):
        waveform = msgspec.json.encode(peaks(taken.file, taken.audio))
    return _Load(taken, name, encoder.encode(_Source(taken), taken.audio), original, waveform)


def key_of(row: Any, name: str, prefix: str = "") -> str:
    """The key of a recording's object: ACCOUNT/YYYY/MM/DD/CALL/RECORDING.ending, the day that of its beginning."""
    day = (row["started_at"] or row["created_at"]).astimezone(UTC)
    call = row["call_id"] or "unmatched"
    ending = "".join(c for c in PurePosixPath(name).suffix.lower() if c.isascii() and (c.isalnum() or c in ".-"))
    return f"{prefix}{row['account_id']}/{day:%Y/%m/%d}/{call}/{row['id']}{ending[:16]}"


def _take_complete(spool: RecordingSpool, name: str) -> _Taken:
    """Open a file and look at it; in a thread.

    Raises _NotYet while it is written, NotAudio, Refused, Missing, OSError.
    """
    file = spool.open(name)
    try:
        return _examined(file, name)
    except BaseException:
        file.close()
        raise


def _examined(file: BinaryIO, name: str) -> _Taken:
    written = is_written(file)
    if written:
        raise _NotYet("the PBX is writing it")
    look = _look(file)
    audio = examine(file, name, look.size)
    if written is None:
        still_s = SETTLED_ODD_S if audio.header_fault else SETTLED_S
        if time.time() - look.modified_ns / 1e9 < still_s:
            raise _NotYet("the PBX may be writing it")
    header = mended_header(file, audio)
    if _look(file) != look:
        raise _NotYet("the PBX is writing it")
    return _Taken(file, look, audio, header)


def _gone(store: ObjectStore, key: str) -> bool:
    store.remove(key)
    return not store.exists(key)


def _remove_file(spool: RecordingSpool, path: str) -> str:
    """Remove a file whatever it holds, and say that. Raises _NotYet, OSError."""
    try:
        name = spool.name_of(path)
        with closing(spool.open(name)) as file:
            if not spool.remove(name, _look(file)):
                raise _NotYet("it is being written")
    except Missing:
        return "nor a file"
    except Refused as refused:
        return f"its file is not followed: {refused}"
    return "the file too"


def _look(file: BinaryIO) -> Look:
    return Look.at(os.fstat(file.fileno()))


def _digest(source: "_Source | _Opus") -> str:
    """The SHA-256 of what goes up. Raises OSError, _NotYet."""
    digest = sha256()
    while data := source.read(1 << 20):
        digest.update(data)
    return digest.hexdigest()
