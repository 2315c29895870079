"""A real PostgreSQL for every test that asks: one server a session (or pytest-xdist worker), one database a test."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from trunkline.embedded.postgres import Postgres
from trunkline.store import migrate


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
