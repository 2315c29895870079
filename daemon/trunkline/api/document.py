"""What the routes say of themselves: the OpenAPI document, and the index page for who wanders by."""

import html
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiohttp import web

from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.multipart import MOST_FILES
from trunkline.api.problem import CONTENT_TYPE, EVERYWHERE, PROBLEMS, WITH_BODY
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
        types += [parameter.type for parameter in route.parameters]
        types += [answer.type for answer in route.answers if answer.type is not None]
        types += [] if route.body is None else [route.body]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of = dict(zip(map(repr, types), schemas, strict=True))
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


def _operation(route: Route, of: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for answer in route.answers:
        responses[str(answer.status)] = {"description": answer.about, **_content(answer, of)}
    for status, codes in _by_status(
        (*EVERYWHERE, *(WITH_BODY if route.body is not None else ()), *route.problems)
    ).items():
        told = "; ".join(f"`{code}`: {PROBLEMS[code][1]}" for code in codes)
        problem = {"allOf": [of[repr(ProblemBody)], {"properties": {"code": {"enum": codes}}}]}
        content = {CONTENT_TYPE: {"schema": problem}}
        if str(status) in responses:  # as /readyz, whose own answer has the status of a problem
            responses[str(status)]["content"].update(content)
        else:
            responses[str(status)] = {"description": told, "content": content}
    operation = {
        "summary": route.about,
        **({"description": f"Needs the scope `{route.needs}`."} if route.needs else {}),
        "operationId": route.handler.__name__,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route.path), *(_parameter(one, of) for one in route.parameters)],
        "responses": responses,
    }
    if route.open:
        operation["security"] = []
    if route.files:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _FILES}}}
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": of[repr(route.body)]}},
        }
    return operation


_FILES: Final = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "description": "One part for each file, with its name.",
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_FILES,
            "items": {"type": "string", "format": "binary"},
        }
    },
}


def _content(answer: Answer, of: dict[str, Any]) -> dict[str, Any]:
    if answer.type is not None:
        return {"content": {answer.content_type: {"schema": of[repr(answer.type)]}}}
    if answer.status in (200, 206):
        return {"content": {answer.content_type: {"schema": {"type": "string"}}}}
    return {}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    schema = {"type": "string", "format": "uuid"}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


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
        asked = ", ".join(parameter.name for parameter in route.parameters if parameter.name != "pretty")
        names = f" ({html.escape(asked)})" if asked else ""
        lines.append(f"<li><code>{route.method}</code> {shown}{names}: {html.escape(route.about)}</li>")
    page = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>trunkline</title>\n<h1>trunkline</h1>\n<ul>\n'
    return (page + "\n".join(lines) + "\n</ul>\n</html>\n").encode()
