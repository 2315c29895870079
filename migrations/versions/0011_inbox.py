"""The inbox: conversations that sleep and are unread, notes among messages, secrets of integrations, files that go.

- media_file.kind tells the files of messages from those of recordings, which have routes, rights and an audit of their
  own. What a recording has is one of the latter.
- call's index by conversation is put into the order of a conversation's timeline.
- integration_link is what the core says of its PBXs, for those who ask the database only.
- object_removal holds objects that are to go from the storage: written before an upload begins and forgotten with its
  success, so that nothing is left of one that is killed, and written where a file is deleted.
"""

from alembic import op

from trunkline.store import row_security
from trunkline.store.online import bring_back, make_tables, online, put_away

revision = "0011"
down_revision = "0010"

CONVERSATION = {"snoozed_until": "timestamptz", "unread_count": "integer NOT NULL DEFAULT 0"}
CONVERSATION_INDEXES = {
    "ix_conversation_open": "conversation (account_id, last_at, id) WHERE status = 'open'",
    "ix_conversation_snoozed": "conversation (account_id, last_at, id) WHERE snoozed_until IS NOT NULL",
    "ix_conversation_unread": "conversation (account_id, last_at, id) WHERE unread_count > 0",
    "ix_conversation_channel": "conversation (account_id, channel, last_at, id)",
    "ix_conversation_assigned": "conversation (account_id, assigned_user_id, last_at, id)",
}
MEDIA_FILE = {"kind": "text NOT NULL DEFAULT 'attachment'"}
MEDIA_FILE_INDEXES = {
    "ix_media_file_attachments": "media_file (account_id, uploaded_at, id) WHERE kind = 'attachment'",
    "ix_media_file_key": "media_file USING hash (key)",
}
KINDS = "CHECK (kind IN ('attachment', 'recording'))"

DIRECTIONS = "CHECK (direction IN ('inbound', 'outbound', 'internal'))"
OLD_DIRECTIONS = "CHECK (direction IN ('inbound', 'outbound'))"

CALL_INDEX, CALL_BY = "ix_call_conversation_id_started_at_id", "call (conversation_id, started_at, id)"
OLD_CALL_INDEX, OLD_CALL_BY = "ix_call_conversation_id", "call (conversation_id)"

TABLES = {
    "integration_secret": """(
        integration_id uuid NOT NULL,
        name text NOT NULL,
        account_id uuid NOT NULL,
        sealed bytea NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_integration_secret PRIMARY KEY (integration_id, name),
        CONSTRAINT fk_integration_secret_integration_id
            FOREIGN KEY (integration_id) REFERENCES integration (id) ON DELETE CASCADE,
        CONSTRAINT fk_integration_secret_account_id
            FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
    "integration_link": """(
        integration_id uuid NOT NULL,
        account_id uuid NOT NULL,
        up boolean NOT NULL,
        detail text NOT NULL DEFAULT '',
        heard_at timestamptz,
        reported_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_integration_link PRIMARY KEY (integration_id),
        CONSTRAINT fk_integration_link_integration_id
            FOREIGN KEY (integration_id) REFERENCES integration (id) ON DELETE CASCADE,
        CONSTRAINT fk_integration_link_account_id
            FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
    "object_removal": """(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        bucket text NOT NULL,
        key text NOT NULL,
        due_at timestamptz NOT NULL,
        tries integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_object_removal PRIMARY KEY (id),
        CONSTRAINT fk_object_removal_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
}
TABLE_INDEXES = {
    "ix_integration_secret_account_id": "integration_secret (account_id)",
    "ix_integration_link_account_id": "integration_link (account_id)",
    "ix_object_removal_account_id": "object_removal (account_id)",
    "ix_object_removal_due_at": "object_removal (due_at)",
}

# 0008 has let the API read integrations only.
RIGHTS = f"INSERT, UPDATE, DELETE ON integration TO {row_security.API_ROLE}"


def upgrade() -> None:
    """Add the columns, find the files of recordings, change the indexes, make or bring back the tables."""
    with online(op) as live:
        for table, columns in (("conversation", CONVERSATION), ("media_file", MEDIA_FILE)):
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column} {type_}" for column, type_ in columns.items())
            live.ddl(f"ALTER TABLE {table} {added}")
        bring_back(live, "conversation", "conversation_inbox", CONVERSATION)
        bring_back(live, "media_file", "media_file_kind", MEDIA_FILE)
        live.constrain("media_file", "ck_media_file_kind", KINDS)
        live.batches(
            "call_recording",
            "found AS (UPDATE media_file SET kind = 'recording' FROM page"
            " WHERE media_file.id = page.media_file_id AND media_file.kind <> 'recording' RETURNING 1)",
            counts={"n": "SELECT count(*) FROM found"},
        )
        live.ddl(
            "ALTER TABLE message DROP CONSTRAINT IF EXISTS ck_message_direction,"
            f" ADD CONSTRAINT ck_message_direction {DIRECTIONS} NOT VALID"
        )
        live.validate("message", "ck_message_direction")
        if live.exists("kept.message_internal"):
            live.batches(
                "kept.message_internal",
                "done AS (UPDATE message SET direction = 'internal' FROM page WHERE message.id = page.id RETURNING 1)",
                counts={"n": "SELECT count(*) FROM done"},
            )
            live.ddl("DROP TABLE kept.message_internal")
        for name, definition in (CONVERSATION_INDEXES | MEDIA_FILE_INDEXES).items():
            live.index(name, definition)
        live.index(CALL_INDEX, CALL_BY)
        live.drop_index(OLD_CALL_INDEX)
        make_tables(live, TABLES, TABLE_INDEXES)
        for table in TABLES:
            live.ddl(*row_security.enable(table))
        live.ddl(f"GRANT {RIGHTS}")


def downgrade() -> None:
    """Put the tables away, keep what is in the columns, and which messages are notes."""
    op.execute(f"REVOKE {RIGHTS.replace(' TO ', ' FROM ')}")
    for table in TABLES:
        for statement in row_security.disable(table):
            op.execute(statement)
    op.execute("CREATE SCHEMA IF NOT EXISTS kept")
    op.execute(f"CREATE INDEX {OLD_CALL_INDEX} ON {OLD_CALL_BY}")
    op.execute(f"DROP INDEX {CALL_INDEX}")
    op.execute("CREATE TABLE kept.message_internal AS SELECT id FROM message WHERE direction = 'internal'")
    op.execute(
        "ALTER TABLE kept.message_internal ADD PRIMARY KEY (id),"
        " ADD FOREIGN KEY (id) REFERENCES message (id) ON DELETE CASCADE"
    )
    op.execute("UPDATE message SET direction = 'outbound' WHERE direction = 'internal'")
    op.execute(
        "ALTER TABLE message DROP CONSTRAINT ck_message_direction,"
        f" ADD CONSTRAINT ck_message_direction {OLD_DIRECTIONS}"
    )
    op.execute("ALTER TABLE media_file DROP CONSTRAINT ck_media_file_kind")
    put_away(op, "media_file", "media_file_kind", MEDIA_FILE, MEDIA_FILE_INDEXES, ())
    put_away(op, "conversation", "conversation_inbox", CONVERSATION, CONVERSATION_INDEXES, TABLES)
