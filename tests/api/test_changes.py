"""What holds for every change: If-Match is looked at, a POST under an Idempotency-Key is done once."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from people import Belongings, add_account, bearer
from served import ACCOUNT, Serve, Served
from structlog.testing import capture_logs
from test_permissions import filled

from trunkline.api import listening
from trunkline.api.change import Repeats, changing
from trunkline.api.contract import Answer, Route
from trunkline.api.edge import edge
from trunkline.api.routes import ROUTES
from trunkline.api.state import STATE
from trunkline.store.kept_answers import purge_kept
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

USERS = "/api/v1/users"
PASSWORD = "a canary of a password"
VERSIONED = [route for route in ROUTES if route.versioned]


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def own(pool: Pool) -> Belongings:
    return await add_account(pool, ACCOUNT, "own")


@pytest_asyncio.fixture
async def api(serve: Serve, pool: Pool, own: Belongings) -> AsyncIterator[Served]:
    """The API; whatever was in the module's database of other tests' triggers is gone."""
    yield await serve(pool)
    await pool.execute("DROP FUNCTION IF EXISTS crash CASCADE")


async def post(
    api: Served, key: str | None, body: dict[str, Any], path: str = USERS
) -> tuple[int, Any, aiohttp.ClientResponse]:
    headers = {} if key is None else {"Idempotency-Key": key}
    response, raw = await api.raw(path, method="POST", json=body, headers=headers)
    return response.status, msgspec.json.decode(raw), response


def user(**more: Any) -> dict[str, Any]:
    return {"email": f"{uuid4().hex}@example.com", "role": "AGENT", **more}


async def test_what_can_be_changed_has_an_etag(api: Served, own: Belongings) -> None:
    routes = [route for route in VERSIONED if route.method == "GET"]
    assert routes
    for route in routes:
        await has_an_etag(api, filled(route.path, own))


async def has_an_etag(api: Served, path: str) -> None:
    response, body = await api.raw(path)
    tag = response.headers["ETag"]
    assert response.status == 200
    for known in (tag, f'"x", {tag}', "*", f"W/{tag}"):
        again, empty = await api.raw(path, headers={"If-None-Match": known})
        assert (again.status, again.headers["ETag"], empty) == (304, tag, b"")
    other, indented = await api.raw(f"{path}?pretty=1", headers={"If-None-Match": tag})
    assert other.status == 200
    assert other.headers["ETag"] != tag, "a strong ETag is of these bytes"
    assert other.headers["ETag"].partition(".")[0] == tag.partition(".")[0], "but the version is of what it shows"
    assert msgspec.json.decode(indented) == msgspec.json.decode(body)


async def test_no_change_is_made_where_if_match_does_not(api: Served, pool: Pool, own: Belongings) -> None:
    """A route that has no ETag cannot match one either: who asks must not believe that it did."""
    before = await everything(pool)
    routes = [route for route in ROUTES if route.method in ("PATCH", "PUT", "DELETE")]
    assert routes
    for route in routes:
        body = {"json": {}} if route.body is not None else {}
        for tag in ('"0123456789abcdef.0"', "no tag", '"', "W/*"):
            path, headers = filled(route.path, own), {"If-Match": tag}
            response, raw = await api.raw(path, method=route.method, headers=headers, **body)
            found = (response.status, msgspec.json.decode(raw)["code"])
            assert found == (412, "precondition_failed"), (route.method, route.path)
    assert await everything(pool) == before


async def everything(pool: Pool) -> list[str]:
    tables = (
        "app_user",
        "api_key",
        "call",
        "call_note",
        "call_recording",
        "lead",
        "webhook",
        "webhook_delivery",
        "audit",
    )
    rows = [await pool.fetch(f"SELECT to_jsonb(t)::text FROM {table} AS t ORDER BY 1") for table in tables]
    return [row[0] for found in rows for row in found]


async def test_of_two_who_change_what_they_have_read_one_has_to_read_again(api: Served, own: Belongings) -> None:
    path = f"{USERS}/{own.of['users']}"
    for turn in range(5):
        response, _ = await api.raw(path)
        tag = response.headers["ETag"]
        answers = await asyncio.gather(
            *(
                api.raw(path, method="PATCH", json={"name": f"{turn} {name}"}, headers={"If-Match": tag})
                for name in ("Ada", "Zoë")
            )
        )
        assert sorted(response.status for response, _ in answers) == [200, 412]
        [(won, body)] = [answer for answer in answers if answer[0].status == 200]
        now, is_now = await api.raw(path)
        assert (now.headers["ETag"], is_now) == (won.headers["ETag"], body)
    for known in (won.headers["ETag"], "*", f'"x", {won.headers["ETag"]}'):
        response, _ = await api.raw(path, method="PATCH", json={}, headers={"If-Match": known})
        assert response.status == 200
    response, _ = await api.raw(path, method="PATCH", json={}, headers={"If-Match": f"W/{won.headers['ETag']}"})
    assert response.status == 412, "a weak tag never matches"


async def test_what_the_daemon_counts_is_no_change_of_a_webhook(api: Served, pool: Pool, own: Belongings) -> None:
    path = f"/api/v1/webhooks/{own.of['webhooks']}"
    response, _ = await api.raw(path)
    await pool.execute("UPDATE webhook SET failures = 3, last_seq = 9")
    changed, _ = await api.raw(path)
    assert changed.headers["ETag"] != response.headers["ETag"]
    patched, _ = await api.raw(
        path, method="PATCH", json={"description": "x"}, headers={"If-Match": response.headers["ETag"]}
    )
    assert patched.status == 200


async def test_a_merge_patch_says_so_or_is_json_and_nothing_else(api: Served, own: Belongings) -> None:
    path = f"{USERS}/{own.of['users']}"
    await api.raw(path, method="PATCH", json={"name": "Ada", "extension": "1001"})
    for type_, status in (("application/merge-patch+json", 200), ("application/json", 200), ("text/plain", 415)):
        response, _ = await api.raw(path, method="PATCH", data=b'{"extension": null}', headers={"Content-Type": type_})
        assert response.status == status
    _, found = await api.get(path)
    assert (found["name"], found["extension"]) == ("Ada", None), "left out stays, null empties"
    response, raw = await api.raw(path, method="PATCH", json={"surname": "x"})
    assert response.status == 422
    assert "`surname`" in msgspec.json.decode(raw)["detail"]


async def test_the_same_again_is_answered_with_the_same(api: Served, pool: Pool) -> None:
    key, body = str(uuid4()), user(password=PASSWORD)
    status, made, first = await post(api, key, body)
    assert (status, first.headers.get("Idempotency-Replayed")) == (201, None)
    status, again, second = await post(api, key, body)
    assert (status, again, second.headers["Idempotency-Replayed"]) == (201, made, "true")
    assert second.headers["ETag"] == first.headers["ETag"]
    assert second.content_type == "application/json"
    assert await pool.fetchval("SELECT count(*) FROM app_user WHERE email = $1", body["email"]) == 1
    assert (await post(api, str(uuid4()), body))[0] == 409, "another key is another request"
    row = str(await pool.fetch("SELECT * FROM kept_answer"))
    assert key not in row
    assert PASSWORD not in row


async def test_a_key_is_of_one_request(api: Served, pool: Pool, own: Belongings) -> None:
    key = "visible-ASCII_!~"
    body = user()
    assert (await post(api, key, body))[0] == 201
    replay = f"/api/v1/webhooks/{own.of['webhooks']}/deliveries/{own.of['deliveries']}/replay"
    for other, path in ((user(), USERS), (body, f"{USERS}?pretty=1"), (body, replay)):
        status, problem, _ = await post(api, key, other, path)
        assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert await pool.fetchval("SELECT count(*) FROM app_user") == 2


async def test_a_key_is_of_one_caller(serve: Serve, pool: Pool, own: Belongings) -> None:
    api, body = await serve(pool, keys=["a", "b"]), user()

    async def sent(by: str) -> tuple[int, Any]:
        headers = {"Idempotency-Key": "1", **bearer(by)}
        response, raw = await api.raw(USERS, method="POST", json=body, headers=headers)
        return response.status, msgspec.json.decode(raw)

    made = await sent("a")
    assert made[0] == 201
    status, problem = await sent("b")
    assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert await sent("a") == made


async def test_a_refusal_is_not_kept(api: Served, pool: Pool) -> None:
    key, body = str(uuid4()), user()
    await post(api, None, body)
    assert (await post(api, key, body))[1]["code"] == "email_taken"
    await pool.execute("DELETE FROM app_user WHERE email = $1", body["email"])
    assert (await post(api, key, body))[0] == 201


async def test_a_key_that_is_none_is_refused(api: Served) -> None:
    for key in ("", "ä", "with space", "x" * 256):
        status, problem, _ = await post(api, key, user())
        assert (status, problem["code"]) == (400, "bad_idempotency_key"), key
    assert (await post(api, "x" * 255, user()))[0] == 201


async def test_what_is_not_kept_takes_no_key(api: Served, own: Belongings) -> None:
    for route in ROUTES:
        if route.repeats is Repeats.REFUSED:
            status, problem, _ = await post(api, "key", {}, filled(route.path, own))
            assert (status, problem["code"]) == (400, "idempotency_not_kept"), route.path


async def test_while_it_is_being_answered_nobody_else_is_and_nothing_is_done_twice(api: Served, pool: Pool) -> None:
    key, body = str(uuid4()), user()
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE app_user IN SHARE MODE")
        first = asyncio.create_task(post(api, key, body))
        await waiting(pool)
        status, problem, response = await post(api, key, body)
        assert (status, problem["code"], response.headers["Retry-After"]) == (409, "request_in_progress", "1")
        await transaction.rollback()
    assert (await first)[0] == 201
    assert (await post(api, key, body))[2].headers["Idempotency-Replayed"] == "true"
    answers = await asyncio.gather(*(post(api, "another", other) for other in [user()] * 10))
    assert {status for status, _, _ in answers} <= {201, 409}
    assert await pool.fetchval("SELECT count(*) FROM app_user") == 3


async def waiting(pool: Pool) -> None:
    """Until somebody waits for a lock."""
    until = time.monotonic() + 5
    while not await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        assert time.monotonic() < until
        await asyncio.sleep(0.005)


CRASH = """
CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER crash AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION crash()
"""


@pytest.mark.parametrize("table", ["app_user", "kept_answer"])
async def test_a_crash_leaves_both_or_neither(api: Served, pool: Pool, table: str) -> None:
    key, body = str(uuid4()), user()
    await pool.execute(CRASH.format(table=table))
    with capture_logs():
        status, problem, _ = await post(api, key, body)
    assert (status, problem["code"]) == (503, "database_unavailable")
    assert await pool.fetchval("SELECT count(*) FROM app_user WHERE email = $1", body["email"]) == 0
    await pool.execute("DROP FUNCTION crash CASCADE")
    status, _, response = await post(api, key, body)
    assert (status, response.headers.get("Idempotency-Replayed")) == (201, None)
    assert (await post(api, key, body))[2].headers["Idempotency-Replayed"] == "true"


async def test_after_a_day_a_key_is_free_and_its_answer_gone(api: Served, pool: Pool, own: Belongings) -> None:
    key = str(uuid4())
    assert (await post(api, key, user()))[0] == 201
    await pool.execute("UPDATE kept_answer SET created_at = now() - interval '24 hours'")
    assert (await post(api, key, user()))[0] == 201, "over, though nobody has deleted it"
    await post(api, str(uuid4()), user())
    await pool.execute("UPDATE kept_answer SET created_at = now() - interval '24 hours' WHERE digest < '\\x80'")
    old = await pool.fetchval("SELECT count(*) FROM kept_answer WHERE digest < '\\x80'")
    assert await purge_kept(pool, own.account_id) == old
    assert await pool.fetchval("SELECT count(*) FROM kept_answer") == 2 - old


class _Empty(msgspec.Struct, forbid_unknown_fields=True):
    """A body of nothing."""


async def test_a_handler_that_forgets_the_condition_changes_nothing(api: Served, pool: Pool) -> None:
    async def forgets(request: web.Request) -> web.Response:
        await (await changing(request)).execute("UPDATE app_user SET name = 'forgotten'")
        return web.Response(status=204)

    async def beside(request: web.Request) -> web.Response:
        return web.Response(status=204)

    answers = (Answer(about="", status=204),)
    app = web.Application(middlewares=[edge])
    app[STATE] = api.state
    app.add_routes(
        [
            Route(
                method="PATCH", path="/a", handler=forgets, about="", answers=answers, versioned=True, scope=""
            ).served(),
            Route(
                method="POST", path="/b", handler=beside, about="", answers=answers, repeats=Repeats.KEPT, scope=""
            ).served(),
        ]
    )
    async with listening(app, "127.0.0.1", 0) as url, aiohttp.ClientSession() as client:
        with capture_logs():
            response = await client.patch(f"{url}/a", headers={"If-Match": '"x"'})
            assert response.status == 500
            assert (await client.post(f"{url}/b", headers={"Idempotency-Key": "x"})).status == 500
        assert await pool.fetchval("SELECT count(*) FROM app_user WHERE name = 'forgotten'") == 0
        assert (await client.patch(f"{url}/a")).status == 204
        assert await pool.fetchval("SELECT count(*) FROM app_user WHERE name = 'forgotten'") == 1


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"method": "POST"}, "repeated"),
        ({"method": "GET", "repeats": Repeats.KEPT}, "repeated"),
        ({"method": "POST", "repeats": Repeats.KEPT, "secret": True}, "secret"),
        ({"method": "PATCH", "body": _Empty}, ""),
        ({"method": "PATCH", "body": msgspec.defstruct("Open", [("a", int)])}, "unknown"),
        (
            {"method": "PATCH", "body": msgspec.defstruct("Full", [("a", int, 1)], forbid_unknown_fields=True)},
            "UNSET",
        ),
    ],
)
async def test_a_route_that_forgets_to_say_something_is_none(declared: dict[str, Any], said: str) -> None:
    rest: dict[str, Any] = {"path": "/x", "handler": changing, "about": "", "answers": ()}
    if not said:
        assert Route(**declared, **rest).changes
        return
    with pytest.raises(ValueError, match=said):
        Route(**declared, **rest)


async def test_what_hangs_between_two_statements_keeps_nobody_waiting(api: Served) -> None:
    limit: list[str] = []

    async def ask(request: web.Request) -> web.Response:
        limit.append(await (await changing(request)).fetchval("SHOW idle_in_transaction_session_timeout"))
        return web.Response(status=204)

    app = web.Application(middlewares=[edge])
    app[STATE] = api.state
    answer = (Answer(about="", status=204),)
    app.add_routes([Route(method="PUT", path="/a", handler=ask, about="", answers=answer, scope="").served()])
    async with listening(app, "127.0.0.1", 0) as url, aiohttp.ClientSession() as client:
        assert (await client.put(f"{url}/a")).status == 204
    assert limit == ["3s"]
