"""Listening: the app on a port of the asyncio thread, until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from trunkline.api.guard import is_loopback
from trunkline.api.state import STATE

KEEPALIVE_S = 75.0  # also how long a connection may take to send a whole request's head
LINGER_S = 2.0  # how long an unread body is swallowed before the connection is cut
GRACE_S = 3.0  # how long requests under way may take when the server stops
_BACKLOG = 1024

log = structlog.get_logger(__name__)


@asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve `app` within the block; gives the URL. Port 0 is any free one.

    Raises OSError when the port is taken, ValueError when the app has no key and the host is not loopback.
    """
    if not app[STATE].guard.has_keys and not is_loopback(host):
        raise ValueError(f"without an API key the API listens on loopback only, not on {host!r}: set http.api_keys")
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=KEEPALIVE_S, lingering_time=LINGER_S, shutdown_timeout=GRACE_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
        await site.start()
        bound: int = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        await runner.cleanup()


async def serve(
    app: web.Application, host: str, port: int, started: Callable[[str], object] = lambda url: None
) -> None:
    """Serve until cancelled; then requests under way are answered, within GRACE_S.

    `started` is called once with the URL, on this thread. Raises as `listening`.
    """
    async with listening(app, host, port) as url:
        log.info("http.listening", url=url, guarded=app[STATE].guard.has_keys)
        started(url)
        await asyncio.Event().wait()
