"""Logging in, staying in, being locked out, and logging out."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import jwt
import pytest
import pytest_asyncio
from aiohttp import ClientSession, CookieJar, DummyCookieJar
from argon2 import PasswordHasher
from people import BY, SECRET, add_key, add_user, bearer, log_in
from served import Serve, Served
from structlog.testing import capture_logs

from trunkline.api import sessions
from trunkline.api.state import TRIES_OF_ADDRESS
from trunkline.identity import known, passwords, tokens
from trunkline.identity.keys import make_refresh_token
from trunkline.identity.passwords import Passwords, hash_password
from trunkline.store.pool import Pool
from trunkline.store.sessions import close_all_sessions, close_session, open_session, rotate
from trunkline.store.users import MOST_TRIES, update_user

pytestmark = pytest.mark.asyncio

EMAIL = "ada@example.com"
PASSWORD = "correct horse battery"
LOGIN = "/api/v1/auth/login"
HASH = hash_password(PASSWORD)


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def ada(pool: Pool, account_id: UUID) -> UUID:
    return await add_user(pool, account_id, "SUPERVISOR", email=EMAIL, password_hash=HASH)


@pytest_asyncio.fixture
async def api(serve: Serve, pool: Pool, ada: UUID) -> Served:
    return await serve(pool, required=True, secret=SECRET)


class Browser:
    """Keeps cookies as a browser does, and says which it has for the refresh route."""

    def __init__(self, api: Served, client: ClientSession) -> None:
        self.api = api
        self.client = client

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        options = {} if body is None else {"json": body}
        async with self.client.post(self.api.url + path, headers=headers, **options) as response:
            return response.status, await response.json(content_type=None) if await response.read() else None, response

    async def log_in(self, email: str = EMAIL, password: str = PASSWORD) -> tuple[int, Any, Any]:
        return await self.post(LOGIN, {"email": email, "password": password})


@pytest_asyncio.fixture
async def browser(api: Served) -> AsyncIterator[Browser]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:  # the host is an address
        yield Browser(api, client)


async def me(api: Served, token: str) -> tuple[int, Any]:
    return await api.get("/api/v1/auth/me", headers=bearer(token))


async def test_a_user_logs_in_and_does_what_his_role_may(browser: Browser, ada: UUID) -> None:
    status, session, response = await browser.log_in("  ADA@example.com")
    assert status == 200
    assert (session["tokenType"], session["expiresIn"]) == ("Bearer", 900)
    assert session["user"]["id"] == str(ada)
    assert "password" not in str(session).replace("hasPassword", "")
    assert response.headers["Cache-Control"] == "no-store"
    status, told = await me(browser.api, session["accessToken"])
    assert (status, told["kind"], told["actor"]) == (200, "USER", f"user:{ada}")
    assert told["user"]["email"] == EMAIL
    assert "recordings:write" in told["scopes"]
    headers = bearer(session["accessToken"])
    assert (await browser.api.get("/api/v1/calls", headers=headers))[0] == 200
    assert (await browser.api.get("/api/v1/users", headers=headers))[0] == 403


@pytest.mark.parametrize(("host", "secure"), [("127.0.0.1", False), ("localhost:80", False), ("crm.example.com", True)])
async def test_the_refresh_token_is_a_cookie_that_no_page_reads(api: Served, host: str, secure: bool) -> None:
    body = {"email": EMAIL, "password": PASSWORD}
    response, _ = await api.raw(LOGIN, method="POST", json=body, headers={"Host": host})
    cookie = response.headers["Set-Cookie"]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", f"path={sessions.REFRESH_PATH}"} <= attributes
    assert ("secure" in attributes) == secure


async def test_a_wrong_password_an_unknown_user_and_a_disabled_one_are_told_alike(
    browser: Browser, pool: Pool, account_id: UUID
) -> None:
    await add_user(pool, account_id, "ADMIN", email="off@example.com", password_hash=HASH, disabled_at=await now(pool))
    await add_user(pool, account_id, "ADMIN", email="none@example.com")
    await add_user(pool, account_id, "ADMIN", email="odd@example.com", password_hash="not a hash")
    other = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    await add_user(pool, other, "ADMIN", email="other@example.com", password_hash=HASH)
    told = []
    for email in (EMAIL, "nobody@example.com", "off@example.com", "none@example.com", "odd@example.com",
                  "other@example.com"):  # fmt: skip
        status, problem, _ = await browser.log_in(email, PASSWORD if email != EMAIL else "wrong")
        problem.pop("requestId")
        told.append((status, problem))
    assert told == [told[0]] * len(told)
    assert (told[0][0], told[0][1]["code"]) == (401, "login_refused")


async def now(pool: Pool) -> Any:
    return await pool.fetchval("SELECT now()")


async def test_the_same_work_is_done_for_an_unknown_user(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is verified, not by a clock: one argon2id verification with the same parameters, whoever it is."""
    verified = []
    matches = passwords._matches

    def noting(hashed: str, password: str) -> bool:
        verified.append(hashed.rsplit("$", 2)[0])
        return matches(hashed, password)

    monkeypatch.setattr(passwords, "_matches", noting)
    await browser.log_in(EMAIL, "wrong")
    await browser.log_in("nobody@example.com", "wrong")
    assert len(verified) == 2
    assert verified[0] == verified[1]
    assert verified[0].startswith("$argon2id$")


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
async def test_after_so_many_wrong_passwords_none_is_looked_at(browser: Browser, pool: Pool, email: str) -> None:
    answers = [await browser.log_in(email, "wrong") for _ in range(MOST_TRIES)]
    assert {answer[0] for answer in answers} == {401}
    for password in ("wrong", PASSWORD):  # the right one neither
        status, problem, response = await browser.log_in(email, password)
        assert (status, problem["code"]) == (429, "login_locked")
        assert 0 < int(response.headers["Retry-After"]) <= 900
    await pool.execute("UPDATE app_user SET locked_until = now() - interval '1 second'")
    assert (await browser.log_in(email, PASSWORD))[0] == (200 if email == EMAIL else 429)


