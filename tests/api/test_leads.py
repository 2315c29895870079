"""Leads: listed, found, made, changed, merged, deleted; and what is told of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Serve, Served

from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

LEADS = "/api/v1/leads"


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def api(serve: Serve, pool: Pool, account_id: UUID) -> AsyncIterator[Served]:
    yield await serve(pool, region="GB")


async def send(api: Served, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    options = {} if body is None else {"json": body}
    response, raw = await api.raw(path, method=method, headers=headers, **options)
    return response.status, msgspec.json.decode(raw) if raw else None


async def make(api: Served, **lead: Any) -> Any:
    status, made = await send(api, "POST", LEADS, lead)
    assert status == 201, made
    return made


async def events(pool: Pool) -> list[Any]:
    rows = await pool.fetch("SELECT type, lead_id, call_id, data FROM event ORDER BY seq")
    return [(row["type"], row["lead_id"], msgspec.json.decode(row["data"])) for row in rows]


async def add_call(pool: Pool, account_id: UUID, number: str, **columns: Any) -> UUID:
    found = {"direction": "inbound", "status": "missed", "from_e164": number, "external_id": uuid4().hex, **columns}
    names, places = ", ".join(found), ", ".join(f"${n + 3}" for n in range(len(found)))
    return await pool.fetchval(
        f"""INSERT INTO call (account_id, phone_number, started_at, pbx, {names})
            VALUES ($1, $2, now(), 'pbx', {places}) RETURNING id""",
        account_id,
        number,
        *found.values(),
    )


async def lead_of(pool: Pool, call_id: UUID) -> str:
    return str(await pool.fetchval("SELECT lead_id FROM call WHERE id = $1", call_id))


async def test_a_lead_from_its_making_to_its_end(api: Served, pool: Pool) -> None:
    made = await make(
        api, name=" Ada Lovelace ", phones=["020 7000 1001", "+44 20 7000 1001", "1001"], email="Ada@Example.com",
        source="fair", externalId="crm-1", metadata={"vip": True, "n": [1, None]},
    )  # fmt: skip
    assert {**made, "id": None, "createdAt": None, "updatedAt": None} == {
        "id": None, "name": "Ada Lovelace", "phone": "020 7000 1001",
        "phones": [{"number": "020 7000 1001", "e164": "+442070001001"}, {"number": "1001", "e164": None}],
        "email": "ada@example.com", "status": "NEW", "source": "fair", "externalId": "crm-1",
        "metadata": {"vip": True, "n": [1, None]}, "createdAt": None, "updatedAt": None,
    }  # fmt: skip
    path = f"{LEADS}/{made['id']}"
    assert await send(api, "GET", path) == (200, made)
    status, changed = await send(
        api, "PATCH", path, {"name": None, "status": "QUALIFIED", "phones": ["1001", "+493012345678"], "metadata": None}
    )
    assert status == 200
    assert (changed["name"], changed["status"], changed["metadata"]) == ("", "QUALIFIED", None)
    assert [phone["e164"] for phone in changed["phones"]] == [None, "+493012345678"]
    assert (changed["email"], changed["externalId"]) == ("ada@example.com", "crm-1")
    assert changed["updatedAt"] > made["updatedAt"]
    assert await send(api, "PATCH", path, {"status": "QUALIFIED"}) == (200, changed), "nothing is changed by nothing"
    assert await send(api, "DELETE", path) == (204, None)
    assert (await send(api, "GET", path))[1]["code"] == "lead_not_found"
    assert [(type_, data["lead"]) for type_, _, data in await events(pool)] == [
        ("lead.created", made), ("lead.updated", changed), ("lead.deleted", changed),
    ]  # fmt: skip


async def test_what_cannot_be_is_refused_with_its_name(api: Served) -> None:
    for body, said in (
        ({"phone": "1"}, "`phone`"),
        ({"status": "won"}, "$.status"),
        ({"name": "a\nb"}, "$.name"),
        ({"phones": ["1"] * 11}, "$.phones"),
        ({"phones": [" "]}, "$.phones"),
        ({"email": "nobody"}, "$.email"),
        ({"externalId": ""}, "$.externalId"),
        ({"metadata": []}, "$.metadata"),
    ):
        status, problem = await send(api, "POST", LEADS, body)
        assert (status, problem["code"]) == (422, "bad_body")
        assert said in problem["detail"]
    await make(api, externalId="x")
    other = await make(api)
    for method, path in (("POST", LEADS), ("PATCH", f"{LEADS}/{other['id']}")):
        status, problem = await send(api, method, path, {"externalId": "x"})
        assert (status, problem["code"]) == (409, "external_id_taken")


async def test_a_lead_is_found_by_any_of_its_numbers_however_written(api: Served) -> None:
    ada = await make(api, name="Ada", phones=["1001", "+44 20 7000 1001"])
    home = await make(api, name="Zoë", phones=["02070001001"])
    await make(api, name="Other", phones=["02070001002"])
    for written in (
        "%2B442070001001",
        "+442070001001",
        "020 7000 1001",
        "(020)7000-1001",
        "tel:00442070001001",
        "+44 (0)20 7000\u20111001",
    ):
        _, found = await send(api, "GET", f"{LEADS}?phone={written}&sort=createdAt")
        assert [lead["id"] for lead in found["items"]] == [ada["id"], home["id"]], written
    for written in ("1001", "anonymous", "x" * 100):
        status, problem = await send(api, "GET", f"{LEADS}?phone={written}")
        assert (status, problem["code"], problem["parameter"]) == (400, "bad_parameter", "phone")


async def test_leads_are_narrowed(api: Served) -> None:
    ada = await make(api, name="Ada 100%_x", email="ada@example.com", externalId="a", phones=["+442070001001"])
    zoe = await make(api, name="Zoë", email="zoe@example.com", status="LOST", phones=["1", "+442070001002"])
    for query, expected in (
        ("q=ADA", [ada]),
        ("q=100%25_", [ada]),
        ("q=%25", [ada]),
        ("q=a_a", []),
        ("q=%5C", []),
        ("q=example", [ada, zoe]),
        ("q=70001002", [zoe]),
        ("q=zoë", [zoe]),
        ("email=ADA@example.com", [ada]),
        ("externalId=a", [ada]),
        ("status=lost,NEW", [ada, zoe]),
        ("status=LOST", [zoe]),
        ("status=LOST&q=ada", []),
        ("phone=02070001002&status=LOST", [zoe]),
        ("sort=updatedAt", [ada, zoe]),
    ):
        status, found = await send(api, "GET", f"{LEADS}?{query}" + ("" if "sort" in query else "&sort=createdAt"))
        assert (status, found["items"]) == (200, expected), query
    for query in ("status=x", "sort=name", "sort=--createdAt", "q=" + "x" * 101, "limit=201", "cursor=x"):
        assert (await send(api, "GET", f"{LEADS}?{query}"))[0] == 400


async def test_a_cursor_is_of_its_order_and_its_filters(api: Served) -> None:
    for n in range(3):
        await make(api, name=str(n))
    _, page = await send(api, "GET", f"{LEADS}?limit=1&sort=createdAt")
    cursor = page["nextCursor"]
    assert (await send(api, "GET", f"{LEADS}?limit=2&sort=createdAt&cursor={cursor}"))[1]["nextCursor"] is None
    for query in ("sort=-createdAt", "sort=updatedAt", "", "sort=createdAt&q=1", "sort=createdAt&status=NEW"):
        status, problem = await send(api, "GET", f"{LEADS}?{query}&cursor={cursor}")
        assert (status, problem["code"]) == (400, "bad_cursor"), query
    for cut in (cursor[:-1], cursor + "A", "A" + cursor, cursor[::-1]):
        assert (await send(api, "GET", f"{LEADS}?sort=createdAt&cursor={cut}"))[1]["code"] == "bad_cursor"


_ADD = """
INSERT INTO lead (account_id, name, status, created_at, updated_at)
SELECT $1, $2 || n, (ARRAY['new', 'lost'])[1 + n % 2], t, t
FROM (SELECT n, timestamptz '2026-01-01' + n / 4 * interval '1 s' AS t FROM generate_series(1, $3::int) AS n) AS made
"""


async def test_whatever_the_filter_and_the_order_each_lead_comes_once_while_others_are_added(
    api: Served, pool: Pool, account_id: UUID
) -> None:
    """Several have each moment. Those that are there at the beginning come exactly once; of the others none twice."""
    await pool.execute(_ADD, account_id, "before ", 60)
    here = {str(row["id"]): row["status"] for row in await pool.fetch("SELECT id, status FROM lead")}

    async def walk(sort: str, status: str | None, limits: list[int], times: list[int]) -> None:
        seen: list[str] = []
        cursor: str | None = None
        for step in range(200):
            query = f"sort={sort}&limit={limits[step % len(limits)]}" + (f"&status={status}" if status else "")
            _, page = await send(api, "GET", f"{LEADS}?{query}" + (f"&cursor={cursor}" if cursor else ""))
            seen += [lead["id"] for lead in page["items"]]
            if step < len(times):  # somewhere in the order, before or behind where the walk is
                await pool.execute(
                    "INSERT INTO lead (account_id, name, status, created_at, updated_at) VALUES"
                    " ($1, 'meanwhile', 'new', timestamptz '2026-01-01' + $2 * interval '1 s', '2026-01-01')",
                    account_id,
                    times[step],
                )
            cursor = page["nextCursor"]
            if cursor is None:
                break
        wanted = [id_ for id_, of in here.items() if status is None or of == status.lower()]
        assert len(seen) == len(set(seen))
        assert set(wanted) <= set(seen)
        assert all(id_ not in here or id_ in wanted for id_ in seen)
        await pool.execute("DELETE FROM lead WHERE name = 'meanwhile'")

    loop = asyncio.get_running_loop()

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        sort=st.sampled_from(["createdAt", "-createdAt", "updatedAt", "-updatedAt"]),
        status=st.sampled_from([None, "NEW", "LOST"]),
        limits=st.lists(st.integers(7, 40), min_size=1, max_size=3),
        times=st.lists(st.integers(-1, 20), max_size=4),
    )
    def walks(sort: str, status: str | None, limits: list[int], times: list[int]) -> None:
        asyncio.run_coroutine_threadsafe(walk(sort, status, limits, times), loop).result()

    await asyncio.to_thread(walks)


async def test_past_calls_that_are_nobodys_become_the_leads(api: Served, pool: Pool, account_id: UUID) -> None:
    number, other = "+442070001001", "+442070001002"
    conversation = await pool.fetchval(
        "INSERT INTO conversation (account_id, channel, contact) VALUES ($1, 'telephony', $2) RETURNING id",
        account_id,
        number,
    )
    whatsapp = await pool.fetchval(
        "INSERT INTO conversation (account_id, channel, contact) VALUES ($1, 'whatsapp', $2) RETURNING id",
        account_id,
        number,
    )
    first = await make(api, phones=["+442070009999"])
    mine = [
        await add_call(pool, account_id, number, conversation_id=conversation),
        await add_call(pool, account_id, "1001", direction="outbound", from_e164=None, to_e164=number, status="busy"),
    ]
    others = [
        await add_call(pool, account_id, number, from_private=True),
        await add_call(pool, account_id, "1001", direction="outbound", from_e164=number),
        await add_call(pool, account_id, "1001", direction="internal", from_e164=number),
        await add_call(pool, account_id, other),
    ]
    taken = await add_call(pool, account_id, number, lead_id=UUID(first["id"]))
    chosen = await add_call(pool, account_id, number)
    assert (await send(api, "PATCH", f"/api/v1/calls/{chosen}", {"leadId": None}))[0] == 200
    foreign = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    theirs = await add_call(pool, foreign, number)
    lead = await make(api, phones=["1", number])
    assert [await lead_of(pool, call) for call in mine] == [lead["id"]] * 2
    assert {await lead_of(pool, call) for call in [*others, chosen, theirs]} == {"None"}
    assert await lead_of(pool, taken) == first["id"]
    rows = await pool.fetch("SELECT lead_id FROM conversation WHERE id = ANY ($1::uuid[])", [conversation, whatsapp])
    assert [str(row["lead_id"]) for row in rows] == [lead["id"]] * 2
    await send(api, "PATCH", f"{LEADS}/{lead['id']}", {"phones": [number, other]})
    assert await lead_of(pool, others[-1]) == lead["id"], "a number that is added counts as well"
    await send(api, "DELETE", f"{LEADS}/{lead['id']}")
    assert {await lead_of(pool, call) for call in mine} == {"None"}


async def test_merged_into_another_one(api: Served, pool: Pool, account_id: UUID) -> None:
    kept = await make(api, name="Ada", phones=["+442070001001"], metadata={"a": 1, "b": 1})
    gone = await make(
        api, name="A. Lovelace", phones=["1", "+44 20 7000 1001", "+442070001002"], email="ada@example.com",
        externalId="x", metadata={"b": 2, "c": 2},
    )  # fmt: skip
    older = await make(api, name="older")
    await send(api, "POST", f"{LEADS}/{gone['id']}/merge", {"leadId": older["id"]})
    gone_id = UUID(gone["id"])
    calls = [await add_call(pool, account_id, "+442070001002", lead_id=gone_id) for _ in range(3)]
    for row in (
        "conversation (account_id, lead_id, channel) VALUES ($1, $2, 'whatsapp')",
        "deal (account_id, lead_id) VALUES ($1, $2)",
        "booking (account_id, lead_id, starts_at) VALUES ($1, $2, now())",
    ):
        await pool.execute(f"INSERT INTO {row}", account_id, gone_id)
    status, merged = await send(api, "POST", f"{LEADS}/{kept['id']}/merge", {"leadId": gone["id"]})
    assert status == 200
    assert {**merged, "updatedAt": kept["updatedAt"]} == {
        **kept,
        "phones": [
            {"number": "+442070001001", "e164": "+442070001001"},
            {"number": "1", "e164": None},
            {"number": "+442070001002", "e164": "+442070001002"},
        ],
        "email": "ada@example.com", "externalId": "x", "metadata": {"a": 1, "b": 1, "c": 2},
    }  # fmt: skip
    assert {await lead_of(pool, call) for call in calls} == {kept["id"]}
    for table in ("conversation", "deal", "booking"):
        assert str(await pool.fetchval(f"SELECT lead_id FROM {table}")) == kept["id"]
    for old in (gone, older):
        response, raw = await api.raw(f"{LEADS}/{old['id']}")
        assert msgspec.json.decode(raw) == merged
        assert response.headers["Content-Location"] == f"{LEADS}/{kept['id']}"
        for method, path, body in (
            ("PATCH", "", {"name": "x"}),
            ("DELETE", "", None),
            ("POST", "/merge", {"leadId": kept["id"]}),
        ):
            status, problem = await send(api, method, f"{LEADS}/{old['id']}{path}", body)
            assert (status, problem["code"], problem["leadId"]) == (410, "lead_merged", kept["id"])
    assert [
        tuple(row) for row in await pool.fetch("SELECT actor, subject, detail FROM audit ORDER BY at DESC LIMIT 1")
    ] == [("loopback", f"lead:{kept['id']}", f"lead:{gone['id']}")]
    told = [(type_, lead_id, data.get("mergedId")) for type_, lead_id, data in await events(pool)]
    assert told[-1] == ("lead.merged", UUID(kept["id"]), gone["id"])
    for wrong in (kept["id"], gone["id"], str(uuid4())):
        status, problem = await send(api, "POST", f"{LEADS}/{kept['id']}/merge", {"leadId": wrong})
        assert (status, problem["code"]) in ((422, "bad_body"), (422, "lead_unknown"))


async def test_what_the_old_schema_left_in_a_lead_stays(api: Served, pool: Pool, account_id: UUID) -> None:
    lead_id = await pool.fetchval(
        "INSERT INTO lead (account_id, phone, metadata) VALUES ($1, 'a b', '[1, {\"a\": null}]') RETURNING id",
        account_id,
    )
    for method, path, body in (
        ("PATCH", f"{LEADS}/{lead_id}", {"name": "x"}),
        ("POST", f"{LEADS}/{lead_id}/merge", {"leadId": (await make(api, metadata={"b": 1}))["id"]}),
    ):
        status, found = await send(api, method, path, body)
        assert (status, found["metadata"], found["phone"]) == (200, [1, {"a": None}], "a b")


async def test_another_accounts_lead_is_nobodys(api: Served, pool: Pool) -> None:
    foreign = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    theirs = await pool.fetchval(
        "INSERT INTO lead (account_id, phone, phone_e164) VALUES ($1, 'x', '+442070001001') RETURNING id", foreign
    )
    mine = await make(api)
    assert (await send(api, "POST", f"{LEADS}/{mine['id']}/merge", {"leadId": str(theirs)}))[0] == 422
    assert (await send(api, "GET", f"{LEADS}?phone=02070001001"))[1]["items"] == []
    assert await pool.fetchval("SELECT account_id FROM lead WHERE id = $1", theirs) == foreign


async def test_where_files_are_taken_there_is_no_lead(api: Served) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        response, _ = await api.raw(f"{LEADS}/import", method=method)
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    for nobody in ("import%2Fx", "imports", "IMPORT", "x"):
        assert (await send(api, "GET", f"{LEADS}/{nobody}"))[1]["code"] == "lead_not_found"
