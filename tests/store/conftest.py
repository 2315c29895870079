"""A pool and a writer on an empty database."""

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
import pytest_asyncio

from trunkline.crm.matching import select_leads_by_number
from trunkline.embedded.postgres import Postgres
from trunkline.inbox.telephony import upsert_conversations
from trunkline.store.pool import Pool, open_pool
from trunkline.store.writer import CallWriter


@pytest.fixture(scope="module")
def module_database(postgres: Postgres, migrated: str) -> Iterator[str]:
    """One database for the tests of a module: a copy of the template each would cost more than most of them."""
    name = f"test_{uuid4().hex}"
    yield postgres.create_database(name, template=migrated)
    postgres.drop_database(name)


@pytest_asyncio.fixture
async def database_url(module_database: str) -> str:
    """The URL of a migrated and empty database."""
    async with await open_pool(module_database) as pool:
        await pool.execute("TRUNCATE account CASCADE")
    return module_database


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url) as pool:
        yield pool


@pytest_asyncio.fixture
async def writer(pool: Pool) -> CallWriter:
    return CallWriter(pool, "main", leads=select_leads_by_number, conversations=upsert_conversations)
