"""A real PostgreSQL for every test that asks: one server a session (or pytest-xdist worker), one database a test."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from trunkline.embedded.postgres import Postgres
from trunkline.store.tables import metadata


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server, without fsync, in a temporary directory."""
    with Postgres(durable=False) as server:
        yield server


async def _create_all(url: str) -> None:
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:", 1), poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The name of a database at the head of the migrations: a template, never connected to."""
    asyncio.run(_create_all(postgres.create_database("migrated")))
    return "migrated"


@pytest.fixture
def database_url(postgres: Postgres, migrated: str) -> Iterator[str]:
    """The URL of a fresh, migrated and empty database."""
    name = f"test_{uuid4().hex}"
    yield postgres.create_database(name, template=migrated)
    postgres.drop_database(name)
