"""The schema at its head, declared once; `migrations/` leads to exactly this, and a test compares the two.

Conventions:
- uuid keys by gen_random_uuid(), timestamptz, snake_case. Two words that SQL reserves are renamed, and nothing else:
  product `from`/`to` are `from_number`/`to_number`, product `User` is `app_user`. No name here ever needs quoting.
- Closed sets are text with a CHECK, lowercase. A PostgreSQL enum cannot lose a value again, so no migration that adds
  one could go down; a CHECK is swapped online (NOT VALID, VALIDATE). The wire has the same words in UPPERCASE.
- Every row names its account, so that one policy (row level security) or one distribution key fits every table.
- Indexes for keyset paging end in (started_at, id) and are read backwards for "newest first".
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from trunkline.calls.record import Direction, EndedBy, EndReason, LegEnd, Quality, RecordingKind, Role, Status

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

CHANNELS: Final = ("telephony", "whatsapp", "telegram")
CONVERSATION_STATUSES: Final = ("open", "closed")
MESSAGE_STATUSES: Final = ("pending", "sent", "delivered", "read", "failed")
MESSAGE_DIRECTIONS: Final = ("inbound", "outbound")
RECORDING_STATES: Final = ("pending", "stored", "empty", "unmatched", "failed")
INTEGRATION_STATUSES: Final = ("active", "disabled")
COMMAND_STATES: Final = ("pending", "claimed", "done", "failed")
USER_ROLES: Final = ("admin", "supervisor", "agent")
LEAD_STATUSES: Final = ("new", "contacted", "qualified", "converted", "lost")
DEAL_STATUSES: Final = ("open", "won", "lost")
CAMPAIGN_STATUSES: Final = ("draft", "running", "paused", "finished")
BOOKING_STATUSES: Final = ("booked", "confirmed", "canceled", "done")


def stored(words: type[StrEnum]) -> tuple[str, ...]:
    """Return an enum's values as the database holds them: lowercase, in the enum's order."""
    return tuple(word.value.lower() for word in words)


def _one_of(column: str, words: Iterable[str]) -> CheckConstraint:
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _id() -> Column[Any]:
    return Column("id", UUID(), primary_key=True, server_default=text("gen_random_uuid()"))


def _account(*, index: bool = False) -> Column[Any]:
    return Column("account_id", UUID(), ForeignKey("account.id", ondelete="CASCADE"), nullable=False, index=index)


def _ref(name: str, target: str, *, cascade: bool = False, index: bool = False, nullable: bool = True) -> Column[Any]:
    rule = "CASCADE" if cascade else "SET NULL"
    return Column(name, UUID(), ForeignKey(f"{target}.id", ondelete=rule), nullable=nullable, index=index)


def _text(name: str, *, nullable: bool = True, default: str | None = None) -> Column[Any]:
    return Column(name, Text(), nullable=nullable, server_default=None if default is None else text(f"'{default}'"))


def _word(name: str, default: str | None = None) -> Column[Any]:
    return _text(name, nullable=False, default=default)


def _time(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _count(name: str) -> Column[Any]:
    return Column(name, Integer(), nullable=True)


def _list(name: str) -> Column[Any]:
    return Column(name, JSONB(), nullable=False, server_default=text("'[]'::jsonb"))


def _texts(name: str) -> Column[Any]:
    return Column(name, ARRAY(Text()), nullable=False, server_default=text("'{}'::text[]"))


def _object(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, JSONB(), nullable=nullable, server_default=None if nullable else text("'{}'::jsonb"))


account: Final = Table(
    "account",
    metadata,
    _id(),
    Column("name", Text(), nullable=False, unique=True),
    _object("settings", nullable=False),
    _now("created_at"),
)

app_user: Final = Table(
    "app_user",
    metadata,
    _id(),
    _account(),
    _word("email"),
    _word("name", ""),
    _word("role", "agent"),
    _text("extension"),  # the softphone it works at; None: none
    _text("password_hash"),
    _now("created_at"),
    UniqueConstraint("account_id", "email"),
    _one_of("role", USER_ROLES),
)

integration: Final = Table(
    "integration",
    metadata,
    _id(),
    _account(),
    _word("channel"),
    _word("integration_id"),  # which program is at the other end: integration.PBX_INTEGRATION, "whatsapp"
    _word("external_id"),  # its own name for itself: a PBX's systemname, a WhatsApp phone number id
    _word("name", ""),
    _word("status", "active"),
    _object("settings", nullable=False),
    _now("created_at"),
    UniqueConstraint("account_id", "integration_id", "external_id"),
    _one_of("channel", CHANNELS),
    _one_of("status", INTEGRATION_STATUSES),
)

lead: Final = Table(
    "lead",
    metadata,
    _id(),
    _account(),
    _word("name", ""),
    _text("phone"),  # as it was typed
    _text("phone_e164"),  # what callers are matched by; None: not a number one can be called from
    _text("email"),
    _word("status", "new"),
    _text("source"),
    _object("metadata"),
    _now("created_at"),
    _now("updated_at"),
    # Not unique: a household shares a number. The oldest lead is the match, so created_at and id are in the index.
    Index(
        "ix_lead_phone_e164",
        "account_id",
        "phone_e164",
        "created_at",
        "id",
        postgresql_where=text("phone_e164 IS NOT NULL"),
    ),
    Index("ix_lead_account_id_created_at_id", "account_id", "created_at", "id"),
    _one_of("status", LEAD_STATUSES),
)

deal: Final = Table(
    "deal",
    metadata,
    _id(),
    _account(index=True),
    _ref("lead_id", "lead", index=True),
    _word("title", ""),
    Column("amount_cents", BigInteger(), nullable=True),
    _text("currency"),  # ISO 4217
    _word("status", "open"),
    _now("created_at"),
    _time("closed_at"),
    _one_of("status", DEAL_STATUSES),
)

campaign: Final = Table(
    "campaign",
    metadata,
    _id(),
    _account(index=True),
    _word("name"),
    _word("channel"),
    _word("status", "draft"),
    _object("settings", nullable=False),
    _time("starts_at"),
    _time("ends_at"),
    _now("created_at"),
    _one_of("channel", CHANNELS),
    _one_of("status", CAMPAIGN_STATUSES),
)

booking: Final = Table(
    "booking",
    metadata,
    _id(),
    _account(index=True),
    _ref("lead_id", "lead", index=True),
    _ref("user_id", "app_user", index=True),
    _word("title", ""),
    _time("starts_at", nullable=False),
    _time("ends_at"),
    _word("status", "booked"),
    _now("created_at"),
    _one_of("status", BOOKING_STATUSES),
)

conversation: Final = Table(
    "conversation",
    metadata,
    _id(),
    _account(),
    _ref("lead_id", "lead", index=True),
    _ref("integration_id", "integration"),
    _word("channel"),
    _text("contact"),  # the customer's address on the channel, E.164 where it has one; None: not known
    _text("contact_name"),
    _word("status", "open"),
    _ref("assigned_user_id", "app_user", index=True),
    _now("created_at"),
    _now("last_at"),  # of the newest call or message
    _time("closed_at"),
    # At most one open conversation with a customer on a channel, whoever of several writers opens it.
    Index(
        "uq_conversation_open",
        "account_id",
        "channel",
        "contact",
        unique=True,
        postgresql_where=text("status = 'open' AND contact IS NOT NULL"),
    ),
    Index("ix_conversation_account_id_last_at_id", "account_id", "last_at", "id"),
    _one_of("channel", CHANNELS),
    _one_of("status", CONVERSATION_STATUSES),
)

message: Final = Table(
    "message",
    metadata,
    _id(),
    _account(index=True),
    _ref("conversation_id", "conversation", cascade=True, nullable=False),
    _ref("integration_id", "integration"),
    _word("direction"),
    _text("content"),
    _word("status", "pending"),
    _text("external_id"),
    _object("metadata"),
    _time("sent_at"),
    _time("delivered_at"),
    _time("read_at"),
    _now("created_at"),
    Index("ix_message_conversation_id_created_at_id", "conversation_id", "created_at", "id"),
    # external_id leads: the index also answers "which message is this?" when the integration is not known.
    Index(
        "uq_message_external_id",
        "external_id",
        "integration_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    _one_of("direction", MESSAGE_DIRECTIONS),
    _one_of("status", MESSAGE_STATUSES),
)

# A Message's mediaFileIds are the ids of its media files by position; they are stored nowhere else.
media_file: Final = Table(
    "media_file",
    metadata,
    _id(),
    _account(index=True),
    _ref("message_id", "message"),
    Column("position", Integer(), nullable=False, server_default=text("0")),  # within its message, from 0
    _word("name", ""),  # the original file name
    _text("url"),
    _text("bucket"),
    _word("key"),
    _text("mime_type"),
    Column("size", BigInteger(), nullable=True),  # bytes
    _object("metadata"),
    _now("uploaded_at"),
    Index("ix_media_file_message_id_position", "message_id", "position"),
)

content_item: Final = Table(
    "content_item",
    metadata,
    _id(),
    _account(index=True),
    _ref("campaign_id", "campaign", index=True),
    _ref("media_file_id", "media_file"),
    _word("title", ""),
    _text("body"),
    _now("created_at"),
)


def _page_by(name: str, *columns: str, **where: Any) -> Index:
    return Index(name, "account_id", *columns, "direction", "status", "started_at", "id", **where)


call: Final = Table(
    "call",
    metadata,
    _id(),
    _account(),
    _ref("integration_id", "integration"),  # the PBX; None: stored before PBXes were integrations
    _ref("lead_id", "lead", index=True),
    _ref("conversation_id", "conversation", index=True),
    Column("recording_id", UUID(), ForeignKey("call_recording.id", ondelete="SET NULL", use_alter=True), nullable=True),
    _word("pbx", ""),  # systemname
    _text("external_id"),  # Linkedid of the first channel; None: it did not come from a PBX
    _text("channel_id"),  # Uniqueid of the customer's channel
    _word("direction"),
    _word("status"),
    _word("from_number", ""),
    _word("to_number", ""),
    _word("phone_number"),
    _text("from_e164"),
    _text("to_e164"),
    Column("from_private", Boolean(), nullable=False, server_default=text("false")),
    _text("caller_name"),
    _time("started_at", nullable=False),
    _time("answered_at"),
    _time("ended_at"),
    _count("duration"),  # s
    _count("wait_seconds"),
    _count("talk_seconds"),
    _count("hold_seconds"),
    _text("end_reason"),
    _text("ended_by"),
    _text("answered_by"),
    _text("last_party"),
    _texts("rang"),
    _text("queue"),
    _count("queue_wait_seconds"),
    _count("queue_position"),
    _list("transfers"),
    _list("holds"),
    _list("parked"),
    _text("conference"),
    _texts("participants"),
    _text("digits"),
    _text("diverted_from"),
    _text("forwarded_from"),
    _list("recordings"),
    _word("quality", "observed"),
    Column("revision", Integer(), nullable=False, server_default=text("1")),
    _object("metadata"),
    _now("created_at"),
    # A call can never be stored twice. external_id leads, so the index also finds a call by the PBX's id alone.
    Index(
        "uq_call_external_id",
        "external_id",
        "integration_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    Index("ix_call_recording", "recording_id", postgresql_where=text("recording_id IS NOT NULL")),
    Index("ix_call_live", "integration_id", postgresql_where=text("ended_at IS NULL")),
    # A page is gathered from one ordered run per (direction, status): store/queries.py. phone_number is from or to.
    Index("ix_call_page", "account_id", "started_at", "id"),
    _page_by("ix_call_page_status"),
    _page_by("ix_call_page_from", "from_number"),
    _page_by("ix_call_page_to", "to_number"),
    _page_by("ix_call_page_from_e164", "from_e164", postgresql_where=text("from_e164 IS NOT NULL")),
    _page_by("ix_call_page_to_e164", "to_e164", postgresql_where=text("to_e164 IS NOT NULL")),
    _one_of("direction", stored(Direction)),
    _one_of("status", stored(Status)),
    _one_of("end_reason", stored(EndReason)),
    _one_of("ended_by", stored(EndedBy)),
    _one_of("quality", stored(Quality)),
)

call_leg: Final = Table(
    "call_leg",
    metadata,
    _ref("call_id", "call", cascade=True, nullable=False),
    _word("channel_id"),  # Uniqueid
    Column("account_id", UUID(), nullable=False),  # its call's; call_id is what ties it
    Column("position", Integer(), nullable=False),  # order in the call, from 0
    _word("endpoint"),
    _text("party"),
    _word("role"),
    _time("started_at", nullable=False),
    _time("answered_at"),
    _time("ended_at"),
    _text("dial_status"),
    _count("hangup_cause"),  # Q.850
    _text("end_reason"),
    PrimaryKeyConstraint("call_id", "channel_id"),
    Index("ix_call_leg_channel_id", "channel_id"),
    _one_of("role", stored(Role)),
    _one_of("end_reason", stored(LegEnd)),
)

# Linkedids whose calls were folded into another one.
call_alias: Final = Table(
    "call_alias",
    metadata,
    _ref("integration_id", "integration", cascade=True, nullable=False),
    _word("external_id"),
    Column("account_id", UUID(), nullable=False),  # its call's
    _ref("call_id", "call", cascade=True, nullable=False, index=True),
    Column("folded_id", UUID(), nullable=True, index=True),  # the id its own row had; None: it never had one
    _now("created_at"),
    PrimaryKeyConstraint("integration_id", "external_id"),
)

call_recording: Final = Table(
    "call_recording",
    metadata,
    _id(),
    _account(index=True),
    _ref("call_id", "call"),  # None: no call was found for the file
    _text("channel_id"),  # Uniqueid of the leg
    _ref("media_file_id", "media_file", index=True),  # None until it is stored
    _text("path"),  # as the PBX named it
    _word("kind", "call"),
    _word("state", "pending"),
    _text("reason"),  # why it is not stored
    _time("started_at"),
    _time("ended_at"),
    _count("duration_seconds"),
    _list("paused_spans"),  # of {startedAt, endedAt?}
    _now("created_at"),
    UniqueConstraint("call_id", "path"),
    _one_of("kind", stored(RecordingKind)),
    _one_of("state", RECORDING_STATES),
)

# One commit-ordered sequence per account. A writer takes its numbers with
#   INSERT INTO event_cursor (account_id, last_seq) VALUES ($1, $2)
#   ON CONFLICT (account_id) DO UPDATE SET last_seq = event_cursor.last_seq + excluded.last_seq RETURNING last_seq
# as late as it can in the transaction that writes the rows: the row lock makes the next writer of the account wait for
# the commit, so numbers become visible in order and without a gap, and a reader of `seq > cursor` never misses one.
event_cursor: Final = Table(
    "event_cursor",
    metadata,
    Column("account_id", UUID(), ForeignKey("account.id", ondelete="CASCADE"), primary_key=True),
    Column("last_seq", BigInteger(), nullable=False, server_default=text("0")),
)

# An event outlives its subject (a merged call, an erased lead), so the subject ids are no foreign keys.
event: Final = Table(
    "event",
    metadata,
    _account(),
    Column("seq", BigInteger(), nullable=False, autoincrement=False),
    _word("type"),  # "call.answered"
    Column("call_id", UUID(), nullable=True),
    Column("lead_id", UUID(), nullable=True),
    Column("conversation_id", UUID(), nullable=True),
    _object("data", nullable=False),
    _now("created_at"),
    PrimaryKeyConstraint("account_id", "seq"),
)

command: Final = Table(
    "command",
    metadata,
    _id(),
    _account(),
    _ref("integration_id", "integration", cascade=True, nullable=False),
    _word("idempotency_key"),
    _word("kind"),
    _object("arguments", nullable=False),
    _word("state", "pending"),
    _object("result"),
    _now("created_at"),
    _time("claimed_at"),
    _time("finished_at"),
    UniqueConstraint("account_id", "idempotency_key"),
    Index("ix_command_pending", "integration_id", "created_at", postgresql_where=text("state = 'pending'")),
    _one_of("state", COMMAND_STATES),
)
