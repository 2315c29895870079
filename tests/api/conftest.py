"""A served API over a real PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import aiohttp
import pytest_asyncio
from served import ACCOUNT, Serve, Served

from trunkline.api import Link, create_app, listening
from trunkline.metrics import Metrics
from trunkline.store.pool import Pool, open_pool


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url) as pool:
        yield pool


@pytest_asyncio.fixture
async def account_id(pool: Pool) -> UUID:
    return await pool.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", ACCOUNT)


@pytest_asyncio.fixture
async def serve(pool: Pool) -> AsyncIterator[Serve]:
    """Start an API: `await serve(keys=[...], links=..., account=..., head=...)`."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            account: str = ACCOUNT,
            keys: Sequence[str] = (),
            head: str | None = None,
            links: Callable[[], Sequence[Link]] = tuple,
            database: Pool = pool,
        ) -> Served:
            metrics = Metrics("test")
            app = create_app(database, account=account, keys=keys, head=head, links=links, metrics=metrics)
            url = await stack.enter_async_context(listening(app, "127.0.0.1", 0))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return Served(url, client, metrics)

        yield start


@pytest_asyncio.fixture
async def api(serve: Serve, account_id: UUID) -> Served:
    """The API of the account without a key."""
    return await serve()
