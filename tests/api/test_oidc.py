"""Logging in at an OpenID Connect issuer: one that is real, and one that is hostile."""

import asyncio
import secrets
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio
from issuer import CLIENT, SECRET, HostileIssuer, new_key, query_of, signed_with_the_public_key, unsigned
from joserfc.jwk import RSAKey
from people import SECRET as SIGNS
from people import add_user, bearer
from served import ACCOUNT, Serve, Served
from yarl import URL

from trunkline.api import oidc, sessions
from trunkline.identity import oidc_client
from trunkline.identity.oidc import local_path
from trunkline.identity.oidc_client import OidcClient
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

KEY = "a-key-of-the-settings"
BACK = "http://127.0.0.1/api/v1/auth/oidc/callback"  # the tests know on which port


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest.fixture(scope="module")
def keys() -> list[RSAKey]:
    return [new_key(), new_key()]


class Browser:
    """A browser of its own: what it keeps, and where it is sent."""

    def __init__(self, api: Served) -> None:
        self.api = api
        self.client = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def get(self, url: str) -> aiohttp.ClientResponse:
        async with self.client.get(URL(url, encoded=True), allow_redirects=False) as response:
            await response.read()
            return response

    async def begin(self, return_to: str = "/desk") -> str:
        """To the issuer and to where it sends back, without going there."""
        response = await self.get(f"{self.api.url}{oidc.LOGIN_PATH}?returnTo={return_to}")
        assert response.status == 302, await response.text()
        response = await self.get(response.headers["Location"])
        assert response.status == 302
        return response.headers["Location"].replace(BACK, f"{self.api.url}{oidc.CALLBACK_PATH}")

    async def come_back(self, url: str) -> tuple[int, str]:
        """Where it is sent then, or the code of the problem."""
        response = await self.get(url)
        if response.status == 302:
            return 302, response.headers["Location"]
        return response.status, (await response.json(content_type=None))["code"]

    async def log_in(self) -> tuple[int, str]:
        return await self.come_back(await self.begin())

    async def who(self) -> dict[str, Any]:
        """Who is logged in, as a page finds out."""
        async with self.client.post(f"{self.api.url}/api/v1/auth/refresh") as response:
            assert response.status == 200, await response.text()
            session = await response.json()
        _, found = await self.api.get("/api/v1/auth/me", headers=bearer(session["accessToken"]))
        return found["user"]


class House:
    """An API, the issuer that it trusts, and who goes there."""

    def __init__(self, api: Served, issuer: HostileIssuer, pool: Pool, account_id: UUID) -> None:
        self.api, self.issuer, self.pool, self.account_id = api, issuer, pool, account_id
        self.browsers: list[Browser] = []

    def browser(self) -> Browser:
        self.browsers.append(Browser(self.api))
        return self.browsers[-1]

    async def audited(self) -> list[str]:
        rows = await self.pool.fetch("SELECT action FROM audit ORDER BY at, id")
        return [row["action"] for row in rows if row["action"].startswith(("user.", "session."))]


Opens = Callable[..., Awaitable[House]]


@pytest_asyncio.fixture
async def opens(serve: Serve, pool: Pool, account_id: UUID, keys: list[RSAKey]) -> AsyncIterator[Opens]:
    """Open a house; options: of the client."""
    async with HostileIssuer(keys[0]) as issuer:
        houses: list[House] = []

        async def open_one(**options: Any) -> House:
            client = OidcClient(issuer.url, CLIENT, SECRET, BACK, **options)
            houses.append(House(await serve(pool, keys=[KEY], secret=SIGNS, oidc=client), issuer, pool, account_id))
            return houses[-1]

        yield open_one
        for house in houses:
            for browser in house.browsers:
                await browser.client.close()


@pytest_asyncio.fixture
async def house(opens: Opens) -> House:
    return await opens()


@pytest_asyncio.fixture
async def ada(pool: Pool, account_id: UUID) -> UUID:
    return await add_user(pool, account_id, "AGENT", email="Ada@example.com")


