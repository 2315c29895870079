"""Whatever is asked, the answer is clear, says what to do, and tells nothing of the inside."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Serve, Served, insert_calls
from structlog.testing import capture_logs
from yarl import URL

from trunkline.api.problem import PROBLEMS
from trunkline.store.pool import Pool, open_pool

PARAMETERS = ["status", "direction", "from", "to", "number", "since", "until", "limit", "cursor", "include", "pretty"]
HEADERS = ["X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Referrer-Policy", "X-Request-ID"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("stat=COMPLETED", "unknown_parameter", "status, direction, from, to, number"),
        ("Status=COMPLETED", "unknown_parameter", "allowed"),
        ("status=DONE", "bad_parameter", "RINGING, QUEUED"),
        ("status=COMPLETED,", "bad_parameter", "allowed"),
        ("status=", "bad_parameter", "empty"),
        ("direction=sideways", "bad_parameter", "INBOUND, OUTBOUND, INTERNAL"),
        ("limit=0", "bad_parameter", "1 to 200"),
        ("limit=201", "bad_parameter", "1 to 200"),
        ("limit=-1", "bad_parameter", "1 to 200"),
        ("limit=1e2", "bad_parameter", "1 to 200"),
        ("limit=%D9%A3", "bad_parameter", "1 to 200"),
        ("limit=99999999999999999999999", "bad_parameter", "1 to 200"),
        ("limit=5&limit=6", "bad_parameter", "once"),
        ("since=yesterday", "bad_parameter", "RFC 3339"),
        ("since=2026-02-30", "bad_parameter", "RFC 3339"),
        ("since=2026-01-01T00:00:00", "bad_parameter", "RFC 3339"),
        ("since=0001-01-01T00:00:00%2B14:00", "bad_parameter", "RFC 3339"),
        ("until=9999-12-31T23:59:59-14:00", "bad_parameter", "RFC 3339"),
        ("since=2026-01-02&until=2026-01-02", "bad_parameter", "after since"),
        ("number=%00", "bad_parameter", "control character"),
        ("number=%0d%0aX", "bad_parameter", "control character"),
        ("number=" + "1" * 256, "bad_parameter", "1 to 255"),
        ("include=everything", "bad_parameter", "legs"),
        ("pretty=yes", "bad_parameter", "0, 1"),
    ],
)
async def test_a_wrong_parameter_is_told_with_what_is_allowed(shared: Served, query: str, code: str, says: str) -> None:
    response, body = await shared.raw(f"/api/v1/calls?{query}")
    problem = json.loads(body)
    assert (response.status, problem["status"], problem["code"]) == (400, 400, code)
    assert says in problem["detail"]
    assert response.content_type == "application/problem+json"
    assert problem["type"] == f"urn:trunkline:problem:{code}"
    assert problem["title"] == "Bad Request"
    assert problem["requestId"] == response.headers["X-Request-ID"]


@pytest.mark.asyncio
async def test_every_route_refuses_what_it_does_not_know(shared: Served) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/api/v1/calls/1"):
        status, problem = await shared.get(path + "?verbose=1")
        assert (status, problem["code"], problem["parameter"]) == (400, "unknown_parameter", "verbose")


@pytest.mark.asyncio
async def test_unknown_paths_and_methods_are_problems_too(shared: Served) -> None:
    response, body = await shared.raw("/api/v1/call")
    assert (response.status, json.loads(body)["code"]) == (404, "route_not_found")
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        response, body = await shared.raw("/api/v1/events", method=method)
        assert (response.status, json.loads(body)["code"]) == (405, "method_not_allowed")
        assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.asyncio
async def test_every_answer_has_the_headers_of_the_edge(shared: Served) -> None:
    for path in ("/", "/healthz", "/metrics", "/api/v1/calls", "/nothing", "/api/v1/calls?x=1"):
        response, _ = await shared.raw(path)
        assert all(name in response.headers for name in HEADERS), path
    response, _ = await shared.raw("/api/v1/calls", headers={"X-Request-ID": "crm-42"})
    assert response.headers["X-Request-ID"] == "crm-42"
    response, _ = await shared.raw("/api/v1/calls", headers={"X-Request-ID": "a b<script>"})
    assert response.headers["X-Request-ID"] != "a b<script>"


@pytest.mark.asyncio
async def test_head_answers_as_get_without_a_body(shared: Served) -> None:
    for path in ("/", "/healthz", "/metrics", "/api/v1/calls", "/nothing"):
        head, body = await shared.raw(path, method="HEAD")
        get, _ = await shared.raw(path)
        assert (head.status, body) == (get.status, b"")
        if path != "/metrics":  # it counts itself
            assert head.headers["Content-Length"] == get.headers["Content-Length"]


NASTY = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        ["' OR '1'='1", "'; DROP TABLE call; --", "$1", "%s", "{}", "\x00", "\ud800", "NaN", "null", "[]", "1 OR 1=1",
         "COMPLETED' --", "\\", "%", "_", "🙂" * 80, "A" * 1500, "2026-01-01T00:00:00Z'", "-1", "1;SELECT pg_sleep(9)"]
    ),
)  # fmt: skip


@pytest.mark.asyncio
async def test_nothing_that_is_asked_breaks_anything(shared: Served, shared_pool: Pool) -> None:
    paths: list[str] = []

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.sampled_from(PARAMETERS) | NASTY, NASTY), max_size=4), NASTY, st.booleans())
    def collect(query: list[tuple[str, str]], tail: str, listing: bool) -> None:
        def safe(text: str) -> str:
            return quote(text.encode("utf-8", "surrogatepass"), safe="")

        paths.append(
            ("/api/v1/calls" if listing else f"/api/v1/calls/{safe(tail)}")
            + "?"
            + "&".join(f"{safe(name)}={safe(value)}" for name, value in query)
        )

    collect()
    with capture_logs() as logs:
        for path in paths:
            async with shared.client.get(URL(shared.url + path, encoded=True)) as response:
                body = await response.json(content_type=None)
                assert response.status in (200, 400, 404), (path, body)
                assert "Traceback" not in str(body)
    assert logs == []
    assert await shared_pool.fetchval("SELECT count(*) FROM call") == 33


@pytest.mark.asyncio
async def test_broken_http_is_refused_without_a_trace(shared: Served) -> None:
    port = int(shared.url.rpartition(":")[2])
    for request in (
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /api/v1/calls HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), (request[:60], answer[:200])
        assert b'"code":"not_http"' in answer
    assert (await shared.get("/healthz"))[0] == 200


@pytest.mark.asyncio
async def test_a_huge_body_is_refused_before_it_is_sent(shared: Served) -> None:
    port = int(shared.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /api/v1/calls HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    writer.close()
    await writer.wait_closed()
    assert b" 413 " in answer


@pytest.mark.asyncio
async def test_a_database_that_is_away_is_told_as_such(serve: Serve) -> None:
    async with await open_pool("postgresql://nobody:canary-secret@127.0.0.1:1/none") as away:
        api = await serve(away, keys=["a-key-that-is-right"])
        with capture_logs() as logs:
            response, body = await api.raw("/api/v1/calls", headers={"X-API-Key": "a-key-that-is-right"})
        problem = json.loads(body)
        assert (response.status, problem["code"]) == (503, "database_unavailable")
        assert response.headers["Retry-After"]
        assert [log["event"] for log in logs] == ["http.database_away"]
        status, ready = await api.get("/readyz", headers={"X-API-Key": "a-key-that-is-right"})
        assert (status, ready["status"], ready["checks"][0]["ok"]) == (503, "not ready", False)
        assert "database.url" in ready["checks"][0]["detail"]
        assert "canary" not in str(logs) + str(ready) + body.decode()
        assert (await api.get("/healthz"))[0] == 200, "alive all the same"


@pytest.mark.asyncio
async def test_an_account_that_is_not_there_yet_is_waited_for(serve: Serve, pool: Pool) -> None:
    api = await serve(pool)
    status, problem = await api.get("/api/v1/calls")
    assert (status, problem["code"]) == (503, "account_missing")
    await pool.execute("INSERT INTO account (name) VALUES ('main')")
    assert (await api.get("/api/v1/calls"))[0] == 200


@pytest.mark.asyncio
async def test_a_fault_inside_is_logged_and_not_told(api: Served, pool: Pool, account_id: Any) -> None:
    await insert_calls(pool, account_id, 1)
    await pool.execute("ALTER TABLE call DROP CONSTRAINT ck_call_quality")
    await pool.execute("UPDATE call SET quality = 'canary'")
    with capture_logs() as logs:
        status, problem = await api.get("/api/v1/calls")
    assert (status, problem["code"]) == (500, "internal_error")
    assert "canary" not in str(problem)
    assert [log["event"] for log in logs] == ["http.failed"]
    assert logs[0]["request_id"] == problem["requestId"]


def test_every_code_is_in_the_documentation() -> None:
    root = Path(__file__).parents[2]
    documented = (root / "docs" / "api.md").read_text("utf-8").partition("## Errors")[2].partition("##")[0]
    assert set(PROBLEMS) <= set(re.findall(r"`(\w+)`", documented))
