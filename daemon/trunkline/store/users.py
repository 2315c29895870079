"""The rows of users: what admins ask and change, and the tries to log in."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from trunkline.store.audit import By, insert_audit
from trunkline.store.pool import Connection, Pool, in_transaction
from trunkline.store.sessions import REVOKE_ALL

MOST_TRIES: Final = 10
LOCKED_S: Final = 900
_MOST: Final = 1000

_COLUMNS: Final = """id, email, name, upper(role) AS role, extension, password_hash IS NOT NULL AS has_password,
    created_at, disabled_at, CASE WHEN locked_until > now() THEN locked_until END AS locked_until"""

_SELECT: Final = f"SELECT {_COLUMNS} FROM app_user WHERE account_id = $1 AND id = $2"
_LOCK: Final = f"{_SELECT} FOR UPDATE"
_SELECT_ALL: Final = f"SELECT {_COLUMNS} FROM app_user WHERE account_id = $1 ORDER BY email, id LIMIT {_MOST}"
# The same one that begin_login takes.
_SELECT_OF_EMAIL: Final = f"""
SELECT {_COLUMNS} FROM app_user WHERE account_id = $1 AND lower(email) = $2 ORDER BY created_at, id LIMIT 1
"""

# Two that differ by case only may have come from the old schema; nobody can make such a pair any more.
_INSERT: Final = f"""
INSERT INTO app_user (account_id, email, name, role, extension, password_hash)
SELECT $1, $2, $3, lower($4), $5, $6
WHERE NOT EXISTS (SELECT FROM app_user WHERE account_id = $1 AND lower(email) = $2)
ON CONFLICT (account_id, email) DO NOTHING
RETURNING {_COLUMNS}
"""

# A try is counted before it is made: of a hundred at once no more are made than one after the other.
_BEGIN_LOGIN: Final = f"""
WITH wanted AS (
    SELECT id, locked_until > now() AS locked, extract(epoch FROM locked_until - now())::float8 AS wait_s
    FROM app_user WHERE account_id = $1 AND lower(email) = $2 ORDER BY created_at, id LIMIT 1 FOR UPDATE
), tried AS (
    UPDATE app_user SET
        failed_logins = CASE WHEN app_user.locked_until IS NULL THEN failed_logins + 1 ELSE 1 END,
        locked_until = CASE WHEN app_user.locked_until IS NULL AND failed_logins + 1 >= {MOST_TRIES}
            THEN now() + interval '{LOCKED_S} seconds' END
    FROM wanted WHERE app_user.id = wanted.id AND wanted.locked IS NOT TRUE
), noted AS (
    INSERT INTO audit (account_id, actor, action, subject, address, request_id)
    SELECT $1, 'nobody', 'login.tried', coalesce('user:' || wanted.id, 'nobody'), $3, $4
    FROM (SELECT 1) AS always LEFT JOIN wanted ON true
)
SELECT app_user.id, app_user.password_hash, app_user.token_generation, app_user.disabled_at IS NOT NULL AS disabled,
    coalesce(wanted.locked, false) AS locked, wanted.wait_s
FROM wanted JOIN app_user ON app_user.id = wanted.id
"""

_LOGGED_IN: Final = """
UPDATE app_user SET failed_logins = 0, locked_until = NULL, password_hash = coalesce($4, password_hash)
WHERE account_id = $1 AND id = $2 AND password_hash = $3
"""

_ADMINS: Final = """
SELECT id FROM app_user
WHERE account_id = $1 AND role = 'admin' AND disabled_at IS NULL AND password_hash IS NOT NULL ORDER BY id FOR UPDATE
"""

_TAKEN: Final = "SELECT EXISTS (SELECT FROM app_user WHERE account_id = $1 AND lower(email) = $2 AND id <> $3)"

# What a change of the column makes of it. The names are ours, never a client's.
_CHANGES: Final = {
    "email": "email = $%d",
    "name": "name = $%d",
    "role": "role = lower($%d)",
    "extension": "extension = $%d",
    "disabled": "disabled_at = CASE WHEN $%d THEN coalesce(disabled_at, now()) END",
    "password_hash": (
        "password_hash = $%d, token_generation = token_generation + 1, failed_logins = 0, locked_until = NULL"
    ),
}
RoleWord = Literal["ADMIN", "SUPERVISOR", "AGENT", "VIEWER"]
Refusal = Literal["user_not_found", "email_taken", "last_admin"]


class User(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A user as he is shown."""

    id: UUID
    email: str
    name: str
    role: RoleWord
    extension: str | None  # the phone he works at
    has_password: bool  # without one nobody can log in as him
    created_at: datetime
    disabled_at: datetime | None
    locked_until: datetime | None  # for too many wrong passwords; null: he is not


class LoginTry(NamedTuple):
    """What is to be known before a password is looked at."""

    id: UUID
    password_hash: str | None  # None: he has none
    token_generation: int
    disabled: bool
    locked_s: float  # how long no try may be made; 0.0: this one may


async def select_users(database: Connection | Pool, account_id: UUID) -> list[User]:
    """An account's users, by email; 1,000 at most."""
    rows: list[Any] = await database.fetch(_SELECT_ALL, account_id)
    return [User(**row) for row in rows]


async def select_user(database: Connection | Pool, account_id: UUID, user_id: UUID) -> User | None:
    """A user; None when the account has none of this id."""
    row: Any = await database.fetchrow(_SELECT, account_id, user_id)
    return None if row is None else User(**row)


