"""The contract: a route is declared once, and from that one declaration it is served, guarded and described.

What a route may be asked, what it answers and which errors it knows stand in its `Route`; its handler sees only what
was declared, read and checked. So `/api/openapi.json` cannot drift from what is served.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args, get_type_hints

import msgspec
from aiohttp import web

from trunkline.api.change import Change, Repeats, refuse_conditions, serve_change
from trunkline.api.guard import CALLER, key_missing
from trunkline.api.parameters import read_fields, read_query
from trunkline.api.problem import MAX_BODY, WITH_BODY, WITH_KEY, WITH_NO_KEY, Problem
from trunkline.api.representation import FIELDS, compress
from trunkline.api.state import STATE
from trunkline.identity.scopes import allows

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

QUERY: Final = web.RequestKey("query", dict[str, list[str]])  # the values of the parameters, by name
BODY: Final = web.RequestKey("body", object)  # of the route's type
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # that PostgreSQL cannot hold; not behind a backslash of its own
_JSON: Final = "application/json"
_MERGE_PATCH: Final = "application/merge-patch+json"  # RFC 7396: what a PATCH takes is one


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
    that every route knows, and those that follow from what else is declared. tag: the heading it stands under; None for
    what no client of the API is to know. open: answered without a key, for it tells nothing about calls.
    body: the type of the JSON that it takes, a struct that forbids unknown fields; of a PATCH, one whose fields are
    UNSET where they are left out, while null empties them. takes: a media type that its handler reads by itself.
    longest_body: bytes. queues: waits in the line before the database, which is what nearly all of its time is for.
    scope: what its caller must hold, of identity.scopes.SCOPES; "" is nothing but to be known; None: that of its tag,
    `TAG:read` for GET and `TAG:write` for all else.
    versioned: its resource has an ETag: GET answers with it and knows If-None-Match (its handler hands json_response
    the version), whatever changes it knows If-Match (check_version). sparse: takes `fields`, those of its answer.
    repeats: what becomes of a POST that comes again under its Idempotency-Key; every POST has to say so.
    secret: its answer holds one, so it is not compressed: an attacker's guess beside it would show in the length.
    lenient: passes over query parameters that it does not know. also: a second scope that he must hold as well.
    """

    method: str
    path: str
    handler: Handler
    about: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    problems: tuple[str, ...] = ()
    tag: str | None = None
    open: bool = False
    takes: str | None = None
    longest_body: int = MAX_BODY
    queues: bool = True
    scope: str | None = None
    also: str | None = None
    versioned: bool = False
    sparse: bool = False
    repeats: Repeats | None = None
    secret: bool = False
    lenient: bool = False

    def __post_init__(self) -> None:
        """Refuse what was forgotten. Raises ValueError."""
        name = f"{self.method} {self.path}"
        if (self.method == "POST") != (self.repeats is not None):
            raise ValueError(f"{name}: say what becomes of a POST that is repeated, and of nothing else")
        if self.secret and self.repeats is Repeats.KEPT:
            raise ValueError(f"{name}: an answer that holds a secret cannot be kept")
        if self.body is None:
            return
        if not self.body.__struct_config__.forbid_unknown_fields:
            raise ValueError(f"{name}: its body has to forbid unknown fields")
        if self.method == "PATCH" and any(
            field.default is not msgspec.UNSET for field in msgspec.structs.fields(self.body)
        ):
            raise ValueError(f"{name}: what a PATCH leaves out stays: give each field the default UNSET")

    @property
    def every_parameter(self) -> tuple[Parameter, ...]:
        """Those that are declared, and those that follow."""
        if not self.sparse:
            return self.parameters
        names: Any = Literal.__getitem__(self.fields)
        about = "Only these fields of the resource, or of each item."
        return (*self.parameters, Parameter(name="fields", about=about, type=names, many=True))

    @property
    def fields(self) -> tuple[str, ...]:
        """The names that `fields` takes: of the answer's type, or of the items of its page."""
        return tuple(field.encode_name for field in msgspec.structs.fields(resource_of(self.answers[0].type)))

    @property
    def changes(self) -> bool:
        """Whether its handler may change something by changing(request)."""
        return self.method not in ("GET", "HEAD")

    @property
    def every_problem(self) -> tuple[str, ...]:
        """The codes beside those of every route: those declared, and those that follow."""
        found = dict.fromkeys(self.problems)
        if self.body is not None:
            found |= dict.fromkeys(WITH_BODY)
        if self.changes:
            found |= dict.fromkeys(("precondition_failed",))
        if self.repeats is Repeats.REFUSED:
            found |= dict.fromkeys(WITH_NO_KEY)
        elif self.repeats is not None:
            found |= dict.fromkeys(WITH_KEY)
        return tuple(found)

    @property
    def needs(self) -> str | None:
        """The scope that a caller must hold; "": he must be known; None: he need not even be that."""
        if self.open:
            return None
        if self.scope is not None:
            return self.scope
        return f"{self.tag}:{'read' if self.method == 'GET' else 'write'}"

    def served(self, paths: Iterable[str] = ()) -> web.RouteDef:
        """What aiohttp's router takes; GET is HEAD too. paths: all there are: where one of them is, there is no id."""
        serve, path = _Server(self).serve, self.path
        above, _, last = path.rpartition("/")
        beside = (other.rpartition("/") for other in paths if "{" not in other)
        words = sorted(word for folder, _, word in beside if folder == above)
        if last.startswith("{") and words:
            path = f"{above}/{last[:-1]}:(?!(?:{'|'.join(map(re.escape, words))})$)[^/]+}}"
        return web.get(path, serve) if self.method == "GET" else web.route(self.method, path, serve)


