"""Rows per second of the writer, beside plain asyncpg `executemany` of the same rows in the same run.

The peer writes the call row alone, with all of its columns and ON CONFLICT DO UPDATE guarded by revision: no legs, no
events, no links. The writer writes all of those, so its rate is given in rows and in calls.

    .venv/bin/python bench/store.py [CALLS]
"""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import structlog
from sqlalchemy.dialects.postgresql import JSONB

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Leg, Role, Status
from trunkline.crm.matching import select_leads_by_number
from trunkline.embedded.postgres import Postgres
from trunkline.inbox.telephony import upsert_conversations
from trunkline.store.migrate import upgrade
from trunkline.store.pool import Pool, open_pool
from trunkline.store.tables import call
from trunkline.store.writer import CallWriter
from verdict import Promises, headline

START = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)
BATCHES = (100, 500)
ROUNDS = 3
THOUSAND_LIMIT_S = 30.0  # a spool drains no slower


def updates(calls: int, prefix: str) -> Iterator[CallUpdate]:
    """Calls that ring, are answered and end, as a flood would bring them: one update with all that happened."""
    for n in range(calls):
        external_id = f"{prefix}-1767225600.{2 * n}"
        answered_at, ended_at = START + timedelta(seconds=5), START + timedelta(seconds=65)
        number = f"1555{n % 5000:07d}"
        times: dict[str, Any] = {"started_at": START, "answered_at": answered_at, "ended_at": ended_at}
        record = CallRecord(
            pbx=prefix,
            external_id=external_id,
            channel_id=external_id,
            direction=Direction.INBOUND,
            status=Status.COMPLETED,
            from_=number,
            to="442070001001",
            phone_number=number,
            from_e164="+" + number,
            to_e164="+442070001001",
            caller_name="Jane Doe",
            duration=65,
            wait_seconds=5,
            talk_seconds=60,
            hold_seconds=0,
            answered_by="1001",
            rang=["1001"],
            legs=[
                Leg(
                    channel_id=external_id,
                    endpoint="PJSIP/trunk",
                    party=number,
                    role=Role.CALLER,
                    hangup_cause=16,
                    **times,
                ),
                Leg(
                    channel_id=f"{prefix}-1767225600.{2 * n + 1}",
                    endpoint="PJSIP/1001",
                    party="1001",
                    role=Role.AGENT,
                    dial_status="ANSWER",
                    hangup_cause=16,
                    **times,
                ),
            ],
            revision=12,
            **times,
        )
        yield CallUpdate(record, ("call.ringing", "call.answered", "call.ended"))


class Peer:
    """asyncpg's executemany of the call rows."""

    def __init__(self, pool: Pool, account_id: UUID, integration_id: UUID) -> None:
        self._pool = pool
        self._ids = (account_id, integration_id)
        self._columns = [column.name for column in call.columns if column.name not in ("recording_id", "created_at")]
        self._json = {column.name for column in call.columns if isinstance(column.type, JSONB)}
        names = ", ".join(self._columns)
        values = ", ".join(f"${n}" for n in range(1, len(self._columns) + 1))
        replaced = ", ".join(f"{name} = excluded.{name}" for name in self._columns if name != "id")
        self._sql = (
            f"INSERT INTO call ({names}) VALUES ({values}) "
            "ON CONFLICT (external_id, integration_id) WHERE external_id IS NOT NULL "
            f"DO UPDATE SET {replaced} WHERE call.revision < excluded.revision"
        )

    def rows(self, batch: Sequence[CallUpdate]) -> list[list[Any]]:
        """The values of each row, in the order of the columns."""
        return [[self._value(update.record, name) for name in self._columns] for update in batch]

    def _value(self, record: CallRecord, name: str) -> Any:
        match name:
            case "id":
                return uuid4()
            case "account_id":
                return self._ids[0]
            case "integration_id":
                return self._ids[1]
            case "lead_id" | "conversation_id":
                return None
            case "from_number":
                return record.from_
            case "to_number":
                return record.to
        value = getattr(record, name)
        if name in self._json:
            return None if value is None else msgspec.json.encode(value).decode()
        return (
            value.lower() if name in ("direction", "status", "end_reason", "ended_by", "quality") and value else value
        )

    async def write(self, batch: Sequence[CallUpdate]) -> None:
        """One transaction, as the writer's."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.executemany(self._sql, self.rows(batch))


async def seconds(
    pool: Pool, write: Callable[[Sequence[CallUpdate]], Awaitable[object]], all_of: list[CallUpdate], size: int
) -> float:
    """How long it takes on tables that begin empty."""
    await pool.execute("TRUNCATE call, call_leg, event, call_recording, call_alias, conversation CASCADE")
    began = time.perf_counter()
    for n in range(0, len(all_of), size):
        await write(all_of[n : n + size])
    return time.perf_counter() - began


async def compare(pool: Pool, calls: int, size: int) -> float:
    """Print the best round of each, in turns, as other programs disturb both; returns our seconds for 1,000 calls."""
    writer = CallWriter(pool, "main", leads=select_leads_by_number, conversations=upsert_conversations)
    await writer.write(updates(1, "pbx1"))
    ids = await pool.fetchrow("SELECT account_id, id FROM integration")
    assert ids is not None
    peer = Peer(pool, ids["account_id"], ids["id"])
    all_of = list(updates(calls, "pbx1"))
    peers, ours, cpu = [], [], []
    for _ in range(ROUNDS):
        peers.append(await seconds(pool, peer.write, all_of, size))
        before = time.process_time()
        ours.append(await seconds(pool, writer.write, all_of, size))
        cpu.append(time.process_time() - before)
    rows = 0
    for table in ("call", "call_leg", "event", "conversation"):
        rows += await pool.fetchval(f"SELECT count(*) FROM {table}")
    theirs_s, ours_s = calls / min(peers), rows / min(ours)
    print(
        f"batches of {size}: writer {ours_s:,.0f} rows/s = {calls / min(ours):,.0f} whole calls/s, "
        f"{min(cpu) / calls * 1e6:.0f} us of our CPU a call; asyncpg executemany {theirs_s:,.0f} rows/s; "
        f"ratio {ours_s / theirs_s:.2f}",
        flush=True,
    )
    return min(ours) / calls * 1000


async def bench(url: str, calls: int) -> int:
    """Print a line for each size of batch; returns the exit status."""
    promises = Promises()
    async with await open_pool(url) as pool:
        for size in BATCHES:
            took_s = await compare(pool, calls, size)
            promises.tell(
                f"1,000 whole calls are written in at most {THOUSAND_LIMIT_S:g} s, in batches of {size}",
                f"{took_s:.1f} s", kept=took_s <= THOUSAND_LIMIT_S,
            )  # fmt: skip
    return promises.status


def main() -> int:
    """Run on an embedded server that flushes to disk as in production."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with Postgres(durable=True) as server:
        url = server.create_database("bench")
        upgrade(url)
        headline(f"The writer of calls, {calls:,} whole ones, beside asyncpg's executemany of their rows alone")
        return asyncio.run(bench(url, calls))


if __name__ == "__main__":
    sys.exit(main())