async def select_user_of_email(database: Connection | Pool, account_id: UUID, email: str) -> User | None:
    """Who logs in with this email (in lowercase); None when the account has nobody of it."""
    row: Any = await database.fetchrow(_SELECT_OF_EMAIL, account_id, email)
    return None if row is None else User(**row)


async def lock_user(connection: Connection, account_id: UUID, user_id: UUID) -> User | None:
    """As select_user; he stays as he is until the transaction's end."""
    row: Any = await connection.fetchrow(_LOCK, account_id, user_id)
    return None if row is None else User(**row)


async def insert_user(
    database: Connection | Pool,
    account_id: UUID,
    by: By,
    *,
    email: str,
    name: str,
    role: RoleWord,
    extension: str | None,
    password_hash: str | None,
) -> User | None:
    """Store a new user; email: in lowercase. None when the account has one of that email."""
    async with in_transaction(database) as connection:
        row: Any = await connection.fetchrow(_INSERT, account_id, email, name, role, extension, password_hash)
        if row is None:
            return None
        await insert_audit(connection, account_id, by, "user.created", f"user:{row['id']}", f"{email}: {role}")
    return User(**row)


async def update_user(
    database: Connection | Pool,
    account_id: UUID,
    by: By,
    user_id: UUID,
    changes: Mapping[str, object],
    *,
    generation: int | None = None,
) -> User | Refusal:
    """Change a user. changes: of email (in lowercase), name, role, extension, disabled, password_hash.

    generation: of his tokens, where another one means that he is not the one who proved himself: "user_not_found".

    Who is disabled or gets another password is logged out everywhere. The last admin who can log in stays one.
    """
    try:
        return await _update_user(database, account_id, by, user_id, changes, generation)
    except asyncpg.UniqueViolationError:  # somebody took the email in the same moment
        return "email_taken"


async def _update_user(
    database: Connection | Pool,
    account_id: UUID,
    by: By,
    user_id: UUID,
    changes: Mapping[str, object],
    generation: int | None,
) -> User | Refusal:
    async with in_transaction(database) as connection:
        demoted = changes.get("role", "ADMIN") != "ADMIN" or changes.get("disabled") is True
        if demoted and await _is_last_admin(connection, account_id, user_id):
            return "last_admin"
        if "email" in changes and await connection.fetchval(_TAKEN, account_id, changes["email"], user_id):
            return "email_taken"
        told = ", ".join(_CHANGES[column] % (n + 4) for n, column in enumerate(changes)) or "name = name"
        row: Any = await connection.fetchrow(
            f"""UPDATE app_user SET {told}
                WHERE account_id = $1 AND id = $2 AND token_generation = coalesce($3, token_generation)
                RETURNING {_COLUMNS}""",
            account_id,
            user_id,
            generation,
            *changes.values(),
        )
        if row is None:
            return "user_not_found"
        if changes.get("disabled") is True or "password_hash" in changes:
            await connection.execute(REVOKE_ALL, account_id, user_id)
        await insert_audit(connection, account_id, by, "user.changed", f"user:{user_id}", _detail(changes))
    return User(**row)


async def delete_user(database: Connection | Pool, account_id: UUID, by: By, user_id: UUID) -> Refusal | None:
    """Delete a user; what he did stays in the audit. The last admin who can log in stays."""
    async with in_transaction(database) as connection:
        if await _is_last_admin(connection, account_id, user_id):
            return "last_admin"
        email = await connection.fetchval(
            "DELETE FROM app_user WHERE account_id = $1 AND id = $2 RETURNING email", account_id, user_id
        )
        if email is None:
            return "user_not_found"
        await insert_audit(connection, account_id, by, "user.deleted", f"user:{user_id}", email)
    return None


async def begin_login(database: Connection | Pool, account_id: UUID, by: By, email: str) -> LoginTry | None:
    """Count a try to log in as the user of this email (in lowercase); None when there is none.

    MOST_TRIES in a row, and no other may be made for LOCKED_S. One commit either way: a disk that is slow would tell.
    """
    row: Any = await database.fetchrow(_BEGIN_LOGIN, account_id, email, by.address, by.request_id)
    if row is None:
        return None
    locked_s = max(row["wait_s"], 1.0) if row["locked"] else 0.0
    return LoginTry(row["id"], row["password_hash"], row["token_generation"], row["disabled"], locked_s)


async def end_login(
    database: Connection | Pool, account_id: UUID, user_id: UUID, password_hash: str, rehashed: str | None = None
) -> None:
    """The password of that hash was right: forget the tries. rehashed: a new hash of the same password.

    Nothing is done where he has another password by now.
    """
    await database.execute(_LOGGED_IN, account_id, user_id, password_hash, rehashed)


async def _is_last_admin(connection: Connection, account_id: UUID, user_id: UUID) -> bool:
    # Locked in one order, so that two who demote each other take turns, and the second is refused.
    admins = [row["id"] for row in await connection.fetch(_ADMINS, account_id)]
    return admins == [user_id]


def _detail(changes: Mapping[str, object]) -> str:
    """What was changed, to what: a password only that it was."""
    told = [
        "password" if name == "password_hash" else f"{name}={value}" for name, value in changes.items()
    ]  # emails and names are what an audit is about
    return ", ".join(told)
