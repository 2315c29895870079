"""GET /api/v1/calls: what is listed, in which order, page by page."""

import asyncio
import re
import string
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Serve, Served, insert_calls

from trunkline.calls.record import Direction, Status
from trunkline.store.pool import Pool
from trunkline.store.queries import CallFilter, _statement

BEGIN = datetime.fromisoformat("2026-01-01T00:00:00Z")


async def walk(api: Served, query: dict[str, Any]) -> list[dict[str, Any]]:
    """Every call of a listing, page by page."""
    calls: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        status, page = await api.get("/api/v1/calls", params=[*_pairs(query), *cursor.items()])
        assert status == 200, page
        calls += page["items"]
        if page["nextCursor"] is None:
            return calls
        assert page["items"], "a page that is not the last one has calls"
        cursor = {"cursor": page["nextCursor"]}


def _pairs(query: dict[str, Any]) -> list[tuple[str, str]]:
    several = {name: value if isinstance(value, list) else [value] for name, value in query.items()}
    return [
        (name, value.isoformat() if isinstance(value, datetime) else str(value))
        for name, values in several.items()
        for value in values
    ]


def order(call: dict[str, Any]) -> tuple[datetime, UUID]:
    return datetime.fromisoformat(call["startedAt"]), UUID(call["id"])


@pytest.mark.asyncio
async def test_lists_newest_first_in_the_wire_form(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 60)
    status, page = await api.get("/api/v1/calls")
    assert status == 200
    assert len(page["items"]) == 50
    assert [order(call) for call in page["items"]] == sorted(map(order, page["items"]), reverse=True)
    call = page["items"][0]
    assert call["startedAt"] == "2026-01-01T00:00:20Z"
    assert (call["direction"], call["status"], call["from"]) == ("INBOUND", "COMPLETED", "02070004")
    assert call["accountId"] == str(account_id)
    assert call["aliases"] == []
    assert "legs" not in call, "what was not asked for does not look like none"


@pytest.mark.asyncio
async def test_an_empty_account_has_one_empty_page(api: Served) -> None:
    assert await api.get("/api/v1/calls") == (200, {"items": [], "nextCursor": None})


@pytest.mark.asyncio
async def test_a_last_page_that_is_just_full_has_no_cursor(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 50)
    _, page = await api.get("/api/v1/calls?limit=50")
    assert len(page["items"]) == 50
    assert page["nextCursor"] is None
    _, page = await api.get("/api/v1/calls?limit=49")
    assert page["nextCursor"] is not None


NUMBERS = st.sampled_from(["02070001", "+442070001", "02079460000", "+442079460000", "1001", "1003", "5555"])
TIMES = st.integers(-5, 45).map(lambda seconds: BEGIN + timedelta(seconds=seconds))
QUERIES = st.fixed_dictionaries(
    {"limit": st.sampled_from([2, 3, 7, 25, 26, 50, 200])},
    optional={
        "status": st.lists(st.sampled_from(["COMPLETED", "missed", "Busy", "ABANDONED", "RINGING"]), min_size=1),
        "direction": st.lists(st.sampled_from(["INBOUND", "outbound", "internal"]), min_size=1, max_size=2),
        "from": NUMBERS,
        "to": NUMBERS,
        "number": NUMBERS,
        "since": TIMES,
        "until": TIMES,
    },
)


def expected(call: dict[str, Any], query: dict[str, Any]) -> bool:
    """The filter's meaning, said once more."""
    sides = {"from": {call["from"], call["fromE164"]}, "to": {call["to"], call["toE164"]}}
    sides["number"] = sides["from"] | sides["to"]
    started_at = datetime.fromisoformat(call["startedAt"])
    return (
        ("status" not in query or call["status"] in map(str.upper, query["status"]))
        and ("direction" not in query or call["direction"] in map(str.upper, query["direction"]))
        and all(query[side] in values for side, values in sides.items() if side in query)
        and ("since" not in query or started_at >= query["since"])
        and ("until" not in query or started_at < query["until"])
    )


@pytest.mark.asyncio
async def test_every_filter_on_every_page_size_lists_exactly_what_it_means(
    api: Served, pool: Pool, account_id: UUID
) -> None:
    await insert_calls(pool, account_id, 120)
    await pool.execute("ANALYZE call")
    everything = await walk(api, {"limit": 200})
    assert len(everything) == 120

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(QUERIES)
    def check(query: dict[str, Any]) -> None:
        queries.append(query)

    queries: list[dict[str, Any]] = []
    check()
    for query in queries:
        if "number" in query and query.keys() & {"from", "to"}:
            status, problem = await api.get("/api/v1/calls", params=_pairs(query))
            assert (status, problem["parameter"]) == (400, "number")
            continue
        if "since" in query and "until" in query and query["since"] >= query["until"]:
            status, problem = await api.get("/api/v1/calls", params=_pairs(query))
            assert (status, problem["parameter"]) == (400, "until")
            continue
        found = await walk(api, query)
        assert found == [call for call in everything if expected(call, query)], query


