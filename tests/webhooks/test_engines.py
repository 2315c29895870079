"""Several receivers, several daemons, and daemons that die: nobody waits for the dead, nothing is lost."""

import asyncio
import json
import signal
import sys
from collections import Counter
from contextlib import suppress
from uuid import UUID

import pytest
from hooks import House
from receiver import Receiver, answer, hang
from structlog.testing import capture_logs

from trunkline.crm.webhooks.schedule import OPENS_AT, WHOLE_S, open_s
from trunkline.store.pool import open_pool

pytestmark = pytest.mark.asyncio

_VICTIM = """
import asyncio, json, os, signal, sys
from ipaddress import ip_network

from trunkline.crm.webhooks.destination import Destinations
from trunkline.crm.webhooks.service import Sending, WebhookService
from trunkline.store.pool import open_pool

told = json.loads(sys.stdin.readline())

def step(name):
    if name == told["step"]:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with await open_pool(told["database"], max_size=8) as pool:
        here = Destinations(allow_http=True, networks=(ip_network("127.0.0.0/8"),))
        await WebhookService(pool, Sending(here), step=step).run()

asyncio.run(main())
"""


async def killed_at(step: str, database_url: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _VICTIM, stdin=asyncio.subprocess.PIPE)
    try:
        await process.communicate(json.dumps({"database": database_url, "step": step}).encode() + b"\n")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == -signal.SIGKILL


async def test_a_dead_receiver_does_not_slow_a_healthy_one(house: House, receiver: Receiver) -> None:
    dead = [await house.receiver() for _ in range(3)]
    for one in dead:
        one.behaves = hang
        await house.webhook(one.url)
    webhook_id, _ = await house.webhook(receiver.url)
    async with house.running(house.service(at_once=8)):
        for _ in range(20):
            await house.call()
        await house.until_states(webhook_id, *["delivered"] * 60)
        assert [one.connections for one in dead] == [1, 1, 1]
    assert [one.json["data"]["seq"] for one in receiver.received] == list(range(1, 61))


async def test_receivers_that_failed_leave_room_for_the_others(house: House, receiver: Receiver) -> None:
    dead = [await house.receiver() for _ in range(8)]
    for one in dead:
        one.behaves = hang
        await house.webhook(one.url)
    await house.pool.execute("UPDATE webhook SET failures = 3")
    webhook_id, _ = await house.webhook(receiver.url)
    async with house.running(house.service(at_once=8)):
        for _ in range(5):
            await house.call()
        await house.until_states(webhook_id, *["delivered"] * 15)
        half = 4  # of the room
        await house.until("they have half of the room", lambda: sum(one.connections for one in dead) >= half)
        assert sum(one.connections for one in dead) == half


