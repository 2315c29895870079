"""From an event to a receiver: signed, in order, at least once, on the schedule."""

import pytest
from hooks import House
from receiver import Receiver, answer
from standardwebhooks import WebhookVerificationError

from trunkline.crm.webhooks.schedule import WAITS_S
from trunkline.store.audit import By
from trunkline.store.events import select_events
from trunkline.store.webhooks import rotate_secret

pytestmark = pytest.mark.asyncio


async def test_a_call_is_told_in_order_and_signed(house: House, receiver: Receiver) -> None:
    webhook_id, secret = await house.webhook(receiver.url)
    async with house.running():
        await house.call()
        got = await receiver.got(3)
        await house.until_states(webhook_id, *["delivered"] * 3)
    told = [one.verified(secret) for one in got]
    assert [one["type"] for one in told] == ["call.ringing", "call.answered", "call.ended"]
    events = await select_events(house.pool, house.account_id, 0, 10)
    for one, event in zip(told, events, strict=True):
        assert one["data"]["seq"] == event.seq
        assert one["data"]["callId"] == str(event.call_id)
        assert one["data"]["data"] == event.data
        assert one["timestamp"] == one["data"]["createdAt"]
        assert one["timestamp"].endswith("Z")
    assert [one.id for one in got] == [f"evt_{house.account_id.hex}_{n}" for n in (1, 2, 3)]
    assert {(one.method, one.target) for one in got} == {("POST", "/hook/very-secret-path")}
    assert got[0].headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got[0].headers["content-type"] == "application/json"
    assert got[0].headers["user-agent"].startswith("trunkline/")
    assert "cookie" not in got[0].headers


async def test_another_secret_or_a_changed_body_does_not_verify(house: House, receiver: Receiver) -> None:
    _, secret = await house.webhook(receiver.url)
    _, other = await house.webhook((await house.receiver()).url)
    async with house.running():
        await house.call()
        first = (await receiver.got(1))[0]
    with pytest.raises(WebhookVerificationError):
        first.verified(other)
    with pytest.raises(WebhookVerificationError):
        first._replace(body=first.body.replace(b"call.ringing", b"call.ended")).verified(secret)


async def test_during_a_rotation_both_secrets_sign(house: House, receiver: Receiver) -> None:
    webhook_id, old = await house.webhook(receiver.url)
    new = "whsec_" + "TmV3IHNlY3JldCBvZiB0aGUgdGVzdCwgMzIgYnl0ZXM="
    assert await rotate_secret(house.pool, house.account_id, By("cli:test"), webhook_id, new)
    async with house.running():
        await house.call()
        got = await receiver.got(3)
        for one in got:
            assert one.verified(old) == one.verified(new)
        await house.pool.execute("UPDATE webhook SET old_secret_until = now()")
        await house.call()
        last = (await receiver.got(6))[-1]
    assert last.verified(new)
    with pytest.raises(WebhookVerificationError):
        last.verified(old)


async def test_a_webhook_is_told_what_it_asks_for_and_what_comes_after_it(house: House, receiver: Receiver) -> None:
    await house.call()
    chosen, all_, kind = receiver, await house.receiver(), await house.receiver()
    await house.webhook(chosen.url, "call.ended", "call.parked")
    await house.webhook(all_.url)
    await house.webhook(kind.url, "call.*")
    async with house.running():
        await house.call()
        await house.call()
        await all_.got(6)
        await kind.got(6)
        got = await chosen.got(2)
    assert [one.json["data"]["seq"] for one in got] == [6, 9]
    assert [one.json["data"]["seq"] for one in all_.received] == [4, 5, 6, 7, 8, 9]


async def test_events_from_before_the_start_are_told(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    for _ in range(200):
        await house.call()
    async with house.running():
        got = await receiver.got(600)
        await house.until_states(webhook_id, *["delivered"] * 600)
    assert [one.json["data"]["seq"] for one in got] == list(range(1, 601))


async def test_the_schedule_is_that_of_standard_webhooks(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url, "call.ended")
    receiver.behaves = answer(500, b"no " * 1000)
    waits = []
    async with house.running() as service:
        await house.call()
        for tries in range(1, 11):
            await receiver.got(tries)

            async def settled(tries: int = tries) -> bool:
                return [one["attempts"] for one in await house.deliveries(webhook_id)] == [tries]

            await house.until("it is written down", settled)
            (row,) = await house.deliveries(webhook_id)
            if row["next_at"] is not None:
                waits.append(round((row["next_at"] - row["tried_at"]).total_seconds()))
            await house.due_now()
    assert [0, *waits] == list(WAITS_S)
    assert sum(waits) == (75 * 60 + 35) * 60 + 5
    assert (row["state"], row["status_code"], row["error"]) == ("failed", 500, "it answered 500")
    assert row["response"] == ("no " * 1000)[:1024]
    assert row["tries"].count('"statusCode": 500') == 10
    assert len({one.id for one in receiver.received}) == 1
    assert len({one.body for one in receiver.received}) == 1
    assert service.deliverer.outcomes == {"delivered": 0, "retried": 9, "failed": 1, "gone": 0, "refused": 0}


async def test_a_failed_delivery_holds_the_line_for_its_second_try_only(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    receiver.behaves = answer(503)
    async with house.running() as service:
        await house.call()

        async def tried(count: int) -> bool:
            return [one["attempts"] for one in await house.deliveries(webhook_id)][:1] == [count]

        await house.until("the first failed", lambda: tried(1))
        await service.deliverer.take(webhook_id)  # nothing is due: the others wait behind it
        assert [one["attempts"] for one in await house.deliveries(webhook_id)] == [1, 0, 0]
        receiver.behaves = answer(200)
        await house.due_now()
        await house.until_states(webhook_id, *["delivered"] * 3)
        assert [one.json["data"]["seq"] for one in receiver.received] == [1, 1, 2, 3]

        async def only_the_fifth(reader: object, writer: object) -> None:
            await answer(503 if receiver.received[-1].json["data"]["seq"] == 5 else 200)(reader, writer)

        receiver.behaves = only_the_fifth
        await house.call()
        await house.until_states(webhook_id, *["delivered"] * 4, "pending", "pending")
        await house.due_now()
        await house.until_states(webhook_id, *["delivered"] * 4, "pending", "delivered")
    assert [one.json["data"]["seq"] for one in receiver.received] == [1, 1, 2, 3, 4, 5, 5, 6]


async def test_410_disables(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    receiver.behaves = answer(410)
    async with house.running():
        await house.call()
        await house.until_states(webhook_id, "failed", "pending", "pending")
        await house.call()
        other = await house.receiver()
        other_id, _ = await house.webhook(other.url)
        await house.call()
        await house.until_states(other_id, *["delivered"] * 3)
    row = await house.row(webhook_id)
    assert (row["enabled"], row["disabled_reason"]) == (False, "GONE")
    assert len(receiver.received) == 1
