"""The tables of queues and agents as they are now. Only the newest state counts: nothing here has a history."""

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, PrimaryKeyConstraint, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import UUID

from trunkline.calls.queue_record import AgentStatus
from trunkline.store.columns import (
    account_column,
    id_column,
    instant,
    json_list,
    metadata,
    now_column,
    one_of,
    reference,
    stored,
    text_column,
    word,
)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean(), nullable=False, server_default=text("false"))


def _number(name: str) -> Column[int]:
    return Column(name, Integer(), nullable=False, server_default=text("0"))


# Whether a core sees the PBX now: it says so every few seconds, and what it does not say is stale.
pbx_state: Final = Table(
    "pbx_state",
    metadata,
    Column("integration_id", UUID(), ForeignKey("integration.id", ondelete="CASCADE"), primary_key=True),
    account_column(),
    _flag("connected"),
    now_column("as_of"),
)

queue: Final = Table(
    "queue",
    metadata,
    id_column(),
    account_column(index=True),
    reference("integration_id", "integration", cascade=True, nullable=False),
    word("name"),
    text_column("strategy"),
    json_list("waiting"),  # of {channelId, externalId, position, since}, in the order of the line
    now_column("changed_at"),
    UniqueConstraint("integration_id", "name"),
)

queue_member: Final = Table(
    "queue_member",
    metadata,
    Column("queue_id", UUID(), ForeignKey("queue.id", ondelete="CASCADE"), nullable=False),
    word("interface"),
    account_column(),
    word("extension"),
    word("name", ""),
    word("membership", ""),
    _number("penalty"),
    _flag("paused"),
    text_column("paused_reason"),
    instant("paused_since"),
    _flag("in_call"),
    _number("calls_taken"),
    instant("last_call_at"),
    instant("logged_in_since"),
    PrimaryKeyConstraint("queue_id", "interface"),
    Index("ix_queue_member_account_id_extension", "account_id", "extension"),
)

agent: Final = Table(
    "agent",
    metadata,
    id_column(),
    account_column(index=True),
    reference("integration_id", "integration", cascade=True, nullable=False),
    word("extension"),
    word("name", ""),
    word("status"),
    instant("status_since", nullable=False),
    _flag("paused"),
    instant("logged_in_since"),
    UniqueConstraint("integration_id", "extension"),
    one_of("status", stored(AgentStatus)),
)