async def test_a_user_with_that_verified_email_is_logged_in_and_tied(house: House, ada: UUID) -> None:
    browser = house.browser()
    assert await browser.log_in() == (302, "/desk")
    assert (await browser.who())["id"] == str(ada)
    assert await house.audited() == ["user.tied", "session.opened"]
    # From now on it is the subject that counts.
    house.issuer.person = {"sub": "subject-1", "email": "other@example.com", "email_verified": False}
    other = house.browser()
    assert await other.log_in() == (302, "/desk")
    assert (await other.who())["id"] == str(ada)
    assert [cookie.key for cookie in other.client.cookie_jar] == ["tl_refresh"]  # that of the login is gone
    assert house.issuer.asked.count("discovery") == house.issuer.asked.count("keys") == 1


async def test_logging_out_ends_what_began_there(house: House, ada: UUID) -> None:
    browser = house.browser()
    await browser.log_in()
    async with browser.client.post(f"{house.api.url}/api/v1/auth/refresh") as response:
        token = (await response.json())["accessToken"]
    logout = f"{house.api.url}/api/v1/auth/logout"
    async with browser.client.post(logout, headers=bearer(token)) as response:
        assert response.status == 204
    async with browser.client.post(f"{house.api.url}/api/v1/auth/refresh") as response:
        assert response.status == 401
    assert (await house.api.get("/api/v1/auth/me", headers=bearer(token)))[0] == 401


NOBODY = (
    {"email": "nobody@example.com", "email_verified": True},
    {"email": "ada@example.com", "email_verified": False},
    {"email": "ada@example.com"},
    {"email": "ada@example.com", "email_verified": "true"},
    {"email": ["ada@example.com"], "email_verified": True},
    {"email_verified": True},
)


async def test_who_is_nobody_here_is_refused(house: House, ada: UUID) -> None:
    for person in NOBODY:
        house.issuer.person = {"sub": "subject-1", **person}
        browser = house.browser()
        response = await browser.get(await browser.begin())
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (401, "oidc_refused"), person
        assert "nobody here has its verified email" in problem["detail"]
        assert list(browser.client.cookie_jar) == []
    assert await house.pool.fetchval("SELECT count(*) FROM user_identity") == 0
    assert await house.pool.fetchval("SELECT count(*) FROM app_user") == 1


async def test_who_is_nobody_becomes_what_the_settings_say(opens: Opens) -> None:
    house = await opens(default_role="VIEWER")
    house.issuer.person |= {"email": "Grace@Example.com", "name": "Grace"}
    browsers = [house.browser() for _ in range(3)]
    backs = [await browser.begin() for browser in browsers]
    found = await asyncio.gather(*(one.come_back(back) for one, back in zip(browsers, backs, strict=True)))
    assert found == [(302, "/desk")] * 3  # at once, and yet one user
    user = await browsers[0].who()
    assert (user["email"], user["name"], user["role"]) == ("grace@example.com", "Grace", "VIEWER")
    assert user["hasPassword"] is False
    assert await house.pool.fetchval("SELECT count(*) FROM app_user") == 1
    house.issuer.person = {"sub": "subject-2", "email": "x@example.com", "email_verified": False}
    assert await house.browser().log_in() == (401, "oidc_refused")


async def test_an_email_that_changed_hands_brings_no_user_with_it(house: House, ada: UUID) -> None:
    assert (await house.browser().log_in())[0] == 302
    house.issuer.person = {"sub": "somebody-else", "email": "ada@example.com", "email_verified": True}
    assert await house.browser().log_in() == (401, "oidc_refused")


async def test_a_disabled_user_stays_out(house: House, ada: UUID) -> None:
    assert (await house.browser().log_in())[0] == 302
    await house.pool.execute("UPDATE app_user SET disabled_at = now()")
    assert await house.browser().log_in() == (401, "oidc_refused")
    await house.pool.execute("DELETE FROM user_identity")
    assert await house.browser().log_in() == (401, "oidc_refused")


