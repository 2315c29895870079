"""A database of the old schema as the years leave it behind, and how to look at all that is in one."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

CALLS = 1500
START = datetime(2024, 2, 29, 23, 59, tzinfo=UTC)
METADATA = (
    None,
    {},
    {"to": "442070001000", "from": "1001"},
    {"to": 2000, "from": 1002},
    {"to": None, "from": ""},
    {"to": {"number": "1"}, "from": ["2"]},
    {"did": "+442070001003", "caller": "1003"},
    {"to": "", "toNumber": "7", "fromNumber": "8"},
    [],
    ["to", "from"],
    "to",
    5,
    True,
    {"note": "日本\u2028'\"\\; DROP TABLE call"},
)
NUMBERS = (
    "+15551234567",
    "+44 (20) 7000-1000",
    "0301234567",
    "1001",
    "",
    "anonymous",
    "+0",
    "+1555123456789012345",
    "café",
)
KEYS = (
    "{uuid}-holiday photo.jpg",
    "in/2024/{uuid}_invoice.pdf",
    "in/{uuid}.ogg",
    "{uuid}",
    "plain.txt",
    "a/b/",
    "",
    "///",
    "{uuid}-{uuid}-twice.png",
    "snow☃/{uuid}-☃.jpg",
    "not-a-uuid-1234.bin",
)


def run(url: str, work: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    """Run `work` on a connection of its own, in an event loop of its own."""

    async def whole() -> Any:
        connection = await asyncpg.connect(url)
        try:
            await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(whole())


def execute(url: str, *statements: str) -> None:
    """Run statements, each in its own transaction."""

    async def work(connection: asyncpg.Connection) -> None:
        for statement in statements:
            await connection.execute(statement)

    run(url, work)


def fetch(url: str, statement: str, *values: Any) -> list[asyncpg.Record]:
    """Return the rows of a statement."""
    return run(url, lambda connection: connection.fetch(statement, *values))


def contents(url: str) -> dict[str, list[str]]:
    """Return every row of every table, as sorted JSON."""

    async def work(connection: asyncpg.Connection) -> dict[str, list[str]]:
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )
        found = {}
        for (table,) in tables:
            rows = await connection.fetch(f"SELECT to_jsonb(t) AS row FROM {table} AS t")
            found[table] = sorted(json.dumps(row["row"], sort_keys=True) for row in rows)
        return found

    return run(url, work)


class OldRows:
    """Rows of the old schema, the same ones for the same seed."""

    def __init__(self, calls: int = CALLS, messages: int = 1500, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._calls = calls
        self._messages = messages

    def _uuid(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def _pick(self, values: Any) -> Any:
        return self._random.choice(values)

    def _maybe(self, values: Any) -> Any:
        return self._pick(values) if self._random.random() < 0.7 else None

    def _time(self) -> datetime:
        # Few distinct ones: ties are what an order has to survive.
        return START + timedelta(minutes=self._random.randrange(500))

    async def fill(self, connection: asyncpg.Connection) -> None:
        """Insert them all."""
        accounts = [self._uuid() for _ in range(3)]
        await self._copy(
            connection, "account", ["id", "name"], [(id_, f"account {n}") for n, id_ in enumerate(accounts)]
        )
        leads = [(self._uuid(), self._pick(accounts), f"lead {n}", self._maybe(NUMBERS)) for n in range(300)]
        await self._copy(connection, "lead", ["id", "account_id", "name", "phone"], leads)
        await connection.execute(
            """INSERT INTO app_user (account_id, email) SELECT id, 'agent@example.com' FROM account;
               INSERT INTO deal (account_id, lead_id, amount_cents) SELECT account_id, id, 5000000000 FROM lead;
               INSERT INTO campaign (account_id, name, channel) SELECT id, 'spring', 'whatsapp' FROM account;
               INSERT INTO booking (account_id, user_id, starts_at) SELECT account_id, id, now() FROM app_user"""
        )
        integrations = [
            (self._uuid(), self._pick(accounts), self._pick(("telephony", "whatsapp", "telegram")), settings)
            for settings in ({}, {}, {}, {"externalId": "pbx1"}, {"externalId": "pbx1"}, {"externalId": 5}, [], "x")
        ]
        await self._copy(connection, "integration", ["id", "account_id", "channel", "settings"], integrations)
        conversations = [
            (self._uuid(), lead[1] if lead else self._pick(accounts), lead and lead[0], channel, status, self._time())
            for lead, channel, status in (
                (
                    self._maybe(leads),
                    self._pick(("telephony", "whatsapp", "telegram")),
                    self._pick(("open", "open", "closed")),
                )
                for _ in range(400)
            )
        ]
        columns = ["id", "account_id", "lead_id", "channel", "status", "created_at"]
        await self._copy(connection, "conversation", columns, conversations)
        files = [(self._uuid(), self._pick(accounts), self._pick(KEYS).format(uuid=self._uuid())) for _ in range(400)]
        await self._copy(connection, "media_file", ["id", "account_id", "key"], files)
        await self._fill_messages(connection, conversations, files)
        await self._fill_calls(connection, accounts, leads, files)

    async def _fill_messages(self, connection: asyncpg.Connection, conversations: Any, files: Any) -> None:
        rows = []
        for n in range(self._messages):
            talk = self._pick(conversations)
            # A tenth of the files is shared by many; most others have one message or none.
            file = self._maybe(files[:40] if n % 3 == 0 else files)
            direction = self._pick(("inbound", "outbound"))
            status = self._pick(("pending", "sent", "delivered", "read", "failed"))
            content = self._maybe(("", "hello", "ünïcödé ☃"))
            rows.append((self._uuid(), talk[1], talk[0], direction, content, file and file[0], status, self._time()))
        columns = [
            "id", "account_id", "conversation_id", "direction", "content", "media_file_id", "status", "created_at",
        ]  # fmt: skip
        await self._copy(connection, "message", columns, rows)

    async def _fill_calls(self, connection: asyncpg.Connection, accounts: Any, leads: Any, files: Any) -> None:
        recordings = []
        for n in range(400):
            file = self._maybe(files)
            recordings.append((self._uuid(), self._pick(accounts), file and file[0], n, self._time()))
        columns = ["id", "account_id", "media_file_id", "duration_seconds", "created_at"]
        await self._copy(connection, "call_recording", columns, recordings)
        rows = []
        for _ in range(self._calls):
            lead, recording, started = self._maybe(leads), self._maybe(recordings), self._time()
            rows.append(
                (
                    self._uuid(),
                    lead[1] if lead else self._pick(accounts),
                    lead and lead[0],
                    self._pick(("inbound", "outbound", "internal")),
                    self._pick(NUMBERS),
                    self._pick(("completed", "missed", "no_answer", "busy", "failed", "in_progress")),
                    self._maybe((0, 5, 86400)),
                    recording and recording[0],
                    self._pick(METADATA),
                    started,
                    self._maybe((started, started + timedelta(seconds=5))),
                )
            )
        columns = [
            "id", "account_id", "lead_id", "direction", "phone_number", "status", "duration", "recording_id",
            "metadata", "started_at", "ended_at",
        ]  # fmt: skip
        await self._copy(connection, "call", columns, rows)
        content = [
            (self._uuid(), self._pick(accounts), file and file[0], "title")
            for file in (self._maybe(files) for _ in range(50))
        ]
        await self._copy(connection, "content_item", ["id", "account_id", "media_file_id", "title"], content)

    async def _copy(self, connection: asyncpg.Connection, table: str, columns: list[str], rows: Any) -> None:
        places = ", ".join(f"${n + 1}" for n in range(len(columns)))
        await connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)
