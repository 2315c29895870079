"""The writer: whatever comes twice, late, torn or hostile, the rows are right and each event is there once."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from calls import START, A, answered, ended, leg, record, ringing, stored

from trunkline.calls.record import (
    CallRecord,
    CallUpdate,
    Direction,
    EndedBy,
    EndReason,
    Hold,
    LegEnd,
    Parking,
    Quality,
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

B = "pbx1-1767225600.7"


async def events(pool: Pool) -> list[tuple[int, str, str]]:
    """(seq, type, externalId) of all events, in order."""
    rows = await pool.fetch("SELECT seq, type, data->'call'->>'externalId' AS call FROM event ORDER BY seq")
    return [tuple(row) for row in rows]


async def count(pool: Pool, table: str) -> int:
    return await pool.fetchval(f"SELECT count(*) FROM {table}")


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
        recordings=[RecordingRef(path="/r/a.wav", channel_id=A, started_at=START, kind=RecordingKind.VOICEMAIL)],
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


# --- merges ----------------------------------------------------------------------------------------------------------


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
    data = msgspec.json.decode(await pool.fetchval("SELECT data FROM event WHERE seq = 4"))
    assert (data["mergedId"], data["mergedExternalId"], data["call"]["id"]) == (b.id, B, a.id)
    assert await pool.fetchval("SELECT count(*) FROM event WHERE call_id::text = $1", b.id) == 1


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


# --- whom it is with -------------------------------------------------------------------------------------------------


async def add_lead(pool: Pool, number: str | None, age_days: int = 0, account: str = "main") -> str:
    await pool.execute("INSERT INTO account (name) VALUES ($1) ON CONFLICT DO NOTHING", account)
    return await pool.fetchval(
        """
        INSERT INTO lead (account_id, phone_e164, created_at)
        SELECT id, $1, now() - $2 * interval '1 day' FROM account WHERE name = $3 RETURNING id::text
        """,
        number,
        age_days,
        account,
    )


@pytest.mark.asyncio
async def test_the_customers_side_is_matched(writer: CallWriter, pool: Pool) -> None:
    lead = await add_lead(pool, "+15551234567")
    mine = await add_lead(pool, "+442070001001")
    await add_lead(pool, "+15551234567", age_days=9, account="other")
    await writer.write(
        [
            ringing(A),
            ringing(B, direction=Direction.OUTBOUND),
            ringing("c", direction=Direction.INTERNAL),
            ringing("d", from_="15551234568", from_e164="+15551234568"),
        ]
    )
    assert [(await stored(pool, x)).lead_id for x in (A, B, "c", "d")] == [lead, mine, None, None]


@pytest.mark.asyncio
async def test_of_several_leads_the_oldest_is_the_match(writer: CallWriter, pool: Pool) -> None:
    await add_lead(pool, "+15551234567", age_days=1)
    oldest = await add_lead(pool, "+15551234567", age_days=3)
    await add_lead(pool, "+15551234567", age_days=2)
    await writer.write([ringing(A), ringing(B)])
    assert {(await stored(pool, x)).lead_id for x in (A, B)} == {oldest}


@pytest.mark.asyncio
async def test_what_a_human_sets_or_clears_stays(writer: CallWriter, pool: Pool) -> None:
    matched = await add_lead(pool, "+15551234567")
    chosen = await add_lead(pool, None)
    await writer.write([ringing(A), ringing(B)])
    assert (await stored(pool, A)).lead_id == matched
    await pool.execute(
        "UPDATE call SET lead_id = $1::text::uuid, conversation_id = NULL WHERE external_id = $2", chosen, A
    )
    await pool.execute("UPDATE call SET lead_id = NULL WHERE external_id = $1", B)
    await writer.write([answered(A), answered(B)])
    assert [(await stored(pool, x)).lead_id for x in (A, B)] == [chosen, None]
    assert (await stored(pool, A)).conversation_id is None


@pytest.mark.asyncio
async def test_a_lead_chosen_before_the_number_is_known_stays(writer: CallWriter, pool: Pool) -> None:
    await add_lead(pool, "+442070001001")
    chosen = await add_lead(pool, None)
    await writer.write([ringing(direction=Direction.INTERNAL)])
    await pool.execute("UPDATE call SET lead_id = $1::text::uuid", chosen)
    await writer.write([answered(direction=Direction.OUTBOUND)])
    assert (await stored(pool)).lead_id == chosen


@pytest.mark.asyncio
async def test_a_number_that_comes_to_be_known_later_is_matched_then(writer: CallWriter, pool: Pool) -> None:
    lead = await add_lead(pool, "+442070001001")
    await writer.write([ringing(direction=Direction.INTERNAL)])
    assert (await stored(pool)).lead_id is None
    await writer.write([answered(direction=Direction.OUTBOUND)])
    got = await stored(pool)
    assert got.lead_id == lead
    assert got.conversation_id is not None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "fields",
    [
        {"from_": "anonymous", "from_e164": None, "from_private": True},
        {"from_": "15551234567", "from_private": True},
        {"from_": "", "from_e164": None},
        {"from_": "<unknown>", "from_e164": None},
        {"direction": Direction.INTERNAL},
        {"direction": Direction.OUTBOUND, "to": "", "to_e164": None},
    ],
)
async def test_anonymous_and_internal_calls_get_no_conversation(
    writer: CallWriter, pool: Pool, fields: dict[str, Any]
) -> None:
    await add_lead(pool, "+15551234567")
    await writer.write([ringing(**fields)])
    got = await stored(pool)
    assert (got.conversation_id, got.lead_id) == (None, None)
    assert await count(pool, "conversation") == 0


@pytest.mark.asyncio
async def test_a_customer_has_one_open_conversation(writer: CallWriter, pool: Pool) -> None:
    lead = await add_lead(pool, "+15551234567")
    await writer.write([ringing(A), ringing(B, started_at=START + timedelta(hours=1))])
    await writer.write([ringing("c", from_="+1 555 123 4567")])
    await writer.write(
        [ringing("out", direction=Direction.OUTBOUND, from_="1001", to="15551234567", to_e164="+15551234567")]
    )
    rows = await pool.fetch(
        "SELECT id::text, contact, contact_name, lead_id::text, last_at, status, channel FROM conversation"
    )
    assert [tuple(row)[1:] for row in rows] == [
        ("+15551234567", "Jane", lead, START + timedelta(hours=1), "open", "telephony")
    ]
    assert {(await stored(pool, x)).conversation_id for x in (A, B, "c", "out")} == {rows[0]["id"]}


@pytest.mark.asyncio
async def test_a_number_without_e164_has_a_conversation_by_itself(writer: CallWriter, pool: Pool) -> None:
    await writer.write([ringing(A, from_="0815-4711x", from_e164=None), ringing(B, from_="0815-4711x", from_e164=None)])
    assert await pool.fetchval("SELECT contact FROM conversation") == "0815-4711x"
    assert await count(pool, "conversation") == 1


@pytest.mark.asyncio
async def test_a_closed_conversation_stays_closed_and_the_next_call_opens_one(writer: CallWriter, pool: Pool) -> None:
    await writer.write([ringing(A)])
    await pool.execute("UPDATE conversation SET status = 'closed', closed_at = now()")
    await writer.write([answered(A), ended(A)])
    assert await count(pool, "conversation") == 1, "a call that was closed with its conversation opens none"
    await writer.write([ringing(B)])
    rows = await pool.fetch("SELECT status FROM conversation ORDER BY created_at")
    assert [row["status"] for row in rows] == ["closed", "open"]
    assert (await stored(pool, A)).conversation_id != (await stored(pool, B)).conversation_id


@pytest.mark.asyncio
async def test_a_writer_without_rooms_to_ask_links_nothing(pool: Pool) -> None:
    await add_lead(pool, "+15551234567")
    await CallWriter(pool, "main").write([ringing()])
    got = await stored(pool)
    assert (got.lead_id, got.conversation_id) == (None, None)


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
