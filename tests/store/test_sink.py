"""The sink: PostgreSQL away, in every way it can be, costs nothing but time."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from calls import answered, ended, ringing
from structlog.testing import capture_logs

from trunkline.crm.matching import select_leads_by_number
from trunkline.embedded.postgres import Postgres
from trunkline.inbox.telephony import upsert_conversations
from trunkline.store.change import change_of
from trunkline.store.migrate import upgrade
from trunkline.store.pool import Pool, open_pool
from trunkline.store.sink import CallSink
from trunkline.store.spool import Spool
from trunkline.store.writer import CallWriter

DEADLINE_S = 30
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # on port 1 nobody answers


@asynccontextmanager
async def opened(url: str, directory: Path) -> AsyncIterator[CallSink]:
    """A sink as the daemon makes it, but that it tries again sooner."""
    pool = await open_pool(url)
    writer = CallWriter(pool, "main", leads=select_leads_by_number, conversations=upsert_conversations)
    sink = CallSink(writer, Spool(directory), first_wait_s=0.01)
    try:
        yield sink
    finally:
        await sink.close()
        pool.terminate()


@pytest_asyncio.fixture
async def sink(database_url: str, tmp_path: Path) -> AsyncIterator[CallSink]:
    async with opened(database_url, tmp_path) as sink:
        yield sink


@pytest.fixture(scope="module")
def own_server() -> Iterator[Postgres]:
    """A server that may be stopped, with a migrated database `calls` that keeps what it has committed."""
    with Postgres(durable=False) as server:
        url = server.create_database("calls")
        # A crash of the server is no crash of the machine: what is committed must be with the kernel, not on the disk.
        server.execute("ALTER DATABASE calls SET synchronous_commit = on")
        upgrade(url)
        yield server


@pytest.fixture
def own_url(own_server: Postgres) -> str:
    """The URL of that database, emptied."""
    own_server.execute("TRUNCATE account CASCADE", database="calls")
    return own_server.url("calls")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, a while."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for is in a database
            await asyncio.sleep(0.005)


async def told(url: str) -> dict[str, list[str]]:
    """The event types of each call (externalId), in order; checks that the sequence has no gap."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT seq, type, data->'call'->>'externalId' AS call FROM event ORDER BY seq")
    finally:
        await connection.close()
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    of_call: dict[str, list[str]] = {}
    for row in rows:
        if row["type"].startswith("call."):
            of_call.setdefault(row["call"], []).append(row["type"])
    return of_call


STEPS = (ringing, answered, ended)
WHOLE = ["call.ringing", "call.answered", "call.ended"]


async def play(sink: CallSink, names: list[str], between: Callable[[int], Awaitable[None]]) -> None:
    """Let calls ring, be answered and end, a few at a time; `between` gets the number of the write."""
    updates = [[make(name) for name in names[n : n + 5]] for n in range(0, len(names), 5) for make in STEPS]
    for n, batch in enumerate(updates):
        await sink.write(batch)
        await between(n)


async def nothing(_: int) -> None:
    await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_updates_are_rows_when_write_returns(sink: CallSink, pool: Pool) -> None:
    await sink.write([ringing("a"), ringing("b")])
    await sink.write([answered("a")])
    assert (sink.depth, sink.away, sink.written, sink.events) == (0, False, 3, 3)
    assert await pool.fetchval("SELECT count(*) FROM call") == 2
    live = await sink.live("pbx1")
    assert [(r.external_id, r.revision, len(r.legs)) for r in live] == [("a", 2, 2), ("b", 1, 1)]


@pytest.mark.asyncio
async def test_a_server_that_crashes_in_mid_write_loses_nothing(
    own_server: Postgres, own_url: str, tmp_path: Path
) -> None:
    names = [f"pbx1-5.{n}" for n in range(100)]
    chaos: list[asyncio.Task[None]] = []

    async def crash() -> None:
        await asyncio.to_thread(own_server.stop, "immediate")
        await asyncio.to_thread(own_server.start)

    async def between(n: int) -> None:
        if n in (10, 30):
            chaos.append(asyncio.create_task(crash()))
        if n in (20, 50):
            await chaos[-1]
        await asyncio.sleep(0.002)

    with capture_logs() as logs:
        async with opened(own_url, tmp_path) as sink:
            await play(sink, names, between)
            await until(lambda: sink.depth == 0)
            assert (sink.refused, sink.dropped) == (0, 0)
    assert await told(own_url) == dict.fromkeys(names, WHOLE)
    away = [line for line in logs if line["event"] == "store.away"]
    assert 1 <= len(away) <= 4, "not a line for every try"
    assert all("check that PostgreSQL runs" in line["todo"] for line in away)
    assert len([line for line in logs if line["event"] == "store.back"]) == len(away)