class _Server:
    """A route as it is served: what follows from its declaration is made once."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._needs = route.needs
        self._several = {parameter.name: parameter.many for parameter in route.every_parameter}
        self._fields = route.fields if route.sparse else ()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of somebody who was let in."""
        route = self._route
        if self._needs is not None:
            _check_scope(request, self._needs)
        if route.also is not None:
            _check_scope(request, route.also)
        request[QUERY] = read_query(request, self._several, lenient=route.lenient)
        if route.sparse and "fields" in request[QUERY]:
            request[FIELDS] = read_fields(request[QUERY]["fields"], self._fields)
        refuse_conditions(request, versioned=route.versioned, repeats=route.repeats)
        if route.body is not None:
            request[BODY] = await _read_body(request, route.body)
        if not route.queues:
            response = await self._handle(request)
        else:
            async with request.app[STATE].room:
                response = await self._handle(request)
        if not route.secret and isinstance(response, web.Response):
            compress(request, response)
        return response

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        route = self._route
        if not route.changes:
            return await route.handler(request)
        kept = route.repeats is Repeats.KEPT
        change = Change(request, versioned=route.versioned, kept=kept, queued=route.queues)
        return await serve_change(request, change, route.handler)


def resource_of(answer: Any) -> Any:
    """The type of the resource that an answer is of: of each item, where it is a page of them."""
    hints = get_type_hints(answer)
    return get_args(hints["items"])[0] if "items" in hints else answer


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
    if request.content_type not in ((_JSON, _MERGE_PATCH) if request.method == "PATCH" else (_JSON,)):
        raise Problem("not_json", "The body has to be JSON: send it with `Content-Type: application/json`.")
    body = await request.read()
    try:
        if _NUL.search(body):
            where = _with_nul(msgspec.json.decode(body), "$")
            raise Problem("bad_body", f"The character U+0000 is in no text that is taken here - at `{where}`.")
        decoded = msgspec.json.decode(body, type=type_)
        _check_times(decoded)
        return decoded
    except OverflowError as error:
        raise Problem("bad_body", "The body is not what this route takes: a time is none in UTC.") from error
    except msgspec.ValidationError as error:
        raise Problem("bad_body", f"The body is not what this route takes: {error}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem("bad_json", f"The body is no JSON: {error}.") from error


def _with_nul(value: Any, path: str) -> str | None:
    """Where in a JSON value U+0000 stands first, written as msgspec writes it."""
    match value:
        case str():
            return path if "\0" in value else None
        case list():
            inside = ((f"{path}[{n}]", item) for n, item in enumerate(value))
        case dict():
            if any("\0" in key for key in value):
                return path
            inside = ((f"{path}.{key}", item) for key, item in value.items())
        case _:
            return None
    return next((found for where, item in inside if (found := _with_nul(item, where))), None)


def _check_times(value: object) -> None:
    """Raise OverflowError where an offset leads out of the years there are: the database would be asked in vain."""
    match value:
        case datetime():
            value.astimezone(UTC)
        case msgspec.Struct():
            for name in value.__struct_fields__:
                _check_times(getattr(value, name))
        case list() | tuple() | set():
            for one in value:
                _check_times(one)
        case dict():
            for one in value.values():
                _check_times(one)
