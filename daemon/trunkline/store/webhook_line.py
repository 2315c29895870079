"""How events become deliveries and deliveries are made, as statements: the line that a webhook's deliveries stand in.

Whoever moves a webhook on locks its row first: who hands events over, who takes the next delivery, who writes down
what came of it. Who takes it gets a lease, so that a webhook has one delivery at a time whatever daemons there are;
who hands over sees whether somebody is at it, and makes a job where nobody is. Times are PostgreSQL's.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from trunkline.store.events import StoredEvent
from trunkline.store.pool import Connection, Pool
from trunkline.store.webhooks import GONE

_SELECT_BEHIND: Final = """
SELECT DISTINCT webhook.account_id
FROM webhook JOIN event_cursor AS cursor ON cursor.account_id = webhook.account_id
WHERE webhook.enabled AND webhook.last_seq < cursor.last_seq
"""

_LOCK_BEHIND: Final = """
SELECT id, last_seq, profile, event_types,
    coalesce(leased_until > statement_timestamp(), false) AS leased,
    coalesce(opened_until > statement_timestamp(), false) AS open
FROM webhook
WHERE account_id = $1 AND enabled
    AND last_seq < coalesce((SELECT last_seq FROM event_cursor WHERE account_id = $1), 0)
ORDER BY id
FOR NO KEY UPDATE
"""

_SELECT_EVENTS: Final = """
SELECT seq, type, call_id, data -> 'call' ->> 'direction' AS direction, data ->> 'mergedId' AS merged_id
FROM event
WHERE account_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3
"""

_SELECT_TOLD: Final = """
SELECT webhook_id, once FROM webhook_delivery WHERE webhook_id = ANY ($1::uuid[]) AND once = ANY ($2::text[])
"""

# The id is the event's own: the same for every webhook, try and replay.
_INSERT_DELIVERIES: Final = """
INSERT INTO webhook_delivery (account_id, webhook_id, event_seq, message_id, type, once, next_at)
SELECT $1::uuid, made.webhook_id, made.seq, 'evt_' || replace($1::text, '-', '') || '_' || made.seq, made.type,
    made.once, statement_timestamp()
FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[]) AS made (webhook_id, seq, type, once)
ON CONFLICT DO NOTHING
"""

_SET_HANDED_OVER: Final = """
UPDATE webhook SET last_seq = greatest(last_seq, $2) WHERE id = ANY ($1::uuid[])
"""

_LOCK: Final = """
SELECT enabled, url, profile, secret, failures, failing_since,
    CASE WHEN old_secret_until > statement_timestamp() THEN old_secret END AS old_secret,
    coalesce(leased_until > statement_timestamp() AND lease IS DISTINCT FROM $2, false) AS taken,
    coalesce(opened_until > statement_timestamp(), false) AS open
FROM webhook
WHERE id = $1
FOR NO KEY UPDATE
"""

# The first in line. One that was tried seldom is waited for; one that was put off for long is overtaken. A statement
# of its own, after the lock: it sees what was handed over while the lock was waited for.
_LEASE_NEXT: Final = """
WITH first AS (
    SELECT id, account_id, event_seq, message_id, type, attempts, next_at
    FROM webhook_delivery
    WHERE webhook_id = $1 AND state = 'pending' AND event_seq IS NOT NULL
        AND (next_at <= statement_timestamp() OR attempts < $4)
    ORDER BY event_seq
    LIMIT 1
), due AS MATERIALIZED (
    SELECT * FROM first WHERE next_at <= statement_timestamp()
), leased AS (
    UPDATE webhook SET
        lease = CASE WHEN EXISTS (SELECT FROM due) THEN $2::uuid END,
        leased_until = CASE WHEN EXISTS (SELECT FROM due) THEN statement_timestamp() + $3 * interval '1 second' END
    WHERE id = $1
)
SELECT due.id, due.message_id, due.type AS message_type, due.attempts,
    event.seq, event.type, event.call_id, event.lead_id, event.conversation_id, event.data, event.created_at
