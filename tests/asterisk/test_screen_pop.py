"""An agent's screen: it pops while his phone rings and is cleared when it rings no more, however that comes."""

import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from stage import Stage, until


class Desk:
    """What an agent's screen knows: the events of his extension by long poll, and the rule of docs/api.md."""

    def __init__(self, base: str, extension: str) -> None:
        self.extension = extension
        self.popped: set[str] = set()  # ids of the calls that it shows
        self.seen: list[tuple[str, dict[str, Any]]] = []  # type and data
        self._base = base
        self._after = self._read(0, wait=0)
        self.seen.clear()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def close(self) -> None:
        self._thread.join(5)

    def told(self, type_: str, caller: str) -> dict[str, Any]:
        """The data of the first event of that type of that caller's call, as soon as it is there."""

        def there() -> dict[str, Any] | None:
            found = (data for kind, data in list(self.seen) if kind == type_ and data["call"]["from"] == caller)
            return next(found, None)

        result: dict[str, Any] = until(f"{type_} for {self.extension}; seen: {self.types()}", there)
        return result

    def types(self) -> list[str]:
        return [kind for kind, _ in self.seen]

    def shows(self) -> None:
        until(f"the screen of {self.extension} pops", lambda: self.popped)

    def is_clear(self) -> None:
        until(f"the screen of {self.extension} is clear; seen: {self.types()}", lambda: not self.popped)

    def _follow(self) -> None:
        while not self._over.is_set():
            self._after = self._read(self._after, wait=1)

    def _read(self, after: int, *, wait: int) -> int:
        asked = {"extension": self.extension, "types": "call.*", "after": after, "wait": wait, "limit": 1000}
        with urllib.request.urlopen(f"{self._base}/api/v1/events?{urllib.parse.urlencode(asked)}", timeout=20) as got:
            page = json.load(got)
        for event in page["items"]:
            self.seen.append((event["type"], event["data"]))
            if self.extension in event["data"]["call"]["ringing"]:
                self.popped.add(event["callId"])
            else:
                self.popped.discard(event["callId"])
        return int(page["nextAfter"])


@pytest.fixture
def desks(stage: Stage) -> Iterator[dict[str, Desk]]:
    """Those of the three agents whose phones may ring."""
    desks = {}
    for number in ("1001", "1002", "1003"):
        stage.agent(number).forget_calls()
        desks[number] = Desk(stage.api, number)
    yield desks
    for desk in desks.values():
        desk.stop()
    for desk in desks.values():
        desk.close()


def test_of_three_that_ring_the_two_others_are_cleared_when_one_answers(stage: Stage, desks: dict[str, Desk]) -> None:
    phones = {number: stage.agent(number) for number in desks}
    customer = stage.dial("0300")
    calls = {number: phone.wait_call() for number, phone in phones.items()}
    for desk in desks.values():
        desk.shows()
    calls["1002"].answer()
    customer.wait_answer()
    for desk in desks.values():
        desk.is_clear()
    live = stage.rows.where("from_number = $1", stage.caller)
    assert [call.ended_at for call in live] == [None]  # it goes on, and nobody had to wait for its end
    assert "call.ended" not in desks["1003"].types()
    customer.hangup()
    calls["1002"].wait_end()
    stage.rows.ended(stage.caller)


def test_a_queue_that_moves_on_clears_who_rang_before(stage: Stage, desks: dict[str, Desk]) -> None:
    first, second = stage.agent("1001"), stage.agent("1002")
    customer = stage.dial("0200").wait_answer()
    first.wait_call()
    desks["1001"].shows()
    data = desks["1001"].told("call.ring_cleared", stage.caller)
    assert data["cleared"] == [{"extension": "1001", "reason": "RING_TIMEOUT"}]
    assert (data["call"]["status"], data["call"]["ringing"]) == ("QUEUED", [])
    desk = second.wait_call()
    desks["1002"].shows()
    assert not desks["1001"].popped
    desk.reject("603 Decline")
    assert {"extension": "1002", "reason": "DECLINED"} in desks["1002"].told("call.ring_cleared", stage.caller)[
        "cleared"
    ]
    desks["1002"].is_clear()
    customer.hangup()
    stage.rows.ended(stage.caller)
    for each in desks.values():
        each.is_clear()


def test_a_phone_that_takes_a_transferred_call_is_cleared(stage: Stage, desks: dict[str, Desk]) -> None:
    """No second call.answered is told: the Call has been answered before."""
    target = stage.agent("1003")
    customer, mine = stage.connect()
    desks["1002"].told("call.answered", stage.caller)
    mine.transfer("1003")
    other = target.wait_call()
    desks["1003"].shows()
    mine.transferred.wait(3)
    mine.hangup()
    other.answer()
    data = desks["1003"].told("call.ring_cleared", stage.caller)
    assert {"extension": "1003", "reason": "ANSWERED"} in data["cleared"]
    desks["1003"].is_clear()
    customer.hangup()
    other.wait_end()
    stage.rows.ended(stage.caller)


def test_a_caller_who_gives_up_clears_them_all(stage: Stage, desks: dict[str, Desk]) -> None:
    phones = [stage.agent(number) for number in desks]
    customer = stage.dial("0300")
    calls = [phone.wait_call() for phone in phones]
    for desk in desks.values():
        desk.shows()
    customer.cancel()
    for call in calls:
        call.wait_end()
    stage.rows.ended(stage.caller)
    for desk in desks.values():
        desk.is_clear()
