"""A running API seen by its client, and calls to be listed."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import aiohttp

from trunkline.api.state import State
from trunkline.store.pool import Pool

ACCOUNT = "main"
Serve = Callable[..., Any]
Away = Callable[[], AbstractAsyncContextManager[None]]


class Served:
    """A running API and a client of it."""

    def __init__(self, url: str, client: aiohttp.ClientSession, state: State) -> None:
        self.url = url
        self.client = client
        self.state = state
        self.metrics = state.metrics

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """GET; the status and the decoded JSON."""
        async with self.client.get(self.url + path, **options) as response:
            return response.status, await response.json(content_type=None)

    async def raw(self, path: str, *, method: str = "GET", **options: Any) -> tuple[aiohttp.ClientResponse, bytes]:
        """Any request; the response and its body."""
        async with self.client.request(method, self.url + path, **options) as response:
            return response, await response.read()


async def insert_calls(connection: Pool, account_id: UUID, count: int, *, start: str = "2026-01-01T00:00:00Z") -> None:
    """Insert calls, several of which share each second, of every direction and status and of few numbers."""
    await connection.execute(_INSERT, account_id, count, start)


_INSERT = """
INSERT INTO call (account_id, pbx, external_id, channel_id, direction, status, from_number, to_number, phone_number,
                  from_e164, to_e164, started_at, duration, rang)
SELECT $1, 'office', gen_random_uuid()::text, 'office-' || n, direction, status, f, t,
       CASE direction WHEN 'outbound' THEN t ELSE f END,
       CASE WHEN f LIKE '0%' THEN '+44' || substr(f, 2) END, CASE WHEN t LIKE '0%' THEN '+44' || substr(t, 2) END,
       $3::text::timestamptz + (n / 3) * interval '1 s', n % 100, '{1001}'
  FROM (SELECT n,
               (ARRAY['inbound', 'outbound', 'internal'])[1 + n % 3] AS direction,
               (ARRAY['completed', 'missed', 'busy', 'abandoned'])[1 + n % 4] AS status,
               CASE n % 3 WHEN 0 THEN '0207000' || n % 7 ELSE (1001 + n % 4)::text END AS f,
               CASE n % 3 WHEN 0 THEN '02079460000' WHEN 1 THEN '0207000' || n % 5 ELSE (1001 + n % 3)::text END AS t
          FROM generate_series(1, $2::int) AS n) AS made
"""
