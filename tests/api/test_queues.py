"""Queues and agents over HTTP: how they are, never shown as live when nobody sees the PBX; and how the queues did."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from served import ACCOUNT, Serve

from trunkline.calls.queue_record import AgentRecord, AgentStatus, MemberRecord, QueueRecord, QueuesUpdate, Waiting
from trunkline.calls.record import CallRecord, CallUpdate, Direction, Leg, QueueOutcome, QueueVisit, Role, Status
from trunkline.store.pool import Pool
from trunkline.store.queue_writer import QueueWriter
from trunkline.store.queues import STALE_S
from trunkline.store.writer import CallWriter

pytestmark = pytest.mark.asyncio

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


def call(n: int, *visits: QueueVisit, ended: bool = True, **fields: Any) -> CallUpdate:
    began = visits[0].joined_at - timedelta(seconds=3)
    plain: dict[str, Any] = {
        "pbx": "pbx1", "external_id": f"pbx1-1.{n}", "direction": Direction.INBOUND, "status": Status.COMPLETED,
        "from_": "15551234567", "to": "442070000200", "started_at": began, "queue": visits[-1].queue,
        "ended_at": NOW if ended else None, "queue_visits": list(visits),
    }  # fmt: skip
    return CallUpdate(CallRecord(**plain | fields))


def visit(wait: float | None, outcome: str | None, *, queue: str = "support", at: datetime = NOW) -> QueueVisit:
    left = None if wait is None else at + timedelta(seconds=wait)
    return QueueVisit(
        queue=queue, joined_at=at, left_at=left, outcome=None if outcome is None else QueueOutcome(outcome)
    )


def agent(extension: str, status: AgentStatus = AgentStatus.AVAILABLE) -> AgentRecord:
    return AgentRecord(
        extension=extension, name=f"Agent {extension}", status=status, status_since=NOW, paused=False,
        queues=("support",), logged_in_since=NOW,
    )  # fmt: skip


def member(extension: str) -> MemberRecord:
    return MemberRecord(
        queue="support", interface=f"PJSIP/{extension}", extension=extension, name="x", membership="static", penalty=1,
        paused=False, paused_reason=None, paused_since=None, in_call=False, calls_taken=3, last_call_at=NOW,
        logged_in_since=None,
    )  # fmt: skip


def picture(pbx: str = "pbx1") -> QueuesUpdate:
    waiting = (Waiting("pbx1-1.1", "pbx1-1.1", 1, NOW), Waiting("pbx1-9.9", "pbx1-9.9", 2, NOW))
    return QueuesUpdate(
        pbx, True, {"support": QueueRecord(name="support", strategy="linear", waiting=waiting)},
        {("support", f"PJSIP/{n}"): member(n) for n in ("1001", "1002")},
        {"1001": agent("1001", AgentStatus.IN_USE), "1002": agent("1002")},
    )  # fmt: skip


async def test_a_queue_with_its_people(serve: Serve, pool: Pool) -> None:
    legs = [
        Leg(channel_id="a", endpoint="PJSIP/trunk", party="15551234567", role=Role.CALLER, started_at=NOW),
        Leg(channel_id="b", endpoint="PJSIP/1001", party="1001", role=Role.AGENT, started_at=NOW),
    ]
    await CallWriter(pool, ACCOUNT).write(
        [call(1, visit(None, None), ended=False, status=Status.QUEUED, caller_name="Jane", legs=legs)]
    )
    await QueueWriter(pool, ACCOUNT).write([picture()], {"pbx1": True})
    call_id = str(await pool.fetchval("SELECT id FROM call"))
    api = await serve(pool)
    status, listed = await api.get("/api/v1/queues")
    assert status == 200
    (queue,) = listed["items"]
    assert (queue["name"], queue["pbx"], queue["connected"], queue["waiting"]) == ("support", "pbx1", True, 2)
    assert queue["members"] == {"IN_USE": 1, "AVAILABLE": 1}
    assert queue["today"]["waiting"] == 1
    for path in (queue["id"], "support"):
        status, one = await api.get(f"/api/v1/queues/{path}")
        assert status == 200
        assert [(c["position"], c["callId"], c["from"], c["callerName"]) for c in one["callers"]] == [
            (1, call_id, "15551234567", "Jane"),
            (2, None, None, None),
        ]
        assert [(a["extension"], a["status"], a["callId"], a["callsTaken"]) for a in one["agents"]] == [
            ("1001", "IN_USE", call_id, 3),
            ("1002", "AVAILABLE", None, 3),
        ]
    status, listed = await api.get("/api/v1/agents")
    assert [(a["extension"], a["status"], a["callId"]) for a in listed["items"]] == [
        ("1001", "IN_USE", call_id),
        ("1002", "AVAILABLE", None),
    ]
    status, one = await api.get("/api/v1/agents/1001")
    assert (status, one["queues"][0]["name"], one["connected"]) == (200, "support", True)
    for path in ("queues/none", "queues/%00", "agents/%00", "agents/9", f"queues/{UUID(int=1)}"):
        assert (await api.get(f"/api/v1/{path}"))[0] == 404


async def test_what_nobody_sees_is_not_shown_as_live(serve: Serve, pool: Pool) -> None:
    writer = QueueWriter(pool, ACCOUNT)
    await writer.write([picture()], {"pbx1": True})
    api = await serve(pool)
    assert (await api.get("/api/v1/queues/support"))[1]["connected"] is True
    # A core that was killed says nothing more.
    as_of = await pool.fetchval(f"UPDATE pbx_state SET as_of = as_of - interval '{STALE_S} s' RETURNING as_of")
    for path in ("queues/support", "agents/1001"):
        one = (await api.get(f"/api/v1/{path}"))[1]
        assert (one["connected"], datetime.fromisoformat(one["asOf"])) == (False, as_of)
    await writer.write([], {"pbx1": True})
    assert (await api.get("/api/v1/agents/1001"))[1]["connected"] is True
    await writer.write([], {"pbx1": False})
    assert (await api.get("/api/v1/agents/1001"))[1]["connected"] is False


async def test_two_pbxs_with_one_name(serve: Serve, pool: Pool) -> None:
    await QueueWriter(pool, ACCOUNT).write([picture(), picture("pbx2")], {"pbx1": True, "pbx2": False})
    api = await serve(pool)
    assert [q["pbx"] for q in (await api.get("/api/v1/queues"))[1]["items"]] == ["pbx1", "pbx2"]
    for path in ("queues/support", "agents/1001"):
        status, problem = await api.get(f"/api/v1/{path}")
        assert (status, problem["code"]) == (409, "several_pbxs")
        status, one = await api.get(f"/api/v1/{path}?pbx=pbx2")
        assert (status, one["pbx"], one["connected"]) == (200, "pbx2", False)


async def test_the_figures_are_those_of_the_definitions(serve: Serve, pool: Pool) -> None:
    day = NOW - timedelta(days=2)
    early, late = day - timedelta(seconds=1), day + timedelta(days=1)
    await CallWriter(pool, ACCOUNT).write(
        [
            call(1, visit(4, "ANSWERED", at=day)),
            call(2, visit(20, "ANSWERED", at=day)),
            call(3, visit(20.5, "ANSWERED", at=day)),
            call(4, visit(5, "ABANDONED", at=day)),
            call(5, visit(4.9, "ABANDONED", at=day)),  # short
            call(6, visit(60, "TIMEOUT", at=day), visit(7, "EMPTY", queue="sales", at=day + timedelta(seconds=60))),
            call(7, visit(2, "LEFT", at=day)),
            call(8, visit(None, None, at=day), ended=False, status=Status.QUEUED),
            call(9, visit(None, None, at=day)),  # it ended unseen
            call(10, visit(1, "ANSWERED", at=early)),
            call(11, visit(1, "ANSWERED", at=late)),
        ]
    )
    api = await serve(pool)
    span = {"from": day.strftime("%Y-%m-%dT%H:%M:%SZ"), "to": late.strftime("%Y-%m-%dT%H:%M:%SZ")}
    status, answer = await api.get("/api/v1/analytics/queues", params=span)
    assert (status, answer["definitions"], answer["targetSeconds"], answer["shortSeconds"]) == (200, 1, 20, 5)
    figures = {item["queue"]: item["figures"] for item in answer["items"]}
    assert figures["support"] == {
        "offered": 9, "answered": 3, "abandoned": 1, "shortAbandoned": 1, "timedOut": 1, "left": 2, "waiting": 1,
        "answeredWithinTarget": 2, "serviceLevel": round(2 / 7, 4), "asaSeconds": round(44.5 / 3, 3),
        "longestWaitSeconds": 60.0,
    }  # fmt: skip
    assert (figures["sales"]["offered"], figures["sales"]["timedOut"], figures["sales"]["serviceLevel"]) == (1, 1, 0.0)
    _, answer = await api.get("/api/v1/analytics/queues", params=span | {"target": "30", "short": "0"})
    support = answer["items"][1]["figures"]
    assert (support["answeredWithinTarget"], support["abandoned"], support["shortAbandoned"]) == (3, 2, 0)
    assert (await api.get("/api/v1/analytics/queues"))[1]["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        "from=2026-01-02&to=2026-01-01",
        "from=2026-01-01&to=2026-01-01",
        "from=2020-01-01",
        "target=-1",
        "short=3601",
        "x=1",
    ],
)
async def test_what_makes_no_sense_is_refused(serve: Serve, pool: Pool, account_id: UUID, query: str) -> None:
    api = await serve(pool)
    assert (await api.get(f"/api/v1/analytics/queues?{query}"))[0] == 400
