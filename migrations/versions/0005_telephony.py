"""Telephony: everything that a Call knows (docs/calls.md), its legs, aliases, events and commands.

The way down moves the new tables into the schema `kept` as they are, rows, indexes and references included.
"""

from alembic import op

from trunkline.store.online import bring_back, make_tables, online, put_away, report

revision = "0005"
down_revision = "0004"

# NULL or a constant default: adding them rewrites nothing.
COLUMNS = {
    "pbx": "text NOT NULL DEFAULT ''",
    "from_private": "boolean NOT NULL DEFAULT false",
    "caller_name": "text",
    "answered_at": "timestamptz",
    "wait_seconds": "integer",
    "talk_seconds": "integer",
    "hold_seconds": "integer",
    "end_reason": "text",
    "ended_by": "text",
    "answered_by": "text",
    "last_party": "text",
    "rang": "text[] NOT NULL DEFAULT '{}'::text[]",
    "queue": "text",
    "queue_wait_seconds": "integer",
    "queue_position": "integer",
    "transfers": "jsonb NOT NULL DEFAULT '[]'::jsonb",
    "holds": "jsonb NOT NULL DEFAULT '[]'::jsonb",
    "parked": "jsonb NOT NULL DEFAULT '[]'::jsonb",
    "conference": "text",
    "participants": "text[] NOT NULL DEFAULT '{}'::text[]",
    "digits": "text",
    "diverted_from": "text",
    "forwarded_from": "text",
    "recordings": "jsonb NOT NULL DEFAULT '[]'::jsonb",
    "quality": "text NOT NULL DEFAULT 'observed'",
    "revision": "integer NOT NULL DEFAULT 1",
}

CHECKS = {
    "end_reason": "('canceled', 'ring_timeout', 'queue_timeout', 'declined', 'unavailable', 'busy', 'congestion',"
    " 'unallocated', 'agent_no_answer', 'pbx_lost')",
    "ended_by": "('caller', 'callee', 'pbx')",
    "quality": "('observed', 'repaired', 'estimated')",
}

INDEXES = {
    "ix_call_live": "call (integration_id) WHERE ended_at IS NULL",
    "ix_call_page_status": "call (account_id, direction, status, started_at, id)",
    "ix_call_page_from": "call (account_id, from_number, direction, status, started_at, id)"
    " INCLUDE (to_number, to_e164)",
    "ix_call_page_to": "call (account_id, to_number, direction, status, started_at, id)"
    " INCLUDE (from_number, from_e164)",
    "ix_call_page_from_e164": "call (account_id, from_e164, direction, status, started_at, id)"
    " INCLUDE (to_number, to_e164) WHERE from_e164 IS NOT NULL",
    "ix_call_page_to_e164": "call (account_id, to_e164, direction, status, started_at, id)"
    " INCLUDE (from_number, from_e164) WHERE to_e164 IS NOT NULL",
}

TABLES = {
    "call_leg": """(
        call_id uuid NOT NULL,
        channel_id text NOT NULL,
        account_id uuid NOT NULL,
        position integer NOT NULL,
        endpoint text NOT NULL,
        party text,
        role text NOT NULL,
        started_at timestamptz NOT NULL,
        answered_at timestamptz,
        ended_at timestamptz,
        dial_status text,
        hangup_cause integer,
        end_reason text,
        CONSTRAINT pk_call_leg PRIMARY KEY (call_id, channel_id),
        CONSTRAINT fk_call_leg_call_id FOREIGN KEY (call_id) REFERENCES call (id) ON DELETE CASCADE,
        CONSTRAINT ck_call_leg_role
            CHECK (role IN ('caller', 'agent', 'transfer_target', 'consult', 'pickup', 'participant')),
        CONSTRAINT ck_call_leg_end_reason
            CHECK (end_reason IN ('answered_elsewhere', 'picked_up', 'ring_timeout', 'declined', 'busy', 'canceled',
                'congestion', 'unavailable', 'unallocated', 'forwarded', 'transferred', 'hangup', 'pbx_lost'))
    )""",
    "call_alias": """(
        integration_id uuid NOT NULL,
        external_id text NOT NULL,
        account_id uuid NOT NULL,
        call_id uuid NOT NULL,
        folded_id uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_call_alias PRIMARY KEY (integration_id, external_id),
        CONSTRAINT fk_call_alias_integration_id
            FOREIGN KEY (integration_id) REFERENCES integration (id) ON DELETE CASCADE,
        CONSTRAINT fk_call_alias_call_id FOREIGN KEY (call_id) REFERENCES call (id) ON DELETE CASCADE
    )""",
    "event_cursor": """(
        account_id uuid NOT NULL,
        last_seq bigint NOT NULL DEFAULT 0,
        CONSTRAINT pk_event_cursor PRIMARY KEY (account_id),
        CONSTRAINT fk_event_cursor_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
    "event": """(
        account_id uuid NOT NULL,
        seq bigint NOT NULL,
        type text NOT NULL,
        call_id uuid,
        lead_id uuid,
        conversation_id uuid,
        data jsonb NOT NULL DEFAULT '{}'::jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_event PRIMARY KEY (account_id, seq),
        CONSTRAINT fk_event_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
    "command": """(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        integration_id uuid NOT NULL,
        idempotency_key text NOT NULL,
        kind text NOT NULL,
        arguments jsonb NOT NULL DEFAULT '{}'::jsonb,
        state text NOT NULL DEFAULT 'pending',
        result jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        claimed_at timestamptz,
        finished_at timestamptz,
        CONSTRAINT pk_command PRIMARY KEY (id),
        CONSTRAINT uq_command_account_id_idempotency_key UNIQUE (account_id, idempotency_key),
        CONSTRAINT fk_command_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE,
        CONSTRAINT fk_command_integration_id
            FOREIGN KEY (integration_id) REFERENCES integration (id) ON DELETE CASCADE,
        CONSTRAINT ck_command_state CHECK (state IN ('pending', 'claimed', 'done', 'failed'))
    )""",
}

TABLE_INDEXES = {
    "ix_call_leg_channel_id": "call_leg (channel_id)",
    "ix_call_alias_call_id": "call_alias (call_id)",
    "ix_call_alias_folded_id": "call_alias (folded_id)",
    "ix_command_pending": "command (integration_id, created_at) WHERE state = 'pending'",
}


def upgrade() -> None:
    """Add the columns, make or bring back the tables."""
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column} {type_}" for column, type_ in COLUMNS.items())
    with online(op) as live:
        live.ddl(f"ALTER TABLE call {added}")
        if (restored := bring_back(live, "call", "call_telephony", COLUMNS)) is not None:
            report(op, {"restored_call_telephony": restored})
        for column, words in CHECKS.items():
            live.constrain("call", f"ck_call_{column}", f"CHECK ({column} IN {words})")
        for name, definition in INDEXES.items():
            live.index(name, definition)
        make_tables(live, TABLES, TABLE_INDEXES)


def downgrade() -> None:
    """Put the tables away, keep what is in the columns, and drop them."""
    put_away(op, "call", "call_telephony", COLUMNS, INDEXES, TABLES)
