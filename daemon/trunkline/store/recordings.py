"""The rows of recordings: what the room `recordings/` and the API ask of them, and the one way each changes.

States: `pending` until the object is stored, then `stored`; `empty` without audio; `unmatched` a file in the spool that
no call is known for; `failed` given up. `reason` says why it is not stored, or not yet.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, Protocol
from uuid import UUID, uuid4

import msgspec

from trunkline.calls.record import PausedSpan
from trunkline.store import writer_sql
from trunkline.store.pool import Connection, Pool

STORED_EVENT: Final = "call.recording_stored"


class EnqueueRecordings(Protocol):
    """Have recordings uploaded: jobs made in the transaction that stores their rows."""

    async def __call__(self, connection: Connection, recording_ids: Sequence[UUID], /) -> None: ...


class Recording(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A recording as the API shows it. Times are aware UTC; enum words UPPERCASE."""

    id: UUID
    call_id: UUID | None
    channel_id: str | None
    kind: Literal["CALL", "VOICEMAIL", "ARI"]
    state: Literal["PENDING", "STORED", "EMPTY", "UNMATCHED", "FAILED"]
    reason: str | None
    path: str | None
    started_at: datetime | None
    ended_at: datetime | None
    duration_seconds: int | None
    paused_spans: list[PausedSpan]
    legal_hold: bool
    erased_at: datetime | None
    media_file_id: UUID | None
    name: str | None
    mime_type: str | None
    size: int | None  # bytes
    sha256: str | None
    created_at: datetime


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """What a stored object was made of, where it is not the PBX's file itself."""

    sha256: str
    size: int  # bytes
    codec: str


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload has made."""

    name: str
    bucket: str
    key: str
    mime_type: str
    size: int  # bytes
    sha256: str
    seconds: float | None
    mended: str = ""  # what was wrong with the file's header
    codec: str = ""
    original: Original | None = None
    waveform: bytes | None = None  # as JSON; None: it is made when it is asked for


_decode_spans: Final = msgspec.json.Decoder(list[PausedSpan]).decode
_COLUMNS: Final = """recording.id, recording.call_id, recording.channel_id, recording.kind, recording.state,
    recording.reason, recording.path, recording.started_at, recording.ended_at, recording.duration_seconds,
    recording.paused_spans, recording.legal_hold, recording.erased_at, recording.media_file_id, recording.created_at,
    file.name, file.mime_type, file.size, file.bucket, file.key, file.metadata ->> 'sha256' AS sha256"""

_SELECT: Final = f"""
SELECT {_COLUMNS}
FROM call_recording AS recording
LEFT JOIN media_file AS file ON file.id = recording.media_file_id AND file.account_id = recording.account_id
"""

# As in queries.py: a coalesce that is not in a SELECT of its own would cost the index.
_SELECT_OF_CALL: Final = f"""{_SELECT}
WHERE recording.account_id = $1 AND recording.call_id = (SELECT coalesce(
    (SELECT call_id FROM call_alias WHERE account_id = $1 AND folded_id = $2 LIMIT 1), $2))
