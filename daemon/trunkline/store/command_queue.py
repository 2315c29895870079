"""Commands as the core sees them: taken by one run of one core, in time, and ended once.

A row that is taken has a lease. Only the run that took it may say what became of it, and only while the lease lasts:
afterwards it is `unknown`, and nobody does it again, for a call that was ordered twice is two calls.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid4

import msgspec
import structlog

from trunkline.store.commands import ASKED, Arguments, Kind, ending, expiring
from trunkline.store.faults import of_the_server, summary
from trunkline.store.integration import PBX_INTEGRATION
from trunkline.store.pool import Connection, Pool, raise_if_cancelled
from trunkline.store.writer_sql import INSERT_INTEGRATIONS

POLL_S: Final = 1.0  # how late one may be seen whose NOTIFY was lost
RINGING_LEASE_S: Final = 90.0  # of what waits for somebody to pick up
LEASE_S: Final = 30.0
KEEP_DAYS: Final = 30
_PURGE_EVERY: Final = 3600.0

_CLAIM: Final = f"""
WITH due AS (
    SELECT command.id, integration.external_id AS pbx
    FROM command
    JOIN integration ON integration.id = command.integration_id
    JOIN account ON account.id = command.account_id
    WHERE account.name = $1 AND integration.integration_id = $2 AND integration.external_id = ANY ($3::text[])
        AND command.state = 'pending' AND command.not_after > clock_timestamp() AND upper(command.kind) = ANY ($6)
    ORDER BY command.created_at
    LIMIT $5
    FOR UPDATE OF command SKIP LOCKED
)
UPDATE command SET state = 'claimed', claimed_at = clock_timestamp(), claimed_by = $4,
    lease_until = clock_timestamp()
        + make_interval(secs => CASE WHEN kind IN ('dial', 'supervise') THEN {RINGING_LEASE_S} ELSE {LEASE_S} END)
FROM due
WHERE command.id = due.id
RETURNING command.id, due.pbx, upper(kind) AS kind, arguments, extract(epoch FROM not_after - clock_timestamp())::float8
    AS left_s, extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease_s
"""

_FINISH: Final = ending("""
    UPDATE command SET state = $3, code = $4, detail = $5, result = $6::jsonb, finished_at = clock_timestamp()
    WHERE id = $1 AND claimed_by = $2 AND state = 'claimed'
""")

_EXPIRE: Final = expiring("account_id = (SELECT id FROM account WHERE name = $1)")

_PURGE: Final = f"""
DELETE FROM command WHERE account_id = (SELECT id FROM account WHERE name = $1)
    AND created_at < now() - interval '{KEEP_DAYS} days'
"""

log = structlog.get_logger(__name__)


class Claimed(NamedTuple):
    """A command that is ours to carry out.

    asked_at: of time.monotonic(), before it was taken. left_s: within which it has to be begun from then on, by the
    database's clock; lease_s: and to be over.
    """

    id: UUID
    pbx: str
    kind: Kind
    arguments: Arguments | None  # None: nobody can read them
    asked_at: float
    left_s: float
    lease_s: float


class Outcome(NamedTuple):
    """What became of a command."""

    state: Literal["done", "failed", "unknown"]
    code: str | None = None
    detail: str | None = None
    result: dict[str, Any] | None = None


class CommandQueue:
    """The commands of one account for one run of a core; on the asyncio thread. `take` is for one task at a time."""

    def __init__(self, pool: Pool, account: str) -> None:
        self._pool = pool
        self._account = account
        self.run_id = uuid4()
        self._connection: Connection | None = None  # that listens
        self._look = asyncio.Event()
        self._said = False
        self._known: set[str] = set()  # PBXs that have their row
        self._swept_at = 0.0
        self._purged_at: float | None = None

    async def take(self, pbxs: list[str], most: int) -> list[Claimed]:
        """Wait for commands for these PBXs, POLL_S at most, and take them. A database that is away is waited for."""
        try:
            connection = await self._listening()
            self._look.clear()
            await self._prepare(connection, pbxs)
            claimed = await self._claim(connection, pbxs, most)
            if not claimed:
                await self._sweep(connection)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._look.wait()
                self._look.clear()
                claimed = await self._claim(connection, pbxs, most)
            self._said = False
        except Exception as error:
            raise_if_cancelled()
            await self.close()
            if not self._said and of_the_server(error):
                log.warning("commands.queue_away", error=summary(error))
            elif not self._said:  # a bug of ours, which costs commands and no calls
                log.exception("commands.queue_failed")
            self._said = True
            await asyncio.sleep(POLL_S)
            return []
        return claimed

    async def finish(self, command_id: UUID, outcome: Outcome) -> None:
        """Say what became of a command of ours. Raises as asyncpg does."""
        result = None if outcome.result is None else msgspec.json.encode(outcome.result).decode()
        await self._pool.execute(_FINISH, command_id, self.run_id, outcome.state, outcome.code, outcome.detail, result)

    async def close(self) -> None:
        """Listen no more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()  # to give it back it would have to be asked, and it may never answer
            with suppress(Exception):
                await self._pool.release(connection)  # type: ignore[arg-type]  # it is the pool's

    def cut(self) -> None:
        """Hang up on PostgreSQL."""
        self._pool.terminate()

    async def _listening(self) -> Connection:
        if self._connection is None:
            self._connection = await self._pool.acquire()
            self._connection.add_termination_listener(lambda _: self._look.set())
            await self._connection.add_listener(ASKED, lambda *_: self._look.set())
        return self._connection

    async def _prepare(self, connection: Connection, pbxs: list[str]) -> None:
        """A PBX has its row before its first call, so that one can be ordered."""
        if not self._known.issuperset(pbxs):
            await connection.execute(INSERT_INTEGRATIONS, self._account, PBX_INTEGRATION, pbxs)
            self._known.update(pbxs)

    async def _claim(self, connection: Connection, pbxs: list[str], most: int) -> list[Claimed]:
        asked_at = time.monotonic()
        asked = (self._account, PBX_INTEGRATION, pbxs, self.run_id, most, list(Kind))
        rows: list[Any] = await connection.fetch(_CLAIM, *asked)
        return [
            Claimed(
                row["id"],
                row["pbx"],
                Kind(row["kind"]),
                _read(row["arguments"]),
                asked_at,
                row["left_s"],
                row["lease_s"],
            )
            for row in rows
        ]

    async def _sweep(self, connection: Connection) -> None:
        """What nobody took in time, and what died with its core, is over; what is old goes."""
        now = asyncio.get_running_loop().time()
        if now - self._swept_at < POLL_S:
            return
        self._swept_at = now
        if ended := await connection.fetchval(_EXPIRE, self._account):
            log.warning("commands.expired", commands=ended)
        if self._purged_at is None or now - self._purged_at > _PURGE_EVERY:
            self._purged_at = now
            await connection.execute(_PURGE, self._account)


def _read(arguments: str) -> Arguments | None:
    try:
        return msgspec.json.decode(arguments, type=Arguments)
    except msgspec.DecodeError:
        return None
