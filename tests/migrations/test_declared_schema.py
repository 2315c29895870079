"""The migrations lead to exactly what store/tables.py declares, and each step down to exactly what was before it."""

import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from catalog import catalog, regardless_of_validation
from filled import execute, fetch
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from trunkline.calls import record
from trunkline.store import migrate, tables

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012", "0013")


def in_sqlalchemy(url: str, work: Any) -> Any:
    async def whole() -> Any:
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:", 1), poolclass=NullPool)
        async with engine.begin() as connection:
            done = await connection.run_sync(work)
        await engine.dispose()
        return done

    return asyncio.run(whole())


def test_the_list_of_revisions_is_whole():
    assert migrate.head() == REVISIONS[-1]


def test_migrated_is_declared_in_the_catalog(empty_url, database_url):
    in_sqlalchemy(empty_url, tables.metadata.create_all)
    declared = catalog(empty_url)
    assert len(declared) > 200
    assert catalog(database_url) == declared


def test_migrated_is_declared_for_alembic(database_url):
    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, tables.metadata)

    assert in_sqlalchemy(database_url, compare) == []


def test_the_comparison_can_fail(database_url):
    before = catalog(database_url)
    execute(database_url, "ALTER TABLE call ALTER COLUMN to_number DROP DEFAULT", "DROP INDEX ix_call_live")
    changed = dict(set(before.items()) ^ set(catalog(database_url).items()))
    assert set(changed) == {"column call.to_number", "index ix_call_live"}


def test_every_step_down_leads_to_the_schema_before_it(filled_url):
    way_up = {}
    for revision in REVISIONS:
        migrate.upgrade(filled_url, revision)
        way_up[revision] = catalog(filled_url)
    assert not any(
        " NOT VALID" in definition or " INVALID" in definition for definition in way_up[REVISIONS[-1]].values()
    )
    for down, up in zip(reversed(REVISIONS[:-1]), reversed(REVISIONS[1:]), strict=True):
        migrate.downgrade(filled_url, down)
        assert regardless_of_validation(catalog(filled_url)) == regardless_of_validation(way_up[down])
        migrate.upgrade(filled_url, up)
        assert regardless_of_validation(catalog(filled_url)) == regardless_of_validation(way_up[up])
        migrate.downgrade(filled_url, down)
    assert catalog(filled_url) == way_up["0001"]


def test_down_to_nothing_leaves_nothing(database_url):
    migrate.downgrade(database_url, "base")
    assert migrate.current(database_url) is None
    assert catalog(database_url) == {}
    assert fetch(database_url, "SELECT FROM pg_namespace WHERE nspname IN ('kept', 'jobs')") == []
    migrate.upgrade(database_url)
    assert migrate.current(database_url) == migrate.head()


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("call", "direction", record.Direction),
        ("call", "status", record.Status),
        ("call", "end_reason", record.EndReason),
        ("call", "ended_by", record.EndedBy),
        ("call", "quality", record.Quality),
        ("call_leg", "role", record.Role),
        ("call_leg", "end_reason", record.LegEnd),
        ("call_recording", "kind", record.RecordingKind),
    ],
)
def test_every_word_of_the_tracker_can_be_stored(database_url, table, column, words):
    name = f"constraint {table}.ck_{table}_{column}"
    allowed = catalog(database_url)[name]
    assert [f"'{word.lower()}'" in allowed for word in words] == [True] * len(words)
