"""The cursor in a storm: slow commits, rollbacks, cut connections, and readers who come and go. No gap, no double.

Whatever the seed, each reader sees what is in the table in the end, each event once, in order.
"""

import asyncio
import random
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from calls import ended, ringing

from trunkline.api.feed import Feed
from trunkline.store.events import select_events
from trunkline.store.faults import of_the_server
from trunkline.store.pool import Pool, open_pool
from trunkline.store.writer import CallWriter

WRITERS = 5
READERS = 3
CALLS = 12  # of each writer
DEADLINE_S = 60

# At the commit, when the events have their numbers: the worst moment there is.
_TROUBLE = """
DROP TRIGGER IF EXISTS trouble ON event; DROP FUNCTION IF EXISTS trouble;
CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.2 THEN PERFORM pg_sleep(random() * 0.01); END IF;
    IF random() < 0.04 THEN RAISE EXCEPTION 'a rollback' USING ERRCODE = '40001'; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER trouble AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION trouble();
"""
_END_OF_TROUBLE = "DROP TRIGGER IF EXISTS trouble ON event; DROP FUNCTION IF EXISTS trouble"
_CUT_ONE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'trunkline' AND pid <> pg_backend_pid()
ORDER BY random() LIMIT 1
"""


class Storm:
    """What happens to whom, of one seed."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.chance = random.Random(seed)
        self.failed = 0  # writes that did not go well, and were made again
        self.writing = True

    async def write_some(self, pbx: str) -> None:
        """Calls that ring and end, each write again and again until it went well, as the daemon does."""
        async with await open_pool(self.url) as pool:
            writer = CallWriter(pool, "main")
            for n in range(0, CALLS, 4):
                names = [f"{pbx}-{n + i}" for i in range(4)]
                await self._surely(writer, [ringing(name, pbx=pbx) for name in names])
                await self._surely(writer, [ended(name, pbx=pbx) for name in names[: self.chance.randint(1, 4)]])
                await asyncio.sleep(self.chance.random() / 200)

    async def _surely(self, writer: CallWriter, updates: list[Any]) -> None:
        while True:
            try:
                await writer.write(updates)
            except Exception as error:
                if not of_the_server(error):
                    raise
                self.failed += 1
                await asyncio.sleep(self.chance.random() / 50)
            else:
                return

    async def read_some(self, account_id: UUID) -> list[Any]:
        """All events, in pages of any size, over connections that are given up at any moment."""
        seen: list[Any] = []
        reader, over = await asyncpg.connect(self.url), False
        while not over:
            over = not self.writing  # what is committed by now must be in the reads that follow
            while some := await select_events(reader, account_id, seen[-1].seq if seen else 0, self._page()):
                seen += some
                if not over and self.chance.random() < 0.1:
                    reader.terminate()
                    reader = await asyncpg.connect(self.url)
            await asyncio.sleep(self.chance.random() / 20)
        reader.terminate()
        return [(event.seq, event.type, event.call_id) for event in seen]

    def _page(self) -> int:
        return self.chance.choice((1, 2, 7, 100))

    async def follow_some(self, feed: Feed) -> list[tuple[int, str]]:
        """All events as a client of the API is told them."""
        seen: list[tuple[int, str]] = []
        over = False
        while not over:
            await feed.news(seen[-1][0] if seen else 0, self.chance.random() / 20)
            over = not self.writing
            while lines := await self._read(feed, seen[-1][0] if seen else 0):
                seen += [(line.seq, line.type) for line in lines[: self._page()]]
        return seen

    async def _read(self, feed: Feed, after: int) -> list[Any]:
        while True:
            try:
                return await feed.read(after, fresh=not self.writing)
            except Exception as error:
                if not of_the_server(error):
                    raise
                await asyncio.sleep(0.01)

    async def cut_some(self) -> None:
        """Hang up on whoever writes, and on the feed."""
        connection = await asyncpg.connect(self.url)
        try:
            while self.writing:
                await connection.execute(_CUT_ONE)
                await asyncio.sleep(self.chance.random() / 10)
        finally:
            await connection.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(2))
async def test_in_a_storm_a_reader_misses_nothing_and_sees_nothing_twice(
    pool: Pool, database_url: str, seed: int
) -> None:
    await CallWriter(pool, "main").write([ringing("first")])
    account_id: UUID = await pool.fetchval("SELECT id FROM account")
    await pool.execute(_TROUBLE)
    storm = Storm(database_url, seed)

    async def the_account() -> UUID:
        return account_id

    async with asyncio.timeout(DEADLINE_S), await open_pool(database_url, reading=True) as apis:
        feed = Feed(apis, the_account)
        feeding = asyncio.create_task(feed.run())
        cutting = asyncio.create_task(storm.cut_some())
        reading = [asyncio.create_task(storm.read_some(account_id)) for _ in range(READERS)]
        following = [asyncio.create_task(storm.follow_some(feed)) for _ in range(READERS)]
        try:
            await asyncio.gather(*(storm.write_some(f"pbx{n}") for n in range(WRITERS)))
        finally:
            storm.writing = False
            read, followed = await asyncio.gather(*reading), await asyncio.gather(*following)
            await cutting
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding
            async with await open_pool(database_url) as fresh:
                await fresh.execute(_END_OF_TROUBLE)
                stored = [tuple(row) for row in await fresh.fetch("SELECT seq, type, call_id FROM event ORDER BY seq")]
                calls = await fresh.fetchval("SELECT count(*) FROM call")
            apis.terminate()
    assert storm.failed > 0, "there was no storm"
    assert [seq for seq, _, _ in stored] == list(range(1, len(stored) + 1))
    assert read == [stored] * READERS
    assert followed == [[(seq, type_) for seq, type_, _ in stored]] * READERS
    assert calls == WRITERS * CALLS + 1 == sum(type_ == "call.ringing" for _, type_, _ in stored)
    assert len({(type_, call_id) for _, type_, call_id in stored}) == len(stored)  # no happening is told twice
