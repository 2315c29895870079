"""Conversations of the channel TELEPHONY: one open one with each customer, whoever of several writers opens it.

A closed conversation stays closed, as it was when it was dealt with; the customer's next call opens a new one.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from trunkline.store.linking import Customer
from trunkline.store.pool import Connection

# Ordered by contact, so that two writers which want the same ones wait for each other instead of deadlocking.
# A lead or a name that is there already stays: a human may have put it there.
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
RETURNING contact, id
"""


async def upsert_conversations(
    connection: Connection, account_id: UUID, customers: Sequence[tuple[Customer, UUID | None]]
) -> dict[str, UUID]:
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
    return {row["contact"]: row["id"] for row in rows}