@pytest.mark.asyncio
async def test_a_server_that_is_down_at_the_start_gets_it_all_later(
    own_server: Postgres, own_url: str, tmp_path: Path
) -> None:
    names = [f"pbx1-6.{n}" for n in range(60)]
    await asyncio.to_thread(own_server.stop, "immediate")
    try:
        async with opened(own_url, tmp_path) as sink:
            await play(sink, names[:50], nothing)
            await sink.write([ringing(name) for name in names[50:]])
            assert (sink.depth, sink.away) == (60, True)
            assert [r.external_id for r in sink.live_spooled("pbx1")] == names[50:]
    finally:
        await asyncio.to_thread(own_server.start)
    async with opened(own_url, tmp_path) as sink:  # the next daemon
        live = await asyncio.wait_for(sink.live("pbx1"), DEADLINE_S)
        assert sorted(r.external_id for r in live) == sorted(names[50:])
        assert sink.depth == 0
        await sink.write([ended(name, 5) for name in names[50:]])
    assert await told(own_url) == dict.fromkeys(names[:50], WHOLE) | dict.fromkeys(names[50:], WHOLE[::2])


@pytest.mark.asyncio
async def test_a_server_that_turns_read_only_and_back(own_server: Postgres, own_url: str, tmp_path: Path) -> None:
    def flip(setting: str) -> None:
        own_server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
        own_server.execute("SELECT pg_reload_conf()")

    names = [f"pbx1-7.{n}" for n in range(30)]
    with capture_logs() as logs:
        async with opened(own_url, tmp_path) as sink:
            await play(sink, names[:10], nothing)
            await asyncio.to_thread(flip, "on")

            async def write_until_away() -> None:
                while not sink.away:
                    await sink.write([ringing(str(uuid4()))])

            try:
                await asyncio.wait_for(write_until_away(), DEADLINE_S)
                await play(sink, names[10:], nothing)
                assert sink.depth >= 20
            finally:
                await asyncio.to_thread(flip, "off")
            await until(lambda: sink.depth == 0)
    got = await told(own_url)
    assert {name: got[name] for name in names} == dict.fromkeys(names, WHOLE)
    assert [line["todo"] for line in logs if line["event"] == "store.away"] == [
        "the server is read-only, a standby perhaps: point database.url at the primary"
    ]


@pytest.mark.asyncio
async def test_a_server_that_hangs_counts_as_away(database_url: str, tmp_path: Path) -> None:
    blocker = await asyncpg.connect(database_url)
    try:
        async with opened(database_url, tmp_path) as sink:
            await sink.write([ringing("a")])
            sink._writer._deadline_s = 0.5
            transaction = blocker.transaction()
            await transaction.start()
            await blocker.execute("LOCK TABLE call IN ACCESS EXCLUSIVE MODE")
            with capture_logs() as logs:
                await asyncio.wait_for(sink.write([answered("a")]), DEADLINE_S)
            assert (sink.depth, sink.away) == (1, True)
            assert [line["error"] for line in logs] == ["TimeoutError: a write was not done within 0.5 s"]
            await sink.write([ended("a")])
            await transaction.rollback()
            await until(lambda: sink.depth == 0)
    finally:
        await blocker.close()
    assert await told(database_url) == {"a": WHOLE}


@pytest.mark.asyncio
async def test_a_schema_that_is_missing_is_told_and_waited_for(postgres: Postgres, tmp_path: Path) -> None:
    name = f"test_{uuid4().hex}"
    url = postgres.create_database(name)
    try:
        with capture_logs() as logs:
            async with opened(url, tmp_path) as sink:
                await play(sink, ["a"], nothing)
                assert sink.depth == 1
                await asyncio.to_thread(upgrade, url)
                await until(lambda: sink.depth == 0)
        assert await told(url) == {"a": WHOLE}
        (line,) = [line for line in logs if line["event"] == "store.away"]
        assert "trunkline migrate" in line["todo"]
    finally:
        postgres.drop_database(name)


