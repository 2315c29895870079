"""What the sweeper of recordings asks and writes: files of a PBX's spool held against the rows, many at a time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from trunkline.store.integration import PBX_INTEGRATION
from trunkline.store.pool import Pool

_SELECT_INTEGRATION: Final = """
SELECT integration.id, integration.account_id, integration.external_id
FROM integration JOIN account ON account.id = integration.account_id
WHERE account.name = $1 AND integration.integration_id = $2 AND integration.external_id = $3
"""

# A recording's PBX is its own or its call's. OFFSET 0 makes it one lookup a path, whatever the planner believes of the
# size of the table; so it is below.
_SELECT_KNOWN: Final = """
SELECT recording.id, recording.path, recording.state, recording.erased_at,
    recording.reason LIKE 'the file is not there%' AS missing
FROM unnest($2::text[]) AS wanted (path)
CROSS JOIN LATERAL (SELECT * FROM call_recording WHERE call_recording.path = wanted.path OFFSET 0) AS recording
LEFT JOIN call ON call.id = recording.call_id
WHERE coalesce(recording.integration_id, call.integration_id) = $1
"""

# Names hold the ids of channels with or without the systemname before them.
_SELECT_CHANNELS: Final = """
SELECT wanted.id AS wanted, call.id AS call_id, call.ended_at AS call_ended_at, leg.channel_id, leg.started_at
FROM unnest($2::text[], $3::text[]) AS wanted (id, whole)
CROSS JOIN LATERAL (
    SELECT call_id, channel_id, started_at FROM call_leg WHERE channel_id IN (wanted.id, wanted.whole) OFFSET 0
) AS leg
JOIN call ON call.id = leg.call_id
WHERE call.integration_id = $1
"""

_UPSERT_UNMATCHED: Final = """
INSERT INTO call_recording AS held (account_id, integration_id, kind, path, state, reason)
SELECT $1, $2, $3, file.path, 'unmatched', file.reason
FROM unnest($4::text[], $5::text[]) AS file (path, reason)
ON CONFLICT (integration_id, path) WHERE call_id IS NULL DO UPDATE SET reason = excluded.reason
WHERE held.state = 'unmatched' AND held.reason IS DISTINCT FROM excluded.reason
RETURNING id, xmax = 0 AS is_new
"""

# What was unmatched is the same recording still, with its id and its legal hold.
_LINK_UNMATCHED: Final = """
UPDATE call_recording AS held SET call_id = file.call_id, channel_id = file.channel_id, state = 'pending',
    reason = NULL, started_at = file.started_at, ended_at = file.ended_at
