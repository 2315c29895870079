"""What the routes say of themselves: the OpenAPI document, and the index page for who wanders by."""

import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiohttp import web

from trunkline.api.change import IDEMPOTENCY_KEY, LONGEST_KEY, REPLAYED, Repeats
from trunkline.api.contract import Answer, Parameter, Route, resource_of
from trunkline.api.examples import ANSWERED, SENT
from trunkline.api.multipart import FORM
from trunkline.api.problem import CONTENT_TYPE, EVERYWHERE, PROBLEMS
from trunkline.api.state import STATE, json_response

_ABOUT: Final = """Calls of an Asterisk PBX, their recordings and what happens to them, live.

Names are camelCase, times RFC 3339 in UTC, durations whole seconds, words of closed sets UPPERCASE. Errors are problems
(RFC 9457) with a stable `code`; `requestId` is also the header X-Request-ID, and stands in the log."""


class ProblemBody(msgspec.Struct, rename="camel"):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str  # stable, for programs to go by
    detail: str  # what is wrong, where, and what to do
    request_id: str


async def openapi(request: web.Request) -> web.Response:
    """The OpenAPI document."""
    return json_response(request, request.app[STATE].document)


async def index(request: web.Request) -> web.Response:
    """The routes, with links."""
    return web.Response(body=request.app[STATE].index, content_type="text/html", charset="utf-8")


def render_openapi(routes: Iterable[Route]) -> bytes:
    """The OpenAPI 3.1 document of these routes, as JSON."""
    listed = [route for route in routes if route.tag is not None]
    types: list[Any] = [ProblemBody]
    for route in listed:
        types += [parameter.type for parameter in route.every_parameter]
        types += [resource_of(route.answers[0].type)] if route.sparse else []
        types += [answer.type for answer in route.answers if answer.type is not None]
        types += [] if route.body is None else [route.body]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of = dict(zip(map(repr, types), schemas, strict=True))
    for route in listed:
        if route.sparse:
            _add_sparse(components, of, resource_of(route.answers[0].type))
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "trunkline", "version": version("trunkline"), "description": _ABOUT},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                },
            },
            "security": [{"bearer": []}, {"key": []}],
        }
    )


def _add_sparse(components: dict[str, Any], of: dict[str, Any], resource: Any) -> None:
    """The schema of what `fields` leaves of a resource: any of its properties."""
    name = of[repr(resource)]["$ref"].rpartition("/")[2]
    whole = {key: value for key, value in components[name].items() if key not in ("required", "title")}
    components[f"Sparse{name}"] = {**whole, "title": f"Sparse{name}", "description": f"Some fields of a {name}."}


def _scopes(route: Route) -> str:
    return f"Needs the scope `{route.needs}`" + (f" and `{route.also}`." if route.also else ".")


def _operation(route: Route, of: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for answer in route.answers:
        responses[str(answer.status)] = {"description": answer.about, **_headers(route), **_content(route, answer, of)}
    if route.versioned and route.method == "GET":
        responses["304"] = {"description": "It is what the client has (If-None-Match).", **_headers(route)}
    for status, codes in _by_status((*EVERYWHERE, *route.every_problem)).items():
        told = "; ".join(f"`{code}`: {PROBLEMS[code][1]}" for code in codes)
        problem = {"allOf": [of[repr(ProblemBody)], {"properties": {"code": {"enum": codes}}}]}
        content = {CONTENT_TYPE: {"schema": problem}}
        if str(status) in responses:  # as /readyz, whose own answer has the status of a problem
            responses[str(status)]["content"].update(content)
        else:
            responses[str(status)] = {"description": told, "content": content}
    operation = {
        "summary": route.about,
        **({"description": _scopes(route)} if route.needs else {}),
        "operationId": route.handler.__name__,
        "tags": [route.tag],
        "parameters": [
            *_path_parameters(route.path),
            *(_parameter(one, of) for one in route.every_parameter),
            *_header_parameters(route),
        ],
        "responses": responses,
    }
    if route.open:
        operation["security"] = []
    if route.body is not None:
        media = ["application/json", *(["application/merge-patch+json"] if route.method == "PATCH" else [])]
        content = {one: {"schema": of[repr(route.body)], **_example(SENT, route.body)} for one in media}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {route.takes: _READ_BY_ITSELF.get(route.takes, {})},
        }
    return operation


