"""The audit: who changed what of users, keys, webhooks, who logged in. Written in its transaction."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from trunkline.store.keyset import Listing, Order, Sort
from trunkline.store.pool import Connection, Pool

_INSERT: Final = """
INSERT INTO audit (account_id, actor, action, subject, address, request_id, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

AUDIT: Final = Listing(
    select="SELECT audit.id, actor, action, subject, audit.at, address, request_id, detail FROM audit",
    table="audit",
    orders={"at": Order("at", "timestamptz")},
    default=Sort("at", descending=True),
)

# A page at a time, so that nobody waits long for what it locks.
_PURGE: Final = """
WITH over AS (
    SELECT audit.id FROM audit JOIN account ON account.id = audit.account_id
    WHERE account.name = $1 AND audit.at < now() - $2::interval
    ORDER BY audit.at, audit.id LIMIT $3
), gone AS (
    DELETE FROM audit USING over WHERE audit.id = over.id RETURNING 1
)
SELECT count(*) FROM gone
"""
_PAGE: Final = 5_000


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


async def purge_audit(database: Connection | Pool, account: str, kept: timedelta) -> int:
    """Remove what is older; how many entries that were. For who writes calls: the API may not."""
    count = 0
    while gone := int(await database.fetchval(_PURGE, account, kept, _PAGE)):
        count += gone
    return count
