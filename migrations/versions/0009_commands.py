"""Commands: what the core needs to carry one out once, in time or not at all, and to say what became of it."""

from alembic import op

from trunkline.store.online import online

revision = "0009"
down_revision = "0008"

COLUMNS = {
    "call_id": "uuid",
    "request_hash": "bytea",
    "actor": "text NOT NULL DEFAULT ''",
    "address": "text",
    "request_id": "text",
    "not_after": "timestamptz NOT NULL DEFAULT now()",
    "claimed_by": "uuid",
    "lease_until": "timestamptz",
    "code": "text",
    "detail": "text",
}
STATES = "CHECK (state IN ('pending', 'claimed', 'done', 'failed', 'unknown'))"
OLD_STATES = "CHECK (state IN ('pending', 'claimed', 'done', 'failed'))"
CALL = "FOREIGN KEY (call_id) REFERENCES call (id) ON DELETE SET NULL"
INDEXES = {
    "ix_command_call_id": "command (call_id)",
    "ix_command_account_id_created_at": "command (account_id, created_at)",
    "ix_command_claimed": "command (lease_until) WHERE state = 'claimed'",
}


def upgrade() -> None:
    """Add the columns, bring back what an earlier way down has put away, let a key be free again."""
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column} {type_}" for column, type_ in COLUMNS.items())
    with online(op) as live:
        live.ddl(
            f"ALTER TABLE command {added}",
            "ALTER TABLE command ALTER COLUMN idempotency_key DROP NOT NULL",
            f"ALTER TABLE command DROP CONSTRAINT IF EXISTS ck_command_state,"
            f" ADD CONSTRAINT ck_command_state {STATES} NOT VALID",
        )
        live.validate("command", "ck_command_state")
        if live.exists("kept.command_more"):
            values = ", ".join(f"{column} = page.{column}" for column in COLUMNS)
            others = (
                "state = CASE WHEN page.unknown AND command.state = 'failed' THEN 'unknown' ELSE command.state END,"
                " idempotency_key = CASE WHEN page.keyless THEN NULL ELSE command.idempotency_key END"
            )
            body = f"done AS (UPDATE command SET {values}, {others} FROM page WHERE command.id = page.id RETURNING 1)"
            live.batches("kept.command_more", body, counts={"n": "SELECT count(*) FROM done"})
            live.ddl("DROP TABLE kept.command_more")
        for name, definition in INDEXES.items():
            live.index(name, definition)
        live.constrain("command", "fk_command_call_id", CALL)


def downgrade() -> None:
    """Keep what is in the columns; a row without a key gets its id for one."""
    op.execute("CREATE SCHEMA IF NOT EXISTS kept")
    op.execute(
        f"CREATE TABLE kept.command_more AS SELECT id, state = 'unknown' AS unknown,"
        f" idempotency_key IS NULL AS keyless, {', '.join(COLUMNS)} FROM command"
    )
    op.execute(
        "ALTER TABLE kept.command_more ADD PRIMARY KEY (id),"
        " ADD FOREIGN KEY (id) REFERENCES command (id) ON DELETE CASCADE,"
        f" ADD {CALL}"
    )
    op.execute("CREATE INDEX ON kept.command_more (call_id)")
    op.execute("UPDATE command SET state = 'failed' WHERE state = 'unknown'")
    op.execute("UPDATE command SET idempotency_key = id::text WHERE idempotency_key IS NULL")
    op.execute(
        f"ALTER TABLE command DROP CONSTRAINT ck_command_state, ADD CONSTRAINT ck_command_state {OLD_STATES},"
        " ALTER COLUMN idempotency_key SET NOT NULL"
    )
    op.execute("DROP INDEX ix_command_account_id_created_at")  # the others go with their columns
    op.execute(f"ALTER TABLE command {', '.join(f'DROP COLUMN {column}' for column in COLUMNS)}")