@pytest.mark.asyncio
async def test_what_is_refused_is_kept_and_told_and_holds_up_nobody(sink: CallSink, database_url: str) -> None:
    odd = ringing("odd", duration=2**31)
    with capture_logs() as logs:
        await sink.write([ringing("a"), odd, ringing("b")])
    assert (sink.depth, sink.refused, sink.away) == (0, 1, False)
    assert sorted(await told(database_url)) == ["a", "b"]
    (line,) = [line for line in logs if line["event"] == "call.write_refused"]
    assert (line["linkedid"], line["log_level"]) == ("odd", "error")
    assert "out of range" in line["reason"]


@pytest.mark.asyncio
async def test_what_cannot_be_stored_does_not_stop_the_drain(database_url: str, tmp_path: Path) -> None:
    odd = [ringing("x", direction="SIDEWAYS"), ringing("y", duration=2**31), ringing("z", metadata={"": object()})]
    async with opened(NOWHERE, tmp_path) as sink:
        await sink.write([ringing("a"), *odd, ringing("b", direction="\x00"), ringing("c")])
    with capture_logs() as logs:
        async with opened(database_url, tmp_path) as sink:
            await until(lambda: sink.depth == 0)
            assert sink.refused == 4
    assert sorted(await told(database_url)) == ["a", "c"]
    assert [line["linkedid"] for line in logs if line["event"] == "call.write_refused"] == ["y"]


@pytest.mark.asyncio
async def test_a_spool_that_is_full_leaves_it_in_memory(pool: Pool, database_url: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    sink = CallSink(CallWriter(pool, "main"), spool, first_wait_s=0.01)
    try:
        (pages,) = spool._file.execute("PRAGMA page_count").fetchone()
        spool._file.execute(f"PRAGMA max_page_count = {pages}")
        await pool.execute("ALTER TABLE call RENAME TO call_hidden")
        try:
            with capture_logs() as logs:
                for make in STEPS:
                    await sink.write([make(str(n), queue="x" * 5000) for n in range(50)])
                assert (sink.depth, spool.depth) == (50, 0)
        finally:
            await pool.execute("ALTER TABLE call_hidden RENAME TO call")
        await until(lambda: sink.depth == 0)
        assert await told(database_url) == {str(n): WHOLE for n in range(50)}
        assert any("disk" in line["error"] for line in logs if line["event"] == "spool.failed")
    finally:
        await sink.close()


@pytest.mark.asyncio
async def test_a_cancelled_write_is_written_by_the_next_one(sink: CallSink, database_url: str) -> None:
    task = asyncio.create_task(sink.write([ringing("a")]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sink.write([answered("b")])
    assert await told(database_url) == {"a": ["call.ringing"], "b": ["call.answered"]}


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from calls import answered, ended, ringing
from trunkline.store.pool import open_pool
from trunkline.store.sink import CallSink
from trunkline.store.spool import Spool
from trunkline.store.writer import CallWriter

async def main():
    sink = CallSink(CallWriter(await open_pool(sys.argv[2]), "main"), Spool(Path(sys.argv[3])))
    for n in range(200):
        await sink.write([make(f"pbx1-8.{n}") for make in (ringing, answered, ended)])
        print(n, flush=True)
        if n == 120:
            await sink.write([ringing("still ringing")])
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_daemon_killed_with_a_spool_loses_nothing_of_what_it_took(database_url: str, tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _KILLED,
        str(Path(__file__).parent),
        NOWHERE,
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(child.communicate(), DEADLINE_S)
    taken = [f"pbx1-8.{line}" for line in said.decode().splitlines() if line.isdigit()]  # the log is there, too
    assert (child.returncode, len(taken)) == (-9, 121)
    async with opened(database_url, tmp_path) as sink:
        live = await asyncio.wait_for(sink.live("pbx1"), DEADLINE_S)
        assert [record.external_id for record in live] == ["still ringing"]
    assert await told(database_url) == dict.fromkeys(taken, WHOLE) | {"still ringing": ["call.ringing"]}


@pytest.mark.asyncio
async def test_a_day_of_calls_drains_in_order(database_url: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    names = [f"pbx1-9.{n}" for n in range(3000)]
    updates = [make(name) for name in names for make in STEPS]
    for n in range(0, len(updates), 500):
        spool.put([change_of(update) for update in updates[n : n + 500]])
    spool.close()
    async with opened(database_url, tmp_path) as sink:
        await until(lambda: sink.depth == 0)
        assert sink.written == 3000
    got = await told(database_url)
    assert list(got) == names, "the order is that of the calls"
    assert all(types == WHOLE for types in got.values())
