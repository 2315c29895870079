"""The writer: whatever comes twice, late, torn or hostile, the rows are right and each event is there once."""

import asyncio
import json
import random
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from calls import START, A, B, answered, count, ended, events, leg, record, ringing, stored

from trunkline.calls.record import (
    CallRecord,
    CallUpdate,
    EndedBy,
    EndReason,
    Hold,
    Leg,
    LegEnd,
    Parking,
    PausedSpan,
    Quality,
    QueueOutcome,
    QueueVisit,
    RecordingKind,
    RecordingRef,
    Role,
    Status,
    Transfer,
    TransferKind,
)
from trunkline.crm.matching import select_leads_by_number
from trunkline.inbox.telephony import upsert_conversations
from trunkline.store.change import Change, Happening
from trunkline.store.live import select_live_calls
from trunkline.store.pool import Pool, open_pool
from trunkline.store.writer import BATCH, CallWriter

# --- once, twice, late -----------------------------------------------------------------------------------------------


def everything() -> CallRecord:
    """A Call in which every field says something."""
    later = START + timedelta(seconds=30)
    return record(
        revision=12,
        aliases=[B],
        status=Status.FAILED,
        from_private=False,
        caller_name='Jane "J" O\'Neil \\ 日本',
        answered_at=START + timedelta(seconds=5, microseconds=123456),
        ended_at=later,
        duration=30,
        wait_seconds=5,
        talk_seconds=20,
        hold_seconds=5,
        end_reason=EndReason.CONGESTION,
        ended_by=EndedBy.CALLER,
        answered_by="1001",
        last_party="1002",
        rang=["1001", "1002", 'odd "},{\\ one'],
        queue="support",
        queue_wait_seconds=3,
        queue_position=1,
        transfers=[Transfer(kind=TransferKind.BLIND, by="1001", to="1002", at=later, result="ANSWERED")],
        holds=[Hold(by="1001", started_at=START, ended_at=later)],
        parked=[Parking(by="1001", space="701", at=START, retrieved_by="1002")],
        conference="5000",
        participants=["1001", "1002"],
        digits="12#",
        diverted_from="442070001009",
        forwarded_from="1003",
        queue_visits=[
            QueueVisit(queue="support", joined_at=START, left_at=later, outcome=QueueOutcome.ABANDONED, position=2),
            QueueVisit(queue="sales", joined_at=later),
        ],
        recordings=[
            RecordingRef(
                path="/r/a.wav",
                channel_id=A,
                started_at=START,
                kind=RecordingKind.VOICEMAIL,
                paused_spans=[PausedSpan(started_at=START, ended_at=later), PausedSpan(started_at=later)],
            )
        ],
        legs=[
            leg(A, answered_at=START, ended_at=later, hangup_cause=16, end_reason=LegEnd.HANGUP),
            leg(A + "1", endpoint="PJSIP/1001", party=None, role=Role.TRANSFER_TARGET, dial_status="NOANSWER"),
        ],
        quality=Quality.ESTIMATED,
        metadata={"vip": True, "nested": {"x": [1, 2.5, None]}},
    )


@pytest.mark.asyncio
async def test_every_field_comes_back_as_it_was(writer: CallWriter, pool: Pool) -> None:
    sent = everything()
    result = await writer.write([CallUpdate(sent, ("call.ringing", "call.answered", "call.ended"))])
    assert (result.written, result.events, result.refused) == (1, 3, ())
    got = await stored(pool)
    of_the_store = ("id", "account_id", "integration_id", "lead_id", "conversation_id", "recording_id", "created_at")
    assert msgspec.structs.replace(got, **dict.fromkeys(of_the_store)) == sent
    assert got.recording_id == str(await pool.fetchval("SELECT id FROM call_recording"))
    assert None not in [getattr(got, name) for name in of_the_store if name != "lead_id"]


@pytest.mark.asyncio
async def test_a_batch_written_twice_changes_nothing_the_second_time(writer: CallWriter, pool: Pool) -> None:
    batch = [ringing(A), CallUpdate(everything(), ("call.answered",)), ringing(B + "1"), ended(B + "2")]
    await writer.write(batch)
    before = [await pool.fetch(f"SELECT *, xmin FROM {t} ORDER BY 1, 2") for t in ("call", "call_leg", "event")]
    result = await writer.write(batch)
    assert (result.written, result.events, result.stale) == (0, 0, 3)
    assert [await pool.fetch(f"SELECT *, xmin FROM {t} ORDER BY 1, 2") for t in ("call", "call_leg", "event")] == before


