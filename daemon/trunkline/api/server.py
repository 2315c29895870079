"""Listening: the app on a port of the asyncio thread, until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from aiohttp import web

from trunkline.api.edge import HEADERS
from trunkline.api.guard import is_loopback
from trunkline.api.problem import Problem
from trunkline.api.state import STATE
from trunkline.metrics import Metrics

KEEPALIVE_S: Final = 75.0  # also how long a connection may take to send a whole request's head
LINGER_S: Final = 2.0  # how long an unread body is swallowed before the connection is cut
GRACE_S: Final = 3.0  # how long requests under way may take when the server stops
NOT_HTTP: Final = "not-http"  # the route's name in the metrics of what could not be read as a request
_BACKLOG: Final = 1024

log = structlog.get_logger(__name__)


class _Connection(web.RequestHandler):
    """A connection that answers what is no HTTP as a problem too, and logs it without a traceback."""

    __slots__ = ("_metrics",)

    def __init__(self, server: web.Server, metrics: Metrics, **options: Any) -> None:
        super().__init__(server, **options)
        self._metrics = metrics

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler; the connection is closed after it."""
        if request.writer.output_size > 0:  # half an answer is out: nothing sensible can follow it
            raise ConnectionError("the answer was already under way")
        log.debug("http.refused", status=status, error=type(exc).__name__)
        self._metrics.observe_request("", NOT_HTTP, status, 0.0)
        detail = "This could not be read as an HTTP request, or its line or a header is longer than 8190 bytes."
        response = Problem("not_http", detail, status=status).response("")
        response.headers.update(HEADERS)
        response.force_close()
        return response


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int, *, reuse_port: bool = False) -> AsyncIterator[str]:
    """Serve `app` within the block; gives the URL. Port 0 is any free one; reuse_port: others may listen there too.

    Raises OSError when the port is taken, ValueError when the app lets anybody in and the host is not loopback.
    """
    state = app[STATE]
    if not state.guard.guarded and not is_loopback(host):
        raise ValueError(
            f"without an API key the API listens on loopback only, not on {host!r}: set http.api_keys or auth.required"
        )
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE_S)
    await runner.setup()
    try:
        server = runner.server
        assert server is not None  # noqa: S101  # setup() has made it

        def connection() -> _Connection:
            return _Connection(
                server,
                state.metrics,
                loop=loop,
                access_log=None,
                keepalive_timeout=KEEPALIVE_S,
                lingering_time=LINGER_S,
            )

        listener = await loop.create_server(connection, host, port, backlog=_BACKLOG, reuse_port=reuse_port)
        try:
            bound: int = listener.sockets[0].getsockname()[1]
            yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        finally:
            listener.close()
    finally:
        await runner.cleanup()


async def serve(
    app: web.Application,
    host: str,
    port: int,
    started: Callable[[str], object] = lambda url: None,
    *,
    reuse_port: bool = False,
) -> None:
    """Serve until cancelled; then requests under way are answered, within GRACE_S.

    `started` is called once with the URL, on this thread. Raises as `listening`.
    """
    async with listening(app, host, port, reuse_port=reuse_port) as url:
        log.info("http.listening", url=url, guarded=app[STATE].guard.guarded)
        started(url)
        await asyncio.Event().wait()
