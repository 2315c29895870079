"""How an answer's JSON is written: some of its fields, for human eyes, with an ETag, compressed.

An ETag is `"VERSION.DIGEST"`. The digest is of these very bytes, so the tag is a strong one: If-None-Match goes by all
of it. The version is of what clients can change, and that alone is what If-Match protects: a call that goes on ringing
does not keep an agent from saving his notes.
"""

import re
import zlib
from hashlib import blake2b
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from trunkline.api.parameters import pretty

FIELDS: Final = web.RequestKey("fields", frozenset[str])  # those that were asked for; absent: all
COMPRESSED_FROM: Final = 1024  # bytes
_LEVEL: Final = 1  # a page of 50 calls becomes a tenth in about 0.5 ms; level 6 takes twice as long for a fifth less
_GZIP: Final = 16 + zlib.MAX_WBITS
_GZIPPED: Final = "z"  # behind the digest: these are other bytes
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_NOT_KEPT: Final = {"Cache-Control": "no-store"}  # calls are personal data, and change while they live
_item: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_in_order: Final = msgspec.json.Encoder(
    order="deterministic"
).encode  # whatever JSON holds: msgpack has no long numbers
_encode: Final = msgspec.json.Encoder().encode


def json_response(request: web.Request, body: bytes, status: int = 200, *, version: str | None = None) -> web.Response:
    """Answer with JSON, indented when a human looks at it; of the fields that were asked for.

    version: of the resource that this is (`version_of`): it has an ETag then, and who has these bytes is told 304.
    """
    if FIELDS in request and status < 300:
        body = _some(body, request[FIELDS])
    if pretty(request):
        body = msgspec.json.format(body, indent=2) + b"\n"
    response = web.Response(body=body, status=status, content_type="application/json", headers=_NOT_KEPT)
    if version is not None:
        tag = f"{version}.{blake2b(body, digest_size=8).hexdigest()}"
        if request.method in ("GET", "HEAD") and _is_known(request, tag):
            response = web.Response(status=304, headers=_NOT_KEPT)
        response.headers[hdrs.ETAG] = f'"{tag}"'
    return response


def version_of(*changeable: Any) -> str:
    """The version of a resource: what clients can change of it, as msgspec knows it."""
    return blake2b(_in_order(changeable), digest_size=8).hexdigest()


def is_version(header: str, version: str) -> bool:
    """Whether an If-Match names this version of a resource that is there: * or, among its tags, a strong one of it."""
    return header.strip() == "*" or any(
        not weak and tag.partition(".")[0] == version for weak, tag in _TAG.findall(header)
    )


def compress(request: web.Request, response: web.Response) -> None:
    """Compress JSON of some length for who takes it. Never what holds a secret: its length would tell of it."""
    body = response.body
    if response.content_type != "application/json" or not isinstance(body, bytes) or len(body) < COMPRESSED_FROM:
        return
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if not takes_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        return
    gzip = zlib.compressobj(_LEVEL, wbits=_GZIP)
    response.body = gzip.compress(body) + gzip.flush()
    response.headers[hdrs.CONTENT_ENCODING] = "gzip"
    if hdrs.ETAG in response.headers:
        response.headers[hdrs.ETAG] = response.headers[hdrs.ETAG][:-1] + f'{_GZIPPED}"'


def takes_gzip(header: str) -> bool:
    """Whether an Accept-Encoding takes gzip: named, or by *, and not with q=0."""
    found = None
    for part in header.lower().split(","):
        coding, *parameters = (word.strip() for word in part.split(";"))
        if coding == "gzip" or (coding == "*" and found is None):
            found = not any(re.fullmatch(r"q=0(\.0{0,3})?", word) for word in parameters)
    return found is True


def _is_known(request: web.Request, tag: str) -> bool:
    """Whether If-None-Match names what would be sent, compressed or not."""
    header = request.headers.get(hdrs.IF_NONE_MATCH)
    if header is None:
        return False
    return header.strip() == "*" or any(found.removesuffix(_GZIPPED) == tag for _, found in _TAG.findall(header))


def _some(body: bytes, names: frozenset[str]) -> bytes:
    """These fields of a resource, or of each item of a page."""
    found = _item(body)
    if "items" not in found:
        return _encode({name: value for name, value in found.items() if name in names})
    items = [{name: value for name, value in item.items() if name in names} for item in _items(found["items"])]
    return _encode({**found, "items": items})
