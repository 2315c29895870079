"""Users, API keys and the audit, as an admin sees them; how soon a revocation bites; how often one may ask."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from people import add_key, add_user, bearer, log_in
from prometheus_client.parser import text_string_to_metric_families
from served import ACCOUNT, Serve, Served

from trunkline.identity import known
from trunkline.identity.upkeep import Upkeep
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

KEY = "a-key-of-the-settings"
USERS, KEYS = "/api/v1/users", "/api/v1/api-keys"


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


class Admin:
    """Asks with the key of the settings."""

    def __init__(self, api: Served) -> None:
        self.api = api

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        options = {} if body is None else {"json": body}
        response, text = await self.api.raw(path, method=method, headers=bearer(KEY) | headers, **options)
        return response.status, json.loads(text) if text else None


@pytest_asyncio.fixture
async def admin(serve: Serve, pool: Pool, account_id: UUID) -> Admin:
    return Admin(await serve(pool, keys=[KEY]))


async def test_a_key_is_shown_once_and_stored_as_its_hash(admin: Admin, pool: Pool) -> None:
    status, made = await admin("POST", KEYS, {"name": " crm ", "scopes": ["recordings:read", "calls:read"]})
    assert status == 201
    key = made.pop("key")
    assert key.startswith("tl_")
    assert len(key) == 46
    assert (made["name"], made["scopes"], made["prefix"]) == ("crm", ["calls:read", "recordings:read"], key[:9])
    _, listed = await admin("GET", KEYS)
    assert listed == {"items": [made]}
    row = await pool.fetchrow("SELECT * FROM api_key")
    assert key not in str(dict(row))
    assert key[9:] not in str(dict(row))
    assert (await admin.api.get("/api/v1/calls", headers=bearer(key)))[0] == 200
    status, problem = await admin.api.get(USERS, headers=bearer(key))
    assert (status, problem["code"], problem["scope"]) == (403, "scope_missing", "admin")
    assert "admin" in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "", "scopes": ["calls:read"]},
        {"name": "  ", "scopes": ["calls:read"]},
        {"name": "a\x00b", "scopes": ["calls:read"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["calls:all"]},
        {"name": "x", "scopes": ["admin\n"]},
        {"name": "x", "scopes": ["calls:read"], "expiresAt": "2026-01-01T00:00:00"},
        {"name": "x", "scopes": ["calls:read"], "expiresAt": "0001-01-01T00:00:00+12:00"},
        {"name": "x", "scopes": ["calls:read"], "expiresAt": "9999-12-31T23:59:59-12:00"},
        {"name": "x", "scopes": ["calls:read"], "digest": "x"},
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(admin: Admin, body: Any) -> None:
    assert (await admin("POST", KEYS, body))[1]["code"] == "bad_body"


async def test_a_revoked_key_is_refused_at_once_here(admin: Admin) -> None:
    _, made = await admin("POST", KEYS, {"name": "crm", "scopes": ["calls:read"]})
    assert (await admin.api.get("/api/v1/calls", headers=bearer(made["key"])))[0] == 200
    assert (await admin("DELETE", f"{KEYS}/{made['id']}"))[0] == 204
    assert (await admin.api.get("/api/v1/calls", headers=bearer(made["key"])))[1]["code"] == "key_revoked"
    assert (await admin("DELETE", f"{KEYS}/{made['id']}"))[0] == 204  # again is no error
    _, listed = await admin("GET", KEYS)
    assert listed["items"][0]["revokedAt"] is not None


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_costs_one_query_in_a_while_and_a_revocation_elsewhere_bites(
    pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, key = await add_key(pool, account_id, ["calls:read"])
    asked, select_key = 0, known.select_key

    async def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return await select_key(*arguments)

    async def the_account() -> UUID:
        return account_id

    monkeypatch.setattr(known, "select_key", counted)
    clock = Clock()
    remembers = known.Known(pool, the_account, clock=clock)
    digest = known_digest(key)
    for _ in range(100):
        found = await remembers.key(digest)
        assert found is not None
        assert found.revoked_at is None
    assert asked == 1
    await pool.execute("UPDATE api_key SET revoked_at = now() WHERE id = $1", key_id)
    clock.now += known.KNOWN_FOR_S
    found = await remembers.key(digest)
    assert found is not None
    assert found.revoked_at is not None
    assert known.KNOWN_FOR_S <= 5
    for n in range(known._MOST + 10):  # keys that are made up do not fill the memory
        await remembers._keys.get(n.to_bytes(8, "big"), nothing)
    assert len(remembers._keys._found) == known._MOST


async def nothing() -> None:
    return None


def known_digest(key: str) -> bytes:
    from trunkline.identity.keys import digest_of

    return digest_of(key)


async def test_when_a_key_was_used_is_known_to_the_minute(
    admin: Admin, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "KNOWN_FOR_S", 0.0)
    _, key = await add_key(pool, account_id, ["calls:read"])

    async def used() -> datetime:
        await admin.api.get("/api/v1/calls", headers=bearer(key))
        return await pool.fetchval("SELECT last_used_at FROM api_key")

    first = await used()
    assert first is not None
    assert await used() == first
    await pool.execute("UPDATE api_key SET last_used_at = now() - interval '61 seconds'")
    assert await used() > first - timedelta(seconds=61)
    assert await used() == await used()


async def test_a_key_ends_when_it_said(admin: Admin, pool: Pool) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    _, made = await admin("POST", KEYS, {"name": "crm", "scopes": ["calls:read"], "expiresAt": until})
    assert (await admin.api.get("/api/v1/calls", headers=bearer(made["key"])))[0] == 200


async def test_a_users_life(admin: Admin, pool: Pool) -> None:
    new = {"email": "Ada@Example.com", "role": "AGENT", "name": "Ada", "extension": "1001"}
    status, user = await admin("POST", USERS, new)
    assert status == 201
    assert (user["email"], user["role"], user["hasPassword"]) == ("ada@example.com", "AGENT", False)
    assert (await admin("POST", USERS, new))[1]["code"] == "email_taken"
    path = f"{USERS}/{user['id']}"
    assert await admin("GET", path) == (200, user)
    status, changed = await admin("PATCH", path, {"role": "VIEWER", "extension": None, "password": "a good password"})
    assert status == 200
    assert changed == {**user, "role": "VIEWER", "extension": None, "hasPassword": True}
    assert (await admin("PATCH", path, {}))[1] == changed
    _, second = await admin("POST", USERS, {"email": "b@example.com", "role": "ADMIN"})
    assert (await admin("PATCH", f"{USERS}/{second['id']}", {"email": "ADA@example.com"}))[1]["code"] == "email_taken"
    _, listed = await admin("GET", USERS)
    assert [each["email"] for each in listed["items"]] == ["ada@example.com", "b@example.com"]
    assert (await admin("DELETE", path))[0] == 204
    assert (await admin("GET", path))[1]["code"] == "user_not_found"
    assert (await admin("DELETE", path))[1]["code"] == "user_not_found"
    assert (await admin("PATCH", path, {"name": "x"}))[1]["code"] == "user_not_found"


@pytest.mark.parametrize(
    "change",
    [
        {"email": "x"},
        {"email": "a b@c"},
        {"role": "OWNER"},
        {"role": None},
        {"password": "short"},
        {"password": "x" * 257},
        {"name": "a\nb"},
        {"extension": "1001\r\nAction: x"},
        {"disabled": "yes"},
        {"password_hash": "x"},
        {"tokenGeneration": 1},
    ],
)
async def test_a_change_that_makes_no_sense_changes_nothing(
    admin: Admin, pool: Pool, account_id: UUID, change: Any
) -> None:
    user_id = await add_user(pool, account_id, "AGENT")
    before = await admin("GET", f"{USERS}/{user_id}")
    assert (await admin("PATCH", f"{USERS}/{user_id}", change))[1]["code"] == "bad_body"
    assert await admin("GET", f"{USERS}/{user_id}") == before


async def test_the_last_admin_stays_one(admin: Admin, pool: Pool, account_id: UUID) -> None:
    first = await add_user(pool, account_id, "ADMIN", password_hash="x")
    await add_user(pool, account_id, "ADMIN", disabled_at=datetime.now(UTC), password_hash="x")
    await add_user(pool, account_id, "ADMIN")  # who has no password cannot log in
    path = f"{USERS}/{first}"
    for change in ({"role": "SUPERVISOR"}, {"disabled": True}):
        assert (await admin("PATCH", path, change))[1]["code"] == "last_admin"
    assert (await admin("DELETE", path))[1]["code"] == "last_admin"
    assert (await admin("PATCH", path, {"name": "still"}))[0] == 200
    await add_user(pool, account_id, "ADMIN", password_hash="x")
    assert (await admin("PATCH", path, {"disabled": True}))[0] == 200


async def test_whoever_is_disabled_is_out_and_a_new_password_lets_in_again(
    admin: Admin, pool: Pool, account_id: UUID
) -> None:
    user_id = await add_user(pool, account_id, "AGENT", failed_logins=9, locked_until=datetime(2099, 1, 1, tzinfo=UTC))
    for change in ({"disabled": True}, {"disabled": False, "password": "a good password"}):
        token = await log_in(
            pool,
            account_id,
            user_id,
            generation=await pool.fetchval("SELECT token_generation FROM app_user WHERE id = $1", user_id),
        )
        assert (await admin("PATCH", f"{USERS}/{user_id}", change))[0] == 200
        open_ = await pool.fetchval("SELECT count(*) FROM refresh_token WHERE revoked_at IS NULL")
        assert (open_, (await admin.api.get("/api/v1/auth/me", headers=bearer(token)))[0]) == (0, 401)
    _, user = await admin("GET", f"{USERS}/{user_id}")
    assert (user["disabledAt"], user["lockedUntil"]) == (None, None)


async def test_the_audit_says_who_did_what(admin: Admin, pool: Pool, account_id: UUID) -> None:
    boss = await add_user(pool, account_id, "ADMIN")
    from people import SECRET

    token = await log_in(pool, account_id, boss, secret=SECRET)
    _, user = await admin("POST", USERS, {"email": "a@example.com", "role": "AGENT", "password": "canary password"})
    await admin("PATCH", f"{USERS}/{user['id']}", {"role": "VIEWER", "password": "canary password 2"})
    _, key = await admin("POST", KEYS, {"name": "crm", "scopes": ["admin"]}, **{"X-Request-ID": "mine-1"})
    await admin("DELETE", f"{KEYS}/{key['id']}")
    _, key_of_admin = await add_key(pool, account_id, ["admin"])
    await admin("DELETE", f"{USERS}/{user['id']}", None, **bearer(key_of_admin))
    _, page = await admin("GET", "/api/v1/audit")
    told = [(entry["actor"].partition(":")[0], entry["action"]) for entry in reversed(page["items"])]
    assert told == [
        ("key", "user.created"),
        ("key", "user.changed"),
        ("key", "api_key.created"),
        ("key", "api_key.revoked"),
        ("api_key", "user.deleted"),
    ]
    created = page["items"][2]
    assert (created["subject"], created["requestId"]) == (f"api_key:{key['id']}", "mine-1")
    assert created["address"] == "127.0.0.1"
    assert "canary" not in str(page)
    assert token not in str(page)
    walked, cursor = [], ""
    while cursor is not None:
        after = f"&cursor={cursor}" if cursor else ""
        _, part = await admin("GET", f"/api/v1/audit?limit=1{after}")
        walked += part["items"]
        cursor = part["nextCursor"]
    assert walked == page["items"]
    for bad in ("x", "é", "AAAA", "~" * 32):
        assert (await admin("GET", f"/api/v1/audit?cursor={bad}"))[1]["code"] == "bad_cursor"

    async def those(query: str) -> list[str]:
        status, found = await admin("GET", f"/api/v1/audit?sort=at&{query}")
        assert status == 200, found
        return [entry["action"] for entry in found["items"]]

    assert await those(f"subject=user:{user['id']}") == ["user.created", "user.changed", "user.deleted"]
    assert await those(f"subject=user:{user['id']}&action=user.changed") == ["user.changed"]
    assert await those(f"actor={page['items'][0]['actor']}") == ["user.deleted"]
    assert await those(f"since={page['items'][1]['at']}") == ["api_key.revoked", "user.deleted"]
    made_at = next(entry["at"] for entry in page["items"] if entry["action"] == "user.created")
    before = [entry["action"] for entry in reversed(page["items"]) if entry["at"] < made_at]
    assert await those(f"until={made_at}") == before
    assert await those("actor=nobody%27%20OR%201%3D1") == []
    _, part = await admin("GET", "/api/v1/audit?limit=1&action=user.created")
    assert part["nextCursor"] is None
    _, part = await admin("GET", "/api/v1/audit?limit=1")
    status, problem = await admin("GET", f"/api/v1/audit?limit=1&action=user.created&cursor={part['nextCursor']}")
    assert (status, problem["code"]) == (400, "bad_cursor")
    for query in ("since=2026-02-01&until=2026-01-01", "since=yesterday", f"actor={'a' * 201}"):
        assert (await admin("GET", f"/api/v1/audit?{query}"))[1]["code"] == "bad_parameter"


async def test_the_audit_is_kept_for_so_long_and_no_longer(pool: Pool, account_id: UUID) -> None:
    other = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    for of, days in ((account_id, 0), (account_id, 399), (account_id, 401), (other, 401)):
        await pool.execute(
            """INSERT INTO audit (account_id, actor, action, subject, at)
               VALUES ($1, 'x', 'y', 'z', now() - $2::interval)""",
            of,
            timedelta(days=days),
        )
    await Upkeep(pool, ACCOUNT, 400).look()
    rows = await pool.fetch("SELECT account_id, extract(day FROM now() - at)::int FROM audit ORDER BY at")
    assert [tuple(row) for row in rows] == [(other, 401), (account_id, 399), (account_id, 0)]


async def test_nobody_asks_more_often_than_he_may(serve: Serve, pool: Pool, account_id: UUID) -> None:
    _, key = await add_key(pool, account_id, ["calls:read"])
    api = await serve(pool, keys=[KEY], rate_limit=0.001)  # one at once, the next in a quarter of an hour
    assert (await api.get("/api/v1/calls", headers=bearer(key)))[0] == 200
    response, body = await api.raw("/api/v1/calls", headers=bearer(key))
    assert (response.status, json.loads(body)["code"]) == (429, "rate_limited")
    assert 900 < int(response.headers["Retry-After"]) <= 1000
    response, page = await api.raw("/metrics", headers=bearer(KEY))  # another caller has his own
    assert response.status == 200
    refused = {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name == "trunkline_http_refusals_total"
    }
    assert refused == {"rate_limited": 1.0}
    assert key not in page.decode()


async def test_without_keys_this_machine_may_all_but_a_bad_key_is_refused(
    serve: Serve, pool: Pool, account_id: UUID
) -> None:
    api = await serve(pool)
    status, told = await api.get("/api/v1/auth/me")
    assert (status, told["kind"], told["scopes"]) == (200, "LOOPBACK", ["admin"])
    assert (await api.get("/api/v1/auth/me", headers=bearer("x")))[0] == 401
    _, key = await add_key(pool, account_id, ["calls:read"])
    assert (await api.get(USERS, headers=bearer(key)))[0] == 403
    required = await serve(pool, required=True)
    assert (await required.get("/api/v1/auth/me"))[1]["code"] == "key_missing"
    assert (await required.get("/api/v1/calls", headers=bearer(key) | {"Host": "crm.example.com"}))[0] == 200
