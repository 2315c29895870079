"""An account, receivers and the service, over a real PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import aiohttp
import pytest_asyncio
from hooks import ACCOUNT, HERE, House
from receiver import Receiver
from served import Serve, Served

from trunkline.api import Access, create_app, listening
from trunkline.api.state import STATE
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.destination import Destinations
from trunkline.metrics import Metrics
from trunkline.store.pool import Pool, open_pool


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url, max_size=16) as pool:
        yield pool


@pytest_asyncio.fixture
async def account_id(pool: Pool) -> UUID:
    return await pool.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", ACCOUNT)


@pytest_asyncio.fixture
async def house(pool: Pool, account_id: UUID) -> AsyncIterator[House]:
    house = House(pool, account_id)
    yield house
    await house.close()


@pytest_asyncio.fixture
async def receiver(house: House) -> Receiver:
    return await house.receiver()


@pytest_asyncio.fixture
async def serve(house: House, database_url: str) -> AsyncIterator[Serve]:
    """Start an API: `await serve(account=..., keys=[...], destinations=...)`."""
    async with AsyncExitStack() as stack:

        async def reading(account: str) -> Pool:
            pool = await open_pool(database_url, reading=True, account=account)
            stack.callback(pool.terminate)
            return pool

        async def start(
            *, account: str = ACCOUNT, keys: Sequence[str] = (), destinations: Destinations = HERE
        ) -> Served:
            metrics = Metrics("test")
            app = create_app(
                await reading(account),
                account=account,
                metrics=metrics,
                access=Access(keys),
                webhooks=WebhookClient(destinations),
            )
            url = await stack.enter_async_context(listening(app, "127.0.0.1", 0))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return Served(url, client, app[STATE])

        yield start


@pytest_asyncio.fixture
async def api(serve: Serve) -> Served:
    return await serve()
