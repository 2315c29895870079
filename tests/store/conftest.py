"""A pool and a writer on an empty database."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from trunkline.crm.matching import select_leads_by_number
from trunkline.inbox.telephony import mark_missed, upsert_conversations
from trunkline.store.pool import Pool, open_pool
from trunkline.store.writer import CallWriter


@pytest.fixture
def database_url(emptied_database: str) -> str:
    """The module's, for copies cost more than most of the tests."""
    return emptied_database


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url) as pool:
        yield pool


@pytest_asyncio.fixture
async def writer(pool: Pool) -> CallWriter:
    return CallWriter(
        pool, "main", leads=select_leads_by_number, conversations=upsert_conversations, missed=mark_missed
    )
