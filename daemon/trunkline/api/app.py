"""`create_app`: the routes, over one pool, for one account."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from trunkline.api.document import render_index, render_openapi
from trunkline.api.edge import MAX_BODY, edge
from trunkline.api.guard import Guard
from trunkline.api.routes import OPEN, ROUTES
from trunkline.api.state import STATE, Link, State
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.destination import Destinations
from trunkline.metrics import Metrics
from trunkline.store.pool import Pool
from trunkline.store.recordings import EnqueueRecordings

if TYPE_CHECKING:
    from trunkline.recordings.objects import ObjectStore


def create_app(
    pool: Pool,
    *,
    account: str,
    metrics: Metrics,
    keys: Sequence[str] = (),
    head: str | None = None,
    links: Callable[[], Sequence[Link]] = tuple,
    objects: "ObjectStore | None" = None,
    enqueue: EnqueueRecordings | None = None,
    webhooks: WebhookClient | None = None,
) -> web.Application:
    """Make the application that serves one account's calls; it takes the pool over for reading and never closes it.

    `keys`: any of them lets a request in; none: only loopback names are answered. `head`: the newest migration, for
    readiness. `links`: how the PBX links stand now, asked at each /readyz; on the asyncio thread.
    `objects`: where recordings are, and `enqueue` what has them worked on; None where they are not kept.
    `webhooks`: what tests receivers; None: one that reaches public addresses over https.
    The database need not be there yet.
    """
    app = web.Application(middlewares=[edge], client_max_size=MAX_BODY)
    app[STATE] = State(
        pool,
        account,
        Guard(keys, OPEN),
        metrics,
        head=head,
        links=links,
        objects=objects,
        enqueue=enqueue,
        webhooks=webhooks or WebhookClient(Destinations()),
        document=render_openapi(ROUTES),
        index=render_index(ROUTES),
    )
    app.add_routes([route.served() for route in ROUTES])
    return app
