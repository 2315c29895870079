"""What of the inbox runs by itself; on the asyncio thread."""

import asyncio

from trunkline.inbox.media import Remover
from trunkline.inbox.snooze import Waker
from trunkline.objects.s3 import ObjectStore
from trunkline.store.pool import Pool, open_pool


class InboxService:
    """The inboxes of all accounts of the database; several daemons may do it at once."""

    def __init__(self, pool: Pool, store: ObjectStore | None) -> None:
        """Use `open`. store: where media files are; None: nowhere."""
        self._pool = pool
        self.waker = Waker(pool)
        self.remover = None if store is None else Remover(pool, store)

    @classmethod
    async def open(cls, url: str, store: ObjectStore | None) -> "InboxService":
        """Open without needing the database or the storage."""
        return cls(await open_pool(url, max_size=2), store)

    async def run(self) -> None:
        """Never returns; whatever is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.waker.run(), name="inbox.waker")
            if self.remover is not None:
                tasks.create_task(self.remover.run(), name="inbox.remover")

    def cut(self) -> None:
        """Hang up on PostgreSQL."""
        self._pool.terminate()
