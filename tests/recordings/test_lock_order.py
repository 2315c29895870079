"""A recording that is stored while its call is written late: both have the call first, so neither waits in a circle."""

import asyncio

import pytest

from trunkline.store.pool import Pool
from trunkline.store.recordings import Stored, set_stored

pytestmark = pytest.mark.asyncio

_WAITS = "SELECT count(*) FROM pg_locks JOIN pg_database ON oid = database OR database IS NULL WHERE NOT granted"


async def test_a_late_change_of_an_ended_call_and_its_recording_do_not_deadlock(pool: Pool) -> None:
    account_id = await pool.fetchval("INSERT INTO account (name) VALUES ('locks') RETURNING id")
    call_id = await pool.fetchval(
        """INSERT INTO call (account_id, pbx, external_id, direction, status, from_number, to_number, phone_number,
               started_at, ended_at) VALUES ($1, 'p', 'p-1', 'inbound', 'completed', '1', '2', '1', now(), now())
           RETURNING id""",
        account_id,
    )
    recording_id = await pool.fetchval(
        "INSERT INTO call_recording (account_id, call_id, path) VALUES ($1, $2, '/a.wav') RETURNING id",
        account_id,
        call_id,
    )
    stored = Stored(name="a.wav", bucket="b", key="k", mime_type="audio/wav", size=1, sha256="0" * 64, seconds=1.0)
    async with asyncio.timeout(20), pool.acquire() as writer, writer.transaction():
        await writer.execute("UPDATE call SET revision = revision + 1 WHERE id = $1", call_id)
        storing = asyncio.create_task(set_stored(pool, [(recording_id, stored)]))
        while not await pool.fetchval(_WAITS):
            pass
        await writer.execute("UPDATE call_recording SET duration_seconds = 1 WHERE id = $1", recording_id)
    assert await storing == [True]
    assert await pool.fetchval("SELECT state FROM call_recording WHERE id = $1", recording_id) == "stored"
