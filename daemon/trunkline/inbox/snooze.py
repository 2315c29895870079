"""Snoozed conversations come back once their time has come; a call that comes in wakes them before (telephony.py)."""

import asyncio
from typing import Final

import structlog

from trunkline.store.conversations import WOKEN, events_of, select_waking, wake
from trunkline.store.events import insert_events
from trunkline.store.faults import of_the_server, summary
from trunkline.store.pool import Pool, raise_if_cancelled

EVERY_S: Final = 5.0
_AT_ONCE: Final = 100  # conversations of an account in a transaction

log = structlog.get_logger(__name__)


class Waker:
    """Wakes the conversations of all accounts; several daemons may do it at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def run(self) -> None:
        """Never returns; a database that is away is waited for."""
        while True:
            try:
                await self.sweep()
            except Exception as error:
                raise_if_cancelled()
                if of_the_server(error):
                    log.warning("inbox.waking_failed", error=summary(error), again_in_s=EVERY_S)
                else:
                    log.exception("inbox.waking_failed")
            await asyncio.sleep(EVERY_S)

    async def sweep(self) -> int:
        """Wake what is due; how many. Raises as asyncpg does."""
        count = 0
        for account_id in await select_waking(self._pool):
            async with self._pool.acquire() as connection, connection.transaction():
                woken = await wake(connection, account_id, _AT_ONCE)
                told = await events_of(connection, account_id, [(WOKEN, id_) for id_ in woken])
                if told:
                    await insert_events(connection, account_id, told)
                count += len(woken)
        return count
