"""Every example is true: those of the OpenAPI document, and each curl of README and docs, run as it is written."""

import dataclasses
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from calls import answered, ended, ringing
from hooks import HERE
from people import SECRET, add_account, add_user, bearer, log_in
from served import ACCOUNT, Serve, Served
from test_permissions import filled
from written import Example, examples, read_curl, requests, unlike

from trunkline.api.change import IDEMPOTENCY_KEY, Repeats
from trunkline.api.contract import Route
from trunkline.api.examples import ANSWERED, SENT
from trunkline.api.identity_forms import ChangePassword, Login
from trunkline.api.problem import WITH_BODY
from trunkline.api.routes import ROUTES
from trunkline.calls.record import RecordingRef
from trunkline.crm.matching import select_leads_by_number
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.message import body_of, headers_of, new_secret
from trunkline.embedded.s3 import S3Server
from trunkline.identity.passwords import hash_password
from trunkline.inbox.telephony import upsert_conversations
from trunkline.objects.s3 import ObjectStore
from trunkline.store.events import select_events
from trunkline.store.leads import Lead
from trunkline.store.pool import Pool
from trunkline.store.recordings import Stored, set_stored
from trunkline.store.writer import CallWriter

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KEY = "a-key-of-the-settings"
PASSWORD = "correct horse battery staple"
CALLER = "12025550123"
FILES = {
    "leads.csv": b"name,phone,email\nAda,020 7000 1001,ada@example.com\n",
    "photo.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(100),
    "offer.pdf": b"%PDF-1.7\n" + bytes(100),
}


class Account:
    """An account in which what the examples ask for is there."""

    def __init__(self, api: Served, pool: Pool, of: dict[str, UUID], account_id: UUID, token: str) -> None:
        self.api = api
        self.pool = pool
        self.of = of
        self.account_id = account_id
        self.token = token  # Ada's
        self.variables = {
            "TL": api.url,
            "KEY": KEY,
            "CALL": str(of["calls"]),
            "RECORDING": str(of["recordings"]),
            "WEBHOOK": str(of["webhooks"]),
            "DELIVERY": str(of["deliveries"]),
        }


@pytest.fixture(scope="module")
def hashed() -> str:
    return hash_password(PASSWORD)


@pytest_asyncio.fixture
async def account(serve: Serve, pool: Pool, emptied_database: str, hashed: str, s3: S3Server) -> AsyncIterator[Account]:
    belongings = await add_account(pool, ACCOUNT, "own")
    await pool.execute(
        "INSERT INTO lead (account_id, name, phone, phone_e164) VALUES ($1, 'Ada Lovelace', $2, '+' || $2)",
        belongings.account_id,
        CALLER,
    )
    told: dict[str, Any] = {
        "pbx": "own",
        "from_": CALLER,
        "from_e164": f"+{CALLER}",
        "phone_number": CALLER,
        "rang": ["1001"],
    }
    at = ended().record.started_at
    merged = ANSWERED[Lead]["id"]  # the one that the examples speak of
    await pool.execute("INSERT INTO lead (id, account_id, name) VALUES ($1, $2, 'x')", merged, belongings.account_id)
    over = {**told, "recordings": [RecordingRef(path="/spool/a.wav", channel_id="a", started_at=at, ended_at=at)]}
    writer = CallWriter(pool, ACCOUNT, leads=select_leads_by_number, conversations=upsert_conversations)
    for name in ("first", "second"):
        for update in (ringing(name, **told), answered(name, **told), ended(name, **over)):
            await writer.write([update])
    call_id, recording_id = await pool.fetchrow(
        "SELECT call_id, id FROM call_recording WHERE path = '/spool/a.wav' ORDER BY created_at LIMIT 1"
    )
    stored = Stored(name="a.wav", bucket="b", key="k", mime_type="audio/wav", size=9, sha256="0" * 64, seconds=2.0)
    assert await set_stored(pool, [(recording_id, stored)]) == [True]
    await pool.execute("UPDATE call_recording SET state = 'failed' WHERE path = '/spool/own.wav'")
    ada = await add_user(
        pool, belongings.account_id, "SUPERVISOR", email="ada@example.com", extension="1001", password_hash=hashed
    )
    names = {"crm.example.com": ["127.0.0.1"]}

    async def resolve(host: str, port: int) -> list[str]:
        return names[host]

    client = WebhookClient(dataclasses.replace(HERE, resolve=resolve))
    store = ObjectStore(s3.endpoint, "recordings", s3.access_key, s3.secret_key)
    api = await serve(pool, keys=[KEY], secret=SECRET, webhooks=client, region="GB", objects=store)
    api.client._cookie_jar = aiohttp.CookieJar(unsafe=True)  # one that keeps those of 127.0.0.1, as curl does
    of = {**belongings.of, "calls": call_id, "recordings": recording_id}
    yield Account(api, pool, of, belongings.account_id, await log_in(pool, belongings.account_id, ada))
    store.close()


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


def test_every_body_has_an_example_and_every_example_is_of_its_type() -> None:
    taken = {route.body for route in ROUTES if route.body is not None}
    assert {type_.__name__ for type_ in taken - set(SENT)} == set(), "say in api/examples.py what may be sent"
    given = {answer.type for route in ROUTES for answer in route.answers}
    assert set(SENT) <= taken
    assert set(ANSWERED) <= given
    for type_, example in (SENT | ANSWERED).items():
        msgspec.json.decode(msgspec.json.encode(example), type=type_)


