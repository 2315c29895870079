"""`create_app`: the routes, over one pool, for one account."""

from collections.abc import Callable, Sequence

from aiohttp import web

from trunkline.api import calls, health, recordings
from trunkline.api.edge import MAX_BODY, edge
from trunkline.api.guard import Guard
from trunkline.api.state import STATE, Link, State
from trunkline.metrics import Metrics
from trunkline.recordings.objects import ObjectStore
from trunkline.store.pool import Pool
from trunkline.store.recordings import EnqueueRecordings


def create_app(
    pool: Pool,
    *,
    account: str,
    metrics: Metrics,
    keys: Sequence[str] = (),
    head: str | None = None,
    links: Callable[[], Sequence[Link]] = tuple,
    objects: ObjectStore | None = None,
    enqueue: EnqueueRecordings | None = None,
) -> web.Application:
    """Make the application that serves one account's calls; it takes the pool over for reading and never closes it.

    `keys`: any of them lets a request in; none: only loopback names are answered. `head`: the newest migration, for
    readiness. `links`: how the PBX links stand now, asked at each /readyz; on the asyncio thread.
    `objects`: where recordings are, and `enqueue` what has them worked on; None where they are not kept.
    The database need not be there yet.
    """
    app = web.Application(middlewares=[edge], client_max_size=MAX_BODY)
    app[STATE] = State(pool, account, Guard(keys), metrics, head, links, objects, enqueue)
    app.add_routes(
        [
            web.get("/", health.index),
            web.get("/healthz", health.healthz),
            web.get("/readyz", health.readyz),
            web.get("/metrics", health.metrics),
            web.get("/api/v1/calls", calls.list_calls),
            web.get("/api/v1/calls/{id}", calls.get_call),
            web.get("/api/v1/calls/{id}/recordings", recordings.list_of_call),
            web.get("/api/v1/recordings", recordings.list_recordings),
            web.get("/api/v1/recordings/{id}", recordings.get_recording),
            web.delete("/api/v1/recordings/{id}", recordings.erase),
            web.get("/api/v1/recordings/{id}/audio", recordings.get_audio),
            web.get("/api/v1/recordings/{id}/peaks", recordings.get_peaks),
            web.put("/api/v1/recordings/{id}/hold", recordings.put_hold),
            web.delete("/api/v1/recordings/{id}/hold", recordings.delete_hold),
        ]
    )
    return app
