"""Expand: the new fields beside the old ones, nullable or with a constant default, so that no table is rewritten.

NULL in a column that will not have it says that the row is to be backfilled: the old program goes on writing such rows
until 0004. What was kept on an earlier way down comes back first.
"""

from alembic import op

from trunkline.store.online import Online, online, report

revision = "0002"
down_revision = "0001"

COLUMNS = {
    "lead": {"phone_e164": "text"},
    "integration": {"integration_id": "text", "external_id": "text", "status": "text NOT NULL DEFAULT 'active'"},
    "conversation": {
        "integration_id": "uuid",
        "contact": "text",
        "contact_name": "text",
        "assigned_user_id": "uuid",
        "last_at": "timestamptz",
        "closed_at": "timestamptz",
    },
    "message": {
        "integration_id": "uuid",
        "external_id": "text",
        "metadata": "jsonb",
        "sent_at": "timestamptz",
        "delivered_at": "timestamptz",
        "read_at": "timestamptz",
    },
    "media_file": {
        "message_id": "uuid",
        "position": "integer NOT NULL DEFAULT 0",
        "name": "text",
        "url": "text",
        "bucket": "text",
        "mime_type": "text",
        "size": "bigint",
        "metadata": "jsonb",
        "uploaded_at": "timestamptz",
    },
    "call_recording": {
        "call_id": "uuid",
        "channel_id": "text",
        "path": "text",
        "kind": "text NOT NULL DEFAULT 'call'",
        "state": "text",
        "reason": "text",
        "started_at": "timestamptz",
        "ended_at": "timestamptz",
        "paused_spans": "jsonb NOT NULL DEFAULT '[]'::jsonb",
    },
    "call": {
        "integration_id": "uuid",
        "conversation_id": "uuid",
        "external_id": "text",
        "channel_id": "text",
        "from_number": "text",
        "to_number": "text",
        "from_e164": "text",
        "to_e164": "text",
        "created_at": "timestamptz",
    },
}

REFERENCES = {
    ("conversation", "integration_id"): "integration",
    ("conversation", "assigned_user_id"): "app_user",
    ("message", "integration_id"): "integration",
    ("media_file", "message_id"): "message",
    ("call_recording", "call_id"): "call",
    ("call", "integration_id"): "integration",
    ("call", "conversation_id"): "conversation",
}

# Beside the new columns, what the old program may change meanwhile and what then makes a kept value stale.
WITNESSES = {
    "message": {"media_file_id": "was_media_file_id"},
    "call": {"phone_number": "was_phone_number", "direction": "was_direction"},
}
STILL = "(call.phone_number, call.direction) IS NOT DISTINCT FROM (page.was_phone_number, page.was_direction)"
RESTORED = {
    ("media_file", "message_id"): """(
        SELECT message.id FROM message JOIN kept.message AS was ON was.id = message.id
        WHERE message.id = page.message_id AND message.media_file_id IS NOT DISTINCT FROM was.was_media_file_id)""",
    **{
        ("call", column): f"CASE WHEN {STILL} THEN page.{column} END"
        for column in ("from_number", "to_number", "from_e164", "to_e164")
    },
}


def restored(table: str, column: str) -> str:
    """Return the SQL of what a column gets back from the row `page`; NULL where what it named is gone."""
    if (table, column) in RESTORED:
        return RESTORED[table, column]
    if (table, column) in REFERENCES:
        target = REFERENCES[table, column]
        return f"(SELECT target.id FROM {target} AS target WHERE target.id = page.{column})"
    return f"page.{column}"


def restore(live: Online) -> dict[str, int]:
    """Bring back what was kept, and forget the copies."""
    found = [table for table in COLUMNS if live.exists(f"kept.{table}")]
    counted = {}
    for table in found:
        values = ", ".join(f"{column} = {restored(table, column)}" for column in COLUMNS[table])
        body = f"done AS (UPDATE {table} SET {values} FROM page WHERE {table}.id = page.id RETURNING 1)"
        counted[f"restored_{table}"] = live.batches(f"kept.{table}", body, counts={"n": "SELECT count(*) FROM done"})[
            "n"
        ]
    if found:  # all at once: what is left of some would be taken for all
        live.ddl(f"DROP TABLE {', '.join(f'kept.{table}' for table in found)}")
    return counted


def upgrade() -> None:
    """Add the columns and their references."""
    with online(op) as live:
        for table, columns in COLUMNS.items():
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column} {type_}" for column, type_ in columns.items())
            live.ddl(f"ALTER TABLE {table} {added}")
        for (table, column), target in REFERENCES.items():
            live.foresee(
                table,
                f"fk_{table}_{column}",
                f"FOREIGN KEY ({column}) REFERENCES {target} (id) ON DELETE SET NULL",
            )
        live.index("ix_media_file_message_id_position", "media_file (message_id, position)")
        live.index("ix_lead_phone_e164", "lead (account_id, phone_e164, created_at, id) WHERE phone_e164 IS NOT NULL")
        report(op, restore(live))


def downgrade() -> None:
    """Keep what is in the new columns, and drop them."""
    op.execute("CREATE SCHEMA IF NOT EXISTS kept")
    for table, columns in COLUMNS.items():
        witnesses = [f"{column} AS {alias}" for column, alias in WITNESSES.get(table, {}).items()]
        op.execute(f"CREATE TABLE kept.{table} AS SELECT {', '.join(['id', *columns, *witnesses])} FROM {table}")
        # What the old program erases is erased here too.
        op.execute(
            f"ALTER TABLE kept.{table} ADD PRIMARY KEY (id),"
            f" ADD FOREIGN KEY (id) REFERENCES {table} (id) ON DELETE CASCADE"
        )
    for table, columns in COLUMNS.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN {column}' for column in columns)}")
