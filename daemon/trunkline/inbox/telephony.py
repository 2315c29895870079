"""Conversations of the channel TELEPHONY: one open one with each customer, whoever of several writers opens it.

A closed conversation stays closed, as it was when it was dealt with; the customer's next call opens a new one. One that
sleeps is woken by a call that comes in. A call that came in and that nobody took leaves it unread.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from trunkline.store.conversations import CREATED, UNREAD, WOKEN
from trunkline.store.linking import Customer, Opened
from trunkline.store.pool import Connection

# Ordered by contact, so that two writers which want the same ones wait for each other instead of deadlocking.
# A lead or a name that is there already stays: a human may have put it there. A row without xmax was just made.
_UPSERT_CONVERSATIONS: Final = """
INSERT INTO conversation AS held (account_id, channel, contact, contact_name, lead_id, integration_id, last_at)
SELECT $1, 'telephony', customer.*
FROM unnest($2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::timestamptz[])
    AS customer (contact, contact_name, lead_id, integration_id, last_at)
ORDER BY customer.contact
ON CONFLICT (account_id, channel, contact) WHERE status = 'open' AND contact IS NOT NULL DO UPDATE SET
    contact_name = coalesce(held.contact_name, excluded.contact_name),
    lead_id = coalesce(held.lead_id, excluded.lead_id),
    last_at = greatest(held.last_at, excluded.last_at)
RETURNING contact, id, xmax = 0 AS created, snoozed_until IS NOT NULL AS asleep
"""
_WAKE: Final = "UPDATE conversation SET snoozed_until = NULL WHERE id = ANY ($1::uuid[])"

# Each call once: its end is told once. What of its conversation is unread then is counted from the calls themselves,
# for a batch may hold several of one.
_MARK_UNREAD: Final = """
WITH held AS (
    SELECT id FROM conversation
    WHERE account_id = $1 AND id IN (SELECT conversation_id FROM call WHERE call.id = ANY ($2::uuid[]))
    ORDER BY id FOR UPDATE
)
UPDATE conversation SET unread_count = unread_count + (
    SELECT count(*) FROM call WHERE call.id = ANY ($2::uuid[]) AND call.conversation_id = conversation.id
)
FROM held WHERE conversation.id = held.id
RETURNING conversation.id
"""


async def upsert_conversations(
    connection: Connection, account_id: UUID, customers: Sequence[tuple[Customer, UUID | None]]
) -> dict[str, Opened]:
    """The open conversation of each contact, opened where there is none; each contact may come only once."""
    rows = await connection.fetch(
        _UPSERT_CONVERSATIONS,
        account_id,
        [customer.contact for customer, _ in customers],
        [customer.name for customer, _ in customers],
        [lead_id for _, lead_id in customers],
        [customer.integration_id for customer, _ in customers],
        [customer.seen_at for customer, _ in customers],
    )
    calling = {customer.contact for customer, _ in customers if customer.calling}
    woken = [row["id"] for row in rows if row["asleep"] and row["contact"] in calling]
    if woken:
        await connection.execute(_WAKE, woken)
    told = {row["id"]: CREATED for row in rows if row["created"]} | dict.fromkeys(woken, WOKEN)
    return {row["contact"]: Opened(row["id"], told.get(row["id"])) for row in rows}


async def mark_missed(connection: Connection, account_id: UUID, call_ids: Sequence[UUID]) -> list[tuple[str, UUID]]:
    """Nobody took these calls: their conversations are unread. What is to be told, as (event, conversation)."""
    rows = await connection.fetch(_MARK_UNREAD, account_id, list(call_ids))
    return [(UNREAD, row["id"]) for row in rows]
