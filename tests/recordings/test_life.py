"""How long a recording lives: retention, legal hold, and erasure, which is to leave nothing."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from house import ACCOUNT, DEADLINE_S, House
from s3_proxy import HANG, REFUSE, S3Proxy
from sounds import wav
from structlog.testing import capture_logs

from trunkline.embedded.s3 import S3Server
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.jobs import JobRunner, enqueue_recordings
from trunkline.recordings.maintenance import Maintenance
from trunkline.recordings.upload import Uploader
from trunkline.store.recordings import insert_peaks, order_erasure, set_hold

pytestmark = pytest.mark.asyncio


async def _stored(house: House, name: str, *, days_ago: float = 0.01, queue: str | None = None) -> dict[str, Any]:
    await house.call(str(house.write(name)), days_ago=days_ago, queue=queue)
    return next(row for row in await house.settled() if row["name"] == name)


async def _order(house: House, row: dict[str, Any]) -> bool:
    return await order_erasure(
        house.pool, row["account_id"], row["id"], enqueue_recordings, actor="ann", detail="asked for"
    )


async def _access(house: House, recording_id: UUID) -> list[tuple[str, str, str]]:
    rows = await house.pool.fetch(
        "SELECT action, actor, detail FROM recording_access WHERE recording_id = $1 ORDER BY created_at", recording_id
    )
    return [(row["action"], row["actor"], row["detail"]) for row in rows]


async def _is_erased(house: House, recording_id: UUID) -> bool:
    return await house.pool.fetchval("SELECT path IS NULL FROM call_recording WHERE id = $1", recording_id)


async def _nothing_is_left(house: House, row: dict[str, Any]) -> None:
    """Neither audio nor name of a recording is anywhere: bucket, spool, tables; what was done is written down."""
    assert house.objects() == {}
    found = house.store._client._list_multipart_uploads(house.store.bucket, prefix=house.prefix)
    assert found.uploads == []
    assert house.files() == []
    assert await house.pool.fetchval("SELECT count(*) FROM media_file") == 0
    assert await house.pool.fetchval("SELECT count(*) FROM recording_peaks") == 0
    after = await house.pool.fetchrow("SELECT * FROM call_recording WHERE id = $1", row["id"])
    assert (after["path"], after["media_file_id"], after["reason"]) == (None, None, "erased")
    assert after["erased_at"] is not None
    name = os.path.basename(row["path"])
    for table in ("call", "call_recording", "media_file", "event", "recording_access", "jobs.pgqueuer"):
        rows = await house.pool.fetch(f"SELECT row_to_json(held)::text AS json FROM {table} AS held")
        assert [one["json"] for one in rows if name in one["json"]] == [], table
    listed = json.loads(await house.pool.fetchval("SELECT recordings FROM call WHERE id = $1", row["call_id"]))
    assert [one["path"] for one in listed] == [""]
    assert await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 0


@pytest_asyncio.fixture
async def proxy(house: House, s3: S3Server) -> AsyncIterator[S3Proxy]:
    """What the house's uploader goes through from now on."""
    with S3Proxy(s3.port) as proxy:
        store = ObjectStore(proxy.endpoint, house.store.bucket, s3.access_key, s3.secret_key, silent_s=2)
        house.uploader = Uploader(house.pool, store, house.spool_of, prefix=house.prefix, step=house.steps.append)
        house.runner = JobRunner(house.pool, house.uploader.take, at_once=4)
        yield proxy
        await house.uploader.breaker.close()
        store.close()


