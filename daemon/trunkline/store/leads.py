"""The rows of leads: read, changed, merged. A lead's first number is in its own row, further ones are in `lead_phone`.

Who changes calls gives way to the writer of calls: `giving_way`.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from trunkline.store.keyset import Listing, Order, Sort
from trunkline.store.pool import Connection, Pool

MOST_PHONES: Final = 10  # that a client may give a lead; a merge may leave more
LINKED_MOST: Final = 200  # calls of a number, of each direction and status, that a new lead is given

LeadStatus = Literal["NEW", "CONTACTED", "QUALIFIED", "CONVERTED", "LOST"]


class Phone(msgspec.Struct, frozen=True):
    """A number of a lead."""

    number: str  # as it was typed
    e164: str | None  # what callers are matched by; None: it is no number that one can be called from


class Lead(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Somebody who calls, or is called."""

    id: UUID
    name: str
    phone: str | None  # the first of `phones`, as it was typed
    phones: list[Phone]
    email: str | None
    status: LeadStatus
    source: str | None  # where it came from
    external_id: str | None  # its id in another CRM
    metadata: Any  # an object or null; what came from the old schema may be whatever JSON is
    created_at: datetime
    updated_at: datetime


class Values(NamedTuple):
    """What of a lead can be changed."""

    name: str = ""
    phones: Sequence[Phone] = ()
    email: str | None = None
    status: str = "NEW"
    source: str | None = None
    external_id: str | None = None
    metadata: Any = None


_COLUMNS: Final = """lead.id, lead.name, lead.phone, lead.phone_e164, lead.email, upper(lead.status) AS status,
    lead.source, lead.external_id, lead.metadata, lead.created_at, lead.updated_at,
    (SELECT jsonb_agg(jsonb_build_object('number', further.number, 'e164', further.e164) ORDER BY further.position)
     FROM lead_phone AS further
     WHERE further.lead_id = lead.id AND further.account_id = lead.account_id) AS further"""

LEADS: Final = Listing(
    select=f"SELECT {_COLUMNS} FROM lead",
    table="lead",
    orders={"createdAt": Order("created_at", "timestamptz"), "updatedAt": Order("updated_at", "timestamptz")},
    default=Sort("createdAt", True),
)

# Of leads with this number, which are few: as a list of ids, so that the planner goes by it and not by the order.
BY_PHONE: Final = """lead.id = ANY (ARRAY(
    SELECT id FROM lead AS first WHERE first.account_id = $1 AND first.phone_e164 = {0}
    UNION ALL
    SELECT lead_id FROM lead_phone AS further WHERE further.account_id = $1 AND further.e164 = {0}
))"""
BY_EMAIL: Final = "lead.email = ANY ({0}::text[]) AND octet_length(lead.email) <= 254"
BY_TEXT: Final = """(lead.name ILIKE {0} OR lead.email ILIKE {0} OR lead.phone ILIKE {0} OR lead.phone_e164 LIKE {0}
    OR EXISTS (SELECT FROM lead_phone AS further WHERE further.lead_id = lead.id AND further.account_id = $1
               AND (further.number ILIKE {0} OR further.e164 LIKE {0})))"""

_SELECT: Final = f"SELECT {_COLUMNS} FROM lead WHERE lead.account_id = $1 AND lead.id = $2"
_SELECT_SOME: Final = f"SELECT {_COLUMNS} FROM lead WHERE lead.account_id = $1 AND lead.id = ANY ($2::uuid[])"
_SELECT_ALIAS: Final = "SELECT lead_id FROM lead_alias WHERE account_id = $1 AND folded_id = $2"
_LOCK: Final = "SELECT id FROM lead WHERE account_id = $1 AND id = ANY ($2::uuid[]) ORDER BY id FOR NO KEY UPDATE"
_LOCK_WHOLE: Final = "SELECT id FROM lead WHERE account_id = $1 AND id = $2 FOR UPDATE"

# $1 the account; then an array of each. Who has an externalId that is taken is left out.
_INSERT: Final = """
INSERT INTO lead (account_id, id, name, phone, phone_e164, email, status, source, external_id, metadata)
SELECT $1, new.id, new.name, new.phone, new.e164, new.email, lower(new.status), new.source, new.external_id,
    new.metadata
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::jsonb[]) AS new (id, name, phone, e164, email, status, source, external_id, metadata)
ON CONFLICT (account_id, external_id) WHERE external_id IS NOT NULL DO NOTHING
RETURNING id
"""
_UPDATE: Final = """
UPDATE lead SET name = $3, phone = $4, phone_e164 = $5, email = $6, status = lower($7), source = $8,
    external_id = $9, metadata = $10::jsonb, updated_at = now()
WHERE account_id = $1 AND id = $2
"""
_DELETE: Final = "DELETE FROM lead WHERE account_id = $1 AND id = $2"
_DELETE_PHONES: Final = "DELETE FROM lead_phone WHERE account_id = $1 AND lead_id = $2"
_INSERT_PHONES: Final = """
INSERT INTO lead_phone (account_id, lead_id, position, number, e164, lead_created_at)
SELECT $1, lead.id, new.position, new.number, new.e164, lead.created_at
FROM unnest($2::uuid[], $3::integer[], $4::text[], $5::text[]) AS new (lead_id, position, number, e164)
JOIN lead ON lead.id = new.lead_id AND lead.account_id = $1
"""

