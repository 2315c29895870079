"""Tries to log in are counted once for all who count them: any process of the API, any number at once."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
import pytest_asyncio

from trunkline.store.login_tries import KEPT, Limit, begin_try, forget_tries, of_email, purge_tries, take_back_try
from trunkline.store.pool import Pool, open_pool

pytestmark = pytest.mark.asyncio

THREE = Limit(3, timedelta(minutes=1))


@pytest_asyncio.fixture
async def account_id(pool: Pool) -> UUID:
    return await pool.fetchval("INSERT INTO account (name) VALUES ('main') RETURNING id")


async def later(pool: Pool, seconds: float) -> None:
    """So much time goes by."""
    await pool.execute(
        "UPDATE login_try SET tried_at = tried_at - $1::interval, locked_until = locked_until - $1::interval",
        timedelta(seconds=seconds),
    )


async def test_so_many_tries_and_then_none_for_a_while(pool: Pool, account_id: UUID) -> None:
    assert [await begin_try(pool, account_id, "a", THREE) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert 55 < await begin_try(pool, account_id, "a", THREE) <= 60
    assert await begin_try(pool, account_id, "b", THREE) == 0.0
    await later(pool, 50)
    assert 5 < await begin_try(pool, account_id, "a", THREE) <= 10
    await later(pool, 11)
    assert [await begin_try(pool, account_id, "a", THREE) > 0 for _ in range(4)] == [False, False, False, True]


async def test_several_processes_count_as_one(pool: Pool, database_url: str, account_id: UUID) -> None:
    async with (
        await open_pool(database_url, reading=True, account="main") as one,
        await open_pool(database_url, reading=True, account="main") as other,
    ):
        waits = await asyncio.gather(*(begin_try(which, account_id, "a", THREE) for which in (one, other) * 10))
    assert sum(wait == 0.0 for wait in waits) == 3


async def test_one_that_went_well_takes_one_back(pool: Pool, account_id: UUID) -> None:
    for _ in range(5):
        assert await begin_try(pool, account_id, "a", THREE) == 0.0
        await take_back_try(pool, account_id, "a")
    assert [await begin_try(pool, account_id, "a", THREE) > 0 for _ in range(4)] == [False, False, False, True]
    await forget_tries(pool, account_id, "a")
    assert await begin_try(pool, account_id, "a", THREE) == 0.0


async def test_tries_are_forgotten_only_where_that_is_said(pool: Pool, account_id: UUID) -> None:
    forgets = THREE._replace(most=2, forget=timedelta(seconds=60))
    remembers = THREE._replace(most=2)
    for subject, limit in (("a", forgets), ("b", remembers)):
        assert await begin_try(pool, account_id, subject, limit) == 0.0
    await later(pool, 61)
    for subject, limit in (("a", forgets), ("b", remembers)):
        assert await begin_try(pool, account_id, subject, limit) == 0.0
    assert await begin_try(pool, account_id, "a", forgets) == 0.0
    assert await begin_try(pool, account_id, "b", remembers) > 0


async def test_what_nobody_adds_to_goes_and_no_email_is_kept(pool: Pool, account_id: UUID) -> None:
    for subject in (of_email("ada@example.com"), "old"):
        await begin_try(pool, account_id, subject, THREE)
    await pool.execute(
        "UPDATE login_try SET tried_at = now() - $1::interval - interval '1 s' WHERE subject = 'old'", KEPT
    )
    await purge_tries(pool, "main")
    (left,) = await pool.fetch("SELECT subject FROM login_try")
    assert left["subject"].startswith("nobody:")
    assert "ada" not in left["subject"]
