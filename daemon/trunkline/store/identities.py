"""The rows of who users are elsewhere: the subject of an issuer, tied to a user by his email or by an admin."""

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from trunkline.store.audit import By, insert_audit
from trunkline.store.pool import Connection, Pool
from trunkline.store.users import RoleWord

_COLUMNS: Final = "id, issuer, subject, created_at, last_login_at"

_SELECT_USER: Final = """
UPDATE user_identity SET last_login_at = now()
FROM app_user
WHERE user_identity.account_id = $1 AND issuer = $2 AND subject = $3
    AND app_user.id = user_identity.user_id AND app_user.account_id = $1
RETURNING app_user.id, app_user.token_generation, app_user.disabled_at IS NOT NULL AS disabled
"""

_SELECT_BY_EMAIL: Final = """
SELECT app_user.id, token_generation, disabled_at IS NOT NULL AS disabled,
    (SELECT subject FROM user_identity WHERE user_id = app_user.id AND issuer = $3) AS tied_to
FROM app_user WHERE account_id = $1 AND lower(email) = $2 ORDER BY created_at, id LIMIT 1 FOR UPDATE
"""

_INSERT_USER: Final = """
INSERT INTO app_user (account_id, email, name, role) VALUES ($1, $2, $3, lower($4)) RETURNING id, token_generation
"""

_INSERT: Final = f"""
INSERT INTO user_identity (account_id, user_id, issuer, subject, last_login_at)
SELECT $1, app_user.id, $3, $4, CASE WHEN $5 THEN now() END
FROM app_user WHERE app_user.account_id = $1 AND app_user.id = $2
RETURNING {_COLUMNS}
"""

Unknown = Literal["unknown", "disabled", "tied_to_another"]


class UserIdentity(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Who a user is at an issuer."""

    id: UUID
    issuer: str
    subject: str
    created_at: datetime
    last_login_at: datetime | None


class LoggedIn(NamedTuple):
    """A user whose identity is known."""

    user_id: UUID
    generation: int


async def find_or_tie(
    pool: Pool,
    account_id: UUID,
    by: By,
    *,
    issuer: str,
    subject: str,
    email: str | None,
    name: str,
    default_role: RoleWord | None,
) -> LoggedIn | Unknown:
    """The user of a subject; the first time he of that email, which the issuer has verified (in lowercase).

    Where there is none, one is made of `default_role`, if that is given. "tied_to_another": that user is another
    subject of the issuer already; an email that changed hands must not bring a user with it.
    """
    for _ in range(3):
        try:
            async with pool.acquire() as connection, connection.transaction():
                return await _find_or_tie(connection, account_id, by, issuer, subject, email, name, default_role)
        except asyncpg.UniqueViolationError:
            continue  # two came at the same moment: the other one has done it
    return "unknown"


async def _find_or_tie(
    connection: Connection,
    account_id: UUID,
    by: By,
    issuer: str,
    subject: str,
    email: str | None,
    name: str,
    default_role: RoleWord | None,
) -> LoggedIn | Unknown:
    row: Any = await connection.fetchrow(_SELECT_USER, account_id, issuer, subject)
    if row is not None:
        return "disabled" if row["disabled"] else LoggedIn(row["id"], row["token_generation"])
    if email is None:
        return "unknown"
    row = await connection.fetchrow(_SELECT_BY_EMAIL, account_id, email, issuer)
    if row is not None and row["disabled"]:
        return "disabled"
    if row is not None and row["tied_to"] is not None:  # the same subject: another login has tied it meanwhile
        return LoggedIn(row["id"], row["token_generation"]) if row["tied_to"] == subject else "tied_to_another"
    if row is None:
        if default_role is None:
            return "unknown"
        row = await connection.fetchrow(_INSERT_USER, account_id, email, name[:200], default_role)
        await insert_audit(connection, account_id, by, "user.created", f"user:{row['id']}", f"{email}: {default_role}")
    await connection.execute(_INSERT, account_id, row["id"], issuer, subject, True)
    await insert_audit(connection, account_id, by, "user.tied", f"user:{row['id']}", f"{issuer} {subject}")
    return LoggedIn(row["id"], row["token_generation"])


async def select_identities(database: Connection | Pool, account_id: UUID, user_id: UUID) -> list[UserIdentity]:
    """Who a user is elsewhere."""
    rows: list[Any] = await database.fetch(
        f"SELECT {_COLUMNS} FROM user_identity WHERE account_id = $1 AND user_id = $2 ORDER BY issuer, id",
        account_id,
        user_id,
    )
    return [UserIdentity(**row) for row in rows]


async def insert_identity(
    connection: Connection, account_id: UUID, by: By, user_id: UUID, issuer: str, subject: str
) -> UserIdentity | Literal["identity_taken", "user_not_found"]:
    """Tie a user to a subject, in the caller's transaction. "identity_taken": one of both is tied already."""
    try:
        async with connection.transaction():
            row: Any = await connection.fetchrow(_INSERT, account_id, user_id, issuer, subject, False)
    except asyncpg.UniqueViolationError:
        return "identity_taken"
    if row is None:
        return "user_not_found"
    await insert_audit(connection, account_id, by, "user.tied", f"user:{user_id}", f"{issuer} {subject}")
    return UserIdentity(**row)


async def delete_identity(connection: Connection, account_id: UUID, by: By, user_id: UUID, identity_id: UUID) -> bool:
    """Untie a user, in the caller's transaction; whether he was tied so."""
    row: Any = await connection.fetchrow(
        "DELETE FROM user_identity WHERE account_id = $1 AND user_id = $2 AND id = $3 RETURNING issuer, subject",
        account_id,
        user_id,
        identity_id,
    )
    if row is not None:
        told = f"{row['issuer']} {row['subject']}"
        await insert_audit(connection, account_id, by, "user.untied", f"user:{user_id}", told)
    return row is not None
