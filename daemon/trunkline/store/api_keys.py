"""The rows of API keys. Their digests never leave this module but as a question."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from trunkline.store.audit import By, insert_audit
from trunkline.store.pool import Connection, Pool

_COLUMNS: Final = "id, name, prefix, scopes, created_by, created_at, last_used_at, expires_at, revoked_at"
_MOST: Final = 1000

_SELECT_BY_DIGEST: Final = f"SELECT {_COLUMNS} FROM api_key WHERE digest = $2 AND account_id = $1"

_SELECT_OF: Final = f"SELECT {_COLUMNS} FROM api_key WHERE account_id = $1 AND (prefix = $2 OR id::text = $2)"

_SELECT_ALL: Final = f"""
SELECT {_COLUMNS} FROM api_key WHERE account_id = $1 ORDER BY revoked_at IS NOT NULL, created_at DESC, id LIMIT {_MOST}
"""

_INSERT: Final = f"""
INSERT INTO api_key (account_id, name, prefix, digest, scopes, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING {_COLUMNS}
"""

_REVOKE: Final = """
UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE account_id = $1 AND id = $2 RETURNING name
"""

# Once a minute, however many processes see it used.
_USED: Final = """
UPDATE api_key SET last_used_at = now()
WHERE account_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
"""


class ApiKey(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A key as it is shown: without itself."""

    id: UUID
    name: str
    prefix: str  # its first characters
    scopes: list[str]
    created_by: UUID | None
    created_at: datetime
    last_used_at: datetime | None  # to the minute
    expires_at: datetime | None  # null: never
    revoked_at: datetime | None


async def select_key(database: Connection | Pool, account_id: UUID, digest: bytes) -> ApiKey | None:
    """The key of this digest, revoked and expired ones too; None when the account has none."""
    row: Any = await database.fetchrow(_SELECT_BY_DIGEST, account_id, digest)
    return None if row is None else ApiKey(**row)


async def select_keys(database: Connection | Pool, account_id: UUID) -> list[ApiKey]:
    """An account's keys, those in use first, the newest first; 1,000 at most."""
    rows: list[Any] = await database.fetch(_SELECT_ALL, account_id)
    return [ApiKey(**row) for row in rows]


async def select_keys_of(database: Connection | Pool, account_id: UUID, text: str) -> list[ApiKey]:
    """The account's keys of this id or prefix."""
    rows: list[Any] = await database.fetch(_SELECT_OF, account_id, text)
    return [ApiKey(**row) for row in rows]


async def insert_key(
    pool: Pool,
    account_id: UUID,
    by: By,
    *,
    name: str,
    prefix: str,
    digest: bytes,
    scopes: Sequence[str],
    expires_at: datetime | None,
) -> ApiKey:
    """Store a new key."""
    async with pool.acquire() as connection, connection.transaction():
        row: Any = await connection.fetchrow(
            _INSERT, account_id, name, prefix, digest, list(scopes), by.user_id, expires_at
        )
        detail = f"{name}: {' '.join(scopes)}"
        await insert_audit(connection, account_id, by, "api_key.created", f"api_key:{row['id']}", detail)
    return ApiKey(**row)


async def revoke_key(pool: Pool, account_id: UUID, by: By, key_id: UUID) -> bool:
    """Revoke a key, for good; one that is revoked stays as it is. False when the account has none of this id."""
    async with pool.acquire() as connection, connection.transaction():
        name = await connection.fetchval(_REVOKE, account_id, key_id)
        if name is None:
            return False
        await insert_audit(connection, account_id, by, "api_key.revoked", f"api_key:{key_id}", name)
    return True


async def note_key_used(database: Connection | Pool, account_id: UUID, key_id: UUID) -> None:
    """Say that a key was used now, to the minute."""
    await database.execute(_USED, account_id, key_id)