async def test_tries_at_once_are_counted_like_tries_in_a_row(browser: Browser, pool: Pool) -> None:
    answers = await asyncio.gather(*(browser.log_in(EMAIL, "wrong") for _ in range(MOST_TRIES + 4)))
    assert sorted(answer[0] for answer in answers) == [401] * MOST_TRIES + [429] * 4


async def test_a_login_that_goes_well_forgets_the_tries(browser: Browser, pool: Pool) -> None:
    for _ in range(2):
        for _ in range(MOST_TRIES - 1):
            assert (await browser.log_in(EMAIL, "wrong"))[0] == 401
        assert (await browser.log_in())[0] == 200
    assert await pool.fetchval("SELECT failed_logins FROM app_user") == 0


class Gate:
    """Has every look at a password wait, and counts those that are at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.busy = 0
        self._came = threading.Condition()
        monkeypatch.setattr(passwords, "_matches", self._matches)

    def _matches(self, hashed: str, password: str) -> bool:
        with self._came:
            self.busy += 1
            self._came.notify_all()
        self.open.wait(30)
        return False

    async def came(self, count: int, timeout_s: float = 10.0) -> bool:
        def wait() -> bool:
            with self._came:
                return self._came.wait_for(lambda: self.busy >= count, timeout_s)

        return await asyncio.to_thread(wait)


async def test_who_waits_for_a_password_keeps_nobody_from_the_database(
    api: Served, browser: Browser, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(passwords, "MOST_WAITING", 8)
    token = bearer(await log_in(pool, account_id, await add_user(pool, account_id, "ADMIN")))
    logins = [asyncio.create_task(browser.log_in(EMAIL, "wrong")) for _ in range(8)]
    try:
        assert await gate.came(2)
        async with asyncio.timeout(8):
            while await pool.fetchval("SELECT failed_logins FROM app_user WHERE email = $1", EMAIL) < 8:
                pass
            assert (await api.get("/api/v1/calls", headers=token))[0] == 200
            status, problem, response = await browser.log_in()
            assert (status, problem["code"], response.headers["Retry-After"]) == (503, "passwords_busy", "5")
            body = {"email": "new@example.com", "role": "AGENT", "password": "a good password"}
            assert (await browser.post("/api/v1/users", body, **token))[1]["code"] == "passwords_busy"
    finally:
        gate.open.set()
    assert [(await login)[0] for login in logins] == [401] * 8
    # What was not looked at is no wrong password.
    assert await pool.fetchval("SELECT failed_logins FROM app_user WHERE email = $1", EMAIL) == 8


async def test_who_gives_up_waiting_lets_no_third_password_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    looks = Passwords()
    tasks = [asyncio.create_task(looks.verify(HASH, "wrong")) for _ in range(4)]
    assert await gate.came(2)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert not await gate.came(3, 0.3)
    gate.open.set()
    assert await asyncio.gather(*tasks[2:]) == [False, False]


async def test_one_address_does_not_try_all_users(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_matches", lambda hashed, password: False)  # what is counted takes no time
    for n in range(TRIES_OF_ADDRESS):
        assert (await browser.log_in(f"u{n}@example.com", "wrong"))[0] == 401
    assert (await browser.log_in("one.more@example.com", "wrong"))[1]["code"] == "login_locked"


async def test_each_refresh_token_is_good_once_and_a_copy_ends_the_session(api: Served, pool: Pool, ada: UUID) -> None:
    async with ClientSession(cookie_jar=DummyCookieJar()) as client:
        browser = Browser(api, client)
        _, session, response = await browser.log_in()
        first = response.cookies[sessions.COOKIE].value
        status, session, response = await browser.post(sessions.REFRESH_PATH, Cookie=f"{sessions.COOKIE}={first}")
        assert status == 200
        second = response.cookies[sessions.COOKIE].value
        assert second != first
        assert (await me(api, session["accessToken"]))[0] == 200
        _, elsewhere, other = await browser.log_in()  # another session, which has nothing to do with it
        with capture_logs() as logs:
            status, problem, _ = await browser.post(sessions.REFRESH_PATH, Cookie=f"{sessions.COOKIE}={first}")
        assert (status, problem["code"]) == (401, "refresh_refused")
        assert "session.token_reused" in {entry["event"] for entry in logs}
        # Whoever came first, the thief or the user: neither goes on.
        status, _, _ = await browser.post(sessions.REFRESH_PATH, Cookie=f"{sessions.COOKIE}={second}")
        assert status == 401
        assert (await me(api, session["accessToken"]))[1]["code"] == "token_refused"
        assert (await me(api, elsewhere["accessToken"]))[0] == 200
        third = other.cookies[sessions.COOKIE].value
        assert (await browser.post(sessions.REFRESH_PATH, Cookie=f"{sessions.COOKIE}={third}"))[0] == 200
    actions = [row[0] for row in await pool.fetch("SELECT action FROM audit WHERE subject = $1", f"user:{ada}")]
    assert actions.count("session.token_reused") == 1


async def test_one_of_two_refreshes_at_once_is_refused(api: Served) -> None:
    async with ClientSession(cookie_jar=DummyCookieJar()) as client:
        browser = Browser(api, client)
        _, _, response = await browser.log_in()
        cookie = f"{sessions.COOKIE}={response.cookies[sessions.COOKIE].value}"
        answers = await asyncio.gather(*(browser.post(sessions.REFRESH_PATH, Cookie=cookie) for _ in range(2)))
        assert sorted(answer[0] for answer in answers) == [200, 401]


async def alive(pool: Pool) -> int:
    """How many refresh tokens are good."""
    return await pool.fetchval("SELECT count(*) FROM refresh_token WHERE revoked_at IS NULL AND rotated_at IS NULL")


@pytest.mark.parametrize("how", ["everywhere", "logout", "password", "disabled", "reused"])
async def test_no_session_outlives_its_end_by_a_refresh_in_the_same_moment(
    pool: Pool, account_id: UUID, ada: UUID, how: str
) -> None:
    outlived = 0
    for _ in range(40):
        _, first = make_refresh_token()
        _, second = make_refresh_token()
        _, third = make_refresh_token()
        generation = await pool.fetchval("SELECT token_generation FROM app_user WHERE id = $1", ada)
        family = await open_session(pool, account_id, BY, ada, first, generation)
        assert family is not None
        assert not isinstance(await rotate(pool, account_id, BY, first, second), str)
        match how:
            case "everywhere":
                end = close_all_sessions(pool, account_id, BY, ada)
            case "logout":
                end = close_session(pool, account_id, family)
            case "reused":
                end = rotate(pool, account_id, BY, first, make_refresh_token()[1])
            case _:
                changes = {"disabled": True} if how == "disabled" else {"password_hash": "another"}
                end = update_user(pool, account_id, BY, ada, changes)
        await asyncio.gather(rotate(pool, account_id, BY, second, third), end)
        outlived += await alive(pool)
        await pool.execute("UPDATE refresh_token SET revoked_at = now()")
        await pool.execute("UPDATE app_user SET disabled_at = NULL")
    assert outlived == 0


@pytest.mark.parametrize("cookie", ["", "x", "x" * 43, "é"])
async def test_no_refresh_token_is_made_up(api: Served, cookie: str) -> None:
    headers = {"Cookie": f"{sessions.COOKIE}={cookie}"}
    response, _ = await api.raw(sessions.REFRESH_PATH, method="POST", headers=headers)
    assert response.status == 401


async def test_refresh_tokens_that_are_over_are_swept_out(browser: Browser, pool: Pool, account_id: UUID) -> None:
    gone = await add_user(pool, account_id, "AGENT")  # and never comes back
    await log_in(pool, account_id, gone)
    await browser.log_in()
    await browser.post(sessions.REFRESH_PATH)
    await pool.execute(
        """UPDATE refresh_token SET expires_at = now() - interval '1 second'
           WHERE user_id = $1 OR rotated_at IS NOT NULL""",
        gone,
    )
    assert (await browser.post(sessions.REFRESH_PATH))[0] == 200
    assert await pool.fetchval("SELECT count(*) FROM refresh_token WHERE user_id <> $1", gone) == 2
    await browser.log_in()
    assert await pool.fetchval("SELECT count(*) FROM refresh_token WHERE user_id = $1", gone) == 0


async def test_an_old_refresh_token_is_over(browser: Browser, pool: Pool) -> None:
    await browser.log_in()
    await pool.execute("UPDATE refresh_token SET expires_at = now() - interval '1 second'")
    assert (await browser.post(sessions.REFRESH_PATH))[1]["code"] == "refresh_refused"
    await browser.log_in()
    assert await pool.fetchval("SELECT count(*) FROM refresh_token") == 1  # the next login sweeps it out


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://{host}", 200),
        ("https://{host}", 200),  # a proxy took TLS off
        ("https://crm.example.com", 200),
        ("https://evil.example", 403),
        ("https://crm.example.com.evil.example", 403),
        ("http://crm.example.com", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
async def test_another_sites_page_refreshes_nothing(
    serve: Serve, pool: Pool, ada: UUID, origin: str | None, status: int
) -> None:
    api = await serve(pool, required=True, secret=SECRET, origins=["https://crm.example.com"])
    headers = {} if origin is None else {"Origin": origin.format(host=api.url.removeprefix("http://"))}
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:
        browser = Browser(api, client)
        await browser.log_in()
        found, problem, _ = await browser.post(sessions.REFRESH_PATH, **headers)
    assert found == status
    assert status == 200 or problem["code"] == "origin_not_allowed"


async def test_logging_out_ends_this_session_and_everywhere_all(browser: Browser, ada: UUID, pool: Pool) -> None:
    _, one, _ = await browser.log_in()
    _, two, _ = await browser.log_in()
    _, three, _ = await browser.log_in()
    status, _, response = await browser.post("/api/v1/auth/logout", **bearer(one["accessToken"]))
    assert status == 204
    assert response.cookies[sessions.COOKIE].value == ""
    assert [(await me(browser.api, each["accessToken"]))[0] for each in (one, two, three)] == [401, 200, 200]
    await browser.log_in()
    assert (await browser.post("/api/v1/auth/logout-everywhere", **bearer(two["accessToken"])))[0] == 204
    assert [(await me(browser.api, each["accessToken"]))[0] for each in (two, three)] == [401, 401]
    assert (await browser.post(sessions.REFRESH_PATH))[0] == 401
    assert (
        await pool.fetchval("SELECT count(*) FROM refresh_token WHERE revoked_at IS NULL AND rotated_at IS NULL") == 0
    )


async def test_a_new_password_ends_all_sessions(browser: Browser) -> None:
    _, session, _ = await browser.log_in()
    headers, path = bearer(session["accessToken"]), "/api/v1/auth/password"
    new = "another good password"
    assert (await browser.post(path, {"current": "wrong", "new": new}, **headers))[1]["code"] == "login_refused"
    assert (await browser.post(path, {"current": PASSWORD, "new": "short"}, **headers))[1]["code"] == "bad_body"
    assert (await browser.post(path, {"current": PASSWORD, "new": new}, **headers))[0] == 204
    assert (await me(browser.api, session["accessToken"]))[0] == 401
    assert (await browser.log_in())[0] == 401
    assert (await browser.log_in(EMAIL, new))[0] == 200


class Meanwhile:
    """Has something done by an admin once the password was looked at, before anything comes of it."""

    def __init__(self, api: Served, what: str, then: Callable[[], Awaitable[Any]]) -> None:
        self._then: Callable[[], Awaitable[Any]] | None = then
        self._does = getattr(api.state.passwords, what)
        setattr(api.state.passwords, what, self)

    async def __call__(self, *arguments: Any) -> Any:
        answer = await self._does(*arguments)
        then, self._then = self._then, None
        if then is not None:
            await then()
        return answer


@pytest.mark.parametrize("change", [{"password_hash": "the admin's"}, {"disabled": True}, None])
async def test_a_login_is_refused_where_it_came_too_late(
    browser: Browser, pool: Pool, account_id: UUID, ada: UUID, change: Any
) -> None:
    def then() -> Awaitable[Any]:
        if change is None:
            return close_all_sessions(pool, account_id, BY, ada)
        return update_user(pool, account_id, BY, ada, change)

    Meanwhile(browser.api, "verify", then)
    status, problem, _ = await browser.log_in()
    assert (status, problem["code"], await alive(pool)) == (401, "login_refused", 0)


async def test_a_rehash_does_not_bring_the_old_password_back(
    browser: Browser, pool: Pool, account_id: UUID, ada: UUID
) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=1024).hash(PASSWORD)
    await pool.execute("UPDATE app_user SET password_hash = $1", weak)
    new = {"password_hash": "the admin's"}
    Meanwhile(browser.api, "hash", lambda: update_user(pool, account_id, BY, ada, new))
    assert (await browser.log_in())[0] == 401
    assert await pool.fetchval("SELECT password_hash FROM app_user") == "the admin's"
    await pool.execute("UPDATE app_user SET password_hash = $1", weak)
    assert (await browser.log_in())[0] == 200  # and else it is rehashed
    assert await pool.fetchval("SELECT password_hash FROM app_user") != weak


async def test_one_does_not_set_a_password_over_that_of_an_admin(
    browser: Browser, pool: Pool, account_id: UUID, ada: UUID
) -> None:
    token = await log_in(pool, account_id, ada)
    new = {"password_hash": "the admin's"}
    Meanwhile(browser.api, "verify", lambda: update_user(pool, account_id, BY, ada, new))
    body = {"current": PASSWORD, "new": "another good password"}
    assert (await browser.post("/api/v1/auth/password", body, **bearer(token)))[1]["code"] == "login_refused"
    assert await pool.fetchval("SELECT password_hash FROM app_user") == "the admin's"


async def test_who_has_a_key_has_no_session(api: Served, pool: Pool, account_id: UUID) -> None:
    _, key = await add_key(pool, account_id, ["admin"])
    for path in ("logout", "logout-everywhere", "password"):
        body = {"current": PASSWORD, "new": PASSWORD}
        response, text = await api.raw(f"/api/v1/auth/{path}", method="POST", headers=bearer(key), json=body)
        assert response.status == 403
        assert b"no_session" in text


def forged(account_id: UUID, user_id: UUID, token: str) -> dict[str, str]:
    """Tokens that are not ours, made of one that is."""
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience=str(account_id))
    head, payload, signature = token.split(".")
    return {
        "alg none": jwt.encode(claims, None, algorithm="none"),
        "alg none, with our signature": f"{jwt.encode(claims, None, algorithm='none').rpartition('.')[0]}.{signature}",
        "another algorithm": jwt.encode(claims, SECRET * 2, algorithm="HS512"),
        "another secret": jwt.encode(claims, b"y" * 32, algorithm="HS256"),
        "another account": jwt.encode({**claims, "aud": str(user_id)}, SECRET, algorithm="HS256"),
        "two accounts": jwt.encode({**claims, "iss": "else"}, SECRET, algorithm="HS256"),
        "no end": jwt.encode({k: v for k, v in claims.items() if k != "exp"}, SECRET, algorithm="HS256"),
        "no session": jwt.encode({k: v for k, v in claims.items() if k != "sid"}, SECRET, algorithm="HS256"),
        "another user": jwt.encode({**claims, "sub": str(account_id)}, SECRET, algorithm="HS256"),
        "another session": jwt.encode({**claims, "sid": str(account_id)}, SECRET, algorithm="HS256"),
        "no uuid": jwt.encode({**claims, "sub": "' OR true"}, SECRET, algorithm="HS256"),
        "odd types": jwt.encode({**claims, "sid": ["x"], "gen": "0"}, SECRET, algorithm="HS256"),
        "true for 0": jwt.encode({**claims, "gen": False}, SECRET, algorithm="HS256"),
        "cut": f"{head}.{payload}.{signature[:-2]}",
        "no signature": f"{head}.{payload}.",
        "not base64": "é.é.é",
        "dots": "..",
    }


async def test_a_forged_token_is_refused(api: Served, pool: Pool, account_id: UUID, ada: UUID) -> None:
    good = await log_in(pool, account_id, ada)
    assert (await me(api, good))[0] == 200
    for name, token in forged(account_id, ada, good).items():
        status, problem = await me(api, token)
        assert (status, problem["code"]) == (401, "token_refused"), name
        assert token not in str(problem)


async def test_a_role_that_is_taken_is_missed_within_seconds(
    api: Served, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process did it: nobody tells this one, so it has to ask again before KNOWN_FOR_S is over."""
    assert known.KNOWN_FOR_S < 5
    user = await add_user(pool, account_id, "ADMIN")
    token = await log_in(pool, account_id, user)
    monkeypatch.setattr(known, "KNOWN_FOR_S", 0.0)
    assert (await api.get("/api/v1/users", headers=bearer(token)))[0] == 200
    await pool.execute("UPDATE app_user SET role = 'viewer' WHERE id = $1", user)
    assert (await api.get("/api/v1/users", headers=bearer(token)))[0] == 403
    await pool.execute("UPDATE app_user SET disabled_at = now() WHERE id = $1", user)
    assert (await api.get("/api/v1/calls", headers=bearer(token)))[0] == 401


