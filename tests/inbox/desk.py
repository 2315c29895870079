"""What the tests of the inbox look at: rows, objects, events; and how they send files."""

import json
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import aiohttp
from served import Served

from trunkline.inbox.media import Remover
from trunkline.objects.s3 import ObjectStore
from trunkline.store.pool import Pool

ACCOUNT = "main"
BUCKET = "recordings"
FILES = "/api/v1/media-files"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8


class Desk:
    """One account's inbox, seen from behind."""

    def __init__(self, pool: Pool, account_id: UUID, store: ObjectStore) -> None:
        self.pool = pool
        self.account_id = account_id
        self.store = store
        self.prefix = f"t{uuid4().hex}/"  # what this test puts into the bucket that all share
        self.remover = Remover(pool, store)

    def objects(self) -> list[str]:
        """Keys of what there is, whole or begun."""
        client = self.store._client
        whole = client.list_objects(bucket_name=BUCKET, prefix=self.prefix, recursive=True)
        begun = client._list_multipart_uploads(BUCKET, prefix=self.prefix).uploads
        return sorted([one.object_name for one in whole] + [one.object_name for one in begun])

    async def files(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.pool.fetch("SELECT * FROM media_file ORDER BY uploaded_at, id")]

    async def due(self) -> list[str]:
        """Keys of the objects that are to go."""
        return [row["key"] for row in await self.pool.fetch("SELECT key FROM object_removal ORDER BY key")]

    async def swept(self) -> int:
        """Remove what is to go, as if its time had come; how many objects went."""
        await self.pool.execute("UPDATE object_removal SET due_at = now()")
        return await self.remover.sweep()

    async def nothing_left(self) -> None:
        """After a sweep there is neither a file nor an object."""
        assert await self.files() == []
        await self.swept()
        assert (self.objects(), await self.due()) == ([], [])

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        """All events there are, as (type, data)."""
        rows = await self.pool.fetch("SELECT seq, type, data FROM event ORDER BY account_id, seq")
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        return [(row["type"], json.loads(row["data"])) for row in rows]


def form(*files: tuple[str, bytes], field: str = "file") -> aiohttp.FormData:
    """A form of files: (name, content)."""
    made = aiohttp.FormData(quote_fields=False)
    for name, content in files:
        made.add_field(field, BytesIO(content), filename=name, content_type="application/x-lies")
    return made


async def ask(api: Served, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
    """Any request with JSON; the status and the decoded answer."""
    response, read = await api.raw(path, method=method, **({} if body is None else {"json": body}), **options)
    return response.status, json.loads(read) if read else None


async def upload(api: Served, *files: tuple[str, bytes]) -> list[dict[str, Any]]:
    """Send files that are taken; what is told of them."""
    response, body = await api.raw(FILES, method="POST", data=form(*files))
    assert response.status == 201, body
    return json.loads(body)["items"]
