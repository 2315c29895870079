"""Objects of the storage handed out: whole or a span, conditionally, as what they are called. Streamed, never held."""

import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final, Literal
from urllib.parse import quote

import structlog
from aiohttp import hdrs, web

from trunkline.api.ranges import read_range
from trunkline.objects.faults import StoreFault
from trunkline.objects.s3 import ObjectStore
from trunkline.threads import in_thread

Note = Callable[[str | None], Awaitable[None]]
"""Writes down, before anything is sent, which bytes are: None is all of them."""

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$&+-.^_`|~()[]{},=@")
_MARKS: Final = range(0x300, 0x370)  # accents that NFKD has taken off their letters

log = structlog.get_logger(__name__)


def disposition(how: Literal["inline", "attachment"], name: str) -> str:
    """Content-Disposition (RFC 6266): the name in ASCII for who knows no better, and as it is (RFC 8187)."""
    plain = "".join(c if c in _PLAIN else "_" for c in unicodedata.normalize("NFKD", name) if ord(c) not in _MARKS)
    return f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def object_headers(etag: str, mime_type: str, told: str, policy: str) -> dict[str, str]:
    """The headers of an object. told: its Content-Disposition; policy: for the page that a browser makes of it."""
    return {
        hdrs.ETAG: etag,
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.CACHE_CONTROL: "private, no-cache",
        hdrs.CONTENT_TYPE: mime_type,
        hdrs.CONTENT_DISPOSITION: told,
        "Content-Security-Policy": policy,
    }


def has_it(request: web.Request, etag: str) -> bool:
    """Whether the client has what it asks for (If-None-Match)."""
    header = request.headers.get(hdrs.IF_NONE_MATCH)
    if header is None:
        return False
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in header.split(","))


async def send_object(
    request: web.Request, objects: ObjectStore, key: str, size: int, headers: dict[str, str], note: Note | None = None
) -> web.StreamResponse:
    """Answer with the object, or the span of it that Range asks for; HEAD without reading it.

    Raises Problem, StoreFault, NoObject.
    """
    condition = request.headers.get(hdrs.IF_RANGE)
    wanted = request.headers.get(hdrs.RANGE) if condition in (None, headers[hdrs.ETAG]) else None
    span = read_range(wanted, size)
    if note is not None:
        await note(None if span is None else f"bytes {span.first}-{span.last}")
    status, first, length = (200, 0, size) if span is None else (206, span.first, span.size)
    headers[hdrs.CONTENT_LENGTH] = str(length)
    if span is not None:
        headers[hdrs.CONTENT_RANGE] = f"bytes {span.first}-{span.last}/{size}"
    if request.method == hdrs.METH_HEAD:
        return web.Response(status=status, headers=headers)
    if length == 0:  # an empty object: to S3 a length of 0 is all of it
        return web.Response(status=status, headers=headers)
    chunks = objects.read(key, first, length)
    begun = await in_thread(_next, chunks)
    return web.Response(status=status, headers=headers, body=_stream(begun, chunks, length))


def _next(chunks: Iterator[bytes]) -> bytes:
    return next(chunks, b"")


async def _stream(begun: bytes, chunks: Iterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The body. Raises ConnectionError where it cannot be had whole: aiohttp hangs up, so that the client sees it."""
    try:
        chunk = begun
        while chunk:
            size -= len(chunk)
            yield chunk
            chunk = await in_thread(_next, chunks)
        if size > 0:
            raise StoreFault(f"the object ended {size} bytes before its end", of_the_store=False)
    except StoreFault as fault:
        log.warning("http.broke_off", error=str(fault))
        raise ConnectionResetError("the storage broke off") from fault
    finally:
        with suppress(ValueError):  # a thread is still reading: the client has gone, and it will find out
            chunks.close()  # type: ignore[attr-defined]
