"""The rows of messages, and a conversation's timeline: its messages and calls in one order.

A message's files are its media files by position, and stand nowhere else. INTERNAL is a note: nobody is sent it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import msgspec

from trunkline.store.events import NewEvent
from trunkline.store.keyset import Listing, Order, Place, Sort
from trunkline.store.media import FILE_COLUMNS, MediaFile
from trunkline.store.pool import Connection, Pool

CREATED: Final = "message.created"

Direction = Literal["INBOUND", "OUTBOUND", "INTERNAL"]


class Message(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What was said in a conversation."""

    id: UUID
    conversation_id: UUID
    direction: Direction
    content: str | None
    media_file_ids: list[UUID]
    media_files: list[MediaFile]
    status: Literal["PENDING", "SENT", "DELIVERED", "READ", "FAILED"]
    author: str | None  # who wrote it here: user:…, api_key:…; null: the customer, or not known
    external_id: str | None  # its id on the channel
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    created_at: datetime


class TimelineCall(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A call of a conversation, as far as a timeline shows it; GET /api/v1/calls/{id} has the rest."""

    id: UUID
    direction: str
    status: str
    from_: str = msgspec.field(name="from")
    to: str
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    duration: int | None
    answered_by: str | None
    queue: str | None
    recording_id: UUID | None


class TimelineItem(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A message or a call; the other one is null."""

    id: UUID
    type: Literal["MESSAGE", "CALL"]
    at: datetime  # when the message was made, or the call began
    message: Message | None
    call: TimelineCall | None


_FILES: Final = f"""(
    SELECT coalesce(jsonb_agg(to_jsonb(file) ORDER BY file.position, file.id), '[]')
    FROM (SELECT {FILE_COLUMNS}, position FROM media_file
          WHERE message_id = message.id AND account_id = message.account_id AND kind = 'attachment') AS file
)"""
_COLUMNS: Final = f"""id, conversation_id, upper(direction) AS direction, content, upper(status) AS status,
    metadata ->> 'author' AS author, external_id, sent_at, delivered_at, read_at, created_at, {_FILES} AS files"""

MESSAGES: Final = Listing(
    select=f"SELECT {_COLUMNS} FROM message",
    table="message",
    orders={"createdAt": Order("created_at", "timestamptz")},
    default=Sort("createdAt", descending=True),
)

_SELECT_MESSAGES: Final = f"SELECT {_COLUMNS} FROM message WHERE account_id = $1 AND id = ANY ($2::uuid[])"
_SELECT_CALLS: Final = """
SELECT id, upper(direction) AS direction, upper(status) AS status, from_number AS from_, to_number AS to, started_at,
    answered_at, ended_at, duration, answered_by, queue, recording_id
FROM call WHERE account_id = $1 AND id = ANY ($2::uuid[])
"""

# An ordered slice of each index, cut at the page's size, then merged.
_SELECT_TIMELINE: Final = """
(SELECT 'MESSAGE' AS type, id, created_at AS at FROM message
 WHERE account_id = $1 AND conversation_id = $2 AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid))
 ORDER BY created_at DESC, id DESC LIMIT $5)
UNION ALL
(SELECT 'CALL', id, started_at FROM call
 WHERE account_id = $1 AND conversation_id = $2 AND ($3::timestamptz IS NULL OR (started_at, id) < ($3, $4::uuid))
 ORDER BY started_at DESC, id DESC LIMIT $5)
ORDER BY at DESC, id DESC
LIMIT $5
"""

_INSERT: Final = """
INSERT INTO message (id, account_id, conversation_id, integration_id, direction, content, status, metadata, sent_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, jsonb_build_object('author', $8::text), CASE WHEN $7 = 'sent' THEN now() END)
"""
_LOCK_FILES: Final = """
SELECT id FROM media_file
WHERE account_id = $1 AND id = ANY ($2::uuid[]) AND kind = 'attachment' AND message_id IS NULL
ORDER BY id FOR UPDATE
"""
_ATTACH: Final = """
UPDATE media_file SET message_id = $2, position = wanted.n - 1
FROM unnest($3::uuid[]) WITH ORDINALITY AS wanted (id, n)
WHERE media_file.account_id = $1 AND media_file.id = wanted.id
"""

_encode: Final = msgspec.json.Encoder().encode


class _File(msgspec.Struct):
    """A media file as PostgreSQL writes it."""

    id: UUID
    name: str
    mime_type: str | None
    size: int | None
    sha256: str | None
    message_id: UUID | None
    url: str
    uploaded_at: datetime


_decode_files: Final = msgspec.json.Decoder(list[_File]).decode


async def lock_files(connection: Connection, account_id: UUID, file_ids: Sequence[UUID]) -> set[UUID]:
    """Those media files that are no message's yet, which nobody else can attach until the commit."""
    return {row["id"] for row in await connection.fetch(_LOCK_FILES, account_id, list(file_ids))}


async def insert_note(
    connection: Connection,
    account_id: UUID,
    conversation_id: UUID,
    integration_id: UUID | None,
    content: str | None,
    file_ids: Sequence[UUID],
    author: str,
) -> Message:
    """Write a note, with files that are locked, in this order."""
    message_id = uuid4()
    await connection.execute(
        _INSERT, message_id, account_id, conversation_id, integration_id, "internal", content, "sent", author
    )
    if file_ids:
        await connection.execute(_ATTACH, account_id, message_id, list(file_ids))
    return message_of(await connection.fetchrow(_SELECT_MESSAGES, account_id, [message_id]))


async def select_timeline(
    database: Connection | Pool, account_id: UUID, conversation_id: UUID, after: Place | None, limit: int
) -> tuple[list[TimelineItem], Place | None]:
    """A page of a conversation's messages and calls, the newest first, and where the next one begins."""
    at, id_ = (None, None) if after is None else after
    places = await database.fetch(_SELECT_TIMELINE, account_id, conversation_id, at, id_, limit + 1)
    page = places[:limit]
    wanted = [place["id"] for place in page if place["type"] == "MESSAGE"]
    rows = await database.fetch(_SELECT_MESSAGES, account_id, wanted) if wanted else []
    messages = {row["id"]: message_of(row) for row in rows}
    wanted = [place["id"] for place in page if place["type"] == "CALL"]
    rows = await database.fetch(_SELECT_CALLS, account_id, wanted) if wanted else []
    calls = {row["id"]: TimelineCall(**row) for row in rows}
    items = [
        TimelineItem(
            id=place["id"],
            type=place["type"],
            at=place["at"],
            message=messages.get(place["id"]),
            call=calls.get(place["id"]),
        )
        for place in page
        if place["id"] in messages or place["id"] in calls  # a call may have been folded meanwhile
    ]
    return items, Place(page[-1]["at"], page[-1]["id"]) if len(places) > limit else None


def event_of(type_: str, message: Message, lead_id: UUID | None) -> NewEvent:
    """What is told of a message."""
    return NewEvent(type_, _encode({"message": message}), lead_id=lead_id, conversation_id=message.conversation_id)


def message_of(row: Any) -> Message:
    """The message of a row."""
    files = [MediaFile(**msgspec.structs.asdict(file)) for file in _decode_files(row["files"])]
    values = {name: row[name] for name in Message.__struct_fields__ if name not in ("media_files", "media_file_ids")}
    return Message(**values, media_files=files, media_file_ids=[file.id for file in files])
