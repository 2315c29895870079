"""The tables of the CRM and its inbox; store/tables.py has those of the calls, and the conventions of both."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from trunkline.store.columns import (
    account_column,
    id_column,
    instant,
    json_object,
    metadata,
    now_column,
    one_of,
    reference,
    text_column,
    word,
)

CHANNELS: Final = ("telephony", "whatsapp", "telegram")
CONVERSATION_STATUSES: Final = ("open", "closed")
MESSAGE_STATUSES: Final = ("pending", "sent", "delivered", "read", "failed")
MESSAGE_DIRECTIONS: Final = ("inbound", "outbound", "internal")  # internal: a note that nobody is sent
MEDIA_KINDS: Final = ("attachment", "recording")
INTEGRATION_STATUSES: Final = ("active", "disabled")
USER_ROLES: Final = ("admin", "supervisor", "agent", "viewer")
LEAD_STATUSES: Final = ("new", "contacted", "qualified", "converted", "lost")
DEAL_STATUSES: Final = ("open", "won", "lost")
CAMPAIGN_STATUSES: Final = ("draft", "running", "paused", "finished")
BOOKING_STATUSES: Final = ("booked", "confirmed", "canceled", "done")

account: Final = Table(
    "account",
    metadata,
    id_column(),
    Column("name", Text(), nullable=False, unique=True),
    json_object("settings", nullable=False),
    now_column("created_at"),
)

app_user: Final = Table(
    "app_user",
    metadata,
    id_column(),
    account_column(),
    word("email"),
    word("name", ""),
    word("role", "agent"),
    text_column("extension"),  # the softphone it works at; None: none
    text_column("password_hash"),  # argon2id; None: it cannot log in
    now_column("created_at"),
    instant("disabled_at"),
    Column("failed_logins", Integer(), nullable=False, server_default=text("0")),  # since the last one that went well
    instant("locked_until"),
    Column("token_generation", Integer(), nullable=False, server_default=text("0")),  # a token of another one is void
    UniqueConstraint("account_id", "email"),
    one_of("role", USER_ROLES),
)

integration: Final = Table(
    "integration",
    metadata,
    id_column(),
    account_column(),
    word("channel"),
    word("integration_id"),  # which program is at the other end: integration.PBX_INTEGRATION, "whatsapp"
    word("external_id"),  # its own name for itself: a PBX's systemname, a WhatsApp phone number id
    word("name", ""),
    word("status", "active"),
    json_object("settings", nullable=False),
    now_column("created_at"),
    UniqueConstraint("account_id", "integration_id", "external_id"),
    one_of("channel", CHANNELS),
    one_of("status", INTEGRATION_STATUSES),
)

lead: Final = Table(
    "lead",
    metadata,
    id_column(),
    account_column(),
    word("name", ""),
    text_column("phone"),  # as it was typed
    text_column("phone_e164"),  # what callers are matched by; None: not a number one can be called from
    text_column("email"),
    word("status", "new"),
    text_column("source"),
    text_column("external_id"),  # its id in another CRM
    json_object("metadata"),
    now_column("created_at"),
    now_column("updated_at"),
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
    Index("ix_lead_account_id_updated_at_id", "account_id", "updated_at", "id"),
    # No address is longer; what the old schema took for one may be longer than a row of an index.
    Index(
        "ix_lead_email",
        *("account_id", "email", "created_at", "id"),
        postgresql_where=text("octet_length(email) <= 254"),
    ),
    Index(
        "uq_lead_external_id",
        *("account_id", "external_id"),
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    one_of("status", LEAD_STATUSES),
)

# The numbers of a lead beside its first one, which is in `lead`.
lead_phone: Final = Table(
    "lead_phone",
    metadata,
    reference("lead_id", "lead", cascade=True, nullable=False),
    Column("position", Integer(), nullable=False),  # from 1
    Column("account_id", UUID(), nullable=False),  # its lead's; lead_id is what ties it
    word("number"),  # as it was typed
    text_column("e164"),
    instant("lead_created_at", nullable=False),  # its lead's: the oldest is the match, as for the first number
    PrimaryKeyConstraint("lead_id", "position"),
    Index(
        "ix_lead_phone_e164_further",
        *("account_id", "e164", "lead_created_at", "lead_id"),
        postgresql_where=text("e164 IS NOT NULL"),
    ),
)

# The ids of leads that were merged into another one.
lead_alias: Final = Table(
    "lead_alias",
    metadata,
    Column("folded_id", UUID(), primary_key=True),
    Column("account_id", UUID(), nullable=False),  # its lead's
    reference("lead_id", "lead", cascade=True, nullable=False, index=True),
    now_column("created_at"),
)

deal: Final = Table(
    "deal",
    metadata,
    id_column(),
    account_column(index=True),
    reference("lead_id", "lead", index=True),
    word("title", ""),
    Column("amount_cents", BigInteger(), nullable=True),
    text_column("currency"),  # ISO 4217
    word("status", "open"),
    now_column("created_at"),
    instant("closed_at"),
    one_of("status", DEAL_STATUSES),
)

campaign: Final = Table(
    "campaign",
    metadata,
    id_column(),
    account_column(index=True),
    word("name"),
    word("channel"),
    word("status", "draft"),
    json_object("settings", nullable=False),
    instant("starts_at"),
    instant("ends_at"),
    now_column("created_at"),
    one_of("channel", CHANNELS),
    one_of("status", CAMPAIGN_STATUSES),
)

booking: Final = Table(
    "booking",
    metadata,
    id_column(),
    account_column(index=True),
    reference("lead_id", "lead", index=True),
    reference("user_id", "app_user", index=True),
    word("title", ""),
    instant("starts_at", nullable=False),
    instant("ends_at"),
    word("status", "booked"),
    now_column("created_at"),
    one_of("status", BOOKING_STATUSES),
)

conversation: Final = Table(
    "conversation",
    metadata,
    id_column(),
    account_column(),
    reference("lead_id", "lead", index=True),
    reference("integration_id", "integration"),
    word("channel"),
    text_column("contact"),  # the customer's address on the channel, E.164 where it has one; None: not known
    text_column("contact_name"),
    word("status", "open"),
    reference("assigned_user_id", "app_user", index=True),
    now_column("created_at"),
    now_column("last_at"),  # of the newest call or message
    instant("closed_at"),
    instant("snoozed_until"),  # of an open one; it is cleared when the time has come, or something new has
    Column("unread_count", Integer(), nullable=False, server_default=text("0")),  # missed calls, messages
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
    Index("ix_conversation_open", "account_id", "last_at", "id", postgresql_where=text("status = 'open'")),
    Index("ix_conversation_snoozed", "account_id", "last_at", "id", postgresql_where=text("snoozed_until IS NOT NULL")),
    Index("ix_conversation_unread", "account_id", "last_at", "id", postgresql_where=text("unread_count > 0")),
    Index("ix_conversation_channel", "account_id", "channel", "last_at", "id"),
    Index("ix_conversation_assigned", "account_id", "assigned_user_id", "last_at", "id"),
    one_of("channel", CHANNELS),
    one_of("status", CONVERSATION_STATUSES),
)

message: Final = Table(
    "message",
    metadata,
    id_column(),
    account_column(index=True),
    reference("conversation_id", "conversation", cascade=True, nullable=False),
    reference("integration_id", "integration"),
    word("direction"),
    text_column("content"),
    word("status", "pending"),
    text_column("external_id"),
    json_object("metadata"),
    instant("sent_at"),
    instant("delivered_at"),
    instant("read_at"),
    now_column("created_at"),
    Index("ix_message_conversation_id_created_at_id", "conversation_id", "created_at", "id"),
    # external_id leads: the index also answers "which message is this?" when the integration is not known.
    Index(
        "uq_message_external_id",
        "external_id",
        "integration_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    one_of("direction", MESSAGE_DIRECTIONS),
    one_of("status", MESSAGE_STATUSES),
)

# A Message's mediaFileIds are the ids of its media files by position; they are stored nowhere else.
media_file: Final = Table(
    "media_file",
    metadata,
    id_column(),
    account_column(index=True),
    reference("message_id", "message"),
    Column("position", Integer(), nullable=False, server_default=text("0")),  # within its message, from 0
    word("name", ""),  # the original file name
    text_column("url"),
    text_column("bucket"),
    word("key"),
    text_column("mime_type"),
    Column("size", BigInteger(), nullable=True),  # bytes
    json_object("metadata"),
    now_column("uploaded_at"),
    word("kind", "attachment"),  # recording: it is one's, and to be had from there only
    Index("ix_media_file_message_id_position", "message_id", "position"),
    Index("ix_media_file_key", "key", postgresql_using="hash"),  # before an object goes: who else has it?
    Index("ix_media_file_attachments", "account_id", "uploaded_at", "id", postgresql_where=text("kind = 'attachment'")),
    one_of("kind", MEDIA_KINDS),
)

# Objects that are to go from the storage. One that is being uploaded stands here too, until its media file is written.
object_removal: Final = Table(
    "object_removal",
    metadata,
    id_column(),
    account_column(index=True),
    word("bucket"),
    word("key"),
    instant("due_at", nullable=False),
    Column("tries", Integer(), nullable=False, server_default=text("0")),
    now_column("created_at"),
    Index("ix_object_removal_due_at", "due_at"),
)

# Tokens and passwords of an integration, each sealed (inbox/secrets.py).
integration_secret: Final = Table(
    "integration_secret",
    metadata,
    reference("integration_id", "integration", cascade=True, nullable=False),
    word("name"),
    account_column(index=True),
    Column("sealed", LargeBinary(), nullable=False),
    now_column("updated_at"),
    PrimaryKeyConstraint("integration_id", "name"),
)

# How the link to a PBX stands, as the core last said.
integration_link: Final = Table(
    "integration_link",
    metadata,
    reference("integration_id", "integration", cascade=True, nullable=False),
    account_column(index=True),
    Column("up", Boolean(), nullable=False),
    word("detail", ""),  # why it is not, and what to do
    instant("heard_at"),  # something of the PBX was
    now_column("reported_at"),
    PrimaryKeyConstraint("integration_id"),
)

content_item: Final = Table(
    "content_item",
    metadata,
    id_column(),
    account_column(index=True),
    reference("campaign_id", "campaign", index=True),
    reference("media_file_id", "media_file"),
    word("title", ""),
    text_column("body"),
    now_column("created_at"),
)
