"""Who may do what: users that log in, API keys, the audit; and row level security on every table with an account.

Whatever tables of accounts there are by then are put behind it, and taken out again on the way down. The two roles
belong to the server, not to the database: they stay when it goes down, for other databases may use them.
"""

from alembic import op
from sqlalchemy.exc import DBAPIError

from trunkline.store import row_security
from trunkline.store.migrate import MigrationError
from trunkline.store.online import Online, online

revision = "0008"
down_revision = "0007"

COLUMNS = {
    "disabled_at": "timestamptz",
    "failed_logins": "integer NOT NULL DEFAULT 0",
    "locked_until": "timestamptz",
    "token_generation": "integer NOT NULL DEFAULT 0",
}

ROLES = "CHECK (role IN ('admin', 'supervisor', 'agent', 'viewer'))"
OLD_ROLES = "CHECK (role IN ('admin', 'supervisor', 'agent'))"

TABLES = {
    "api_key": """(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        name text NOT NULL,
        prefix text NOT NULL,
        digest bytea NOT NULL,
        scopes text[] NOT NULL DEFAULT '{}'::text[],
        created_by uuid,
        created_at timestamptz NOT NULL DEFAULT now(),
        last_used_at timestamptz,
        expires_at timestamptz,
        revoked_at timestamptz,
        CONSTRAINT pk_api_key PRIMARY KEY (id),
        CONSTRAINT uq_api_key_digest UNIQUE (digest),
        CONSTRAINT fk_api_key_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE,
        CONSTRAINT fk_api_key_created_by FOREIGN KEY (created_by) REFERENCES app_user (id) ON DELETE SET NULL
    )""",
    "refresh_token": """(
        digest bytea NOT NULL,
        account_id uuid NOT NULL,
        user_id uuid NOT NULL,
        family uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        rotated_at timestamptz,
        revoked_at timestamptz,
        address text,
        CONSTRAINT pk_refresh_token PRIMARY KEY (digest),
        CONSTRAINT fk_refresh_token_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE,
        CONSTRAINT fk_refresh_token_user_id FOREIGN KEY (user_id) REFERENCES app_user (id) ON DELETE CASCADE
    )""",
    "auth_secret": """(
        account_id uuid NOT NULL,
        secret bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_auth_secret PRIMARY KEY (account_id),
        CONSTRAINT fk_auth_secret_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
    "audit": """(
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        account_id uuid NOT NULL,
        actor text NOT NULL,
        action text NOT NULL,
        subject text NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        address text,
        request_id text,
        detail text,
        CONSTRAINT pk_audit PRIMARY KEY (id),
        CONSTRAINT fk_audit_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE
    )""",
}

TABLE_INDEXES = {
    "ix_api_key_account_id": "api_key (account_id)",
    "ix_refresh_token_user_id": "refresh_token (user_id)",
    "ix_refresh_token_family": "refresh_token (family)",
    "ix_audit_account_id_at_id": "audit (account_id, at, id)",
}

OF_ACCOUNTS = """
SELECT c.relname FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
    AND (c.relname = 'account' OR EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'account_id' AND NOT attisdropped))
ORDER BY c.relname
"""


def upgrade() -> None:
    """Add the columns, make or bring back the tables, then row level security."""
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column} {type_}" for column, type_ in COLUMNS.items())
    with online(op) as live:
        make_roles(live)
        live.ddl(
            f"ALTER TABLE app_user {added}",
            f"ALTER TABLE app_user DROP CONSTRAINT IF EXISTS ck_app_user_role,"
            f" ADD CONSTRAINT ck_app_user_role {ROLES} NOT VALID",
        )
        live.validate("app_user", "ck_app_user_role")
        if live.exists("kept.app_user_identity"):
            values = ", ".join(f"{column} = page.{column}" for column in COLUMNS)
            viewer = "role = CASE WHEN page.viewer AND app_user.role = 'agent' THEN 'viewer' ELSE app_user.role END"
            body = f"done AS (UPDATE app_user SET {values}, {viewer} FROM page WHERE app_user.id = page.id RETURNING 1)"
            live.batches("kept.app_user_identity", body, counts={"n": "SELECT count(*) FROM done"})
            live.ddl("DROP TABLE kept.app_user_identity")
        for table, definition in TABLES.items():
            if live.exists(f"kept.{table}"):
                live.ddl(f"ALTER TABLE kept.{table} SET SCHEMA public")
            else:
                live.ddl(f"CREATE TABLE IF NOT EXISTS {table} {definition}")
        for name, definition in TABLE_INDEXES.items():
            live.index(name, definition)
        live.ddl(*GRANTS)
        for table in tables():
            live.ddl(*row_security.enable(table))


# alembic_version: for /readyz. jobs: an erasure that the API orders is a job.
GRANTS = (
    f"GRANT USAGE ON SCHEMA public, jobs TO {row_security.CORE_ROLE}, {row_security.API_ROLE}",
    f"GRANT SELECT ON alembic_version TO {row_security.CORE_ROLE}, {row_security.API_ROLE}",
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobs TO {row_security.CORE_ROLE}",
    f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA jobs TO {row_security.API_ROLE}",
    f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA jobs TO {row_security.CORE_ROLE}, {row_security.API_ROLE}",
)


def tables() -> list[str]:
    """Those whose rows are an account's."""
    return [row[0] for row in op.get_bind().exec_driver_sql(OF_ACCOUNTS)]


def make_roles(live: Online) -> None:
    """Make the roles that are missing, and be a member of both. Raises MigrationError where that is not allowed."""
    connection = op.get_bind()
    for role in (row_security.CORE_ROLE, row_security.API_ROLE):
        try:
            if not connection.exec_driver_sql("SELECT FROM pg_roles WHERE rolname = $1", (role,)).rowcount:
                live.ddl(
                    f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN;"  # another database's migration may be at it too
                    " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
                )
            if not connection.exec_driver_sql("SELECT pg_has_role($1, 'USAGE')", (role,)).scalar():
                live.ddl(f"GRANT {role} TO CURRENT_USER")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "42501":
                raise
            me = connection.exec_driver_sql("SELECT quote_ident(current_user)").scalar()
            raise MigrationError(row_security.FOR_ADMINISTRATOR % {"me": me}) from error


def downgrade() -> None:
    """Take every table out of row level security, put the new ones away, and keep what is in the columns."""
    for table in tables():
        for statement in row_security.disable(table):
            op.execute(statement)
    for grant in GRANTS:
        op.execute(grant.replace("GRANT ", "REVOKE ", 1).replace(" TO ", " FROM ", 1))
    op.execute("CREATE SCHEMA IF NOT EXISTS kept")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} SET SCHEMA kept")
    op.execute(
        f"CREATE TABLE kept.app_user_identity AS"
        f" SELECT id, role = 'viewer' AS viewer, {', '.join(COLUMNS)} FROM app_user"
    )
    op.execute(
        "ALTER TABLE kept.app_user_identity ADD PRIMARY KEY (id),"
        " ADD FOREIGN KEY (id) REFERENCES app_user (id) ON DELETE CASCADE"
    )
    op.execute("UPDATE app_user SET role = 'agent' WHERE role = 'viewer'")
    op.execute(f"ALTER TABLE app_user DROP CONSTRAINT ck_app_user_role, ADD CONSTRAINT ck_app_user_role {OLD_ROLES}")
    op.execute(f"ALTER TABLE app_user {', '.join(f'DROP COLUMN {column}' for column in COLUMNS)}")