FROM unnest($2::text[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[])
    AS file (path, call_id, channel_id, started_at, ended_at)
WHERE held.integration_id = $1 AND held.path = file.path AND held.call_id IS NULL AND held.state = 'unmatched'
    AND held.erased_at IS NULL
RETURNING held.id, held.path
"""

_DELETE_GONE: Final = """
DELETE FROM call_recording
WHERE integration_id = $1 AND call_id IS NULL AND state = 'unmatched' AND NOT legal_hold AND erased_at IS NULL
    AND kind = $2 AND path NOT IN (SELECT unnest($3::text[]))
"""

# A recording that the stream told of without its name, on the same channel, is this one.
_NAME_UNNAMED: Final = """
UPDATE call_recording AS held SET path = file.path, integration_id = $1
FROM unnest($2::text[], $3::uuid[], $4::text[]) AS file (path, call_id, channel_id)
WHERE held.call_id = file.call_id AND held.channel_id = file.channel_id AND held.path = ''
    AND held.state = 'pending' AND held.kind = $5
RETURNING held.id, held.path
"""

_INSERT_LINKED: Final = """
INSERT INTO call_recording (account_id, integration_id, kind, call_id, channel_id, path, state, started_at, ended_at)
SELECT $1, $2, $3, file.call_id, file.channel_id, file.path, 'pending', file.started_at, file.ended_at
FROM unnest($4::text[], $5::uuid[], $6::text[], $7::timestamptz[], $8::timestamptz[])
    AS file (path, call_id, channel_id, started_at, ended_at)
ON CONFLICT (call_id, path) DO NOTHING
RETURNING id
"""

# A message's call is the one that went to voicemail, from that number, while it was spoken. Two such calls: neither.
_INSERT_MESSAGES: Final = """
INSERT INTO call_recording (account_id, integration_id, call_id, channel_id, path, kind, state, started_at, ended_at)
SELECT $1, $2, spoken.id, spoken.channel_id, message.path, 'voicemail', 'pending', message.began_at, message.ended_at
FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
    AS message (path, caller, began_at, ended_at)
CROSS JOIN LATERAL (
    SELECT (array_agg(call.id))[1] AS id, (array_agg(call.channel_id))[1] AS channel_id
    FROM call
    WHERE call.account_id = $1 AND call.from_number = message.caller AND call.integration_id = $2
        AND call.started_at <= message.began_at + interval '2 seconds'
        AND call.ended_at >= message.began_at - interval '2 seconds'
    HAVING count(*) = 1
) AS spoken
WHERE NOT EXISTS (
    SELECT FROM call_recording AS held
    WHERE held.call_id = spoken.id AND held.kind = 'voicemail' AND held.started_at = message.began_at
)
ON CONFLICT (call_id, path) DO NOTHING
RETURNING id
"""

_SELECT_LOST_JOBS: Final = """
SELECT recording.id
FROM call_recording AS recording
JOIN account ON account.id = recording.account_id
JOIN call ON call.id = recording.call_id
WHERE account.name = $1 AND recording.state = 'pending' AND recording.path <> '' AND recording.erased_at IS NULL
    AND (recording.ended_at IS NOT NULL OR call.ended_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM jobs.pgqueuer AS job WHERE job.dedupe_key = 'recordings:' || recording.id::text
        AND job.status IN ('queued', 'picked'))  -- as the index has it: without, each row would read all jobs
"""

_SELECT_WAITING: Final = """
SELECT recording.state, count(*) AS count,
    extract(epoch FROM now() - min(coalesce(recording.ended_at, recording.created_at))
        FILTER (WHERE recording.ended_at IS NOT NULL))::float8 AS oldest_s
FROM call_recording AS recording JOIN account ON account.id = recording.account_id
WHERE account.name = $1 AND recording.state IN ('pending', 'unmatched', 'failed') AND recording.erased_at IS NULL
GROUP BY recording.state
"""

# One that the writer has at hand is said at the next sweep: nobody waits for it here.
_SAY_WAITING: Final = """
UPDATE call_recording SET reason = $2
WHERE id IN (
    SELECT recording.id FROM call_recording AS recording JOIN call ON call.id = recording.call_id
    WHERE recording.state = 'pending' AND recording.reason IS NULL AND recording.erased_at IS NULL
        AND coalesce(recording.integration_id, call.integration_id) = $1
        AND (recording.ended_at IS NOT NULL OR call.ended_at IS NOT NULL)
    FOR UPDATE OF recording SKIP LOCKED
)
"""

_REVIVE: Final = """
UPDATE call_recording SET state = 'pending', reason = NULL WHERE id = ANY ($1::uuid[]) AND state = 'failed'
"""


async def say_waiting(pool: Pool, integration_id: UUID, reason: str) -> None:
    """Say why a PBX's recordings of calls that have ended are not stored, where nothing is said yet."""
    await pool.execute(_SAY_WAITING, integration_id, reason)


async def select_integration(pool: Pool, account: str, pbx: str) -> Any:
    """A PBX's integration: id, account_id, external_id; None while it has none."""
    return await pool.fetchrow(_SELECT_INTEGRATION, account, PBX_INTEGRATION, pbx)


async def select_known(pool: Pool, integration_id: UUID, paths: Sequence[str]) -> list[Any]:
    """The recordings of a PBX with these paths: id, path, state, erased_at, missing (failed, for it was not there)."""
    return await pool.fetch(_SELECT_KNOWN, integration_id, list(paths))


async def select_channels(pool: Pool, integration_id: UUID, pbx: str, ids: Sequence[str]) -> dict[str, Any]:
    """The legs of channels by `epoch.counter`: call_id, call_ended_at, channel_id, started_at."""
    if not ids:
        return {}
    rows = await pool.fetch(_SELECT_CHANNELS, integration_id, list(ids), [f"{pbx}-{one}" for one in ids])
    return {row["wanted"]: row for row in rows}


async def select_lost_jobs(pool: Pool, account: str) -> list[UUID]:
    """Recordings that wait to be uploaded and have no job."""
    return [row["id"] for row in await pool.fetch(_SELECT_LOST_JOBS, account)]


async def delete_gone(pool: Pool, integration_id: UUID, kind: str, paths: Sequence[str]) -> None:
    """Forget unmatched files of a kind that are no longer there; `paths` are all that are."""
    await pool.execute(_DELETE_GONE, integration_id, kind, list(paths))


async def insert_messages(
    pool: Pool, integration: Any, messages: Sequence[tuple[str, str, datetime, datetime]]
) -> list[UUID]:
    """Make recordings of a PBX's voicemail: (path, caller, began at, ended at); the ids of those that are new."""
    if not messages:
        return []
    columns = [list(column) for column in zip(*messages, strict=True)]
    rows = await pool.fetch(_INSERT_MESSAGES, integration["account_id"], integration["id"], *columns)
    return [row["id"] for row in rows]


async def select_waiting(pool: Pool, account: str) -> dict[str, tuple[int, float]]:
    """How many recordings are pending, unmatched and failed, and how many s ago the oldest of each ended."""
    rows = await pool.fetch(_SELECT_WAITING, account)
    return {row["state"]: (row["count"], row["oldest_s"] or 0.0) for row in rows}


async def revive_missing(pool: Pool, recording_ids: Sequence[UUID]) -> None:
    """Give another chance to those whose file has come after all."""
    await pool.execute(_REVIVE, list(recording_ids))


async def upsert_unmatched(pool: Pool, integration: Any, kind: str, files: Sequence[tuple[str, str]]) -> list[UUID]:
    """Write down files, by path, that no call is known for, and why; the ids of those that are new."""
    if not files:
        return []
    paths, reasons = zip(*files, strict=True)
    whose = integration["account_id"], integration["id"]
    rows = await pool.fetch(_UPSERT_UNMATCHED, *whose, kind, list(paths), list(reasons))
    return [row["id"] for row in rows if row["is_new"]]


async def insert_linked(
    pool: Pool, integration: Any, kind: str, files: Sequence[tuple[str, Any, datetime]]
) -> list[UUID]:
    """Make recordings of files: (path, the leg's row, when it was last written); the ids of those that are new."""
    if not files:
        return []
    async with pool.acquire() as connection, connection.transaction():
        matched = await connection.fetch(_LINK_UNMATCHED, integration["id"], *_columns(files))
        left = [file for file in files if file[0] not in {row["path"] for row in matched}]
        named = await connection.fetch(_NAME_UNNAMED, integration["id"], *_columns(left)[:3], kind)
        left = [file for file in left if file[0] not in {row["path"] for row in named}]
        whose = integration["account_id"], integration["id"]
        rows = await connection.fetch(_INSERT_LINKED, *whose, kind, *_columns(left))
    return [row["id"] for row in (*matched, *named, *rows)]


def _columns(files: Sequence[tuple[str, Any, datetime]]) -> tuple[list[Any], ...]:
    """Paths, calls, channels, beginnings and ends."""
    return (
        [path for path, _, _ in files],
        [leg["call_id"] for _, leg, _ in files],
        [leg["channel_id"] for _, leg, _ in files],
        [min(leg["started_at"], at) for _, leg, at in files],
        [at for _, _, at in files],
    )
