"""The cursor of the events table: whoever commits when, a reader misses nothing and sees nothing twice."""

import asyncio
import random
from uuid import UUID

import asyncpg
import pytest
from calls import ended, ringing

from trunkline.store.events import CHANNEL, select_events
from trunkline.store.pool import Pool
from trunkline.store.writer import CallWriter

WRITERS = 5
CALLS = 40


async def write_some(pool: Pool, pbx: str, seed: int) -> None:
    chance = random.Random(seed)
    writer = CallWriter(pool, "main")
    for n in range(0, CALLS, 4):
        names = [f"{pbx}-{n + i}" for i in range(4)]
        await writer.write([ringing(name, pbx=pbx) for name in names])
        await writer.write([ended(name, pbx=pbx) for name in names[: chance.randint(1, 4)]])
        await asyncio.sleep(chance.random() / 500)  # so that the writers meet differently every time


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_a_reader_of_the_cursor_misses_nothing_and_sees_nothing_twice(
    pool: Pool, database_url: str, seed: int
) -> None:
    await CallWriter(pool, "main").write([ringing("first")])
    account_id: UUID = await pool.fetchval("SELECT id FROM account")
    writers = asyncio.gather(*(write_some(pool, f"pbx{n}", seed * WRITERS + n) for n in range(WRITERS)))
    seen = []
    reader = await asyncpg.connect(database_url)
    try:
        over = False
        while not over:
            over = writers.done()  # what is committed by now must be in the reads that follow
            while some := await select_events(reader, account_id, seen[-1].seq if seen else 0, 7):
                seen += some
    finally:
        await writers
        await reader.close()
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    stored = await pool.fetch("SELECT seq, type, call_id FROM event ORDER BY seq")
    assert [(event.seq, event.type, event.call_id) for event in seen] == [tuple(row) for row in stored]
    assert sum(event.type == "call.ringing" for event in seen) == WRITERS * CALLS + 1
    of_call: dict[UUID | None, list[str]] = {}
    for event in seen:
        of_call.setdefault(event.call_id, []).append(event.type)
    assert {tuple(types) for types in of_call.values()} <= {("call.ringing",), ("call.ringing", "call.ended")}


@pytest.mark.asyncio
async def test_who_listens_is_told_of_the_last_event(pool: Pool, database_url: str) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database_url)
    try:
        await listener.add_listener(CHANNEL, lambda *notice: told.put_nowait(notice[3]))
        await CallWriter(pool, "main").write([ringing("a"), ringing("b"), ended("c")])
        account_id = await pool.fetchval("SELECT id FROM account")
        assert await asyncio.wait_for(told.get(), 5) == f"{account_id} 3"
    finally:
        await listener.close()


@pytest.mark.asyncio
async def test_an_event_shows_the_call_as_it_was(pool: Pool) -> None:
    writer = CallWriter(pool, "main")
    await writer.write([ringing("a", caller_name='J "\\ 日本')])
    await writer.write([ended("a")])
    account_id = await pool.fetchval("SELECT id FROM account")
    first, second = await select_events(pool, account_id, 0, 10)
    assert (first.data["call"]["status"], first.data["call"]["callerName"]) == ("RINGING", 'J "\\ 日本')
    assert first.data["call"]["startedAt"] == "2026-03-04T09:30:00.000000Z"
    assert (second.data["call"]["status"], second.data["call"]["duration"]) == ("COMPLETED", 65)
    assert first.data["call"]["id"] == str(first.call_id) == str(second.call_id)
    assert await select_events(pool, account_id, 2, 10) == []
    assert [event.seq for event in await select_events(pool, account_id, 0, 1)] == [1]