_READ_BY_ITSELF: Final = {"multipart/form-data": {"schema": FORM}}


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    """The headers that a route goes by."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    if route.versioned and route.method == "GET":
        found.append(("If-None-Match", "The ETag of what the client has: 304 where it is still that.", {}))
    elif route.versioned and route.method != "POST":
        found.append(("If-Match", "The ETag of what is to be changed: 412 where somebody changed it since.", {}))
    if route.repeats in (Repeats.KEPT, Repeats.BY_CONTENT, Repeats.HANDLED):
        about = "Of the client's choice, new for each request: who sends one again gets the same answer, for 24 hours."
        found.append((IDEMPOTENCY_KEY, about, {"minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$"}))
    needed = IDEMPOTENCY_KEY if route.repeats is Repeats.HANDLED else ""
    return [
        {
            "name": name,
            "in": "header",
            **({"required": True} if name == needed else {}),
            "description": about,
            "schema": {"type": "string", **more},
        }
        for name, about, more in found
    ]


def _headers(route: Route) -> dict[str, Any]:
    """The headers of what a route answers."""
    found: dict[str, Any] = {}
    if route.versioned and route.method in ("GET", "PATCH", "PUT"):
        about = "Of what is answered. What is before the dot is the version that If-Match goes by."
        found["ETag"] = {"description": about, "schema": {"type": "string"}}
    if route.repeats is Repeats.KEPT:
        about = "true: this was answered before, to a request with the same key."
        found[REPLAYED] = {"description": about, "schema": {"type": "string", "enum": ["true"]}}
    return {"headers": found} if found else {}


def _content(route: Route, answer: Answer, of: dict[str, Any]) -> dict[str, Any]:
    if answer.type is not None:
        whole = of[repr(answer.type)]
        schema = {"anyOf": [whole, _sparse(answer, whole, of)]} if route.sparse and answer.status < 300 else whole
        return {"content": {answer.content_type: {"schema": schema, **_example(ANSWERED, answer.type)}}}
    if answer.status in (200, 206):
        return {"content": {answer.content_type: {"schema": {"type": "string"}}}}
    return {}


def _example(examples: Mapping[Any, Any], type_: Any) -> dict[str, Any]:
    return {"example": examples[type_]} if type_ in examples else {}


_IDS: Final = frozenset({"id", "deliveryId"})


def _sparse(answer: Answer, whole: dict[str, Any], of: dict[str, Any]) -> dict[str, Any]:
    """What `fields` makes of an answer."""
    resource = resource_of(answer.type)
    name = of[repr(resource)]["$ref"].rpartition("/")[2]
    some = {"$ref": f"#/components/schemas/Sparse{name}"}
    if resource is answer.type:
        return some
    return {"type": "object", "properties": {"items": {"type": "array", "items": some}}, "required": ["items"]}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    id_, extension = {"type": "string", "format": "uuid"}, {"type": "string", "pattern": "^[0-9]{2,6}$"}
    schemas = {**dict.fromkeys(_IDS, id_), "ext": extension}
    return [
        {"name": name, "in": "path", "required": True, "schema": schemas.get(name, {"type": "string"})}
        for name in names
    ]


def _parameter(parameter: Parameter, of: dict[str, Any]) -> dict[str, Any]:
    schema = of[repr(parameter.type)]
    if parameter.many:
        several = {"type": "array", "items": schema, "minItems": 1}
        return {**_named(parameter), "schema": several, "style": "form", "explode": False}
    return {**_named(parameter), "schema": schema}


def _named(parameter: Parameter) -> dict[str, Any]:
    return {"name": parameter.name, "in": "query", "description": parameter.about}


def _by_status(codes: Sequence[str]) -> dict[int, list[str]]:
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    return dict(sorted(by_status.items()))


def render_index(routes: Iterable[Route]) -> bytes:
    """The page at /: each route with what it is for, a link where it takes no id."""
    lines = []
    for route in routes:
        if route.tag is None:
            continue
        path = html.escape(route.path)
        shown = path if "{" in route.path or route.method != "GET" else f'<a href="{path}">{path}</a>'
        asked = ", ".join(parameter.name for parameter in route.every_parameter if parameter.name != "pretty")
        names = f" ({html.escape(asked)})" if asked else ""
        lines.append(f"<li><code>{route.method}</code> {shown}{names}: {html.escape(route.about)}</li>")
    page = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>trunkline</title>\n<h1>trunkline</h1>\n'
    page += '<p>To read and to try: <a href="/api/docs">/api/docs</a></p>\n<ul>\n'
    return (page + "\n".join(lines) + "\n</ul>\n</html>\n").encode()
