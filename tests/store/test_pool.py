"""The writer's connections: kept through quiet hours, replaced when they are dead."""

import asyncio

import pytest

from trunkline.store.pool import Pool

PID = "SELECT pg_backend_pid()"


@pytest.mark.asyncio
async def test_a_connection_outlives_a_quiet_hour(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await pool.fetchval(PID)
    loop = asyncio.get_running_loop()
    told = loop.time
    monkeypatch.setattr(loop, "time", lambda: told() + 3600)
    due = asyncio.Event()
    loop.call_later(0, due.set)  # behind whatever has become due in that hour
    await due.wait()
    assert await pool.fetchval(PID) == before
    assert await pool.fetchval("SHOW tcp_keepalives_idle") == "60"


@pytest.mark.asyncio
async def test_a_connection_that_died_while_idle_is_replaced(pool: Pool) -> None:
    async with pool.acquire() as one, pool.acquire() as other:
        idle, killer = await one.fetchval(PID), await other.fetchval(PID)
        assert idle != killer
    async with asyncio.timeout(10):
        async with pool.acquire() as last:
            kept = await last.fetchval(PID)
            dead = idle if kept == killer else killer
            assert await last.fetchval("SELECT pg_terminate_backend($1)", dead)
            while pool.get_idle_size():  # noqa: ASYNC110  # the pool tells nobody
                await asyncio.sleep(0.005)
        async with pool.acquire() as one, pool.acquire() as other:
            assert {await one.fetchval(PID), await other.fetchval(PID)}.isdisjoint({dead})
