"""The table of commands: once for each key, within limits, in time by the database's clock, ended by who took it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from trunkline.store.audit import By
from trunkline.store.command_queue import CommandQueue, Outcome
from trunkline.store.commands import (
    Arguments,
    Asked,
    Command,
    KeyReused,
    Kind,
    Limits,
    OverLimit,
    ask,
    dialled_id,
    select_command,
)
from trunkline.store.pool import Pool, open_pool

pytestmark = pytest.mark.asyncio

MANY = Limits(per_second=1000, at_once=1000, per_day=1000)
BY = By("api_key:x", "192.0.2.1", "request")
OUTSIDE = Arguments(extension="1001", to="+442071234567", outside=True)


@pytest_asyncio.fixture
async def pool(emptied_database: str) -> AsyncIterator[Pool]:
    async with await open_pool(emptied_database, max_size=10) as pool:
        yield pool


@pytest_asyncio.fixture
async def account_id(pool: Pool) -> UUID:
    return await pool.fetchval("INSERT INTO account (name) VALUES ('main') RETURNING id")


@pytest_asyncio.fixture
async def queue(pool: Pool, account_id: UUID) -> AsyncIterator[CommandQueue]:
    """Of a core that owns the PBX `hq`, which is known by now."""
    queue = CommandQueue(pool, "main")
    assert await queue.take(["hq"], 1) == []
    yield queue
    await queue.close()


async def order(
    pool: Pool, account_id: UUID, arguments: Arguments = OUTSIDE, *, key: str = "", limits: Limits = MANY, **more: Any
) -> Command | KeyReused | OverLimit:
    pbx = await pool.fetchval("SELECT id FROM integration WHERE external_id = 'hq'")
    asked = Asked(pbx, more.get("kind", Kind.DIAL), arguments, None, key or uuid4().hex, more.get("digest", b"hash"))
    return await ask(pool, account_id, asked, BY, limits)


async def ordered(pool: Pool, account_id: UUID, **more: Any) -> Command:
    made = await order(pool, account_id, **more)
    assert isinstance(made, Command)
    return made


async def test_a_command_is_taken_at_once_and_answered(pool: Pool, account_id: UUID, queue: CommandQueue) -> None:
    waiting = asyncio.create_task(queue.take(["hq"], 5))
    made = await ordered(pool, account_id)
    async with asyncio.timeout(0.5):  # NOTIFY, not the look once a second
        (taken,) = await waiting
    assert (taken.id, taken.pbx, taken.kind, taken.arguments) == (made.id, "hq", Kind.DIAL, OUTSIDE)
    assert 3 < taken.left_s <= 4
    assert (await select_command(pool, account_id, made.id)).state == "CLAIMED"  # type: ignore[union-attr]
    await queue.finish(made.id, Outcome("done", result={"answered": True}))
    done = await select_command(pool, account_id, made.id)
    assert done is not None
    assert (done.state, done.result, done.external_id, done.over) == (
        "DONE",
        {"answered": True},
        dialled_id(made.id),
        True,
    )
    (audited,) = await pool.fetch("SELECT actor, action, subject, address, request_id, detail FROM audit")
    assert tuple(audited) == ("api_key:x", "command.dial", f"command:{made.id}", "192.0.2.1", "request", "done")


async def test_one_key_is_one_command_also_at_once(pool: Pool, account_id: UUID, queue: CommandQueue) -> None:
    made = await asyncio.gather(*(ordered(pool, account_id, key="k") for _ in range(10)))
    assert len({command.id for command in made}) == 1
    assert await pool.fetchval("SELECT count(*) FROM command") == 1
    assert await order(pool, account_id, key="k", digest=b"other") == KeyReused()


async def test_a_key_is_free_again_after_a_day_or_where_nothing_was_begun(
    pool: Pool, account_id: UUID, queue: CommandQueue
) -> None:
    first = await ordered(pool, account_id, key="k")
    for code, free in (("pbx_away", True), ("agent_busy", False), ("outcome_unknown", False)):
        state = "unknown" if code == "outcome_unknown" else "failed"
        await pool.execute("UPDATE command SET state = $2, code = $3 WHERE id = $1", first.id, state, code)
        again = await ordered(pool, account_id, key="k")
        assert (again.id != first.id) == free, code
        first = again
    await pool.execute("UPDATE command SET created_at = now() - interval '25 hours' WHERE id = $1", first.id)
    assert (await ordered(pool, account_id, key="k", digest=b"other")).id != first.id


async def test_who_comes_late_takes_nothing(pool: Pool, account_id: UUID, queue: CommandQueue) -> None:
    made = await ordered(pool, account_id)
    await pool.execute("UPDATE command SET not_after = clock_timestamp()")
    assert await queue.take(["hq"], 5) == []
    late = await select_command(pool, account_id, made.id)
    assert late is not None
    assert (late.state, late.code) == ("FAILED", "command_expired")
    assert await pool.fetch("SELECT detail FROM audit") == [("failed: command_expired",)]


async def test_of_two_cores_one_takes_it_and_no_other_says_what_became_of_it(
    pool: Pool, account_id: UUID, queue: CommandQueue
) -> None:
    other = CommandQueue(pool, "main")
    made = [await ordered(pool, account_id) for _ in range(20)]
    taken = await asyncio.gather(queue.take(["hq"], 20), other.take(["hq"], 20))
    assert sorted(one.id for some in taken for one in some) == sorted(command.id for command in made)
    owner = queue if made[0].id in [one.id for one in taken[0]] else other
    thief = other if owner is queue else queue
    await thief.finish(made[0].id, Outcome("done"))
    assert (await select_command(pool, account_id, made[0].id)).state == "CLAIMED"  # type: ignore[union-attr]
    await owner.finish(made[0].id, Outcome("failed", "agent_busy", "the phone is busy"))
    await owner.finish(made[0].id, Outcome("done"))
    ended = await select_command(pool, account_id, made[0].id)
    assert ended is not None
    assert (ended.state, ended.code) == ("FAILED", "agent_busy")
    await other.close()


async def test_what_its_core_died_over_is_unknown_and_not_taken_again(
    pool: Pool, account_id: UUID, queue: CommandQueue
) -> None:
    made = await ordered(pool, account_id)
    assert len(await queue.take(["hq"], 5)) == 1
    await pool.execute("UPDATE command SET lease_until = clock_timestamp()")
    other = CommandQueue(pool, "main")
    assert await other.take(["hq"], 5) == []
    lost = await select_command(pool, account_id, made.id)
    assert lost is not None
    assert (lost.state, lost.code) == ("UNKNOWN", "core_lost")
    await queue.finish(made.id, Outcome("done"))  # it lives after all, and comes too late
    assert (await select_command(pool, account_id, made.id)) == lost
    await other.close()


async def test_another_pbxs_and_another_accounts_commands_are_not_taken(
    pool: Pool, account_id: UUID, queue: CommandQueue
) -> None:
    await pool.execute("INSERT INTO account (name) VALUES ('other')")
    others = CommandQueue(pool, "other")
    await others.take(["hq"], 5)
    await ordered(pool, account_id)
    assert await queue.take(["branch"], 5) == []
    assert await others.take(["hq"], 5) == []
    assert len(await queue.take(["branch", "hq"], 5)) == 1
    await others.close()


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(per_second=3, at_once=99, per_day=99), "per_second"),
        (Limits(per_second=99, at_once=3, per_day=99), "at_once"),
        (Limits(per_second=99, at_once=99, per_day=3), "per_day"),
    ],
)
async def test_an_account_orders_so_many_calls_to_the_outside(
    pool: Pool, account_id: UUID, queue: CommandQueue, limits: Limits, name: str
) -> None:
    made = await asyncio.gather(*(order(pool, account_id, limits=limits) for _ in range(8)))
    over = [one for one in made if isinstance(one, OverLimit)]
    assert len(over) == 5
    assert {one.what for one in over} == {name}
    assert all(0 < one.wait_s <= 86400 for one in over)
    inside = Arguments(extension="1001", to="1002")
    assert isinstance(await order(pool, account_id, inside, limits=limits), Command)


async def test_a_call_that_is_over_makes_room_and_one_that_goes_on_does_not(
    pool: Pool, account_id: UUID, queue: CommandQueue
) -> None:
    limits = Limits(per_second=99, at_once=1, per_day=99)
    made = await ordered(pool, account_id, limits=limits)
    await pool.execute("UPDATE command SET state = 'done'")
    call_id = await pool.fetchval(
        """INSERT INTO call (account_id, integration_id, external_id, direction, status, phone_number, started_at)
           SELECT $1, id, $2, 'outbound', 'in_progress', '1', now() FROM integration RETURNING id""",
        account_id,
        dialled_id(made.id),
    )
    assert isinstance(await order(pool, account_id, limits=limits), OverLimit)
    assert (await select_command(pool, account_id, made.id)).call_id == call_id  # type: ignore[union-attr]
    await pool.execute("UPDATE call SET ended_at = now()")
    assert isinstance(await order(pool, account_id, limits=limits), Command)


TRANSFER = Arguments(call="a-1", extension="1001", to="+442071234567", outside=True, mode="BLIND")
ROOM_FOR_ONE = Limits(per_second=99, at_once=1, per_day=99)


async def add_call(pool: Pool, account_id: UUID, external_id: str) -> UUID:
    return await pool.fetchval(
        """INSERT INTO call (account_id, integration_id, external_id, direction, status, phone_number, started_at)
           SELECT $1, id, $2, 'inbound', 'in_progress', '1', now() FROM integration RETURNING id""",
        account_id,
        external_id,
    )


async def fold(pool: Pool, account_id: UUID, old: UUID, into: UUID, external_id: str) -> None:
    """As the writer does when two Calls turn out to be one."""
    await pool.execute(
        """INSERT INTO call_alias (integration_id, external_id, account_id, call_id, folded_id)
           SELECT id, $2, $1, $4, $3 FROM integration""",
        account_id,
        external_id,
        old,
        into,
    )
    await pool.execute("DELETE FROM call WHERE id = $1", old)


@pytest.mark.parametrize(("state", "counts"), [("done", True), ("unknown", True), ("failed", False)])
async def test_a_call_that_was_transferred_outside_counts_as_long_as_it_lives(
    pool: Pool, account_id: UUID, queue: CommandQueue, state: str, counts: bool
) -> None:
    await add_call(pool, account_id, "a-1")
    for _ in range(2):  # a consultation that was cancelled, and another
        await ordered(pool, account_id, arguments=TRANSFER, kind=Kind.TRANSFER)
    await pool.execute("UPDATE command SET state = $1, code = 'pbx_refused', call_id = call.id FROM call", state)
    over = await order(pool, account_id, limits=ROOM_FOR_ONE)
    assert (over == OverLimit("at_once", 5.0)) == counts
    await pool.execute("DELETE FROM command WHERE kind = 'dial'")
    assert isinstance(await order(pool, account_id, limits=Limits(per_second=99, at_once=2, per_day=99)), Command)
    await pool.execute("DELETE FROM command WHERE kind = 'dial'")
    await pool.execute("UPDATE call SET ended_at = now()")
    assert isinstance(await order(pool, account_id, limits=ROOM_FOR_ONE), Command)


@pytest.mark.parametrize("kind", [Kind.DIAL, Kind.TRANSFER])
async def test_a_call_that_was_folded_into_another_counts_as_long_as_that_lives(
    pool: Pool, account_id: UUID, queue: CommandQueue, kind: Kind
) -> None:
    made = await ordered(pool, account_id, arguments=TRANSFER if kind is Kind.TRANSFER else OUTSIDE, kind=kind)
    named = dialled_id(made.id) if kind is Kind.DIAL else "a-1"
    old, older = await add_call(pool, account_id, named), await add_call(pool, account_id, "a-0")
    await pool.execute("UPDATE command SET state = 'done', call_id = CASE kind WHEN 'transfer' THEN $1::uuid END", old)
    await fold(pool, account_id, old, older, named)
    assert isinstance(await order(pool, account_id, limits=ROOM_FOR_ONE), OverLimit)
    assert (await select_command(pool, account_id, made.id)).call_id == older  # type: ignore[union-attr]
    await pool.execute("UPDATE call SET ended_at = now()")
    assert isinstance(await order(pool, account_id, limits=ROOM_FOR_ONE), Command)


async def test_a_rate_below_one_a_second(pool: Pool, account_id: UUID, queue: CommandQueue) -> None:
    limits = Limits(per_second=0.1, at_once=99, per_day=99)
    assert isinstance(await order(pool, account_id, limits=limits), Command)
    over = await order(pool, account_id, limits=limits)
    assert isinstance(over, OverLimit)
    assert 9 < over.wait_s <= 10
    await pool.execute("UPDATE command SET created_at = created_at - interval '10 s'")
    assert isinstance(await order(pool, account_id, limits=limits), Command)


async def test_what_was_never_begun_counts_for_no_limit(pool: Pool, account_id: UUID, queue: CommandQueue) -> None:
    limits = Limits(per_second=1, at_once=1, per_day=1)
    assert isinstance(await order(pool, account_id, limits=limits), Command)
    await pool.execute("UPDATE command SET state = 'failed', code = 'pbx_away'")
    assert isinstance(await order(pool, account_id, limits=limits), Command)


async def test_arguments_that_nobody_can_read_are_taken_to_be_refused(
    pool: Pool, account_id: UUID, queue: CommandQueue
) -> None:
    await ordered(pool, account_id)
    await pool.execute("""UPDATE command SET arguments = '{"extension": ["1001"], "evil": 1}'""")
    (taken,) = await queue.take(["hq"], 5)
    assert taken.arguments is None


async def test_a_kind_that_this_core_does_not_know_is_left_to_expire(
    pool: Pool, account_id: UUID, queue: CommandQueue
) -> None:
    await ordered(pool, account_id)
    await pool.execute("UPDATE command SET kind = 'teleport'")
    await ordered(pool, account_id)
    (taken,) = await queue.take(["hq"], 5)
    assert taken.kind is Kind.DIAL


async def test_old_commands_go(pool: Pool, account_id: UUID, queue: CommandQueue) -> None:
    made = await ordered(pool, account_id)
    await pool.execute("UPDATE command SET state = 'done', created_at = now() - interval '31 days'")
    other = CommandQueue(pool, "main")  # a core that starts
    await other.take(["hq"], 5)
    assert await select_command(pool, account_id, made.id) is None
    await other.close()
