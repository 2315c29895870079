"""Queues and agents in their rows: the newest state, told once, and no other PBX's or account's is touched."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from calls import ringing

from trunkline.calls.queue_record import AgentRecord, AgentStatus, MemberRecord, QueueRecord, QueuesUpdate, Waiting
from trunkline.store.pool import Pool
from trunkline.store.queue_writer import QueueWriter
from trunkline.store.writer import CallWriter

pytestmark = pytest.mark.asyncio

T = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)
SEEN = {"pbx1": True}


def queue(name: str = "support", *waiting: str) -> QueueRecord:
    line = tuple(Waiting(uid, uid, n + 1, T + timedelta(seconds=n)) for n, uid in enumerate(waiting))
    return QueueRecord(name=name, strategy="linear", waiting=line)


def member(extension: str = "1001", queue: str = "support", **fields: Any) -> MemberRecord:
    plain: dict[str, Any] = {
        "queue": queue, "interface": f"PJSIP/{extension}", "extension": extension, "name": "Alice \x00 Able",
        "membership": "static", "penalty": 0, "paused": False, "paused_reason": None, "paused_since": None,
        "in_call": False, "calls_taken": 0, "last_call_at": None, "logged_in_since": T,
    }  # fmt: skip
    return MemberRecord(**plain | fields)


def agent(extension: str = "1001", status: AgentStatus = AgentStatus.AVAILABLE, **fields: Any) -> AgentRecord:
    plain: dict[str, Any] = {
        "extension": extension, "name": "Alice", "status": status, "status_since": T, "paused": False,
        "queues": ("support",), "logged_in_since": T,
    }  # fmt: skip
    return AgentRecord(**plain | fields)


def update(*things: Any, pbx: str = "pbx1", whole: bool = False, gone: dict[Any, None] | None = None) -> QueuesUpdate:
    gone = gone or {}
    return QueuesUpdate(
        pbx,
        whole,
        {one.name: one for one in things if isinstance(one, QueueRecord)}
        | {k: v for k, v in gone.items() if isinstance(k, str)},
        {(one.queue, one.interface): one for one in things if isinstance(one, MemberRecord)}
        | {k: v for k, v in gone.items() if isinstance(k, tuple)},
        {one.extension: one for one in things if isinstance(one, AgentRecord)},
    )


@pytest_asyncio.fixture
async def writer(pool: Pool) -> QueueWriter:
    return QueueWriter(pool, "main")


async def told(pool: Pool, after: int = 0) -> list[tuple[str, Any]]:
    rows = await pool.fetch("SELECT seq, type, data FROM event WHERE seq > $1 ORDER BY seq", after)
    assert [row["seq"] for row in rows] == list(range(after + 1, after + 1 + len(rows)))
    return [(row["type"], msgspec.json.decode(row["data"])) for row in rows]


async def test_what_is_new_is_written_and_told_once(writer: QueueWriter, pool: Pool) -> None:
    whole = update(queue("support", "c.0", "c.1"), queue("sales"), member(), member("1002", paused=True), agent(),
                   agent("1002", AgentStatus.IN_USE), whole=True)  # fmt: skip
    await writer.write([whole], SEEN)
    events = await told(pool)
    assert [kind for kind, _ in events] == ["queue.updated"] * 2 + ["agent.status"] * 2 + ["queue.connected"]
    support = events[1][1]["queue"]
    assert {key: support[key] for key in ("name", "pbx", "strategy", "waiting", "waitingSince", "members")} == {
        "name": "support", "pbx": "pbx1", "strategy": "linear", "waiting": 2, "waitingSince": "2026-03-04T09:30:00Z",
        "members": {"AVAILABLE": 1, "PAUSED": 1},
    }  # fmt: skip
    alice = events[2][1]["agent"]
    assert (alice["extension"], alice["status"], alice["statusSince"]) == (
        "1001",
        "AVAILABLE",
        "2026-03-04T09:30:00.000000Z",
    )
    assert alice["queues"] == [{"name": "support", "paused": False, "pausedReason": None}]
    assert await pool.fetchval("SELECT name FROM queue_member WHERE extension = '1001'") == "Alice \ufffd Able"
    await writer.write([whole], SEEN)
    assert len(await told(pool)) == len(events) == writer.events


async def test_changes_touch_what_they_name(writer: QueueWriter, pool: Pool) -> None:
    await writer.write([update(queue(), queue("sales"), member(), member("1002"), agent(), agent("1002"))], SEEN)
    before = len(await told(pool))
    later = T + timedelta(minutes=1)
    change = update(
        agent(status=AgentStatus.RINGING, status_since=later), gone={"sales": None, ("support", "PJSIP/1002"): None}
    )
    await writer.write([change], SEEN)
    assert sorted(kind for kind, _ in await told(pool, before)) == [
        "agent.status", "agent.status", "queue.removed", "queue.updated",
    ]  # fmt: skip
    assert await pool.fetchval("SELECT status_since FROM agent WHERE extension = '1001'") == later
    assert [row[0] for row in await pool.fetch("SELECT interface FROM queue_member")] == ["PJSIP/1001"]


async def test_a_whole_picture_takes_away_what_is_not_in_it(writer: QueueWriter, pool: Pool) -> None:
    there = [queue(), queue("sales"), member(), member("1002"), member(queue="sales"), agent(), agent("1002")]
    await writer.write([update(*there), update(*there, pbx="pbx2")], {**SEEN, "pbx2": True})
    await writer.write([update(queue(), member(), agent(), whole=True)], SEEN)
    rows = await pool.fetch(
        """SELECT integration.external_id AS pbx, queue.name, count(interface) AS n FROM queue
           JOIN integration ON integration.id = queue.integration_id LEFT JOIN queue_member ON queue_id = queue.id
           GROUP BY 1, 2 ORDER BY 1, 2"""
    )
    assert [tuple(row) for row in rows] == [("pbx1", "support", 1), ("pbx2", "sales", 1), ("pbx2", "support", 2)]
    states = await pool.fetch("SELECT status FROM agent WHERE extension = '1002' ORDER BY status")
    assert [row[0] for row in states] == ["available", "logged_out"]


async def test_since_when_outlives_a_core_that_begins_anew(writer: QueueWriter, pool: Pool) -> None:
    await writer.write([update(agent())], SEEN)
    await writer.write([update(agent(status_since=T + timedelta(hours=1)), whole=True)], SEEN)
    assert await pool.fetchval("SELECT status_since FROM agent") == T


async def test_a_pbx_that_is_not_seen_keeps_the_time_at_which_it_was(writer: QueueWriter, pool: Pool) -> None:
    await writer.write([], SEEN)
    first = await pool.fetchval("SELECT as_of FROM pbx_state")
    await writer.write([], SEEN)
    last = await pool.fetchval("SELECT as_of FROM pbx_state")
    assert last > first
    for _ in range(2):
        await writer.write([], {"pbx1": False})
    assert tuple(await pool.fetchrow("SELECT connected, as_of FROM pbx_state")) == (False, last)
    assert [(kind, data) for kind, data in await told(pool)] == [
        ("queue.connected", {"pbx": "pbx1", "connected": True}),
        ("queue.disconnected", {"pbx": "pbx1", "connected": False}),
    ]


async def test_while_the_database_is_away_the_newest_is_kept_and_nothing_else(pool: Pool) -> None:
    class Away(QueueWriter):
        away = True

        async def _write_pbx(self, *args: Any) -> int:
            if self.away:
                raise ConnectionRefusedError
            return await super()._write_pbx(*args)

    writer = Away(pool, "main")
    await writer.write([update(queue(), member(), agent(), whole=True)], SEEN)
    for n in range(500):
        await writer.write(
            [update(agent(status=list(AgentStatus)[n % 2], status_since=T + timedelta(seconds=n)))], SEEN
        )
    assert writer.refused == 0
    writer.away = False
    await writer.write([], SEEN)
    row = await pool.fetchrow("SELECT status, status_since FROM agent")
    assert tuple(row) == ("ringing", T + timedelta(seconds=499))
    assert [kind for kind, _ in await told(pool)] == ["queue.updated", "agent.status", "queue.connected"]


async def test_what_the_database_refuses_holds_up_nothing(writer: QueueWriter, pool: Pool) -> None:
    await writer.write([update(queue(), member(penalty=2**40))], SEEN)
    assert writer.refused == 1
    await writer.write([update(queue("sales"))], SEEN)
    assert [row[0] for row in await pool.fetch("SELECT name FROM queue")] == ["sales"]


async def test_calls_and_queues_share_the_sequence_without_a_gap(pool: Pool) -> None:
    queues, calls = QueueWriter(pool, "main"), CallWriter(pool, "main")

    async def some(n: int) -> None:
        await queues.write([update(queue(f"q{n}"))], SEEN)
        await calls.write([ringing(f"pbx1-1767225600.{n}")])

    await asyncio.gather(*(some(n) for n in range(20)))
    assert len([kind for kind, _ in await told(pool) if kind != "queue.connected"]) == 40
