"""Pages of other origins: those in `http.origins` may ask with a key of their own, no other may read an answer.

Cookies are never allowed across origins. Source: Fetch standard, CORS protocol.
"""

from typing import Final

from aiohttp import hdrs, web

_ASKED: Final = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Range, X-API-Key, X-Request-ID"
_TOLD: Final = (
    "Accept-Ranges, Content-Location, Content-Range, ETag, Idempotency-Replayed, Location, Retry-After, X-Request-ID"
)
_KEPT_S: Final = 600  # how long a browser may remember a preflight


def preflight(request: web.Request, origins: frozenset[str]) -> web.Response | None:
    """The answer to a browser that asks before it asks; None where it is no such request."""
    if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
        return None
    response = web.Response(status=204)
    if request.headers.get(hdrs.ORIGIN) in origins:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, HEAD, POST, PUT, PATCH, DELETE"
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _ASKED
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(_KEPT_S)
    return response


def share(request: web.Request, response: web.StreamResponse, origins: frozenset[str]) -> None:
    """Let a page of a known origin read the answer."""
    if not origins:
        return
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.headers.get(hdrs.ORIGIN)
    if origin in origins:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _TOLD
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
