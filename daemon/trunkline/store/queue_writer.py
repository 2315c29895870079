"""Queues and agents into their rows, and what has changed into the live sequence.

Only the newest state counts. What PostgreSQL does not take is kept in memory, each thing once, until it does. Nothing
of it is spooled: after a restart the PBX is asked anyway.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

import msgspec
import structlog

from trunkline.calls.queue_record import QueuesUpdate
from trunkline.store import queue_sql as sql
from trunkline.store import writer_sql
from trunkline.store.bounded import bounded_transaction
from trunkline.store.change import LONGEST_KEY
from trunkline.store.faults import of_the_server, summary
from trunkline.store.integration import PBX_INTEGRATION
from trunkline.store.pool import Connection, Pool

DEADLINE_S: Final = 5.0

_log: Final = structlog.get_logger()


class QueueWriter:
    """Writes the queues of one account's PBXs, and whether each PBX is seen. Lives on the asyncio thread."""

    def __init__(self, pool: Pool, account_name: str) -> None:
        self._pool = pool
        self._account_name = account_name
        self._pending: dict[str, QueuesUpdate] = {}  # by PBX
        self.events = 0
        self.refused = 0  # updates that PostgreSQL refused for what is in them

    async def write(self, updates: Iterable[QueuesUpdate], connected: Mapping[str, bool]) -> None:
        """Store what has changed, and of each PBX whether it is seen now. Never fails for a database that is away."""
        for update in updates:
            held = self._pending.get(update.pbx)
            self._pending[update.pbx] = update if held is None else held.then(update)
        for pbx, seen in connected.items():
            try:
                async with bounded_transaction(self._pool, DEADLINE_S) as connection:
                    events = await self._write_pbx(connection, pbx, seen, self._pending.get(pbx))
            except Exception as error:
                if of_the_server(error):
                    return  # the calls' writer says so, and what to do
                self.refused += 1
                _log.error("queues.write_refused", pbx=pbx, reason=summary(error), todo="please report it")
            else:
                self.events += events
            self._pending.pop(pbx, None)

    async def _write_pbx(self, connection: Connection, pbx: str, seen: bool, update: QueuesUpdate | None) -> int:
        """How many events it made."""
        account_id, integration_id = await self._integration(connection, pbx)
        before = await connection.fetchval(sql.SELECT_CONNECTED, integration_id)
        await connection.execute(sql.UPSERT_STATE, integration_id, account_id, seen)
        told: list[tuple[str, str]] = []
        if update is not None:
            told += await _write_update(connection, account_id, integration_id, update)
        if bool(before) != seen:
            told.append(("queue.connected" if seen else "queue.disconnected", _json({"pbx": pbx, "connected": seen})))
        if told:
            types, data = map(list, zip(*told, strict=True))
            await connection.execute(sql.INSERT_EVENTS, account_id, len(told), types, data)
        return len(told)

    async def _integration(self, connection: Connection, pbx: str) -> tuple[UUID, UUID]:
        names = (self._account_name, PBX_INTEGRATION, [pbx[:LONGEST_KEY]])
        found = await connection.fetch(writer_sql.LOCK_INTEGRATIONS, *names)
        if not found:
            await connection.execute(writer_sql.INSERT_ACCOUNT, self._account_name)
            await connection.execute(writer_sql.INSERT_INTEGRATIONS, *names)
            found = await connection.fetch(writer_sql.LOCK_INTEGRATIONS, *names)
        return found[0]["account_id"], found[0]["id"]


async def _write_update(
    connection: Connection, account_id: UUID, integration_id: UUID, update: QueuesUpdate
) -> list[tuple[str, str]]:
    """Write it; what has come of it, as (type, data)."""
    queues = [queue for queue in update.queues.values() if queue is not None]
    members = [member for member in update.members.values() if member is not None]
    agents = list(update.agents.values())
    gone_queues = [name for name, queue in update.queues.items() if queue is None]
    gone_members = [key for key, member in update.members.items() if member is None]
    changed: set[UUID] = set()  # queues
    extensions: set[str] = set()
    if update.whole:
        removed = await connection.fetch(sql.DELETE_OTHER_QUEUES, integration_id, [queue.name for queue in queues])
        gone = await connection.fetch(
            sql.DELETE_OTHER_MEMBERS,
            integration_id,
            [member.queue for member in members],
            [member.interface for member in members],
        )
        left = await connection.fetch(sql.LOG_OUT_OTHERS, integration_id, [agent.extension for agent in agents])
        extensions |= {row["extension"] for row in left}
    else:
        removed = await connection.fetch(sql.DELETE_QUEUES, integration_id, gone_queues)
        gone = await connection.fetch(
            sql.DELETE_MEMBERS, integration_id, [name for name, _ in gone_members], [each for _, each in gone_members]
        )
    rows = [
        (await connection.fetch(statement, account_id, integration_id, _json(records)) if records else [])
        for statement, records in (
            (sql.UPSERT_QUEUES, queues),
            (sql.UPSERT_MEMBERS, members),
            (sql.UPSERT_AGENTS, agents),
        )
    ]
    changed |= {row["id"] for row in rows[0]} | {row["queue_id"] for row in (*rows[1], *gone)}
    extensions |= {row["extension"] for row in (*rows[1], *rows[2], *gone)}
    told = [("queue.removed", row["data"]) for row in removed]
    told += [("queue.updated", row["data"]) for row in await connection.fetch(sql.SELECT_QUEUES_TOLD, list(changed))]
    found = await connection.fetch(sql.SELECT_AGENTS_TOLD, integration_id, list(extensions))
    return told + [("agent.status", row["data"]) for row in found]


def _json(value: object) -> str:
    """As PostgreSQL takes it: without NUL."""
    return msgspec.json.encode(value).replace(b"\\u0000", b"\\ufffd").decode()
