"""Row level security: the statements that put a table behind it, for the migrations; decision 9 says why it is so.

Two roles that nobody logs in as. CORE is what writes calls: it sees every account. API sees the account that its
connection names in `trunkline.account`, and nothing while that is not set. FORCE binds the owner of the tables too, who
is let in as a member of CORE.
"""

from typing import Final

CORE_ROLE: Final = "trunkline_core"
API_ROLE: Final = "trunkline_api"
ACCOUNT_SETTING: Final = "trunkline.account"
NAME_SETTING: Final = "trunkline.account_name"

FOR_ADMINISTRATOR: Final = f"""\
the role that migrates may not make the roles of row level security, or not join them. Have an administrator of the
server run, once (the first two where another database has not brought them already):
    CREATE ROLE {CORE_ROLE} NOLOGIN;
    CREATE ROLE {API_ROLE} NOLOGIN;
    GRANT {CORE_ROLE}, {API_ROLE} TO %(me)s;
"""

_RIGHTS: Final = "SELECT, INSERT, UPDATE, DELETE"
# What the API has no use for changing, or must not: nobody mends what an audit says.
_FEWER_RIGHTS: Final = {
    "account": "SELECT",
    "agent": "SELECT",
    "audit": "SELECT, INSERT",
    "auth_secret": "SELECT, INSERT",
    "call_alias": "SELECT",
    "call_leg": "SELECT",
    "integration": "SELECT",  # 0011 gives it the rest
    "integration_link": "SELECT",
    "pbx_state": "SELECT",
    "queue": "SELECT",
    "queue_member": "SELECT",
    "recording_access": "SELECT, INSERT",
}
_OWN: Final = f"account_id = nullif(current_setting('{ACCOUNT_SETTING}', true), '')::uuid"
# A connection has to find out which id its account has before it can say so.
_OWN_ACCOUNT: Final = f"name = current_setting('{NAME_SETTING}', true)"


def enable(table: str) -> list[str]:
    """Statements that put a table behind row level security; nobody who is let in is shut out in between."""
    own = _OWN_ACCOUNT if table == "account" else _OWN
    return [
        f"GRANT {_RIGHTS} ON {table} TO {CORE_ROLE}",
        f"GRANT {_FEWER_RIGHTS.get(table, _RIGHTS)} ON {table} TO {API_ROLE}",
        f"DROP POLICY IF EXISTS core ON {table}",
        f"CREATE POLICY core ON {table} TO {CORE_ROLE} USING (true) WITH CHECK (true)",
        f"DROP POLICY IF EXISTS api ON {table}",
        f"CREATE POLICY api ON {table} TO {API_ROLE} USING ({own}) WITH CHECK ({own})",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    ]


def disable(table: str) -> list[str]:
    """Statements that take a table out of it again."""
    return [
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS core ON {table}",
        f"DROP POLICY IF EXISTS api ON {table}",
        f"REVOKE ALL ON {table} FROM {CORE_ROLE}, {API_ROLE}",
    ]
