"""Whom a Call is with: what the writer asks crm/ and inbox/, which lie to its right and so are handed in.

Both are asked inside the writer's transaction, once in a Call's life: when its customer's number is first known. What a
human sets or clears afterwards stays.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from trunkline.calls.record import CallRecord, Direction
from trunkline.store.change import LONGEST_KEY
from trunkline.store.pool import Connection


class Customer(NamedTuple):
    """The outside party of a Call."""

    contact: str  # E.164 where the number has such a form, else the number as the PBX saw it
    e164: str | None
    name: str | None  # as the caller's side sent it; None for who was called
    seen_at: datetime
    integration_id: UUID
    calling: bool  # it is he who calls


class Opened(NamedTuple):
    """A conversation that a Call belongs to. told: the event that this gives, if any."""

    id: UUID
    told: str | None


class MatchLeads(Protocol):
    """Find the account's leads by their numbers in E.164."""

    async def __call__(
        self, connection: Connection, account_id: UUID, numbers: Sequence[str], /
    ) -> Mapping[str, UUID]: ...


class OpenConversations(Protocol):
    """Find or open the account's conversations by contact; each comes once, with the lead it was matched to."""

    async def __call__(
        self, connection: Connection, account_id: UUID, customers: Sequence[tuple[Customer, UUID | None]], /
    ) -> Mapping[str, Opened]: ...


class MarkMissed(Protocol):
    """Say in their conversations that nobody took these calls; what is to be told, as (event, conversation)."""

    async def __call__(
        self, connection: Connection, account_id: UUID, call_ids: Sequence[UUID], /
    ) -> Sequence[tuple[str, UUID]]: ...


class Links(NamedTuple):
    """What the writer stores of a Call's customer; told: what happened to the conversation by that."""

    lead_id: UUID | None = None
    conversation_id: UUID | None = None
    told: str | None = None


def contact_of(direction: Direction, from_: str, to: str, from_private: bool, e164: str | None) -> str | None:
    """The customer's address: None for INTERNAL calls, withheld numbers and what holds no digit ('anonymous', '')."""
    number = {Direction.INBOUND: from_, Direction.OUTBOUND: to, Direction.INTERNAL: ""}[direction]
    if (direction is Direction.INBOUND and from_private) or not any(c.isdigit() for c in number):
        return None
    return e164 or number[:LONGEST_KEY]


def customer_of(record: CallRecord, integration_id: UUID) -> Customer | None:
    """The customer of a Call; None where `contact_of` has none."""
    inbound = record.direction is Direction.INBOUND
    e164 = record.from_e164 if inbound else record.to_e164
    contact = contact_of(record.direction, record.from_, record.to, record.from_private, e164)
    if contact is None:
        return None
    name = record.caller_name if inbound else None
    return Customer(contact, e164, name, record.started_at, integration_id, inbound)


async def find_links(
    connection: Connection,
    account_id: UUID,
    customers: Sequence[Customer],
    leads: MatchLeads | None,
    conversations: OpenConversations | None,
) -> dict[str, Links]:
    """The links of each contact, in as many statements as there are rooms to ask."""
    numbers = sorted({customer.e164 for customer in customers if customer.e164})
    matched = await leads(connection, account_id, numbers) if leads is not None and numbers else {}
    newest: dict[str, Customer] = {}
    for customer in sorted(customers, key=lambda customer: customer.seen_at):
        before = newest.get(customer.contact)
        calling = customer.calling or (before is not None and before.calling)
        newest[customer.contact] = customer._replace(calling=calling)
    with_leads = [(customer, matched.get(customer.e164 or "")) for customer in newest.values()]
    opened = await conversations(connection, account_id, with_leads) if conversations is not None and with_leads else {}
    links = {}
    for customer, lead_id in with_leads:
        found = opened.get(customer.contact)
        links[customer.contact] = Links(lead_id) if found is None else Links(lead_id, found.id, found.told)
    return links
