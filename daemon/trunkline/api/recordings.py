"""Recordings: what there is, their audio and waveform, legal hold and erasure. Each access is written down first."""

from typing import Final
from uuid import UUID

import msgspec
import structlog
from aiohttp import hdrs, web

from trunkline.api.address import address_of
from trunkline.api.contract import QUERY
from trunkline.api.download import disposition, has_it, object_headers, send_object
from trunkline.api.guard import actor
from trunkline.api.parameters import read_id, shortened
from trunkline.api.problem import Problem, bad_parameter
from trunkline.api.state import REQUEST_ID, STATE, State, json_response
from trunkline.calls.record import encode
from trunkline.objects.faults import NoObject
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.peaks import NoPeaks
from trunkline.recordings.waveform import waveform
from trunkline.store.recordings import (
    Recording,
    call_exists,
    insert_access,
    insert_peaks,
    order_erasure,
    select_peaks,
    select_recording,
    select_recordings_of_call,
    select_unfinished,
    set_hold,
)
from trunkline.threads import in_thread

PRESIGNED_S: Final = 60
_MOST: Final = 200
UNFINISHED: Final = ("PENDING", "UNMATCHED", "FAILED", "EMPTY")
_WAITING: Final = ["PENDING", "UNMATCHED", "FAILED"]
# A browser that is led here makes a page of its own around the audio.
_PLAYABLE: Final = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"

log = structlog.get_logger(__name__)


class RecordingList(msgspec.Struct):
    """Recordings."""

    items: list[Recording]


async def list_recordings(request: web.Request) -> web.Response:
    """Those that are not stored, the newest first: {"items": [...]}; ?state=PENDING,UNMATCHED,FAILED,EMPTY."""
    states = [state.strip().upper() for state in request[QUERY].get("state", _WAITING)]
    for state in states:
        if state not in UNFINISHED:
            raise bad_parameter("state", f"{shortened(state)!r} is not one of {', '.join(UNFINISHED)}.")
    found = await select_unfinished(
        request.app[STATE].pool, await request.app[STATE].account_id(), [state.lower() for state in states], _MOST
    )
    return json_response(request, encode(RecordingList(found)))


async def list_of_call(request: web.Request) -> web.Response:
    """A call's recordings in order of time: {"items": [...]}."""
    state = request.app[STATE]
    account_id, call_id = await state.account_id(), read_id(request)
    if call_id is None or not await call_exists(state.pool, account_id, call_id):
        raise Problem("call_not_found", "No call has this id. GET /api/v1/calls lists the calls there are.")
    found = await select_recordings_of_call(state.pool, account_id, call_id)
    for recording in found:
        await _note(request, account_id, recording.id, "metadata")
    return json_response(request, encode(RecordingList(found)))


async def get_recording(request: web.Request) -> web.Response:
    """What is known of a recording."""
    account_id, recording, _ = await _wanted(request)
    await _note(request, account_id, recording.id, "metadata")
    return json_response(request, encode(recording))


async def get_audio(request: web.Request) -> web.StreamResponse:
    """The audio, whole or a span of it; ?redirect=1 a URL of the object storage for PRESIGNED_S; ?download=1 as a file.

    HEAD says how long it is without reading it.
    """
    asked = request[QUERY]
    for name, values in asked.items():
        if values != ["1"]:
            raise bad_parameter(name, "the only value is 1.")
    account_id, recording, key = await _wanted(request)
    objects = _objects(request.app[STATE])
    if key is None or recording.size is None:
        raise _no_audio(recording)
    etag = f'"{recording.sha256 or recording.media_file_id}"'  # the old schema had no hashes
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in recording.name or "recording")
    told = disposition("attachment" if asked.get("download") else "inline", name)
    headers = object_headers(etag, recording.mime_type or "application/octet-stream", told, _PLAYABLE)
    if has_it(request, etag):
        await _note(request, account_id, recording.id, "audio", "not modified")
        return web.Response(status=304, headers=headers)
    if asked.get("redirect"):
        await _note(request, account_id, recording.id, "redirect")
        url = await in_thread(objects.presign, key, PRESIGNED_S, headers[hdrs.CONTENT_TYPE], told)
        return web.Response(status=302, headers={"Location": url, "Cache-Control": "no-store"})

    async def note(detail: str | None) -> None:
        await _note(request, account_id, recording.id, "audio", detail)

    try:
        return await send_object(request, objects, key, recording.size, headers, note)
    except NoObject as gone:
        raise _gone(recording) from gone


