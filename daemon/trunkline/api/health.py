"""What watches the daemon asks: /healthz, /readyz, /metrics; and the index page for who wanders by."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from trunkline.api.parameters import only
from trunkline.api.state import STATE, Link, State, json_response
from trunkline.store.faults import advice, of_the_server
from trunkline.store.queries import select_migration

CHECK_TIMEOUT_S = 3.0
KNOWN = web.RequestKey("known", bool)  # whether the request came with a key, or needs none

_encode = msgspec.json.Encoder().encode
_INDEX = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>trunkline</title>
<h1>trunkline</h1>
<ul>
<li><a href="/api/v1/calls">/api/v1/calls</a>: the calls, newest first (status, direction, from, to, number, since,
until, limit, cursor, include=legs)</li>
<li>/api/v1/calls/{id}: one call with its legs, transfers, holds and recordings</li>
<li>/api/v1/calls/{id}/recordings, /api/v1/recordings/{id}, its /audio and /peaks: what was recorded</li>
<li><a href="/api/v1/recordings">/api/v1/recordings</a>: the recordings that are not stored, and why</li>
<li><a href="/readyz">/readyz</a>: is everything there: database, migrations, every PBX</li>
<li><a href="/healthz">/healthz</a>: is the process alive</li>
<li><a href="/metrics">/metrics</a>: for Prometheus</li>
</ul>
</html>
"""


async def index(request: web.Request) -> web.Response:
    """The routes, with links."""
    return web.Response(body=_INDEX, content_type="text/html", charset="utf-8")


async def healthz(request: web.Request) -> web.Response:
    """Alive: this loop answers. It says nothing about PostgreSQL or a PBX, for a restart would not mend those."""
    only(request, ("pretty",))
    return json_response(request, b'{"status":"ok"}')


async def readyz(request: web.Request) -> web.Response:
    """Ready: 200 when database, migrations and every PBX link are there, else 503 and which is not.

    Without a key, where keys are set, the answer names neither PBXs nor reasons.
    """
    only(request, ("pretty",))
    state = request.app[STATE]
    checks = [*await _database(state), *(_pbx(link) for link in state.links())]
    ready = all(check["ok"] for check in checks)
    if not request[KNOWN]:
        checks = [{"check": check["check"], "ok": check["ok"]} for check in checks]
    body = _encode({"status": "ready" if ready else "not ready", "checks": checks})
    return json_response(request, body, status=200 if ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """The page that Prometheus scrapes, in the text format or OpenMetrics, as its Accept header asks."""
    only(request, ())
    page, content_type = request.app[STATE].metrics.page(request.headers.get("Accept", ""))
    return web.Response(body=page, headers={"Content-Type": content_type})


async def _database(state: State) -> list[dict[str, Any]]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            found = await select_migration(state.pool)
    except Exception as error:
        if not of_the_server(error):
            raise
        detail = f"PostgreSQL cannot be used ({type(error).__name__}): {advice(error)}."
        return [{"check": "database", "ok": False, "detail": detail}]
    checks: list[dict[str, Any]] = [{"check": "database", "ok": True}]
    if state.head is not None:
        check: dict[str, Any] = {"check": "migrations", "ok": found == state.head}
        if found != state.head:
            at = "has no schema yet" if found is None else f"is at migration {found}"
            check["detail"] = f"The database {at}, this version needs {state.head}: run `trunkline migrate`."
        checks.append(check)
    return checks


def _pbx(link: Link) -> dict[str, Any]:
    check: dict[str, Any] = {"check": "pbx", "pbx": link.pbx, "ok": link.up}
    if not link.up:
        check["detail"] = link.detail or "The link is not up yet; `trunkline doctor` says what the PBX lacks."
    return check
