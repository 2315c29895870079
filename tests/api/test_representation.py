"""How answers are written: some fields, compressed, and never compressed where they hold a secret."""

from typing import Any

import msgspec
import pytest
from served import Served

from trunkline.api.representation import is_version, takes_gzip, version_of
from trunkline.api.routes import ROUTES
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

CALLS = "/api/v1/calls"
GZIP = {"Accept-Encoding": "gzip"}
PLAIN = {"Accept-Encoding": "identity"}


async def test_fields_leaves_the_others_out(shared: Served) -> None:
    _, whole = await shared.get(f"{CALLS}?limit=3")
    _, some = await shared.get(f"{CALLS}?limit=3&fields=status,id&fields=from")
    assert some == {
        **whole,
        "items": [{key: call[key] for key in call if key in ("status", "id", "from")} for call in whole["items"]],
    }
    assert list(some["items"][0]) == ["id", "status", "from"]  # in the order that they always have
    path = f"{CALLS}/{whole['items'][0]['id']}"
    assert await shared.get(f"{path}?fields=toE164") == (200, {"toE164": whole["items"][0]["toE164"]})
    _, legs = await shared.get(f"{CALLS}?limit=1&fields=legs")
    assert legs["items"] == [{"legs": []}], "asked for by name is asked for"


async def test_a_field_that_there_is_not_is_refused_with_those_there_are(shared: Served) -> None:
    for asked in ("fields=id,from_", "fields=Id", "fields=items", "fields=nextCursor"):
        status, problem = await shared.get(f"{CALLS}?{asked}")
        assert (status, problem["code"], problem["parameter"]) == (400, "bad_parameter", "fields")
        assert {"id", "from", "status"} <= set(problem["allowed"])
        assert "from_" not in problem["allowed"]


async def test_json_is_compressed_for_who_takes_it(shared: Served) -> None:
    url = f"{shared.url}{CALLS}"
    async with shared.client.get(url, headers=PLAIN) as response:
        plain = await response.read()
        assert "Content-Encoding" not in response.headers
        assert response.headers["Vary"] == "Accept-Encoding"
    async with shared.client.get(url, headers=GZIP) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert int(response.headers["Content-Length"]) < len(plain) / 4
        assert await response.read() == plain
    async with shared.client.get(f"{url}?limit=1&fields=id", headers=GZIP) as response:
        assert "Content-Encoding" not in response.headers, "so little is as long when it is compressed"


async def test_other_bytes_have_another_etag_and_are_known_all_the_same(api: Served, pool: Pool) -> None:
    webhook_id = await pool.fetchval(
        "INSERT INTO webhook (account_id, url, secret) SELECT id, $1, 'whsec_a' FROM account RETURNING id",
        "https://192.0.2.1/" + "x" * 1500,
    )
    path = f"/api/v1/webhooks/{webhook_id}"
    tags = {}
    for name, headers in (("gzip", GZIP), ("plain", PLAIN)):
        response, _ = await api.raw(path, headers=headers)
        tags[name] = response.headers["ETag"]
        assert ("Content-Encoding" in response.headers) == (name == "gzip")
    assert tags["gzip"] != tags["plain"]
    for tag in tags.values():
        for headers in (GZIP, PLAIN):
            response, _ = await api.raw(path, headers={"If-None-Match": tag, **headers})
            assert response.status == 304
        response, _ = await api.raw(path, method="PATCH", json={"enabled": True}, headers={"If-Match": tag})
        assert response.status == 200


async def test_what_holds_a_secret_is_not_compressed(api: Served) -> None:
    body = {"name": "n" * 200, "scopes": sorted({route.needs for route in ROUTES if route.needs} - {"admin"})}
    response, raw = await api.raw("/api/v1/api-keys", method="POST", json=body, headers=GZIP)
    assert response.status == 201
    assert msgspec.json.decode(raw)["key"].encode() in raw
    assert "Content-Encoding" not in response.headers
    assert all(
        route.secret for route in ROUTES if "ecret" in str(route.answers[0].type) or route.path == "/api/v1/auth/login"
    )


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP;q=0.5, deflate", True),
        ("deflate, gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0.001", True),
        ("*", True),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("*;q=0, gzip", True),
        ("xgzip", False),
        ("identity", False),
        (";;,,", False),
    ],
)
async def test_who_takes_gzip(header: str, taken: bool) -> None:
    assert takes_gzip(header) is taken


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        ("*", True),
        (" * ", True),
        ('"v.1"', True),
        ('"v.2"', True),
        ('"v"', True),
        ('"x", "v.1"', True),
        ('W/"v.1"', False),
        ('"vv.1"', False),
        ("v.1", False),
        ('"*"', False),
        ("", False),
        ('"', False),
    ],
)
async def test_which_versions_match(header: str, matches: bool) -> None:
    assert is_version(header, "v") is matches


async def test_a_version_is_of_its_parts() -> None:
    versions: list[Any] = [version_of(*parts) for parts in (("a", "b"), ("ab",), ("a", None), ("a", ""), (["a", "b"],))]
    assert len(set(versions)) == len(versions)
    assert version_of("a", None) == version_of("a", None)


async def test_a_character_that_no_text_may_have_is_refused(api: Served) -> None:
    for text, refused in ((rb"a\u0000", True), (rb"\\\u0000", True), (rb"\\u0000", False)):
        body = b'{"email": "a@b", "role": "AGENT", "name": "' + text + b'"}'
        response, _ = await api.raw(
            "/api/v1/users", method="POST", data=body, headers={"Content-Type": "application/json"}
        )
        assert (response.status == 422) is refused