ORDER BY recording.started_at, recording.path
"""

_SELECT_UNFINISHED: Final = f"""{_SELECT}
WHERE recording.account_id = $1 AND recording.state = ANY ($2::text[]) AND recording.erased_at IS NULL
ORDER BY recording.created_at DESC
LIMIT $3
"""

_SELECT_JOBS: Final = """
SELECT recording.id, recording.account_id, recording.call_id, recording.channel_id, recording.path, recording.kind,
    recording.state, recording.reason, recording.started_at, recording.ended_at, recording.erased_at,
    recording.created_at, recording.object_key,
    account.name AS account, coalesce(pbx.external_id, call.pbx) AS pbx, call.ended_at AS call_ended_at,
    file.bucket, file.key, file.size, file.metadata ->> 'sha256' AS sha256,
    coalesce(file.metadata #>> '{original,sha256}', file.metadata ->> 'sha256') AS source_sha256
FROM call_recording AS recording
JOIN account ON account.id = recording.account_id
LEFT JOIN call ON call.id = recording.call_id
LEFT JOIN integration AS pbx ON pbx.id = recording.integration_id
LEFT JOIN media_file AS file ON file.id = recording.media_file_id
WHERE recording.id = ANY ($1::uuid[])
"""

# Rows are locked in the order in which the writer locks them.
_CLAIM_KEYS: Final = """
WITH held AS (
    SELECT id FROM call_recording WHERE id = ANY ($1::uuid[]) ORDER BY call_id, path FOR UPDATE
)
UPDATE call_recording AS recording SET object_key = coalesce(recording.object_key, own.key)
FROM held JOIN unnest($1::uuid[], $2::text[]) AS own (id, key) ON own.id = held.id
WHERE recording.id = held.id
RETURNING recording.id, recording.object_key
"""

# Whoever uses ARI names its files, and may have one overwritten.
_IS_TAKEN_OVER: Final = """
SELECT EXISTS (
    SELECT FROM call_recording AS later LEFT JOIN call ON call.id = later.call_id
    WHERE later.path = $2 AND later.id <> $1 AND later.kind = 'ari' AND later.started_at > $3
        AND later.account_id = $4 AND coalesce(later.integration_id, call.integration_id) = (
            SELECT coalesce(own.integration_id, call.integration_id)
            FROM call_recording AS own LEFT JOIN call ON call.id = own.call_id WHERE own.id = $1
        )
)
"""

_SET_STATE: Final = """
UPDATE call_recording SET state = $2, reason = $3
WHERE id = $1 AND state <> 'stored' AND (state, reason) IS DISTINCT FROM ($2, $3)
RETURNING 1
"""

# A recording that was stored meanwhile, by another run of the same job, stays as that run left it.
# The calls that `_SHOW_IN_CALL` will change come first: the writer has a call before its recordings.
_LOCK_CALLS: Final = """
SELECT call.id FROM call_recording AS held JOIN call ON call.id = held.call_id
WHERE held.id = ANY ($1::uuid[]) AND call.ended_at IS NOT NULL
    AND NOT call.recordings @> jsonb_build_array(jsonb_build_object('path', held.path))
ORDER BY call.id
FOR NO KEY UPDATE OF call
"""

_LOCK: Final = """
SELECT id, state, account_id, call_id FROM call_recording
WHERE id = ANY ($1::uuid[]) AND erased_at IS NULL
ORDER BY call_id, path
FOR UPDATE
"""

_SET_STORED: Final = """
WITH stored AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::jsonb[],
        $10::integer[]
    ) AS of (recording_id, file_id, account_id, name, bucket, key, mime_type, size, metadata, seconds)
), file AS (
    INSERT INTO media_file (id, account_id, name, bucket, key, url, mime_type, size, metadata, kind)
    SELECT
        file_id, account_id, name, bucket, key, 's3://' || bucket || '/' || key, mime_type, size, metadata, 'recording'
    FROM stored
)
UPDATE call_recording SET
    state = 'stored', reason = NULL, media_file_id = stored.file_id, duration_seconds = stored.seconds
FROM stored WHERE call_recording.id = stored.recording_id
"""

# The call's own list follows where its tracker knew nothing of the file; it is done with the call.
_SELECT_NOT_SHOWN: Final = """
SELECT held.id FROM call_recording AS held JOIN call ON call.id = held.call_id
WHERE held.id = ANY ($1::uuid[]) AND call.ended_at IS NOT NULL
    AND NOT call.recordings @> jsonb_build_array(jsonb_build_object('path', held.path))
