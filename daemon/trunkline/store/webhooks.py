"""The rows of webhooks as the API sees and changes them; what delivers has its statements in webhook_line.py.

A secret is read by who signs, and shown to nobody: no struct here holds one.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from trunkline.store.audit import By, insert_audit
from trunkline.store.pool import Connection, Pool
from trunkline.store.queries import Position

MOST: Final = 50  # webhooks of an account
ROTATION_H: Final = 24  # during which the secret before signs too
GONE: Final = "GONE"

Profile = Literal["STANDARD", "ZAMMAD"]
EventType = Literal[
    "agent.*",
    "agent.status",
    "call.*",
    "call.answered",
    "call.ended",
    "call.held",
    "call.merged",
    "call.parked",
    "call.queued",
    "call.recording_stored",
    "call.resumed",
    "call.ring_cleared",
    "call.ringing",
    "call.transferred",
    "call.updated",
    "conversation.*",
    "conversation.assigned",
    "conversation.closed",
    "conversation.created",
    "conversation.read",
    "conversation.reopened",
    "conversation.snoozed",
    "conversation.unread",
    "conversation.updated",
    "conversation.woken",
    "lead.*",
    "lead.created",
    "lead.deleted",
    "lead.merged",
    "lead.updated",
    "message.*",
    "message.created",
    "queue.*",
    "queue.connected",
    "queue.disconnected",
    "queue.removed",
    "queue.updated",
]
State = Literal["PENDING", "DELIVERED", "FAILED"]
TEST: Final = "webhook.test"


class Webhook(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A receiver of events. Times are aware UTC; enum words UPPERCASE."""

    id: UUID
    url: str
    description: str
    profile: Profile
    event_types: list[str]  # empty: all
    enabled: bool
    disabled_reason: str | None  # GONE: it answered 410
    last_seq: int  # of the last event that became a delivery, or was not asked for
    failures: int  # in a row
    failing_since: datetime | None
    open_until: datetime | None  # nothing is tried before
    secret_rotates_until: datetime | None  # until then the secret before signs too
    created_at: datetime


class Try(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One try of a delivery."""

    at: datetime
    status_code: int | None  # None: there was no answer
    error: str | None
    duration_ms: int


class Delivery(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One event for one webhook, and what became of it."""

    id: UUID
    webhook_id: UUID
    event_seq: int | None  # None: a test
    message_id: str  # webhook-id
    type: str
    state: State
    attempts: int
    next_at: datetime | None
    status_code: int | None
    error: str | None
    response: str | None  # its beginning
    tries: list[Try]
    created_at: datetime
    tried_at: datetime | None
    delivered_at: datetime | None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What of a webhook is to become otherwise; None: it stays."""

    url: str | None = None
    description: str | None = None
    profile: str | None = None
    event_types: list[str] | None = None
    enabled: bool | None = None


_WEBHOOK: Final = """id, url, description, upper(profile) AS profile, event_types, enabled, disabled_reason, last_seq,
    failures, failing_since, CASE WHEN opened_until > now() THEN opened_until END AS open_until,
    CASE WHEN old_secret_until > now() THEN old_secret_until END AS secret_rotates_until, created_at"""

_DELIVERY: Final = """id, webhook_id, event_seq, message_id, type, upper(state) AS state, attempts, next_at,
    status_code, error, response, tries, created_at, tried_at, delivered_at"""

_decode_tries: Final = msgspec.json.Decoder(list[Try]).decode

# Two who add at once take turns. The account's row would do, but the API's role may not lock it.
_TAKE_TURNS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || $1::uuid::text, 0))"
_COUNT: Final = "SELECT count(*) FROM webhook WHERE account_id = $1"
_INSERT: Final = f"""
INSERT INTO webhook (account_id, url, description, profile, event_types, secret, last_seq)
SELECT $1, $2, $3, $4, $5::text[], $6, coalesce((SELECT last_seq FROM event_cursor WHERE account_id = $1), 0)
RETURNING {_WEBHOOK}
"""
_SELECT_ALL: Final = f"SELECT {_WEBHOOK} FROM webhook WHERE account_id = $1 ORDER BY created_at, id"
_SELECT: Final = f"SELECT {_WEBHOOK} FROM webhook WHERE account_id = $1 AND id = $2"
_LOCK: Final = f"{_SELECT} FOR UPDATE"
_DELETE: Final = "DELETE FROM webhook WHERE account_id = $1 AND id = $2 RETURNING 1"

# Who is enabled again is told what happens from now on, after what waited for him. Whatever an admin changes of where
# or whether, the receiver is given another chance at once.
_UPDATE: Final = f"""
UPDATE webhook SET
    url = coalesce($3, url), description = coalesce($4, description), profile = coalesce($5, profile),
    event_types = coalesce($6::text[], event_types), enabled = coalesce($7, enabled),
    disabled_reason = CASE WHEN $7 IS NULL THEN disabled_reason END,
    last_seq = CASE WHEN $7 AND NOT enabled
        THEN coalesce((SELECT last_seq FROM event_cursor WHERE account_id = $1), 0) ELSE last_seq END,
    failures = CASE WHEN $7 OR $3 IS NOT NULL THEN 0 ELSE failures END,
    failing_since = CASE WHEN $7 OR $3 IS NOT NULL THEN NULL ELSE failing_since END,
    opened_until = CASE WHEN $7 OR $3 IS NOT NULL THEN NULL ELSE opened_until END
WHERE account_id = $1 AND id = $2
RETURNING {_WEBHOOK}
"""

_ROTATE: Final = f"""
UPDATE webhook SET secret = $3, old_secret = secret, old_secret_until = now() + interval '{ROTATION_H} hours'
WHERE account_id = $1 AND id = $2
RETURNING {_WEBHOOK}
"""

_SELECT_SECRETS: Final = """
SELECT secret, CASE WHEN old_secret_until > now() THEN old_secret END AS old_secret
FROM webhook WHERE account_id = $1 AND id = $2
"""

_SELECT_DELIVERIES: Final = f"""
SELECT {_DELIVERY} FROM webhook_delivery
WHERE account_id = $1 AND webhook_id = $2 AND ($3::text[] IS NULL OR state = ANY ($3::text[]))
    AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5::uuid))
