"""Merges: two rows that prove to be one call are folded together, in whatever order the writes come."""

from typing import Any

import msgspec
import pytest
from calls import START, A, B, answered, count, ended, events, leg, record, ringing, stored

from trunkline.calls.record import CallUpdate, RecordingRef, Role
from trunkline.store.pool import Pool
from trunkline.store.writer import CallWriter


def merging(revision: int = 5, **fields: Any) -> CallUpdate:
    """A takes B in."""
    legs = [leg(A), leg(B), leg(B + "9", party="1002", role=Role.TRANSFER_TARGET)]
    return CallUpdate(record(A, revision, aliases=[B], legs=legs, **fields), ("call.transferred", "call.merged"))


@pytest.mark.asyncio
async def test_a_merge_folds_the_other_row_in(writer: CallWriter, pool: Pool) -> None:
    file = RecordingRef(path="/r/b.wav", channel_id=B, started_at=START)
    await writer.write([ringing(A), ringing(B, recordings=[file], from_="2", from_e164=None)])
    a, b = await stored(pool, A), await stored(pool, B)
    done = "UPDATE call_recording SET state = 'stored', duration_seconds = 7 RETURNING id"
    file_id = await pool.fetchval(done)
    result = await writer.write([merging(recordings=[file])])
    assert result.events == 2
    assert [row["external_id"] for row in await pool.fetch("SELECT external_id FROM call")] == [A]
    got = await stored(pool, A)
    assert (got.id, got.aliases, len(got.legs)) == (a.id, [B], 3)
    assert got.recording_id == str(file_id)
    files = await pool.fetch("SELECT id, call_id::text, state FROM call_recording")
    assert [tuple(row) for row in files] == [(file_id, a.id, "stored")]
    assert await events(pool) == [
        (1, "call.ringing", A),
        (2, "call.ringing", B),
        (3, "call.transferred", A),
        (4, "call.merged", A),
    ]
    data = msgspec.json.decode(await pool.fetchval("SELECT data FROM event WHERE type = 'call.merged'"))
    assert (data["mergedId"], data["mergedExternalId"], data["call"]["id"]) == (b.id, B, a.id)
    assert await pool.fetchval("SELECT count(*) FROM event WHERE call_id::text = $1", b.id) == 1


@pytest.mark.asyncio
async def test_of_a_recording_that_both_calls_know_the_stored_one_is_kept(writer: CallWriter, pool: Pool) -> None:
    file = RecordingRef(path="/r/both.wav", channel_id=B, started_at=START)
    await writer.write([ringing(A, recordings=[file]), ringing(B, recordings=[file])])
    kept = (await stored(pool, B)).recording_id
    await pool.execute("UPDATE call_recording SET state = 'stored' WHERE id::text = $1", kept)
    assert (await writer.write([merging(recordings=[file])])).refused == ()
    rows = await pool.fetch("SELECT id::text, call_id::text, state FROM call_recording")
    assert [tuple(row) for row in rows] == [(kept, (await stored(pool, A)).id, "stored")]
    assert (await stored(pool, A)).recording_id == kept


@pytest.mark.asyncio
async def test_a_recording_that_both_calls_know_is_kept_once(writer: CallWriter, pool: Pool) -> None:
    file = RecordingRef(path="/r/both.wav", channel_id=B, started_at=START)
    await writer.write([ringing(A, recordings=[file]), ringing(B, recordings=[file])])
    kept = (await stored(pool, A)).recording_id
    assert (await writer.write([merging(recordings=[file])])).refused == ()
    rows = await pool.fetch("SELECT id::text, call_id::text FROM call_recording")
    assert [tuple(row) for row in rows] == [(kept, (await stored(pool, A)).id)]


@pytest.mark.asyncio
async def test_a_late_write_of_a_folded_call_stays_folded(writer: CallWriter, pool: Pool) -> None:
    await writer.write([ringing(A), ringing(B)])
    await writer.write([merging()])
    result = await writer.write([answered(B, revision=99), ended(B, revision=100)])
    assert (result.written, result.stale) == (0, 1)
    assert await count(pool, "call") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("order", ["A only", "B only", "neither", "same batch", "B after"])
async def test_a_merge_of_calls_that_are_not_both_there(writer: CallWriter, pool: Pool, order: str) -> None:
    if order in ("A only",):
        await writer.write([ringing(A)])
    if order in ("B only",):
        await writer.write([ringing(B)])
    await writer.write([ringing(B, 9), merging()] if order == "same batch" else [merging()])
    if order == "B after":
        await writer.write([ringing(B, 9)])
    assert [row["external_id"] for row in await pool.fetch("SELECT external_id FROM call")] == [A]
    assert await pool.fetchval("SELECT count(*) FROM call_alias WHERE external_id = $1", B) == 1
    merged = [kind for _, kind, _ in await events(pool)].count("call.merged")
    assert merged == (1 if order == "B only" else 0), "only who was told of the other Call is told that it merged"


@pytest.mark.asyncio
async def test_merges_of_merges_leave_one_call(writer: CallWriter, pool: Pool) -> None:
    c = "pbx1-1767225600.3"
    await writer.write([ringing(A), ringing(B), ringing(c)])
    await writer.write([CallUpdate(record(B, 5, aliases=[c]), ("call.merged",))])
    await writer.write([CallUpdate(record(A, 5, aliases=[B, c]), ("call.merged",))])
    assert await count(pool, "call") == 1
    assert (await stored(pool, A)).aliases == sorted([B, c])
    assert (await writer.write([ended(c, 50), ended(B, 50)])).written == 0


@pytest.mark.asyncio
async def test_two_that_claim_each_other_and_one_that_claims_itself_are_stored(writer: CallWriter, pool: Pool) -> None:
    await writer.write([CallUpdate(record(A, 2, aliases=[B, A])), CallUpdate(record(B, 2, aliases=[A, B]))])
    assert [row["external_id"] for row in await pool.fetch("SELECT external_id FROM call")] == [A]
    assert (await writer.write([ended(A, 5, aliases=[B, A])])).written == 1


@pytest.mark.asyncio
async def test_what_a_human_gave_the_folded_row_is_kept(writer: CallWriter, pool: Pool) -> None:
    await writer.write([ringing(A), ringing(B)])
    lead = await pool.fetchval("INSERT INTO lead (account_id) SELECT id FROM account RETURNING id")
    await pool.execute("UPDATE call SET lead_id = $1, metadata = '{\"note\": 1}' WHERE external_id = $2", lead, B)
    await writer.write([merging()])
    got = await stored(pool, A)
    assert (got.lead_id, got.metadata) == (str(lead), {"note": 1})
