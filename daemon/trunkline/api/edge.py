"""What every request goes through: who it is, how long it may take, what an error looks like, what is counted."""

import asyncio
import re
import time
from typing import Final
from uuid import uuid4

import asyncpg
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from trunkline.api.cors import preflight, share
from trunkline.api.problem import MAX_BODY, Problem
from trunkline.api.state import DEADLINE, KNOWN, REQUEST_ID, STATE, State
from trunkline.objects.faults import StoreFault
from trunkline.store.faults import advice, of_the_server

HANDLER_TIMEOUT_S: Final = 10.0
UNMATCHED: Final = "unmatched"  # the route's name in the metrics when the path was none of ours

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request, whatever happens, with the headers that every answer has."""
    began = time.perf_counter()
    state = request.app[STATE]
    resource = request.match_info.route.resource
    route = UNMATCHED if resource is None else resource.canonical
    request_id = request[REQUEST_ID] = _request_id(request)
    response = preflight(request, state.origins) or await _answer(request, handler, state, route, request_id)
    if response.prepared:  # a WebSocket that is over: its time says nothing
        state.metrics.observe_request(request.method, route, response.status, 0.0)
        return response
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-ID"] = request_id
    share(request, response, state.origins)
    if request.can_read_body and request.content_length is None:
        response.force_close()  # a body without an end is not waited for
    state.metrics.observe_request(request.method, route, response.status, time.perf_counter() - began)
    return response


async def _answer(
    request: web.Request, handler: Handler, state: State, route: str, request_id: str
) -> web.StreamResponse:
    """What the handler answers, or the problem that came up."""
    deadline = None
    try:
        async with asyncio.timeout(HANDLER_TIMEOUT_S) as deadline:
            request[DEADLINE] = deadline
            request[KNOWN] = await state.guard.check(request, route)
            longest = state.longest_bodies.get((request.method, route), MAX_BODY)
            if (request.content_length or 0) > longest:
                raise Problem("body_too_large", f"The body is longer than {longest} bytes; send a shorter one.")
            return await handler(request)
    except Problem as refused:
        problem = refused
    except web.HTTPException as refused:
        problem = _refused(request, refused)
    except Exception as error:
        told = {"request_id": request_id, "route": route, "method": request.method}
        if isinstance(error, StoreFault):
            log.warning("http.storage_away", error=str(error), **told)
            problem = _storage_away()
        elif isinstance(error, asyncpg.QueryCanceledError) or (deadline is not None and deadline.expired()):
            log.warning("http.too_slow", **told)
            problem = _too_slow()
        elif of_the_server(error):
            log.warning("http.database_away", error=type(error).__name__, advice=advice(error), **told)
            problem = _database_away()
        else:
            log.exception("http.failed", **told)
            problem = _failed()
    finally:
        request.pop(DEADLINE, None)  # it holds the task, and that the request
    state.metrics.count_refusal(problem.code)
    return problem.response(request_id)


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-ID", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


def _refused(request: web.Request, refused: web.HTTPException) -> Problem:
    match refused:
        case web.HTTPNotFound():
            return Problem("route_not_found", "There is nothing at this path; GET / lists what there is.")
        case web.HTTPMethodNotAllowed():
            allowed = sorted(refused.allowed_methods)
            return Problem(
                "method_not_allowed",
                f"This route does not take this method; allowed: {', '.join(allowed)}.",
                headers={hdrs.ALLOW: ", ".join(allowed)},
                allowed=allowed,
            )
        case _:
            return Problem("refused", f"{refused.reason}.", status=refused.status)


def _too_slow() -> Problem:
    return Problem(
        "too_slow",
        f"The answer took longer than {HANDLER_TIMEOUT_S:g} s and was given up. Try again, or ask for less.",
        headers={"Retry-After": "5"},
    )


def _database_away() -> Problem:
    return Problem(
        "database_unavailable",
        "The database cannot be used for now. Try again; /readyz says why not and when it is back.",
        headers={"Retry-After": "5"},
    )


def _storage_away() -> Problem:
    return Problem(
        "storage_unavailable",
        "The object storage with the recordings cannot be used for now. Try again; the log says why.",
        headers={"Retry-After": "5"},
    )


def _failed() -> Problem:
    return Problem("internal_error", "Something failed inside. The log has it under this requestId.")
