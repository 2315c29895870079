"""Together: what is asked at the same time is one request, and one item's fault is no other's."""

import asyncio
from collections.abc import Sequence

import pytest

from trunkline.recordings.together import MOST, Together

pytestmark = pytest.mark.asyncio


class Database:
    """Answers each number with its square once it is `open`; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.was_asked = asyncio.Event()
        self.open = asyncio.Event()
        self.away = False

    async def ask(self, numbers: Sequence[int]) -> list[int]:
        self.asked.append(list(numbers))
        self.was_asked.set()
        await self.open.wait()
        if self.away:
            raise ConnectionRefusedError("away")
        if -1 in numbers:
            raise ValueError("not this one")
        return [number * number for number in numbers]


async def _ask(database: Database, *numbers: int) -> list[int | BaseException]:
    together = Together(database.ask)
    asking = [asyncio.create_task(together(number)) for number in numbers]
    await database.was_asked.wait()
    database.open.set()
    return list(await asyncio.gather(*asking, return_exceptions=True))


async def test_what_comes_while_a_request_is_on_its_way_is_one_request() -> None:
    database = Database()
    together = Together(database.ask)
    first = asyncio.create_task(together(2))
    await database.was_asked.wait()
    others = [asyncio.create_task(together(number)) for number in range(3, 3 + MOST + 1)]
    await asyncio.sleep(0)
    database.open.set()
    assert await first == 4
    assert await asyncio.gather(*others) == [number * number for number in range(3, 3 + MOST + 1)]
    assert database.asked == [[2], list(range(3, 3 + MOST)), [3 + MOST]]
    assert await together(5) == 25
    assert database.asked[-1] == [5]


async def test_a_fault_of_one_item_is_its_own() -> None:
    database = Database()
    three, fault, four = await _ask(database, 3, -1, 4)
    assert (three, four) == (9, 16)
    assert isinstance(fault, ValueError)
    assert database.asked == [[3, -1, 4], [3], [-1], [4]]


async def test_a_server_that_is_away_is_asked_once() -> None:
    database = Database()
    database.away = True
    assert [type(error) for error in await _ask(database, 1, 2, 3)] == [ConnectionRefusedError] * 3
    assert database.asked == [[1, 2, 3]]


async def test_one_that_is_cancelled_takes_no_other_with_it() -> None:
    database = Database()
    together = Together(database.ask)
    gone, stays = asyncio.create_task(together(2)), asyncio.create_task(together(3))
    await database.was_asked.wait()
    gone.cancel()
    await asyncio.sleep(0)
    database.open.set()
    assert await stays == 9
    assert gone.cancelled()
    assert await together(4) == 16
