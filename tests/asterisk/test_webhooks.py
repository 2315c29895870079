"""A real call, told to a receiver: signed, in order, and in Zammad's words."""

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from daemon_process import running_daemon
from receiver import Received, Receiver
from stage import Rows, Stage, talk

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.postgres import Postgres


class Listening:
    """A receiver in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.receiver: Receiver = self._do(Receiver().start())

    def got(self, count: int) -> list[Received]:
        return self._do(self.receiver.got(count))

    def close(self) -> None:
        self._do(self.receiver.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(30)


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


@pytest.fixture
def listening() -> Iterator[list[Listening]]:
    both = [Listening(), Listening()]
    yield both
    for one in both:
        one.close()


def test_one_call_is_told_in_order_and_signed(
    stage: Stage, pbx: Asterisk, postgres: Postgres, migrated: str, tmp_path: Path, listening: list[Listening]
) -> None:
    name = f"hooks_{uuid4().hex}"
    url = postgres.create_database(name, template=migrated)
    rows = Rows(url)
    standard, zammad = listening
    with running_daemon(pbx, url, tmp_path, webhooks=True) as daemon:
        base = daemon.base
        secret = post(f"{base}/api/v1/webhooks", {"url": standard.receiver.url})["secret"]
        post(f"{base}/api/v1/webhooks", {"url": zammad.receiver.url, "profile": "ZAMMAD"})
        customer, desk = stage.connect()
        talk(1)
        customer.hangup()
        desk.wait_end()
        record = rows.ended(stage.caller)
        told: list[Any] = []
        while not told or told[-1]["type"] != "call.ended":
            told = [one.verified(secret) for one in standard.got(len(told) + 1)]
        three = [one.json for one in zammad.got(3)]
        with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
    types = [one["type"] for one in told]
    assert types[:2] == ["conversation.created", "call.ringing"]
    assert types[-1] == "call.ended"
    assert [kind for kind in types if kind in ("call.answered", "call.ended")] == ["call.answered", "call.ended"]
    assert [one["data"]["seq"] for one in told] == sorted(one["data"]["seq"] for one in told)
    assert {one["data"]["callId"] for one in told[1:]} == {str(record.id)}
    assert {one["data"]["conversationId"] for one in told} == {str(record.conversation_id)}
    assert told[-1]["data"]["data"]["call"]["status"] == "COMPLETED"
    assert [one["event"] for one in three] == ["newCall", "answer", "hangup"]
    assert {one["callId"] for one in three} == {str(record.id)}
    assert (three[1]["answeringNumber"], three[2]["cause"]) == ("1002", "normalClearing")
    assert 'trunkline_webhook_deliveries_total{outcome="delivered",pbx=""}' in metrics
    log = daemon.log
    assert "whsec" not in log
    assert "very-secret-path" not in log
    postgres.drop_database(name)
