"""Answers that are kept for Idempotency-Keys; further numbers of leads, what they were merged from; notes on calls.

All tables are new; of what was there only `lead` gets a column and indexes. On the way down all of it is put away.
"""

from alembic import op

from trunkline.store import row_security
from trunkline.store.online import bring_back, make_tables, online, put_away

revision = "0010"
down_revision = "0009"

COLUMNS = {"external_id": "text"}

INDEXES = {
    "uq_lead_external_id": "UNIQUE lead (account_id, external_id) WHERE external_id IS NOT NULL",
    "ix_lead_account_id_updated_at_id": "lead (account_id, updated_at, id)",
    "ix_lead_email": "lead (account_id, email, created_at, id) WHERE octet_length(email) <= 254",
}

TABLES = {
    "kept_answer": """(
        account_id uuid NOT NULL,
        digest bytea NOT NULL,
        fingerprint bytea NOT NULL,
        status integer NOT NULL,
        headers jsonb NOT NULL DEFAULT '{}'::jsonb,
        body bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_kept_answer PRIMARY KEY (account_id, digest),
        CONSTRAINT fk_kept_answer_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
    "lead_phone": """(
        lead_id uuid NOT NULL,
        position integer NOT NULL,
        account_id uuid NOT NULL,
        number text NOT NULL,
        e164 text,
        lead_created_at timestamptz NOT NULL,
        CONSTRAINT pk_lead_phone PRIMARY KEY (lead_id, position),
        CONSTRAINT fk_lead_phone_lead_id FOREIGN KEY (lead_id) REFERENCES lead (id) ON DELETE CASCADE
    )""",
    "lead_alias": """(
        folded_id uuid NOT NULL,
        account_id uuid NOT NULL,
        lead_id uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_lead_alias PRIMARY KEY (folded_id),
        CONSTRAINT fk_lead_alias_lead_id FOREIGN KEY (lead_id) REFERENCES lead (id) ON DELETE CASCADE
    )""",
    "call_note": """(
        call_id uuid NOT NULL,
        account_id uuid NOT NULL,
        notes text NOT NULL DEFAULT '',
        tags text[] NOT NULL DEFAULT '{}'::text[],
        disposition text,
        lead_chosen boolean NOT NULL DEFAULT false,
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_call_note PRIMARY KEY (call_id),
        CONSTRAINT fk_call_note_call_id FOREIGN KEY (call_id) REFERENCES call (id) ON DELETE CASCADE
    )""",
}

TABLE_INDEXES = {
    "ix_kept_answer_account_id_created_at": "kept_answer (account_id, created_at)",
    "ix_lead_phone_e164_further": "lead_phone (account_id, e164, lead_created_at, lead_id) WHERE e164 IS NOT NULL",
    "ix_lead_alias_lead_id": "lead_alias (lead_id)",
}


def upgrade() -> None:
    """Add the column, make or bring back the tables, put them behind row level security."""
    with online(op) as live:
        live.ddl(*(f"ALTER TABLE lead ADD COLUMN IF NOT EXISTS {name} {type_}" for name, type_ in COLUMNS.items()))
        bring_back(live, "lead", "lead_of_0010", COLUMNS)
        for name, definition in INDEXES.items():
            live.index(name, definition)
        make_tables(live, TABLES, TABLE_INDEXES)
        for table in TABLES:
            live.ddl(*row_security.enable(table))


def downgrade() -> None:
    """Put the tables away, out of row level security, and keep what is in the column."""
    for table in TABLES:
        for statement in row_security.disable(table):
            op.execute(statement)
    put_away(op, "lead", "lead_of_0010", COLUMNS, INDEXES, TABLES)
