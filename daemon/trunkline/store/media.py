"""The rows of media files that are no recording's, and of objects that are to go from the storage.

Invariant: an object that an upload may have put stands in object_removal from before its first byte until the
transaction that writes its media file; one whose media file is deleted, from that transaction on. So none is left
behind by whatever dies in between.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from trunkline.store.keyset import Listing, Order, Sort
from trunkline.store.pool import Connection, Pool

UPLOADING_S: Final = 3600  # longer than any upload: behind it the object is removed
FAILED_S: Final = 120  # longer than the storage may still be at a put that we gave up
LONGEST_WAIT_S: Final = 3600


class MediaFile(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A file that was uploaded, or came with a message."""

    id: UUID
    name: str  # the original one, without paths and what cannot be seen
    mime_type: str | None  # what its content is, whatever its sender called it
    size: int | None  # bytes
    sha256: str | None
    message_id: UUID | None  # whose attachment it is
    url: str  # of its content, below this API
    uploaded_at: datetime


class Received(NamedTuple):
    """An object that is in the storage and has no media file yet."""

    id: UUID
    removal_id: UUID
    name: str
    bucket: str
    key: str
    mime_type: str
    size: int
    sha256: str


class Doomed(NamedTuple):
    """An object that is to go."""

    id: UUID
    bucket: str
    key: str


FILE_COLUMNS: Final = """id, name, mime_type, size, metadata ->> 'sha256' AS sha256, message_id,
    '/api/v1/media-files/' || id || '/content' AS url, uploaded_at"""

_SELECT: Final = f"""
SELECT {FILE_COLUMNS}, key FROM media_file WHERE account_id = $1 AND id = $2 AND kind = 'attachment'
"""
MEDIA_FILES: Final = Listing(
    select=f"SELECT {FILE_COLUMNS} FROM media_file",
    table="media_file",
    orders={"uploadedAt": Order("uploaded_at", "timestamptz")},
    default=Sort("uploadedAt", descending=True),
)
OF_MESSAGES: Final = "media_file.kind = 'attachment'"  # and of what is to be one; a recording's are the recording's

_FORESEE: Final = f"""
INSERT INTO object_removal (account_id, bucket, key, due_at)
VALUES ($1, $2, $3, now() + interval '{UPLOADING_S} s')
RETURNING id
"""
_SPARE: Final = "DELETE FROM object_removal WHERE account_id = $1 AND id = ANY ($2::uuid[]) RETURNING id"
_INSERT: Final = f"""
INSERT INTO media_file (id, account_id, name, bucket, key, url, mime_type, size, metadata)
SELECT of.id, $1, of.name, of.bucket, of.key, 's3://' || of.bucket || '/' || of.key, of.mime_type, of.size,
    jsonb_build_object('sha256', of.sha256)
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[])
    AS of (id, name, bucket, key, mime_type, size, sha256)
RETURNING {FILE_COLUMNS}
"""
_GIVE_UP: Final = f"""
UPDATE object_removal SET due_at = now() + interval '{FAILED_S} s' WHERE account_id = $1 AND id = ANY ($2::uuid[])
"""

# A file of the old schema may have no bucket: it is in the one there is.
_DELETE: Final = """
WITH gone AS (
    DELETE FROM media_file WHERE account_id = $1 AND id = $2 AND kind = 'attachment' RETURNING bucket, key
), doomed AS (
    INSERT INTO object_removal (account_id, bucket, key, due_at)
    SELECT $1, coalesce(bucket, ''), key, now() FROM gone WHERE key <> ''
)
SELECT count(*) FROM gone
"""

# Whoever takes one keeps it from the others for as long as it is tried; then it is tried ever later.
_TAKE_DUE: Final = f"""
UPDATE object_removal SET
    tries = tries + 1, due_at = now() + least({LONGEST_WAIT_S}, 60 * 2 ^ least(tries, 16)) * interval '1 s'
WHERE id = ANY (ARRAY(
    SELECT id FROM object_removal WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
))
RETURNING id, bucket, key
"""
# Clones of a file that the old schema shared have one object between them.
_STILL_USED: Final = "SELECT EXISTS (SELECT FROM media_file WHERE key = $1)"
_FORGET: Final = "DELETE FROM object_removal WHERE id = $1"


async def select_media_file(
    database: Connection | Pool, account_id: UUID, file_id: UUID
) -> tuple[MediaFile, str] | None:
    """A media file of an account and its object's key; None when the account has none of this id."""
    row = await database.fetchrow(_SELECT, account_id, file_id)
    return None if row is None else (media_file_of(row), row["key"])


async def foresee_removal(database: Connection | Pool, account_id: UUID, bucket: str, key: str) -> UUID:
    """Have an object removed that is about to be uploaded, unless it gets its media file first."""
    found: UUID = await database.fetchval(_FORESEE, account_id, bucket, key)
    return found


async def insert_media_files(
    connection: Connection, account_id: UUID, received: Sequence[Received]
) -> list[MediaFile] | None:
    """Make media files of what was received, in this order; None where an upload took so long that it was removed."""
    spared = await connection.fetch(_SPARE, account_id, [one.removal_id for one in received])
    if len(spared) < len(received):
        return None
    rows = await connection.fetch(
        _INSERT,
        account_id,
        [one.id for one in received],
        [one.name for one in received],
        [one.bucket for one in received],
        [one.key for one in received],
        [one.mime_type for one in received],
        [one.size for one in received],
        [one.sha256 for one in received],
    )
    files = {row["id"]: media_file_of(row) for row in rows}
    return [files[one.id] for one in received]


async def give_up(database: Connection | Pool, account_id: UUID, removal_ids: Sequence[UUID]) -> None:
    """Have what uploads that failed have left removed soon."""
    await database.execute(_GIVE_UP, account_id, list(removal_ids))


async def delete_media_file(database: Connection | Pool, account_id: UUID, file_id: UUID) -> bool:
    """Delete a media file, and have its object removed; whether there was one."""
    return bool(await database.fetchval(_DELETE, account_id, file_id))


async def take_due(database: Connection | Pool, limit: int) -> list[Doomed]:
    """Objects whose time has come, of all accounts; each is tried again, ever later, until it is forgotten."""
    return [Doomed(*row) for row in await database.fetch(_TAKE_DUE, limit)]


async def still_used(database: Connection | Pool, key: str) -> bool:
    """Has a media file this object?"""
    return bool(await database.fetchval(_STILL_USED, key))


async def forget_removal(database: Connection | Pool, removal_id: UUID) -> None:
    """The object is gone."""
    await database.execute(_FORGET, removal_id)


def media_file_of(row: Any) -> MediaFile:
    """The media file of a row."""
    return MediaFile(**{field: row[field] for field in MediaFile.__struct_fields__})