# The lead's calls before it: those of its numbers that are nobody's, and that nobody has said are nobody's.
_SELECT_UNLINKED: Final = f"""
SELECT run.id, run.conversation_id, wanted.lead_id
FROM (
    SELECT number, lead_id FROM unnest($2::text[], $3::uuid[]) AS given (number, lead_id)
    WHERE EXISTS (SELECT FROM call WHERE account_id = $1 AND from_e164 = given.number)
       OR EXISTS (SELECT FROM call WHERE account_id = $1 AND to_e164 = given.number)
) AS wanted
CROSS JOIN unnest($4::text[]) AS s (status)
CROSS JOIN LATERAL (
    (SELECT id, conversation_id FROM call
     WHERE account_id = $1 AND direction = 'inbound' AND status = s.status AND from_e164 = wanted.number
         AND lead_id IS NULL AND NOT from_private
     ORDER BY started_at DESC, id DESC LIMIT {LINKED_MOST})
    UNION ALL
    (SELECT id, conversation_id FROM call
     WHERE account_id = $1 AND direction = 'outbound' AND status = s.status AND to_e164 = wanted.number
         AND lead_id IS NULL
     ORDER BY started_at DESC, id DESC LIMIT {LINKED_MOST})
) AS run
WHERE NOT EXISTS (SELECT FROM call_note WHERE call_note.call_id = run.id AND call_note.account_id = $1
                  AND call_note.lead_chosen)
"""
_LOCK_CALLS: Final = """
SELECT id FROM call WHERE account_id = $1 AND id = ANY ($2::uuid[]) ORDER BY id FOR NO KEY UPDATE
"""
_LINK_CALLS: Final = """
UPDATE call SET lead_id = found.lead_id FROM unnest($2::uuid[], $3::uuid[]) AS found (id, lead_id)
WHERE call.account_id = $1 AND call.id = found.id AND call.lead_id IS NULL
"""
_LINK_CONVERSATIONS: Final = """
UPDATE conversation SET lead_id = found.lead_id FROM unnest($2::uuid[], $3::uuid[]) AS found (id, lead_id)
WHERE conversation.account_id = $1 AND conversation.id = found.id AND conversation.lead_id IS NULL
"""
_SELECT_CONVERSATIONS: Final = """
SELECT conversation.id, wanted.lead_id
FROM unnest($2::text[], $3::uuid[]) AS wanted (number, lead_id)
CROSS JOIN unnest('{telephony,whatsapp,telegram}'::text[]) AS c (channel)
CROSS JOIN LATERAL (
    SELECT id FROM conversation
    WHERE account_id = $1 AND channel = c.channel AND contact = wanted.number AND status = 'open' AND lead_id IS NULL
    LIMIT 1
) AS conversation
"""

# What refers to a lead, and follows it when it is merged.
_FOLLOWING: Final = ("call", "conversation", "deal", "booking", "lead_alias")
_FOLLOW: Final = "UPDATE {} SET lead_id = $3 WHERE account_id = $1 AND lead_id = $2"
_INSERT_ALIAS: Final = "INSERT INTO lead_alias (account_id, folded_id, lead_id) VALUES ($1, $2, $3)"

_SELECT_EXTERNAL_IDS: Final = "SELECT id, external_id FROM lead WHERE account_id = $1 AND id = ANY ($2::uuid[])"
_SELECT_BY_EXTERNAL_ID: Final = """
SELECT wanted.external_id, lead.id FROM unnest($2::text[]) AS wanted (external_id)
CROSS JOIN LATERAL (
    SELECT id FROM lead WHERE lead.account_id = $1 AND lead.external_id = wanted.external_id LIMIT 1
) AS lead
"""

_IMPATIENT: Final = "SET LOCAL lock_timeout = '400ms'"
_PATIENT: Final = "SET LOCAL lock_timeout = 0"
_TRIES: Final = 6

