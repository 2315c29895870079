"""What people say of calls: it stays whatever the PBX tells of the call, and whoever asks for it first has it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import pytest_asyncio
from served import ACCOUNT, Serve, Served

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Status
from trunkline.crm.matching import select_leads_by_number
from trunkline.inbox.telephony import upsert_conversations
from trunkline.store.pool import Pool, open_pool
from trunkline.store.writer import CallWriter

pytestmark = pytest.mark.asyncio

AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = "+442070001001"


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def api(serve: Serve, pool: Pool, account_id: UUID) -> AsyncIterator[Served]:
    yield await serve(pool, region="GB")


@pytest_asyncio.fixture
async def writer(database_url: str) -> AsyncIterator[CallWriter]:
    """As the daemon has it."""
    async with await open_pool(database_url) as pool:
        yield CallWriter(pool, ACCOUNT, leads=select_leads_by_number, conversations=upsert_conversations)


def call(name: str, revision: int = 1, **fields: Any) -> CallUpdate:
    record = CallRecord(
        pbx="pbx", external_id=f"pbx-{name}", direction=Direction.INBOUND, status=Status.IN_PROGRESS, from_=NUMBER,
        from_e164=NUMBER, to="1", phone_number=NUMBER, started_at=AT + timedelta(seconds=revision), revision=revision,
    )  # fmt: skip
    return CallUpdate(msgspec.structs.replace(record, **fields), ("call.ringing",) if revision == 1 else ())


async def send(api: Served, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    options = {} if body is None else {"json": body}
    response, raw = await api.raw(path, method=method, headers=headers, **options)
    return response.status, msgspec.json.decode(raw) if raw else None


async def only_call(api: Served) -> Any:
    _, page = await api.get("/api/v1/calls")
    [found] = page["items"]
    return found


async def test_what_was_said_of_a_call_stays_while_it_goes_on(api: Served, writer: CallWriter, pool: Pool) -> None:
    await writer.write([call("1")])
    path = f"/api/v1/calls/{(await only_call(api))['id']}"
    _, before = await send(api, "GET", path)
    assert (before["notes"], before["tags"], before["disposition"]) == ("", [], None)
    said = {"notes": "line\n  one", "tags": [" hot ", "hot", "vip"], "disposition": "sold"}
    status, changed = await send(api, "PATCH", path, said)
    assert status == 200
    assert changed == {**before, "notes": "line\n  one", "tags": ["hot", "vip"], "disposition": "sold"}
    result = await writer.write([call("1", 2, status=Status.COMPLETED, ended_at=AT + timedelta(hours=1))])
    assert (result.written, result.refused) == (1, ())
    now = await only_call(api)
    assert (now["status"], now["revision"]) == ("COMPLETED", 2)
    assert (now["notes"], now["tags"], now["disposition"]) == ("line\n  one", ["hot", "vip"], "sold")
    assert await send(api, "PATCH", path, {"tags": None, "disposition": None, "notes": None}) == (
        200,
        {**(await only_call(api)), "notes": "", "tags": [], "disposition": None, "legs": []},
    )
    rows = await pool.fetch("SELECT type, data FROM event WHERE type = 'call.updated' ORDER BY seq")
    told = [msgspec.json.decode(row["data"])["call"] for row in rows]
    assert [(one["notes"], one["tags"], one["disposition"]) for one in told] == [
        ("line\n  one", ["hot", "vip"], "sold"),
        ("", [], None),
    ]
    assert told[0]["externalId"] == "pbx-1"


async def test_a_call_that_rings_on_is_no_reason_to_read_it_again(api: Served, writer: CallWriter) -> None:
    await writer.write([call("1")])
    path = f"/api/v1/calls/{(await only_call(api))['id']}"
    response, _ = await api.raw(path)
    await writer.write([call("1", 2)])
    later, _ = await api.raw(path, headers={"If-None-Match": response.headers["ETag"]})
    assert later.status == 200, "it is another state of the call"
    tag = response.headers["ETag"]
    answers = await asyncio.gather(
        *(api.raw(path, method="PATCH", json={"notes": who}, headers={"If-Match": tag}) for who in ("Ada", "Zoë"))
    )
    assert sorted(response.status for response, _ in answers) == [200, 412]


async def test_whose_a_call_is_is_said_by_people_in_the_end(api: Served, writer: CallWriter, pool: Pool) -> None:
    _, ada = await send(api, "POST", "/api/v1/leads", {"name": "Ada", "phones": ["1", NUMBER]})
    _, zoe = await send(api, "POST", "/api/v1/leads", {"name": "Zoë"})
    await writer.write([call("1")])
    found = await only_call(api)
    assert found["leadId"] == ada["id"], "by a number that is not her first"
    path = f"/api/v1/calls/{found['id']}"
    for given, expected in ((zoe["id"], zoe["id"]), (None, None)):
        status, changed = await send(api, "PATCH", path, {"leadId": given})
        assert (status, changed["leadId"]) == (200, expected)
        await writer.write([call("1", changed["revision"] + 1)])
        assert (await only_call(api))["leadId"] == expected
    await send(api, "PATCH", f"/api/v1/leads/{zoe['id']}", {"phones": [NUMBER]})
    assert (await only_call(api))["leadId"] is None, "nobody's, as somebody said"
    foreign = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    theirs = await pool.fetchval("INSERT INTO lead (account_id) VALUES ($1) RETURNING id", foreign)
    for nobody in (str(uuid4()), str(theirs)):
        status, problem = await send(api, "PATCH", path, {"leadId": nobody})
        assert (status, problem["code"]) == (422, "lead_unknown")
    await send(api, "POST", f"/api/v1/leads/{ada['id']}/merge", {"leadId": zoe["id"]})
    assert (await send(api, "PATCH", path, {"leadId": zoe["id"]}))[1]["leadId"] == ada["id"], "as she was merged"


async def test_what_cannot_be_said_is_refused(api: Served, writer: CallWriter) -> None:
    await writer.write([call("1")])
    path = f"/api/v1/calls/{(await only_call(api))['id']}"
    for body, said in (
        ({"status": "COMPLETED"}, "`status`"),
        ({"notes": "x" * 10_001}, "$.notes"),
        ({"tags": ["x"] * 21}, "$.tags"),
        ({"tags": ["x" * 51]}, "$.tags"),
        ({"tags": [" "]}, "$.tags"),
        ({"disposition": ""}, "$.disposition"),
        ({"leadId": "x"}, "$.leadId"),
    ):
        status, problem = await send(api, "PATCH", path, body)
        assert (status, problem["code"]) == (422, "bad_body")
        assert said in problem["detail"]


async def test_the_notes_of_a_call_that_is_folded_into_another_go_with_it(
    api: Served, writer: CallWriter, pool: Pool
) -> None:
    await writer.write([call("1"), call("2"), call("3")])
    _, page = await api.get("/api/v1/calls?fields=id,externalId")
    ids = {found["externalId"]: found["id"] for found in page["items"]}
    for name, said in (
        ("1", {"notes": "first", "tags": ["a"]}),
        ("2", {"notes": "second", "tags": ["b", "a"], "disposition": "sold"}),
        ("3", {"notes": "third"}),
    ):
        assert (await send(api, "PATCH", f"/api/v1/calls/{ids[f'pbx-{name}']}", said))[0] == 200
    await writer.write([call("1", 2, aliases=["pbx-2", "pbx-3"])])
    kept = await only_call(api)
    notes = kept["notes"].split("\n\n")
    assert notes[0] == "first"
    assert sorted(notes[1:]) == ["second", "third"]
    assert (kept["tags"], kept["disposition"]) == (["a", "b"], "sold")
    response, raw = await api.raw(f"/api/v1/calls/{ids['pbx-2']}", method="PATCH", json={"disposition": "lost"})
    assert (msgspec.json.decode(raw)["id"], response.status) == (kept["id"], 200)
    assert response.headers["Content-Location"] == f"/api/v1/calls/{kept['id']}"
    assert await pool.fetchval("SELECT count(*) FROM call_note") == 1


async def test_leads_are_merged_while_their_calls_come(api: Served, writer: CallWriter, pool: Pool) -> None:
    """No call is refused or lost, and each one is the survivor's in the end, whichever lead was matched first."""
    _, survivor = await send(api, "POST", "/api/v1/leads", {"name": "the one that stays"})
    merging = True
    written = 0

    async def write(pbx: int) -> None:
        nonlocal written
        while merging or written < 50:
            updates = [call(f"{pbx}-{written}-{n}", pbx=f"pbx{pbx}") for n in range(3)]
            result = await writer.write(updates)
            assert (result.written, result.refused) == (3, ())
            written += 3
            again = [call(update.record.external_id[4:], 2, pbx=f"pbx{pbx}") for update in updates]
            assert (await writer.write(reversed(again))).refused == ()

    async def merge() -> None:
        nonlocal merging
        for _ in range(5):
            status, lead = await send(api, "POST", "/api/v1/leads", {"phones": [NUMBER]})
            assert status == 201
            status, told = await send(api, "POST", f"/api/v1/leads/{survivor['id']}/merge", {"leadId": lead["id"]})
            assert status == 200, told
            await send(api, "PATCH", f"/api/v1/leads/{survivor['id']}", {"phones": []})
        merging = False

    await asyncio.gather(write(1), write(2), merge())
    await send(api, "PATCH", f"/api/v1/leads/{survivor['id']}", {"phones": [NUMBER]})
    rows = await pool.fetch("SELECT lead_id, count(*) FROM call GROUP BY lead_id")
    assert [(str(row["lead_id"]), row["count"]) for row in rows] == [(survivor["id"], written)]
    assert await pool.fetchval("SELECT count(*) FROM lead") == 1
    seqs = [row["seq"] for row in await pool.fetch("SELECT seq FROM event ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_a_lead_that_is_merged_or_deleted_right_after_it_was_matched_costs_no_call(
    api: Served, writer: CallWriter, pool: Pool
) -> None:
    _, survivor = await send(api, "POST", "/api/v1/leads", {"phones": ["1"]})
    meanwhile: list[tuple[str, str, Any]] = []

    async def match(connection: Any, account_id: UUID, numbers: Any) -> Any:
        found = await select_leads_by_number(connection, account_id, numbers)
        if meanwhile:
            assert (await send(api, *meanwhile.pop()))[0] in (200, 204)
        return found

    late = CallWriter(writer.pool, ACCOUNT, leads=match, conversations=upsert_conversations)
    for name, expected in (("merged", survivor["id"]), ("deleted", None)):
        _, lead = await send(api, "POST", "/api/v1/leads", {"phones": [NUMBER]})
        merge = ("POST", f"/api/v1/leads/{survivor['id']}/merge", {"leadId": lead["id"]})
        meanwhile.append(merge if expected else ("DELETE", f"/api/v1/leads/{lead['id']}", None))
        result = await late.write([call(name)])
        assert (result.written, result.refused) == (1, ())
        found = await pool.fetchval("SELECT lead_id::text FROM call WHERE external_id = $1", f"pbx-{name}")
        assert found == expected
        await send(api, "PATCH", f"/api/v1/leads/{survivor['id']}", {"phones": []})
        await pool.execute("DELETE FROM conversation")


async def test_a_writer_is_not_kept_waiting_by_who_hangs(api: Served, writer: CallWriter, pool: Pool) -> None:
    """Whoever holds a note's lock for however long: the call goes on."""
    await writer.write([call("1")])
    path = f"/api/v1/calls/{(await only_call(api))['id']}"
    await send(api, "PATCH", path, {"notes": "x"})
    async with pool.acquire() as connection, connection.transaction():
        await connection.fetch("SELECT * FROM call_note FOR UPDATE")
        await connection.fetch("SELECT id FROM call FOR KEY SHARE")
        result = await writer.write([call("1", 2)])
        assert result.written == 1
