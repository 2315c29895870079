"""The audit: who changed what of users, keys, webhooks, who logged in. Written in its transaction."""

from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from trunkline.store.pool import Connection, Pool

_INSERT: Final = """
INSERT INTO audit (account_id, actor, action, subject, address, request_id, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

_SELECT: Final = """
SELECT id, actor, action, subject, at, address, request_id, detail
FROM audit
WHERE account_id = $1 AND (at, id) < ($2, $3)
ORDER BY at DESC, id DESC
LIMIT $4
"""


class By(NamedTuple):
    """Who does something, and how he came. actor: as in the column of that name (store/identity_tables.py)."""

    actor: str
    address: str | None = None
    request_id: str | None = None
    user_id: UUID | None = None  # None: it is no user


class AuditEntry(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One thing that was done."""

    id: UUID
    actor: str
    action: str
    subject: str
    at: datetime
    address: str | None
    request_id: str | None
    detail: str | None


async def insert_audit(
    database: Connection | Pool, account_id: UUID, by: By, action: str, subject: str, detail: str | None = None
) -> None:
    """Write down that it was done. detail: never a secret."""
    await database.execute(_INSERT, account_id, by.actor, action, subject, by.address, by.request_id, detail)


async def select_audit(
    database: Connection | Pool, account_id: UUID, before: tuple[datetime, UUID], limit: int
) -> list[AuditEntry]:
    """At most `limit` entries of an account, the newest first, from before that place on."""
    rows: list[Any] = await database.fetch(_SELECT, account_id, *before, limit)
    return [AuditEntry(**row) for row in rows]
