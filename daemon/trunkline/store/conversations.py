"""The rows of conversations: as the API lists and changes them, as they sleep and wake, and what events tell of them.

A conversation is OPEN, SNOOZED (open, and put aside until a time or until something new comes) or CLOSED. Whoever
changes one locks its row first, and tells of it as the last thing before the commit (store/events.py).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError

from trunkline.store.events import NewEvent
from trunkline.store.keyset import Listing, Order, Sort
from trunkline.store.pool import Connection, Pool

CREATED: Final = "conversation.created"
ASSIGNED: Final = "conversation.assigned"
SNOOZED: Final = "conversation.snoozed"
WOKEN: Final = "conversation.woken"
CLOSED: Final = "conversation.closed"
REOPENED: Final = "conversation.reopened"
READ: Final = "conversation.read"
UNREAD: Final = "conversation.unread"
UPDATED: Final = "conversation.updated"

Channel = Literal["TELEPHONY", "WHATSAPP", "TELEGRAM"]
Status = Literal["OPEN", "SNOOZED", "CLOSED"]


class Conversation(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """All that is exchanged with one customer on one channel until it is closed."""

    id: UUID
    channel: Channel
    contact: str | None  # the customer's address there: E.164 where it has such a form
    contact_name: str | None
    lead_id: UUID | None
    integration_id: UUID | None
    status: Status
    assigned_user_id: UUID | None
    snoozed_until: datetime | None
    unread_count: int  # missed calls and messages since somebody read it
    created_at: datetime
    last_at: datetime  # of the newest call, message or note
    closed_at: datetime | None


class Unread(msgspec.Struct, rename="camel", frozen=True):
    """How many conversations hold something unread."""

    all: int
    mine: int  # assigned to the user who asks; 0 for a key
    unassigned: int


class Change(NamedTuple):
    """A conversation as it is to be; what is not told of here stays as it was."""

    status: Literal["open", "closed"]
    assigned_user_id: UUID | None
    snoozed_until: datetime | None
    contact_name: str | None
    lead_id: UUID | None
    unread_count: int


_COLUMNS: Final = """id, upper(channel) AS channel, contact, contact_name, lead_id, integration_id,
    CASE WHEN snoozed_until IS NOT NULL THEN 'SNOOZED' ELSE upper(status) END AS status, assigned_user_id,
    snoozed_until, unread_count, created_at, last_at, closed_at"""

CONVERSATIONS: Final = Listing(
    select=f"SELECT {_COLUMNS} FROM conversation",
    table="conversation",
    orders={"lastAt": Order("last_at", "timestamptz")},
    default=Sort("lastAt", descending=True),
)

_SELECT: Final = f"SELECT {_COLUMNS} FROM conversation WHERE account_id = $1 AND id = $2"
_LOCK: Final = f"{_SELECT} FOR UPDATE"
_SELECT_SEVERAL: Final = f"SELECT {_COLUMNS} FROM conversation WHERE account_id = $1 AND id = ANY ($2::uuid[])"
_UPDATE: Final = f"""
UPDATE conversation SET
    status = $3, assigned_user_id = $4, snoozed_until = $5, contact_name = $6, lead_id = $7, unread_count = $8,
    closed_at = CASE WHEN $3 = 'closed' THEN coalesce(closed_at, now()) END