@pytest.mark.parametrize(
    ("days", "by_queue", "kept"),
    [
        (None, {}, {"old", "old-sales", "old-help", "young", "young-sales", "young-help"}),
        (30, {}, {"young", "young-sales", "young-help"}),
        (30, {"sales": 90}, {"old-sales", "young", "young-sales", "young-help"}),  # longer than the account's
        (30, {"sales": 5}, {"young", "young-help"}),  # shorter
        (None, {"sales": 5}, {"old", "old-help", "young", "young-help"}),
        (30, {"sales": 5, "help": 3650}, {"old-help", "young", "young-help"}),
    ],
)
async def test_retention(house: House, days: int | None, by_queue: dict[str, int], kept: set[str]) -> None:
    for age, days_ago in (("old", 40), ("young", 10)):
        for queue in (None, "sales", "help"):
            path = house.write("-".join(filter(None, (age, queue))))
            path.rename(path.with_suffix(".wav"))
            await house.call(str(path.with_suffix(".wav")), days_ago=days_ago, queue=queue)
    await house.settled()
    overdue = 6 - len(kept)
    maintenance = Maintenance(house.pool, ACCOUNT, days, by_queue)
    assert await maintenance.retire() == overdue
    assert await maintenance.retire() == 0  # ordered once
    rows = await house.settled()
    assert {row["name"].removesuffix(".wav") for row in rows if row["key"]} == kept
    assert sorted(house.objects()) == sorted(row["key"] for row in rows if row["key"])
    actions = await house.pool.fetch("SELECT action, count(*) FROM recording_access GROUP BY 1 ORDER BY 1")
    assert list(map(tuple, actions)) == ([("erase", overdue), ("retention", overdue)] if overdue else [])


@pytest.mark.parametrize("days", [None, 30])
async def test_what_was_never_stored_is_kept_no_longer(house: House, days: int | None) -> None:
    await house.call(str(house.write("noise.wav", b"no recording" * 9)), days_ago=40)  # failed
    await house.call(str(house.spool / "never-came.wav"), days_ago=40)  # failed
    await house.call(str(house.write("silence.wav", wav(b""))), days_ago=40)  # empty
    for name in ("stranger-15551234567.wav", "held.wav", "young.wav"):
        house.write(name)
    await house.sweeper.sweep()
    await house.settled()
    assert sorted(await house.states()) == ["empty", "failed", "failed", "unmatched", "unmatched", "unmatched"]
    found = "UPDATE call_recording SET created_at = now() - interval '40 days' WHERE path NOT LIKE '%young%'"
    await house.pool.execute(found)
    await house.pool.execute("UPDATE call_recording SET legal_hold = true WHERE path LIKE '%held%'")
    ids = {os.path.basename(row["path"]): row["id"] for row in await house.rows()}
    await house.call(str(house.spool / "waits.wav"), days_ago=40, pbx="pbx0")  # pending: no one has given it up
    maintenance = Maintenance(house.pool, ACCOUNT, days, {"sales": 1})
    assert await maintenance.retire() == (0 if days is None else 4)
    assert await maintenance.retire() == 0  # ordered once
    await house.until("all is erased", lambda: _all_erased(house))
    if days is None:
        return
    assert house.files() == ["held.wav", "young.wav"]
    kept = {os.path.basename(row["path"]) for row in await house.rows() if row["path"]}
    assert kept == {"held.wav", "waits.wav", "young.wav"}
    listed = await house.pool.fetchval("SELECT string_agg(recordings::text, '') FROM call")
    assert not any(name in listed for name in ("noise", "never-came", "silence"))
    gone, there = "there is no object, nor a file", "there is no object, the file too"
    proofs = {"noise.wav": there, "never-came.wav": gone, "silence.wav": gone, "stranger-15551234567.wav": there}
    for name, proof in proofs.items():
        ordered, erased = await _access(house, ids[name])
        assert ordered == ("retention", "maintenance", "kept for 30 days")
        assert erased == ("erase", "maintenance", proof)
    await house.sweeper.sweep()
    assert len(await house.rows()) == 7  # nothing comes back


async def _all_erased(house: House) -> bool:
    async with house.running():
        left = "SELECT count(*) FROM call_recording WHERE erased_at IS NOT NULL AND reason IS DISTINCT FROM 'erased'"
        await asyncio.sleep(0.2)
        return await house.pool.fetchval(left) == 0


async def test_retention_is_for_its_account_only(house: House) -> None:
    await _stored(house, "old.wav", days_ago=40)
    assert await Maintenance(house.pool, "another", 30, {}).retire() == 0
    assert await Maintenance(house.pool, ACCOUNT, 30, {}).retire() == 1


