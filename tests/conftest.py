"""A real PostgreSQL and a real S3 for every test that asks: one server of each a session (or pytest-xdist worker)."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import pytest_asyncio

from trunkline.embedded.postgres import Postgres
from trunkline.embedded.s3 import S3Server
from trunkline.store import migrate
from trunkline.store.pool import open_pool

pytest.register_assert_rewrite("daemon_process", "house", "stage", "vault")  # what they assert is told as a test's is


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server, without fsync, in a temporary directory."""
    with Postgres(durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The name of a database at the head of the migrations: a template, never connected to."""
    migrate.upgrade(postgres.create_database("migrated"))
    return "migrated"


@pytest.fixture
def database_url(postgres: Postgres, migrated: str) -> Iterator[str]:
    """The URL of a fresh, migrated and empty database."""
    name = f"test_{uuid4().hex}"
    yield postgres.create_database(name, template=migrated)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def module_database(postgres: Postgres, migrated: str) -> Iterator[str]:
    """The URL of one migrated database for the tests of a module."""
    name = f"test_{uuid4().hex}"
    yield postgres.create_database(name, template=migrated)
    postgres.drop_database(name)


@pytest_asyncio.fixture
async def emptied_database(module_database: str) -> str:
    """The module's database without what earlier tests left there."""
    async with await open_pool(module_database) as pool:
        await pool.execute("TRUNCATE account, jobs.pgqueuer CASCADE")
    return module_database


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server, with the bucket `recordings`."""
    with S3Server() as server:
        server.create_bucket("recordings")
        yield server