async def get_peaks(request: web.Request) -> web.Response:
    """The waveform, in audiowaveform's JSON; made when it is first asked for, and kept."""
    account_id, recording, key = await _wanted(request)
    state = request.app[STATE]
    if key is None:
        raise _no_audio(recording)
    await _note(request, account_id, recording.id, "peaks")
    found = await select_peaks(state.pool, account_id, recording.id)
    if found is None:
        try:
            found = await in_thread(waveform, _objects(state).read(key), recording.name or "")
        except NoPeaks as error:
            raise Problem("no_peaks", f"There is no waveform: {error}.") from error
        except NoObject as gone:
            raise _gone(recording) from gone
        await insert_peaks(state.pool, account_id, recording.id, found)
    return json_response(request, found)


async def put_hold(request: web.Request) -> web.Response:
    """Forbid that anything deletes this recording."""
    return await _hold(request, held=True)


async def delete_hold(request: web.Request) -> web.Response:
    """Allow it again."""
    return await _hold(request, held=False)


async def erase(request: web.Request) -> web.Response:
    """Order a recording's erasure: it cannot be heard from now on, and its object goes as soon as storage is there."""
    account_id, recording, _ = await _wanted(request)
    if recording.legal_hold:
        raise Problem("legal_hold", "This recording is under legal hold; DELETE …/hold first.")
    state = request.app[STATE]
    if recording.erased_at is None:
        if state.enqueue is None:
            raise _no_storage()
        who = actor(request)
        detail = f"asked for by {who}"
        if not await order_erasure(
            state.pool,
            account_id,
            recording.id,
            state.enqueue,
            actor=who,
            detail=detail,
            address=address_of(request),
            request_id=request[REQUEST_ID],
        ):
            raise Problem("legal_hold", "This recording is under legal hold; DELETE …/hold first.")
    return web.Response(status=202, headers={"Cache-Control": "no-store"})


async def _hold(request: web.Request, *, held: bool) -> web.Response:
    account_id, recording, _ = await _wanted(request)
    if recording.erased_at is not None:
        raise _no_audio(recording)
    await _note(request, account_id, recording.id, "hold" if held else "release")
    if not await set_hold(request.app[STATE].pool, account_id, recording.id, held):
        raise Problem("recording_erased", "This recording was erased.")
    return web.Response(status=204)


async def _wanted(request: web.Request) -> tuple[UUID, Recording, str | None]:
    """The account, its recording of the path's id, and the key of the object, if it may be heard. Raises Problem."""
    state = request.app[STATE]
    account_id, recording_id = await state.account_id(), read_id(request)
    found = None if recording_id is None else await select_recording(state.pool, account_id, recording_id)
    if found is None:
        raise Problem(
            "recording_not_found", "No recording has this id. GET /api/v1/calls/{id}/recordings lists a call's."
        )
    recording, key = found
    return account_id, recording, key if recording.erased_at is None else None


async def _note(
    request: web.Request, account_id: UUID, recording_id: UUID, action: str, detail: str | None = None
) -> None:
    state: State = request.app[STATE]
    await insert_access(
        state.pool,
        account_id,
        recording_id,
        action,
        actor=actor(request),
        address=address_of(request),
        request_id=request[REQUEST_ID],
        detail=detail,
    )


def _no_audio(recording: Recording) -> Problem:
    if recording.erased_at is not None:
        return Problem("recording_erased", "This recording was erased.", erasedAt=recording.erased_at)
    why = recording.reason or "it is not stored yet"
    return Problem("no_audio", f"There is no audio to hear: {recording.state}, {why}.", state=recording.state)


def _objects(state: State) -> ObjectStore:
    if state.objects is None:
        raise _no_storage()
    return state.objects


def _no_storage() -> Problem:
    return Problem("storage_not_configured", "This server has no object storage: set [recordings] in its settings.")


def _gone(recording: Recording) -> Problem:
    log.error("recording.object_gone", recording=str(recording.id), todo="see what empties the bucket")
    return Problem("object_missing", "The recording is no longer in the object storage.")