async def test_a_legal_hold_wins_over_retention_and_erasure(house: House) -> None:
    row = await _stored(house, "old.wav", days_ago=400, queue="sales")
    await set_hold(house.pool, row["account_id"], row["id"], True)
    assert await Maintenance(house.pool, ACCOUNT, 30, {"sales": 1}).retire() == 0
    assert await _order(house, row) is False
    await house.settled()
    assert list(house.objects()) == [row["key"]]
    assert await _access(house, row["id"]) == []
    await set_hold(house.pool, row["account_id"], row["id"], False)
    assert await Maintenance(house.pool, ACCOUNT, 30, {"sales": 1}).retire() == 1
    await house.settled()
    assert house.objects() == {}


async def test_an_erased_recording_leaves_nothing(house: House) -> None:
    row = await _stored(house, "in-15551234567.wav")
    house.write("in-15551234567.wav", house.content(row["key"]))  # as `keep` would have it
    await insert_peaks(house.pool, row["account_id"], row["id"], b"{}")  # somebody has looked at it
    assert await house.pool.fetchval("SELECT count(*) FROM recording_peaks") == 1
    other = await _stored(house, "other.wav")
    house.write("in-15551234567.wav", house.content(row["key"]))
    assert await _order(house, row) is True
    assert await house.pool.fetchval("SELECT count(*) FROM recording_peaks WHERE recording_id = $1", row["id"]) == 0
    await insert_peaks(house.pool, row["account_id"], row["id"], b"{}")  # drawn while it was being ordered
    await house.settled()
    sha256 = json.loads(row["file_metadata"])["sha256"]
    assert await _access(house, row["id"]) == [
        ("erase", "ann", "asked for"),
        ("erase", "maintenance", f"the object with sha256 {sha256} is gone, the file too"),
    ]
    assert list(house.objects()) == [other["key"]]
    await _order(house, other)
    await house.settled()
    await _nothing_is_left(house, row)
    await house.sweeper.sweep()
    assert len(await house.settled()) == 2  # it does not come back


async def test_an_unmatched_file_can_be_erased(house: House) -> None:
    await house.call()
    house.write("in-15551234567.wav")
    await house.sweeper.sweep()
    (row,) = await house.rows()
    await _order(house, row)
    await house.sweeper.sweep()  # which has nothing to say of it any more
    await house.settled()
    assert house.files() == []
    assert await _is_erased(house, row["id"])
    assert (await _access(house, row["id"]))[-1][2] == "there is no object, the file too"


async def test_an_unmatched_file_whose_erasure_is_ordered_is_not_linked(house: House) -> None:
    await house.call()
    house.write("in-1763801234.5.wav")
    await house.sweeper.sweep()
    (row,) = await house.rows()
    await _order(house, row)
    await house.call(unique="1763801234.5", days_ago=1)
    await house.sweeper.sweep()
    (row,) = await house.settled()
    assert (house.files(), house.objects(), row["path"], row["call_id"]) == ([], {}, None, None)


@pytest.mark.parametrize("fault", [REFUSE, HANG], ids=lambda fault: fault.kind)
async def test_an_erasure_while_the_storage_is_away_goes_through_later(
    house: House, proxy: S3Proxy, fault: Any
) -> None:
    row = await _stored(house, "one.wav")
    proxy.fault = fault
    await _order(house, row)
    async with house.running():
        await house.until("it is known to be away", lambda: house.uploader.breaker.fault)
        assert list(house.objects()) == [row["key"]]
        assert not await _is_erased(house, row["id"])
        proxy.fault = type(fault)("pass")
        proxy.drop()
        await house.until("it is erased", lambda: _is_erased(house, row["id"]))
    await house.settled()
    await _nothing_is_left(house, row)


