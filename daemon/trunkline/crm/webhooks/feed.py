"""From the sequence of events to deliveries: each event once for each webhook that asks for it.

NOTIFY says that there are events; what counts is each webhook's place in the sequence, which moves in the transaction
that makes its deliveries. So nothing is lost where a NOTIFY, a daemon or the database is, and two daemons that hand
over at once take turns at the webhooks' rows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

import structlog

from trunkline.crm.webhooks import zammad
from trunkline.crm.webhooks.message import ZAMMAD
from trunkline.store.events import CHANNEL
from trunkline.store.faults import of_the_server, summary
from trunkline.store.pool import Connection, Pool, raise_if_cancelled
from trunkline.store.webhook_line import (
    Behind,
    Handed,
    Happening,
    hand_over,
    lock_behind,
    select_behind,
    select_happenings,
    select_told,
)

Enqueue = Callable[[Connection, Sequence[UUID]], Awaitable[None]]
"""Make a job for each of these webhooks, in the connection's transaction."""

PAGE: Final = 500  # events handed over in one transaction
LOOK_S: Final = 5.0  # how late events are seen whose NOTIFY was lost
_AGAIN_S: Final = 3.0  # after the database was away
_ONLY_IF_NAMED: Final = frozenset({"agent", "queue"})

log = structlog.get_logger(__name__)


class Feed:
    """Hands events over, of every account."""

    def __init__(self, pool: Pool, enqueue: Enqueue) -> None:
        self._pool = pool
        self._enqueue = enqueue
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Never returns; a database that is away is waited for."""
        while True:
            try:
                await self._listen()
            except Exception as error:
                raise_if_cancelled()
                if of_the_server(error):
                    log.warning("webhooks.feed_away", error=summary(error), again_in_s=_AGAIN_S)
                else:
                    log.exception("webhooks.feed_failed")
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self) -> None:
        """Hand over for as long as the connection holds that listens."""

        def wake(*_: Any) -> None:
            self._told.set()

        async with self._pool.acquire() as connection:
            connection.add_termination_listener(wake)
            await connection.add_listener(CHANNEL, wake)
            try:
                while not connection.is_closed():
                    self._told.clear()
                    await self.hand_over()
                    try:
                        async with asyncio.timeout(LOOK_S):
                            await self._told.wait()
                    except TimeoutError:
                        await connection.fetchval("SELECT 1")  # notices a connection that is gone
            finally:
                connection.remove_termination_listener(wake)
                if not connection.is_closed():
                    await connection.remove_listener(CHANNEL, wake)

    async def hand_over(self) -> None:
        """Make deliveries of all events there are. Raises as asyncpg does."""
        for account_id in await select_behind(self._pool):
            while await self._hand_over_page(account_id):
                pass

    async def _hand_over_page(self, account_id: UUID) -> bool:
        """Hand over the next events of an account; whether there are more."""
        async with self._pool.acquire() as connection, connection.transaction():
            behind = await lock_behind(connection, account_id)
            if not behind:
                return False
            first = min(webhook.last_seq for webhook in behind)
            page = await select_happenings(connection, account_id, first, PAGE)
            if not page:
                return False
            handed = await _handed(connection, behind, page)
            await hand_over(connection, account_id, [webhook.id for webhook in behind], page[-1].seq, handed)
            given = {one.webhook_id for one in handed}
            if idle := [webhook.id for webhook in behind if webhook.idle and webhook.id in given]:
                await self._enqueue(connection, idle)
        return len(page) == PAGE


async def _handed(connection: Connection, behind: Sequence[Behind], page: Sequence[Happening]) -> list[Handed]:
    """Which events each webhook is told of, in order."""
    handed = []
    for webhook in behind:
        wanted = [
            event for event in page if event.seq > webhook.last_seq and _asked_for(event.type, webhook.event_types)
        ]
        if webhook.profile == ZAMMAD:
            handed += await _handed_to_zammad(connection, webhook.id, wanted)
        else:
            handed += [Handed(webhook.id, event.seq, event.type, None) for event in wanted]
    return handed


def _asked_for(type_: str, event_types: Sequence[str]) -> bool:
    """Who names nothing is told of all but what changes all the time: agents and queues."""
    room = type_.partition(".")[0]
    if not event_types:
        return room not in _ONLY_IF_NAMED
    return type_ in event_types or f"{room}.*" in event_types


async def _handed_to_zammad(connection: Connection, webhook_id: UUID, wanted: Sequence[Happening]) -> list[Handed]:
    named = [
        (event, name)
        for event in wanted
        if (name := zammad.once(event.type, event.direction, str(event.call_id or "") or None, event.merged_id))
    ]
    asked = {name for _, name in named} | {before for _, name in named if (before := zammad.needs(name))}
    told = {name for _, name in await select_told(connection, [webhook_id], sorted(asked))} if asked else set()
    handed = []
    for event, name in named:
        before = zammad.needs(name)
        if name not in told and (before is None or before in told):
            told.add(name)
            handed.append(Handed(webhook_id, event.seq, event.type, name))
    return handed
