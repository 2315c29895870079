"""`/api/docs`: a page that runs nothing of anybody else's, in a browser that keeps its policy."""

from html.parser import HTMLParser
from typing import Any

import pytest
from served import Serve, Served

from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

KEY = "a-key-of-the-settings"


class _Page(HTMLParser):
    """What a page loads, and what stands in it that a strict policy would not run."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._within = tag
        self.loads += [given[name] or "" for name in ("src", "href") if name in given and tag != "a"]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._within = ""


def policy(response: Any) -> dict[str, str]:
    told = [one.strip().partition(" ") for one in response.headers["Content-Security-Policy"].split(";")]
    return {name: sources for name, _, sources in told}


async def test_the_page_needs_no_key_and_loads_only_what_is_ours(serve: Serve, shared_pool: Pool) -> None:
    api: Served = await serve(shared_pool, keys=[KEY])
    response, body = await api.raw("/api/docs")
    assert (response.status, response.content_type) == (200, "text/html")
    assert policy(response) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    page = _Page()
    page.feed(body.decode())
    assert page.inline == []
    files = [one for one in page.loads if one != "data:,"]
    assert [one.partition("?")[0] for one in files] == [
        "/api/docs/swagger-ui.css",
        "/api/docs/swagger-ui-bundle.js",
        "/api/docs/start.js",
    ]
    for path in files:
        response, body = await api.raw(path)
        assert response.status == 200
        assert response.content_type == ("text/css" if ".css" in path else "text/javascript")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert len(body) > 100
    assert b'url: "/api/openapi.json"' in body
    assert (await api.get("/api/openapi.json"))[0] == 200


async def test_a_file_is_kept_for_as_long_as_its_version(shared: Served) -> None:
    _, body = await shared.raw("/api/docs")
    page = _Page()
    page.feed(body.decode())
    versioned = next(one for one in page.loads if "bundle" in one)
    response, _ = await shared.raw(versioned)
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    for path in ("/api/docs", "/api/docs/start.js", versioned.partition("?")[0], versioned + "x"):
        response, _ = await shared.raw(path)
        assert response.headers["Cache-Control"] == "no-cache"
    response, _ = await shared.raw(versioned)
    again, body = await shared.raw(versioned, headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status, body) == (304, b"")


async def test_nothing_else_of_the_package_is_served(shared: Served) -> None:
    for name in ("index.html", "..%2f__init__.py", "swagger-ui.js", "../../v1/calls"):
        response, _ = await shared.raw(f"/api/docs/{name}")
        assert response.status == 404 or response.url.path == "/api/v1/calls"
    assert (await shared.raw("/api/docs/swagger-ui.css?w=1"))[0].status == 400
