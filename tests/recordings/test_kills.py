"""kill -9 at each step of an upload: what another process then finds and finishes, nothing lost, nothing twice."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from encoder import FFMPEG, encoded
from house import House
from s3_proxy import HANG, S3Proxy
from sounds import wav

from trunkline.embedded.s3 import S3Server
from trunkline.recordings.jobs import HEARTBEAT_S
from trunkline.recordings.opus import OpusEncoder
from trunkline.recordings.upload import Uploader

pytestmark = pytest.mark.asyncio

STEPS = ("put", "read back", "commit", "remove")
# The process that dies: an Uploader and its jobs, as the daemon has them, that kills itself before the step it is told.
_VICTIM = """
import asyncio, json, os, signal, sys
from pathlib import Path

from trunkline.recordings.jobs import JobRunner
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.opus import OpusEncoder
from trunkline.recordings.spool import RecordingSpool
from trunkline.recordings.upload import Uploader
from trunkline.store.pool import open_pool

told = json.loads(sys.stdin.readline())
skip = told["skip"]

def step(name):
    global skip
    if name == told["step"]:
        if skip == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        skip -= 1

async def main():
    store = ObjectStore(told["endpoint"], told["bucket"], told["key"], told["secret"], silent_s=60)
    async with await open_pool(told["database"]) as pool:
        spool = RecordingSpool(Path(told["spool"]))
        opus = OpusEncoder(told["ffmpeg"]) if told["ffmpeg"] else None
        uploader = Uploader(pool, store, lambda kind, pbx: spool, prefix=told["prefix"], opus=opus, step=step)
        await JobRunner(pool, uploader.take, at_once=told["at_once"]).run()