async def test_an_admin_ties_and_unties(house: House, ada: UUID) -> None:
    house.issuer.person = {"sub": "subject-9"}
    assert await house.browser().log_in() == (401, "oidc_refused")
    path = f"/api/v1/users/{ada}/identities"

    async def ask(method: str, path: str, **options: Any) -> tuple[int, Any]:
        response, body = await house.api.raw(path, method=method, headers=bearer(KEY), **options)
        return response.status, await response.json(content_type=None) if body else None

    tie = {"issuer": house.issuer.url, "subject": "subject-9"}
    status, made = await ask("POST", path, json=tie)
    assert (status, made["subject"], made["lastLoginAt"]) == (201, "subject-9", None)
    assert (await house.browser().log_in())[0] == 302
    status, listed = await ask("GET", path)
    assert [one["id"] for one in listed["items"]] == [made["id"]]
    assert listed["items"][0]["lastLoginAt"] is not None
    bob = await add_user(house.pool, house.account_id, "ADMIN")
    for user, body in ((bob, tie), (ada, {**tie, "subject": "subject-10"})):
        assert (await ask("POST", f"/api/v1/users/{user}/identities", json=body))[1]["code"] == "identity_taken"
    assert (await ask("DELETE", f"/api/v1/users/{bob}/identities/{made['id']}"))[1]["code"] == "identity_not_found"
    assert (await ask("DELETE", f"{path}/{made['id']}"))[0] == 204
    assert await house.browser().log_in() == (401, "oidc_refused")
    assert (await house.audited())[:3] == ["user.tied", "session.opened", "user.untied"]


async def test_what_the_token_lacks_is_asked_of_userinfo_and_only_of_the_same_person(house: House, ada: UUID) -> None:
    house.issuer.in_userinfo = {"sub": "subject-1", "email": "ada@example.com", "email_verified": True}
    assert (await house.browser().log_in())[0] == 302
    house.issuer.person = {"sub": "subject-2"}
    assert await house.browser().log_in() == (401, "oidc_refused")
    assert house.issuer.asked.count("userinfo") == 2


async def test_a_client_secret_goes_where_the_issuer_takes_it(house: House, ada: UUID) -> None:
    house.issuer.methods = ["client_secret_post"]
    assert (await house.browser().log_in())[0] == 302


async def test_a_login_is_bound_to_the_browser_that_began_it(house: House, ada: UUID) -> None:
    # An attacker gives somebody the end of his own login: who clicks on it would be logged in as the attacker.
    attackers = await house.browser().begin()
    assert await house.browser().come_back(attackers) == (401, "oidc_refused")
    victim = house.browser()
    mine = await victim.begin()
    assert await victim.come_back(attackers) == (401, "oidc_refused")
    assert house.issuer.asked.count("token") == 0  # the code is not even tried
    # That login is over, too: what was stolen of it is worth nothing.
    assert await victim.come_back(mine) == (401, "oidc_refused")
    assert await house.audited() == []


async def test_a_code_is_good_once(house: House, ada: UUID) -> None:
    browser = house.browser()
    back = await browser.begin()
    kept = [(cookie.key, cookie.value) for cookie in browser.client.cookie_jar]
    assert (await browser.come_back(back))[0] == 302
    assert await browser.come_back(back) == (401, "oidc_refused")  # by its history
    thief = house.browser()
    thief.client.cookie_jar.update_cookies(dict(kept), URL(house.api.url))
    assert await thief.come_back(back) == (401, "oidc_refused")  # with the cookie, too
    assert await house.audited() == ["user.tied", "session.opened"]


async def test_a_state_a_cookie_or_a_code_that_is_made_up(house: House, ada: UUID) -> None:
    for change in (
        "state=x",
        "state=",
        "state={state}",
        "code=x&state={state}",
        "error=access_denied&state={state}",
        "error=%3Cscript%3E&state={state}",
        "code={code}&state={state}&iss=https://evil.example.com",
    ):
        browser = house.browser()
        asked = query_of(await browser.begin())
        url = f"{house.api.url}{oidc.CALLBACK_PATH}?{change.format(**asked)}"
        status, code = await browser.come_back(url)
        assert (status, code) in ((401, "oidc_refused"), (400, "bad_parameter")), change
    for forged in ("", "x", "a.b.c", unsigned({"state": "s", "nonce": "n", "verifier": "v", "to": "/", "exp": 2**40})):
        browser = house.browser()
        asked = query_of(await browser.begin())
        browser.client.cookie_jar.clear()
        browser.client.cookie_jar.update_cookies({oidc.COOKIE: forged}, URL(house.api.url))
        assert (await browser.come_back(f"{house.api.url}{oidc.CALLBACK_PATH}?code=x&state=s"))[0] == 401
    assert await house.audited() == []


def without(name: str) -> Any:
    return lambda claims: {key: value for key, value in claims.items() if key != name}


def but(**changed: Any) -> Any:
    return lambda claims: {**claims, **changed}


