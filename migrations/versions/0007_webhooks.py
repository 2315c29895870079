"""Webhooks out: who is to be told of events, and the log of what became of each telling.

Both tables are new, so nothing waits for this. On the way down they are put away whole, secrets included: a receiver
goes on knowing us after the way up again, and what was not delivered yet is delivered then.
"""

from alembic import op

from trunkline.store.online import online

revision = "0007"
down_revision = "0006"

TABLES = {
    "webhook": """(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        url text NOT NULL,
        description text NOT NULL DEFAULT '',
        profile text NOT NULL DEFAULT 'standard',
        event_types text[] NOT NULL DEFAULT '{}'::text[],
        enabled boolean NOT NULL DEFAULT true,
        disabled_reason text,
        secret text NOT NULL,
        old_secret text,
        old_secret_until timestamptz,
        last_seq bigint NOT NULL DEFAULT 0,
        failures integer NOT NULL DEFAULT 0,
        failing_since timestamptz,
        opened_until timestamptz,
        lease uuid,
        leased_until timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_webhook PRIMARY KEY (id),
        CONSTRAINT fk_webhook_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE,
        CONSTRAINT ck_webhook_profile CHECK (profile IN ('standard', 'zammad'))
    )""",
    "webhook_delivery": """(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        webhook_id uuid NOT NULL,
        event_seq bigint,
        message_id text NOT NULL,
        type text NOT NULL,
        once text,
        state text NOT NULL DEFAULT 'pending',
        attempts integer NOT NULL DEFAULT 0,
        next_at timestamptz,
        status_code integer,
        error text,
        response text,
        tries jsonb NOT NULL DEFAULT '[]'::jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        tried_at timestamptz,
        delivered_at timestamptz,
        CONSTRAINT pk_webhook_delivery PRIMARY KEY (id),
        CONSTRAINT uq_webhook_delivery_webhook_id_event_seq UNIQUE (webhook_id, event_seq),
        CONSTRAINT fk_webhook_delivery_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE,
        CONSTRAINT fk_webhook_delivery_webhook_id FOREIGN KEY (webhook_id) REFERENCES webhook (id) ON DELETE CASCADE,
        CONSTRAINT ck_webhook_delivery_state CHECK (state IN ('pending', 'delivered', 'failed'))
    )""",
}

INDEXES = {
    "ix_webhook_account_id": "webhook (account_id)",
    "ix_webhook_delivery_account_id": "webhook_delivery (account_id)",
    "uq_webhook_delivery_once": "UNIQUE webhook_delivery (webhook_id, once) WHERE once IS NOT NULL",
    "ix_webhook_delivery_line": "webhook_delivery (webhook_id, event_seq) WHERE state = 'pending'",
    "ix_webhook_delivery_due": "webhook_delivery (webhook_id, next_at) WHERE state = 'pending'",
    "ix_webhook_delivery_page": "webhook_delivery (webhook_id, created_at, id)",
    "ix_webhook_delivery_created_at": "webhook_delivery (created_at)",
}


def upgrade() -> None:
    """Make or bring back the tables."""
    with online(op) as live:
        for table, definition in TABLES.items():
            if live.exists(f"kept.{table}"):
                live.ddl(f"ALTER TABLE kept.{table} SET SCHEMA public")
            else:
                live.ddl(f"CREATE TABLE IF NOT EXISTS {table} {definition}")
        for name, definition in INDEXES.items():
            live.index(name, definition)


def downgrade() -> None:
    """Put the tables away. The jobs go: what is pending gets new ones."""
    op.execute("DELETE FROM jobs.pgqueuer WHERE entrypoint = 'webhooks'")
    op.execute("CREATE SCHEMA IF NOT EXISTS kept")
    for table in reversed(TABLES):
        op.execute(f"ALTER TABLE {table} SET SCHEMA kept")
