"""The rows of sessions: refresh tokens, each good once, and the secret that signs access tokens.

A session is a family of tokens. The newest is good; one that was exchanged and comes again was copied, by whom nobody
knows, so the whole family is over (RFC 9700, 4.14.2).
"""

from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid4

from trunkline.store.audit import By, insert_audit
from trunkline.store.pool import Connection, Pool

REFRESH_DAYS: Final = 30

_INSERT: Final = """
INSERT INTO refresh_token (digest, account_id, user_id, family, expires_at, address)
VALUES ($1, $2, $3, $4, now() + $5, $6)
"""

_FORGET_EXPIRED: Final = "DELETE FROM refresh_token WHERE account_id = $1 AND user_id = $2 AND expires_at < now()"

# Of users who do not come back, too. Those that another one is at are left to him, so nobody waits for anybody.
_FORGET_ALL_EXPIRED: Final = """
DELETE FROM refresh_token WHERE digest IN (
    SELECT digest FROM refresh_token WHERE account_id = $1 AND expires_at < now() FOR UPDATE SKIP LOCKED
)
"""

# Whoever makes a token or ends a session has the user's row first. A statement that only waited for a token's row would
# not see the next token that was made meanwhile.
_HOLD_USER: Final = """
SELECT id FROM app_user WHERE account_id = $1 AND id = $2 AND token_generation = $3 AND disabled_at IS NULL
FOR NO KEY UPDATE
"""

_HOLD_USER_BY_DIGEST: Final = """
SELECT FROM app_user
WHERE account_id = $1 AND id = (SELECT user_id FROM refresh_token WHERE account_id = $1 AND digest = $2)
FOR NO KEY UPDATE
"""

_HOLD_USER_BY_FAMILY: Final = """
SELECT FROM app_user
WHERE account_id = $1 AND id = (SELECT user_id FROM refresh_token WHERE account_id = $1 AND family = $2 LIMIT 1)
FOR NO KEY UPDATE
"""

_SELECT_ROTATING: Final = """
SELECT token.family, token.user_id, token.rotated_at IS NOT NULL AS rotated,
    token.revoked_at IS NOT NULL OR token.expires_at < now() OR app_user.disabled_at IS NOT NULL AS over,
    app_user.token_generation
FROM refresh_token AS token
JOIN app_user ON app_user.id = token.user_id AND app_user.account_id = token.account_id
WHERE token.account_id = $1 AND token.digest = $2
"""

_ROTATE: Final = "UPDATE refresh_token SET rotated_at = now() WHERE account_id = $1 AND digest = $2"

_REVOKE_FAMILY: Final = """
UPDATE refresh_token SET revoked_at = now() WHERE account_id = $1 AND family = $2 AND revoked_at IS NULL
"""

REVOKE_ALL: Final = """
UPDATE refresh_token SET revoked_at = now() WHERE account_id = $1 AND user_id = $2 AND revoked_at IS NULL
"""

_SELECT_SESSION: Final = """
SELECT upper(app_user.role) AS role, app_user.token_generation
FROM app_user
WHERE app_user.account_id = $1 AND app_user.id = $2 AND app_user.disabled_at IS NULL
    AND EXISTS (SELECT FROM refresh_token AS token
        WHERE token.family = $3 AND token.account_id = $1 AND token.user_id = $2
            AND token.revoked_at IS NULL AND token.rotated_at IS NULL AND token.expires_at > now())
"""


class Rotated(NamedTuple):
    """A session that goes on."""

    user_id: UUID
    family: UUID
    generation: int


class SessionUser(NamedTuple):
    """Who is logged in."""

    role: str
    generation: int


async def open_session(
    pool: Pool, account_id: UUID, by: By, user_id: UUID, digest: bytes, generation: int
) -> UUID | None:
    """Begin a session with its first refresh token; its family.

    generation: of the user's tokens when he proved himself. None where it is another one by now, or he is disabled or
    gone: then what he proved is worth nothing any more.
    """
    family = uuid4()
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchrow(_HOLD_USER, account_id, user_id, generation) is None:
            return None
        await connection.execute(_FORGET_ALL_EXPIRED, account_id)
        await _insert(connection, account_id, by, user_id, family, digest)
        await insert_audit(connection, account_id, by, "session.opened", f"user:{user_id}")
    return family


async def rotate(
    pool: Pool, account_id: UUID, by: By, digest: bytes, next_digest: bytes
) -> Rotated | Literal["refused", "reused"]:
    """Exchange a refresh token for the next one. "reused": it had been exchanged, and its family was revoked."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_HOLD_USER_BY_DIGEST, account_id, digest)
        row: Any = await connection.fetchrow(_SELECT_ROTATING, account_id, digest)
        if row is None or row["over"]:
            return "refused"
        family, user_id = row["family"], row["user_id"]
        if row["rotated"]:
            await connection.execute(_REVOKE_FAMILY, account_id, family)
            await insert_audit(connection, account_id, by, "session.token_reused", f"user:{user_id}")
            return "reused"
        await connection.execute(_FORGET_EXPIRED, account_id, user_id)
        await connection.execute(_ROTATE, account_id, digest)
        await _insert(connection, account_id, by, user_id, family, next_digest)
    return Rotated(user_id, family, row["token_generation"])


async def close_session(pool: Pool, account_id: UUID, family: UUID) -> None:
    """End a session."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_HOLD_USER_BY_FAMILY, account_id, family)
        await connection.execute(_REVOKE_FAMILY, account_id, family)


async def close_all_sessions(pool: Pool, account_id: UUID, by: By, user_id: UUID) -> None:
    """End all of a user's sessions; access tokens are void too."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "UPDATE app_user SET token_generation = token_generation + 1 WHERE account_id = $1 AND id = $2",
            account_id,
            user_id,
        )
        await connection.execute(REVOKE_ALL, account_id, user_id)
        await insert_audit(connection, account_id, by, "session.closed_everywhere", f"user:{user_id}")


async def select_session(
    database: Connection | Pool, account_id: UUID, user_id: UUID, family: UUID
) -> SessionUser | None:
    """Who is logged in in that session; None where it is over, or he is disabled or gone."""
    row: Any = await database.fetchrow(_SELECT_SESSION, account_id, user_id, family)
    return None if row is None else SessionUser(row["role"], row["token_generation"])


async def select_secret(database: Connection | Pool, account_id: UUID, fresh: bytes) -> bytes:
    """The account's secret; `fresh` becomes it where there is none. All processes get the same one."""
    await database.execute(
        "INSERT INTO auth_secret (account_id, secret) VALUES ($1, $2) ON CONFLICT (account_id) DO NOTHING",
        account_id,
        fresh,
    )
    found: bytes = await database.fetchval("SELECT secret FROM auth_secret WHERE account_id = $1", account_id)
    return found


async def _insert(connection: Connection, account_id: UUID, by: By, user_id: UUID, family: UUID, digest: bytes) -> None:
    await connection.execute(_INSERT, digest, account_id, user_id, family, timedelta(days=REFRESH_DAYS), by.address)
