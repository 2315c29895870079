"""The schema at its head, declared once; `migrations/` leads to exactly this, and a test compares the two.

Conventions:
- uuid keys by gen_random_uuid(), timestamptz, snake_case. Two words that SQL reserves are renamed, and nothing else:
  product `from`/`to` are `from_number`/`to_number`, product `User` is `app_user`. No name here ever needs quoting.
- Closed sets are text with a CHECK, lowercase. A PostgreSQL enum cannot lose a value again, so no migration that adds
  one could go down; a CHECK is swapped online (NOT VALID, VALIDATE). The wire has the same words in UPPERCASE.
- Every row names its account: row level security goes by that (store/row_security.py), and every table has it.
- Indexes for keyset paging end in (started_at, id) and are read backwards for "newest first".
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from trunkline.calls.record import Direction, EndedBy, EndReason, LegEnd, Quality, RecordingKind, Role, Status
from trunkline.store.columns import (
    account_column,
    count,
    id_column,
    instant,
    json_list,
    json_object,
    metadata,
    now_column,
    one_of,
    reference,
    stored,
    text_column,
    texts,
    word,
)
from trunkline.store.crm_tables import (
    account,
    app_user,
    booking,
    campaign,
    content_item,
    conversation,
    deal,
    integration,
    integration_link,
    integration_secret,
    lead,
    lead_alias,
    lead_phone,
    media_file,
    message,
    object_removal,
)
from trunkline.store.identity_tables import (
    api_key,
    audit,
    auth_secret,
    kept_answer,
    login_try,
    refresh_token,
    user_identity,
)
from trunkline.store.queue_tables import agent, pbx_state, queue, queue_member
from trunkline.store.webhook_tables import webhook, webhook_delivery

__all__ = [
    "account",
    "agent",
    "api_key",
    "app_user",
    "audit",
    "auth_secret",
    "booking",
    "call",
    "call_alias",
    "call_leg",
    "call_note",
    "call_recording",
    "campaign",
    "command",
    "content_item",
    "conversation",
    "deal",
    "event",
    "event_cursor",
    "integration",
    "integration_link",
    "integration_secret",
    "kept_answer",
    "lead",
    "lead_alias",
    "lead_phone",
    "login_try",
    "media_file",
    "message",
    "metadata",
    "object_removal",
    "pbx_state",
    "queue",
    "queue_member",
    "recording_access",
    "recording_peaks",
    "refresh_token",
    "user_identity",
    "webhook",
    "webhook_delivery",
]

RECORDING_STATES: Final = ("pending", "stored", "empty", "unmatched", "failed")
RECORDING_ACTIONS: Final = ("metadata", "audio", "redirect", "peaks", "hold", "release", "erase", "retention")
COMMAND_STATES: Final = ("pending", "claimed", "done", "failed", "unknown")


def _page_by(name: str, *columns: str, **where: Any) -> Index:
    # The other side's numbers are in the index too, so that asking for both sides reads no row that it won't return.
    other = "to" if columns and columns[0].startswith("from") else "from"
    include = [f"{other}_number", f"{other}_e164"] if columns else []
    return Index(
        name,
        *("account_id", *columns, "direction", "status", "started_at", "id"),
        postgresql_include=include,
        **where,
    )


call: Final = Table(
    "call",
    metadata,
    id_column(),
    account_column(),
    reference("integration_id", "integration"),  # the PBX; None: stored before PBXes were integrations
    reference("lead_id", "lead", index=True),
    reference("conversation_id", "conversation"),
    Column("recording_id", UUID(), ForeignKey("call_recording.id", ondelete="SET NULL", use_alter=True), nullable=True),
    word("pbx", ""),  # systemname, or HOST:PORT
    text_column("external_id"),  # Linkedid of the first channel; None: it did not come from a PBX
    text_column("channel_id"),  # Uniqueid of the customer's channel
    word("direction"),
    word("status"),
    word("from_number", ""),
    word("to_number", ""),
    word("phone_number"),
    text_column("from_e164"),
    text_column("to_e164"),
    Column("from_private", Boolean(), nullable=False, server_default=text("false")),
    text_column("caller_name"),
    instant("started_at", nullable=False),
    instant("answered_at"),
    instant("ended_at"),
    count("duration"),  # s
    count("wait_seconds"),
    count("talk_seconds"),
    count("hold_seconds"),
    text_column("end_reason"),
    text_column("ended_by"),
    text_column("answered_by"),
    text_column("last_party"),
    texts("rang"),
    text_column("queue"),
    count("queue_wait_seconds"),
    count("queue_position"),
    json_list("transfers"),
    json_list("holds"),
    json_list("parked"),
    text_column("conference"),
    texts("participants"),
    text_column("digits"),
    text_column("diverted_from"),
    text_column("forwarded_from"),
    json_list("recordings"),
    json_list("queue_visits"),
    word("quality", "observed"),
    Column("revision", Integer(), nullable=False, server_default=text("1")),
    json_object("metadata"),
    now_column("created_at"),
    # A call can never be stored twice. external_id leads, so the index also finds a call by the PBX's id alone.
    Index(
        "uq_call_external_id",
        "external_id",
        "integration_id",
        unique=True,
        postgresql_where=text("external_id IS NOT NULL"),
    ),
    Index("ix_call_recording", "recording_id", postgresql_where=text("recording_id IS NOT NULL")),
    Index("ix_call_conversation_id_started_at_id", "conversation_id", "started_at", "id"),
    Index("ix_call_queued", "account_id", "started_at", postgresql_where=text("queue IS NOT NULL")),
    Index("ix_call_live", "integration_id", postgresql_where=text("ended_at IS NULL")),
    # A page is gathered from one ordered run per (direction, status): store/queries.py. phone_number is from or to.
    Index("ix_call_page", "account_id", "started_at", "id"),
    _page_by("ix_call_page_status"),
    _page_by("ix_call_page_from", "from_number"),
    _page_by("ix_call_page_to", "to_number"),
    _page_by("ix_call_page_from_e164", "from_e164", postgresql_where=text("from_e164 IS NOT NULL")),
    _page_by("ix_call_page_to_e164", "to_e164", postgresql_where=text("to_e164 IS NOT NULL")),
    one_of("direction", stored(Direction)),
    one_of("status", stored(Status)),
    one_of("end_reason", stored(EndReason)),
    one_of("ended_by", stored(EndedBy)),
    one_of("quality", stored(Quality)),
)

call_leg: Final = Table(
    "call_leg",
    metadata,
    reference("call_id", "call", cascade=True, nullable=False),
    word("channel_id"),  # Uniqueid
    Column("account_id", UUID(), nullable=False),  # its call's; call_id is what ties it
    Column("position", Integer(), nullable=False),  # order in the call, from 0
    word("endpoint"),
    text_column("party"),
    word("role"),
    instant("started_at", nullable=False),
    instant("answered_at"),
    instant("ended_at"),
    text_column("dial_status"),
    count("hangup_cause"),  # Q.850
    text_column("end_reason"),
    PrimaryKeyConstraint("call_id", "channel_id"),
    Index("ix_call_leg_channel_id", "channel_id"),
    one_of("role", stored(Role)),
    one_of("end_reason", stored(LegEnd)),
)

# Linkedids whose calls were folded into another one.
call_alias: Final = Table(
    "call_alias",
    metadata,
    reference("integration_id", "integration", cascade=True, nullable=False),
    word("external_id"),
    Column("account_id", UUID(), nullable=False),  # its call's
    reference("call_id", "call", cascade=True, nullable=False, index=True),
    Column("folded_id", UUID(), nullable=True, index=True),  # the id its own row had; None: it never had one
    now_column("created_at"),
    PrimaryKeyConstraint("integration_id", "external_id"),
)

# What people make of a call: beside it, so that neither they nor the writer of calls wait for each other.
call_note: Final = Table(
    "call_note",
    metadata,
    Column("call_id", UUID(), ForeignKey("call.id", ondelete="CASCADE"), primary_key=True),
    Column("account_id", UUID(), nullable=False),  # its call's
    word("notes", ""),
    texts("tags"),
    text_column("disposition"),
    # Somebody said whose call it is, or that it is nobody's: no program says otherwise. Which one is in the call.
    Column("lead_chosen", Boolean(), nullable=False, server_default=text("false")),
    now_column("updated_at"),
)

call_recording: Final = Table(
    "call_recording",
    metadata,
    id_column(),
    account_column(index=True),
    reference("call_id", "call"),  # None: no call was found for the file
    text_column("channel_id"),  # Uniqueid of the leg
    reference("media_file_id", "media_file", index=True),  # None until it is stored
    text_column("path"),  # as the PBX named it
    word("kind", "call"),
    word("state", "pending"),
    text_column("reason"),  # why it is not stored
    instant("started_at"),
    instant("ended_at"),
    count("duration_seconds"),
    json_list("paused_spans"),  # of {startedAt, endedAt?}
    now_column("created_at"),
    reference("integration_id", "integration"),  # the PBX whose file it is; None: its call's
    Column("legal_hold", Boolean(), nullable=False, server_default=text("false")),  # nothing may delete it
    instant("erased_at"),  # when that was ordered; once it is done the reason is 'erased'
    text_column(
        "object_key"
    ),  # where it was put, or is to be: the same however often, whatever its call is merged into
    UniqueConstraint("call_id", "path"),
    Index("ix_call_recording_path", "path"),
    Index("ix_call_recording_account_id_started_at", "account_id", "started_at"),
    Index(
        "ix_call_recording_unfinished",
        "account_id",
        "created_at",
        postgresql_where=text("state IN ('pending', 'unmatched', 'failed')"),
    ),
    Index(
        "ix_call_recording_erasing",
        "account_id",
        postgresql_where=text("erased_at IS NOT NULL AND reason IS DISTINCT FROM 'erased'"),
    ),
    Index(
        "uq_call_recording_unmatched", "integration_id", "path", unique=True, postgresql_where=text("call_id IS NULL")
    ),
    one_of("kind", stored(RecordingKind)),
    one_of("state", RECORDING_STATES),
)

# The waveform, computed once; docs/api.md has its form.
recording_peaks: Final = Table(
    "recording_peaks",
    metadata,
    Column("recording_id", UUID(), ForeignKey("call_recording.id", ondelete="CASCADE"), primary_key=True),
    Column("account_id", UUID(), nullable=False),  # its recording's
    json_object("data", nullable=False),
)

# Who looked at, listened to or deleted what. It outlives the recording, so recording_id is no foreign key.
recording_access: Final = Table(
    "recording_access",
    metadata,
    id_column(),
    account_column(),
    Column("recording_id", UUID(), nullable=False),
    word("action"),
    word("actor"),  # as in `audit`
    text_column("address"),  # of the client
    text_column("request_id"),
    text_column("detail"),  # the range asked for, the reason of a deletion
    now_column("created_at"),
    Index("ix_recording_access_recording_id_created_at", "recording_id", "created_at"),
    Index("ix_recording_access_account_id_created_at", "account_id", "created_at"),
    one_of("action", RECORDING_ACTIONS),
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
    account_column(),
    Column("seq", BigInteger(), nullable=False, autoincrement=False),
    word("type"),  # "call.answered"
    Column("call_id", UUID(), nullable=True),
    Column("lead_id", UUID(), nullable=True),
    Column("conversation_id", UUID(), nullable=True),
    json_object("data", nullable=False),
    now_column("created_at"),
    PrimaryKeyConstraint("account_id", "seq"),
)

# What is to be done on a PBX. API processes write it, the core that owns the PBX carries it out, once or not at all.
command: Final = Table(
    "command",
    metadata,
    id_column(),
    account_column(),
    reference("integration_id", "integration", cascade=True, nullable=False),  # the PBX
    text_column("idempotency_key"),  # None: it may be used again
    word("kind"),  # store.commands.Kind
    json_object("arguments", nullable=False),
    word("state", "pending"),
    json_object("result"),
    now_column("created_at"),
    instant("claimed_at"),
    instant("finished_at"),
    reference("call_id", "call", index=True),  # None: it is about no call that was there
    Column("request_hash", LargeBinary()),  # of who asked for what under this key
    word("actor", ""),  # who asked: as in the audit, which is told when it has ended
    text_column("address"),
    text_column("request_id"),
    Column("not_after", DateTime(timezone=True), nullable=False, server_default=text("now()")),  # not begun later
    Column("claimed_by", UUID()),  # the run of a core that took it; no other may say what became of it
    instant("lease_until"),  # when it counts as lost with its core
    text_column("code"),  # why it failed, or is not known
    text_column("detail"),
    UniqueConstraint("account_id", "idempotency_key"),
    Index("ix_command_pending", "integration_id", "created_at", postgresql_where=text("state = 'pending'")),
    Index("ix_command_account_id_created_at", "account_id", "created_at"),
    Index("ix_command_claimed", "lease_until", postgresql_where=text("state = 'claimed'")),
    one_of("state", COMMAND_STATES),
)
