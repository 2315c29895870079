"""Files out of a multipart/form-data body, as they come; nothing of it is held but a chunk.

aiohttp reads the form; what it leaves open is shut here: how long all of it may be, also where no length is said and
where lines of no part are sent; how many files; how long the client may be silent.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http import HttpProcessingError

from trunkline.api.problem import Problem
from trunkline.inbox.names import LONGEST, clean_name

FIELD: Final = "file"
MOST_FILES: Final = 10
FORM: Final = {
    "type": "object",
    "required": [FIELD],
    "additionalProperties": False,
    "properties": {
        FIELD: {
            "description": "One part for each file, with its name.",
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_FILES,
            "items": {"type": "string", "format": "binary"},
        }
    },
}
"""What the document says of it."""
SILENT_S: Final = 15.0
WHOLE_S: Final = 600.0  # far below store.media.UPLOADING_S
_CHUNK: Final = 1 << 16
_MOST_HEADERS: Final = 16  # of a part
_LONGEST_HEADER: Final = 4096
_AS_IT_IS: Final = frozenset({"", "binary", "8bit", "7bit"})


class _Counted:
    """The body, counted and timed; what aiohttp's reader asks of one."""

    def __init__(self, request: web.Request, most: int) -> None:
        self._content = request.content
        self._most = most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def read(self, n: int = -1) -> bytes:
        return await self._within(self._content.read(n))

    async def readline(self, **options: Any) -> bytes:
        return await self._within(self._content.readline(**options))

    async def _within(self, reading: Any) -> bytes:
        try:
            async with asyncio.timeout(SILENT_S):
                data: bytes = await reading
        except TimeoutError:
            raise Problem("upload_broke_off", f"Nothing came for {SILENT_S:g} s; send it again.", status=408) from None
        if self._content.total_bytes > self._most:
            raise too_large_request(self._most)
        return data


async def read_files(request: web.Request, most: int) -> AsyncGenerator[tuple[str, AsyncIterator[bytes]], None]:
    """Each file's name, made clean, and its bytes, which have to be read before the next. Raises Problem.

    most: bytes of the whole body.
    """
    if request.content_type != "multipart/form-data":
        raise Problem(
            "not_multipart", f"Send files as multipart/form-data, each in a part `{FIELD}`: curl -F {FIELD}=@photo.jpg"
        )
    body: Any = _Counted(request, most)
    with _told():
        reader = MultipartReader(request.headers, body, max_field_size=_LONGEST_HEADER, max_headers=_MOST_HEADERS)
    for count in range(MOST_FILES + 1):
        with _told():
            part = await reader.next()
        if part is None:
            if not count:
                raise _bad("holds no part")
            return
        if not isinstance(part, BodyPartReader):
            raise _bad("holds a multipart within a part")
        if count == MOST_FILES:
            raise _bad(f"holds more than {MOST_FILES} parts")
        yield _name_of(part), _chunks(part)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what aiohttp raises, for what cannot be read or ends, into a Problem."""
    try:
        yield
    except (ConnectionError, web.RequestPayloadError) as error:
        raise Problem("upload_broke_off", "The body ended before its end; send it again.") from error
    except (ValueError, AssertionError, RuntimeError, LookupError, HttpProcessingError) as error:
        raise _bad(f"cannot be read ({type(error).__name__})") from error


def too_large_request(most: int) -> Problem:
    """The problem of a body that is too long."""
    return Problem("body_too_large", f"All files of a request together may have {most} bytes; send fewer.", limit=most)


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while True:
        with _told():
            chunk = await part.read_chunk(_CHUNK)
        if not chunk and part.at_eof():
            return
        yield chunk


def _name_of(part: BodyPartReader) -> str:
    """The file's name. Raises Problem for what is no file."""
    if part.name != FIELD or part.filename is None:
        raise _bad(f"holds a part that is no file, or not called `{FIELD}`")
    if part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "").lower() not in _AS_IT_IS:
        raise _bad("holds a part with a Content-Transfer-Encoding; send files as they are")
    return clean_name(part.filename[: 16 * LONGEST])


def _bad(why: str) -> Problem:
    return Problem("bad_upload", f"The body {why}. Send each file in a part `{FIELD}` with a filename.")
