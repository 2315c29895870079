"""Constrain: what the new fields promise, each checked while others read and write; the old Message.mediaFile goes.

From here on the old program's rows say nothing of the new fields: they get the defaults.
"""

from alembic import op

from trunkline.store.online import online, report

revision = "0004"
down_revision = "0003"

DEFAULTS = {
    "conversation": {"last_at": "now()"},
    "media_file": {"name": "''", "uploaded_at": "now()"},
    "call_recording": {"state": "'pending'"},
    "call": {"from_number": "''", "to_number": "''", "created_at": "now()"},
}

NOT_NULL = {
    "integration": ("integration_id", "external_id"),
    "conversation": ("last_at",),
    "media_file": ("name", "uploaded_at"),
    "call_recording": ("state",),
    "call": ("from_number", "to_number", "created_at"),
}

CHECKS = (
    ("integration", "ck_integration_status", "CHECK (status IN ('active', 'disabled'))"),
    ("call_recording", "ck_call_recording_kind", "CHECK (kind IN ('call', 'voicemail', 'ari'))"),
    (
        "call_recording",
        "ck_call_recording_state",
        "CHECK (state IN ('pending', 'stored', 'empty', 'unmatched', 'failed'))",
    ),
)

REFERENCES = (
    ("conversation", "fk_conversation_integration_id"),
    ("conversation", "fk_conversation_assigned_user_id"),
    ("message", "fk_message_integration_id"),
    ("media_file", "fk_media_file_message_id"),
    ("call_recording", "fk_call_recording_call_id"),
    ("call", "fk_call_integration_id"),
    ("call", "fk_call_conversation_id"),
)

UNIQUE = (
    (
        "integration",
        "uq_integration_account_id_integration_id_external_id",
        "(account_id, integration_id, external_id)",
    ),
    ("call_recording", "uq_call_recording_call_id_path", "(call_id, path)"),
)

INDEXES = {
    "uq_conversation_open": "UNIQUE conversation (account_id, channel, contact)"
    " WHERE status = 'open' AND contact IS NOT NULL",
    "ix_conversation_account_id_last_at_id": "conversation (account_id, last_at, id)",
    "ix_conversation_assigned_user_id": "conversation (assigned_user_id)",
    "uq_message_external_id": "UNIQUE message (external_id, integration_id) WHERE external_id IS NOT NULL",
    "uq_call_external_id": "UNIQUE call (external_id, integration_id) WHERE external_id IS NOT NULL",
    "ix_call_conversation_id": "call (conversation_id)",
    "ix_call_page": "call (account_id, started_at, id)",
}

# Each is the beginning of a new one.
SUPERSEDED = {"ix_conversation_account_id": "conversation (account_id)", "ix_call_account_id": "call (account_id)"}


def upgrade() -> None:
    """Fill in what came since the backfill, check everything, then drop the old reference."""
    straggling = op.get_context().script.get_revision("0003").module.backfill  # type: ignore[union-attr]
    with online(op) as live:
        for table, defaults in DEFAULTS.items():
            given = ", ".join(f"ALTER COLUMN {column} SET DEFAULT {value}" for column, value in defaults.items())
            live.ddl(f"ALTER TABLE {table} {given}")
        report(op, straggling(live))
        for table, columns in NOT_NULL.items():
            live.not_null(table, *columns)
        for table, name, definition in CHECKS:
            live.constrain(table, name, definition)
        for table, name in REFERENCES:
            live.validate(table, name)
        for table, name, columns in UNIQUE:
            if not live.has_constraint(table, name):
                live.index(name, f"UNIQUE {table} {columns}")
                live.ddl(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")
        for name, definition in INDEXES.items():
            live.index(name, definition)
        for name in SUPERSEDED:
            live.drop_index(name)
        live.ddl("ALTER TABLE message DROP COLUMN IF EXISTS media_file_id")


def downgrade() -> None:
    """Bring back the old reference, a message's first file, and let go of the promises."""
    op.execute("ALTER TABLE message ADD COLUMN media_file_id uuid")
    op.execute(
        "UPDATE message SET media_file_id = first.id FROM ("
        "SELECT DISTINCT ON (message_id) message_id, id FROM media_file WHERE message_id IS NOT NULL"
        " ORDER BY message_id, position, id) AS first WHERE message.id = first.message_id"
    )
    op.execute(
        "ALTER TABLE message ADD CONSTRAINT fk_message_media_file_id"
        " FOREIGN KEY (media_file_id) REFERENCES media_file (id) ON DELETE SET NULL"
    )
    op.execute("CREATE INDEX ix_message_media_file_id ON message (media_file_id)")
    for name, definition in SUPERSEDED.items():
        op.execute(f"CREATE INDEX {name} ON {definition}")
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    for table, name, _ in (*UNIQUE, *CHECKS):
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for table, columns in NOT_NULL.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'ALTER COLUMN {column} DROP NOT NULL' for column in columns)}")
    for table, defaults in DEFAULTS.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'ALTER COLUMN {column} DROP DEFAULT' for column in defaults)}")