"""
_SHOW_IN_CALL: Final = """
UPDATE call SET
    recordings = coalesce((  -- without what stood for it while its name was not known
        SELECT jsonb_agg(ref) FROM jsonb_array_elements(call.recordings) AS ref
        WHERE NOT ref @> jsonb_build_object('path', '', 'channelId', held.channel_id)
    ), '[]') || jsonb_build_array(jsonb_build_object(
        'path', held.path, 'channelId', held.channel_id, 'kind', upper(held.kind), 'pausedSpans', held.paused_spans,
        'startedAt', to_char(held.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'endedAt', to_char(held.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))),
    recording_id = coalesce(call.recording_id, held.id)
FROM call_recording AS held
WHERE held.id = $1 AND call.id = held.call_id AND call.ended_at IS NOT NULL
    AND NOT call.recordings @> jsonb_build_array(jsonb_build_object('path', held.path))
"""

_INSERT_PEAKS: Final = """
INSERT INTO recording_peaks (recording_id, account_id, data)
SELECT id, account_id, $3::jsonb FROM call_recording WHERE account_id = $1 AND id = $2 AND erased_at IS NULL
ON CONFLICT (recording_id) DO NOTHING
"""

_CALL_EXISTS: Final = """
SELECT EXISTS (SELECT FROM call WHERE account_id = $1 AND id = $2)
    OR EXISTS (SELECT FROM call_alias WHERE account_id = $1 AND folded_id = $2)
"""

_ORDER_ERASURE: Final = """
UPDATE call_recording SET erased_at = coalesce(erased_at, now())
WHERE account_id = $1 AND id = $2 AND NOT legal_hold
RETURNING id
"""

_FORGET_FILE: Final = """
DELETE FROM media_file WHERE id = (SELECT media_file_id FROM call_recording WHERE id = $1)
"""
_FORGET_IN_CALL: Final = """
UPDATE call SET recordings = (
    SELECT coalesce(jsonb_agg(CASE WHEN ref ->> 'path' = $2 THEN ref || '{"path": ""}' ELSE ref END), '[]')
    FROM jsonb_array_elements(recordings) AS ref
)
WHERE id = $1
"""
_FORGET_RECORDING: Final = """
UPDATE call_recording SET path = NULL, object_key = NULL, reason = 'erased' WHERE id = $1
"""

# A queue's days count before the account's. What was given up, or is of no known call, is erased too: its file may be
# in the spool, and its row tells of somebody. Where nothing tells when it began, it counts from when it was found.
_SELECT_OVERDUE: Final = """
SELECT recording.id, recording.account_id, call.queue
FROM call_recording AS recording
JOIN account ON account.id = recording.account_id
LEFT JOIN call ON call.id = recording.call_id
LEFT JOIN unnest($3::text[], $4::integer[]) AS own (queue, days) ON own.queue = call.queue
WHERE account.name = $1 AND recording.state <> 'pending' AND recording.erased_at IS NULL AND NOT recording.legal_hold
    AND coalesce(recording.started_at, recording.created_at) < now() - make_interval(days => coalesce(own.days, $2))
ORDER BY coalesce(recording.started_at, recording.created_at)
LIMIT $5
"""

_SELECT_LOST_ERASURES: Final = """
SELECT recording.id FROM call_recording AS recording JOIN account ON account.id = recording.account_id
WHERE account.name = $1 AND recording.erased_at IS NOT NULL AND recording.reason IS DISTINCT FROM 'erased'
    AND NOT EXISTS (SELECT FROM jobs.pgqueuer AS job WHERE job.dedupe_key = 'recordings:' || recording.id::text
        AND job.status IN ('queued', 'picked'))
"""

_INSERT_ACCESS: Final = """
INSERT INTO recording_access (account_id, recording_id, action, actor, address, request_id, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


async def select_recording(
    database: Connection | Pool, account_id: UUID, recording_id: UUID
) -> tuple[Recording, str | None] | None:
    """A recording of an account and its object's key (None: it has none); None when the account has none of this id."""
    row = await database.fetchrow(
        f"{_SELECT} WHERE recording.account_id = $1 AND recording.id = $2", account_id, recording_id
    )
    return None if row is None else (_recording(row), row["key"])


async def select_recordings_of_call(database: Connection | Pool, account_id: UUID, call_id: UUID) -> list[Recording]:
    """The recordings of a call, in order of time; also by the id of a call that was folded into another."""
    return [_recording(row) for row in await database.fetch(_SELECT_OF_CALL, account_id, call_id)]


async def select_unfinished(
    database: Connection | Pool, account_id: UUID, states: Sequence[str], limit: int
) -> list[Recording]:
    """Recordings in some of the states pending, unmatched and failed, the newest first."""
    return [_recording(row) for row in await database.fetch(_SELECT_UNFINISHED, account_id, list(states), limit)]


async def select_peaks(database: Connection | Pool, account_id: UUID, recording_id: UUID) -> bytes | None:
    """A recording's waveform as JSON; None when there is none."""
    found = await database.fetchval(
        "SELECT data FROM recording_peaks WHERE account_id = $1 AND recording_id = $2", account_id, recording_id
    )
    return None if found is None else str(found).encode()


async def insert_peaks(database: Connection | Pool, account_id: UUID, recording_id: UUID, data: bytes) -> None:
    """Keep a recording's waveform, unless it was erased meanwhile."""
    await database.execute(_INSERT_PEAKS, account_id, recording_id, data.decode())


async def call_exists(database: Connection | Pool, account_id: UUID, call_id: UUID) -> bool:
    """Has the account a call of this id, or one that was folded into another?"""
    return bool(await database.fetchval(_CALL_EXISTS, account_id, call_id))


async def set_hold(database: Connection | Pool, account_id: UUID, recording_id: UUID, held: bool) -> bool:
    """Put a recording under legal hold, or out of it. False where it was erased meanwhile."""
    return bool(
        await database.fetchval(
            """UPDATE call_recording SET legal_hold = $3
               WHERE account_id = $1 AND id = $2 AND erased_at IS NULL RETURNING true""",
            account_id,
            recording_id,
            held,
        )
    )


async def order_erasure(
    pool: Pool,
    account_id: UUID,
    recording_id: UUID,
    enqueue: EnqueueRecordings,
    *,
    actor: str,
    detail: str,
    action: str = "erase",
    address: str | None = None,
    request_id: str | None = None,
) -> bool:
    """From now on a recording cannot be had; a job will do the rest. False where a legal hold forbids it."""
    async with pool.acquire() as connection, connection.transaction():
        ordered = await connection.fetchval(_ORDER_ERASURE, account_id, recording_id)
        if ordered is None:
            return False
        await connection.execute("DELETE FROM recording_peaks WHERE recording_id = $1", recording_id)
        await insert_access(
            connection, account_id, recording_id, action, actor=actor, address=address, request_id=request_id,
            detail=detail,
        )  # fmt: skip
        await enqueue(connection, [recording_id])
    return True


async def set_erased(pool: Pool, row: Any, proof: str) -> None:
    """Forget where an erased recording was, once it is gone everywhere; `proof` says how that was seen."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_FORGET_FILE, row["id"])
        await connection.execute(_FORGET_IN_CALL, row["call_id"], row["path"])
        await connection.execute(_FORGET_RECORDING, row["id"])
        await insert_access(connection, row["account_id"], row["id"], "erase", actor="maintenance", detail=proof)


async def select_overdue(
    database: Connection | Pool, account: str, days: int | None, days_by_queue: Mapping[str, int], limit: int
) -> list[Any]:
    """Recordings whose time is over, the oldest first: id, account_id, queue. Days None: for ever."""
    queues = list(days_by_queue)
    return await database.fetch(_SELECT_OVERDUE, account, days, queues, [days_by_queue[q] for q in queues], limit)


async def select_lost_erasures(database: Connection | Pool, account: str) -> list[UUID]:
    """Recordings whose erasure was ordered, is not done, and has no job."""
    return [row["id"] for row in await database.fetch(_SELECT_LOST_ERASURES, account)]


async def select_jobs(database: Connection | Pool, recording_ids: Sequence[UUID]) -> list[Any]:
    """What an upload needs to know of each recording; None where the row is gone (its call was folded)."""
    rows = {row["id"]: row for row in await database.fetch(_SELECT_JOBS, recording_ids)}
    return [rows.get(recording_id) for recording_id in recording_ids]


async def claim_keys(database: Connection | Pool, wanted: Sequence[tuple[UUID, str]]) -> list[str | None]:
    """The key that each recording is put under: the first that was claimed. None where the row is gone."""
    ids, keys = [recording_id for recording_id, _ in wanted], [key for _, key in wanted]
    claimed = {row["id"]: str(row["object_key"]) for row in await database.fetch(_CLAIM_KEYS, ids, keys)}
    return [claimed.get(recording_id) for recording_id in ids]


async def is_taken_over(database: Connection | Pool, row: Any) -> bool:
    """Was a file of the same name begun later, on the same PBX? `row` is one of select_jobs."""
    told = await database.fetchval(_IS_TAKEN_OVER, row["id"], row["path"], row["started_at"], row["account_id"])
    return bool(told)


async def set_state(database: Connection | Pool, recording_id: UUID, state: str, reason: str | None) -> bool:
    """Say how a recording stands that is not stored; says whether that is news."""
    return await database.fetchval(_SET_STATE, recording_id, state, reason) is not None


async def set_stored(database: Pool, all_stored: Sequence[tuple[UUID, Stored]]) -> list[bool]:
    """In one transaction: the media files, the recordings' states and the events. False: that recording is gone."""
    uploads = dict(all_stored)
    async with database.acquire() as connection, connection.transaction():
        await connection.execute(_LOCK_CALLS, list(uploads))
        held = {row["id"]: row for row in await connection.fetch(_LOCK, list(uploads))}
        new = [(row, uploads[id]) for id, row in held.items() if row["state"] != "stored"]
        if new:
            await _insert_stored(connection, new)
            for row in await connection.fetch(_SELECT_NOT_SHOWN, [row["id"] for row, _ in new]):
                await connection.execute(_SHOW_IN_CALL, row["id"])
            await _tell_stored(connection, new)
    return [recording_id in held for recording_id, _ in all_stored]


async def _insert_stored(connection: Connection, new: Sequence[tuple[Any, Stored]]) -> None:
    files = [stored for _, stored in new]
    metadata = [
        {"sha256": file.sha256, "codec": file.codec, "mended": file.mended or None, "original": file.original}
        for file in files
    ]
    await connection.execute(
        _SET_STORED,
        [row["id"] for row, _ in new],
        [uuid4() for _ in new],
        [row["account_id"] for row, _ in new],
        [file.name for file in files],
        [file.bucket for file in files],
        [file.key for file in files],
        [file.mime_type for file in files],
        [file.size for file in files],
        [msgspec.json.encode(said).decode() for said in metadata],
        [_whole_seconds(file) for file in files],
    )
    for row, file in new:
        if file.waveform is not None:
            await insert_peaks(connection, row["account_id"], row["id"], file.waveform)


async def _tell_stored(connection: Connection, new: Sequence[tuple[Any, Stored]]) -> None:
    """An event of each; in the order of the accounts, whose cursors it locks."""
    of_calls = [(row, stored) for row, stored in new if row["call_id"] is not None]
    for account_id in sorted({row["account_id"] for row, _ in of_calls}):
        own = [(row, stored) for row, stored in of_calls if row["account_id"] == account_id]
        told = [
            {"recording": {"id": row["id"], "durationSeconds": _whole_seconds(stored), "size": stored.size}}
            for row, stored in own
        ]
        await connection.execute(
            writer_sql.INSERT_EVENTS,
            account_id,
            len(own),
            [row["call_id"] for row, _ in own],
            list(range(len(own))),
            [STORED_EVENT] * len(own),
            [msgspec.json.encode(more).decode() for more in told],
        )


def _whole_seconds(stored: Stored) -> int | None:
    return None if stored.seconds is None else round(stored.seconds)


async def insert_access(
    database: Connection | Pool,
    account_id: UUID,
    recording_id: UUID,
    action: str,
    *,
    actor: str,
    address: str | None = None,
    request_id: str | None = None,
    detail: str | None = None,
) -> None:
    """Write down who did what with a recording; before it is done, so that nothing goes unwritten."""
    await database.execute(_INSERT_ACCESS, account_id, recording_id, action, actor, address, request_id, detail)


def _recording(row: Any) -> Recording:
    values = {field: row[field] for field in Recording.__struct_fields__}
    values["kind"] = values["kind"].upper()
    values["state"] = values["state"].upper()
    values["paused_spans"] = _decode_spans(values["paused_spans"])
    return Recording(**values)


def chunked(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Runs of at most `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))
