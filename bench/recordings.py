"""Recordings on their way from the spool into object storage, beside minio-py and boto3: speed, memory, sweep, loop.

    .venv/bin/python bench/recordings.py [--rounds 5]

SeaweedFS and a PostgreSQL that flushes to disk are on this machine's cores too. Ours is the whole way: the call's row
and its job, the put, the read back, both SHA-256, rows and event, the file removed. The peers are minio-py's
`fput_object` and boto3's `upload_file` of the same files with as many threads, to the same server, in turns. What the
event loop keeps others waiting is measured meanwhile.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import boto3
import uvloop
from botocore.config import Config
from minio import Minio

from trunkline import logs
from trunkline.calls.record import CallRecord, CallUpdate, Direction, Leg, RecordingRef, Role, Status
from trunkline.embedded.postgres import Postgres
from trunkline.embedded.s3 import S3Server
from trunkline.garbage import settle
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.jobs import JobRunner, enqueue_recordings
from trunkline.recordings.spool import Directories, RecordingSpool
from trunkline.recordings.sweep import Sweeper
from trunkline.recordings.upload import Uploader
from trunkline.store.migrate import upgrade
from trunkline.store.pool import Pool, open_pool
from trunkline.store.writer import CallWriter
from verdict import Promises, headline

PBX, ACCOUNT, BUCKET = "pbx1", "main", "recordings"
AT_ONCE = 4
SIZES = ((40, 4_000_000), (400, 160_000))  # how many files of how many bytes
SPEED_PROMISED = 0.70  # of what verifies nothing
LARGE = (
    1_000_000  # bytes from which it is also of minio-py's; to read a small file back costs any client more than 30 %
)
LONG_S = 7200  # of a recording, 115 MB
MEMORY_LIMIT_MB = 30.0
SWEPT = 10_000  # files, half of them known
SWEEP_LIMIT_S = 5.0
TICK_S = 0.005
GAP_LIMIT_MS = 50.0
ONE_BY_ONE, A_SECOND = 200, 10
BATCH = 20  # calls that end within one of the daemon's writes
SECOND_BYTES = 16_000  # of 8 kHz, 16 bit
DEADLINE_S = 120.0


# --- what is stored -------------------------------------------------------------------------------------------------


def wav(size: int, number: int = 0) -> bytes:
    """A file of that many bytes: noise whose loudness changes as that of speech does, another for each number."""
    audio = bytearray(os.urandom(size - 44))
    for at in range(0, len(audio), SECOND_BYTES // 8):
        loud = 1 + (number + at // 997) % 40
        tops = bytes((code % (2 * loud + 1) - loud) % 256 for code in range(256))
        audio[at + 1 : at + SECOND_BYTES // 8 : 2] = audio[at + 1 : at + SECOND_BYTES // 8 : 2].translate(tops)
    head = b"RIFF" + (size - 8).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = bytes.fromhex("0100 0100 401f0000 803e0000 0200 1000")
    return head + form + b"data" + len(audio).to_bytes(4, "little") + audio


def make(folder: Path, count: int, size: int) -> list[Path]:
    """Files as a PBX would have closed them a minute ago."""
    folder.mkdir()
    files = [folder / f"{number}.wav" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(wav(size, number))
        os.utime(file, (time.time() - 60,) * 2)
    return files


def updates(paths: Sequence[Path]) -> list[CallUpdate]:
    """A call that has ended for each recording."""
    ended_at = datetime.now(UTC)
    started_at = ended_at - timedelta(seconds=30)
    first = time.time_ns()
    made = []
    for number, path in enumerate(paths):
        channel_id = f"{PBX}-{int(started_at.timestamp())}.{first + number}"
        leg = Leg(
            channel_id=channel_id, endpoint="PJSIP/trunk", party="15551234567", role=Role.CALLER,
            started_at=started_at, ended_at=ended_at,
        )  # fmt: skip
        record = CallRecord(
            pbx=PBX, external_id=channel_id, channel_id=channel_id, direction=Direction.INBOUND,
            status=Status.COMPLETED, from_="15551234567", to="442070001001", phone_number="15551234567",
            started_at=started_at, ended_at=ended_at, legs=[leg],
            recordings=[
                RecordingRef(path=str(path), channel_id=channel_id, started_at=started_at, ended_at=ended_at)
            ],
        )  # fmt: skip
        made.append(CallUpdate(record, ("call.ended",)))
    return made


# --- the two ways ---------------------------------------------------------------------------------------------------


class S3(NamedTuple):
    """Where object storage is, and its keys."""

    endpoint: str
    access_key: str
    secret_key: str


class Boto:
    """boto3 as its documentation has it."""

    def __init__(self, s3: S3) -> None:
        self._client = boto3.client(
            "s3", endpoint_url=s3.endpoint, aws_access_key_id=s3.access_key, aws_secret_access_key=s3.secret_key,
            region_name="us-east-1", config=Config(max_pool_connections=4 * AT_ONCE, s3={"addressing_style": "path"}),
        )  # fmt: skip
        self._puts = 0

    def put(self, file: Path) -> None:
        """Upload a file."""
        self._puts += 1
        key = f"boto/{time.time_ns()}-{self._puts}-{file.name}"
        self._client.upload_file(str(file), BUCKET, key, ExtraArgs={"ContentType": "audio/wav"})


class Peer:
    """minio-py as its documentation has it. The type is told, as the server treats a WAV otherwise than what it is not
    told of; both ask for the same."""

    def __init__(self, s3: S3) -> None:
        self._client = Minio(
            s3.endpoint.partition("//")[2], s3.access_key, s3.secret_key, secure=False, region="us-east-1"
        )
        self._puts = 0

    def put(self, file: Path) -> str:
        """Upload a file; its key."""
        self._puts += 1
        key = f"peer/{time.time_ns()}-{self._puts}-{file.name}"
        self._client.fput_object(BUCKET, key, str(file), content_type="audio/wav")
        return key

    def put_and_read_back(self, file: Path) -> None:
        """Upload a file, and see that it is there as it was."""
        key = self.put(file)
        response = self._client.get_object(BUCKET, key)
        digest = sha256()
        for chunk in response.stream(1 << 18):
            digest.update(chunk)
        response.close()
        response.release_conn()
        if digest.digest() != sha256(file.read_bytes()).digest():
            raise RuntimeError(f"{key} is not what was put")


async def seconds_of(work: Callable[[Path], object], files: Sequence[Path]) -> float:
    """How long so many threads take with all files."""

    def run() -> float:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            began = time.perf_counter()
            list(threads.map(work, files))
            return time.perf_counter() - began

    return await asyncio.to_thread(run)


class Room:
    """The daemon's way from a call's end to its stored recording; the jobs run within `async with`."""

    def __init__(self, pool: Pool, s3: S3, spool: Path) -> None:
        self.pool = pool
        self.spool = spool
        self.store = ObjectStore(s3.endpoint, BUCKET, s3.access_key, s3.secret_key, at_once=AT_ONCE + 8)
        self.writer = CallWriter(pool, ACCOUNT, recordings=enqueue_recordings)
        directory = RecordingSpool(spool)
        self.uploader = Uploader(pool, self.store, lambda kind, pbx: {PBX: directory}.get(pbx), at_once=AT_ONCE)
        self.sweeper = Sweeper(pool, ACCOUNT, Directories(lambda: {PBX: directory}))
        self._runner = JobRunner(pool, self._take, at_once=AT_ONCE)
        self.done: dict[UUID, float] = {}  # when each recording was stored and its file was gone
        self._wanted, self._all_done = 0, asyncio.Event()

    async def _take(self, recording_id: UUID) -> None:
        await self.uploader.take(recording_id)
        self.done[recording_id] = time.perf_counter()
        if len(self.done) >= self._wanted:
            self._all_done.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The jobs run."""
        task = asyncio.create_task(self._runner.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.store.close()

    def expect(self, count: int) -> None:
        """Begin to count."""
        self.done.clear()
        self._wanted = count
        self._all_done.clear()

    async def finished(self) -> None:
        """Wait for as many as are expected, and see that they are stored and gone from the spool."""
        await asyncio.wait_for(self._all_done.wait(), DEADLINE_S)

    async def bring(self, calls: Sequence[CallUpdate]) -> float:
        """How long it takes from the first call's end until all recordings are stored."""
        self.expect(len(calls))
        stored = self.uploader.stored
        began = time.perf_counter()
        for first in range(0, len(calls), BATCH):
            await self.writer.write(calls[first : first + BATCH])
        await self.finished()
        took = time.perf_counter() - began
        left = sum(1 for _ in self.spool.iterdir())
        if left or self.uploader.stored - stored != len(calls):
            raise RuntimeError(f"{self.uploader.stored - stored} of {len(calls)} were stored, {left} files are left")
        return took

    def link(self, files: Sequence[Path]) -> list[CallUpdate]:
        """Put the same files into the spool, under new names; the calls that they are of."""
        paths = [self.spool / f"{time.time_ns()}-{file.name}" for file in files]
        for file, path in zip(files, paths, strict=True):
            os.link(file, path)
        return updates(paths)


@asynccontextmanager
async def room_of(url: str, s3: S3, spool: Path) -> AsyncIterator[Room]:
    """A room with a spool of its own."""
    os.mkdir(spool)
    async with await open_pool(url, max_size=AT_ONCE + 4) as pool:
        yield Room(pool, s3, spool)


class Ticker:
    """What the event loop keeps others waiting: the times between ticks that should be TICK_S apart."""

    def __init__(self) -> None:
        self.gaps_ms: list[float] = []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Tick meanwhile."""
        task = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            task.cancel()

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            self.gaps_ms.append((now - last) * 1e3)
            last = now

    def __str__(self) -> str:
        return f"p99 {percentile(self.gaps_ms, 99):.1f} ms, longest {max(self.gaps_ms):.1f} ms"


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile of some values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


# --- the parts ------------------------------------------------------------------------------------------------------


class Ticks(NamedTuple):
    """The loop while ours runs, and, to tell what else is busy here, while the peer does."""

    ours: Ticker
    peer: Ticker


async def speed(room: Room, peer: Peer, boto: Boto, made: Path, rounds: int, ticks: Ticks, promises: Promises) -> None:
    """Each way in turns; the middle of each is told, with its range, as other programs disturb all of them."""
    ways: dict[str, Callable[[Path], object]] = {
        "minio-py": peer.put, "minio-py that reads back": peer.put_and_read_back, "boto3": boto.put
    }  # fmt: skip
    for count, size in SIZES:
        files = make(made / str(size), count, size)
        took: dict[str, list[float]] = {name: [] for name in ("ours", *ways)}
        cpu: dict[str, list[float]] = {name: [] for name in took}
        await room.bring(room.link(files[:8]))
        for put in ways.values():
            await seconds_of(put, files[:8])
        turns = list(took)
        for _ in range(rounds):
            turns.append(turns.pop(0))  # none is always the one behind the same
            for turn in turns:
                calls = room.link(files) if turn == "ours" else []
                before = time.process_time()
                async with (ticks.ours if turn == "ours" else ticks.peer).watching():
                    took[turn].append(await (room.bring(calls) if calls else seconds_of(ways[turn], files)))
                cpu[turn].append(time.process_time() - before)
        mb = count * size / 1e6
        middle = {name: statistics.median(some) for name, some in took.items()}
        print(f"{count} files of {size / 1e6:g} MB, {AT_ONCE} at a time:", flush=True)
        for name, some in took.items():
            print(
                f"  {name:<25}{mb / middle[name]:6.1f} MB/s ({mb / max(some):.1f} to {mb / min(some):.1f}), "
                f"{count / middle[name]:4.0f} files/s, {statistics.median(cpu[name]) / count * 1e3:5.1f} ms of CPU; "
                f"ours does {middle[name] / middle['ours']:.0%} of it",
                flush=True,
            )
        for name in ("boto3", "minio-py") if size >= LARGE else ("boto3",):
            ratio = middle[name] / middle["ours"]
            promises.tell(
                f"files of {size / 1e6:g} MB go up at {SPEED_PROMISED:.0%} or more of {name}'s speed, unverified",
                f"{ratio:.0%}", kept=ratio >= SPEED_PROMISED,
            )  # fmt: skip


async def delays(room: Room, peer: Peer, file: Path, size: int) -> None:
    """From the commit of a call that has ended to the commit of its stored recording and the end of its file."""
    calls = room.link([file] * ONE_BY_ONE)
    room.expect(len(calls))
    committed: dict[str, float] = {}
    begin = time.perf_counter()
    for number, call in enumerate(calls):
        await asyncio.sleep(begin + number / A_SECOND - time.perf_counter())
        await room.writer.write([call])
        committed[call.record.recordings[0].path] = time.perf_counter()
    await room.finished()
    rows = await room.pool.fetch("SELECT id, path FROM call_recording WHERE path = ANY ($1)", list(committed))
    ours = [(room.done[row["id"]] - committed[row["path"]]) * 1e3 for row in rows]
    theirs = []
    for _ in range(ONE_BY_ONE):
        theirs.append(await seconds_of(peer.put, [file]) * 1e3)
    print(
        f"from a call's end to its recording stored, {size / 1e3:.0f} kB each, {A_SECOND} a second: "
        f"p50 {percentile(ours, 50):.0f} ms, p99 {percentile(ours, 99):.0f} ms; minio-py's put alone "
        f"p50 {percentile(theirs, 50):.0f} ms, p99 {percentile(theirs, 99):.0f} ms",
        flush=True,
    )


async def sweeps(room: Room, ticker: Ticker, promises: Promises) -> None:
    """Known are recordings whose jobs wait; the others have names of channels that no call had."""
    known = [room.spool / f"known-{number}.wav" for number in range(SWEPT // 2)]
    unknown = [room.spool / f"stray-{1_600_000_000 + number}.{number}.wav" for number in range(SWEPT // 2)]
    for path in (*known, *unknown):
        path.touch()
        os.utime(path, (time.time() - 60,) * 2)
    calls = updates(known)
    for first in range(0, len(calls), BATCH):
        await room.writer.write(calls[first : first + BATCH])
    for which in ("first", "second"):
        before, began = time.process_time(), time.perf_counter()
        async with ticker.watching():
            await room.sweeper.sweep()
        took = time.perf_counter() - began
        unmatched = await room.pool.fetchval("SELECT count(*) FROM call_recording WHERE state = 'unmatched'")
        if (room.sweeper.files, unmatched) != (SWEPT, SWEPT // 2):
            raise RuntimeError(f"{room.sweeper.files} files were found, {unmatched} of them unmatched")
        promises.tell(
            f"the {which} sweep of {SWEPT:,} files, half of them strays, takes at most {SWEEP_LIMIT_S:g} s",
            f"{took:.2f} s, {time.process_time() - before:.2f} s of CPU", kept=took <= SWEEP_LIMIT_S,
        )  # fmt: skip


def memory(url: str, s3: S3, made: Path, promises: Promises) -> None:
    """What one long recording takes in a process of its own, ours and the peer's."""
    short, long = made / "short.wav", made / "long.wav"
    for file, seconds in ((short, 10), (long, LONG_S)):
        file.write_bytes(wav(44 + seconds * SECOND_BYTES))
        os.utime(file, (time.time() - 60,) * 2)
    found = {}
    for kind in ("ours", "peer"):
        words = [sys.executable, __file__, "--grow", kind]
        asked = json.dumps([url, s3, str(short), str(long), str(made / f"{kind}-spool")])
        answer = subprocess.run(words, input=asked, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S)
        found[kind] = json.loads(answer.stdout)
    (before, peak, after), (_, peer_peak, _) = found["ours"], found["peer"]
    promises.tell(
        f"a recording of {LONG_S / 3600:g} hours, {LONG_S * SECOND_BYTES / 1e6:.0f} MB, "
        f"takes at most {MEMORY_LIMIT_MB:g} MB of memory",
        f"{peak - before:.1f} MB at most, {after - before:.1f} MB after, beside {before:.0f} MB before; "
        f"minio-py {peer_peak - found['peer'][0]:.1f} MB", kept=peak - before <= MEMORY_LIMIT_MB,
    )  # fmt: skip


def resident_mb(what: str) -> float:
    """VmRSS, or VmHWM since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024 / 1e6


def forget_peak() -> None:
    """Let VmHWM begin again at what is resident now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


async def grow(kind: str, url: str, s3: S3, short: Path, long: Path, spool: Path) -> list[float]:
    """MB before, at the peak and after the long recording went up; a short one has gone before it."""
    peer = Peer(s3)
    async with room_of(url, s3, spool) as room, room.running():
        for file in (short, long):
            before = resident_mb("VmRSS")
            forget_peak()
            if kind == "ours":
                await room.bring(room.link([file]))
            else:
                await seconds_of(peer.put, [file])
            if file is short:
                settle()
        return [before, resident_mb("VmHWM"), resident_mb("VmRSS")]


# --- the run --------------------------------------------------------------------------------------------------------


async def bench(url: str, sweep_url: str, s3: S3, folder: Path, rounds: int) -> int:
    """Measure and print; returns the exit status."""
    promises, peer, boto = Promises(), Peer(s3), Boto(s3)
    ticks, sweeping = Ticks(Ticker(), Ticker()), Ticker()
    async with room_of(url, s3, folder / "spool") as room, room.running():
        await room.bring(room.link(make(folder / "first", 8, SECOND_BYTES)))
        settle()
        await speed(room, peer, boto, folder, rounds, ticks, promises)
        await delays(room, peer, folder / str(SIZES[-1][1]) / "0.wav", SIZES[-1][1])
    async with room_of(sweep_url, s3, folder / "swept") as room:
        await sweeps(room, sweeping, promises)
    told = f"{ticks.ours} while recordings go up; {sweeping} while the spool is swept; {ticks.peer} beside minio-py"
    print(f"the event loop, ticks {TICK_S * 1e3:g} ms apart: {told}", flush=True)
    for which, ticker in (("recordings go up", ticks.ours), ("the spool is swept", sweeping)):
        longest_ms = max(ticker.gaps_ms)
        promises.tell(
            f"while {which} the event loop answers within {GAP_LIMIT_MS:g} ms",
            f"{longest_ms:.1f} ms at the longest, p99 {percentile(ticker.gaps_ms, 99):.1f} ms",
            kept=longest_ms <= GAP_LIMIT_MS,
        )  # fmt: skip
    await asyncio.to_thread(memory, url, s3, folder, promises)
    return promises.status


def main() -> int:
    """Run the bench, or the child that takes one long recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each way, with each size")
    parser.add_argument("--grow", choices=("ours", "peer"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    with open(os.devnull, "w") as nowhere:
        logs.configure(style="json", stream=nowhere)  # lines are made as the daemon makes them
        if asked.grow is not None:
            url, s3, *paths = json.load(sys.stdin)
            print(json.dumps(uvloop.run(grow(asked.grow, url, S3(*s3), *map(Path, paths)))))
            return 0
        headline(f"Recordings from the spool into object storage, {AT_ONCE} at a time, beside minio-py and boto3")
        with Postgres(durable=True) as postgres, S3Server() as server, tempfile.TemporaryDirectory() as folder:
            server.create_bucket(BUCKET)
            urls = [postgres.create_database(name) for name in ("bench", "swept")]
            for url in urls:
                upgrade(url)
            s3 = S3(server.endpoint, server.access_key, server.secret_key)
            return uvloop.run(bench(*urls, s3, Path(folder), asked.rounds))


if __name__ == "__main__":
    sys.exit(main())