_decode_phones: Final = msgspec.json.Decoder(list[Phone]).decode
_decode_metadata: Final = msgspec.json.Decoder(Any).decode
_STATUSES: Final = (
    "ringing", "queued", "in_progress", "completed", "missed", "no_answer", "abandoned", "voicemail", "busy", "failed",
)  # fmt: skip


def lead_of_row(row: Any) -> Lead:
    """The lead of a row of `LEADS`."""
    phones = [] if row["phone"] is None else [Phone(row["phone"], row["phone_e164"])]
    if row["further"] is not None:
        phones += _decode_phones(row["further"])
    return Lead(
        id=row["id"],
        name=row["name"],
        phone=row["phone"],
        phones=phones,
        email=row["email"],
        status=row["status"],
        source=row["source"],
        external_id=row["external_id"],
        metadata=None if row["metadata"] is None else _decode_metadata(row["metadata"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def values_of(lead: Lead) -> Values:
    """What of a lead can be changed, as it is."""
    return Values(lead.name, lead.phones, lead.email, lead.status, lead.source, lead.external_id, lead.metadata)


async def select_lead(database: Connection | Pool, account_id: UUID, lead_id: UUID) -> Lead | None:
    """A lead of the account; None where it has none of this id."""
    row = await database.fetchrow(_SELECT, account_id, lead_id)
    return None if row is None else lead_of_row(row)


async def select_leads(database: Connection | Pool, account_id: UUID, ids: Collection[UUID]) -> list[Lead]:
    """Leads of the account."""
    return [lead_of_row(row) for row in await database.fetch(_SELECT_SOME, account_id, list(ids))]


async def select_survivor(database: Connection | Pool, account_id: UUID, lead_id: UUID) -> UUID | None:
    """The lead that one of this id was merged into; None: none was."""
    found: UUID | None = await database.fetchval(_SELECT_ALIAS, account_id, lead_id)
    return found


async def lock_lead(connection: Connection, account_id: UUID, lead_id: UUID) -> Lead | None:
    """As select_lead; it stays as it is until the transaction's end."""
    await connection.fetch(_LOCK, account_id, [lead_id])
    return await select_lead(connection, account_id, lead_id)


async def insert_leads(connection: Connection, account_id: UUID, leads: Sequence[tuple[UUID, Values]]) -> set[UUID]:
    """Add leads, each with the id that is given with it; those that were added. Left out: whose externalId is taken."""
    added = await connection.fetch(
        _INSERT,
        account_id,
        [id_ for id_, _ in leads],
        [values.name for _, values in leads],
        [values.phones[0].number if values.phones else None for _, values in leads],
        [values.phones[0].e164 if values.phones else None for _, values in leads],
        [values.email for _, values in leads],
        [values.status for _, values in leads],
        [values.source for _, values in leads],
        [values.external_id for _, values in leads],
        [_json(values.metadata) for _, values in leads],
    )
    ids = {row["id"] for row in added}
    await _insert_phones(connection, account_id, [(id_, values.phones) for id_, values in leads if id_ in ids])
    await link_past(connection, account_id, [(id_, values.phones) for id_, values in leads if id_ in ids])
    return ids


async def update_lead(connection: Connection, account_id: UUID, before: Lead, values: Values) -> Lead | None:
    """Change a lead that is locked; as it is then. None: its externalId is another one's."""
    first = values.phones[0] if values.phones else Phone("", None)
    try:
        async with connection.transaction():
            await connection.execute(
                _UPDATE,
                *(account_id, before.id, values.name, first.number or None, first.e164, values.email, values.status),
                *(values.source, values.external_id, _json(values.metadata)),
            )
    except asyncpg.UniqueViolationError:
        return None
    if list(values.phones) != before.phones:
        await connection.execute(_DELETE_PHONES, account_id, before.id)
        await _insert_phones(connection, account_id, [(before.id, values.phones)])
        known = {phone.e164 for phone in before.phones}
        await link_past(
            connection, account_id, [(before.id, [phone for phone in values.phones if phone.e164 not in known])]
        )
    return await select_lead(connection, account_id, before.id)


async def delete_lead(connection: Connection, account_id: UUID, lead_id: UUID) -> None:
    """Delete a lead; its calls, conversations, deals and bookings are nobody's then."""

    async def delete() -> None:
        await connection.execute(_DELETE, account_id, lead_id)

    await giving_way(connection, delete)


async def lock_two(connection: Connection, account_id: UUID, one: UUID, other: UUID) -> tuple[Lead | None, Lead | None]:
    """Two leads, locked in an order that is always the same."""
    await connection.fetch(_LOCK, account_id, sorted((one, other)))
    return await select_lead(connection, account_id, one), await select_lead(connection, account_id, other)


async def merge_leads(connection: Connection, account_id: UUID, into: Lead, folded: Lead) -> Lead:
    """Fold a lead into another one, both locked: what refers to it follows, what the other lacks it gets.

    A call that the writer stores for the folded lead meanwhile follows too.
    """

    async def move() -> None:
        for table in _FOLLOWING:
            await connection.execute(_FOLLOW.format(table), account_id, folded.id, into.id)

    async def fold() -> None:
        await move()
        # Until here a writer could still match it. Who did has committed once this is granted, and is moved as well.
        await connection.execute(_LOCK_WHOLE, account_id, folded.id)
        await move()
        await connection.execute(_DELETE, account_id, folded.id)

    await giving_way(connection, fold)
    await connection.execute(_INSERT_ALIAS, account_id, folded.id, into.id)
    merged = await update_lead(connection, account_id, into, _merged(into, folded))
    assert merged is not None  # noqa: S101  # the externalId was its own, or of the one that is gone
    return merged


async def link_past(connection: Connection, account_id: UUID, leads: Sequence[tuple[UUID, Sequence[Phone]]]) -> None:
    """Give leads the calls and open conversations of their numbers that are nobody's.

    The newest calls: LINKED_MOST of a number, direction and status.
    """
    numbers: dict[str, UUID] = {}
    for lead_id, phones in leads:
        for phone in phones:
            if phone.e164 is not None:
                numbers.setdefault(phone.e164, lead_id)
    if not numbers:
        return
    wanted = (account_id, list(numbers), list(numbers.values()))
    calls = await connection.fetch(_SELECT_UNLINKED, *wanted, list(_STATUSES))
    conversations = {row["conversation_id"]: row["lead_id"] for row in calls if row["conversation_id"] is not None}
    for row in await connection.fetch(_SELECT_CONVERSATIONS, *wanted):
        conversations.setdefault(row["id"], row["lead_id"])
    ids = [row["id"] for row in calls]

    async def link() -> None:
        await connection.fetch(_LOCK_CALLS, account_id, ids)
        await connection.execute(_LINK_CALLS, account_id, ids, [row["lead_id"] for row in calls])
        await connection.execute(_LINK_CONVERSATIONS, account_id, list(conversations), list(conversations.values()))

    if ids or conversations:
        await giving_way(connection, link)


async def select_leads_by_external_id(
    connection: Connection, account_id: UUID, external_ids: Sequence[str]
) -> dict[str, UUID]:
    """The lead of each externalId that one has."""
    rows = await connection.fetch(_SELECT_BY_EXTERNAL_ID, account_id, external_ids)
    return {row["external_id"]: row["id"] for row in rows}


async def select_external_ids(
    connection: Connection, account_id: UUID, lead_ids: Sequence[UUID]
) -> dict[UUID, str | None]:
    """The externalId of each lead."""
    rows = await connection.fetch(_SELECT_EXTERNAL_IDS, account_id, lead_ids)
    return {row["id"]: row["external_id"] for row in rows}


def _merged(into: Lead, folded: Lead) -> Values:
    """What stands in the one that stays; from the other one what it lacks."""
    phones = {phone.e164 or phone.number: phone for phone in (*folded.phones, *into.phones)}
    kept = {phone.e164 or phone.number: None for phone in (*into.phones, *folded.phones)}
    metadata = into.metadata or folded.metadata
    if isinstance(into.metadata, dict) and isinstance(folded.metadata, dict):
        metadata = {**folded.metadata, **into.metadata}
    return Values(
        into.name or folded.name,
        [phones[key] for key in kept],
        into.email or folded.email,
        into.status,
        into.source or folded.source,
        into.external_id or folded.external_id,
        metadata,
    )


async def _insert_phones(
    connection: Connection, account_id: UUID, leads: Sequence[tuple[UUID, Sequence[Phone]]]
) -> None:
    """Those behind the first one of each lead."""
    rows = [(id_, n, phone) for id_, phones in leads for n, phone in enumerate(phones) if n > 0]
    if rows:
        await connection.execute(
            _INSERT_PHONES,
            account_id,
            [id_ for id_, _, _ in rows],
            [n for _, n, _ in rows],
            [phone.number for _, _, phone in rows],
            [phone.e164 for _, _, phone in rows],
        )


async def giving_way(connection: Connection, work: Callable[[], Awaitable[None]]) -> None:
    """Do what locks calls; whenever others hold what it needs, let all go and do it again.

    Of two who wait for each other PostgreSQL ends one after a second: that is never to be the writer of calls. Raises
    LockNotAvailableError in the end.
    """
    for left in reversed(range(_TRIES)):
        try:
            async with connection.transaction():
                await connection.execute(_IMPATIENT)
                await work()
                await connection.execute(_PATIENT)
                return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if not left:
                raise


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
