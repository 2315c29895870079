"""Databases at the old schema: an empty one, and one with some thousand rows in it."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from filled import OldRows, run

from trunkline.embedded.postgres import Postgres
from trunkline.store import migrate


@pytest.fixture(scope="session")
def filled_template(postgres: Postgres) -> str:
    """The name of a filled database at revision 0001."""
    url = postgres.create_database("filled_0001")
    migrate.upgrade(url, "0001")
    run(url, OldRows().fill)
    return "filled_0001"


@pytest.fixture
def empty_url(postgres: Postgres) -> Iterator[str]:
    """A database without anything."""
    name = f"empty_{uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def filled_url(postgres: Postgres, filled_template: str) -> Iterator[str]:
    """A filled database at revision 0001, this test's own."""
    name = f"filled_{uuid4().hex}"
    yield postgres.create_database(name, template=filled_template)
    postgres.drop_database(name)
