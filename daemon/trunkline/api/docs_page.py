"""`/api/docs`: the OpenAPI document for human eyes, by Swagger UI, whose files come with a package.

The page runs the scripts of this server only, none that stand in it, and asks this server only: what it shows is no
more than the document that anybody may read. A key that is typed into it stays in the page, until that is closed.
"""

from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiohttp import web

from trunkline.api.contract import QUERY, Answer, Parameter, Route

_PATH: Final = "/api/docs"
_PACKAGE: Final = "flask_swagger_ui"  # only its files are used; it is never imported, nor is Flask (decision 16)
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>trunkline: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{path}/swagger-ui.css?v={version}">
</head>
<body>
<div id="api"></div>
<noscript>This page needs JavaScript; <a href="/api/openapi.json?pretty=1">the document itself</a> does not.</noscript>
<script src="{path}/swagger-ui-bundle.js?v={version}"></script>
<script src="{path}/start.js"></script>
</body>
</html>
"""
_START: Final = b"""\
SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  validatorUrl: null
});
"""
_TYPES: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


async def docs_page(request: web.Request) -> web.Response:
    """The page."""
    page = _PAGE.format(path=_PATH, version=version("flask-swagger-ui"))
    headers = {"Content-Security-Policy": _CSP, "Cache-Control": _ASK_AGAIN}
    return web.Response(text=page, content_type="text/html", charset="utf-8", headers=headers)


async def docs_start(request: web.Request) -> web.Response:
    """The script that starts it: one of its own, for none may stand in the page."""
    return web.Response(body=_START, content_type="text/javascript", headers={"Cache-Control": _ASK_AGAIN})


async def docs_file(request: web.Request) -> web.StreamResponse:
    """A file of Swagger UI; with its version, for ever the same."""
    name = request.path.rpartition("/")[2]
    asked = request[QUERY].get("v") == [version("flask-swagger-ui")]
    headers = {"Cache-Control": _FOR_EVER if asked else _ASK_AGAIN, "Content-Type": f"{_TYPES[name]}; charset=utf-8"}
    return web.FileResponse(_files() / name, headers=headers)


@cache
def _files() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise FileNotFoundError("the package flask-swagger-ui is not installed")
    return Path(spec.submodule_search_locations[0]) / "dist"


_VERSION: Final = Parameter(name="v", about="The version, for caches.")

DOCS_ROUTES: Final = (
    Route(
        method="GET",
        path=_PATH,
        handler=docs_page,
        queues=False,
        about="This API for human eyes.",
        open=True,
        answers=(Answer(about="HTML.", content_type="text/html"),),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/start.js",
        handler=docs_start,
        queues=False,
        about="What starts the page.",
        open=True,
        answers=(Answer(about="A script.", content_type="text/javascript"),),
    ),
    *(
        Route(
            method="GET",
            path=f"{_PATH}/{name}",
            handler=docs_file,
            queues=False,
            about="A file of Swagger UI.",
            open=True,
            parameters=(_VERSION,),
            answers=(Answer(about="The file.", content_type=type_),),
        )
        for name, type_ in _TYPES.items()
    ),
)
