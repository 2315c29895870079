"""`create_app`: the routes, over one pool, for one account."""

from collections.abc import Callable, Sequence

from aiohttp import web

from trunkline.api import calls, health
from trunkline.api.edge import MAX_BODY, edge
from trunkline.api.guard import Guard
from trunkline.api.state import STATE, Link, State
from trunkline.metrics import Metrics
from trunkline.store.pool import Pool


def create_app(
    pool: Pool,
    *,
    account: str,
    metrics: Metrics,
    keys: Sequence[str] = (),
    head: str | None = None,
    links: Callable[[], Sequence[Link]] = tuple,
) -> web.Application:
    """Make the application that serves one account's calls; it takes the pool over for reading and never closes it.

    `keys`: any of them lets a request in; none: only loopback names are answered. `head`: the newest migration, for
    readiness. `links`: how the PBX links stand now, asked at each /readyz; on the asyncio thread.
    The database need not be there yet.
    """
    app = web.Application(middlewares=[edge], client_max_size=MAX_BODY)
    app[STATE] = State(pool, account, Guard(keys), metrics, head, links)
    app.add_routes(
        [
            web.get("/", health.index),
            web.get("/healthz", health.healthz),
            web.get("/readyz", health.readyz),
            web.get("/metrics", health.metrics),
            web.get("/api/v1/calls", calls.list_calls),
            web.get("/api/v1/calls/{id}", calls.get_call),
        ]
    )
    return app