async def test_without_a_secret_in_the_settings_all_processes_share_one(serve: Serve, pool: Pool, ada: UUID) -> None:
    one, two = await serve(pool, required=True), await serve(pool, required=True)
    async with ClientSession(cookie_jar=DummyCookieJar()) as client:
        _, session, _ = await Browser(one, client).log_in()
    assert (await me(two, session["accessToken"]))[0] == 200
    assert await pool.fetchval("SELECT length(secret) FROM auth_secret") == tokens.SECRET_BYTES


async def test_no_log_holds_a_secret(browser: Browser, pool: Pool, account_id: UUID) -> None:
    with capture_logs() as logs:
        await browser.log_in(EMAIL, "canary-password-1")
        _, session, response = await browser.log_in()
        cookie = response.cookies[sessions.COOKIE].value
        await browser.post(sessions.REFRESH_PATH)
        browser.client.cookie_jar.clear()
        await browser.post(sessions.REFRESH_PATH, Cookie=f"{sessions.COOKIE}={cookie}")
        await me(browser.api, session["accessToken"] + "x")
        _, key = await add_key(pool, account_id, ["calls:read"])
        await me(browser.api, key)
        await me(browser.api, key[:-1] + "-")
        for _ in range(MOST_TRIES + 1):
            await browser.log_in(EMAIL, "canary-password-2")
    assert {"login.refused", "login.locked", "session.token_reused"} <= {entry["event"] for entry in logs}
    audit = [str(dict(row)) for row in await pool.fetch("SELECT * FROM audit")]
    for told in (str(logs), *audit):
        for secret in ("canary-password", PASSWORD, session["accessToken"], cookie, key, SECRET.decode(), "argon2"):
            assert secret not in told
        assert EMAIL not in str(logs)
