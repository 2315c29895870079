"""Media files: from a stream of bytes into the storage, and out of it again.

Of an upload at most LEAST_PART bytes are held, whatever its length. An object counts once it was read back and is what
came in; until its media file is written it stands in the list of those to be removed (store/media.py), so that one
whose client, daemon or database went away in between is removed.
"""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from typing import Final, NamedTuple
from uuid import UUID, uuid4

import structlog

from trunkline.inbox.sniff import HEAD, sniff
from trunkline.objects.faults import StoreFault
from trunkline.objects.s3 import LEAST_PART, ObjectStore
from trunkline.store.faults import of_the_server, summary
from trunkline.store.media import Received, foresee_removal, forget_removal, give_up, still_used, take_due
from trunkline.store.pool import Pool, raise_if_cancelled
from trunkline.threads import in_thread

SWEEP_S: Final = 5.0
_AT_ONCE: Final = 50

log = structlog.get_logger(__name__)


class UploadLimits(NamedTuple):
    """What may be uploaded, in bytes, and where it is put."""

    file: int = 25_000_000
    request: int = 100_000_000
    at_once: int = 4  # each holds up to LEAST_PART bytes, and twice that while it sends them on
    prefix: str = ""  # of every key


SHORT_FILES: Final = UploadLimits()


class TooLarge(Exception):
    """A file is longer than it may be."""


class Uploads:
    """Takes files in."""

    def __init__(self, pool: Pool, store: ObjectStore, limits: UploadLimits) -> None:
        self._pool = pool
        self.store = store
        self.limits = limits
        self.room = asyncio.Semaphore(limits.at_once)

    async def receive(self, account_id: UUID, name: str, chunks: AsyncIterator[bytes]) -> Received:
        """Put a file into the storage; `store.media.insert_media_files` makes it one.

        Raises TooLarge, StoreFault, as asyncpg does, and as `chunks` does; then what was put is removed.
        """
        file_id = uuid4()
        key = f"{self.limits.prefix}media/{account_id}/{file_id}"
        removal_id = await foresee_removal(self._pool, account_id, self.store.bucket, key)
        try:
            mime_type, size, digest = await self._put(key, chunks)
        except BaseException:
            await self.abandon(account_id, [removal_id])
            raise
        return Received(file_id, removal_id, name, self.store.bucket, key, mime_type, size, digest)

    async def abandon(self, account_id: UUID, removal_ids: list[UUID]) -> None:
        """What was put for these is removed soon; where the database is away, later."""
        if not removal_ids:
            return
        try:
            await give_up(self._pool, account_id, removal_ids)
        except Exception as error:
            raise_if_cancelled()
            log.warning("media.removal_not_hastened", error=summary(error), meanwhile="it comes within the hour")

    async def _put(self, key: str, chunks: AsyncIterator[bytes]) -> tuple[str, int, str]:
        """Send all of it; its MIME type, size and SHA-256."""
        digest, size, held = sha256(), 0, bytearray()
        mime_type, upload_id = "", ""
        etags: list[str] = []
        async for chunk in chunks:
            size += len(chunk)
            if size > self.limits.file:
                raise TooLarge
            digest.update(chunk)
            held += chunk
            if len(held) > LEAST_PART:  # not the last one, whatever comes
                if not upload_id:
                    mime_type = sniff(bytes(held[:HEAD]))
                    upload_id = await in_thread(self._begin, key, mime_type)
                part = bytes(held[:LEAST_PART])
                del held[:LEAST_PART]
                etags.append(await in_thread(self.store.add, key, upload_id, len(etags) + 1, part))
        if upload_id:
            etags.append(await in_thread(self.store.add, key, upload_id, len(etags) + 1, bytes(held)))
            await in_thread(self.store.complete, key, upload_id, etags)
        else:
            mime_type = sniff(bytes(held[:HEAD]))
            await in_thread(self._put_whole, key, bytes(held), mime_type)
        found = await in_thread(self.store.read_back, key)
        if (found.size, found.sha256) != (size, digest.hexdigest()):
            raise StoreFault(f"what it holds is not what it was given: {found.size} of {size} bytes")
        return mime_type, size, digest.hexdigest()

    def _begin(self, key: str, mime_type: str) -> str:
        return self.store.begin(key, mime_type=mime_type)

    def _put_whole(self, key: str, data: bytes, mime_type: str) -> None:
        self.store.put(key, BytesIO(data), len(data), mime_type=mime_type, metadata={})


class Remover:
    """Removes the objects whose time has come, of all accounts; several daemons may do it at once."""

    def __init__(self, pool: Pool, store: ObjectStore) -> None:
        self._pool = pool
        self._store = store
        self.removed = 0
        self._fault = ""  # as it was last said

    async def run(self) -> None:
        """Never returns; whatever is away is waited for."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                raise_if_cancelled()
                if of_the_server(error):
                    log.warning("media.sweep_failed", error=summary(error))
                else:
                    log.exception("media.sweep_failed")
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> int:
        """Remove what is due; how many. Raises as asyncpg does."""
        count = 0
        for doomed in await take_due(self._pool, _AT_ONCE):
            if doomed.bucket not in ("", self._store.bucket):
                log.error("media.of_another_bucket", bucket=doomed.bucket, todo="remove it there by hand")
            elif not await still_used(self._pool, doomed.key):
                try:
                    await in_thread(self._store.remove, doomed.key)
                except StoreFault as fault:
                    self._say(fault)
                    continue
                count += 1
            await forget_removal(self._pool, doomed.id)
            self._fault = ""
        self.removed += count
        return count

    def _say(self, fault: StoreFault) -> None:
        if fault.reason != self._fault:
            self._fault = fault.reason
            log.warning("media.not_removed", reason=fault.reason, todo=fault.todo or "nothing: it is tried again")
