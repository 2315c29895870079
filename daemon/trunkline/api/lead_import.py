"""`POST /api/v1/leads/import`: leads of a CSV file, read as it comes, written in batches, with a report.

Each batch is a transaction of its own: whoever sends a file again, whole or mended, finds there what is there already.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import msgspec
from aiohttp import web

from trunkline.api.change import short_transaction
from trunkline.api.contract import QUERY
from trunkline.api.leads import NewLead, read_phones, told
from trunkline.api.parameters import shortened
from trunkline.api.problem import Problem, bad_parameter
from trunkline.api.state import DEADLINE, STATE, State, json_response
from trunkline.calls.record import encode
from trunkline.crm.csv_rows import CsvReader, Record, Unreadable
from trunkline.crm.matching import select_leads_by_number
from trunkline.store.events import NewEvent, insert_events
from trunkline.store.leads import (
    Phone,
    Values,
    insert_leads,
    lock_lead,
    select_external_ids,
    select_leads,
    select_leads_by_external_id,
    update_lead,
    values_of,
)
from trunkline.store.pool import Connection

LONGEST_FILE: Final = 32 * 1024 * 1024  # bytes
MOST_ROWS: Final = 100_000
BATCH: Final = 200  # rows of one transaction
MOST_ERRORS: Final = 1000  # that a report lists; all are counted
PAUSE_S: Final = 10.0  # that a client may let us wait for more
LONGEST_S: Final = 600.0
_AT_ONCE: Final = 20  # rows that are read before others have a turn: finding a number's E.164 takes 0.1 ms

# What a column is called, in small letters and without anything between; several columns may hold phones.
_HEADERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("name", "fullname", "displayname"), "name"),
    **dict.fromkeys(("firstname", "givenname"), "firstName"),
    **dict.fromkeys(("lastname", "familyname", "surname"), "lastName"),
    **dict.fromkeys(("phone", "phones", "phonenumber", "telephone", "tel", "mobile", "mobilephone"), "phone"),
    **dict.fromkeys(("email", "emailaddress", "mail"), "email"),
    "status": "status",
    **dict.fromkeys(("source", "leadsource"), "source"),
    **dict.fromkeys(("externalid", "crmid"), "externalId"),
}
FIELDS: Final = ("name", "firstName", "lastName", "phone", "email", "status", "source", "externalId")
_OVER: Final = web.RequestKey("import_over", float)  # by the loop's clock
_NO_LETTER: Final = re.compile(r"[^a-z]")


class RowError(msgspec.Struct):
    """A row that was not taken."""

    line: int  # of the file, from 1, where the row begins
    message: str


class ImportReport(msgspec.Struct, rename="camel", kw_only=True):
    """What became of a file. rows = created + updated + skipped + failed."""

    dry_run: bool
    rows: int = 0
    created: int = 0
    updated: int = 0
    skipped: int = 0  # a lead with the same externalId or number was there, or earlier in the file
    failed: int = 0
    errors: list[RowError] = []  # the first MOST_ERRORS
    ignored_columns: list[str] = []


class _Row(NamedTuple):
    line: int
    values: Values
    given: frozenset[str]  # the fields that the row fills

    @property
    def numbers(self) -> list[str]:
        return [phone.e164 for phone in self.values.phones if phone.e164]


async def import_leads(request: web.Request) -> web.Response:
    """Take the leads of a CSV file; what became of each row."""
    _check_form(request)
    asked = request[QUERY]
    state = request.app[STATE]
    importing = _Import(
        state,
        await state.account_id(),
        mapping=_mapping(asked.get("map", ())),
        dry_run=_one_of(asked, "dryRun", ("0", "1")) == "1",
        update=_one_of(asked, "onDuplicate", ("skip", "update")) == "update",
    )
    reader = CsvReader()
    try:
        async for chunk, end in _chunks(request):
            for record in reader.feed(chunk, end=end):
                await importing.take(record)
                _prolong(request)
        await importing.flush()
    except Unreadable as stop:
        if not importing.report.rows:
            raise Problem("bad_csv", f"{stop}.") from None
        await importing.flush()
        told_of = msgspec.to_builtins(importing.report)
        raise Problem(
            "import_stopped",
            f"{stop}. What stands before that was taken, as `report` says; send the rest, or the whole file mended.",
            report=told_of,
        ) from None
    if importing.columns is None:
        raise Problem("bad_csv", "line 1: the file is empty; its first line has to name the columns.")
    return json_response(request, encode(importing.report))


class _Import:
    """One file on its way into the database."""

    def __init__(
        self, state: State, account_id: UUID, *, mapping: Mapping[str, str], dry_run: bool, update: bool
    ) -> None:
        self.report = ImportReport(dry_run=dry_run)
        self.columns: list[str | None] | None = None  # the field of each column; None: not read yet
        self._state = state
        self._account_id = account_id
        self._mapping = mapping
        self._update = update
        self._rows: list[_Row] = []
        self._ids: set[str] = set()  # externalIds of the file
        self._numbers: dict[str, str | None] = {}  # those of the file, with the externalId of the first row that has it

    async def take(self, record: Record) -> None:
        """Take the header, or a row."""
        if self.columns is None:
            self.columns = self._read_header(record)
            return
        if self.report.rows == MOST_ROWS:
            raise Unreadable(f"line {record.line}: a file may have {MOST_ROWS} rows; send it in parts")
        self.report.rows += 1
        if self.report.rows % _AT_ONCE == 0:
            await asyncio.sleep(0)
        row = self._read(record)
        if row is None:
            return
        own_id = row.values.external_id
        shared = [number for number in row.numbers if number in self._numbers]
        if own_id in self._ids or shared:
            if self._update:
                await self.flush()  # the one before it has to be there
            elif own_id in self._ids or not all(_differ(own_id, self._numbers[number]) for number in shared):
                self.report.skipped += 1
                return
        if own_id is not None:
            self._ids.add(own_id)
        for number in row.numbers:
            self._numbers.setdefault(number, own_id)
        self._rows.append(row)
        if len(self._rows) == BATCH:
            await self.flush()

    async def flush(self) -> None:
        """Write what was taken. Raises as asyncpg does."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        async with short_transaction(self._state) as connection:
            twins = await self._twins(connection, rows)
            new = [row for row, twin in zip(rows, twins, strict=True) if twin is None]
            known = [(row, twin) for row, twin in zip(rows, twins, strict=True) if twin is not None]
            if self.report.dry_run:
                self._count(len(new), len(known) if self._update else 0, 0 if self._update else len(known))
                return
            events = await self._create(connection, new)
            created = len(events)
            if self._update:
                changed = [await self._change(connection, row, twin) for row, twin in known]
                events += [event for event in changed if event is not None]
            if events:
                await insert_events(connection, self._account_id, events)
        updated = len(known) if self._update else 0
        self._count(created, updated, len(rows) - created - updated)

    def _count(self, created: int, updated: int, skipped: int) -> None:
        self.report.created += created
        self.report.updated += updated
        self.report.skipped += skipped

    async def _twins(self, connection: Connection, rows: Sequence[_Row]) -> list[UUID | None]:
        """The lead that each row is already: by its externalId, else as a caller with one of its numbers is matched.

        Those that the CRM tells apart by their externalIds are not one for a number that they share.
        """
        ids = [row.values.external_id for row in rows if row.values.external_id]
        by_id = await select_leads_by_external_id(connection, self._account_id, ids) if ids else {}
        numbers = sorted({number for row in rows for number in row.numbers})
        by_number = await select_leads_by_number(connection, self._account_id, numbers) if numbers else {}
        known_as = await select_external_ids(connection, self._account_id, sorted(set(by_number.values())))
        twins = []
        for row in rows:
            own_id = row.values.external_id
            sharing = (by_number[number] for number in row.numbers if number in by_number)
            twin = by_id.get(own_id or "") or next((id_ for id_ in sharing if not _differ(own_id, known_as[id_])), None)
            if twin in known_as and own_id and self._update:
                known_as[twin] = own_id  # it gets it by this row
            twins.append(twin)
        return twins

    async def _create(self, connection: Connection, rows: Sequence[_Row]) -> list[NewEvent]:
        """Make leads; the events that tell of them. Somebody else may have taken an externalId this moment."""
        if not rows:
            return []
        made = await insert_leads(connection, self._account_id, [(uuid4(), row.values) for row in rows])
        return [told("lead.created", lead) for lead in await select_leads(connection, self._account_id, made)]

    async def _change(self, connection: Connection, row: _Row, lead_id: UUID) -> NewEvent | None:
        """Fill in what the row has; None where that was there already."""
        lead = await lock_lead(connection, self._account_id, lead_id)
        if lead is None:
            return None
        before = values_of(lead)
        given: dict[str, Any] = {name: getattr(row.values, name) for name in row.given}
        if "phones" in given:
            known = {phone.e164 or phone.number for phone in before.phones}
            further = [phone for phone in row.values.phones if (phone.e164 or phone.number) not in known]
            given["phones"] = [*before.phones, *further]
        after = before._replace(**given)
        if after == before:
            return None
        changed = await update_lead(connection, self._account_id, lead, after)
        return None if changed is None else told("lead.updated", changed)

    def _read_header(self, record: Record) -> list[str | None]:
        if record.fault is not None:
            raise Unreadable(f"line {record.line}: {record.fault}")
        columns: list[str | None] = []
        wanted = dict(self._mapping)
        for header in record.fields:
            field = wanted.pop(header.strip(), None) or (
                _HEADERS.get(_NO_LETTER.sub("", header.lower())) if not self._mapping else None
            )
            columns.append(field)
            if field is None and header.strip():
                self.report.ignored_columns.append(shortened(header.strip()))
        if wanted:
            raise Unreadable(f"line {record.line}: there is no column {shortened(next(iter(wanted)))!r}")
        single = [field for field in columns if field not in (None, "phone")]
        if twice := next((field for field in single if single.count(field) > 1), None):
            raise Unreadable(f"line {record.line}: {twice} is two columns; name one with map={twice}:HEADER")
        if not {"name", "firstName", "lastName", "phone", "email", "externalId"} & set(columns):
            raise Unreadable(
                f"line {record.line}: no column is one of {', '.join(FIELDS)}; name them with map=FIELD:HEADER"
            )
        return columns

    def _read(self, record: Record) -> _Row | None:
        """The lead of a row; None where it is none, which is in the report then."""
        assert self.columns is not None  # noqa: S101  # the header was first
        fault = record.fault
        if fault is None and len(record.fields) > len(self.columns):
            fault = f"has {len(record.fields)} fields, and the header {len(self.columns)}"
        if fault is not None:
            self._refuse(record.line, fault)
            return None
        found: dict[str, Any] = {}
        for field, text in zip(self.columns, record.fields, strict=False):
            if field is None or not (text := text.strip()):
                continue
            if field == "phone":
                found.setdefault("phones", []).append(text)
            else:
                found[field] = text
        names = [found.pop(part) for part in ("firstName", "lastName") if part in found]
        if names:
            found.setdefault("name", " ".join(names))
        if "status" in found:
            found["status"] = found["status"].upper()
        if not found:
            self._refuse(record.line, "is empty")
            return None
        try:
            lead = msgspec.convert(found, NewLead)
        except msgspec.ValidationError as error:
            self._refuse(record.line, str(error))
            return None
        phones: list[Phone] = read_phones(lead.phones, self._state.region)
        email = lead.email and lead.email.lower()
        values = Values(lead.name, phones, email, lead.status, lead.source, lead.external_id)
        given = frozenset("external_id" if name == "externalId" else name for name in found)
        return _Row(record.line, values, given)

    def _refuse(self, line: int, message: str) -> None:
        self.report.failed += 1
        if len(self.report.errors) < MOST_ERRORS:
            self.report.errors.append(RowError(line, message))