FROM due LEFT JOIN event ON event.account_id = due.account_id AND event.seq = due.event_seq
"""

_RELEASE: Final = "UPDATE webhook SET lease = NULL, leased_until = NULL WHERE id = $1 AND lease = $2"

_SETTLE_WEBHOOK: Final = f"""
UPDATE webhook SET
    failures = $3, failing_since = CASE WHEN $3 > 0 THEN coalesce(failing_since, now()) END,
    opened_until = CASE WHEN $4::integer > 0 THEN now() + $4 * interval '1 second' END,
    enabled = enabled AND NOT $5, disabled_reason = CASE WHEN $5 THEN '{GONE}' ELSE disabled_reason END
WHERE id = $1 AND lease = $2
"""

# Where the lease was lost meanwhile somebody else may have delivered it; what he wrote stays.
_SETTLE_DELIVERY: Final = """
UPDATE webhook_delivery SET
    state = $3, attempts = attempts + 1,
    next_at = CASE WHEN $3 = 'pending' THEN now() + $4 * interval '1 second' END,
    status_code = $5, error = $6, response = $7, tried_at = now(),
    delivered_at = CASE WHEN $3 = 'delivered' THEN now() END,
    tries = CASE WHEN jsonb_array_length(tries) < $9 THEN tries ELSE tries - 0 END || $8::jsonb
WHERE id = $1 AND state = 'pending' AND attempts = $2
"""

# What has waited behind the circuit of a receiver that took nothing in all that time.
_GIVE_UP: Final = """
UPDATE webhook_delivery SET state = 'failed', next_at = NULL, error = $3
FROM webhook
WHERE webhook.id = $1 AND webhook_id = $1 AND state = 'pending'
    AND webhook.failing_since < now() - $2 * interval '1 second'
    AND next_at < now() - $2 * interval '1 second'
"""

_SELECT_DUE: Final = """
SELECT id FROM webhook
WHERE enabled AND (opened_until IS NULL OR opened_until <= now()) AND (leased_until IS NULL OR leased_until <= now())
    AND EXISTS (
        SELECT FROM webhook_delivery
        WHERE webhook_id = webhook.id AND state = 'pending' AND next_at <= now()
    )
"""

_SELECT_WAITING: Final = """
SELECT count(delivery.id)::integer AS waiting,
    coalesce(extract(epoch FROM now() - min(delivery.created_at)), 0)::float AS oldest_s,
    (SELECT count(*) FROM webhook WHERE enabled AND opened_until > now())::integer AS open
FROM webhook JOIN webhook_delivery AS delivery ON delivery.webhook_id = webhook.id AND delivery.state = 'pending'
WHERE webhook.enabled
"""

_PURGE: Final = """
DELETE FROM webhook_delivery WHERE id IN (
    SELECT id FROM webhook_delivery
    WHERE state <> 'pending' AND created_at < now() - $1 * interval '1 day' ORDER BY created_at LIMIT 1000
) RETURNING 1
"""


class Behind(NamedTuple):
    """A webhook that has not been handed all events; locked. idle: nobody is at its deliveries, and somebody may be."""

    id: UUID
    last_seq: int
    profile: str
    event_types: list[str]
    idle: bool


class Happening(NamedTuple):
    """An event, as far as it matters for whom it is."""

    seq: int
    type: str
    call_id: UUID | None
    direction: str | None  # of its call, UPPERCASE
    merged_id: str | None  # the call that was folded into it


class Handed(NamedTuple):
    """An event for a webhook. once: told no second time under that name; None: always."""

    webhook_id: UUID
    seq: int
    type: str
    once: str | None


class Leased(NamedTuple):
    """A delivery that is ours for a while."""

    id: UUID
    message_id: str
    attempts: int  # before this one
    url: str
    profile: str
    secrets: list[str]  # the newest first
    failures: int  # of the webhook, in a row
    event: StoredEvent | None  # None: it is not kept any more


class Settled(NamedTuple):
    """What came of a try. wait_s None: it was the last; open_s: how long the receiver is to be left alone."""

    state: str
    wait_s: int | None
    status_code: int | None
    error: str | None
    response: str | None
    tried: msgspec.Struct  # webhooks.Try
    failures: int
    open_s: int
    gone: bool


class Waiting(NamedTuple):
    """How the lines stand."""

    deliveries: int
    oldest_s: float
    open: int  # webhooks whose circuit is open


async def select_behind(pool: Pool) -> list[UUID]:
    """The accounts with webhooks that have not been handed all events."""
    return [row["account_id"] for row in await pool.fetch(_SELECT_BEHIND)]


async def lock_behind(connection: Connection, account_id: UUID) -> list[Behind]:
    """Lock the account's webhooks that have not been handed all events."""
    return [
        Behind(row["id"], row["last_seq"], row["profile"], row["event_types"], not row["leased"] and not row["open"])
        for row in await connection.fetch(_LOCK_BEHIND, account_id)
    ]


