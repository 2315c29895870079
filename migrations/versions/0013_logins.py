"""Who users are elsewhere (OpenID Connect), and tries to log in that are counted for all processes of the API.

Both tables are new; on the way down they are put away.
"""

from alembic import op

from trunkline.store import row_security
from trunkline.store.online import make_tables, online

revision = "0013"
down_revision = "0012"

TABLES = {
    "user_identity": """(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        user_id uuid NOT NULL,
        issuer text NOT NULL,
        subject text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        last_login_at timestamptz,
        CONSTRAINT pk_user_identity PRIMARY KEY (id),
        CONSTRAINT uq_user_identity_account_id_issuer_subject UNIQUE (account_id, issuer, subject),
        CONSTRAINT uq_user_identity_user_id_issuer UNIQUE (user_id, issuer),
        CONSTRAINT fk_user_identity_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE,
        CONSTRAINT fk_user_identity_user_id FOREIGN KEY (user_id) REFERENCES app_user (id) ON DELETE CASCADE
    )""",
    "login_try": """(
        account_id uuid NOT NULL,
        subject text NOT NULL,
        made integer NOT NULL,
        locked_until timestamptz,
        tried_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_login_try PRIMARY KEY (account_id, subject),
        CONSTRAINT fk_login_try_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
}

TABLE_INDEXES = {"ix_login_try_account_id_tried_at": "login_try (account_id, tried_at)"}


def upgrade() -> None:
    """Make or bring back the tables, and put them behind row level security."""
    with online(op) as live:
        make_tables(live, TABLES, TABLE_INDEXES)
        for table in TABLES:
            live.ddl(*row_security.enable(table))


def downgrade() -> None:
    """Put the tables away."""
    for table in TABLES:
        for statement in row_security.disable(table):
            op.execute(statement)
    op.execute("CREATE SCHEMA IF NOT EXISTS kept")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} SET SCHEMA kept")
