"""`create_app`: the routes, over one pool, for one account."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from aiohttp import web

from trunkline.api.change import purge_for_ever
from trunkline.api.document import render_index, render_openapi
from trunkline.api.edge import edge
from trunkline.api.integrations import TELEGRAM
from trunkline.api.media_routes import FILES_PATH
from trunkline.api.problem import MAX_BODY
from trunkline.api.routes import OPEN, ROUTES
from trunkline.api.state import OPEN_HERE, STATE, Access, Commands, Link, State
from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.destination import Destinations
from trunkline.identity.oidc import Issuer
from trunkline.inbox.media import SHORT_FILES, UploadLimits
from trunkline.inbox.secrets import Vault
from trunkline.metrics import Metrics
from trunkline.objects.s3 import ObjectStore
from trunkline.store.pool import Pool
from trunkline.store.recordings import EnqueueRecordings


def create_app(
    pool: Pool,
    *,
    account: str,
    metrics: Metrics,
    access: Access = OPEN_HERE,
    head: str | None = None,
    links: Callable[[], Sequence[Link]] = tuple,
    objects: ObjectStore | None = None,
    uploads: UploadLimits = SHORT_FILES,
    enqueue: EnqueueRecordings | None = None,
    webhooks: WebhookClient | None = None,
    oidc: Issuer | None = None,
    vault: Vault | None = None,
    telegram: str = TELEGRAM,
    region: str | None = None,
    commands: Commands | None = None,
) -> web.Application:
    """Make the application that serves one account's calls; it uses the pool and never closes it.

    `access`: who is let in; by default whoever asks this machine by one of its own names. `head`: the newest
    migration, for readiness. `links`: how the PBX links stand now, asked at each /readyz; on the asyncio thread.
    `objects`: where recordings and media files are, `uploads` how much may be put there, and `enqueue` what has
    recordings worked on; None where they are not kept.
    `webhooks`: what tests receivers; None: one that reaches public addresses over https. `vault`: seals the secrets of
    integrations; None: there can be none. `telegram`: the Bot API's URL.
    `region`: the ISO 3166 country of numbers that are written without one. `commands`: what may be commanded; None:
    nothing that leads outside.
    `oidc`: an issuer where users log in; None: by passwords only.
    `pool` should be of `open_pool(account=...)`, which sees no other account. The database need not be there yet.
    """
    app = web.Application(middlewares=[edge], client_max_size=MAX_BODY)
    app[STATE] = State(
        pool,
        account,
        access,
        metrics,
        open_routes=OPEN,
        longest_bodies={(route.method, route.path): route.longest_body for route in ROUTES}
        | {("POST", FILES_PATH): uploads.request},
        head=head,
        links=links,
        objects=objects,
        uploads=uploads,
        enqueue=enqueue,
        webhooks=webhooks or WebhookClient(Destinations()),
        oidc=oidc,
        vault=vault or Vault(()),
        telegram=telegram,
        region=region,
        commands=commands or Commands(),
        document=render_openapi(ROUTES),
        index=render_index(ROUTES),
    )
    app.cleanup_ctx.append(_following)
    app.cleanup_ctx.append(_purging)
    app.on_shutdown.append(_stop)
    paths = {route.path for route in ROUTES}
    app.add_routes([route.served(paths) for route in ROUTES])
    return app


async def _following(app: web.Application) -> AsyncIterator[None]:
    """The feed runs as long as the application is served."""
    running = asyncio.create_task(app[STATE].feed.run(), name="api.feed")
    yield
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _purging(app: web.Application) -> AsyncIterator[None]:
    """Answers that were kept are deleted once their time is over, as long as the application is served."""
    running = asyncio.create_task(purge_for_ever(app[STATE]), name="api.purge")
    yield
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _stop(app: web.Application) -> None:
    """Sockets and long polls are over before the connections are waited for."""
    app[STATE].feed.stop()
