"""Who is answered."""

import pytest
from served import Serve, Served

from trunkline.api import create_app, listening
from trunkline.metrics import Metrics
from trunkline.store.pool import Pool

KEYS = ["first-key-0123456789", "second-key-9876543210"]
GUARDED = ["/api/v1/calls", "/api/v1/calls/1", "/metrics", "/nothing", "/api/v1"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong-key-0123456789"},
        {"Authorization": KEYS[0]},
        {"Authorization": f"Basic {KEYS[0]}"},
        {"Authorization": f"Bearer {KEYS[0]} {KEYS[1]}"},
        {"Authorization": f"Bearer {KEYS[0][:-1]}"},
        {"X-API-Key": ""},
        {"X-API-Key": KEYS[0].upper()},
        {"X-API-Key": "clé"},
        # Of several keys each has to be good: a proxy must not lend its own to whoever sends none that counts.
        {"X-API-Key": "wrong", "Authorization": f"Bearer {KEYS[0]}"},
        {"X-API-Key": KEYS[0], "Authorization": "Bearer wrong"},
    ],
)
async def test_without_a_right_key_nothing_of_calls_is_told(
    serve: Serve, shared_pool: Pool, headers: dict[str, str]
) -> None:
    api = await serve(shared_pool, keys=KEYS)
    for path in GUARDED:
        response, body = await api.raw(path, headers=headers)
        assert response.status == 401, path
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert b'"code":"key_' in body
        assert KEYS[0].encode() not in body
    for path in ("/", "/healthz", "/readyz"):
        response, _ = await api.raw(path, headers=headers)
        assert response.status == 200, path


@pytest.mark.asyncio
@pytest.mark.parametrize("key", KEYS)
async def test_any_of_the_keys_lets_in_by_either_header(serve: Serve, shared_pool: Pool, key: str) -> None:
    api = await serve(shared_pool, keys=KEYS)
    for headers in ({"Authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key} "}, {"X-API-Key": key}):
        assert (await api.get("/api/v1/calls", headers=headers))[0] == 200
        assert (await api.raw("/metrics", headers=headers))[0].status == 200
    # With a key the name does not matter: it stands behind a proxy, under a name of its own.
    assert (await api.get("/api/v1/calls", headers={"X-API-Key": key, "Host": "crm.example.com"}))[0] == 200


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0", "",
     "127.1", "2130706433", "[::ffff:10.0.0.1]", "localhost@evil.example", "evil.example:127.0.0.1"],
)  # fmt: skip
async def test_without_keys_a_rebound_name_is_not_answered(shared: Served, host: str) -> None:
    for path in ("/", "/healthz", "/readyz", "/metrics", "/api/v1/calls", "/nothing"):
        status, problem = await shared.get(path, headers={"Host": host})
        assert (status, problem["code"]) == (421, "host_not_allowed"), path


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.8.9.1", "[::1]", "[::1]:8080"])
async def test_without_keys_this_machines_own_names_are_answered(shared: Served, host: str) -> None:
    assert (await shared.get("/api/v1/calls", headers={"Host": host}))[0] == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
async def test_without_keys_it_listens_nowhere_else(shared_pool: Pool, host: str) -> None:
    app = create_app(shared_pool, account="main", metrics=Metrics("test"))
    with pytest.raises(ValueError, match=r"http\.api_keys"):
        async with listening(app, host, 0):
            pass
