"""What several jobs ask of the database at the same time, asked as one.

A commit waits for the disk, and those of one account wait for each other, for their events have an order: of a hundred
recordings that end together each would wait for all before it. While one request is on its way the next ones gather.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from trunkline.store.faults import of_the_server

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST: Final = 64  # items of one request


class Together(Generic[Item, Answer]):
    """`await together(item)` is the item's own of the answers of `ask(items)`, which are in the items' order.

    A request that fails for a reason of one of its items is asked again for each alone, so that none fails for another.
    One that is cancelled while it waits is asked all the same, as one whose answer was lost would be.
    """

    def __init__(self, ask: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        """Raises what `ask` raises."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_on(), name="recordings.together")
        return await answer

    async def _ask_on(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await self._answer(some)
        finally:
            self._asking = None
            for _, answer in self._waiting:  # we were cancelled: the loop ends
                answer.cancel()
            self._waiting = []

    async def _answer(self, some: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            found = await self._ask([item for item, _ in some])
        except Exception as error:
            if len(some) > 1 and not of_the_server(error):
                for one in some:
                    await self._answer([one])
                return
            for _, answer in some:
                if not answer.done():
                    answer.set_exception(error)
        except BaseException:
            for _, answer in some:
                answer.cancel()
            raise
        else:
            for (_, answer), told in zip(some, found, strict=True):
                if not answer.done():
                    answer.set_result(told)
