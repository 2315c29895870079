"""Media files: taken in as they come, handed out so that no browser runs them, and deleted with their object."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final
from uuid import UUID

import msgspec
import structlog
from aiohttp import web

from trunkline.api.change import asked_under, begin_keyed, changing, idempotency_key, keep_answer
from trunkline.api.download import disposition, has_it, object_headers, send_object
from trunkline.api.listing import Narrowed, list_page
from trunkline.api.multipart import WHOLE_S, read_files
from trunkline.api.parameters import read_id
from trunkline.api.problem import Problem
from trunkline.api.state import DEADLINE, STATE, json_response
from trunkline.calls.record import encode
from trunkline.inbox.media import TooLarge, Uploads
from trunkline.inbox.sniff import SHOWN, served_as
from trunkline.objects.faults import NoObject
from trunkline.store.media import (
    MEDIA_FILES,
    OF_MESSAGES,
    MediaFile,
    Received,
    delete_media_file,
    give_up,
    insert_media_files,
    media_file_of,
    select_media_file,
)

# Whatever a browser makes of a file: it has no origin, runs nothing and fetches nothing.
_POLICY: Final = (
    "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
)

log = structlog.get_logger(__name__)


class MediaFileList(msgspec.Struct):
    """Media files, in the order in which they were sent."""

    items: list[MediaFile]


class MediaFilePage(msgspec.Struct, rename="camel"):
    """Media files, the newest first, and where the next page begins."""

    items: list[MediaFile]
    next_cursor: str | None


async def add_media_files(request: web.Request) -> web.Response:
    """Store the files of a form: 201; all of them or none."""
    state = request.app[STATE]
    uploads = _uploads(request)
    account_id = await state.account_id()
    most = uploads.limits.request
    received: list[Received] = []
    try:
        async with uploads.room:
            # From here on it may take long. Whoever is slow keeps others from nothing but one of these places.
            request[DEADLINE].reschedule(asyncio.get_running_loop().time() + WHOLE_S)
            async with aclosing(read_files(request, most)) as files:
                async for name, chunks in files:
                    received.append(await _receive(uploads, account_id, name, chunks))
    except BaseException:
        await uploads.abandon(account_id, [one.removal_id for one in received])
        raise
    return await _added(request, account_id, received)


async def _added(request: web.Request, account_id: UUID, received: Sequence[Received]) -> web.Response:
    """Make media files of what was received; or answer what the same files were answered under the same key."""
    connection, asked = await changing(request), None
    if (key := idempotency_key(request)) is not None:
        files = encode([(one.name, one.sha256) for one in received])
        asked = asked_under(key, request, files)
        if (kept := await begin_keyed(connection, account_id, asked)) is not None:
            await give_up(connection, account_id, [one.removal_id for one in received])
            return kept
    made = await insert_media_files(connection, account_id, received)
    if made is None:
        raise Problem("upload_broke_off", "It took so long that the first files are gone again; send them again.")
    response = json_response(request, encode(MediaFileList(made)), status=201)
    if asked is not None:
        await keep_answer(connection, account_id, asked, response)
    return response


async def list_media_files(request: web.Request) -> web.Response:
    """A page of media files, newest first."""
    return await list_page(request, MEDIA_FILES, Narrowed((OF_MESSAGES,)), media_file_of)


async def get_media_file(request: web.Request) -> web.Response:
    """What is known of a media file."""
    _, file, _ = await _wanted(request)
    return json_response(request, encode(file))


async def get_media_content(request: web.Request) -> web.StreamResponse:
    """The file itself, whole or a span of it; only what holds no script is shown in its place."""
    _, file, key = await _wanted(request)
    objects = _uploads(request).store
    if not key or file.size is None:
        raise _gone(file)
    mime_type = served_as(file.mime_type)
    told = disposition("inline" if mime_type in SHOWN else "attachment", file.name)
    if mime_type == "text/plain":
        mime_type += "; charset=utf-8"
    etag = f'"{file.sha256 or file.id}"'
    headers = object_headers(etag, mime_type, told, _POLICY)
    if has_it(request, etag):
        return web.Response(status=304, headers=headers)
    try:
        return await send_object(request, objects, key, file.size, headers)
    except NoObject as gone:
        raise _gone(file) from gone


async def delete_media(request: web.Request) -> web.Response:
    """Delete a media file; its object follows."""
    state, file_id = request.app[STATE], read_id(request)
    connection = await changing(request)
    if file_id is None or not await delete_media_file(connection, await state.account_id(), file_id):
        raise _none()
    return web.Response(status=204)


async def _receive(uploads: Uploads, account_id: UUID, name: str, chunks: AsyncIterator[bytes]) -> Received:
    try:
        return await uploads.receive(account_id, name, chunks)
    except TooLarge:
        most = uploads.limits.file
        raise Problem("body_too_large", f"A file may have {most} bytes; send a shorter one.", limit=most) from None


async def _wanted(request: web.Request) -> tuple[UUID, MediaFile, str]:
    """The account, its media file of the path's id, and its object's key. Raises Problem."""
    state = request.app[STATE]
    account_id, file_id = await state.account_id(), read_id(request)
    found = None if file_id is None else await select_media_file(state.pool, account_id, file_id)
    if found is None:
        raise _none()
    return account_id, *found


def _none() -> Problem:
    return Problem("media_file_not_found", "No media file has this id. GET /api/v1/media-files lists them.")


def _uploads(request: web.Request) -> Uploads:
    found = request.app[STATE].uploads
    if found is None:
        raise Problem("storage_not_configured", "This server has no object storage: set [recordings] in its settings.")
    return found


def _gone(file: MediaFile) -> Problem:
    log.error("media.object_gone", media_file=str(file.id), todo="see what empties the bucket")
    return Problem("object_missing", "The file is no longer in the object storage.")
