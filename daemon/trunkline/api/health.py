"""What watches the daemon asks: /healthz, /readyz, /metrics."""

import asyncio
from typing import Literal

import msgspec
from aiohttp import web

from trunkline.api.state import KNOWN, STATE, Link, State, json_response
from trunkline.store.faults import advice, of_the_server
from trunkline.store.queries import select_migration

CHECK_TIMEOUT_S = 3.0

_encode = msgspec.json.Encoder().encode


class Health(msgspec.Struct):
    """The process is alive."""

    status: Literal["ok"]


class Check(msgspec.Struct, omit_defaults=True):
    """How one thing stands that the daemon needs."""

    check: Literal["database", "migrations", "pbx"]
    ok: bool
    pbx: str = ""  # its name; only with a key
    detail: str = ""  # why it is not there and what to do; only with a key


class Readiness(msgspec.Struct):
    """How everything stands that the daemon needs."""

    status: Literal["ready", "not ready"]
    checks: list[Check]


async def healthz(request: web.Request) -> web.Response:
    """Alive: this loop answers. It says nothing about PostgreSQL or a PBX, for a restart would not mend those."""
    return json_response(request, b'{"status":"ok"}')


async def readyz(request: web.Request) -> web.Response:
    """Ready: 200 when database, migrations and every PBX link are there, else 503 and which is not.

    Without a key, where keys are set, the answer names neither PBXs nor reasons.
    """
    state = request.app[STATE]
    checks = [*await _database(state), *(_pbx(link) for link in state.links())]
    ready = all(check.ok for check in checks)
    if not request[KNOWN]:
        checks = [Check(check.check, check.ok) for check in checks]
    body = _encode(Readiness("ready" if ready else "not ready", checks))
    return json_response(request, body, status=200 if ready else 503)


async def metrics(request: web.Request) -> web.Response:
    """The page that Prometheus scrapes, in the text format or OpenMetrics, as its Accept header asks."""
    page, content_type = request.app[STATE].metrics.page(request.headers.get("Accept", ""))
    return web.Response(body=page, headers={"Content-Type": content_type})


async def _database(state: State) -> list[Check]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            found = await select_migration(state.pool)
    except Exception as error:
        if not of_the_server(error):
            raise
        detail = f"PostgreSQL cannot be used ({type(error).__name__}): {advice(error)}."
        return [Check("database", False, detail=detail)]
    checks = [Check("database", True)]
    if state.head is not None:
        at = "has no schema yet" if found is None else f"is at migration {found}"
        detail = f"The database {at}, this version needs {state.head}: run `trunkline migrate`."
        checks.append(Check("migrations", found == state.head, detail="" if found == state.head else detail))
    return checks


def _pbx(link: Link) -> Check:
    detail = link.detail or "The link is not up yet; `trunkline doctor` says what the PBX lacks."
    return Check("pbx", link.up, link.pbx, "" if link.up else detail)