ORDER BY created_at DESC, id DESC
LIMIT $6
"""
_SELECT_DELIVERY: Final = f"""
SELECT {_DELIVERY} FROM webhook_delivery WHERE account_id = $1 AND webhook_id = $2 AND id = $3
"""

# From the beginning of the schedule, with what is there to be sent.
_REPLAY: Final = f"""
UPDATE webhook_delivery SET state = 'pending', attempts = 0, next_at = now(), delivered_at = NULL
WHERE account_id = $1 AND webhook_id = $2 AND id = $3
    AND EXISTS (SELECT FROM event WHERE event.account_id = $1 AND event.seq = webhook_delivery.event_seq)
RETURNING {_DELIVERY}
"""

_INSERT_TEST: Final = f"""
INSERT INTO webhook_delivery (account_id, webhook_id, message_id, type, state, attempts, status_code, error, response,
    tries, tried_at, delivered_at)
SELECT account_id, id, $3, '{TEST}', $4, 1, $5, $6, $7, $8::jsonb, now(), CASE $4 WHEN 'delivered' THEN now() END
FROM webhook WHERE account_id = $1 AND id = $2
RETURNING {_DELIVERY}
"""


async def insert_webhook(
    pool: Pool,
    account_id: UUID,
    by: By,
    url: str,
    description: str,
    profile: str,
    event_types: Sequence[str],
    secret: str,
) -> Webhook | None:
    """Add a webhook, told of what happens from now on. None: the account has MOST."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_TAKE_TURNS, account_id)
        if await connection.fetchval(_COUNT, account_id) >= MOST:
            return None
        row = await connection.fetchrow(
            _INSERT, account_id, url, description, profile.lower(), list(event_types), secret
        )
        assert row is not None  # noqa: S101  # it was just made
        change = Change(url=url, event_types=list(event_types) or None)
        await _audit(connection, account_id, by, "created", row["id"], change)
    return _webhook(row)


async def select_webhooks(pool: Pool, account_id: UUID) -> list[Webhook]:
    """The account's webhooks, the oldest first."""
    return [Webhook(**row) for row in await pool.fetch(_SELECT_ALL, account_id)]


async def select_webhook(pool: Pool, account_id: UUID, webhook_id: UUID) -> Webhook | None:
    """One webhook of the account."""
    return _webhook(await pool.fetchrow(_SELECT, account_id, webhook_id))