@pytest.mark.asyncio
async def test_pages_have_no_gap_and_no_double_while_calls_come_in(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 1000)
    before = {row["id"] for row in await pool.fetch("SELECT id FROM call")}
    done = asyncio.Event()
    inserted = 0

    async def ring() -> None:
        nonlocal inserted
        while not done.is_set():
            await insert_calls(pool, account_id, 20, start="2026-02-01T00:00:00Z")
            inserted += 20

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ring())
        walks = [
            tasks.create_task(walk(api, query))
            for query in ({"limit": 7}, {"limit": 13, "direction": ["inbound", "outbound", "internal"]})
        ]
        await asyncio.wait(walks)
        done.set()
    assert inserted > 0
    for walked in walks:
        ids = [UUID(call["id"]) for call in walked.result()]
        assert len(ids) == len(set(ids)), "no call twice"
        assert before <= set(ids), "no call missed"
        assert all(order(a) > order(b) for a, b in pairwise(walked.result()))


@pytest.mark.asyncio
async def test_a_changed_cursor_is_refused(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 20)
    _, page = await api.get("/api/v1/calls?limit=5")
    cursor = page["nextCursor"]
    alphabet = string.ascii_letters + string.digits + "-_"
    bad = [cursor[:n] + alphabet[(alphabet.index(c) + 1) % 64] + cursor[n + 1 :] for n, c in enumerate(cursor)]
    bad += [cursor[:-1], cursor + "A", cursor + "=", cursor * 2, "x", "AAAA", "0" * 5000, cursor + "é", "..", "%"]
    for text in bad:
        status, problem = await api.get("/api/v1/calls", params={"limit": "5", "cursor": text})
        assert (status, problem["code"]) == (400, "bad_cursor"), text
        assert "nextCursor" in problem["detail"]


@pytest.mark.asyncio
async def test_a_cursor_belongs_to_its_filters_and_its_account(
    api: Served, serve: Serve, pool: Pool, account_id: UUID
) -> None:
    other_id = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    await insert_calls(pool, account_id, 20)
    await insert_calls(pool, other_id, 20)
    _, page = await api.get("/api/v1/calls?limit=5&status=completed,missed")
    cursor = page["nextCursor"]
    # The same filter in other words, and another limit, are the same listing.
    status, _ = await api.get(f"/api/v1/calls?limit=2&status=MISSED&status=Completed&cursor={cursor}")
    assert status == 200
    for query in ("", "status=completed", "status=completed,missed&number=1001"):
        status, problem = await api.get(f"/api/v1/calls?{query}&cursor={cursor}")
        assert (status, problem["code"]) == (400, "bad_cursor")
    other = await serve(pool, account="other")
    status, problem = await other.get(f"/api/v1/calls?status=completed,missed&cursor={cursor}")
    assert (status, problem["code"]) == (400, "bad_cursor")


@pytest.mark.asyncio
async def test_a_plus_that_arrived_as_a_space_is_understood(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 60)
    _, proper = await api.get("/api/v1/calls?number=%2B442070001&since=2026-01-01T01:00:00%2B01:00")
    async with api.client.get(
        api.url + "/api/v1/calls?number=+442070001&since=2026-01-01T01:00:00+01:00", allow_redirects=False
    ) as response:
        assert await response.json() == proper
    assert proper["items"]


@pytest.mark.asyncio
async def test_include_legs(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 3)
    await pool.execute(
        "INSERT INTO call_leg (call_id, channel_id, account_id, position, endpoint, role, started_at)"
        " SELECT id, 'leg-' || n, account_id, n, 'PJSIP/1001', 'agent', started_at FROM call, generate_series(0, 1) n"
    )
    _, page = await api.get("/api/v1/calls?include=legs")
    assert [[leg["channelId"] for leg in call["legs"]] for call in page["items"]] == [["leg-0", "leg-1"]] * 3


@pytest.mark.asyncio
async def test_no_filter_has_the_planner_leave_its_index(pool: Pool, account_id: UUID) -> None:
    """With a filter that matches nothing, the calls looked at and thrown away stay few, whatever the statistics say."""
    await insert_calls(pool, account_id, 20_000)
    await pool.execute("VACUUM ANALYZE call")
    for narrow in (
        CallFilter(),
        CallFilter(statuses=(Status.RINGING,)),
        CallFilter(number="02079460000", directions=(Direction.OUTBOUND,)),
        CallFilter(to="02079460000", statuses=(Status.FAILED,)),
        CallFilter(from_="1001", statuses=(Status.BUSY,), since=BEGIN + timedelta(days=1)),
        CallFilter(from_="02070001", to="02070002"),
    ):
        statement, arguments = _statement(account_id, narrow, 50, None)
        for mode in ("force_custom_plan", "force_generic_plan"):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
                plan = await connection.fetchval("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, *arguments)
            thrown_away = sum(int(n) for n in re.findall(r'"Rows Removed by Filter": (\d+)', plan))
            # Only both numbers together look at more than they return: all of the customer's.
            allowed = 20_000 / 7 if narrow.from_ and narrow.to else 40
            assert thrown_away <= allowed, (narrow, mode, plan)
            assert "Seq Scan" not in plan
            assert "Bitmap" not in plan