EXEMPLARY = [
    route
    for route in ROUTES
    if route.tag is not None and (route.body in SENT or any(answer.type in ANSWERED for answer in route.answers))
]
READING = [route for route in EXEMPLARY if route.method == "GET"]
CHANGING = [[route] for route in EXEMPLARY if route.method != "GET"]  # each in an account of its own


@pytest.mark.asyncio
@pytest.mark.parametrize("routes", [READING, *CHANGING], ids=lambda routes: f"{routes[0].method} {routes[0].path}")
async def test_an_example_of_the_document_is_answered_as_it_says(account: Account, routes: list[Route]) -> None:
    document = (await account.api.get("/api/openapi.json"))[1]
    for route in routes:
        operation = document["paths"][route.path][route.method.lower()]
        headers = bearer(KEY) if route.body is not ChangePassword else bearer(account.token)
        options: dict[str, Any] = {}
        if "requestBody" in operation:
            options["json"] = operation["requestBody"]["content"]["application/json"]["example"]
        if route.path.endswith("/refresh"):
            await account.api.raw("/api/v1/auth/login", method="POST", json=SENT[Login])
        ordered = route.repeats is Repeats.HANDLED  # of a PBX, and there is none: what is asked has to be understood
        headers = {**headers, IDEMPOTENCY_KEY: uuid4().hex} if ordered else headers
        path = filled(route.path, account)
        response, body = await account.api.raw(path, method=route.method, headers=headers, **options)
        if ordered and response.content_type == "application/problem+json":
            assert msgspec.json.decode(body)["code"] in set(route.every_problem) - set(WITH_BODY), (path, body)
            continue
        assert response.status in {answer.status for answer in route.answers}, (path, body)
        said = operation["responses"][str(response.status)].get("content", {}).get(response.content_type, {})
        if "example" in said:
            assert unlike(said["example"], msgspec.json.decode(body)) == [], path


@pytest.mark.asyncio
async def test_every_curl_is_answered_as_it_says(account: Account) -> None:
    cookies: aiohttp.CookieJar = account.api.client.cookie_jar  # type: ignore[assignment]
    ran = 0
    for example in (one for text in TEXTS for one in examples(text)):
        await run(account, example)
        ran += 1
    assert ran > 10
    assert any(cookie.key == "tl_refresh" for cookie in cookies)


async def run(account: Account, example: Example) -> None:
    asked = read_curl(example.line, account.variables, FILES)
    url = re.sub(r"^http://127\.0\.0\.1:8080", account.api.url, asked.url)
    assert url.startswith(account.api.url), example.line
    headers = {**(bearer(KEY) if "README" in example.where else {}), **asked.headers}
    sent: Any = asked.body
    if isinstance(asked.body, list):
        sent = aiohttp.FormData()
        for name, file in asked.body:
            sent.add_field(name, FILES[file], filename=file)
    async with account.api.client.request(asked.method, url, headers=headers, data=sent) as response:
        body = await response.read()
        assert response.status < 300, f"{example.where}: {example.line}: {response.status} {body[:500]!r}"
    if example.answer is not None:
        assert unlike(example.answer, msgspec.json.decode(body)) == [], f"{example.where}: {example.line}"


@pytest.mark.asyncio
async def test_every_route_that_a_text_names_is_there(account: Account) -> None:
    named = [(text.name, method, path) for text in TEXTS for method, path in requests(text)]
    assert len(named) > 20
    for where, method, path in named:
        if "…" in path or not path.startswith("/api/"):  # Asterisk's have other beginnings
            continue
        bare = re.sub(r"\{\w+\}", "{}", path.partition("?")[0])
        routes = [one for one in ROUTES if one.method == method and re.sub(r"\{\w+\}", "{}", one.path) == bare]
        assert routes, f"{where} names {method} {path}, which is not served"
        query = path.partition("?")[2]
        if method == "GET" and query and "{" not in path:
            answered_, body = await account.api.raw(path.replace("after=42", "after=3"), headers=bearer(KEY))
            refused = "" if answered_.status == 200 else msgspec.json.decode(body)["code"]
            assert refused in ("", "oidc_not_configured"), (where, path, body)


@pytest.mark.asyncio
async def test_what_a_receiver_is_shown_is_what_it_gets(account: Account) -> None:
    text = (ROOT / "docs" / "webhooks.md").read_text()
    shown = re.search(r"```\nPOST /hook HTTP/1\.1\n(?P<head>.*?)\n\n(?P<body>\{.*?\})\n```", text, re.DOTALL)
    assert shown is not None
    event = next(
        one for one in await select_events(account.pool, account.account_id, 0, 10) if one.type == "call.answered"
    )
    secret = new_secret()
    body = body_of("standard", event)
    headers = headers_of(f"evt_{event.call_id}", body, [secret], event.created_at.now(event.created_at.tzinfo))
    assert [line.partition(":")[0] for line in shown["head"].splitlines()] == list(headers)
    said = msgspec.json.decode(shown["body"].replace("{…}", '"…"'))
    assert unlike(said, msgspec.json.decode(body)) == []
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program is not None
    names: dict[str, Any] = {"request": Request(body, headers)}
    exec(program[1].replace("whsec_…", secret), names)  # noqa: S102  # the text is ours
    assert names["event"]["type"] == "call.answered"


class Request:
    """A request as a receiver's framework hands it over."""

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        self.body, self.headers = body, headers
