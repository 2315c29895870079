"""A real S3 server, a real PostgreSQL, a spool, and what takes recordings from it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from house import ACCOUNT, House
from served import Serve, Served

from trunkline.api import Access, create_app, listening
from trunkline.api.state import STATE
from trunkline.embedded.s3 import S3Server
from trunkline.metrics import Metrics
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.jobs import enqueue_recordings
from trunkline.store.pool import Pool, open_pool

BUCKET = "recordings"


@pytest.fixture
def database_url(emptied_database: str) -> str:
    """The module's, for copies cost more than most of the tests."""
    return emptied_database


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with await open_pool(database_url, max_size=12) as pool:
        yield pool


@pytest_asyncio.fixture
async def house(pool: Pool, s3: S3Server, tmp_path: Path) -> AsyncIterator[House]:
    """A spool, a store and an uploader; nothing runs until a test says so."""
    (tmp_path / "monitor").mkdir()
    house = House(pool, s3.endpoint, s3.access_key, s3.secret_key, BUCKET, tmp_path / "monitor")
    yield house
    await house.close()


@pytest_asyncio.fixture
async def serve(house: House, database_url: str) -> AsyncIterator[Serve]:
    """Start an API over the house, with a pool such as the daemon gives it: `await serve(keys=[...], objects=...)`."""
    async with AsyncExitStack() as stack:
        reading = await stack.enter_async_context(await open_pool(database_url, reading=True, account=ACCOUNT))

        async def start(
            *, account: str = ACCOUNT, keys: Sequence[str] = (), objects: ObjectStore | None = house.store
        ) -> Served:
            metrics = Metrics("test")
            pool = reading
            if account != ACCOUNT:
                pool = await stack.enter_async_context(await open_pool(database_url, reading=True, account=account))
            app = create_app(
                pool, account=account, metrics=metrics, access=Access(keys), objects=objects, enqueue=enqueue_recordings
            )
            url = await stack.enter_async_context(listening(app, "127.0.0.1", 0))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return Served(url, client, app[STATE])

        yield start
