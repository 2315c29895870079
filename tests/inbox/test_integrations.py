"""Integrations: their secrets go in and never come out, and a test says what is known and asks nobody inside."""

import ipaddress
import ssl
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from calls import A, ended, ringing
from desk import Desk, ask
from served import Serve, Served
from structlog.testing import capture_logs

from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.destination import Destinations
from trunkline.inbox.secrets import KEY_BYTES, CannotOpen, Vault
from trunkline.inbox.telephony import upsert_conversations
from trunkline.store.integrations import Report, report_links
from trunkline.store.writer import CallWriter

pytestmark = pytest.mark.asyncio

PATH = "/api/v1/integrations"
KEY, OTHER = b"k" * KEY_BYTES, b"o" * KEY_BYTES
CANARY = "canary-of-a-secret"
BOT = {"channel": "TELEGRAM", "externalId": "acme_bot", "name": "Acme", "settings": {"greeting": "hi"}}
TOKEN = "123456:ABC-DEF_ghi"


async def add(api: Served, **more: Any) -> dict[str, Any]:
    status, made = await ask(api, "POST", PATH, {**BOT, **more})
    assert status == 201, made
    return made


async def pbx(desk: Desk, *, live: bool) -> str:
    """The integration of a PBX that the writer has made, with a call; its id."""
    writer = CallWriter(desk.pool, "main", conversations=upsert_conversations)
    await writer.write([ringing(A)] if live else [ended(A)])
    return str(await desk.pool.fetchval("SELECT id FROM integration"))


async def test_an_integration_lives_and_its_secrets_are_shown_to_nobody(serve: Serve, desk: Desk) -> None:
    api = await serve(vault=Vault([KEY]))
    with capture_logs() as logs:
        made = await add(api, secrets={"botToken": CANARY, "hook": "x"})
        assert made == {
            "id": made["id"], "channel": "TELEGRAM", "integrationId": "telegram", "externalId": "acme_bot",
            "name": "Acme", "status": "ACTIVE", "settings": {"greeting": "hi"}, "hasSecret": True,
            "secrets": ["botToken", "hook"], "createdAt": made["createdAt"],
        }  # fmt: skip
        path = f"{PATH}/{made['id']}"
        said = [
            await ask(api, "GET", path),
            await ask(api, "GET", PATH),
            await ask(api, "PATCH", path, {"name": "Acme bot", "secrets": {"hook": None}, "status": "DISABLED"}),
            await ask(api, "POST", PATH, {**BOT, "secrets": {"botToken": CANARY}}),
            await ask(api, "PATCH", path, {"secrets": {"botToken": CANARY, "1": "x"}}),
            await ask(api, "POST", f"{path}/test"),
        ]
    assert [status for status, _ in said] == [200, 200, 200, 409, 422, 200]
    changed = said[2][1]
    assert (changed["name"], changed["status"], changed["secrets"]) == ("Acme bot", "DISABLED", ["botToken"])
    assert said[3][1]["code"] == "integration_taken"
    audit = await desk.pool.fetch("SELECT action, subject, detail FROM audit ORDER BY at")
    assert [row["action"] for row in audit] == ["integration.created", "integration.changed"]
    assert CANARY not in f"{said} {logs} {audit}"
    stored = await desk.pool.fetch("SELECT sealed FROM integration_secret")
    assert len(stored) == 1
    assert CANARY.encode() not in stored[0]["sealed"]
    place = f"{desk.account_id}/{made['id']}/botToken"
    assert Vault([OTHER, KEY]).open(stored[0]["sealed"], place) == CANARY
    assert await ask(api, "DELETE", path) == (204, None)
    assert await desk.pool.fetchval("SELECT count(*) FROM integration_secret") == 0
    assert (await ask(api, "GET", path))[1]["code"] == "integration_not_found"


async def test_what_is_sealed_opens_in_its_place_and_by_its_key_only() -> None:
    sealed = Vault([KEY]).seal("secret", "a/b/c")
    assert Vault([KEY]).seal("secret", "a/b/c") != sealed, "two that are the same do not look so"
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for vault, bytes_, place in (
        (Vault([OTHER]), sealed, "a/b/c"), (Vault([]), sealed, "a/b/c"), (Vault([KEY]), sealed, "a/b/d"),
        (Vault([KEY]), changed, "a/b/c"), (Vault([KEY]), b"", "a/b/c"), (Vault([KEY]), sealed[:10], "a/b/c"),
        (Vault([KEY]), b"\x02" + sealed[1:], "a/b/c"),
    ):  # fmt: skip
        with pytest.raises(CannotOpen):
            vault.open(bytes_, place)


