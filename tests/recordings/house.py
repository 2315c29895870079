"""What the tests of recordings stand in: calls with files in a spool, and what became of them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from patience import until
from sounds import tone, wav

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Leg, RecordingKind, RecordingRef, Role, Status
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.jobs import JobRunner, enqueue_recordings
from trunkline.recordings.spool import Directories, RecordingSpool
from trunkline.recordings.sweep import Sweeper
from trunkline.recordings.upload import Uploader
from trunkline.store.pool import Pool
from trunkline.store.writer import CallWriter

PBX = "pbx1"
ACCOUNT = "main"
DEADLINE_S = 20.0


class House:
    """One PBX's spool, the bucket, and the room that lies between."""

    def __init__(
        self, pool: Pool, endpoint: str, key: str, secret: str, bucket: str, spool: Path, account: str = ACCOUNT
    ) -> None:
        self.pool = pool
        self.account = account
        self.spool = spool
        self.prefix = f"t{uuid4().hex}/"  # what this test puts into the bucket that all share
        self.store = ObjectStore(endpoint, bucket, key, secret, silent_s=5)
        self.writer = CallWriter(pool, account, recordings=enqueue_recordings)
        self.steps: list[str] = []
        self.uploader = Uploader(pool, self.store, self.spool_of, prefix=self.prefix, step=self.steps.append)
        self.runner = JobRunner(pool, self.uploader.take, at_once=4)
        self.sweeper = Sweeper(pool, account, Directories(lambda: {PBX: RecordingSpool(spool)}), grace_s=0)
        self._calls = 0

    def spool_of(self, kind: str, pbx: str) -> RecordingSpool | None:
        return RecordingSpool(self.spool) if pbx == PBX else None

    async def close(self) -> None:
        await self.uploader.breaker.close()
        self.store.close()

    def write(self, name: str, data: bytes | None = None, *, seconds: float = 1.0, age_s: float = 60.0) -> Path:
        """A file in the spool, by default a tone of 440 Hz, last written so long ago."""
        path = self.spool / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav(tone(440, seconds)) if data is None else data)
        at = time.time() - age_s
        os.utime(path, (at, at))
        return path

    async def call(
        self,
        *paths: str,
        ended: bool = True,
        queue: str | None = None,
        days_ago: float = 0.01,
        pbx: str = PBX,
        unique: str | None = None,
        kind: RecordingKind = RecordingKind.CALL,
    ) -> UUID:
        """A call with these recordings, written as the tracker would have it; its id. unique: its channel's number."""
        self._calls += 1
        start = datetime.now(UTC) - timedelta(days=days_ago)
        channel = f"{pbx}-{unique or f'{int(start.timestamp())}.{self._calls}'}"
        end = start + timedelta(seconds=30) if ended else None
        leg = Leg(
            channel_id=channel, endpoint="PJSIP/trunk", party="15551234567", role=Role.CALLER, started_at=start,
            ended_at=end,
        )  # fmt: skip
        record = CallRecord(
            pbx=pbx, external_id=channel, channel_id=channel, direction=Direction.INBOUND,
            status=Status.COMPLETED if ended else Status.IN_PROGRESS, from_="15551234567", to="442070001001",
            phone_number="15551234567", started_at=start, ended_at=end, legs=[leg], queue=queue,
            recordings=[
                RecordingRef(path=path, channel_id=channel, started_at=start, ended_at=end, kind=kind) for path in paths
            ],
        )  # fmt: skip
        result = await self.writer.write([CallUpdate(record, ("call.ringing",) + ("call.ended",) * ended)])
        assert result.written == 1, result
        return await self.pool.fetchval(
            "SELECT call.id FROM call JOIN account ON account.id = account_id WHERE external_id = $1 AND name = $2",
            channel,
            self.account,
        )

    async def stored(self, name: str = "one.wav", data: bytes | None = None, *, seconds: float = 1.0) -> dict[str, Any]:
        """A recording that is stored, as the uploader does it: its row, as in `rows`; no job is left."""
        call_id = await self.call(str(self.write(name, data, seconds=seconds)))
        recording_id = await self.pool.fetchval("SELECT id FROM call_recording WHERE call_id = $1", call_id)
        await self.uploader.take(recording_id)
        await self.pool.execute("DELETE FROM jobs.pgqueuer")
        return next(row for row in await self.rows() if row["id"] == recording_id)

    async def channel(self, call_id: UUID) -> str:
        return await self.pool.fetchval("SELECT channel_id FROM call WHERE id = $1", call_id)

    async def rows(self) -> list[dict[str, Any]]:
        """All recordings, with their objects."""
        rows = await self.pool.fetch(
            """SELECT recording.*, file.key, file.size, file.mime_type, file.name, file.metadata AS file_metadata
               FROM call_recording AS recording LEFT JOIN media_file AS file ON file.id = recording.media_file_id
               ORDER BY recording.path, recording.created_at"""
        )
        return [dict(row) for row in rows]

    def objects(self) -> dict[str, int]:
        """Keys and sizes of what this test has in the bucket."""
        found = self.store._client.list_objects(bucket_name=self.store.bucket, prefix=self.prefix, recursive=True)
        return {one.object_name: one.size for one in found}

    def content(self, key: str) -> bytes:
        return b"".join(self.store.read(key))

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.spool)) for path in self.spool.rglob("*") if not path.is_dir())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The jobs run."""
        task = asyncio.create_task(self.runner.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def until(self, what: str, happens: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        """Poll until `happens` (which may be a coroutine function) gives something true."""
        return await until(what, happens, self.rows, deadline_s)

    async def settled(self, deadline_s: float = DEADLINE_S) -> list[dict[str, Any]]:
        """The rows once no job is left."""

        async def idle() -> bool:
            return await self.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 0

        async with self.running():
            await self.until("no job is left", idle, deadline_s)
        return await self.rows()

    async def states(self) -> list[str]:
        return [row["state"] for row in await self.rows()]