@pytest.mark.asyncio
async def test_a_late_write_never_overwrites_a_newer_state(writer: CallWriter, pool: Pool) -> None:
    await writer.write([ended()])
    result = await writer.write([ringing(), answered()])
    assert (result.written, result.stale) == (0, 1)
    assert (await stored(pool)).status is Status.COMPLETED
    assert await events(pool) == [(1, "call.ended", A)]


@pytest.mark.asyncio
async def test_any_order_of_any_batches_ends_in_the_newest_state(writer: CallWriter, pool: Pool) -> None:
    chance = random.Random(7)
    names = [f"pbx1-1767225600.{n}" for n in range(20)]
    updates = [make(name) for name in names for make in (ringing, answered, ended)] * 2
    chance.shuffle(updates)
    while updates:
        size = chance.randint(1, 15)
        await writer.write(updates[:size])
        del updates[:size]
    rows = await pool.fetch("SELECT external_id, revision, status FROM call")
    assert sorted(tuple(row) for row in rows) == sorted((name, 3, "completed") for name in names)
    told = [(kind, call) for _, kind, call in await events(pool)]
    assert len(told) == len(set(told))
    assert {call for kind, call in told if kind == "call.ended"} == set(names)


@pytest.mark.asyncio
async def test_updates_of_one_call_in_one_batch_are_one_row_and_all_their_events(
    writer: CallWriter, pool: Pool
) -> None:
    result = await writer.write([ringing(), answered(), ended()])
    assert (result.written, result.events) == (1, 3)
    assert await events(pool) == [(1, "call.ringing", A), (2, "call.answered", A), (3, "call.ended", A)]
    assert (await stored(pool)).revision == 3


@pytest.mark.asyncio
async def test_who_rings_no_more_is_told_with_the_reason(writer: CallWriter, pool: Pool) -> None:
    def phone(number: str, channel: str, **fields: object) -> Leg:
        return leg(channel, endpoint=f"PJSIP/{number}", party=number, role=Role.AGENT, **fields)

    over = {"ended_at": START + timedelta(seconds=9)}
    legs = [
        leg(A),
        phone("1001", A + "1", end_reason=LegEnd.RING_TIMEOUT, **over),
        phone("1002", A + "2", end_reason=LegEnd.DECLINED, **over),
        phone("1002", A + "3"),  # it is offered the call once more
        phone("1003", A + "4", answered_at=START, end_reason=LegEnd.HANGUP, **over),
        phone("1004", A + "5", end_reason=LegEnd.UNAVAILABLE, **over),  # it never rang
    ]
    update = ringing(legs=legs, rang=["1001", "1002", "1003"])
    await writer.write([CallUpdate(update.record, ("call.ringing",))])
    later = msgspec.structs.replace(update.record, revision=2)
    await writer.write([CallUpdate(later, ("call.queued", "call.ring_cleared"))])
    rows = await pool.fetch("SELECT type, data FROM event WHERE type LIKE 'call.%' ORDER BY seq")
    told = [(row["type"], msgspec.json.decode(row["data"])) for row in rows]
    assert [kind for kind, _ in told] == ["call.ringing", "call.queued", "call.ring_cleared"]
    assert "cleared" not in told[0][1]
    assert told[2][1]["call"]["ringing"] == ["1002"]
    assert told[2][1]["cleared"] == [
        {"extension": "1001", "reason": "RING_TIMEOUT"},
        {"extension": "1003", "reason": "ANSWERED"},
    ]


@pytest.mark.asyncio
async def test_happenings_that_are_stored_already_make_no_second_event(writer: CallWriter, pool: Pool) -> None:
    """A commit whose answer was lost, then the same happening again with more: what a retry looks like."""
    await writer.write([ringing()])
    both = Change(answered().record, (Happening(1, "call.ringing"), Happening(2, "call.answered")))
    await writer.write_changes([both])
    assert await events(pool) == [(1, "call.ringing", A), (2, "call.answered", A)]


@pytest.mark.asyncio
async def test_legs_are_those_of_the_revision(writer: CallWriter, pool: Pool) -> None:
    await writer.write([answered()])
    await writer.write([CallUpdate(record(revision=5, legs=[leg(A + "5"), leg(A, hangup_cause=16)]))])
    assert [(leg.channel_id, leg.hangup_cause) for leg in (await stored(pool)).legs] == [(A + "5", None), (A, 16)]