TWISTS = (
    *(but(nonce="another"), without("nonce"), but(nonce=None), but(nonce=["x"])),
    *(but(aud="another-client"), but(aud=[CLIENT, "another-client"]), but(aud=[]), without("aud")),
    but(azp="another-client"),
    *(but(iss="https://evil.example.com"), without("iss")),
    *(but(exp=1_700_000_000), without("exp"), but(exp="soon")),
    *(but(iat=4_000_000_000), without("iat"), but(nbf=4_000_000_000)),
    *(without("sub"), but(sub=""), but(sub=7), but(sub="x" * 256), but(sub="a\x00b")),
    but(at_hash="AAAA"),
)


async def test_a_token_that_is_not_for_us_now_is_refused(house: House, ada: UUID) -> None:
    for n, twist in enumerate(TWISTS):
        house.issuer.twist = twist
        assert await house.browser().log_in() == (401, "oidc_refused"), f"the twist {n}"
    assert await house.audited() == []
    house.issuer.twist = but(aud=[CLIENT, "another-client"], azp=CLIENT)
    assert (await house.browser().log_in())[0] == 302


async def test_a_token_that_the_issuer_did_not_sign_is_refused(house: House, ada: UUID, keys: list[RSAKey]) -> None:
    issuer = house.issuer
    stranger = HostileIssuer(keys[1])
    strangers_with_its_id = HostileIssuer(RSAKey.import_key({**keys[1].as_dict(private=True), "kid": keys[0].kid}))
    for signed in (
        unsigned,
        signed_with_the_public_key(issuer),
        stranger.sign,
        strangers_with_its_id.sign,
        lambda claims: issuer.sign(claims)[:-4] + "AAAA",
        lambda claims: issuer.sign(claims).rpartition(".")[0] + ".",
        lambda claims: "x",
        lambda claims: "a.b.c.d.e",
        lambda claims: "é.é.é",
        lambda claims: None,
    ):
        issuer.signed = signed
        assert await house.browser().log_in() == (401, "oidc_refused")
    assert await house.audited() == []


async def test_new_keys_are_found_and_strangers_do_not_have_them_asked_for_each_time(
    opens: Opens, ada: UUID, keys: list[RSAKey]
) -> None:
    now = [1000.0]
    house = await opens(clock=lambda: now[0])
    assert (await house.browser().log_in())[0] == 302
    now[0] += 11
    house.issuer.rotate(keys[1])
    assert (await house.browser().log_in())[0] == 302
    assert house.issuer.asked.count("keys") == 2
    house.issuer.signed = HostileIssuer(keys[0]).sign  # the old one is no longer good
    for _ in range(3):
        assert await house.browser().log_in() == (401, "oidc_refused")
    assert house.issuer.asked.count("keys") == 2
    assert house.issuer.asked.count("discovery") == 1
    now[0] += 3601
    house.issuer.signed = house.issuer.sign
    assert (await house.browser().log_in())[0] == 302
    assert (house.issuer.asked.count("keys"), house.issuer.asked.count("discovery")) == (3, 2)


ELSEWHERE = (
    *("//evil.example.com", "https://evil.example.com", "evil.example.com", "javascript:alert(1)", ""),
    *("/%5Cevil.example.com", "%5C%5Cevil.example.com", "/%09/evil", "/%0d%0aSet-Cookie:a=b", "/a%20b", "/%C3%A9"),
)


async def test_nobody_is_sent_to_another_page(house: House) -> None:
    browser = house.browser()
    for path in ELSEWHERE:
        response = await browser.get(f"{house.api.url}{oidc.LOGIN_PATH}?returnTo={path}")
        assert (response.status, (await response.json(content_type=None))["code"]) == (400, "bad_parameter"), path


async def test_where_one_wanted_to_go_one_is_sent(house: House, ada: UUID) -> None:
    browser = house.browser()
    assert await browser.come_back(await browser.begin("/desk?tab=calls%26page=2")) == (302, "/desk?tab=calls&page=2")
    assert local_path("/a//b") == "/a//b"


async def test_an_issuer_that_is_away_or_another_is_said_so(house: House) -> None:
    browser = house.browser()
    login = f"{house.api.url}{oidc.LOGIN_PATH}"
    house.issuer.broken = True
    response = await browser.get(login)
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert (await response.json(content_type=None))["code"] == "oidc_unavailable"
    house.issuer.broken = False
    for wrong in ({"issuer": "https://evil.example.com"}, {"token_endpoint": None}, {"issuer": f"{house.issuer.url}/"}):
        house.issuer.metadata = wrong
        assert (await browser.get(login)).status == 503
    house.issuer.metadata = {"x": "y" * oidc_client._LONGEST}
    assert (await browser.get(login)).status == 503
    house.issuer.metadata = {}
    assert (await browser.get(login)).status == 302


