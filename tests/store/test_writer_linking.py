"""Whom a call is with: the lead it is matched to, and the conversation it belongs to, in the writer's transaction."""

from datetime import timedelta
from typing import Any

import pytest
from calls import START, A, B, answered, count, ended, ringing, stored

from trunkline.calls.record import Direction
from trunkline.store.pool import Pool
from trunkline.store.writer import CallWriter


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