WHERE account_id = $1 AND id = $2
RETURNING {_COLUMNS}
"""
_READ_MESSAGES: Final = """
UPDATE message SET read_at = now(), status = 'read'
WHERE account_id = $1 AND conversation_id = $2 AND direction = 'inbound' AND read_at IS NULL
"""
_TOUCH: Final = f"""
UPDATE conversation SET last_at = greatest(last_at, now()) WHERE account_id = $1 AND id = $2 RETURNING {_COLUMNS}
"""
_COUNT_UNREAD: Final = """
SELECT count(*), count(*) FILTER (WHERE assigned_user_id = $2), count(*) FILTER (WHERE assigned_user_id IS NULL)
FROM conversation WHERE account_id = $1 AND unread_count > 0
"""
_IS_USER: Final = "SELECT EXISTS (SELECT FROM app_user WHERE account_id = $1 AND id = $2 AND disabled_at IS NULL)"
_IS_LEAD: Final = "SELECT EXISTS (SELECT FROM lead WHERE account_id = $1 AND id = $2)"

# Of one account at a time, for its events; in one order, and none that somebody is changing.
_SELECT_WAKING: Final = """
SELECT DISTINCT account_id FROM conversation WHERE snoozed_until IS NOT NULL AND snoozed_until <= now()
"""
_WAKE: Final = """
UPDATE conversation SET snoozed_until = NULL
WHERE id = ANY (ARRAY(
    SELECT id FROM conversation WHERE account_id = $1 AND snoozed_until IS NOT NULL AND snoozed_until <= now()
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
))
RETURNING id
"""

_encode: Final = msgspec.json.Encoder().encode


async def select_conversation(
    database: Connection | Pool, account_id: UUID, conversation_id: UUID
) -> Conversation | None:
    """A conversation of an account."""
    row = await database.fetchrow(_SELECT, account_id, conversation_id)
    return None if row is None else conversation_of(row)


async def lock_conversation(connection: Connection, account_id: UUID, conversation_id: UUID) -> Conversation | None:
    """A conversation of an account, which nobody else changes until the commit."""
    row = await connection.fetchrow(_LOCK, account_id, conversation_id)
    return None if row is None else conversation_of(row)


async def update_conversation(
    connection: Connection, account_id: UUID, conversation_id: UUID, change: Change, *, read: bool
) -> Conversation | None:
    """Change a conversation that is locked; None where another one with the customer is open already.

    read: somebody has read its messages.
    """
    try:
        async with connection.transaction():
            row = await connection.fetchrow(_UPDATE, account_id, conversation_id, *change)
    except UniqueViolationError:
        return None
    if read:
        await connection.execute(_READ_MESSAGES, account_id, conversation_id)
    return conversation_of(row)


async def touch_conversation(connection: Connection, account_id: UUID, conversation_id: UUID) -> Conversation:
    """Something happened in it just now."""
    return conversation_of(await connection.fetchrow(_TOUCH, account_id, conversation_id))


async def count_unread(database: Connection | Pool, account_id: UUID, user_id: UUID | None) -> Unread:
    """How many conversations of an account hold something unread."""
    row: Any = await database.fetchrow(_COUNT_UNREAD, account_id, user_id)
    return Unread(*row)


async def is_user(database: Connection | Pool, account_id: UUID, user_id: UUID) -> bool:
    """Has the account this user, and may he log in?"""
    return bool(await database.fetchval(_IS_USER, account_id, user_id))


async def is_lead(database: Connection | Pool, account_id: UUID, lead_id: UUID) -> bool:
    """Has the account this lead?"""
    return bool(await database.fetchval(_IS_LEAD, account_id, lead_id))


async def select_waking(database: Connection | Pool) -> list[UUID]:
    """Accounts with conversations whose time has come."""
    return [row["account_id"] for row in await database.fetch(_SELECT_WAKING)]


async def wake(connection: Connection, account_id: UUID, limit: int) -> list[UUID]:
    """Wake some of an account's conversations whose time has come."""
    return [row["id"] for row in await connection.fetch(_WAKE, account_id, limit)]


async def events_of(connection: Connection, account_id: UUID, told: Sequence[tuple[str, UUID]]) -> list[NewEvent]:
    """Events of conversations, as (type, id) in order, each with the conversation as it is now."""
    if not told:
        return []
    rows: list[Any] = await connection.fetch(_SELECT_SEVERAL, account_id, list({id_ for _, id_ in told}))
    found = {row["id"]: conversation_of(row) for row in rows}
    return [event_of(type_, found[id_]) for type_, id_ in told if id_ in found]


def event_of(type_: str, conversation: Conversation) -> NewEvent:
    """What is told of a conversation."""
    return NewEvent(
        type_,
        _encode({"conversation": conversation}),
        lead_id=conversation.lead_id,
        conversation_id=conversation.id,
    )


def conversation_of(row: Any) -> Conversation:
    """The conversation of a row."""
    return Conversation(**{field: row[field] for field in Conversation.__struct_fields__})