async def test_without_a_key_there_are_no_secrets_and_nothing_is_stored(api: Served, desk: Desk) -> None:
    status, problem = await ask(api, "POST", PATH, {**BOT, "secrets": {"botToken": CANARY}})
    assert (status, problem["code"]) == (503, "secrets_not_configured")
    assert await desk.pool.fetchval("SELECT count(*) FROM integration") == 0
    assert (await add(api))["hasSecret"] is False


@pytest.mark.parametrize(
    "body",
    [
        {"channel": "TELEPHONY"}, {"channel": "FAX"}, {"externalId": ""}, {"externalId": "a\nb"}, {"name": "a\nb"},
        {"settings": {"x": "y" * 9000}}, {"settings": []},
        {"secrets": {"a b": "x"}}, {"secrets": {"a": ""}},
        {"secrets": {"a": None}}, {"secrets": {f"a{n}": "x" for n in range(11)}}, {"id": "x"},
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused(serve: Serve, desk: Desk, body: dict[str, Any]) -> None:
    api = await serve(vault=Vault([KEY]))
    status, problem = await ask(api, "POST", PATH, {**BOT, **body})
    assert (status, problem["code"]) == (422, "bad_body")
    assert await desk.pool.fetchval("SELECT count(*) FROM integration") == 0


async def test_a_pbx_can_be_renamed_and_goes_only_once_its_calls_are_over(api: Served, desk: Desk) -> None:
    id_ = await pbx(desk, live=True)
    path = f"{PATH}/{id_}"
    status, renamed = await ask(api, "PATCH", path, {"name": "Head office"})
    assert (status, renamed["name"], renamed["externalId"], renamed["channel"]) == (
        200, "Head office", "pbx1", "TELEPHONY",
    )  # fmt: skip
    for body in ({"status": "DISABLED"}, {"externalId": "x"}, {"settings": {}}, {"secrets": {"a": "b"}}):
        assert (await ask(api, "PATCH", path, body))[1]["code"] == "integration_of_core"
    assert (await ask(api, "DELETE", path))[1]["code"] == "integration_in_use"
    writer = CallWriter(desk.pool, "main")
    await writer.write([ended(A)])
    assert (await ask(api, "GET", path))[1]["name"] == "Head office", "the writer leaves the name"
    assert (await ask(api, "DELETE", path))[0] == 204
    assert await desk.pool.fetchval("SELECT count(*) FROM call WHERE integration_id IS NULL") == 1


async def test_a_pbx_that_a_daemon_follows_stays_with_its_queues(api: Served, desk: Desk) -> None:
    path = f"{PATH}/{await pbx(desk, live=False)}"
    await desk.pool.execute(
        "INSERT INTO queue (account_id, integration_id, name) SELECT account_id, id, 'q' FROM integration"
    )
    await report_links(desk.pool, "main", [Report("pbx1", False, "login refused", None)])  # it tries, and may succeed
    status, problem = await ask(api, "DELETE", path)
    assert (status, problem["code"]) == (409, "integration_in_use")
    assert "stop the daemon" in problem["detail"]
    assert await desk.pool.fetchval("SELECT count(*) FROM queue") == 1
    await desk.pool.execute("UPDATE integration_link SET reported_at = now() - interval '61 s'")
    assert (await ask(api, "DELETE", path))[0] == 204


async def test_of_a_pbx_is_told_what_the_core_last_said(api: Served, desk: Desk) -> None:
    id_ = UUID(await pbx(desk, live=False))

    async def tested() -> tuple[bool, str]:
        status, found = await ask(api, "POST", f"{PATH}/{id_}/test")
        assert (status, len(found["checks"])) == (200, 1)
        assert found["ok"] == found["checks"][0]["ok"]
        return found["ok"], found["checks"][0]["detail"]

    ok, detail = await tested()
    assert not ok
    assert "no daemon" in detail
    heard = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await report_links(desk.pool, "main", [Report("pbx1", True, "", heard), Report("new", False, "x", None)])
    assert await tested() == (True, "connected, last heard at 2026-01-02T03:04:05Z")
    await report_links(desk.pool, "main", [Report("pbx1", False, "login refused: see manager.conf", None)])
    assert await tested() == (False, "login refused: see manager.conf; last heard at 2026-01-02T03:04:05Z")
    await desk.pool.execute("UPDATE integration_link SET reported_at = now() - interval '61 s', up = true")
    ok, detail = await tested()
    assert not ok
    assert detail.startswith("no daemon has said anything since")
    names = [item["externalId"] for item in (await ask(api, "GET", PATH))[1]["items"]]
    assert names == ["pbx1", "new"], "a PBX that has had no call is there, too"


async def test_a_bots_token_is_held_up_to_telegram(serve: Serve) -> None:
    asked: list[str] = []

    async def get_me(request: web.Request) -> web.Response:  # as core.telegram.org/bots/api has it
        asked.append(request.path)
        if request.match_info["token"] != TOKEN:
            return web.json_response({"ok": False, "error_code": 401, "description": "Unauthorized"}, status=401)
        return web.json_response({"ok": True, "result": {"id": 123456, "is_bot": True, "first_name": "Acme"}})

    app = web.Application()
    app.router.add_post("/bot{token}/getMe", get_me)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    inside = WebhookClient(Destinations(allow_http=True, networks=(ipaddress.ip_network("127.0.0.0/8"),)))
    outside = WebhookClient(Destinations(), tls=ssl.create_default_context())
    url = f"http://127.0.0.1:{port}"
    try:
        api = await serve(vault=Vault([KEY]), webhooks=inside, telegram=url)
        made = await add(api, secrets={"botToken": TOKEN})
        path = f"{PATH}/{made['id']}"
        assert (await ask(api, "POST", f"{path}/test"))[1] == {
            "ok": True,
            "checks": [
                {"name": "secrets", "ok": True, "detail": "it has botToken"},
                {"name": "telegram", "ok": True, "detail": "Telegram knows the bot"},
            ],
        }
        for token, says in (("1:wrong", "does not know"), ("../../x:y", "is none"), ("123:a/../../../x", "is none")):
            await ask(api, "PATCH", path, {"secrets": {"botToken": token}})
            found = (await ask(api, "POST", f"{path}/test"))[1]
            assert not found["ok"]
            assert says in found["checks"][1]["detail"]
            assert token not in str(found)
        assert asked == [f"/bot{TOKEN}/getMe", "/bot1:wrong/getMe"]
        await ask(api, "PATCH", path, {"secrets": {"botToken": TOKEN}})
        guarded = await serve(vault=Vault([KEY]), webhooks=outside, telegram=url)
        found = (await ask(guarded, "POST", f"{path}/test"))[1]
        assert not found["ok"]
        assert TOKEN not in str(found)
        assert len(asked) == 2, "nothing inside is asked"
        changed = await serve(vault=Vault([OTHER]), webhooks=inside, telegram=url)
        found = (await ask(changed, "POST", f"{path}/test"))[1]
        assert (found["ok"], found["checks"][0]["name"]) == (False, "secrets")
        assert "set it anew" in found["checks"][0]["detail"]
    finally:
        await runner.cleanup()


async def test_anothers_integration_is_as_one_that_is_not(serve: Serve, api: Served, desk: Desk) -> None:
    made = await add(api)
    await desk.pool.execute("INSERT INTO account (name) VALUES ('other')")
    other = await serve(account="other")
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("POST", "/test", None),
    ):
        answers = [
            await ask(other, method, f"{PATH}/{one}{path}", body, headers={"X-Request-ID": "same"})
            for one in (made["id"], uuid4(), "1")
        ]
        assert answers == [answers[0]] * 3
        assert (answers[0][0], answers[0][1]["code"]) == (404, "integration_not_found")
    assert (await ask(other, "POST", PATH, BOT))[0] == 201, "what another account has is not taken"
    assert (await ask(api, "GET", f"{PATH}/{made['id']}"))[1] == made


async def test_settings_are_any_json(api: Served) -> None:
    settings = {"n": 2**70, "f": 1.5, "deep": [[[{}]]], "text": 'ünï🙂 "\\', "none": None}
    made = await add(api, settings=settings)
    assert made["settings"] == settings
    assert (await ask(api, "GET", f"{PATH}/{made['id']}"))[1] == made
    status, changed = await ask(api, "PATCH", f"{PATH}/{made['id']}", {"settings": {"n": -(2**64)}})
    assert (status, changed["settings"]) == (200, {"n": -(2**64)})


async def test_who_changes_what_somebody_has_changed_is_told(api: Served) -> None:
    made = await add(api)
    path = f"{PATH}/{made['id']}"
    response, _ = await api.raw(path)
    etag = {"If-Match": response.headers["ETag"]}
    assert (await ask(api, "PATCH", path, {"name": "a"}, headers=etag))[0] == 200
    for method, body in (("PATCH", {"name": "b"}), ("DELETE", None)):
        assert (await ask(api, method, path, body, headers=etag))[1]["code"] == "precondition_failed"
    assert (await ask(api, "GET", path))[1]["name"] == "a"
