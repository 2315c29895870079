"""The contract: a route is declared once, and from that one declaration it is served, guarded and described.

What a route may be asked, what it answers and which errors it knows stand in its `Route`; its handler sees only what
was declared, read and checked. So `/api/openapi.json` cannot drift from what is served.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from trunkline.api.guard import CALLER, key_missing
from trunkline.api.parameters import read_query
from trunkline.api.problem import Problem
from trunkline.api.state import STATE
from trunkline.identity.scopes import allows

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

QUERY: Final = web.RequestKey("query", dict[str, list[str]])  # the values of the parameters, by name
BODY: Final = web.RequestKey("body", object)  # of the route's type


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A query parameter. type: a type that msgspec knows the JSON Schema of; many: several of them, a,b or repeated."""

    name: str
    about: str
    type: Any = str
    many: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a route answers where it goes well. type: of the JSON; None where it is none."""

    about: str
    status: int = 200
    type: Any = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    path: as aiohttp and OpenAPI write it, `/api/v1/calls/{id}`. problems: the codes of problem.PROBLEMS beside those
    that every route knows. tag: the heading it stands under; None for what no client of the API is to know.
    open: answered without a key, for it tells nothing about calls. body: the type of the JSON that it takes.
    queues: waits in the line before the database, which is what nearly all of its time is for.
    files: takes a form of files instead, which its handler reads as it comes; how long that may be is its own affair.
    scope: what its caller must hold, of identity.scopes.SCOPES; "" is nothing but to be known; None: that of its tag,
    `TAG:read` for GET and `TAG:write` for all else.
    """

    method: str
    path: str
    handler: Handler
    about: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    files: bool = False
    problems: tuple[str, ...] = ()
    tag: str | None = None
    open: bool = False
    queues: bool = True
    scope: str | None = None

    @property
    def needs(self) -> str | None:
        """The scope that a caller must hold; "": he must be known; None: he need not even be that."""
        if self.open:
            return None
        if self.scope is not None:
            return self.scope
        return f"{self.tag}:{'read' if self.method == 'GET' else 'write'}"

    def served(self) -> web.RouteDef:
        """What aiohttp's router takes; GET is HEAD too."""
        return (
            web.get(self.path, self._serve) if self.method == "GET" else web.route(self.method, self.path, self._serve)
        )

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.needs is not None:
            _check_scope(request, self.needs)
        request[QUERY] = read_query(request, {parameter.name: parameter.many for parameter in self.parameters})
        if self.body is not None:
            request[BODY] = await _read_body(request, self.body)
        if not self.queues:
            return await self.handler(request)
        async with request.app[STATE].room:
            return await self.handler(request)


def _check_scope(request: web.Request, needed: str) -> None:
    """Raise Problem where the caller may not do what takes this scope."""
    caller = request.get(CALLER)
    if caller is None:  # another method of the path is open
        raise key_missing()
    if not allows(caller.scopes, needed):
        raise Problem(
            "scope_missing",
            f"This needs the scope {needed}, which this key or user does not have. An admin can give it.",
            headers={"WWW-Authenticate": f'Bearer realm="trunkline", error="insufficient_scope", scope="{needed}"'},
            scope=needed,
        )


async def _read_body(request: web.Request, type_: Any) -> Any:
    """The request's JSON as that type. Raises Problem."""
    if request.content_type != "application/json":
        raise Problem("not_json", "The body has to be JSON: send it with `Content-Type: application/json`.")
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except msgspec.ValidationError as error:
        raise Problem("bad_body", f"The body is not what this route takes: {error}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem("bad_json", f"The body is no JSON: {error}.") from error
