"""The queue: jobs are made with the rows, once each, and its tables are what the installed pgqueuer wants."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from house import House
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.core.listeners import PGNoticeEventListener, default_event_router, initialize_notice_event_listener

from trunkline.recordings.jobs import Later, Manager, enqueue_recordings, queries

pytestmark = pytest.mark.asyncio


async def test_the_migrated_queue_is_what_the_library_declares(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        plan = await queries(AsyncpgDriver(connection)).plan_upgrade()
    finally:
        await connection.close()
    assert list(plan.statements) == []


async def test_a_job_is_made_in_the_transaction_or_not_at_all(house: House) -> None:
    await house.call(str(house.write("one.wav")))
    (row,) = await house.rows()
    await house.pool.execute("DELETE FROM jobs.pgqueuer")
    async with house.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await enqueue_recordings(connection, [row["id"]])
        await transaction.rollback()
    assert await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 0


async def test_a_recording_has_one_job_however_often_its_call_is_written(house: House) -> None:
    await house.call(str(house.write("one.wav")))
    (row,) = await house.rows()
    for _ in range(3):
        async with house.pool.acquire() as connection:
            await enqueue_recordings(connection, [row["id"]])
    assert await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 1


async def test_a_job_that_fails_is_tried_again_later_and_later(house: House) -> None:
    await house.call(str(house.write("one.wav")))
    (row,) = await house.rows()
    waits = []

    async def fail(recording_id: object) -> None:
        assert recording_id == row["id"]
        raise Later("not yet")

    house.runner._work = fail
    async with house.running():
        for tries in (1, 2, 3):
            await house.until("it was tried", lambda tries=tries: house.runner.done["retried"] >= tries)

            async def put_off(tries: int = tries) -> bool:
                return await house.pool.fetchval("SELECT attempts = $1 FROM jobs.pgqueuer", tries)

            await house.until("it is put off", put_off)
            waits.append(
                await house.pool.fetchval("SELECT extract(epoch FROM execute_after - now()) FROM jobs.pgqueuer")
            )
            await house.pool.execute("UPDATE jobs.pgqueuer SET execute_after = now()")
    assert [round(wait) for wait in waits] == [1, 2, 4]


async def test_a_fault_of_ours_does_not_give_a_recording_up(house: House) -> None:
    await house.call(str(house.write("one.wav")))
    work, faults = house.runner._work, iter([ValueError("a bug"), None])

    async def fail_once(recording_id: object) -> None:
        if (fault := next(faults)) is not None:
            raise fault
        await work(recording_id)

    house.runner._work = fail_once
    (row,) = await house.settled()
    assert row["state"] == "stored"
    assert house.runner.done == {"done": 1, "retried": 0, "failed": 1}


async def test_what_was_said_before_it_listened_does_not_end_the_queue(house: House, database_url: str) -> None:
    """pgqueuer asks whether its LISTEN works beside sending it, not after."""
    heard = asyncio.Event()
    connection = await asyncpg.connect(database_url)
    async with AsyncpgPoolDriver(house.pool) as driver:
        manager = Manager(queries(driver))
        await connection.add_listener(manager.channel, lambda *_: heard.set())
        asking = asyncio.create_task(manager.listener_healthy(timedelta(seconds=2)))
        await heard.wait()
        router = default_event_router(
            notice_event_queue=PGNoticeEventListener(),
            canceled=manager.job_context,
            pending_health_check=manager.pending_health_check,
        )
        await initialize_notice_event_listener(driver, manager.channel, router)
        assert (await asking).channel == manager.channel
    await connection.close()
