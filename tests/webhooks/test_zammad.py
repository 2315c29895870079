"""The profile ZAMMAD: what Zammad's generic CTI expects, each thing of a call once."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hooks import ACCOUNT, House
from receiver import Receiver
from served import Served

from trunkline.calls.record import CallUpdate, Direction, EndReason, Status
from trunkline.crm.webhooks import zammad
from trunkline.store.events import StoredEvent
from trunkline.store.writer import CallWriter

pytestmark = pytest.mark.asyncio

AT = datetime(2026, 1, 2, tzinfo=UTC)


async def test_a_call_as_zammad_has_it(house: House, receiver: Receiver) -> None:
    _, secret = await house.webhook(receiver.url, profile="ZAMMAD")
    async with house.running():
        await house.call()
        got = await receiver.got(3)
    call_id = str(await house.pool.fetchval("SELECT id FROM call"))
    call = {"from": "442079460001", "to": "442079460000", "direction": "in", "callId": call_id}
    assert [one.json for one in got] == [
        {"event": "newCall", **call, "queue": "support"},
        {"event": "answer", **call, "answeringNumber": "1002"},
        {"event": "hangup", **call, "answeringNumber": "1002", "cause": "normalClearing"},
    ]
    assert got[0].headers["content-type"] == "application/json"
    assert got[0].verified(secret)


async def test_each_thing_is_told_once_and_only_of_calls_with_the_outside(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url, profile="ZAMMAD")
    other = await house.receiver()
    other_id, _ = await house.webhook(other.url)
    async with house.running():
        record = house.record(70, 1)
        for revision in (1, 2, 3):  # three phones ring
            record.revision = revision
            await house.writer.write([CallUpdate(record, ("call.ringing",))])
        await house.call(direction=Direction.INTERNAL)
        await house.call(direction=Direction.OUTBOUND)
        await house.until_states(other_id, *["delivered"] * 9)
        await house.until_states(webhook_id, *["delivered"] * 4)
    told = [(one.json["event"], one.json["direction"]) for one in receiver.received]
    assert told == [("newCall", "in"), ("newCall", "out"), ("answer", "out"), ("hangup", "out")]


async def test_of_a_call_that_began_before_the_webhook_nothing_is_told(house: House, receiver: Receiver) -> None:
    await house.writer.write([CallUpdate(house.record(70, 1), ("call.ringing",))])
    webhook_id, _ = await house.webhook(receiver.url, profile="ZAMMAD")
    async with house.running():
        await house.writer.write([CallUpdate(house.record(70, 2), ("call.answered",))])
        await house.writer.write([CallUpdate(house.record(70, 3), ("call.ended",))])
        await house.call()
        await house.until_states(webhook_id, *["delivered"] * 3)
    assert [one.json["event"] for one in receiver.received] == ["newCall", "answer", "hangup"]
    assert len({one.json["callId"] for one in receiver.received}) == 1


async def test_a_call_that_went_into_another_is_hung_up(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url, profile="ZAMMAD")
    writer = CallWriter(house.pool, ACCOUNT)
    async with house.running():
        await writer.write([CallUpdate(house.record(1, 1), ("call.ringing",))])
        await writer.write([CallUpdate(house.record(2, 1), ("call.ringing",))])
        old = await house.pool.fetchval("SELECT id FROM call WHERE external_id = 'pbx1-2.1'")
        merged = house.record(1, 2)
        merged.aliases = ["pbx1-2.1"]
        await writer.write([CallUpdate(merged, ("call.merged",))])
        await house.until_states(webhook_id, *["delivered"] * 3)
    last = receiver.received[-1].json
    assert (last["event"], last["cause"], last["callId"]) == ("hangup", "forwarded", str(old))


async def test_a_test_leaves_nothing_ringing(api: Served, house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url, profile="ZAMMAD")
    response, _ = await api.raw(f"/api/v1/webhooks/{webhook_id}/test", method="POST")
    assert response.status == 200
    told = [one.json for one in receiver.received]
    assert [one["event"] for one in told] == ["newCall", "hangup"]
    assert told[0]["callId"] == told[1]["callId"]


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        ({"answeredAt": "x", "status": "COMPLETED"}, "normalClearing"),
        ({"status": "MISSED", "endReason": "CANCELED"}, "cancel"),
        ({"status": "MISSED", "endReason": "RING_TIMEOUT"}, "noAnswer"),
        ({"status": "BUSY", "endReason": "BUSY"}, "busy"),
        ({"status": "FAILED", "endReason": "CONGESTION"}, "congestion"),
        ({"status": "FAILED", "endReason": "UNALLOCATED"}, "notFound"),
        ({"status": "ABANDONED"}, "cancel"),
        ({}, "normalClearing"),
    ],
)
async def test_why_a_call_ended(call: dict[str, Any], cause: str) -> None:
    event = StoredEvent(
        seq=1, type="call.ended", call_id=None, lead_id=None, conversation_id=None,
        data={"call": {"direction": "INBOUND", **call}}, created_at=AT,
    )  # fmt: skip
    assert zammad.told(event)["cause"] == cause


async def test_every_reason_and_end_has_a_cause() -> None:
    ended = {status.value for status in Status} - {"RINGING", "QUEUED", "IN_PROGRESS", "COMPLETED"}
    assert {reason.value for reason in EndReason} | ended <= set(zammad._CAUSES)


async def test_a_withheld_number_is_anonymous() -> None:
    data = {"call": {"direction": "INBOUND", "from": "0207", "fromPrivate": True, "to": "1001"}}
    event = StoredEvent(
        seq=1, type="call.ringing", call_id=None, lead_id=None, conversation_id=None, data=data, created_at=AT
    )
    told = zammad.told(event)
    assert (told["from"], told["to"]) == ("anonymous", "1001")