@pytest.mark.asyncio
async def test_a_leg_that_comes_twice_in_a_record_is_one_row(writer: CallWriter, pool: Pool) -> None:
    result = await writer.write([CallUpdate(record(legs=[leg(A, party="old"), leg(A, party="new")]))])
    assert result.refused == ()
    assert [leg.party for leg in (await stored(pool)).legs] == ["new"]


@pytest.mark.asyncio
async def test_recordings_are_rows_once_and_learn_their_end(writer: CallWriter, pool: Pool) -> None:
    first = RecordingRef(path="/spool/a.wav", channel_id=A, started_at=START)
    over = msgspec.structs.replace(first, ended_at=START + timedelta(seconds=60))
    second = RecordingRef(path="/spool/b.wav", channel_id=B, started_at=START + timedelta(seconds=9))
    await writer.write([CallUpdate(record(revision=1, recordings=[first]))])
    await writer.write([CallUpdate(record(revision=2, recordings=[over, second]))])
    await writer.write([CallUpdate(record(revision=3, recordings=[first, second]))])
    rows = await pool.fetch("SELECT path, channel_id, state, kind, ended_at, id FROM call_recording ORDER BY path")
    assert [tuple(row)[:5] for row in rows] == [
        ("/spool/a.wav", A, "pending", "call", over.ended_at),
        ("/spool/b.wav", B, "pending", "call", None),
    ]
    assert (await stored(pool)).recording_id == str(rows[0]["id"])