async def test_the_circuit_opens_and_one_delivery_asks_for_all(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    receiver.behaves = answer(500)

    async def failures(count: int) -> bool:
        return (await house.row(webhook_id))["failures"] == count

    async with house.running() as service:
        for _ in range(3):
            await house.call()

        async def opened() -> bool:
            if (await house.row(webhook_id))["opened_until"] is None:
                await house.pool.execute("UPDATE webhook_delivery SET next_at = now() WHERE state = 'pending'")
                return False
            return await failures(OPENS_AT)

        await house.until("it opens", opened)
        await house.pool.execute("UPDATE webhook_delivery SET next_at = now() WHERE state = 'pending'")
        assert len(receiver.received) == OPENS_AT
        await service.sweep()
        await service.deliverer.take(webhook_id)  # it is left alone
        assert len(receiver.received) == OPENS_AT
        await house.pool.execute("UPDATE webhook SET opened_until = now()")
        await house.until("it is asked once more", lambda: failures(OPENS_AT + 1))
        assert len(receiver.received) == OPENS_AT + 1
        await service._measure()
        assert (service.waiting.deliveries, service.waiting.open) == (9, 1)
        receiver.behaves = answer(200)
        await house.due_now()
        await house.until_states(webhook_id, *["delivered"] * 9)
    row = await house.row(webhook_id)
    assert (row["failures"], row["failing_since"], row["opened_until"]) == (0, None, None)
    assert [one.json["data"]["seq"] for one in receiver.received[-9:]] == list(range(1, 10))


async def test_the_circuit_opens_for_longer_and_longer() -> None:
    assert [open_s(failures) for failures in range(OPENS_AT)] == [0] * OPENS_AT
    assert [open_s(OPENS_AT + more) for more in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    assert open_s(10_000) == 300


async def test_what_waited_all_the_time_behind_a_circuit_is_given_up(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    receiver.behaves = answer(500)
    async with house.running():
        await house.call()

        async def failed_once() -> bool:
            return (await house.row(webhook_id))["failures"] == 1

        await house.until("it fails", failed_once)
        await house.pool.execute(
            "UPDATE webhook SET failures = 9, failing_since = now() - $1 * interval '1 second'", WHOLE_S + 60
        )
        await house.pool.execute(
            """UPDATE webhook_delivery SET next_at = now() - $1 * interval '1 second', attempts = 2
               WHERE event_seq = 1""",
            WHOLE_S + 30,
        )
        await house.pool.execute(
            "UPDATE webhook_delivery SET next_at = now() - $1 * interval '1 second' WHERE event_seq = 2", WHOLE_S + 30
        )
        await house.until_states(webhook_id, "pending", "failed", "pending")
    error = (await house.deliveries(webhook_id))[1]["error"]
    assert error == "the receiver took nothing in all the time of the schedule"


async def test_two_daemons_deliver_each_event_once_and_in_order(
    house: House, receiver: Receiver, database_url: str
) -> None:
    receivers = [receiver, await house.receiver(), await house.receiver()]
    ids = [(await house.webhook(one.url))[0] for one in receivers]
    async with await open_pool(database_url, max_size=8) as pool:
        other = House(pool, house.account_id)
        async with house.running(), other.running():
            for _ in range(40):
                await house.call()
            for id_ in ids:
                await house.until_states(id_, *["delivered"] * 120)
    for one in receivers:
        assert [got.json["data"]["seq"] for got in one.received] == list(range(1, 121))
        assert max(Counter(got.id for got in one.received).values()) == 1


async def test_two_that_hand_over_at_once_make_each_delivery_once(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    for _ in range(10):
        await house.call()
    services = [house.service() for _ in range(8)]
    await asyncio.gather(*(service.feed.hand_over() for service in services))
    assert [one["event_seq"] for one in await house.deliveries(webhook_id)] == list(range(1, 31))
    assert (await house.row(webhook_id))["last_seq"] == 30


async def test_a_hand_over_that_fails_hands_nothing_over(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    await house.call()
    service = house.service()

    async def fail(*_: object) -> None:
        raise ValueError("no job")

    service.feed._enqueue = fail
    with pytest.raises(ValueError, match="no job"):
        await service.feed.hand_over()
    assert await house.deliveries(webhook_id) == []
    assert (await house.row(webhook_id))["last_seq"] == 0


@pytest.mark.parametrize(("step", "times"), [("post", 1), ("settle", 2)])
async def test_what_a_killed_daemon_was_at_is_delivered_with_the_same_id(
    house: House, receiver: Receiver, database_url: str, step: str, times: int
) -> None:
    webhook_id, secret = await house.webhook(receiver.url)
    await house.call()
    await killed_at(step, database_url)
    assert len(receiver.received) == times - 1
    assert (await house.row(webhook_id))["leased_until"] is not None
    await house.pool.execute("UPDATE webhook SET leased_until = now()")  # half a minute later
    async with house.running():
        await house.until_states(webhook_id, *["delivered"] * 3)
    ids = [one.id for one in receiver.received]
    assert ids[:times] == [ids[0]] * times
    assert len(ids) == 2 + times
    for one in receiver.received:
        assert one.verified(secret)


async def test_a_daemon_that_stops_gives_its_line_back(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    receiver.behaves = hang
    async with house.running():
        await house.call()
        await receiver.got(1)
    row = await house.row(webhook_id)
    assert (row["lease"], row["leased_until"]) == (None, None)
    assert [one["attempts"] for one in await house.deliveries(webhook_id)] == [0, 0, 0]


async def test_a_database_that_comes_back_is_gone_on_with(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    async with house.running():
        await house.call()
        await house.until_states(webhook_id, *["delivered"] * 3)
        await house.pool.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        with suppress(Exception):
            await house.call()
        await house.call()
        await receiver.got(6)


async def test_the_log_is_forgotten_after_its_time(house: House, receiver: Receiver) -> None:
    webhook_id, _ = await house.webhook(receiver.url)
    async with house.running():
        await house.call()
        await house.until_states(webhook_id, *["delivered"] * 3)
    await house.pool.execute("UPDATE webhook_delivery SET created_at = now() - interval '31 days' WHERE event_seq < 3")
    await house.service(keep_days=30)._purge()
    assert [one["event_seq"] for one in await house.deliveries(webhook_id)] == [3]


async def test_no_log_line_tells_a_secret_or_a_path(house: House, receiver: Receiver) -> None:
    _, secret = await house.webhook(receiver.url)
    other = await house.receiver()
    _, second = await house.webhook(other.url)
    third, _ = await house.webhook("http://10.9.8.7/very-secret-path")
    receiver.behaves = answer(500, b"very-secret-answer")
    other.behaves = answer(410)
    with capture_logs() as logs:
        async with house.running() as service:
            await house.call()
            await receiver.got(1)
            await other.got(1)
            await house.until("it is refused", lambda: service.deliverer.outcomes["refused"])
            await house.until("it is written down", lambda: service.deliverer.outcomes["retried"])
            await house.until("it is gone", lambda: service.deliverer.outcomes["gone"])
    assert {line["event"] for line in logs} >= {"webhook.failed", "webhook.gone"}
    said = str(logs)
    for hidden in (secret, second, secret[6:20], "very-secret", "10.9.8.7", "whsec_"):
        assert hidden not in said
    assert str(third) in said


async def test_what_is_still_to_be_delivered_is_not_purged(house: House, account_id: UUID) -> None:
    webhook_id = await house.pool.fetchval(
        "INSERT INTO webhook (account_id, url, secret) VALUES ($1, 'https://192.0.2.1/', 'x') RETURNING id", account_id
    )
    await house.pool.executemany(
        """INSERT INTO webhook_delivery (account_id, webhook_id, event_seq, message_id, type, state, created_at)
           VALUES ($1, $2, $3, gen_random_uuid()::text, 'call.ended', $4, now() - interval '26 hours')""",
        [(account_id, webhook_id, n, state) for n, state in enumerate(("pending", "delivered", "failed"), 1)],
    )
    await house.service(keep_days=1)._purge()
    assert [row["state"] for row in await house.pool.fetch("SELECT state FROM webhook_delivery")] == ["pending"]


async def test_the_log_of_jobs_is_purged_where_nothing_is_recorded(house: House) -> None:
    await house.pool.execute(
        """INSERT INTO jobs.pgqueuer_log (created, job_id, status, priority, entrypoint)
           SELECT now() - days * interval '1 day', days, 'successful', 0, 'webhooks'
           FROM unnest('{1,31}'::int[]) AS days"""
    )
    await house.service(keep_days=30)._purge()
    assert await house.pool.fetchval("SELECT array_agg(job_id) FROM jobs.pgqueuer_log") == [1]
