"""Queues, live: who waits, who serves, how each agent is, whether the PBX is still seen; a Call's visits to queues."""

from alembic import op

from trunkline.store import row_security
from trunkline.store.online import bring_back, make_tables, online, put_away

revision = "0012"
down_revision = "0011"

COLUMNS = {"queue_visits": "jsonb NOT NULL DEFAULT '[]'::jsonb"}

_ACCOUNT = "FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE"
_INTEGRATION = "FOREIGN KEY (integration_id) REFERENCES integration (id) ON DELETE CASCADE"

TABLES = {
    "pbx_state": f"""(
        integration_id uuid NOT NULL,
        account_id uuid NOT NULL,
        connected boolean NOT NULL DEFAULT false,
        as_of timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_pbx_state PRIMARY KEY (integration_id),
        CONSTRAINT fk_pbx_state_account_id {_ACCOUNT},
        CONSTRAINT fk_pbx_state_integration_id {_INTEGRATION}
    )""",
    "queue": f"""(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        integration_id uuid NOT NULL,
        name text NOT NULL,
        strategy text,
        waiting jsonb NOT NULL DEFAULT '[]'::jsonb,
        changed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_queue PRIMARY KEY (id),
        CONSTRAINT uq_queue_integration_id_name UNIQUE (integration_id, name),
        CONSTRAINT fk_queue_account_id {_ACCOUNT},
        CONSTRAINT fk_queue_integration_id {_INTEGRATION}
    )""",
    "queue_member": f"""(
        queue_id uuid NOT NULL,
        interface text NOT NULL,
        account_id uuid NOT NULL,
        extension text NOT NULL,
        name text NOT NULL DEFAULT '',
        membership text NOT NULL DEFAULT '',
        penalty integer NOT NULL DEFAULT 0,
        paused boolean NOT NULL DEFAULT false,
        paused_reason text,
        paused_since timestamptz,
        in_call boolean NOT NULL DEFAULT false,
        calls_taken integer NOT NULL DEFAULT 0,
        last_call_at timestamptz,
        logged_in_since timestamptz,
        CONSTRAINT pk_queue_member PRIMARY KEY (queue_id, interface),
        CONSTRAINT fk_queue_member_queue_id FOREIGN KEY (queue_id) REFERENCES queue (id) ON DELETE CASCADE,
        CONSTRAINT fk_queue_member_account_id {_ACCOUNT}
    )""",
    "agent": f"""(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        integration_id uuid NOT NULL,
        extension text NOT NULL,
        name text NOT NULL DEFAULT '',
        status text NOT NULL,
        status_since timestamptz NOT NULL,
        paused boolean NOT NULL DEFAULT false,
        logged_in_since timestamptz,
        CONSTRAINT pk_agent PRIMARY KEY (id),
        CONSTRAINT uq_agent_integration_id_extension UNIQUE (integration_id, extension),
        CONSTRAINT fk_agent_account_id {_ACCOUNT},
        CONSTRAINT fk_agent_integration_id {_INTEGRATION},
        CONSTRAINT ck_agent_status CHECK (status IN (
            'available', 'ringing', 'in_use', 'on_hold', 'unavailable', 'unknown', 'logged_out'))
    )""",
}

TABLE_INDEXES = {
    "ix_queue_account_id": "queue (account_id)",
    "ix_queue_member_account_id_extension": "queue_member (account_id, extension)",
    "ix_agent_account_id": "agent (account_id)",
}
INDEXES = {"ix_call_queued": "call (account_id, started_at) WHERE queue IS NOT NULL"}


def upgrade() -> None:
    """Add the column, make or bring back the tables, put them behind row level security."""
    with online(op) as live:
        live.ddl(f"ALTER TABLE call ADD COLUMN IF NOT EXISTS queue_visits {COLUMNS['queue_visits']}")
        bring_back(live, "call", "call_queues", COLUMNS)
        for name, definition in INDEXES.items():
            live.index(name, definition)
        make_tables(live, TABLES, TABLE_INDEXES)
        for table in TABLES:
            live.ddl(*row_security.enable(table))


def downgrade() -> None:
    """Put the tables away and keep the visits."""
    for table in TABLES:
        for statement in row_security.disable(table):
            op.execute(statement)
    put_away(op, "call", "call_queues", COLUMNS, INDEXES, TABLES)
