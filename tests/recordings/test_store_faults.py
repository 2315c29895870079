"""The object storage fails in every way it can: no recording is lost, doubled or taken for stored; none hammers it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from house import ACCOUNT, PBX, House
from s3_proxy import HANG, PASS, REFUSE, Fault, S3Proxy, answer, corrupt_get, corrupt_put, cut_request, truncate_get
from structlog.testing import capture_logs

from trunkline.embedded.s3 import S3Server
from trunkline.objects.faults import StoreFault
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.breaker import Breaker
from trunkline.recordings.jobs import JobRunner
from trunkline.recordings.spool import Directories, RecordingSpool
from trunkline.recordings.sweep import Sweeper
from trunkline.recordings.upload import Uploader

pytestmark = pytest.mark.asyncio

BUCKET = "recordings"


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3.port) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def through(house: House, s3: S3Server, proxy: S3Proxy) -> AsyncIterator[House]:
    """The house, whose uploader reaches the storage through the proxy."""
    _use(house, proxy.endpoint, s3)
    yield house
    await house.uploader.breaker.close()


def _use(
    house: House, endpoint: str, s3: S3Server, *, bucket: str = BUCKET, secret: str = "", silent_s: float = 1
) -> ObjectStore:
    store = ObjectStore(endpoint, bucket, s3.access_key, secret or s3.secret_key, silent_s=silent_s)
    house.uploader = Uploader(house.pool, store, house.spool_of, prefix=house.prefix, step=house.steps.append)
    house.uploader.breaker = Breaker(store, first_wait_s=0.15)
    house.runner = JobRunner(house.pool, house.uploader.take, at_once=4)
    return store


async def _stored_once(house: House, data: dict[str, bytes]) -> None:
    rows = await house.settled(40)
    assert {row["state"] for row in rows} == {"stored"}
    assert {row["path"]: house.content(row["key"]) for row in rows} == data
    assert sorted(house.objects()) == sorted(row["key"] for row in rows)
    told = await house.pool.fetch("SELECT data FROM event WHERE type = 'call.recording_stored'")
    assert sorted(json.loads(one["data"])["recording"]["id"] for one in told) == sorted(str(row["id"]) for row in rows)
    assert len(rows) == len(data)
    assert house.files() == []


def _events(logs: list[Any], event: str) -> list[str]:
    return [one.get("reason", "") for one in logs if one["event"] == event]


@pytest.mark.parametrize(
    ("fault", "method", "reason"),
    [
        (REFUSE, "", "connection broke|cannot be reached"),
        (answer(500), "PUT", "answers with an error"),
        (answer(503), "PUT", "answers with an error"),
        (answer(503), "GET", "answers with an error"),
        (answer(507), "PUT", "is full"),
        (cut_request(5_000), "PUT", "connection broke"),
        (HANG, "PUT", "does not answer"),
        (HANG, "GET", "does not answer"),
        (truncate_get(100), "", "connection broke"),
        (corrupt_get(7_000), "", "what was read back is not what was put"),
        (corrupt_put(7_000), "", "what was read back is not what was put"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
async def test_a_fault_leaves_the_file_and_says_why(
    through: House, proxy: S3Proxy, fault: Fault, method: str, reason: str
) -> None:
    path = through.write("one.wav")
    data = path.read_bytes()
    await through.call(str(path))
    if method:
        proxy.fail_next(1000, fault, method=method)
    else:
        proxy.fault = fault

    async def said() -> Any:
        return await through.pool.fetchval("SELECT reason FROM call_recording")

    async with through.running():
        text = await through.until("the reason", said)
    assert any(part in text for part in reason.split("|")), text
    assert text.isprintable()
    assert await through.states() == ["pending"]
    assert path.read_bytes() == data
    assert await through.pool.fetchval("SELECT count(*) FROM media_file") == 0
    assert through.uploader.stored == 0
    proxy.fault = PASS
    proxy._planned.clear()
    proxy.drop()
    await through.pool.execute("UPDATE jobs.pgqueuer SET execute_after = now()")
    await _stored_once(through, {str(path): data})
    assert [row["reason"] for row in await through.rows()] == [None]


async def test_a_bucket_that_is_not_there_is_said_once_and_not_hammered(
    house: House, proxy: S3Proxy, s3: S3Server
) -> None:
    bucket = f"later-{house.prefix[1:12]}"
    house.store = _use(house, proxy.endpoint, s3, bucket=bucket, silent_s=10)  # a bucket's first object takes its time
    data = await _wait(house, 20)
    await _said_once(house, proxy, "no bucket")
    with capture_logs() as logs:
        s3.create_bucket(bucket)
        await _stored_once(house, data)
    assert _events(logs, "recordings.store_away") == []
    await house.uploader.breaker.close()


async def test_a_wrong_key_is_said_once_and_not_hammered(house: House, proxy: S3Proxy, s3: S3Server) -> None:
    wrong = _use(house, proxy.endpoint, s3, secret="not the secret of this key")
    data = await _wait(house, 20)
    await _said_once(house, proxy, "refuses our key")
    wrong._client._provider = house.store._client._provider  # as a server that knows the key again
    await _stored_once(house, data)
    await house.uploader.breaker.close()


async def test_a_storage_that_answers_and_takes_nothing_is_not_hammered(through: House, proxy: S3Proxy) -> None:
    """Such as one that is full, or a key that may look and not write: to ask for the bucket says nothing of it."""
    data = await _wait(through, 20)
    proxy.fail_next(1000, answer(507), method="PUT")
    with capture_logs() as logs:
        await _said_once(through, proxy, "is full")
    assert _events(logs, "recordings.store_back") == []
    proxy._planned.clear()
    with capture_logs() as logs:
        await _stored_once(through, data)
    assert len(_events(logs, "recordings.store_back")) == 1


async def _wait(house: House, count: int) -> dict[str, bytes]:
    data = {}
    for at in range(count):
        path = house.write(f"{at:02}.wav", seconds=0.2 + at / 50)
        data[str(path)] = path.read_bytes()
        await house.call(str(path))
    return data


async def _said_once(house: House, proxy: S3Proxy, reason: str) -> None:
    """Run for some seconds; the waits are 0.15, 0.3, 0.6, 1.2 s."""
    with capture_logs() as logs:
        async with house.running():
            await house.until("it was probed", lambda: house.uploader.breaker.probes >= 4)
            probes, asked = house.uploader.breaker.probes, proxy.count()
    (said,) = _events(logs, "recordings.store_away")
    assert reason in said
    # The four that were on their way at first; then each probe, and the one job that follows it where that goes well.
    assert asked <= 4 + 2 * probes + 1, proxy.counts
    rows = await house.rows()
    assert {row["state"] for row in rows} == {"pending"}
    assert len(house.files()) == len(rows) == 20
    assert {reason in row["reason"] for row in rows if row["reason"]} == {True}


async def test_those_that_wait_for_a_storage_that_is_away_all_say_so(through: House, proxy: S3Proxy) -> None:
    await _wait(through, 20)
    await through.call(str(through.write("goes on.wav")), ended=False)
    proxy.fault = REFUSE
    breaker, spool = through.uploader.breaker, RecordingSpool(through.spool)
    sweeper = Sweeper(through.pool, ACCOUNT, Directories(lambda: {PBX: spool}), grace_s=0, away=lambda: breaker.fault)
    async with through.running():
        await through.until("it is away", lambda: breaker.fault)
        await sweeper.sweep()
    said = {row["path"].rpartition("/")[2]: row["reason"] for row in await through.rows()}
    assert said.pop("goes on.wav") is None
    assert len(said) == 20
    assert all(reason.startswith("object storage: ") for reason in said.values()), said


async def test_a_job_that_waits_for_the_storage_does_not_hold_up_the_stop(through: House, proxy: S3Proxy) -> None:
    await _wait(through, 6)
    proxy.fault = REFUSE
    loop = asyncio.get_running_loop()
    async with through.running():
        await through.until("it is away", lambda: through.uploader.breaker.fault)
        await through.until(
            "jobs wait",
            lambda: through.pool.fetchval("SELECT count(*) >= 4 FROM jobs.pgqueuer WHERE status = 'picked'"),
        )
        stopping = loop.time()
    assert loop.time() - stopping < 2
    assert await through.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer WHERE status = 'queued'") == 6


async def test_what_cannot_be_removed_is_not_fetched_again_and_again(
    through: House, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spool that the daemon may only read is an ordinary mistake; objects are not downloaded for it each minute."""

    def refuse(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("trunkline.recordings.spool.RecordingSpool.remove", refuse)
    await _wait(through, 5)
    await through.settled()
    asked = proxy.count("GET")
    for _ in range(3):
        await through.sweeper.sweep()
        await through.settled()
    assert proxy.count("GET") - asked <= 5, proxy.counts
    assert len(through.files()) == 5
    monkeypatch.undo()
    through.uploader = Uploader(through.pool, through.store, through.spool_of, prefix=through.prefix)  # a new start
    through.runner = JobRunner(through.pool, through.uploader.take)
    await through.sweeper.sweep()
    await through.settled()
    assert through.files() == []


async def test_the_storage_is_killed_under_thirty_recordings(house: House) -> None:
    with S3Server() as server:
        server.create_bucket(BUCKET)
        house.store = _use(house, server.endpoint, server)
        data = await _wait(house, 30)
        async with house.running():
            await house.until("some are stored", lambda: house.uploader.stored >= 5)
            await asyncio.to_thread(server.kill)
            await house.until("it is away", lambda: house.uploader.breaker.probes >= 3)
            left = len(house.files())
            await asyncio.to_thread(server.start)
            await house.until("all are stored", lambda: house.uploader.stored >= 30, 40)
        assert left > 5
        await _stored_once(house, data)
        assert house.uploader.stored == 30
        await house.uploader.breaker.close()
        house.store.close()


async def test_the_client_is_made_once_when_the_storage_is_first_asked(s3: S3Server) -> None:
    made: list[str] = []
    store = ObjectStore(s3.endpoint, BUCKET, s3.access_key, s3.secret_key, opened=lambda: made.append("made"))
    store.close()
    assert not made
    await asyncio.gather(*(asyncio.to_thread(store.exists, "nothing") for _ in range(8)))
    assert made == ["made"]
    store.close()


async def test_a_region_that_is_none_is_a_fault_of_the_storage_with_advice() -> None:
    store = ObjectStore("http://127.0.0.1:1", BUCKET, "a", "b", region="no region!")
    with pytest.raises(StoreFault, match="it cannot be asked: invalid region") as told:
        store.check()
    assert "recordings.endpoint and region" in told.value.todo
    assert told.value.of_the_store