async def select_happenings(connection: Connection, account_id: UUID, after: int, limit: int) -> list[Happening]:
    """The account's events after that one, in order."""
    return [Happening(**row) for row in await connection.fetch(_SELECT_EVENTS, account_id, after, limit)]


async def select_told(
    connection: Connection, webhook_ids: Sequence[UUID], names: Sequence[str]
) -> set[tuple[UUID, str]]:
    """What of these was told once already, by webhook."""
    return {(row["webhook_id"], row["once"]) for row in await connection.fetch(_SELECT_TOLD, webhook_ids, names)}


async def hand_over(
    connection: Connection, account_id: UUID, webhook_ids: Sequence[UUID], upto: int, handed: Sequence[Handed]
) -> None:
    """Make deliveries, and move these webhooks' places to that event."""
    if handed:
        await connection.execute(_INSERT_DELIVERIES, account_id, *map(list, zip(*handed, strict=True)))
    await connection.execute(_SET_HANDED_OVER, list(webhook_ids), upto)


async def lease_next(pool: Pool, webhook_id: UUID, lease: UUID, lease_s: float, holding: int) -> Leased | None:
    """Take the first delivery in a webhook's line, for so long.

    None: none is due, somebody else is at it, its circuit is open, or it is disabled; then the lease is given back.
    """
    async with pool.acquire() as connection, connection.transaction():
        webhook = await connection.fetchrow(_LOCK, webhook_id, lease)
        if webhook is None or webhook["taken"]:
            return None
        if not webhook["enabled"] or webhook["open"]:
            await connection.execute(_RELEASE, webhook_id, lease)
            return None
        row = await connection.fetchrow(_LEASE_NEXT, webhook_id, lease, lease_s, holding)
    return None if row is None else _leased(webhook, row)


async def release(pool: Pool, webhook_id: UUID, lease: UUID) -> None:
    """Give a lease back."""
    await pool.execute(_RELEASE, webhook_id, lease)


async def settle(
    pool: Pool, webhook_id: UUID, lease: UUID, delivery: Leased, settled: Settled, *, most_tries: int, whole_s: int
) -> None:
    """Write down what came of a try.

    most_tries: of which are kept. whole_s: what has waited longer for a receiver that failed all the time is given up.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_SETTLE_WEBHOOK, webhook_id, lease, settled.failures, settled.open_s, settled.gone)
        await connection.execute(
            _SETTLE_DELIVERY,
            *(delivery.id, delivery.attempts, settled.state, settled.wait_s or 0, settled.status_code, settled.error),
            *(settled.response, msgspec.json.encode([settled.tried]).decode(), most_tries),
        )
        if settled.failures:
            error = "the receiver took nothing in all the time of the schedule"
            await connection.execute(_GIVE_UP, webhook_id, whole_s, error)


async def select_due(pool: Pool) -> list[UUID]:
    """The webhooks that something is due for and nobody is at."""
    return [row["id"] for row in await pool.fetch(_SELECT_DUE)]


async def select_waiting(pool: Pool) -> Waiting:
    """How the lines stand, of all accounts."""
    row = await pool.fetchrow(_SELECT_WAITING)
    return Waiting(0, 0.0, 0) if row is None else Waiting(*row)


async def purge(pool: Pool, days: int) -> int:
    """Forget deliveries that were handed over longer ago, but for those still to be made; how many."""
    count = 0
    while some := len(await pool.fetch(_PURGE, days)):
        count += some
    return count


def _leased(webhook: Any, row: Any) -> Leased:
    event = None
    if row["seq"] is not None:
        names = StoredEvent.__struct_fields__
        event = StoredEvent(**{**{name: row[name] for name in names}, "data": msgspec.json.decode(row["data"])})
    secrets = [secret for secret in (webhook["secret"], webhook["old_secret"]) if secret is not None]
    return Leased(
        row["id"], row["message_id"], row["attempts"], webhook["url"], webhook["profile"], secrets,
        webhook["failures"], event,
    )  # fmt: skip
