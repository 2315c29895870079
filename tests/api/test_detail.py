"""GET /api/v1/calls/{id}: one call, whole."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from served import Serve, Served, insert_calls

from trunkline.calls.record import (
    CallRecord,
    CallUpdate,
    Direction,
    Hold,
    Leg,
    Parking,
    RecordingRef,
    Role,
    Status,
    Transfer,
    TransferKind,
    encode,
)
from trunkline.store.pool import Pool
from trunkline.store.writer import CallWriter

START = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)


def rich(external_id: str, revision: int = 1, aliases: tuple[str, ...] = ()) -> CallRecord:
    """A call with something in every list."""
    at = START + timedelta(seconds=5)
    return CallRecord(
        pbx="office",
        external_id=external_id,
        aliases=list(aliases),
        channel_id=external_id,
        direction=Direction.INBOUND,
        status=Status.COMPLETED,
        from_="02079460001",
        to="02079460000",
        phone_number="02079460001",
        from_e164="+442079460001",
        caller_name='Zoë "Z" O\'Brien <script>',
        started_at=START,
        answered_at=at,
        ended_at=START + timedelta(seconds=65, microseconds=250),
        duration=65,
        rang=["1001", "1002"],
        transfers=[Transfer(kind=TransferKind.BLIND, by="1001", to="1002", at=at, result="ANSWERED")],
        holds=[Hold(by="1001", started_at=at, ended_at=at + timedelta(seconds=2))],
        parked=[Parking(by="1001", space="701", at=at, retrieved_by="1002")],
        recordings=[RecordingRef(path="/a/b.wav", channel_id=external_id, started_at=at)],
        legs=[
            Leg(
                channel_id=external_id, endpoint="PJSIP/trunk", party="02079460001", role=Role.CALLER, started_at=START
            ),
            Leg(channel_id=external_id + "x", endpoint="PJSIP/1001", party="1001", role=Role.AGENT, started_at=at),
        ],
        revision=revision,
    )


@pytest.mark.asyncio
async def test_a_call_comes_back_as_the_tracker_wrote_it(serve: Serve, pool: Pool) -> None:
    written = rich("office-1.1")
    await CallWriter(pool, "main").write([CallUpdate(written, ("call.ringing", "call.ended"))])
    api = await serve(pool)
    _, page = await api.get("/api/v1/calls")
    status, call = await api.get(f"/api/v1/calls/{page['items'][0]['id']}")
    assert status == 200
    stored = ("id", "accountId", "integrationId", "recordingId", "conversationId", "leadId", "createdAt")
    expected = {**json.loads(encode(written)), "notes": "", "tags": [], "disposition": None}  # of people
    assert {**call, **dict.fromkeys(stored)} == {**expected, **dict.fromkeys(stored)}
    assert list(call) == list(expected), "the fields stand in the same order as in `trunkline replay`"
    assert call["createdAt"].endswith("Z")
    # The list says the same, without the legs.
    del call["legs"]
    assert page["items"] == [call]


@pytest.mark.asyncio
async def test_the_id_of_a_folded_call_gives_the_call_it_went_into(serve: Serve, pool: Pool) -> None:
    writer = CallWriter(pool, "main")
    await writer.write([CallUpdate(rich("office-1.1")), CallUpdate(rich("office-2.1")), CallUpdate(rich("office-3.1"))])
    ids = {row["external_id"]: row["id"] for row in await pool.fetch("SELECT external_id, id FROM call")}
    await writer.write([CallUpdate(rich("office-2.1", 2, ("office-3.1",)), ("call.merged",))])
    await writer.write([CallUpdate(rich("office-1.1", 2, ("office-2.1", "office-3.1")), ("call.merged",))])
    api = await serve(pool)
    for external_id in ("office-2.1", "office-3.1"):
        response, body = await api.raw(f"/api/v1/calls/{ids[external_id]}")
        assert response.status == 200
        assert response.headers["Content-Location"] == f"/api/v1/calls/{ids['office-1.1']}"
        call = json.loads(body)
        assert call["id"] == str(ids["office-1.1"])
        assert sorted(call["aliases"]) == ["office-2.1", "office-3.1"]
    response, _ = await api.raw(f"/api/v1/calls/{ids['office-1.1']}")
    assert "Content-Location" not in response.headers
    assert len((await api.get("/api/v1/calls"))[1]["items"]) == 1


@pytest.mark.asyncio
async def test_what_is_not_there_and_what_is_another_accounts_look_the_same(
    api: Served, serve: Serve, pool: Pool
) -> None:
    other_id = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    await insert_calls(pool, other_id, 1)
    foreign = await pool.fetchval("SELECT id FROM call")
    assert (await (await serve(pool, account="other")).get(f"/api/v1/calls/{foreign}"))[0] == 200
    problems = []
    for wrong in (foreign, uuid4(), "1", "%00", "null", foreign.hex, f"urn:uuid:{foreign}", "é", "a" * 3000):
        status, problem = await api.get(f"/api/v1/calls/{wrong}", headers={"X-Request-ID": "same"})
        assert status == 404
        problems.append(problem)
    assert all(problem == problems[0] for problem in problems)
    assert problems[0]["code"] == "call_not_found"
    assert (await api.get("/api/v1/calls"))[1]["items"] == []


@pytest.mark.asyncio
async def test_an_id_in_capitals_is_the_same_id(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 1)
    call_id = await pool.fetchval("SELECT id FROM call")
    status, call = await api.get(f"/api/v1/calls/{str(call_id).upper()}")
    assert (status, call["id"], call["legs"]) == (200, str(call_id), [])


@pytest.mark.asyncio
async def test_json_is_indented_for_human_eyes_only(api: Served, pool: Pool, account_id: UUID) -> None:
    await insert_calls(pool, account_id, 1)
    path = f"/api/v1/calls/{await pool.fetchval('SELECT id FROM call')}"
    _, plain = await api.raw(path)
    _, asked = await api.raw(path + "?pretty=1")
    response, browser = await api.raw(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert plain.count(b"\n") == 0
    assert asked.count(b"\n") > 40
    assert browser == asked
    assert response.content_type == "application/json"
    assert json.loads(plain) == json.loads(asked)
    assert (await api.raw(path + "?pretty=0", headers={"Accept": "text/html"}))[1] == plain