def _differ(one: str | None, other: str | None) -> bool:
    """Whether these are the externalIds of two leads; one without any may be either."""
    return one is not None and other is not None and one != other


async def _chunks(request: web.Request) -> AsyncIterator[tuple[bytes, bool]]:
    """The body as it comes, and whether that was all of it. Raises Unreadable where it is too long."""
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > LONGEST_FILE:
            raise Unreadable(f"byte {LONGEST_FILE}: a file may have so many bytes; send it in parts")
        _prolong(request)
        yield chunk, False
    yield b"", True


def _prolong(request: web.Request) -> None:
    """There is more time for who goes on sending, up to LONGEST_S."""
    loop = asyncio.get_running_loop()
    if _OVER not in request:
        request[_OVER] = loop.time() + LONGEST_S
    request[DEADLINE].reschedule(min(loop.time() + PAUSE_S, request[_OVER]))


def _check_form(request: web.Request) -> None:
    if request.content_type != "text/csv" or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise Problem("not_csv", "The body has to be CSV in UTF-8: send it with `Content-Type: text/csv`.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("not_csv", "Content-Encoding: send the file as it is, not compressed.")


def _one_of(asked: Mapping[str, list[str]], name: str, allowed: Sequence[str]) -> str:
    """A parameter's value; the first that is allowed where it is not given. Raises Problem."""
    value = asked[name][0] if name in asked else allowed[0]
    if value not in allowed:
        raise bad_parameter(name, f"{shortened(value)!r} is not allowed; allowed: {', '.join(allowed)}.")
    return value


def _mapping(asked: Sequence[str]) -> dict[str, str]:
    """Fields by the header of their column. Raises Problem."""
    found: dict[str, str] = {}
    for text in asked:
        field, _, header = text.partition(":")
        if field not in FIELDS or not header.strip():
            raise bad_parameter(
                "map", f"{shortened(text)!r} is not FIELD:HEADER; FIELD is one of {', '.join(FIELDS)}.", allowed=FIELDS
            )
        found[header.strip()] = field
    return found
