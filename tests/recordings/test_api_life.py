"""The API of recordings: what has no audio, holds, and erasure, whatever happens beside them."""

import asyncio
import hashlib
import json
import threading
from typing import Any

import pytest
import pytest_asyncio
from house import House
from served import Serve, Served

from trunkline.recordings.maintenance import Maintenance

pytestmark = pytest.mark.asyncio

R = "/api/v1/recordings"


@pytest_asyncio.fixture
async def api(serve: Serve) -> Served:
    return await serve()


async def accesses(house: House) -> list[dict[str, Any]]:
    return [dict(row) for row in await house.pool.fetch("SELECT * FROM recording_access ORDER BY created_at, action")]


@pytest.mark.parametrize("state", ["pending", "unmatched", "failed", "empty"])
async def test_without_audio_it_is_told_how_the_recording_stands_and_why(house: House, api: Served, state: str) -> None:
    await house.call(str(house.spool / "one.wav"))
    recording_id = await house.pool.fetchval(
        "UPDATE call_recording SET state = $1, reason = 'because of \"the\" <moon>' RETURNING id", state
    )
    for tail in ("/audio", "/audio?redirect=1", "/peaks"):
        response, body = await api.raw(f"{R}/{recording_id}{tail}")
        problem = json.loads(body)
        assert (response.status, response.content_type) == (404, "application/problem+json")
        assert (problem["code"], problem["state"]) == ("no_audio", state.upper())
        assert 'because of "the" <moon>' in problem["detail"]
        head, nothing = await api.raw(f"{R}/{recording_id}{tail}", method="HEAD")
        assert (head.status, nothing) == (404, b"")
    status, told = await api.get(f"{R}/{recording_id}")
    assert (status, told["state"], told["size"], told["sha256"]) == (200, state.upper(), None, None)


async def test_an_erased_recording_is_gone_for_the_client_at_once_and_for_good_when_the_job_has_run(
    house: House, api: Served
) -> None:
    row = await house.stored()
    path = f"{R}/{row['id']}"
    before, _ = await api.raw(f"{path}/audio")
    assert before.status == 200
    response, body = await api.raw(path, method="DELETE")
    assert (response.status, body) == (202, b"")

    async def heard_by_nobody() -> None:
        for tail in ("/audio", "/audio?redirect=1", "/peaks"):
            for headers in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": before.headers["ETag"]}):
                gone, text = await api.raw(path + tail, headers=headers, allow_redirects=False)
                assert gone.status == 410, tail
                problem = json.loads(text)
                assert problem["code"] == "recording_erased"
                assert problem["erasedAt"].endswith("Z")
            assert (await api.raw(path + tail, method="HEAD", allow_redirects=False))[0].status == 410
        assert (await api.raw(f"{path}/hold", method="PUT"))[0].status == 410
        assert (await api.get(path))[1]["erasedAt"].endswith("Z")

    await heard_by_nobody()
    assert list(house.objects()) == [row["key"]], "nothing has run yet"
    (after,) = await house.settled()
    assert house.objects() == {}
    assert (after["key"], after["media_file_id"], after["path"]) == (None, None, None)
    assert await house.pool.fetchval("SELECT count(*) FROM recording_peaks") == 0
    await heard_by_nobody()
    # Once more is no fault, and makes no work.
    assert (await api.raw(path, method="DELETE"))[0].status == 202
    assert await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 0
    written = [(access["action"], access["actor"]) for access in await accesses(house) if access["action"] == "erase"]
    assert written == [("erase", "loopback"), ("erase", "maintenance")]


async def test_under_legal_hold_nothing_is_erased(house: House, api: Served) -> None:
    row = await house.stored()
    path = f"{R}/{row['id']}"
    for _ in range(2):  # again is the same
        response, body = await api.raw(f"{path}/hold", method="PUT")
        assert (response.status, body) == (204, b"")
    assert (await api.get(path))[1]["legalHold"] is True
    response, body = await api.raw(path, method="DELETE")
    assert (response.status, json.loads(body)["code"]) == (409, "legal_hold")
    await house.settled()
    assert list(house.objects()) == [row["key"]]
    assert (await api.raw(f"{path}/audio"))[0].status == 200, "it is kept to be heard"
    for _ in range(2):
        assert (await api.raw(f"{path}/hold", method="DELETE"))[0].status == 204
    assert (await api.get(path))[1]["legalHold"] is False
    assert (await api.raw(path, method="DELETE"))[0].status == 202
    await house.settled()
    assert house.objects() == {}


async def test_hold_and_erasure_at_once_end_as_one_or_the_other(house: House, api: Served) -> None:
    """Whoever was told "held" has it held; whoever was told "erased" has it erased."""
    for n in range(6):
        row = await house.stored(f"{n}.wav", seconds=0.1)
        path = f"{R}/{row['id']}"
        answers = await asyncio.gather(api.raw(f"{path}/hold", method="PUT"), api.raw(path, method="DELETE"))
        held, erased = (response.status for response, _ in answers)
        told = (await api.get(path))[1]
        assert (held, erased) in ((204, 409), (410, 202)), (held, erased, told)
        assert (told["legalHold"], told["erasedAt"] is not None) == (held == 204, erased == 202)


async def test_what_came_from_the_old_schema_is_heard_and_erased_too(house: House, api: Served) -> None:
    """The migration has rows with an object and neither path nor hash nor times."""
    row = await house.stored()
    await house.pool.execute(
        "UPDATE call_recording SET path = NULL, call_id = NULL, channel_id = NULL, started_at = NULL, ended_at = NULL"
    )
    await house.pool.execute("UPDATE media_file SET metadata = '{}'")
    path = f"{R}/{row['id']}"
    response, body = await api.raw(f"{path}/audio")
    assert response.status == 200
    assert hashlib.sha256(body).hexdigest() == json.loads(row["file_metadata"])["sha256"]
    assert response.headers.get("ETag") != '"None"', "one tag for all that have no hash"
    assert (await api.raw(path, method="DELETE"))[0].status == 202
    await house.settled()
    assert house.objects() == {}


async def test_without_object_storage_it_is_told_that_none_is_set(house: House, serve: Serve) -> None:
    row = await house.stored()
    api = await serve(objects=None)
    status, problem = await api.get(f"{R}/{row['id']}/audio")
    assert (status, problem["code"]) == (503, "storage_not_configured")
    assert (await api.get(f"{R}/{row['id']}"))[0] == 200
    assert (await api.get(f"{R}/{row['id']}/peaks"))[1]["code"] == "storage_not_configured"


async def test_what_is_erased_while_it_is_stored_is_gone_as_well(house: House, api: Served) -> None:
    """A job is at it already, and no second one is made."""
    reached, go_on = threading.Event(), threading.Event()

    def step(name: str) -> None:
        if name == "read back":
            reached.set()
            go_on.wait(10)

    house.uploader._step = step
    call_id = await house.call(str(house.write("one.wav")))
    recording_id = await house.pool.fetchval("SELECT id FROM call_recording WHERE call_id = $1", call_id)
    async with house.running():
        await house.until("it is put", reached.is_set)
        assert (await api.raw(f"{R}/{recording_id}", method="DELETE"))[0].status == 202
        go_on.set()
        await house.until("no job is left", lambda: house.pool.fetchval("SELECT count(*) = 0 FROM jobs.pgqueuer"))
    # What else runs in a daemon has its turn.
    await house.sweeper.sweep()
    await Maintenance(house.pool, "main", None, {}).retire()
    (row,) = await house.settled()
    assert house.objects() == {}
    assert house.files() == []
    assert (row["path"], row["key"]) == (None, None)
