"""Up beside a working old program: nobody is stopped for long, nothing is rewritten, nothing written is missed."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest
from catalog import catalog
from filled import CALLS, fetch
from meanwhile import in_background, interrupted, until

from trunkline.store import migrate
from trunkline.store.online import LOCK_TIMEOUT_S

BIG = ("call", "message", "media_file", "conversation", "call_recording", "lead")
# What the old program does all day.
OLD_STATEMENTS = (
    """INSERT INTO call (account_id, direction, phone_number, status, started_at, metadata)
       SELECT id, 'inbound', '+15557654321', 'ringing', now(), '{"to": "4420"}' FROM account LIMIT 1""",
    "UPDATE call SET status = 'completed' WHERE id = (SELECT id FROM call ORDER BY id LIMIT 1)",
    """WITH file AS (INSERT INTO media_file (account_id, key) SELECT id, 'in/late.txt' FROM account LIMIT 1 RETURNING *)
       INSERT INTO message (account_id, conversation_id, direction, media_file_id)
       SELECT file.account_id, (SELECT id FROM conversation LIMIT 1), 'inbound', file.id FROM file""",
    "SELECT count(*) FROM call JOIN lead ON lead.id = call.lead_id",
    "SELECT count(*) FROM message JOIN conversation ON conversation.id = conversation_id",
)
# How long a statement may take beside the migration: it may wait once for a lock that is given up in time.
LONGEST_S = LOCK_TIMEOUT_S + 3


class OldProgram(threading.Thread):
    """Runs the statements of the old program in turn until told to stop."""

    def __init__(self, url: str, statements: tuple[str, ...] = OLD_STATEMENTS) -> None:
        super().__init__()
        self._url = url
        self._statements = statements
        self._told = threading.Event()
        self.warm = threading.Event()
        self.fault: BaseException | None = None
        self.rounds = 0
        self.longest_s = 0.0

    def run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:
            self.fault = error
        finally:
            self.warm.set()

    async def _work(self) -> None:
        # No statement cache: columns come and go, and each program would prepare anew.
        connection = await asyncpg.connect(self._url, statement_cache_size=0)
        while not self._told.is_set():
            for statement in self._statements:
                begin = time.monotonic()
                await connection.execute(statement)
                self.longest_s = max(self.longest_s, time.monotonic() - begin)
            self.rounds += 1
            self.warm.set()
        await connection.close()

    def finish(self) -> None:
        self._told.set()
        self.join()
        if self.fault is not None:
            raise self.fault


@contextmanager
def working(url: str, statements: tuple[str, ...] = OLD_STATEMENTS) -> Iterator[OldProgram]:
    program = OldProgram(url, statements)
    program.start()
    program.warm.wait()
    try:
        yield program
    finally:
        program.finish()


def test_the_old_program_works_on_and_what_it_writes_is_backfilled(filled_url):
    with working(filled_url) as program:
        before = program.rounds
        migrate.upgrade(filled_url, "0003")
        during = program.rounds - before
    assert during > 0
    assert program.longest_s < LONGEST_S
    written = fetch(filled_url, "SELECT count(*) FROM call WHERE phone_number = '+15557654321'")[0][0]
    assert written == program.rounds
    migrate.upgrade(filled_url)
    assert fetch(
        filled_url,
        "SELECT from_number, to_number, count(*)::int FROM call WHERE phone_number = '+15557654321' GROUP BY 1, 2",
    ) == [("+15557654321", "4420", program.rounds)]
    assert fetch(
        filled_url,
        "SELECT name, count(*)::int, count(message_id)::int FROM media_file WHERE key = 'in/late.txt' GROUP BY 1",
    ) == [("late.txt", program.rounds, program.rounds)]


def test_reading_and_writing_go_on_while_the_constraints_are_checked(filled_url):
    migrate.upgrade(filled_url, "0003")
    with working(filled_url, OLD_STATEMENTS[:2] + OLD_STATEMENTS[3:]) as program:
        before = program.rounds
        migrate.upgrade(filled_url)
        assert program.rounds > before
    assert program.longest_s < LONGEST_S


def test_no_big_table_is_rewritten(filled_url):
    names = ", ".join(f"'{name}'" for name in sorted(BIG))
    statement = f"SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relname IN ({names}) ORDER BY relname"
    before = fetch(filled_url, statement)
    migrate.upgrade(filled_url)
    assert len(before) == len(BIG)
    assert fetch(filled_url, statement) == before


def test_whoever_comes_behind_a_waiting_migration_does_not_wait_with_it(filled_url):
    async def hold() -> None:
        connection = await asyncpg.connect(filled_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE call IN ACCESS SHARE MODE")  # a report that takes its time
        held.set()
        await asyncio.to_thread(release.wait)
        await transaction.rollback()
        await connection.close()

    held, release = threading.Event(), threading.Event()
    holder, _ = in_background(lambda: asyncio.run(hold()))
    held.wait()
    with working(filled_url) as program:
        migration, outcome = in_background(lambda: migrate.upgrade(filled_url))
        waits = "SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        until(lambda: fetch(filled_url, waits))
        before = program.rounds
        until(lambda: program.rounds >= before + 3)
        assert migration.is_alive()
        waited_s = program.longest_s
        program.finish()
        release.set()
        migration.join()
    holder.join()
    assert waited_s < LONGEST_S
    assert outcome[0].after == migrate.head()


def test_two_at_once_do_it_once(filled_url):
    both = [in_background(lambda: migrate.upgrade(filled_url)) for _ in range(2)]
    for thread, _ in both:
        thread.join()
    outcomes = sorted((outcome[0] for _, outcome in both), key=lambda done: done.before)
    assert [(done.before, done.after) for done in outcomes] == [
        ("0001", migrate.head()),
        (migrate.head(), migrate.head()),
    ]
    assert outcomes[1].figures == {}


@pytest.mark.parametrize(
    "reached",
    [
        "SELECT FROM pg_attribute WHERE attrelid = 'media_file'::regclass AND attname = 'message_id'",
        "SELECT FROM pg_class WHERE relname = 'media_clone'",
        "SELECT FROM pg_attribute WHERE attrelid = 'call'::regclass AND attname = 'to_number' AND attnotnull",
        "SELECT FROM pg_class WHERE relname = 'ix_call_page_from'",
    ],
    ids=["expanding", "backfilling", "constraining", "indexing"],
)
def test_an_interrupted_migration_is_run_again(filled_url, database_url, reached):
    with pytest.raises(migrate.MigrationError, match="the migration stopped: "):
        raise interrupted(filled_url, reached)
    migrate.upgrade(filled_url)
    assert catalog(filled_url) == catalog(database_url)
    calls = "SELECT count(*) FILTER (WHERE phone_number IN (from_number, to_number))::int FROM call"
    assert fetch(filled_url, calls) == [(CALLS,)]
    files = "SELECT count(DISTINCT message_id)::int, count(message_id)::int FROM media_file"
    assert len(set(fetch(filled_url, files)[0])) == 1
