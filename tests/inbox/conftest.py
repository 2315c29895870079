"""A served API over a real PostgreSQL and a real S3, and what of the inbox runs beside it."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio
from desk import ACCOUNT, BUCKET, Desk
from s3_proxy import S3Proxy
from served import Serve, Served

from trunkline.api import Access, create_app, listening
from trunkline.api.integrations import TELEGRAM
from trunkline.api.state import STATE
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.embedded.s3 import S3Server
from trunkline.inbox.media import UploadLimits
from trunkline.inbox.secrets import Vault
from trunkline.metrics import Metrics
from trunkline.objects.s3 import ObjectStore
from trunkline.store.pool import Pool, open_pool


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Sees every row."""
    async with await open_pool(database_url, max_size=8) as pool:
        yield pool


@pytest_asyncio.fixture
async def account_id(pool: Pool) -> UUID:
    return await pool.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", ACCOUNT)


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    """Between us and the storage."""
    with S3Proxy(s3.port) as proxy:
        yield proxy


@pytest.fixture
def desk(pool: Pool, s3: S3Server, account_id: UUID) -> Iterator[Desk]:
    desk = Desk(pool, account_id, ObjectStore(s3.endpoint, BUCKET, s3.access_key, s3.secret_key, silent_s=5))
    yield desk
    desk.store.close()


@pytest_asyncio.fixture
async def serve(desk: Desk, database_url: str) -> AsyncIterator[Serve]:
    """Start an API over the desk: `await serve(keys=[...], objects=..., account=..., file=..., request=...)`."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            account: str = ACCOUNT,
            keys: Sequence[str] = (),
            objects: ObjectStore | None = desk.store,
            secret: bytes | None = None,
            vault: Vault | None = None,
            webhooks: WebhookClient | None = None,
            telegram: str = TELEGRAM,
            **limits: Any,
        ) -> Served:
            pool = await stack.enter_async_context(await open_pool(database_url, reading=True, account=account))
            app = create_app(
                pool, account=account, metrics=Metrics("test"), access=Access(keys, secret=secret), objects=objects,
                uploads=UploadLimits(prefix=desk.prefix, **limits), vault=vault, webhooks=webhooks, telegram=telegram,
            )  # fmt: skip
            url = await stack.enter_async_context(listening(app, "127.0.0.1", 0))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return Served(url, client, app[STATE])

        yield start


@pytest_asyncio.fixture
async def api(serve: Serve) -> Served:
    return await serve()


@pytest_asyncio.fixture
async def through(serve: Serve, proxy: S3Proxy, s3: S3Server) -> AsyncIterator[Served]:
    """An API whose storage is behind the proxy."""
    store = ObjectStore(proxy.endpoint, BUCKET, s3.access_key, s3.secret_key, silent_s=2)
    yield await serve(objects=store)
    store.close()