@pytest.mark.parametrize("at", ["put", "read back", "commit", "remove"])
async def test_an_erasure_that_is_ordered_during_the_upload_ends_erased(house: House, at: str) -> None:
    loop, ordered = asyncio.get_running_loop(), []

    def step(name: str) -> None:
        if name == at and not ordered:
            ordered.append(name)
            if name in ("put", "read back"):  # in a thread
                asyncio.run_coroutine_threadsafe(order(), loop).result(DEADLINE_S)
            else:
                waiting.append(loop.create_task(order()))

    async def order() -> None:
        assert await _order(house, (await house.rows())[0])

    waiting: list[asyncio.Task[None]] = []
    house.uploader = Uploader(house.pool, house.store, house.spool_of, prefix=house.prefix, step=step)
    house.runner = JobRunner(house.pool, house.uploader.take)
    await house.call(str(house.write("in-15551234567.wav")))
    (row,) = await house.rows()
    await house.settled()
    await asyncio.gather(*waiting)
    if at in ("commit", "remove"):  # it may have come after the job's last look
        await Maintenance(house.pool, ACCOUNT, None, {}).retire()
    rows = await house.settled()
    assert ordered == [at]
    assert len(rows) == 1
    await _nothing_is_left(house, row)
    assert [(action, actor) for action, actor, _ in await _access(house, row["id"])] == [
        ("erase", "ann"),
        ("erase", "maintenance"),
    ]


async def test_an_erasure_whose_job_was_lost_is_done_all_the_same(house: House) -> None:
    row = await _stored(house, "one.wav")
    await _order(house, row)
    await house.pool.execute("DELETE FROM jobs.pgqueuer")
    await Maintenance(house.pool, ACCOUNT, None, {}).retire()
    await house.settled()
    await _nothing_is_left(house, row)


async def test_what_was_put_and_never_committed_is_erased_too(house: House) -> None:
    """A daemon that was killed after the put leaves an object that no row knows."""
    await house.call(str(house.write("one.wav")))
    (row,) = await house.rows()

    def die(name: str) -> None:
        if name == "commit":
            raise OSError("killed")

    uploader = Uploader(house.pool, house.store, house.spool_of, prefix=house.prefix, step=die)
    with pytest.raises(Exception, match="killed"):
        await uploader.take(row["id"])
    assert len(house.objects()) == 1
    assert (await house.rows())[0]["key"] is None
    await _order(house, row)
    await house.settled()
    await _nothing_is_left(house, row)


async def test_an_erasure_is_not_said_to_be_done_where_the_files_cannot_be_reached(house: House) -> None:
    """As after a start, before the PBX has said its name: the sweeper would find the file, and link it again."""
    row = await _stored(house, "one.wav")
    house.write("one.wav", house.content(row["key"]))
    away = True
    spool_of = house.spool_of
    house.uploader = Uploader(
        house.pool, house.store, lambda kind, pbx: None if away else spool_of(kind, pbx), prefix=house.prefix
    )
    house.runner = JobRunner(house.pool, house.uploader.take)
    await _order(house, row)
    with capture_logs() as logs:
        async with house.running():
            await house.until("it was tried", lambda: house.runner.done["retried"])
    assert house.objects() == {}  # what can be done is done
    assert not await _is_erased(house, row["id"])
    assert "recording.not_erased" in {one["event"] for one in logs}
    away = False
    await house.pool.execute("UPDATE jobs.pgqueuer SET execute_after = now()")
    await house.settled()
    await _nothing_is_left(house, row)


async def test_an_object_of_another_bucket_is_not_said_to_be_gone(house: House) -> None:
    row = await _stored(house, "one.wav")
    await house.pool.execute("UPDATE media_file SET bucket = 'before'")
    await _order(house, row)
    with capture_logs() as logs:
        async with house.running():
            await house.until("it was tried", lambda: house.runner.done["retried"])
    assert not await _is_erased(house, row["id"])
    assert [one["reason"] for one in logs if one["event"] == "recording.not_erased"] == [
        "its object is in the bucket before"
    ]


async def test_the_recording_of_a_live_call_stays_erased_when_the_call_ends(house: House) -> None:
    path = house.write("in-15551234567.wav")
    call_id = await house.call(str(path), ended=False, unique="1763801234.9")
    (row,) = await house.rows()
    await _order(house, row)
    async with house.running():
        await house.until("it waits for the call's end", lambda: house.runner.done["retried"])
    await house.pool.execute("UPDATE jobs.pgqueuer SET execute_after = now()")
    await house.pool.execute("UPDATE call SET revision = revision - 1")  # so that what is written next is news
    await house.call(str(path), unique="1763801234.9")
    rows = await house.settled()
    assert [one["path"] for one in rows] == [None]
    await _nothing_is_left(house, {**row, "call_id": call_id})
