"""/healthz, /readyz, /metrics and the index: what watches the daemon."""

import asyncio

import pytest
from aiohttp import ClientError, ClientSession
from prometheus_client.parser import text_string_to_metric_families
from served import Serve, Served

from trunkline.api import Link, create_app, listening, serve
from trunkline.calls.record import Status
from trunkline.metrics import Metrics, families
from trunkline.store.pool import Pool


@pytest.mark.asyncio
async def test_ready_when_everything_is_there(serve: Serve, pool: Pool) -> None:
    head = await pool.fetchval("SELECT version_num FROM alembic_version")
    api = await serve(pool, head=head, links=lambda: [Link("office", True)])
    assert await api.get("/readyz") == (
        200,
        {
            "status": "ready",
            "checks": [
                {"check": "database", "ok": True},
                {"check": "migrations", "ok": True},
                {"check": "pbx", "pbx": "office", "ok": True},
            ],
        },
    )
    assert await api.get("/healthz") == (200, {"status": "ok"})


@pytest.mark.asyncio
async def test_not_ready_says_which_part_is_not_and_what_to_do(serve: Serve, pool: Pool) -> None:
    links = [Link("office", True), Link("branch", False, "the password is wrong: set pbx.secret")]
    api = await serve(pool, head="9999", links=lambda: links)
    status, body = await api.get("/readyz")
    assert (status, body["status"]) == (503, "not ready")
    checks = {check.get("pbx", check["check"]): check for check in body["checks"]}
    assert checks["database"]["ok"]
    assert "trunkline migrate" in checks["migrations"]["detail"]
    assert checks["office"] == {"check": "pbx", "pbx": "office", "ok": True}
    assert checks["branch"]["detail"] == "the password is wrong: set pbx.secret"
    await pool.execute("DROP TABLE alembic_version")
    _, body = await api.get("/readyz")
    assert "no schema yet" in body["checks"][1]["detail"]


@pytest.mark.asyncio
async def test_a_stranger_learns_that_it_is_not_ready_and_no_names(serve: Serve, shared_pool: Pool) -> None:
    key = "a-key-that-is-right"
    api = await serve(shared_pool, keys=[key], links=lambda: [Link("secret-office", False, "at 10.1.2.3")])
    response, body = await api.raw("/readyz")
    assert response.status == 503
    assert b'{"check":"pbx","ok":false}' in body
    assert b"office" not in body
    _, known = await api.raw("/readyz", headers={"X-API-Key": key})
    assert b"secret-office" in known


@pytest.mark.asyncio
async def test_the_index_links_to_what_there_is(shared: Served) -> None:
    response, body = await shared.raw("/")
    assert response.content_type == "text/html"
    for path in ("/api/v1/calls", "/readyz", "/healthz", "/metrics"):
        assert f'href="{path}"'.encode() in body
        assert (await shared.raw(path))[0].status == 200


async def samples(api: Served, accept: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The page, parsed."""
    response, page = await api.raw("/metrics", headers={"Accept": accept})
    assert response.status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@pytest.mark.asyncio
async def test_metrics_follow_who_counts(shared: Served) -> None:
    read = {"Hangup": 3}
    link_up = False
    shared.metrics.pull(families.EVENTS_READ, "office", lambda: read)
    shared.metrics.pull(families.LINK_UP, "office", lambda: link_up)
    shared.metrics.pull(families.CALLS_ACTIVE, "office", lambda: {Status.RINGING: 2, Status.IN_PROGRESS: 1})
    page = await samples(shared)
    assert page[key("trunkline_ami_events_read_total", pbx="office", kind="Hangup")] == 3
    assert page[key("trunkline_ami_link_up", pbx="office")] == 0
    assert page[key("trunkline_calls_active", pbx="office", status="RINGING")] == 2
    assert page[key("trunkline_build_info", version="test", python=_python())] == 1
    read["Hangup"] = 5
    read["Newchannel"] = 1
    link_up = True
    page = await samples(shared)
    assert page[key("trunkline_ami_events_read_total", pbx="office", kind="Hangup")] == 5
    assert page[key("trunkline_ami_events_read_total", pbx="office", kind="Newchannel")] == 1
    assert page[key("trunkline_ami_link_up", pbx="office")] == 1


def _python() -> str:
    import platform

    return platform.python_version()


@pytest.mark.asyncio
async def test_requests_are_counted_by_route_never_by_path(serve: Serve, shared_pool: Pool) -> None:
    api = await serve(shared_pool)
    for path in ("/api/v1/calls/" + "0" * 8, "/api/v1/calls/1", "/nothing/1", "/nothing/2", "/api/v1/calls"):
        await api.raw(path)
    await api.raw("/nothing", method="PROPFIND")
    page = await samples(api)
    counted = {labels for name, labels in page if name == "trunkline_http_requests_total"}
    assert counted == {
        frozenset({"method": method, "route": route, "code": code}.items())
        for method, route, code in (
            ("GET", "/api/v1/calls/{id}", "404"),
            ("GET", "/api/v1/calls", "200"),
            ("GET", "unmatched", "404"),
            ("other", "unmatched", "404"),
        )
    }
    assert page[key("trunkline_http_requests_total", method="GET", route="/api/v1/calls/{id}", code="404")] == 2
    assert page[key("trunkline_http_request_seconds_count", route="/api/v1/calls/{id}")] == 2


@pytest.mark.asyncio
async def test_openmetrics_when_asked_for(shared: Served) -> None:
    response, page = await shared.raw("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert response.content_type == "application/openmetrics-text"
    assert page.endswith(b"# EOF\n")


@pytest.mark.asyncio
async def test_serve_answers_what_is_under_way_when_it_is_told_to_stop(shared_pool: Pool) -> None:
    app = create_app(shared_pool, account="main", metrics=Metrics("test"))
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(app, "127.0.0.1", 0, started.set_result))
    url = await started
    async with ClientSession() as client, shared_pool.acquire() as locker:
        under_way = None
        async with locker.transaction():
            await locker.execute("LOCK TABLE call IN ACCESS EXCLUSIVE MODE")
            under_way = asyncio.create_task(_status(client, url + "/api/v1/calls"))
            async with asyncio.timeout(10):
                while not await shared_pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    continue
            server.cancel()
            # The listener is closed before the request is done: a new connection is refused.
            async with asyncio.timeout(10):
                while await _reachable(url):
                    continue
            assert not under_way.done()
        assert await under_way == 200
    with pytest.raises(asyncio.CancelledError):
        await server


async def _status(client: ClientSession, url: str) -> int:
    async with client.get(url) as response:
        await response.read()
        return response.status


async def _reachable(url: str) -> bool:
    try:
        async with ClientSession() as client:
            await _status(client, url + "/healthz")
    except ClientError:
        return False
    return True


@pytest.mark.asyncio
async def test_a_taken_port_is_an_error_that_names_it(shared: Served, shared_pool: Pool) -> None:
    app = create_app(shared_pool, account="main", metrics=Metrics("test"))
    with pytest.raises(OSError, match="address already in use"):
        async with listening(app, "127.0.0.1", int(shared.url.rpartition(":")[2])):
            pass
