"""The one writer of calls: a batch of changes in, rows and events in one transaction out.

Invariants, whatever comes twice, late or torn:
- A Call has one row per (PBX, externalId); its revision only grows; its legs are those of that revision.
- Each happening has one event, written with the first revision that carries it.
- What is refused is said (WriteResult.refused) and never takes others with it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple
from uuid import UUID, uuid4

import msgspec
from asyncpg import ForeignKeyViolationError, Record

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Status
from trunkline.store import writer_sql as sql
from trunkline.store.bounded import bounded_transaction
from trunkline.store.change import LONGEST_KEY, Change, Key, change_of, coalesce, encoded
from trunkline.store.conversations import events_of
from trunkline.store.events import insert_events
from trunkline.store.faults import of_the_server, summary
from trunkline.store.integration import PBX_INTEGRATION
from trunkline.store.linking import (
    Customer,
    Links,
    MarkMissed,
    MatchLeads,
    OpenConversations,
    contact_of,
    customer_of,
    find_links,
)
from trunkline.store.pool import Connection, Pool
from trunkline.store.recordings import EnqueueRecordings

# Rows of one transaction: enough that statements cost nothing a row, few enough that others of the account wait for ms.
BATCH: Final = 500
# A path is in a unique index, with characters of up to four bytes in 2,700.
_LONGEST_PATH: Final = 600
# How often a batch is begun anew because a lead that was matched went: merged, the other one is matched.
_MATCHED_AGAIN: Final = 5

_MERGED: Final = "call.merged"
_ENDED: Final = "call.ended"
_NOT_TAKEN: Final = frozenset({Status.MISSED, Status.ABANDONED, Status.BUSY, Status.VOICEMAIL})
_UNLINKED: Final = Links()


class Refused(NamedTuple):
    """A change that the database won't take, and why."""

    change: Change
    reason: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the changes of a write."""

    written: int = 0
    stale: int = 0  # older than what is stored, or of a Call that was folded into another
    events: int = 0
    refused: tuple[Refused, ...] = ()

    def __add__(self, other: "WriteResult") -> "WriteResult":
        return WriteResult(
            self.written + other.written,
            self.stale + other.stale,
            self.events + other.events,
            self.refused + other.refused,
        )


class _Ready(NamedTuple):
    """A change that is encoded."""

    change: Change
    record: CallRecord  # as PostgreSQL can hold it
    json: bytes


class _Row(NamedTuple):
    """A change that will be written, and where."""

    change: Change
    record: CallRecord
    json: bytes
    id: UUID
    integration_id: UUID
    stored: Record | None


class _Fold(NamedTuple):
    """A row that goes because its Call was folded into another."""

    old_id: UUID
    external_id: str
    into_id: UUID


class CallWriter:
    """Writes the calls of one account. Safe beside other writers of the same account and PBX."""

    def __init__(
        self,
        pool: Pool,
        account_name: str,
        *,
        leads: MatchLeads | None = None,
        conversations: OpenConversations | None = None,
        missed: MarkMissed | None = None,
        recordings: EnqueueRecordings | None = None,
        deadline_s: float = 5.0,
    ) -> None:
        """`leads` and `conversations` (crm/, inbox/) link a Call to its customer; None leaves that link empty.

        `missed` is told of calls that came in and that nobody took; None leaves their conversations read.
        `recordings` has those that have ended uploaded; None leaves them where they are.
        A transaction that takes longer than `deadline_s` counts as the server being away.
        """
        self.pool = pool
        self.account_name = account_name
        self._leads = leads
        self._conversations = conversations
        self._missed = missed
        self._recordings = recordings
        self._deadline_s = deadline_s

    async def write(self, updates: Iterable[CallUpdate]) -> WriteResult:
        """Store what the tracker hands out.

        Raises what `faults.of_the_server` knows when the database is away; then nothing, a part, or all is stored, and
        the same updates may be written again.
        """
        return await self.write_changes([change_of(update) for update in updates])

    async def write_changes(self, changes: Iterable[Change]) -> WriteResult:
        """Store changes; as `write`."""
        ready: list[_Ready] = []
        result = WriteResult()
        for change in coalesce(changes).values():
            try:
                ready.append(_Ready(change, *encoded(change.record)))
            except Exception as error:  # whatever it is, it is this record's
                result += WriteResult(refused=(Refused(change, summary(error)),))
        for start in range(0, len(ready), BATCH):
            result += await self._write_or_split(ready[start : start + BATCH])
        return result

    async def _write_or_split(self, batch: Sequence[_Ready], again: int = _MATCHED_AGAIN) -> WriteResult:
        """Write a batch; when the database refuses it, halve it until the record at fault is alone."""
        try:
            return await self._transaction(batch)
        except Exception as error:
            if of_the_server(error):
                raise
            if again and isinstance(error, ForeignKeyViolationError):  # a lead that was matched has gone since
                return await self._write_or_split(batch, again - 1)
            if len(batch) == 1:
                return WriteResult(refused=(Refused(batch[0].change, summary(error)),))
        half = len(batch) // 2
        return await self._write_or_split(batch[:half]) + await self._write_or_split(batch[half:])

    async def _transaction(self, batch: Sequence[_Ready]) -> WriteResult:
        async with bounded_transaction(self.pool, self._deadline_s) as connection:
            return await self._write_batch(connection, batch)

    async def _write_batch(self, connection: Connection, batch: Sequence[_Ready]) -> WriteResult:
        account_id, integrations = await self._lock_integrations(connection, {ready.record.pbx for ready in batch})
        rows, folds, aliases = await _select_rows(connection, batch, integrations)
        if not rows:
            return WriteResult(stale=len(batch))
        links = await self._links(connection, account_id, rows)
        written = await _upsert_calls(connection, account_id, rows, links)
        rows = [row for row in rows if row.id in written]
        await _replace_legs(connection, account_id, rows)
        await _fold(connection, account_id, [fold for fold in folds if fold.into_id in written], aliases)
        ended = await _upsert_recordings(connection, account_id, rows)
        if ended and self._recordings is not None:
            await self._recordings(connection, ended)
        told = [*_opened(links), *await self._mark_missed(connection, account_id, rows)]
        if told:  # before those of their calls, whose readers may ask for the conversation
            await insert_events(connection, account_id, await events_of(connection, account_id, told))
        events = await _insert_events(connection, account_id, rows, folds)
        return WriteResult(written=len(rows), stale=len(batch) - len(rows), events=events)

    async def _mark_missed(
        self, connection: Connection, account_id: UUID, rows: Sequence[_Row]
    ) -> Sequence[tuple[str, UUID]]:
        """Have the conversations of calls that ended and that nobody took say so; what is to be told of them."""
        missed = [row.id for row in rows if _is_missed(row)]
        return await self._missed(connection, account_id, missed) if missed and self._missed is not None else ()

    async def _lock_integrations(self, connection: Connection, names: set[str]) -> tuple[UUID, dict[str, UUID]]:
        """The account and its integration for each PBX, made where they are missing, locked until the commit."""
        ordered = sorted(names)
        found = await connection.fetch(sql.LOCK_INTEGRATIONS, self.account_name, PBX_INTEGRATION, ordered)
        if len(found) < len(ordered):
            await connection.execute(sql.INSERT_ACCOUNT, self.account_name)
            await connection.execute(sql.INSERT_INTEGRATIONS, self.account_name, PBX_INTEGRATION, ordered)
            found = await connection.fetch(sql.LOCK_INTEGRATIONS, self.account_name, PBX_INTEGRATION, ordered)
        return found[0]["account_id"], {row["pbx"]: row["id"] for row in found}

    async def _links(self, connection: Connection, account_id: UUID, rows: Sequence[_Row]) -> list[Links]:
        """The links of each row; empty for those whose customer was known before."""
        if self._leads is None and self._conversations is None:
            return [_UNLINKED] * len(rows)
        customers = [_new_customer(row) for row in rows]
        new = [customer for customer in customers if customer is not None]
        found = await find_links(connection, account_id, new, self._leads, self._conversations) if new else {}
        return [_UNLINKED if customer is None else found[customer.contact] for customer in customers]


async def _select_rows(
    connection: Connection, batch: Sequence[_Ready], integrations: dict[str, UUID]
) -> tuple[list[_Row], list[_Fold], list[tuple[UUID, str, UUID]]]:
    """What of the batch is news, the rows it folds away, and its aliases as (integration, externalId, into)."""
    wanted = dict.fromkeys(
        (integrations[ready.record.pbx], external_id)
        for ready in batch
        for external_id in (ready.record.external_id, *ready.record.aliases)
    )
    found = await connection.fetch(sql.SELECT_STORED, [key[0] for key in wanted], [key[1] for key in wanted])
    stored = {(row["integration_id"], row["external_id"]): row for row in found}
    rows: list[_Row] = []
    folds: dict[UUID, _Fold] = {}
    aliases: list[tuple[UUID, str, UUID]] = []
    folded = _folded_keys(batch)
    for ready in batch:
        record = ready.record
        integration_id = integrations[record.pbx]
        held = stored.get((integration_id, record.external_id))
        if Key(record.pbx, record.external_id) in folded or not _is_news(record, held):
            continue
        call_id = uuid4() if held is None else held["id"]
        rows.append(_Row(ready.change, record, ready.json, call_id, integration_id, held))
        for alias in set(record.aliases) - {record.external_id}:
            other = stored.get((integration_id, alias))
            if other is None or other["folded_into"] != call_id:
                aliases.append((integration_id, alias, call_id))
            if other is not None and other["id"] is not None and other["id"] != call_id:
                folds[other["id"]] = _Fold(other["id"], alias, call_id)
    return rows, list(folds.values()), aliases


def _folded_keys(batch: Sequence[_Ready]) -> set[Key]:
    """The Calls of a batch that others of it have taken in; of two that claim each other the first one stays."""
    folded: set[Key] = set()
    for ready in batch:
        record = ready.record
        if Key(record.pbx, record.external_id) not in folded:
            folded.update(Key(record.pbx, alias) for alias in record.aliases if alias != record.external_id)
    return folded


def _is_news(record: CallRecord, held: Record | None) -> bool:
    """Whether a record is newer than what is stored, and its Call was not folded into another."""
    if held is None:
        return True
    return held["folded_into"] is None and held["revision"] < record.revision


def _new_customer(row: _Row) -> Customer | None:
    """The customer of a row when this write is the first to know one."""
    customer = customer_of(row.record, row.integration_id)
    held = row.stored
    if customer is None or held is None:
        return customer
    direction = Direction(held["direction"].upper())
    e164 = held["from_e164"] if direction is Direction.INBOUND else held["to_e164"]
    known = contact_of(direction, held["from_number"], held["to_number"], held["from_private"], e164)
    return customer if known is None else None


def _opened(links: Sequence[Links]) -> list[tuple[str, UUID]]:
    """What happened to conversations by being linked, each once."""
    told = {link.conversation_id: link.told for link in links if link.conversation_id and link.told}
    return [(type_, conversation_id) for conversation_id, type_ in told.items()]


def _is_missed(row: _Row) -> bool:
    """Whether this write is the one that tells the end of a call that came in and that nobody took."""
    known = 0 if row.stored is None else row.stored["revision"]
    return (
        row.record.direction is Direction.INBOUND
        and row.record.status in _NOT_TAKEN
        and any(happening.type == _ENDED and happening.revision > known for happening in row.change.happened)
    )


async def _upsert_calls(
    connection: Connection, account_id: UUID, rows: Sequence[_Row], links: Sequence[Links]
) -> set[UUID]:
    """Write calls; the ids of those that were written."""
    written = await connection.fetch(
        sql.UPSERT_CALLS,
        (b"[" + b",".join(row.json for row in rows) + b"]").decode(),
        [row.id for row in rows],
        [row.integration_id for row in rows],
        [link.lead_id for link in links],
        [link.conversation_id for link in links],
        account_id,
    )
    return {row["id"] for row in written}


async def _replace_legs(connection: Connection, account_id: UUID, rows: Sequence[_Row]) -> None:
    legs = {
        (row.id, leg.channel_id[:LONGEST_KEY]): (position, leg)
        for row in rows
        for position, leg in enumerate(row.record.legs)
    }
    call_ids = [call_id for call_id, _ in legs]
    channel_ids = [channel_id for _, channel_id in legs]
    updated = [row.id for row in rows if row.stored is not None]
    if updated:
        await connection.execute(sql.DELETE_LEGS, updated, call_ids, channel_ids)
    await connection.execute(
        sql.UPSERT_LEGS,
        msgspec.json.encode([leg for _, leg in legs.values()]).decode(),
        call_ids,
        channel_ids,
        [position for position, _ in legs.values()],
        account_id,
    )


async def _fold(
    connection: Connection, account_id: UUID, folds: Sequence[_Fold], aliases: Sequence[tuple[UUID, str, UUID]]
) -> None:
    """Move what refers to folded rows to the Calls they are part of, and let the rows go."""
    if folds:
        old_ids = [fold.old_id for fold in folds]
        into_ids = [fold.into_id for fold in folds]
        await connection.execute(sql.LOCK_FOLDED, old_ids)
        for statement in (
            sql.DELETE_TWIN_RECORDINGS,
            sql.MOVE_RECORDINGS,
            sql.MOVE_ALIASES,
            sql.MOVE_LINKS,
            sql.MOVE_NOTES,
        ):
            await connection.execute(statement, old_ids, into_ids)
        for statement in (sql.DELETE_FOLDED_RECORDINGS, sql.DELETE_FOLDED_CALLS):
            await connection.execute(statement, old_ids)
    if aliases:
        await connection.execute(sql.UPSERT_ALIASES, account_id, *map(list, zip(*aliases, strict=True)))
    if folds:
        await connection.execute(sql.SET_FOLDED, *map(list, zip(*folds, strict=True)))


async def _upsert_recordings(connection: Connection, account_id: UUID, rows: Sequence[_Row]) -> list[UUID]:
    """Write the recordings of calls; the ids of those that were news, have ended and are not stored."""
    files = [(row.id, file) for row in rows for file in row.record.recordings]
    if not files:
        return []
    written = await connection.fetch(
        sql.UPSERT_RECORDINGS,
        account_id,
        [call_id for call_id, _ in files],
        [file.channel_id for _, file in files],
        [file.path[:_LONGEST_PATH] for _, file in files],
        [file.kind.value.lower() for _, file in files],
        [file.started_at for _, file in files],
        [file.ended_at for _, file in files],
        [msgspec.json.encode(file.paused_spans).decode() for _, file in files],
    )
    first = [row.id for row in rows if row.record.recordings and not (row.stored and row.stored["recording_id"])]
    if first:
        await connection.execute(sql.SET_RECORDING, first)
    return [file["id"] for file in written if file["ended_at"] is not None and file["state"] == "pending"]


async def _insert_events(connection: Connection, account_id: UUID, rows: Sequence[_Row], folds: Sequence[_Fold]) -> int:
    """Write the events of a batch in order: those of happenings that are not stored yet. Returns how many."""
    told = [some for row in rows for some in _told(row, [fold for fold in folds if fold.into_id == row.id])]
    if not told:
        return 0
    firsts = [0, *accumulate(len(types) for _, types, _ in told)]
    await connection.execute(
        sql.INSERT_EVENTS,
        account_id,
        firsts.pop(),
        [call_id for call_id, _, _ in told],
        firsts,
        [" ".join(types) for _, types, _ in told],
        [more for _, _, more in told],
    )
    return sum(len(types) for _, types, _ in told)


def _told(row: _Row, folds: Sequence[_Fold]) -> Iterator[tuple[UUID, list[str], str | None]]:
    """The events of one row in order, as (call, types, JSON to add to their data).

    Of a merge is told where a row goes, as only then somebody was told of the other Call.
    """
    known = 0 if row.stored is None else row.stored["revision"]
    types = [happening.type for happening in row.change.happened if happening.revision > known]
    at = types.index(_MERGED) if _MERGED in types else len(types)
    before, after = types[:at], [kind for kind in types[at:] if kind != _MERGED]
    if before:
        yield row.id, before, None
    for fold in folds:
        yield row.id, [_MERGED], _merged_json(fold)
    if after:
        yield row.id, after, None


def _merged_json(fold: _Fold) -> str:
    return msgspec.json.encode({"mergedId": fold.old_id, "mergedExternalId": fold.external_id}).decode()
