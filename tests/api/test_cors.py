"""Pages of other origins: those of the settings may ask and read, no others."""

import pytest
from served import Serve

from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

CRM = "https://crm.example.com"
KEY = "a-key-of-the-test"
PREFLIGHT = {"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "x-api-key"}


@pytest.mark.parametrize("origin", [CRM, "https://evil.example.com", "null", "https://crm.example.com:444"])
async def test_a_known_origin_is_shared_with_and_no_other(serve: Serve, shared_pool: Pool, origin: str) -> None:
    api = await serve(shared_pool, keys=[KEY], origins=[CRM])
    for path, expected in (("/api/v1/calls", 200), ("/api/v1/calls/none", 404)):
        response, _ = await api.raw(path, headers={"Origin": origin, "X-API-Key": KEY})
        assert response.status == expected
        assert response.headers.get("Access-Control-Allow-Origin") == (CRM if origin == CRM else None)
        assert "Origin" in response.headers.getall("Vary")
        assert "Access-Control-Allow-Credentials" not in response.headers
    response, body = await api.raw("/api/v1/calls", method="OPTIONS", headers={"Origin": origin, **PREFLIGHT})
    assert (response.status, body) == (204, b"")  # before it asks a browser has no key to send
    assert ("DELETE" in response.headers.get("Access-Control-Allow-Methods", "")) is (origin == CRM)


async def test_a_page_without_a_key_learns_only_that_it_needs_one(serve: Serve, shared_pool: Pool) -> None:
    api = await serve(shared_pool, keys=[KEY], origins=[CRM])
    response, body = await api.raw("/api/v1/calls", headers={"Origin": CRM})
    assert (response.status, b"key_missing" in body) == (401, True)
    assert response.headers["Access-Control-Allow-Origin"] == CRM


async def test_without_origins_nothing_is_shared(serve: Serve, shared_pool: Pool) -> None:
    api = await serve(shared_pool)
    response, _ = await api.raw("/api/v1/calls", headers={"Origin": CRM})
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" not in response.headers.getall("Vary", [])
    response, _ = await api.raw("/api/v1/calls", method="OPTIONS", headers={"Origin": CRM})
    assert response.status == 405
