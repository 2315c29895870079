"""Webhooks out, declared: who is to be told, and what became of each telling."""

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import UUID

from trunkline.store.columns import (
    account_column,
    count,
    id_column,
    instant,
    json_list,
    metadata,
    now_column,
    one_of,
    reference,
    text_column,
    texts,
    word,
)

PROFILES: Final = ("standard", "zammad")
DELIVERY_STATES: Final = ("pending", "delivered", "failed")

_PENDING: Final[dict[str, Any]] = {"postgresql_where": text("state = 'pending'")}

webhook: Final = Table(
    "webhook",
    metadata,
    id_column(),
    account_column(index=True),
    word("url"),
    word("description", ""),
    word("profile", "standard"),
    texts("event_types"),  # empty: all
    Column("enabled", Boolean(), nullable=False, server_default=text("true")),
    text_column("disabled_reason"),
    word("secret"),  # whsec_...; it signs, so it cannot be a digest
    text_column("old_secret"),  # signs too, until
    instant("old_secret_until"),
    Column("last_seq", BigInteger(), nullable=False, server_default=text("0")),  # of the last event handed over
    Column("failures", Integer(), nullable=False, server_default=text("0")),  # in a row
    instant("failing_since"),
    instant("opened_until"),  # the circuit: nothing is tried before
    Column("lease", UUID(), nullable=True),  # of the one who delivers now
    instant("leased_until"),
    now_column("created_at"),
    one_of("profile", PROFILES),
)

webhook_delivery: Final = Table(
    "webhook_delivery",
    metadata,
    id_column(),
    account_column(index=True),
    reference("webhook_id", "webhook", cascade=True, nullable=False),
    Column("event_seq", BigInteger(), nullable=True),  # None: a test
    word("message_id"),  # evt_...; the same at every try and replay
    word("type"),  # of the event
    text_column("once"),  # what a receiver is told of a subject only once; None: nothing is
    word("state", "pending"),
    Column("attempts", Integer(), nullable=False, server_default=text("0")),
    instant("next_at"),  # None: nothing more is tried
    count("status_code"),
    text_column("error"),
    text_column("response"),  # its beginning
    json_list("tries"),  # of {at, statusCode, error, durationMs}, the newest last
    now_column("created_at"),
    instant("tried_at"),
    instant("delivered_at"),
    UniqueConstraint("webhook_id", "event_seq"),
    Index("uq_webhook_delivery_once", "webhook_id", "once", unique=True, postgresql_where=text("once IS NOT NULL")),
    Index("ix_webhook_delivery_line", "webhook_id", "event_seq", **_PENDING),
    Index("ix_webhook_delivery_due", "webhook_id", "next_at", **_PENDING),
    Index("ix_webhook_delivery_page", "webhook_id", "created_at", "id"),
    Index("ix_webhook_delivery_created_at", "created_at"),
    one_of("state", DELIVERY_STATES),
)
