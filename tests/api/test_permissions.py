"""Every route, every caller, both accounts: made of the table of routes, so that no route gets past it."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from people import CANARY, SECRET, Belongings, add_account, add_key, add_user, bearer, log_in
from served import ACCOUNT, Serve, Served

from trunkline.api.contract import Route
from trunkline.api.routes import ROUTES
from trunkline.identity.keys import make_key
from trunkline.identity.scopes import ADMIN, SCOPES, SCOPES_OF, Role
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

KEY = "a-key-of-the-settings"
OPEN = "open"  # answered to anybody
KNOWN = "known"  # to whoever is known
A, S, G, V = Role.ADMIN, Role.SUPERVISOR, Role.AGENT, Role.VIEWER
ALL = {A, S, G, V}

# Who may use a route: OPEN, KNOWN, or the scope that a key needs and the roles that have it. Say it here for a new
# route, from what it does and not from what the code says.
EXPECTED: dict[tuple[str, str], Any] = {
    ("GET", "/"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): ("metrics:read", {A, S}),
    ("GET", "/api/openapi.json"): OPEN,
    ("GET", "/api/docs"): OPEN,
    ("GET", "/api/docs/start.js"): OPEN,
    ("GET", "/api/docs/swagger-ui.css"): OPEN,
    ("GET", "/api/docs/swagger-ui-bundle.js"): OPEN,
    ("GET", "/api/v1/calls"): ("calls:read", ALL),
    ("GET", "/api/v1/calls/{id}"): ("calls:read", ALL),
    ("PATCH", "/api/v1/calls/{id}"): ("calls:write", {A, S, G}),
    ("GET", "/api/v1/leads"): ("leads:read", ALL),
    ("POST", "/api/v1/leads"): ("leads:write", {A, S, G}),
    ("POST", "/api/v1/leads/import"): ("leads:manage", {A, S}),
    ("GET", "/api/v1/leads/{id}"): ("leads:read", ALL),
    ("PATCH", "/api/v1/leads/{id}"): ("leads:write", {A, S, G}),
    ("DELETE", "/api/v1/leads/{id}"): ("leads:manage", {A, S}),
    ("POST", "/api/v1/leads/{id}/merge"): ("leads:manage", {A, S}),
    ("GET", "/api/v1/calls/{id}/recordings"): ("recordings:read", {A, S, G}),
    ("GET", "/api/v1/recordings"): ("recordings:read", {A, S, G}),
    ("GET", "/api/v1/recordings/{id}"): ("recordings:read", {A, S, G}),
    ("DELETE", "/api/v1/recordings/{id}"): ("recordings:write", {A, S}),
    ("GET", "/api/v1/recordings/{id}/audio"): ("recordings:read", {A, S, G}),
    ("GET", "/api/v1/recordings/{id}/peaks"): ("recordings:read", {A, S, G}),
    ("PUT", "/api/v1/recordings/{id}/hold"): ("recordings:write", {A, S}),
    ("DELETE", "/api/v1/recordings/{id}/hold"): ("recordings:write", {A, S}),
    ("POST", "/api/v1/calls"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/hangup"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/hold"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/unhold"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/transfer"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/park"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/record/pause"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/record/resume"): ("calls:control", {A, S, G}),
    ("POST", "/api/v1/calls/{id}/supervise"): ("calls:supervise", {A, S}),
    ("POST", "/api/v1/agents/{ext}/pause"): ("agents:control", {A, S, G}),
    ("POST", "/api/v1/agents/{ext}/unpause"): ("agents:control", {A, S, G}),
    ("POST", "/api/v1/agents/{ext}/login"): ("agents:control", {A, S, G}),
    ("POST", "/api/v1/agents/{ext}/logout"): ("agents:control", {A, S, G}),
    ("GET", "/api/v1/commands/{id}"): ("calls:control", {A, S, G}),
    ("GET", "/api/v1/webhooks"): ("webhooks:read", {A, S}),
    ("POST", "/api/v1/webhooks"): ("webhooks:write", {A}),
    ("GET", "/api/v1/webhooks/{id}"): ("webhooks:read", {A, S}),
    ("PATCH", "/api/v1/webhooks/{id}"): ("webhooks:write", {A}),
    ("DELETE", "/api/v1/webhooks/{id}"): ("webhooks:write", {A}),
    ("POST", "/api/v1/webhooks/{id}/secret"): ("webhooks:write", {A}),
    ("POST", "/api/v1/webhooks/{id}/test"): ("webhooks:write", {A}),
    ("GET", "/api/v1/webhooks/{id}/deliveries"): ("webhooks:read", {A, S}),
    ("POST", "/api/v1/webhooks/{id}/deliveries/{deliveryId}/replay"): ("webhooks:write", {A}),
    ("POST", "/api/v1/media-files"): ("media-files:write", {A, S, G}),
    ("GET", "/api/v1/media-files"): ("media-files:read", {A, S, G}),
    ("GET", "/api/v1/media-files/{id}"): ("media-files:read", {A, S, G}),
    ("DELETE", "/api/v1/media-files/{id}"): ("media-files:write", {A, S, G}),
    ("GET", "/api/v1/media-files/{id}/content"): ("media-files:read", {A, S, G}),
    ("GET", "/api/v1/conversations"): ("conversations:read", ALL),
    ("GET", "/api/v1/inbox/unread"): ("conversations:read", ALL),
    ("GET", "/api/v1/conversations/{id}"): ("conversations:read", ALL),
    ("PATCH", "/api/v1/conversations/{id}"): ("conversations:write", {A, S, G}),
    ("GET", "/api/v1/conversations/{id}/timeline"): ("messages:read", {A, S, G}),
    ("GET", "/api/v1/conversations/{id}/messages"): ("messages:read", {A, S, G}),
    ("POST", "/api/v1/conversations/{id}/messages"): ("messages:write", {A, S, G}),
    ("GET", "/api/v1/integrations"): ("integrations:read", {A, S}),
    ("POST", "/api/v1/integrations"): ("integrations:write", {A}),
    ("GET", "/api/v1/integrations/{id}"): ("integrations:read", {A, S}),
    ("PATCH", "/api/v1/integrations/{id}"): ("integrations:write", {A}),
    ("DELETE", "/api/v1/integrations/{id}"): ("integrations:write", {A}),
    ("POST", "/api/v1/integrations/{id}/test"): ("integrations:write", {A}),
    ("GET", "/api/v1/queues"): ("queues:read", ALL),
    ("GET", "/api/v1/queues/{nameOrId}"): ("queues:read", ALL),
    ("GET", "/api/v1/agents"): ("agents:read", ALL),
    ("GET", "/api/v1/agents/{extension}"): ("agents:read", ALL),
    ("GET", "/api/v1/analytics/queues"): ("analytics:read", {A, S, V}),
    ("GET", "/api/v1/events"): ("events:read", ALL),
    ("GET", "/api/v1/ws"): OPEN,  # its handler asks; tests/api/test_live.py
    ("POST", "/api/v1/auth/login"): OPEN,
    ("POST", "/api/v1/auth/refresh"): OPEN,
    ("POST", "/api/v1/auth/logout"): KNOWN,
    ("POST", "/api/v1/auth/logout-everywhere"): KNOWN,
    ("GET", "/api/v1/auth/me"): KNOWN,
    ("POST", "/api/v1/auth/password"): KNOWN,
    ("GET", "/api/v1/auth/methods"): OPEN,
    ("GET", "/api/v1/auth/oidc/login"): OPEN,
    ("GET", "/api/v1/auth/oidc/callback"): OPEN,
    ("GET", "/api/v1/users/{id}/identities"): (ADMIN, {A}),
    ("POST", "/api/v1/users/{id}/identities"): (ADMIN, {A}),
    ("DELETE", "/api/v1/users/{id}/identities/{identityId}"): (ADMIN, {A}),
    ("GET", "/api/v1/users"): (ADMIN, {A}),
    ("POST", "/api/v1/users"): (ADMIN, {A}),
    ("GET", "/api/v1/users/{id}"): (ADMIN, {A}),
    ("PATCH", "/api/v1/users/{id}"): (ADMIN, {A}),
    ("DELETE", "/api/v1/users/{id}"): (ADMIN, {A}),
    ("GET", "/api/v1/api-keys"): (ADMIN, {A}),
    ("POST", "/api/v1/api-keys"): (ADMIN, {A}),
    ("DELETE", "/api/v1/api-keys/{id}"): (ADMIN, {A}),
    ("GET", "/api/v1/audit"): (ADMIN, {A}),
}

# What a route asks for before it looks at the id; else an empty body is refused behind it.
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/leads/{id}/merge"): {"leadId": str(uuid4())},
    ("POST", "/api/v1/users/{id}/identities"): {"issuer": "https://id", "subject": "another"},
    ("POST", "/api/v1/agents/{ext}/login"): {"queue": "support"},
    ("POST", "/api/v1/agents/{ext}/logout"): {"queue": "support"},
}

each_route = pytest.mark.parametrize("route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES])


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def own(pool: Pool) -> Belongings:
    return await add_account(pool, ACCOUNT, "own")


@pytest_asyncio.fixture
async def foreign(pool: Pool) -> Belongings:
    return await add_account(pool, "other", CANARY)


@pytest_asyncio.fixture
async def guarded(serve: Serve, pool: Pool, own: Belongings, foreign: Belongings) -> Served:
    return await serve(pool, keys=[KEY], secret=SECRET)


def filled(path: str, belongings: Belongings | None) -> str:
    """The path with ids of that account; None: of nobody. What stands before an id has to be in people.add_account."""
    parts = path.split("/")
    for n, part in enumerate(parts):
        if part.startswith("{"):
            parts[n] = str(uuid4() if belongings is None else belongings.of[parts[n - 1]])
    return "/".join(parts)


async def ask(api: Served, route: Route, headers: dict[str, str], belongings: Belongings | None = None) -> Any:
    """Status and code of the answer: "" where it is no problem. Most bodies are empty: whoever is let in is told so."""
    options: dict[str, Any] = {}
    if route.body is not None:
        options["json"] = BODIES.get((route.method, route.path), {})
    response, body = await api.raw(filled(route.path, belongings), method=route.method, headers=headers, **options)
    if response.content_type != "application/problem+json":
        return response.status, ""
    return response.status, (await response.json(content_type=None))["code"] if body else ""


# What takes a second scope: who says where events are sent can read them there.
ALSO = {("POST", "/api/v1/webhooks"): "events:read", ("PATCH", "/api/v1/webhooks/{id}"): "events:read"}


def scope_of(route: Route) -> str:
    expected = EXPECTED[route.method, route.path]
    return "" if expected in (OPEN, KNOWN) else expected[0]


def roles_of(route: Route) -> set[Role]:
    expected = EXPECTED[route.method, route.path]
    return ALL if expected in (OPEN, KNOWN) else expected[1]


async def test_every_route_has_its_expectation_and_no_other_has_one() -> None:
    assert set(EXPECTED) == {(route.method, route.path) for route in ROUTES}


async def test_every_scope_is_one_of_the_list() -> None:
    assert {route.needs for route in ROUTES if route.needs} <= set(SCOPES)
    assert {scope for scopes in SCOPES_OF.values() for scope in scopes} <= set(SCOPES)
    assert set(SCOPES_OF) == ALL


@each_route
async def test_strangers(guarded: Served, pool: Pool, own: Belongings, foreign: Belongings, route: Route) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    disabled = await add_user(pool, own.account_id, "ADMIN", disabled_at=at)
    admin = await add_user(pool, own.account_id, "ADMIN")
    other = await add_user(pool, foreign.account_id, "ADMIN")
    strangers = {
        "nobody": ({}, "key_missing"),
        "a key that never was": (bearer(make_key().text), "key_unknown"),
        "no key at all": (bearer("x"), "key_unknown"),
        "a good key and a bad one": ({"X-API-Key": KEY, **bearer("x")}, "key_unknown"),
        "a revoked key": (bearer((await add_key(pool, own.account_id, [ADMIN], revoked_at=at))[1]), "key_revoked"),
        "an expired key": (bearer((await add_key(pool, own.account_id, [ADMIN], expires_at=at))[1]), "key_expired"),
        "another account's key": (bearer((await add_key(pool, foreign.account_id, [ADMIN]))[1]), "key_unknown"),
        "no token": (bearer("a.b.c"), "token_refused"),
        "another secret": (bearer(await log_in(pool, own.account_id, admin, secret=b"x" * 32)), "token_refused"),
        "an expired token": (bearer(await log_in(pool, own.account_id, admin, age_s=901)), "token_refused"),
        "another generation": (bearer(await log_in(pool, own.account_id, admin, generation=1)), "token_refused"),
        "a disabled user": (bearer(await log_in(pool, own.account_id, disabled)), "token_refused"),
        "another account's user": (bearer(await log_in(pool, foreign.account_id, other)), "token_refused"),
        "his session, our account": (bearer(await log_in(pool, own.account_id, other)), "token_refused"),
    }
    for name, (headers, code) in strangers.items():
        found = await ask(guarded, route, headers)
        if EXPECTED[route.method, route.path] == OPEN:
            assert found[1] not in (code, "scope_missing"), name
        else:
            assert found == (401, code), name


@each_route
async def test_keys_by_scope(guarded: Served, pool: Pool, own: Belongings, route: Route) -> None:
    scope, also = scope_of(route), ALSO.get((route.method, route.path))
    for held in SCOPES:
        _, key = await add_key(pool, own.account_id, [held])
        status, code = await ask(guarded, route, bearer(key))
        assert status != 401 or EXPECTED[route.method, route.path] == OPEN, held
        enough = (ADMIN,) if also else (scope, ADMIN)
        assert (status == 403 and code == "scope_missing") == (bool(scope) and held not in enough), held
    if also:
        _, both = await add_key(pool, own.account_id, [scope, also])
        assert (await ask(guarded, route, bearer(both)))[1] != "scope_missing"
    _, all_but = await add_key(pool, own.account_id, [held for held in SCOPES if held not in (scope, ADMIN)])
    _, none = await add_key(pool, own.account_id, [])
    for key in (all_but, none):
        assert ((await ask(guarded, route, bearer(key)))[1] == "scope_missing") == bool(scope)
    # Two are as good as what both may do.
    _, admin = await add_key(pool, own.account_id, [ADMIN])
    both = {"X-API-Key": admin, **bearer(none)}
    assert ((await ask(guarded, route, both))[1] == "scope_missing") == bool(scope)
    assert (await ask(guarded, route, bearer(KEY)))[1] not in ("scope_missing", "key_unknown")


@each_route
async def test_users_by_role(guarded: Served, pool: Pool, own: Belongings, route: Route) -> None:
    for role in Role:
        token = await log_in(pool, own.account_id, await add_user(pool, own.account_id, role))
        status, code = await ask(guarded, route, bearer(token))
        if role in roles_of(route):
            assert code not in ("scope_missing", "token_refused", "key_missing"), role
        else:
            assert (status, code) == (403, "scope_missing"), role


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "{" in route.path], ids=lambda route: f"{route.method} {route.path}"
)
async def test_another_accounts_ids_are_nobodys(
    guarded: Served, pool: Pool, own: Belongings, foreign: Belongings, route: Route
) -> None:
    before = await everything_of(pool, foreign)
    _, key = await add_key(pool, own.account_id, [ADMIN])
    admin = await log_in(pool, own.account_id, await add_user(pool, own.account_id, "ADMIN"))
    for headers in (bearer(KEY), bearer(key), bearer(admin)):
        nobodys, theirs = await ask(guarded, route, headers), await ask(guarded, route, headers, foreign)
        assert theirs == nobodys
        assert theirs[0] == 404
        assert theirs[1].endswith("_not_found")
    assert await everything_of(pool, foreign) == before
    _, code = await ask(guarded, route, bearer(KEY), own)
    assert not code.endswith("_not_found"), "the id that people.add_account gives is not what the route asks for"


async def everything_of(pool: Pool, belongings: Belongings) -> list[str]:
    rows = []
    for table in (
        "app_user",
        "user_identity",
        "api_key",
        "call",
        "call_recording",
        "call_note",
        "lead",
        "lead_phone",
        "lead_alias",
        "command",
        "audit",
        "recording_access",
        "webhook",
        "webhook_delivery",
        "conversation",
        "integration",
        "integration_secret",
        "media_file",
        "message",
        "object_removal",
    ):
        rows += await pool.fetch(
            f"SELECT to_jsonb(t)::text FROM {table} AS t WHERE account_id = $1", belongings.account_id
        )
    return sorted(row[0] for row in rows)


@pytest.mark.parametrize(
    "route",
    [
        route
        for route in ROUTES
        if route.method == "GET"
        and "{" not in route.path
        and not route.path.endswith(("/ws", "/oidc/login", "/oidc/callback"))
    ],
    ids=lambda route: route.path,
)
async def test_lists_hold_nothing_of_another_account(guarded: Served, foreign: Belongings, route: Route) -> None:
    response, body = await guarded.raw(route.path, headers=bearer(KEY))
    assert response.status == 200
    assert CANARY.encode() not in body
    for thing in foreign.of.values():
        assert str(thing).encode() not in body
