"""The API of recordings: what there is, who may have it, what is written down, and who is kept out."""

import hashlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from house import House
from served import Serve, Served
from sounds import raw, tone, wav
from structlog.testing import capture_logs

from trunkline.api import create_app
from trunkline.embedded.s3 import S3Server
from trunkline.metrics import Metrics
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

KEY = "canary-key-0123456789"
BY_KEY = f"key:{hashlib.sha256(KEY.encode()).hexdigest()[:12]}"
R = "/api/v1/recordings"


@pytest_asyncio.fixture
async def api(serve: Serve) -> Served:
    return await serve()


@pytest_asyncio.fixture
async def other(house: House, pool: Pool, s3: S3Server, tmp_path: Path) -> AsyncIterator[House]:
    """The house of a second account, with a PBX of the same name."""
    spool = tmp_path / "other"
    spool.mkdir()
    other = House(pool, s3.endpoint, s3.access_key, s3.secret_key, house.store.bucket, spool, account="other")
    yield other
    await other.close()


async def accesses(house: House) -> list[dict[str, Any]]:
    return [dict(row) for row in await house.pool.fetch("SELECT * FROM recording_access ORDER BY created_at, action")]


def routes(pool: Pool) -> list[tuple[str, str]]:
    """Method and path of every route about recordings; what changes something last, erasure at the end."""
    app = create_app(pool, account="main", metrics=Metrics("test"))
    found = [(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None]
    found = [(method, path) for method, path in found if "recording" in path]
    return sorted(found, key=lambda one: (one[0] == "DELETE", one[0] == "PUT", -len(one[1]), one))


def filled(path: str, row: dict[str, Any]) -> str:
    """A route's path for this recording. A new placeholder has to be placed here."""
    call = "/calls/{id}/"
    path = path.replace(call, call.format(id=row["call_id"])).replace("{id}", str(row["id"]))
    assert "{" not in path, f"say here what stands for it in {path}"
    return path


async def test_a_recording_is_told_in_camel_case_with_upper_words_and_utc(house: House, api: Served) -> None:
    row = await house.stored(seconds=2)
    await house.pool.execute(
        "UPDATE call_recording SET paused_spans = $1",
        '[{"startedAt": "2026-01-01T00:00:01Z", "endedAt": "2026-01-01T00:00:02Z"}]',
    )
    data = house.content(row["key"])
    status, told = await api.get(f"{R}/{row['id']}")
    assert status == 200
    times = {name: told.pop(name) for name in ("startedAt", "endedAt", "createdAt")}
    for name, column in (("startedAt", "started_at"), ("endedAt", "ended_at"), ("createdAt", "created_at")):
        assert times[name].endswith("Z")
        assert datetime.fromisoformat(times[name]) == row[column]
    assert told == {
        "id": str(row["id"]),
        "callId": str(row["call_id"]),
        "channelId": row["channel_id"],
        "kind": "CALL",
        "state": "STORED",
        "reason": None,
        "path": row["path"],
        "durationSeconds": 2,
        "pausedSpans": [{"startedAt": "2026-01-01T00:00:01Z", "endedAt": "2026-01-01T00:00:02Z"}],
        "legalHold": False,
        "erasedAt": None,
        "mediaFileId": str(row["media_file_id"]),
        "name": "one.wav",
        "mimeType": "audio/wav",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


async def test_where_an_object_lies_is_not_told(house: House, api: Served) -> None:
    row = await house.stored()
    for path in (f"{R}/{row['id']}", f"/api/v1/calls/{row['call_id']}/recordings", f"{R}/{row['id']}/peaks"):
        response, body = await api.raw(path)
        assert response.status == 200
        assert response.headers["Cache-Control"] == "no-store"
        for secret in (row["key"], house.store.bucket + "/", house.store.endpoint):
            assert secret.encode() not in body


async def test_a_calls_recordings_stand_in_order_of_time(house: House, api: Served) -> None:
    paths = [str(house.write(name)) for name in ("b.wav", "a.wav", "c.wav")]
    call_id = await house.call(*paths)
    await house.call(str(house.write("another call's.wav")))
    await house.pool.execute(
        "UPDATE call_recording SET started_at = started_at + array_position($1, path) * interval '1 s'", paths
    )
    status, told = await api.get(f"/api/v1/calls/{call_id}/recordings")
    assert status == 200
    assert list(told) == ["items"]
    assert [item["path"] for item in told["items"]] == paths
    assert {item["state"] for item in told["items"]} == {"PENDING"}
    _, alone = await api.get(f"{R}/{told['items'][0]['id']}")
    assert alone == told["items"][0], "a list's items are what the recording itself says"


async def test_a_call_without_recordings_has_an_empty_list(house: House, api: Served) -> None:
    call_id = await house.call()
    assert await api.get(f"/api/v1/calls/{call_id}/recordings") == (200, {"items": []})


async def test_the_id_of_a_folded_call_lists_the_recordings_of_the_call_it_went_into(house: House, api: Served) -> None:
    row = await house.stored()
    gone = uuid4()
    await house.pool.execute(
        """INSERT INTO call_alias (account_id, call_id, integration_id, external_id, folded_id)
           SELECT account_id, id, integration_id, 'pbx1-1.1', $2 FROM call WHERE id = $1""",
        row["call_id"],
        gone,
    )
    status, told = await api.get(f"/api/v1/calls/{gone}/recordings")
    assert (status, [item["id"] for item in told["items"]]) == (200, [str(row["id"])])
    assert told["items"][0]["callId"] == str(row["call_id"])


async def test_the_unfinished_are_listed_by_state_the_newest_first(house: House, api: Served) -> None:
    await house.stored("stored.wav")
    ids = {}
    for n, state in enumerate(("pending", "unmatched", "failed", "empty")):
        await house.call(str(house.spool / f"{state}.wav"))
        ids[state] = await house.pool.fetchval(
            """UPDATE call_recording SET state = $1, reason = 'why ' || $1, created_at = now() + $3 * interval '1 s'
               WHERE path = $2 RETURNING id""",
            state,
            str(house.spool / f"{state}.wav"),
            n,
        )

    async def listed(query: str = "") -> list[str]:
        status, told = await api.get(f"{R}{query}")
        assert status == 200
        assert all(item["reason"] == f"why {item['state'].lower()}" for item in told["items"])
        return [item["state"] for item in told["items"]]

    assert await listed() == ["FAILED", "UNMATCHED", "PENDING"]
    assert await listed("?state=empty") == ["EMPTY"]
    assert await listed("?state=EMPTY,Pending") == ["EMPTY", "PENDING"]
    await house.pool.execute("UPDATE call_recording SET erased_at = now() WHERE id = $1", ids["failed"])
    assert await listed() == ["UNMATCHED", "PENDING"], "what was erased is nobody's work any more"


async def test_a_wrong_parameter_is_refused(house: House, api: Served) -> None:
    await house.call(str(house.spool / "one.wav"))
    recording_id = await house.pool.fetchval("SELECT id FROM call_recording")
    wrong = {
        "bad_parameter": [
            "?state=STORED", "?state=", "?state=FAILED,", "?state=FAILED&state=STORED", "?state=%00", "/{id}?pretty=2",
            "/{id}/audio?download=0", "/{id}/audio?download=yes", "/{id}/audio?redirect=true",
            "/{id}/audio?redirect=1&redirect=1", "/{id}/audio?download=",
        ],
        "unknown_parameter": [
            "?states=FAILED", "/{id}?expand=1", "/{id}/peaks?points=100", "/{id}/audio?Download=1", "/{id}/audio?key=1"
        ],
    }  # fmt: skip
    for code, queries in wrong.items():
        for query in queries:
            response, body = await api.raw(R + query.replace("{id}", str(recording_id)))
            assert (response.status, response.content_type) == (400, "application/problem+json"), query
            assert json.loads(body)["code"] == code, query
            assert await accesses(house) == [], query


async def test_a_wrong_id_is_no_recording_in_every_route(house: House, api: Served) -> None:
    row = await house.stored()
    right = str(row["id"])
    wrong = [str(uuid4()), "1", "null", "%00", "é", right[:-1], right.replace("-", ""), f"urn:uuid:{right}"]
    wrong += [f"{{{right}}}", f"%7B{right}%7D", right + "%0a", "a" * 3000]
    for method, path in routes(house.pool):
        if "{id}" not in path:
            continue
        for one in wrong:
            response, body = await api.raw(path.replace("{id}", one), method=method)
            assert response.status == 404, (method, path, one)
            if method != "HEAD":
                assert json.loads(body)["code"] in ("recording_not_found", "call_not_found", "route_not_found")
    status, told = await api.get(f"{R}/{right.upper()}")
    assert (status, told["id"]) == (200, right), "an id in capitals is the same id, as for calls"


async def test_another_accounts_recording_is_not_there_in_any_route(house: House, other: House, serve: Serve) -> None:
    mine, theirs = await house.stored("mine.wav"), await other.stored("theirs.wav", wav(tone(880, 1)))
    await other.call(str(other.spool / "pending.wav"))  # what the list of unfinished ones would show
    await house.pool.execute("DELETE FROM jobs.pgqueuer")
    assert mine["account_id"] != theirs["account_id"]
    before = [dict(row) for row in await house.rows()]
    unknown = {"id": uuid4(), "call_id": uuid4()}
    ours, owner = await serve(), await serve(account="other")
    asked = routes(house.pool)
    assert len(asked) >= 12, "the routes were found"
    same = {"X-Request-ID": "same"}
    for method, path in asked:
        for query in ("", "?redirect=1", "?download=1") if path.endswith("/audio") else ("",):
            response, body = await ours.raw(filled(path, theirs) + query, method=method, headers=same)
            if "{id}" in path:
                nothing, nobody = await ours.raw(filled(path, unknown) + query, method=method, headers=same)
                assert response.status == nothing.status == 404, (method, path)
                assert body == nobody, "it cannot be told from one that is nowhere"
                assert sorted(response.headers) == sorted(nothing.headers)
            else:
                assert response.status == 200
                assert str(theirs["id"]).encode() not in body
                assert method == "HEAD" or json.loads(body) == {"items": []}
    assert await house.rows() == before
    assert await accesses(house) == []
    assert other.content(theirs["key"]) == wav(tone(880, 1))
    assert await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 0
    # That was for the account, not for a path that nobody would get an answer for:
    for method, path in asked:
        response, _ = await owner.raw(filled(path, theirs), method=method)
        assert response.status < 300, (method, path)


async def test_a_call_does_not_lead_to_another_accounts_recording_or_object(
    house: House, other: House, serve: Serve
) -> None:
    """Rows that a fault had crossed over: the account's own columns are what counts."""
    mine, theirs = await house.stored("mine.wav"), await other.stored("theirs.wav", wav(tone(880, 1)))
    await house.pool.execute("UPDATE call_recording SET call_id = $1 WHERE id = $2", mine["call_id"], theirs["id"])
    await house.pool.execute(
        "UPDATE call_recording SET media_file_id = $1 WHERE id = $2", theirs["media_file_id"], mine["id"]
    )
    api = await serve()
    _, told = await api.get(f"/api/v1/calls/{mine['call_id']}/recordings")
    assert [item["id"] for item in told["items"]] == [str(mine["id"])]
    response, body = await api.raw(f"{R}/{mine['id']}/audio")
    assert response.status == 404
    assert b"RIFF" not in body


async def test_without_the_key_no_route_says_anything(house: House, serve: Serve) -> None:
    row = await house.stored()
    api = await serve(keys=[KEY])
    for method, path in routes(house.pool):
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": f"Basic {KEY}"}):
            response, body = await api.raw(filled(path, row), method=method, headers=headers)
            assert response.status == 401, (method, path)
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert str(row["id"]).encode() not in body
        response, _ = await api.raw(f"{filled(path, row)}?key={KEY}&api_key={KEY}", method=method)
        assert response.status == 401, "a key in the URL would stand in every proxy's log"
    assert await accesses(house) == []
    assert (await house.rows())[0]["erased_at"] is None


async def test_each_access_is_written_down_once(house: House, serve: Serve) -> None:
    row = await house.stored()
    api = await serve(keys=["some-other-key-1234567", KEY])
    wrong = []
    for method, tail, headers, status, action, detail in (
        ("GET", "", {}, 200, "metadata", None),
        ("HEAD", "", {}, 200, "metadata", None),
        ("GET", "/audio", {}, 200, "audio", None),
        ("GET", "/audio?download=1", {}, 200, "audio", None),
        ("GET", "/audio", {"Range": "bytes=10-19"}, 206, "audio", "bytes 10-19"),
        ("GET", "/audio", {"Range": "bytes=10-"}, 206, "audio", "bytes 10-16043"),
        ("GET", "/audio?redirect=1", {}, 302, "redirect", None),
        ("GET", "/audio", {"If-None-Match": "*"}, 304, "audio", "not modified"),
        ("GET", "/peaks", {}, 200, "peaks", None),
        ("PUT", "/hold", {}, 204, "hold", None),
        ("DELETE", "/hold", {}, 204, "release", None),
        ("DELETE", "", {}, 202, "erase", f"asked for by {BY_KEY}"),
    ):
        sent = {"Authorization": f"Bearer {KEY}", "X-Request-ID": "crm-42", **headers}
        response, _ = await api.raw(f"{R}/{row['id']}{tail}", method=method, headers=sent, allow_redirects=False)
        assert response.status == status
        (access,) = await accesses(house)
        assert (access["account_id"], access["recording_id"]) == (row["account_id"], row["id"])
        assert (access["action"], access["actor"]) == (action, BY_KEY)
        assert KEY not in str(access)
        if (access["address"], access["request_id"], access["detail"]) != ("127.0.0.1", "crm-42", detail):
            wrong.append((method, tail, access))
        await house.pool.execute("DELETE FROM recording_access")
    assert wrong == []


async def test_what_was_refused_is_no_access(house: House, api: Served) -> None:
    row = await house.stored()
    for headers in ({"Range": "bytes=-5"}, {"Range": "bytes=99999999-"}):
        assert (await api.raw(f"{R}/{row['id']}/audio", headers=headers))[0].status == 416
    assert await accesses(house) == []


async def test_a_list_is_an_access_to_each_recording_in_it(house: House, api: Served) -> None:
    call_id = await house.call(str(house.spool / "a.wav"), str(house.spool / "b.wav"))
    await api.get(f"/api/v1/calls/{call_id}/recordings")
    seen = await accesses(house)
    assert [access["action"] for access in seen] == ["metadata"] * 2
    assert {access["recording_id"] for access in seen} == {row["id"] for row in await house.rows()}
    assert {access["actor"] for access in seen} == {"loopback"}
    assert len({access["request_id"] for access in seen}) == 1


async def test_what_cannot_be_written_down_is_not_served(house: House, api: Served) -> None:
    row = await house.stored()
    await house.pool.execute("ALTER TABLE recording_access RENAME TO away")
    try:
        with capture_logs() as logs:
            for tail in ("", "/audio", "/audio?redirect=1", "/audio?download=1", "/peaks"):
                response, body = await api.raw(f"{R}/{row['id']}{tail}", allow_redirects=False)
                assert response.status == 503, tail
                assert "Location" not in response.headers
                assert b"RIFF" not in body
                assert row["name"].encode() not in body
            for method, tail in (("PUT", "/hold"), ("DELETE", "/hold"), ("DELETE", "")):
                assert (await api.raw(f"{R}/{row['id']}{tail}", method=method))[0].status == 503
        assert {log["event"] for log in logs} == {"http.database_away"}
        now = (await house.rows())[0]
        assert (now["erased_at"], now["legal_hold"]) == (None, False)
        assert await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 0
    finally:
        await house.pool.execute("ALTER TABLE away RENAME TO recording_access")


async def test_peaks_are_drawn_once_from_the_stored_object(house: House, api: Served) -> None:
    row = await house.stored(seconds=2)
    response, body = await api.raw(f"{R}/{row['id']}/peaks")
    peaks = json.loads(body)
    assert (response.status, response.content_type) == (200, "application/json")
    assert (peaks["version"], peaks["channels"], peaks["sample_rate"]) == (2, 1, 8000)
    assert len(peaks["data"]) == 2 * peaks["length"] > 0
    assert max(peaks["data"]) > 0 > min(peaks["data"])
    house.store.remove(row["key"])  # what is kept needs no object
    assert json.loads((await api.raw(f"{R}/{row['id']}/peaks"))[1]) == peaks
    await house.pool.execute("DELETE FROM recording_peaks")
    assert (await api.get(f"{R}/{row['id']}/peaks"))[1]["code"] == "object_missing"


async def test_there_are_no_peaks_of_what_is_not_pcm(house: House, api: Served) -> None:
    path = house.write("one.gsm", raw("gsm", 440, 1))
    await house.call(str(path))
    (row,) = await house.settled()
    status, problem = await api.get(f"{R}/{row['id']}/peaks")
    assert (status, problem["code"]) == (404, "no_peaks")
    assert (await api.raw(f"{R}/{row['id']}/audio"))[0].status == 200