@pytest.fixture
def three_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """That an address has, instead of 50."""
    monkeypatch.setattr(sessions, "OF_ADDRESS", sessions.OF_ADDRESS._replace(most=3))


@pytest.mark.usefixtures("three_tries")
async def test_who_tries_too_often_is_locked_out(house: House) -> None:
    house.issuer.twist = lambda claims: claims | {"nonce": "another"}
    for _ in range(3):
        assert await house.browser().log_in() == (401, "oidc_refused")
    assert (await house.browser().log_in())[1] == "login_locked"


@pytest.mark.usefixtures("three_tries")
async def test_what_any_page_can_have_a_browser_do_locks_nobody_out(house: House, ada: UUID) -> None:
    """An image of another page comes without our cookie; a link with it, and with a state that is guessed."""
    callback = f"{house.api.url}{oidc.CALLBACK_PATH}"
    for _ in range(4):
        assert await house.browser().come_back(f"{callback}?code=x&state=y") == (401, "oidc_refused")
        browser = house.browser()
        await browser.begin()
        assert await browser.come_back(f"{callback}?code=x&state=y") == (401, "oidc_refused")
    assert await house.pool.fetchval("SELECT count(*) FROM login_try") == 0
    assert (await house.browser().log_in())[0] == 302


@pytest.mark.usefixtures("three_tries")
async def test_what_the_issuer_lacks_locks_nobody_out(house: House) -> None:
    house.issuer.metadata = {"token_endpoint": f"{house.issuer.url}/nowhere"}
    for _ in range(4):
        browser = house.browser()
        back = (await browser.begin()).replace("?code=", "?error=access_denied&code=")
        assert await browser.come_back(back) == (401, "oidc_refused")
    for _ in range(4):
        assert await house.browser().log_in() == (503, "oidc_unavailable")
    assert await house.pool.fetchval("SELECT coalesce(sum(made), 0) FROM login_try") == 0


async def test_without_an_issuer_there_is_no_such_login(serve: Serve, pool: Pool, account_id: UUID) -> None:
    api = await serve(pool, keys=[KEY])
    for path in (oidc.LOGIN_PATH, oidc.CALLBACK_PATH):
        status, problem = await api.get(path)
        assert (status, problem["code"]) == (404, "oidc_not_configured")
    assert await api.get("/api/v1/auth/methods") == (200, {"password": True, "oidc": None})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what that is made of
async def test_it_works_with_an_issuer_that_others_have_written(serve: Serve, pool: Pool, account_id: UUID) -> None:
    """oidc-provider-mock: discovery, login form, PKCE, ID tokens and userinfo of somebody else's making."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it is made of
        import oidc_provider_mock
    claims: Any = {"email": "ada@example.com", "email_verified": True, "name": "Ada"}
    user = oidc_provider_mock.User(sub="s-1", claims=claims)
    with oidc_provider_mock.run_server_in_thread(require_nonce=True, user_claims=[user]) as server:
        url = f"http://localhost:{server.server_port}"
        client = OidcClient(url, CLIENT, secrets.token_hex(), BACK, label="Office", default_role="AGENT")
        api = await serve(pool, keys=[KEY], secret=SIGNS, oidc=client)
        _, found = await api.get("/api/v1/auth/methods")
        assert found["oidc"] == {"name": "Office", "url": oidc.LOGIN_PATH}
        browser = Browser(api)
        async with browser.client:
            form = (await browser.get(f"{api.url}{oidc.LOGIN_PATH}")).headers["Location"]
            async with browser.client.post(URL(form, encoded=True), data={"sub": "s-1"}, allow_redirects=False) as sent:
                assert sent.status == 302, await sent.text()
                back = sent.headers["Location"].replace(BACK, f"{api.url}{oidc.CALLBACK_PATH}")
            assert await browser.come_back(back) == (302, "/")
            user_found = await browser.who()
        assert (user_found["email"], user_found["name"], user_found["role"]) == ("ada@example.com", "Ada", "AGENT")
        assert api.state.account == ACCOUNT
