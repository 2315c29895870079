"""Tries to log in, counted for all processes of the API together: by address, and by emails that are nobody's.

Each is counted before it is made, so a hundred at once are a hundred. Those of each user are in his row (users.py).
"""

from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

from trunkline.store.pool import Connection, Pool

KEPT: Final = timedelta(days=30)  # of a count that nobody adds to

# now() is when this statement began: where that is when the last try was, it is this one, and it may be made.
_BEGIN: Final = """
INSERT INTO login_try AS held (account_id, subject, made) VALUES ($1, $2, 1)
ON CONFLICT (account_id, subject) DO UPDATE SET
    made = CASE
        WHEN held.locked_until > now() THEN held.made
        WHEN held.locked_until IS NOT NULL OR held.tried_at < now() - $5::interval THEN 1
        ELSE held.made + 1 END,
    locked_until = CASE
        WHEN held.locked_until > now() THEN held.locked_until
        WHEN held.locked_until IS NULL AND held.tried_at >= now() - $5::interval AND held.made + 1 >= $3
            THEN now() + $4::interval END,
    tried_at = CASE WHEN held.locked_until > now() THEN held.tried_at ELSE now() END
RETURNING CASE WHEN tried_at = now() THEN 0
    ELSE greatest(extract(epoch FROM locked_until - now()), 1) END::float8
"""
_TAKE_BACK: Final = """
UPDATE login_try SET made = greatest(made - 1, 0), locked_until = NULL WHERE account_id = $1 AND subject = $2
"""
_FORGET: Final = "DELETE FROM login_try WHERE account_id = $1 AND subject = $2"
_PURGE: Final = """
DELETE FROM login_try USING account
WHERE account.id = login_try.account_id AND account.name = $1 AND tried_at < now() - $2::interval
"""


class Limit(NamedTuple):
    """How many tries there are, and how long none after them."""

    most: int
    lock: timedelta
    forget: timedelta = KEPT  # after so long without any the count begins anew


def of_email(email: str) -> str:
    """The subject of an email (in lowercase): not the email itself, which may be a password in the wrong field."""
    return f"nobody:{sha256(email.encode('utf-8', 'surrogateescape')).hexdigest()}"


async def begin_try(database: Connection | Pool, account_id: UUID, subject: str, limit: Limit) -> float:
    """Count a try. 0.0: it may be made; else in how many seconds one may."""
    waits: Any = await database.fetchval(_BEGIN, account_id, subject, limit.most, limit.lock, limit.forget)
    return float(waits)


async def take_back_try(database: Connection | Pool, account_id: UUID, subject: str) -> None:
    """It went well. One only: who has one password could else wash off his tries for others."""
    await database.execute(_TAKE_BACK, account_id, subject)


async def forget_tries(database: Connection | Pool, account_id: UUID, subject: str) -> None:
    """All of them."""
    await database.execute(_FORGET, account_id, subject)


async def purge_tries(database: Connection | Pool, account: str) -> None:
    """Forget what nobody has added to for KEPT."""
    await database.execute(_PURGE, account, KEPT)
