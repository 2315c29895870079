"""What is kept for a while only: the audit, and tries to log in that nobody adds to."""

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from trunkline.store.audit import purge_audit
from trunkline.store.faults import of_the_server, summary
from trunkline.store.login_tries import purge_tries
from trunkline.store.pool import Pool, raise_if_cancelled

EVERY_S: Final = 3600.0

log = structlog.get_logger(__name__)


class Upkeep:
    """Of one account; several daemons may do it at once. The pool is of a role that may remove what the API may not."""

    def __init__(self, pool: Pool, account: str, audit_days: int) -> None:
        self._pool = pool
        self._account = account
        self._kept = timedelta(days=audit_days)

    async def run(self) -> None:
        """Never returns; a database that is away is waited for."""
        while True:
            try:
                await self.look()
            except Exception as error:
                raise_if_cancelled()
                if of_the_server(error):
                    log.warning("identity.upkeep_failed", error=summary(error), again_in_s=EVERY_S)
                else:
                    log.exception("identity.upkeep_failed")
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Remove what is over. Raises as asyncpg does."""
        await purge_tries(self._pool, self._account)
        if count := await purge_audit(self._pool, self._account, self._kept):
            log.info("identity.audit_purged", entries=count, older_than_days=self._kept.days)