async def lock_webhook(connection: Connection, account_id: UUID, webhook_id: UUID) -> Webhook | None:
    """As select_webhook; it stays as it is until the transaction's end."""
    return _webhook(await connection.fetchrow(_LOCK, account_id, webhook_id))


async def update_webhook(
    connection: Connection, account_id: UUID, by: By, webhook_id: UUID, change: Change
) -> Webhook | None:
    """Change a webhook; as it is then."""
    profile = None if change.profile is None else change.profile.lower()
    values = (change.url, change.description, profile, change.event_types, change.enabled)
    row = await connection.fetchrow(_UPDATE, account_id, webhook_id, *values)
    if row is not None:
        await _audit(connection, account_id, by, "changed", webhook_id, change)
    return _webhook(row)


async def delete_webhook(connection: Connection, account_id: UUID, by: By, webhook_id: UUID) -> bool:
    """Delete a webhook, and the log of its deliveries; whether it was there."""
    if await connection.fetchval(_DELETE, account_id, webhook_id) is None:
        return False
    await _audit(connection, account_id, by, "deleted", webhook_id)
    return True


async def rotate_secret(pool: Pool, account_id: UUID, by: By, webhook_id: UUID, secret: str) -> Webhook | None:
    """Give a webhook a new secret; the one it had signs too for ROTATION_H."""
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(_ROTATE, account_id, webhook_id, secret)
        if row is not None:
            await _audit(connection, account_id, by, "secret_rotated", webhook_id)
    return _webhook(row)


async def select_secrets(pool: Pool, account_id: UUID, webhook_id: UUID) -> list[str]:
    """The secrets that sign now, the newest first."""
    row = await pool.fetchrow(_SELECT_SECRETS, account_id, webhook_id)
    return [] if row is None else [secret for secret in row if secret is not None]


async def select_deliveries(
    pool: Pool, account_id: UUID, webhook_id: UUID, states: Sequence[str], after: Position | None, limit: int
) -> list[Delivery]:
    """A webhook's deliveries, newest first, those in one of the states (lowercase; none: all)."""
    at, id_ = (None, None) if after is None else (after.started_at, after.id)
    rows = await pool.fetch(_SELECT_DELIVERIES, account_id, webhook_id, list(states) or None, at, id_, limit)
    return [_delivery(row) for row in rows]


async def select_delivery(pool: Pool, account_id: UUID, webhook_id: UUID, delivery_id: UUID) -> Delivery | None:
    """One delivery of a webhook."""
    row = await pool.fetchrow(_SELECT_DELIVERY, account_id, webhook_id, delivery_id)
    return None if row is None else _delivery(row)


async def replay(connection: Connection, account_id: UUID, webhook_id: UUID, delivery_id: UUID) -> Delivery | None:
    """Have a delivery made again, with the same message id. None: its event is not there (a test has none)."""
    row = await connection.fetchrow(_REPLAY, account_id, webhook_id, delivery_id)
    return None if row is None else _delivery(row)


async def insert_test(
    pool: Pool, account_id: UUID, webhook_id: UUID, message_id: str, tried: Try, delivered: bool, response: str | None
) -> Delivery | None:
    """Write down a test. None: the webhook went meanwhile."""
    row = await pool.fetchrow(
        _INSERT_TEST,
        *(account_id, webhook_id, message_id, "delivered" if delivered else "failed", tried.status_code),
        *(tried.error, response, msgspec.json.encode([tried]).decode()),
    )
    return None if row is None else _delivery(row)


async def _audit(
    connection: Connection, account_id: UUID, by: By, what: str, webhook_id: UUID, change: Change | None = None
) -> None:
    """Write down who did it. Of a URL its host: the rest is often a secret of the receiver's."""
    told = []
    if change is not None:
        told += [] if change.url is None else [f"to {urlsplit(change.url).hostname}"]
        told += [] if change.event_types is None else [f"event_types={' '.join(change.event_types) or 'all'}"]
        told += [] if change.profile is None else [f"profile={change.profile.lower()}"]
        told += [] if change.enabled is None else [f"enabled={change.enabled}"]
    detail = ", ".join(told) or None
    await insert_audit(connection, account_id, by, f"webhook.{what}", f"webhook:{webhook_id}", detail)


def _webhook(row: Any) -> Webhook | None:
    return None if row is None else Webhook(**row)


def _delivery(row: Any) -> Delivery:
    return Delivery(**{**row, "tries": _decode_tries(row["tries"])})
