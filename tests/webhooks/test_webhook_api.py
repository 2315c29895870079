"""The routes of webhooks: what is asked, what is shown, and what is never shown."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hooks import House
from people import add_key, bearer
from receiver import Receiver, answer, hang
from served import Serve, Served

from trunkline.api.webhooks import TEST_S
from trunkline.crm.webhooks.destination import Destinations
from trunkline.store.webhooks import MOST

pytestmark = pytest.mark.asyncio

PATH = "/api/v1/webhooks"


async def ask(api: Served, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
    response, read = await api.raw(path, method=method, **({} if body is None else {"json": body}), **options)
    return response.status, json.loads(read) if read else None


async def add(api: Served, url: str, **more: Any) -> tuple[dict[str, Any], str]:
    status, made = await ask(api, "POST", PATH, {"url": url, **more})
    assert status == 201, made
    return made["webhook"], made["secret"]


async def test_a_webhook_lives(api: Served, house: House, receiver: Receiver) -> None:
    made, secret = await add(api, receiver.url, description="CRM", eventTypes=["call.ended"])
    assert secret.startswith("whsec_")
    assert made == {
        "id": made["id"], "url": receiver.url, "description": "CRM", "profile": "STANDARD",
        "eventTypes": ["call.ended"], "enabled": True, "disabledReason": None, "lastSeq": 0, "failures": 0,
        "failingSince": None, "openUntil": None, "secretRotatesUntil": None, "createdAt": made["createdAt"],
    }  # fmt: skip
    path = f"{PATH}/{made['id']}"
    assert await ask(api, "GET", path) == (200, made)
    assert await ask(api, "GET", PATH) == (200, {"items": [made]})
    async with house.running():
        await house.call()
        (got,) = await receiver.got(1)
        assert got.verified(secret)["type"] == "call.ended"
        status, changed = await ask(api, "PATCH", path, {"eventTypes": [], "description": "all of it"})
        assert (status, changed["eventTypes"], changed["description"]) == (200, [], "all of it")
        assert changed["url"] == receiver.url
        await house.call()
        await receiver.got(4)
    assert await ask(api, "DELETE", path) == (204, None)
    for method in ("GET", "DELETE"):
        status, problem = await ask(api, method, path)
        assert (status, problem["code"]) == (404, "webhook_not_found")
    assert await house.deliveries() == []


async def test_a_secret_is_shown_once_and_never_again(api: Served, house: House, receiver: Receiver) -> None:
    made, first = await add(api, receiver.url)
    path = f"{PATH}/{made['id']}"
    status, rotated = await ask(api, "POST", f"{path}/secret")
    second = rotated["secret"]
    assert status == 200
    assert second != first
    assert rotated["webhook"]["secretRotatesUntil"] is not None
    async with house.running():
        await house.call()
        for one in await receiver.got(3):
            assert one.verified(first) == one.verified(second)
    said = [
        await ask(api, *asked)
        for asked in (
            ("GET", PATH),
            ("GET", path),
            ("PATCH", path, {"description": "x"}),
            ("POST", f"{path}/test"),
            ("GET", f"{path}/deliveries"),
        )
    ]
    assert [status for status, _ in said] == [200] * 5
    assert "whsec" not in str(said)
    assert first[6:20] not in str(said)


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({}, 422, "bad_body", "url"),
        ({"url": ""}, 422, "bad_body", "url"),
        ({"url": 5}, 422, "bad_body", "url"),
        ({"url": "https://x.example.com", "color": "red"}, 422, "bad_body", "color"),
        ({"url": "https://x.example.com", "eventTypes": ["call.exploded"]}, 422, "bad_body", "call.exploded"),
        ({"url": "https://x.example.com", "profile": "SALESFORCE"}, 422, "bad_body", "SALESFORCE"),
        ({"url": "https://x.example.com", "description": "a\u0000b"}, 422, "bad_body", "U+0000"),
        ({"url": "https://x.example.com", "description": "a\nb"}, 422, "bad_body", "description"),
        ({"url": "http://127.0.0.1/x"}, 400, "webhook_url_refused", "http is not encrypted"),
        ({"url": "https://127.0.0.1/x"}, 400, "webhook_url_refused", "does not lead to a public address"),
        ({"url": "https://localhost/x"}, 400, "webhook_url_refused", "does not lead to a public address"),
        ({"url": "https://169.254.169.254/latest"}, 400, "webhook_url_refused", "does not lead to a public address"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, 400, "webhook_url_refused", "does not lead to a public address"),
        ({"url": "https://2130706433/"}, 400, "webhook_url_refused", "neither a name nor an address"),
        ({"url": "https://a:b@example.com/"}, 400, "webhook_url_refused", "user or a password"),
        ({"url": "https://no-such-name.invalid/"}, 400, "webhook_url_refused", "leads nowhere"),
        ({"url": "https://example.com:22/"}, 400, "webhook_url_refused", "port 22"),
    ],
)
async def test_what_is_refused_says_why(
    serve: Serve, house: House, body: Any, status: int, code: str, says: str
) -> None:
    api = await serve(destinations=Destinations())
    found, problem = await ask(api, "POST", PATH, body)
    assert (found, problem["code"]) == (status, code)
    assert says in problem["detail"]
    assert await house.pool.fetchval("SELECT count(*) FROM webhook") == 0


async def test_a_url_is_checked_when_it_is_changed_too(api: Served, receiver: Receiver) -> None:
    made, _ = await add(api, receiver.url)
    status, problem = await ask(api, "PATCH", f"{PATH}/{made['id']}", {"url": "http://10.0.0.1/", "enabled": False})
    assert (status, problem["code"]) == (400, "webhook_url_refused")
    assert await ask(api, "GET", f"{PATH}/{made['id']}") == (200, made)


async def test_an_account_has_so_many_and_no_more(api: Served, house: House, receiver: Receiver) -> None:
    for _ in range(MOST):
        await house.webhook(receiver.url)
    status, problem = await ask(api, "POST", PATH, {"url": receiver.url})
    assert (status, problem["code"]) == (409, "too_many_webhooks")


async def test_anothers_webhook_is_as_one_that_is_not(
    api: Served, serve: Serve, house: House, receiver: Receiver
) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    async with house.running():
        await house.call()
        await house.until_states(webhook_id, *["delivered"] * 3)
    delivery_id = (await house.deliveries(webhook_id))[0]["id"]
    await house.pool.execute("INSERT INTO account (name) VALUES ('other')")
    other = await serve(account="other")
    own = json.loads((await other.raw(PATH, method="POST", json={"url": receiver.url}))[1])["webhook"]
    before = await house.row(webhook_id), await house.deliveries(webhook_id)
    asked = [
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"), ("GET", "/deliveries"),
        ("POST", f"/deliveries/{delivery_id}/replay"),
    ]  # fmt: skip
    for method, path in asked:
        answers = []
        for id_ in (webhook_id, uuid4(), "1", webhook_id.hex):
            body = {"enabled": False} if method == "PATCH" else None
            answers.append(await ask(other, method, f"{PATH}/{id_}{path}", body, headers={"X-Request-ID": "same"}))
        assert answers == [answers[0]] * 4
        assert (answers[0][0], answers[0][1]["code"]) == (404, "webhook_not_found")
    status, problem = await ask(other, "POST", f"{PATH}/{own['id']}/deliveries/{delivery_id}/replay")
    assert (status, problem["code"]) == (404, "delivery_not_found")
    assert (await ask(other, "GET", PATH))[1]["items"] == [own]
    assert len((await ask(api, "GET", PATH))[1]["items"]) == 1
    assert (await house.row(webhook_id), await house.deliveries(webhook_id)) == before
    assert len(receiver.received) == 3


async def test_the_log_of_deliveries_page_by_page(api: Served, house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    receiver.behaves = answer(200, b"thanks")
    async with house.running():
        for _ in range(4):
            await house.call()
        await house.until_states(webhook_id, *["delivered"] * 12)
    path = f"{PATH}/{webhook_id}/deliveries"
    await house.pool.execute("UPDATE webhook_delivery SET created_at = now()")  # ties are what an order survives
    walked: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, page = await ask(api, "GET", f"{path}?limit=5{cursor}")
        assert status == 200
        walked += page["items"]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert sorted(one["eventSeq"] for one in walked) == list(range(1, 13))
    one = walked[0]
    assert (one["state"], one["attempts"], one["statusCode"], one["response"]) == ("DELIVERED", 1, 200, "thanks")
    assert one["nextAt"] is one["error"] is None
    assert [(tried["statusCode"], tried["error"]) for tried in one["tries"]] == [(200, None)]
    assert one["tries"][0]["at"].endswith("Z")
    assert (await ask(api, "GET", f"{path}?state=FAILED,PENDING"))[1] == {"items": [], "nextCursor": None}
    assert len((await ask(api, "GET", f"{path}?state=delivered"))[1]["items"]) == 12
    for query, code in (
        ("state=LOST", "bad_parameter"), ("limit=0", "bad_parameter"), ("cursor=x", "bad_cursor"),
        (f"state=DELIVERED{cursor}", "bad_cursor"),
    ):  # fmt: skip
        status, problem = await ask(api, "GET", f"{path}?{query}")
        assert (status, problem["code"]) == (400, code)
    other_id, _ = await house.webhook(receiver.url)
    status, problem = await ask(api, "GET", f"{PATH}/{other_id}/deliveries?{cursor[1:]}")
    assert (status, problem["code"]) == (400, "bad_cursor")


async def test_a_delivery_is_made_again_with_the_same_id(api: Served, house: House, receiver: Receiver) -> None:
    webhook_id, secret = await house.webhook(receiver.url, "call.ended")
    receiver.behaves = answer(500)
    async with house.running():
        await house.call()
        await receiver.got(1)
        await house.pool.execute("UPDATE webhook_delivery SET attempts = 9, next_at = now()")
        await house.until_states(webhook_id, "failed")
        receiver.behaves = answer(200)
        (row,) = await house.deliveries(webhook_id)
        status, replayed = await ask(api, "POST", f"{PATH}/{webhook_id}/deliveries/{row['id']}/replay")
        assert (status, replayed["state"], replayed["attempts"]) == (202, "PENDING", 0)
        await house.until_states(webhook_id, "delivered")
    assert len({one.id for one in receiver.received}) == 1
    assert receiver.received[-1].verified(secret)["type"] == "call.ended"


async def test_what_cannot_be_made_again(api: Served, house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    path = f"{PATH}/{webhook_id}"
    _, tested = await ask(api, "POST", f"{path}/test")
    status, problem = await ask(api, "POST", f"{path}/deliveries/{tested['id']}/replay")
    assert (status, problem["code"]) == (409, "not_replayable")
    await ask(api, "PATCH", path, {"enabled": False})
    status, problem = await ask(api, "POST", f"{path}/deliveries/{tested['id']}/replay")
    assert (status, problem["code"]) == (409, "webhook_disabled")


async def test_a_test_says_what_the_receiver_said(api: Served, house: House, receiver: Receiver) -> None:
    made, secret = await add(api, receiver.url)
    path = f"{PATH}/{made['id']}"
    receiver.behaves = answer(200, b"hello")
    status, said = await ask(api, "POST", f"{path}/test")
    assert (status, said["state"], said["statusCode"], said["response"]) == (200, "DELIVERED", 200, "hello")
    assert (said["type"], said["eventSeq"]) == ("webhook.test", None)
    told = receiver.received[0].verified(secret)
    assert (told["type"], told["data"]) == ("webhook.test", {})
    receiver.behaves = answer(404)
    assert (await ask(api, "POST", f"{path}/test"))[1]["error"] == "it answered 404"
    await ask(api, "PATCH", path, {"enabled": False})
    assert (await ask(api, "POST", f"{path}/test"))[1]["state"] == "FAILED", "a disabled one can be tried too"
    _, page = await ask(api, "GET", f"{path}/deliveries")
    assert [one["state"] for one in page["items"]] == ["FAILED", "FAILED", "DELIVERED"]
    assert (await house.row(UUID(made["id"])))["failures"] == 0
    async with house.running() as service:
        await service.sweep()
    assert len(receiver.received) == 3, "a test is never tried again"


async def test_a_test_of_a_receiver_that_hangs_is_answered_in_time(
    api: Served, house: House, receiver: Receiver
) -> None:
    made, _ = await add(api, receiver.url)
    receiver.behaves = hang
    status, said = await ask(api, "POST", f"{PATH}/{made['id']}/test")
    assert (status, said["state"], said["statusCode"]) == (200, "FAILED", None)
    assert said["error"] == f"no whole answer within {TEST_S:g} s"


async def test_who_is_disabled_is_told_nothing_and_from_then_on_again(
    api: Served, house: House, receiver: Receiver
) -> None:
    made, _ = await add(api, receiver.url)
    path, webhook_id = f"{PATH}/{made['id']}", UUID(made["id"])
    witness = await house.receiver()
    await add(api, witness.url)
    async with house.running():
        await house.call()
        await receiver.got(3)
        assert (await ask(api, "PATCH", path, {"enabled": False}))[1]["enabled"] is False
        await house.call()
        await witness.got(6)

        async def gone(*connection: Any) -> None:
            await witness.got(9)  # all of the next call is handed over by then
            await answer(410)(*connection)

        receiver.behaves = gone
        await house.pool.execute("UPDATE webhook SET failures = 7, opened_until = now() + interval '1 hour'")
        _, changed = await ask(api, "PATCH", path, {"enabled": True})
        assert (changed["lastSeq"], changed["failures"], changed["openUntil"]) == (6, 0, None)
        await house.call()
        await house.until("it is gone", lambda: len(receiver.received) == 4)

        async def disabled() -> bool:
            return not (await house.row(webhook_id))["enabled"]

        await house.until("it is disabled", disabled)
        assert (await ask(api, "GET", path))[1]["disabledReason"] == "GONE"
        receiver.behaves = answer(200)
        _, changed = await ask(api, "PATCH", path, {"enabled": True})
        assert (changed["enabled"], changed["disabledReason"]) == (True, None)
        await house.until_states(webhook_id, *["delivered"] * 3, "failed", "delivered", "delivered")
    assert [one.json["data"]["seq"] for one in receiver.received] == [1, 2, 3, 7, 8, 9]


async def test_a_new_url_closes_the_circuit(api: Served, house: House, receiver: Receiver) -> None:
    made, _ = await add(api, receiver.url)
    await house.pool.execute(
        "UPDATE webhook SET failures = 7, failing_since = now(), opened_until = now() + interval '1 h'"
    )
    path = f"{PATH}/{made['id']}"
    assert (await ask(api, "GET", path))[1]["openUntil"] is not None
    assert (await ask(api, "PATCH", path, {"description": "x"}))[1]["failures"] == 7
    _, changed = await ask(api, "PATCH", path, {"url": (await house.receiver()).url})
    assert (changed["failures"], changed["failingSince"], changed["openUntil"]) == (0, None, None)


async def test_who_may_not_read_events_has_none_sent_anywhere(
    serve: Serve, house: House, receiver: Receiver, account_id: UUID
) -> None:
    api = await serve(keys=["a-key-of-the-settings"])
    _, deaf = await add_key(house.pool, account_id, ["webhooks:write", "webhooks:read"])
    _, hears = await add_key(house.pool, account_id, ["webhooks:write", "events:read"])
    path, body = "/api/v1/webhooks", {"url": receiver.url}
    response, text = await api.raw(path, method="POST", json=body, headers=bearer(deaf))
    assert (response.status, json.loads(text)["scope"]) == (403, "events:read")
    response, text = await api.raw(path, method="POST", json=body, headers=bearer(hears))
    assert response.status == 201
    one = f"{path}/{json.loads(text)['webhook']['id']}"
    for key, status in ((deaf, 403), (hears, 200)):
        response, _ = await api.raw(one, method="PATCH", json=body, headers=bearer(key))
        assert response.status == status


async def test_the_audit_says_who_had_what_sent_where(
    serve: Serve, house: House, receiver: Receiver, account_id: UUID
) -> None:
    api = await serve(keys=["a-key-of-the-settings"])
    path, headers = "/api/v1/webhooks", bearer("a-key-of-the-settings")
    url = receiver.url + "canary"  # paths of receivers are often secret
    _, text = await api.raw(path, method="POST", json={"url": url}, headers=headers)
    one = f"{path}/{json.loads(text)['webhook']['id']}"
    await api.raw(one, method="PATCH", json={"url": url + "2", "eventTypes": ["call.ended"]}, headers=headers)
    await api.raw(f"{one}/secret", method="POST", headers=headers)
    await api.raw(one, method="DELETE", headers=headers)
    rows = await house.pool.fetch("SELECT actor, action, subject, address, detail FROM audit ORDER BY at")
    assert [(row["action"], row["detail"]) for row in rows] == [
        ("webhook.created", "to 127.0.0.1"),
        ("webhook.changed", "to 127.0.0.1, event_types=call.ended"),
        ("webhook.secret_rotated", None),
        ("webhook.deleted", None),
    ]
    assert {row["subject"] for row in rows} == {f"webhook:{one.rpartition('/')[2]}"}
    assert {(row["actor"].partition(":")[0], row["address"]) for row in rows} == {("key", "127.0.0.1")}
