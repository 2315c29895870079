"""Feed: the events of the account as they are committed, read once for however many clients follow them.

A client has a cursor, the seq of the last event it has seen, and asks for what is behind it; so a slow one holds up
nothing and costs no queue of its own. The newest events are kept in memory; who is further behind reads from the table.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from trunkline.api.problem import Problem
from trunkline.store.events import CHANNEL, EventLine, select_event_lines, select_last_seq
from trunkline.store.faults import of_the_server, summary
from trunkline.store.pool import Connection, Pool, raise_if_cancelled

KEPT: Final = 5_000  # events in memory, at least; twice as many at most
PAGE: Final = 500  # events of one read
POLL_S: Final = 5.0  # how late an event may be seen whose NOTIFY was lost
_AGAIN_S: Final = 1.0  # after the database was away

log = structlog.get_logger(__name__)


class Feed:
    """Use it while `run` runs; before it has caught up first, and while the database is away, there is nothing new.

    also: who is to be told what comes on other channels of the same connection, by their names.
    """

    def __init__(
        self,
        pool: Pool,
        account_id: Callable[[], Awaitable[UUID]],
        *,
        also: Mapping[str, Callable[[str], None]] | None = None,
    ) -> None:
        self._also = also or {}
        self._pool = pool
        self._account_id = account_id
        self._kept: list[EventLine] = []  # without a gap, up to `last`
        self.last: int | None = None  # seq of the newest event; None: not known yet
        self._news = asyncio.Event()  # of its own for each piece of news, so that each waiter sees each
        self._look = asyncio.Event()
        self.stopping = False
        self.reads = 0  # of pages, by the feed itself

    async def run(self) -> None:
        """Until it is stopped; a database that is away is waited for, and whatever else fails is tried again."""
        said = False
        while not self.stopping:  # a connection that breaks may take a cancellation's place
            try:
                await self._follow(await self._account_id())
            except Problem:
                pass  # the account is not there yet
            except Exception as error:
                raise_if_cancelled()
                if not of_the_server(error):
                    log.exception("api.feed_failed")
                elif not said:
                    log.warning("api.feed_away", error=summary(error))
                said = True
            else:
                said = False
            if not self.stopping:
                await asyncio.sleep(_AGAIN_S)

    async def _follow(self, account_id: UUID) -> None:
        """Until the connection breaks."""
        mine, lost = f"{account_id} ", asyncio.Event()

        def told(connection: object, pid: int, channel: str, payload: object) -> None:
            if str(payload).startswith(mine):
                self._look.set()

        def told_others(connection: object, pid: int, channel: str, payload: object) -> None:
            self._also[channel](str(payload))

        def broken(connection: object) -> None:
            lost.set()
            self._look.set()

        async with self._pool.acquire() as connection:
            try:
                connection.add_termination_listener(broken)
                await connection.add_listener(CHANNEL, told)
                for channel in self._also:
                    await connection.add_listener(channel, told_others)
                await self._begin(connection, account_id)
                while not (lost.is_set() or self.stopping):
                    self._look.clear()
                    await self._catch_up(connection, account_id)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await self._look.wait()
            finally:
                # To give it back it would have to be asked, and it may never answer. One that is broken is not ours any
                # more, and saying so must not hide why it broke.
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()

    async def _begin(self, connection: Connection, account_id: UUID) -> None:
        """Begin at the newest event, or go on; but with a shorter sequence, of a database that was restored, anew."""
        newest = await select_last_seq(connection, account_id)
        if self.last is None or newest < self.last:
            if self.last is not None:
                log.warning("api.feed_restored", last=self.last, newest=newest)
            self._kept.clear()
            self.last = newest
            self._tell()

    async def _catch_up(self, connection: Connection, account_id: UUID) -> None:
        assert self.last is not None  # noqa: S101  # it has begun
        while True:
            lines = await select_event_lines(connection, account_id, self.last, PAGE)
            self.reads += 1
            if not lines:
                return
            self._kept += lines
            if len(self._kept) > 2 * KEPT:
                del self._kept[:-KEPT]
            self.last = lines[-1].seq
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def read(self, after: int, *, fresh: bool = False) -> list[EventLine]:
        """The events behind `after`, PAGE of them at most, in order; none where it is the newest.

        fresh: also those whose NOTIFY is still on its way, so that a client sees what it has just done.
        Raises Problem where there is no account, or where `after` is of a sequence that this database does not have.
        """
        if not fresh and self.last is not None and after == self.last:
            return []
        first = self._kept[0].seq if self._kept else None
        if not fresh and first is not None and first - 1 <= after <= self._kept[-1].seq:
            begin = after + 1 - first
            return self._kept[begin : begin + PAGE]
        account_id = await self._account_id()
        lines = await select_event_lines(self._pool, account_id, after, PAGE)
        if not lines and after > await select_last_seq(self._pool, account_id):
            raise Problem(
                "cursor_ahead",
                f"after={after} is ahead of the newest event: the database was restored, or it is another account's. "
                "Read the calls anew, and begin again without it.",
            )
        return lines

    async def news(self, after: int, seconds: float) -> bool:
        """Wait until there is an event behind `after`, for so long at most; says whether there is one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.stopping and (self.last is None or self.last <= after):
                    await self._news.wait()
        return self.last is not None and self.last > after

    def stop(self) -> None:
        """Let all who wait go home."""
        self.stopping = True
        self._look.set()
        self._tell()