@pytest.mark.asyncio
async def test_a_recordings_row_has_its_paused_spans(writer: CallWriter, pool: Pool) -> None:
    def at(seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    async def spans_once(revision: int, **fields: Any) -> list[dict[str, str | None]]:
        file = RecordingRef(path="/spool/a.wav", channel_id=A, started_at=START, **fields)
        await writer.write([CallUpdate(record(revision=revision, recordings=[file]))])
        assert (await stored(pool)).recordings == [file]
        return json.loads(await pool.fetchval("SELECT paused_spans FROM call_recording"))

    paused, resumed = PausedSpan(started_at=at(1.5)), PausedSpan(started_at=at(1.5), ended_at=at(4))
    first = {"startedAt": "2026-03-04T09:30:01.500000Z", "endedAt": "2026-03-04T09:30:04Z"}
    assert await spans_once(1) == []
    assert await spans_once(2, paused_spans=[paused]) == [{**first, "endedAt": None}]
    assert await spans_once(3, paused_spans=[resumed]) == [first]
    assert await spans_once(4, paused_spans=[resumed], ended_at=at(9)) == [first]
    assert await pool.fetchval("SELECT ended_at FROM call_recording") == at(9)
    before = await pool.fetchval("SELECT xmin FROM call_recording")
    assert await spans_once(5, paused_spans=[resumed], ended_at=at(9)) == [first]
    assert await pool.fetchval("SELECT xmin FROM call_recording") == before, "what says nothing new is no update"


@pytest.mark.asyncio
async def test_recordings_from_before_pauses_were_known_are_read(writer: CallWriter, pool: Pool) -> None:
    file = RecordingRef(path="/spool/a.wav", channel_id=A, started_at=START)
    await writer.write([CallUpdate(record(recordings=[file]))])
    await pool.execute("UPDATE call SET recordings = jsonb_build_array((recordings->0) - 'pausedSpans')")
    assert (await stored(pool)).recordings == [file]


@pytest.mark.asyncio
async def test_an_update_without_a_happening_is_a_row_without_an_event(writer: CallWriter, pool: Pool) -> None:
    result = await writer.write([CallUpdate(record())])
    assert (result.written, result.events) == (1, 0)
    assert await events(pool) == []


@pytest.mark.asyncio
async def test_nothing_to_write_is_nothing(writer: CallWriter) -> None:
    assert (await writer.write([])).written == 0


@pytest.mark.asyncio
async def test_more_than_a_transaction_takes(writer: CallWriter, pool: Pool) -> None:
    result = await writer.write([ringing(f"pbx1-1.{n}") for n in range(2 * BATCH + 1)])
    assert result.written == 2 * BATCH + 1
    assert [call for _, _, call in await events(pool)] == [f"pbx1-1.{n}" for n in range(2 * BATCH + 1)]


# --- whose PBX -------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_call_of_an_unknown_pbx_is_stored_with_its_integration(writer: CallWriter, pool: Pool) -> None:
    await writer.write([ringing(pbx="never seen"), ringing(pbx=""), ringing(pbx="pbx1")])
    rows = await pool.fetch(
        """
        SELECT integration.external_id, integration.channel, integration.integration_id, account.name
        FROM call JOIN integration ON integration.id = call.integration_id JOIN account ON account.id = call.account_id
        ORDER BY 1
        """
    )
    assert [tuple(row) for row in rows] == [
        ("", "telephony", "asterisk", "main"),
        ("never seen", "telephony", "asterisk", "main"),
        ("pbx1", "telephony", "asterisk", "main"),
    ]


@pytest.mark.asyncio
async def test_an_integration_that_is_deleted_is_made_again(writer: CallWriter, pool: Pool) -> None:
    await writer.write([ringing()])
    await pool.execute("DELETE FROM call")
    await pool.execute("DELETE FROM account")
    await writer.write([answered()])
    assert (await stored(pool)).status is Status.IN_PROGRESS


@pytest.mark.asyncio
async def test_accounts_do_not_see_each_other(writer: CallWriter, pool: Pool) -> None:
    other = CallWriter(pool, "other", leads=select_leads_by_number, conversations=upsert_conversations)
    await writer.write([ringing()])
    await other.write([ringing()])
    assert await count(pool, "call") == 2
    assert await count(pool, "conversation") == 2
    assert await pool.fetchval("SELECT count(*) FROM event WHERE seq = 1") == 2
    assert [r.account_id for r in await select_live_calls(pool, "other", "pbx1")] != [
        r.account_id for r in await select_live_calls(pool, "main", "pbx1")
    ]


# --- bad text --------------------------------------------------------------------------------------------------------

NASTY = "a\x00b\ud800c\U0001f600\ud83d\ude00\x01\x7f\\u0000"
CLEAN = "a\ufffdb\ufffdc\U0001f600\U0001f600\x01\x7f\\u0000"


@pytest.mark.asyncio
async def test_nul_and_broken_surrogates_become_replacement_characters_everywhere(
    writer: CallWriter, pool: Pool
) -> None:
    update = CallUpdate(
        record(
            NASTY,
            pbx=NASTY,
            from_=NASTY + "1",
            from_e164=None,
            to=NASTY,
            phone_number=NASTY,
            caller_name=NASTY,
            queue=NASTY,
            rang=[NASTY],
            transfers=[Transfer(kind=TransferKind.BLIND, by=NASTY, to=NASTY, at=START)],
            recordings=[RecordingRef(path=NASTY, channel_id=NASTY, started_at=START)],
            legs=[leg(NASTY, party=NASTY)],
            metadata={NASTY: [NASTY]},
            aliases=[NASTY + "2"],
        ),
        ("call.ringing",),
    )
    result = await writer.write([update])
    assert (result.written, result.events, result.refused) == (1, 1, ())
    got = await stored(pool, CLEAN)
    assert (got.pbx, got.from_, got.caller_name, got.queue, got.rang) == (CLEAN, CLEAN + "1", CLEAN, CLEAN, [CLEAN])
    assert (got.legs[0].party, got.metadata, got.aliases) == (CLEAN, {CLEAN: [CLEAN]}, [CLEAN + "2"])
    assert got.transfers[0].by == CLEAN
    assert await pool.fetchval("SELECT path FROM call_recording") == CLEAN
    assert await pool.fetchval("SELECT contact FROM conversation") == CLEAN + "1"
    assert (await writer.write([update])).stale == 1


@pytest.mark.asyncio
async def test_huge_text_is_kept_and_cut_only_where_an_index_must_end(writer: CallWriter, pool: Pool) -> None:
    # Four bytes each, and not to be compressed: the worst that an index row can be given.
    chance = random.Random(1)
    huge = "".join(chr(chance.randint(0x10000, 0x1FFFF)) for _ in range(5_000))
    fields: dict[str, Any] = dict.fromkeys(("from_", "to", "phone_number", "caller_name", "pbx", "queue"), huge)
    update = CallUpdate(
        record(
            huge,
            **fields,
            from_e164=None,
            legs=[leg(huge, party=huge), leg(huge[:300], party="2")],
            recordings=[RecordingRef(path=huge, channel_id=huge, started_at=START)],
            aliases=[huge[::-1]],
        )
    )
    result = await writer.write([update])
    assert (result.written, result.refused) == (1, ())
    got = await stored(pool, huge[:255])
    assert (got.caller_name, got.queue, got.legs[0].party) == (huge, huge, "2")
    assert (got.from_, got.pbx, got.aliases) == (huge[:255], huge[:255], [huge[::-1][:255]])
    assert (await writer.write([update])).stale == 1


# --- what can't be stored --------------------------------------------------------------------------------------------


def poisoned(external_id: str) -> list[CallUpdate]:
    """Records that PostgreSQL or the encoder refuses, each for another reason."""
    return [
        ringing(external_id + "a", revision=2**40),
        ringing(external_id + "b", duration=2**31),
        ringing(external_id + "c", started_at=None),
        ringing(external_id + "d", metadata={"x": object()}),
        ringing(external_id + "e", direction="SIDEWAYS"),
        ringing(external_id + "g", direction="SIDE\x00WAYS"),
        ringing(external_id + "f", legs=[leg("x", role="GHOST")]),
    ]


@pytest.mark.asyncio
async def test_poisoned_records_lose_nobody_else(writer: CallWriter, pool: Pool) -> None:
    good = [ringing(f"pbx1-2.{n}") for n in range(60)]
    bad = poisoned("pbx1-3.")
    batch = good + bad
    random.Random(3).shuffle(batch)
    result = await writer.write(batch)
    assert (result.written, result.events) == (60, 60)
    assert sorted(r.change.record.external_id for r in result.refused) == sorted(u.record.external_id for u in bad)
    assert all(refused.reason for refused in result.refused)
    assert await count(pool, "call") == 60
    assert [seq for seq, _, _ in await events(pool)] == list(range(1, 61))


# --- two writers -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_two_writers_of_one_pbx_make_no_duplicates(pool: Pool) -> None:
    names = [f"pbx1-4.{n}" for n in range(40)]
    callers = [f"+1555000000{n % 10}" for n in range(40)]

    async def write_all(seed: int) -> None:
        chance = random.Random(seed)
        writer = CallWriter(pool, "main", leads=select_leads_by_number, conversations=upsert_conversations)
        updates = [
            make(name, from_=caller, from_e164=caller)
            for name, caller in zip(names, callers, strict=True)
            for make in (ringing, answered, ended)
        ]
        chance.shuffle(updates)
        while updates:
            result = await writer.write([updates.pop() for _ in range(min(len(updates), chance.randint(1, 12)))])
            assert result.refused == ()

    await asyncio.gather(*(write_all(seed) for seed in range(4)))
    rows = await pool.fetch("SELECT external_id, revision FROM call")
    assert sorted(tuple(row) for row in rows) == sorted((name, 3) for name in names)
    assert await count(pool, "integration") == 1
    assert await count(pool, "conversation") == 10
    told = await events(pool)
    assert [seq for seq, _, _ in told] == list(range(1, len(told) + 1))
    ends = [call for _, kind, call in told if kind == "call.ended"]
    assert sorted(ends) == sorted(names), "each end is told once"


# --- adoption --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_live_calls_come_back_whole(writer: CallWriter, pool: Pool) -> None:
    await writer.write([answered(A, aliases=["old.1"]), ended(B), ringing("c", pbx="pbx2")])
    (got,) = await select_live_calls(pool, "main", "pbx1")
    assert (got.external_id, got.aliases, got.revision, [x.party for x in got.legs]) == (
        A,
        ["old.1"],
        2,
        ["15551234567", "1001"],
    )
    assert await select_live_calls(pool, "main", "nobody") == []


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_plans_made_on_small_tables_read_no_more_when_they_are_big(database_url: str) -> None:
    async with await open_pool(database_url, max_size=1) as pool:  # plans belong to a connection

        async def rows_read() -> int:
            await pool.execute("SELECT pg_stat_force_next_flush()")
            return await pool.fetchval("SELECT sum(idx_tup_read + idx_tup_fetch)::int8 FROM pg_stat_user_indexes")

        writer = CallWriter(pool, "main", leads=select_leads_by_number, conversations=upsert_conversations)
        await pool.execute("VACUUM ANALYZE")
        for n in range(8):  # PostgreSQL settles for a plan after five
            await writer.write([ringing(f"small.{n}.{i}") for i in range(3)])
            await writer.write([CallUpdate(record(f"small.{n}.0", 5, aliases=[f"small.{n}.1"]), ("call.merged",))])
        await writer.write([answered(f"big.{n}") for n in range(2000)])
        before = await rows_read()
        await writer.write([ringing("one more"), ended("big.7")])
        await writer.write([CallUpdate(record("big.8", 5, aliases=["big.9"]), ("call.merged",))])
        assert await rows_read() - before < 200
