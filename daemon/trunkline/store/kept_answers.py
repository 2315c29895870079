"""Answers that are kept for who sends a POST again under the same Idempotency-Key.

An answer is stored in the transaction of what it tells of: there is either both or neither, wherever a crash comes. The
key itself is not stored, and the request only as a digest that is made with it: who reads the table learns neither.
"""

from hashlib import blake2b, sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from trunkline.store.pool import Connection, Pool

KEPT_H: Final = 24

# Two that come at once: the second one is told so, it is not kept waiting.
_CLAIM: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('kept_answer ' || $1::uuid::text || $2, 0))"
_SELECT: Final = f"""
SELECT fingerprint, status, headers, body FROM kept_answer
WHERE account_id = $1 AND digest = $2 AND created_at > now() - interval '{KEPT_H} hours'
"""
_INSERT: Final = """
INSERT INTO kept_answer AS held (account_id, digest, fingerprint, status, headers, body)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (account_id, digest) DO UPDATE SET fingerprint = excluded.fingerprint, status = excluded.status,
    headers = excluded.headers, body = excluded.body, created_at = excluded.created_at
"""
_PURGE: Final = f"""
DELETE FROM kept_answer WHERE account_id = $1 AND created_at <= now() - interval '{KEPT_H} hours' RETURNING 1
"""


class KeptAnswer(NamedTuple):
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class Asked(NamedTuple):
    """A request under an Idempotency-Key, by its digests."""

    digest: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, key: str, actor: str, method: str, target: str, body: bytes) -> "Asked":
        """key: 1 to 255 visible ASCII characters; actor: who asks, as in the audit; target: path and query."""
        secret = blake2b(key.encode(), person=b"kept_answer").digest()
        told = b"\0".join((actor.encode(), method.encode(), target.encode(), body))
        return cls(sha256(key.encode()).digest(), blake2b(told, key=secret, digest_size=32).digest())


async def claim(connection: Connection, account_id: UUID, asked: Asked) -> bool:
    """Have the key to oneself until the transaction's end. False: another request that has it is being answered."""
    taken: bool = await connection.fetchval(_CLAIM, account_id, asked.digest.hex())
    return taken


async def select_kept(connection: Connection, account_id: UUID, asked: Asked) -> tuple[KeptAnswer, bool] | None:
    """What was answered under this key, and whether it was this very request. None: nothing was."""
    row: Any = await connection.fetchrow(_SELECT, account_id, asked.digest)
    if row is None:
        return None
    headers = msgspec.json.decode(row["headers"], type=dict[str, str])
    return KeptAnswer(row["status"], headers, row["body"]), row["fingerprint"] == asked.fingerprint


async def insert_kept(connection: Connection, account_id: UUID, asked: Asked, answer: KeptAnswer) -> None:
    """Keep an answer, in the transaction of what it tells of; one under the same key is over by now."""
    headers = msgspec.json.encode(answer.headers).decode()
    values = (asked.digest, asked.fingerprint, answer.status, headers, answer.body)
    await connection.execute(_INSERT, account_id, *values)


async def purge_kept(database: Connection | Pool, account_id: UUID) -> int:
    """Delete an account's answers whose time is over; how many."""
    return len(await database.fetch(_PURGE, account_id))