asyncio.run(main())
"""


class _Victims:
    def __init__(self, house: House, server: S3Server, database_url: str) -> None:
        self.house = house
        self._told = {
            "endpoint": server.endpoint,
            "bucket": house.store.bucket,
            "key": server.access_key,
            "secret": server.secret_key,
            "database": database_url,
            "spool": str(house.spool),
            "prefix": house.prefix,
            "ffmpeg": "",
        }

    def make_opus(self) -> None:
        self._told["ffmpeg"] = FFMPEG

    async def start(self, step: str, *, skip: int = 0, at_once: int = 2, endpoint: str | None = None) -> "_Process":
        told = {**self._told, "step": step, "skip": skip, "at_once": at_once}
        if endpoint is not None:
            told["endpoint"] = endpoint
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _VICTIM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(told).encode() + b"\n")
        await process.stdin.drain()
        process.stdin.close()
        return process

    async def dies(self, step: str, *, skip: int = 0, at_once: int = 2) -> None:
        process = await self.start(step, skip=skip, at_once=at_once)
        assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGKILL

    async def forget(self) -> None:
        """Let the jobs of the dead look as they do when their heartbeat has run out."""
        await self.house.pool.execute(
            "UPDATE jobs.pgqueuer SET heartbeat = now() - interval '1 hour' WHERE status = 'picked'"
        )


_Process = asyncio.subprocess.Process


@pytest.fixture
def victims(house: House, s3: S3Server, database_url: str) -> _Victims:
    return _Victims(house, s3, database_url)


@pytest.fixture(scope="module")
def totals() -> Iterator[dict[str, int]]:
    """What became of all the recordings of all the kills; printed at the end."""
    counts = {"kills": 0, "recordings": 0, "lost": 0, "doubled": 0}
    yield counts
    print(", ".join(f"{name} {count}" for name, count in counts.items()))  # noqa: T201


async def _check(house: House, data: dict[str, bytes], totals: dict[str, int], kills: int = 1) -> None:
    """Each file is stored once, whole, told once, and gone."""
    rows = await house.settled(40)
    told = [
        json.loads(row["data"])["recording"]["id"]
        for row in await house.pool.fetch("SELECT data FROM event WHERE type = 'call.recording_stored'")
    ]
    objects = house.objects()
    files = await house.pool.fetchval("SELECT count(*) FROM media_file")
    stored = {row["path"]: row for row in rows if row["state"] == "stored"}
    kept = [path for path, row in stored.items() if house.content(row["key"]) == data[path]]
    totals["kills"] += kills
    totals["recordings"] += len(data)
    totals["lost"] += len(data) - len(kept)
    totals["doubled"] += max(len(objects), len(rows), len(told), files) - len(data)
    assert sorted(kept) == sorted(data)
    assert sorted(objects) == sorted(row["key"] for row in rows)
    assert sorted(told) == sorted(str(row["id"]) for row in rows)
    assert (len(rows), files) == (len(data), len(data))
    assert house.files() == []


@pytest.mark.parametrize("step", ["encode", "commit"])
async def test_killed_at_a_step_of_one_that_becomes_opus(
    house: House, victims: _Victims, totals: dict[str, int], step: str
) -> None:
    path = house.write("one.wav", seconds=2)
    data = {str(path): encoded(path.name, path.read_bytes())}
    await house.call(str(path))
    victims.make_opus()
    await victims.dies(step)
    (row,) = await house.rows()
    assert row["state"] == ("stored" if step == "remove" else "pending")
    assert house.files() == ["one.wav"]
    house.uploader.opus = OpusEncoder(FFMPEG)
    await victims.forget()
    await house.sweeper.sweep()
    await _check(house, data, totals)


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step(house: House, victims: _Victims, totals: dict[str, int], step: str) -> None:
    path = house.write("one.wav", seconds=2)
    data = {str(path): path.read_bytes()}
    await house.call(str(path))
    await victims.dies(step)
    (row,) = await house.rows()
    assert row["state"] == ("stored" if step == "remove" else "pending")
    assert len(house.objects()) == (step != "put")
    assert house.files() == ["one.wav"]
    assert await house.pool.fetchval("SELECT status FROM jobs.pgqueuer") == "picked"
    await victims.forget()
    await _check(house, data, totals)


async def test_killed_again_and_again_among_many(house: House, victims: _Victims, totals: dict[str, int]) -> None:
    data = {}
    for at in range(12):
        path = house.write(f"{at:02}.wav", seconds=0.3 + at / 10)
        data[str(path)] = path.read_bytes()
        await house.call(str(path))
    for skip, step in enumerate(STEPS):
        await victims.dies(step, skip=skip, at_once=4)
        await victims.forget()
    assert len(house.files()) > 1  # there was something left to do
    await _check(house, data, totals, len(STEPS))


@pytest.mark.parametrize("parts", [1, 3])
async def test_killed_in_the_middle_of_a_put(
    house: House, victims: _Victims, s3: S3Server, totals: dict[str, int], parts: int
) -> None:
    path = house.write("big.wav", wav(os.urandom(parts * (7 << 20))))
    data = {str(path): path.read_bytes()}
    await house.call(str(path))
    with S3Proxy(s3.port) as proxy:
        if parts > 1:  # the first part is there
            proxy.fail_next(1, HANG, method="PUT", path="partNumber=2")
        else:
            proxy.fail_next(1, HANG, method="PUT")
        process = await victims.start("none", endpoint=proxy.endpoint)
        try:
            await house.until("the put hangs", lambda: proxy.count("PUT", "hang"))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
    assert house.objects() == {}
    await victims.forget()
    await _check(house, data, totals)
    assert _begun_uploads(house) == []


async def test_a_call_that_was_folded_into_another_meanwhile_leaves_no_object_behind(
    house: House, victims: _Victims
) -> None:
    path = house.write("one.wav")
    data = {str(path): path.read_bytes()}
    await house.call(str(path))
    elder = await house.call(days_ago=0.02)
    await victims.dies("commit")
    await house.pool.execute("UPDATE call_recording SET call_id = $1", elder)  # what a fold does
    await victims.forget()
    await _check(house, data, dict.fromkeys(("kills", "recordings", "lost", "doubled"), 0))


async def test_the_jobs_of_the_dead_are_taken_up_once_their_heartbeat_is_too_old(
    house: House, victims: _Victims, totals: dict[str, int]
) -> None:
    path = house.write("one.wav")
    data = {str(path): path.read_bytes()}
    await house.call(str(path))
    await victims.dies("commit")
    await house.pool.execute(  # all but 3 s of the time are over
        "UPDATE jobs.pgqueuer SET heartbeat = heartbeat - make_interval(secs => $1)", HEARTBEAT_S - 3
    )
    begun = asyncio.get_running_loop().time()
    await _check(house, data, totals)
    assert asyncio.get_running_loop().time() - begun > 1  # not while its daemon might be alive


async def test_two_that_hold_the_same_job_store_it_once(house: House, totals: dict[str, int]) -> None:
    """One whose heartbeat came too late goes on beside the one that took its job over."""
    both = threading.Barrier(2, timeout=10)

    def step(name: str) -> None:
        if name == "read back":
            both.wait()

    path = house.write("one.wav")
    data = {str(path): path.read_bytes()}
    await house.call(str(path))
    (row,) = await house.rows()
    uploader = Uploader(
        house.pool,
        house.store,
        house.spool_of,
        prefix=house.prefix,
        step=step,
    )
    await asyncio.gather(uploader.take(row["id"]), uploader.take(row["id"]))
    await _check(house, data, totals, 0)


def _begun_uploads(house: House) -> list[str]:
    """Keys of uploads in parts that were begun and neither completed nor aborted: they cost, and hold the audio."""
    found = house.store._client._list_multipart_uploads(house.store.bucket, prefix=house.prefix)
    return [upload.object_name for upload in found.uploads]
