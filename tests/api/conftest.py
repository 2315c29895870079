"""A served API over a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio
from served import ACCOUNT, Away, Serve, Served, insert_calls

from trunkline.api import Access, Commands, Link, create_app, listening
from trunkline.api.state import STATE
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.embedded.postgres import Postgres
from trunkline.identity.oidc import Issuer
from trunkline.inbox.secrets import Vault
from trunkline.metrics import Metrics
from trunkline.objects.s3 import ObjectStore
from trunkline.store.pool import Pool, open_pool

URLS: Final[dict[Pool, str]] = {}  # where a pool leads


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Sees every row; an API that is served from it does not."""
    async with await open_pool(database_url, reading=True) as pool:
        URLS[pool] = database_url
        yield pool
        del URLS[pool]


@pytest_asyncio.fixture
async def account_id(pool: Pool) -> UUID:
    return await pool.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", ACCOUNT)


@pytest.fixture
def away(postgres: Postgres, database_url: str) -> Away:
    """`async with away():` has the database refuse everybody, those who are in it too, until the end of it."""
    name = database_url.rpartition("/")[2]

    @asynccontextmanager
    async def refusing() -> AsyncIterator[None]:
        shut = f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"
        cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        for sql in (shut, cut):
            await asyncio.to_thread(postgres.execute, sql)
        try:
            yield
        finally:
            await asyncio.to_thread(postgres.execute, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    return refusing


@pytest.fixture(scope="session")
def shared_url(postgres: Postgres, migrated: str) -> Iterator[str]:
    """The URL of a database that tests share and leave as it is: 30 calls of the account, 3 of another one."""
    url = postgres.create_database("shared_api", template=migrated)

    async def fill() -> None:
        async with await open_pool(url) as pool:
            for name, calls in ((ACCOUNT, 30), ("other", 3)):
                added = await pool.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", name)
                await insert_calls(pool, added, calls)

    asyncio.run(fill())
    yield url
    postgres.drop_database("shared_api")


@pytest_asyncio.fixture
async def shared_pool(shared_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(shared_url, reading=True) as pool:
        URLS[pool] = shared_url
        yield pool
        del URLS[pool]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an API: `await serve(pool, keys=[...], links=..., account=..., head=..., region=...)`; and Access.

    It sees the database of `pool`, as the daemon's API does: its own account's rows only.
    """
    async with AsyncExitStack() as stack:

        async def start(
            pool: Pool,
            *,
            account: str = ACCOUNT,
            keys: Sequence[str] = (),
            head: str | None = None,
            links: Callable[[], Sequence[Link]] = tuple,
            webhooks: WebhookClient | None = None,
            oidc: Issuer | None = None,
            objects: ObjectStore | None = None,
            vault: Vault | None = None,
            region: str | None = None,
            commands: Commands | None = None,
            **access: Any,
        ) -> Served:
            metrics = Metrics("test")
            if pool in URLS:
                pool = await open_pool(URLS[pool], reading=True, account=account)
                stack.callback(pool.terminate)
            app = create_app(
                pool,
                account=account,
                access=Access(keys, **access),
                head=head,
                links=links,
                metrics=metrics,
                webhooks=webhooks,
                oidc=oidc,
                objects=objects,
                vault=vault,
                region=region,
                commands=commands,
            )
            url = await stack.enter_async_context(listening(app, "127.0.0.1", 0))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return Served(url, client, app[STATE])

        yield start


@pytest_asyncio.fixture
async def api(serve: Serve, pool: Pool, account_id: UUID) -> Served:
    """The API of an account without a key, over a database of the test's own."""
    return await serve(pool)


@pytest_asyncio.fixture
async def shared(serve: Serve, shared_pool: Pool) -> Served:
    """The API of the account without a key, over the shared database."""
    return await serve(shared_pool)
