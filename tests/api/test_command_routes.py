"""Commands over HTTP: who may ask for what, and what is answered; the core's half is the real queue, answered here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from people import SECRET, add_key, add_user, bearer, log_in
from served import ACCOUNT, Serve, Served

from trunkline.api import Commands
from trunkline.api.change import Repeats
from trunkline.api.command_routes import COMMANDS
from trunkline.identity.destinations import Destinations
from trunkline.store.command_queue import Claimed, CommandQueue, Outcome
from trunkline.store.commands import Kind, Limits
from trunkline.store.pool import Pool, open_pool

pytestmark = pytest.mark.asyncio

KEY = "a-key-of-the-settings"
ALLOWED = Commands(Destinations(["+1202"], region="GB"), Limits(per_second=3, at_once=50, per_day=500))


class Core:
    """Takes commands as a core does, keeps them, and ends each with `outcome`; None: it is at it, for ever."""

    def __init__(self, queue: CommandQueue) -> None:
        self._queue = queue
        self.outcome: Outcome | None = Outcome("done")
        self.taken: list[Claimed] = []

    async def run(self) -> None:
        while True:
            for command in await self._queue.take(["hq"], 10):
                self.taken.append(command)
                if self.outcome is not None:
                    await self._queue.finish(command.id, self.outcome)


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def core(database_url: str, account_id: UUID) -> AsyncIterator[Core]:
    async with await open_pool(database_url) as writing:
        queue = CommandQueue(writing, ACCOUNT)
        assert await queue.take(["hq"], 1) == []  # makes the PBX known
        core = Core(queue)
        running = asyncio.create_task(core.run())
        yield core
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await queue.close()


@pytest_asyncio.fixture
async def api(serve: Serve, pool: Pool, core: Core) -> Served:
    return await serve(pool, keys=[KEY], secret=SECRET, commands=ALLOWED)


@pytest_asyncio.fixture
async def call_id(pool: Pool, core: Core, account_id: UUID) -> UUID:
    """A call of 1001's, going on."""
    call_id = await pool.fetchval(
        """INSERT INTO call (account_id, integration_id, pbx, external_id, direction, status, phone_number, started_at)
           SELECT $1, id, 'hq', 'hq-1', 'inbound', 'in_progress', '1', now() FROM integration RETURNING id""",
        account_id,
    )
    await pool.execute(
        """INSERT INTO call_leg (account_id, call_id, channel_id, position, endpoint, party, role, started_at)
           VALUES ($1, $2, 'hq-2', 0, 'PJSIP/1001', '1001', 'agent', now())""",
        account_id,
        call_id,
    )
    return call_id


async def post(
    api: Served, path: str, body: dict[str, Any] | None = None, *, key: str | None = "", who: str = KEY
) -> tuple[int, Any, Any]:
    """Status, JSON and headers; key: None for none, "" for a new one."""
    headers = bearer(who) | ({} if key is None else {"Idempotency-Key": key or uuid4().hex})
    url = f"{api.url}/api/v1/{path}"
    async with api.client.post(url, json=body if body is not None else {}, headers=headers) as response:
        return response.status, await response.json(content_type=None), response.headers


async def test_what_the_pbx_did_is_answered(api: Served, core: Core, call_id: UUID) -> None:
    core.outcome = Outcome("done", result={"channels": 2})
    status, body, headers = await post(api, f"calls/{call_id}/hangup")
    assert status == 200
    assert (body["kind"], body["state"], body["callId"], body["externalId"], body["result"]) == (
        "HANGUP",
        "DONE",
        str(call_id),
        "hq-1",
        {"channels": 2},
    )
    found = await api.get(headers["Location"], headers=bearer(KEY))
    assert found == (200, body)


async def test_every_kind_reaches_the_core_with_what_was_asked(api: Served, core: Core, call_id: UUID) -> None:
    one = f"calls/{call_id}"
    asked: list[tuple[str, dict[str, Any], Kind, dict[str, Any]]] = [
        ("calls", {"extension": "1001", "to": "+12025550123"}, Kind.DIAL, {"to": "+12025550123", "outside": True}),
        ("calls", {"extension": "1001", "to": "1002"}, Kind.DIAL, {"to": "1002", "outside": False}),
        (f"{one}/hangup", {"extension": "1001"}, Kind.HANGUP, {"extension": "1001", "call": "hq-1"}),
        (f"{one}/hold", {}, Kind.HOLD, {}),
        (f"{one}/unhold", {}, Kind.UNHOLD, {}),
        (f"{one}/transfer", {"to": "1002"}, Kind.TRANSFER, {"to": "1002", "mode": "BLIND"}),
        (f"{one}/transfer", {"kind": "ATTENDED_COMPLETE"}, Kind.TRANSFER, {"to": None, "mode": "ATTENDED_COMPLETE"}),
        (f"{one}/park", {}, Kind.PARK, {}),
        (f"{one}/record/pause", {}, Kind.RECORD_PAUSE, {}),
        (f"{one}/record/resume", {}, Kind.RECORD_RESUME, {}),
        (f"{one}/supervise", {"extension": "1004", "mode": "BARGE"}, Kind.SUPERVISE, {"mode": "BARGE"}),
        ("agents/1001/pause", {"reason": "lunch"}, Kind.AGENT_PAUSE, {"extension": "1001", "reason": "lunch"}),
        ("agents/1001/unpause", {"queue": "support"}, Kind.AGENT_UNPAUSE, {"queue": "support"}),
        ("agents/1001/login", {"queue": "support", "penalty": 2}, Kind.AGENT_LOGIN, {"penalty": 2}),
        ("agents/1001/logout", {"queue": "support"}, Kind.AGENT_LOGOUT, {"penalty": None}),
    ]
    for path, body, kind, expected in asked:
        status, answer, _ = await post(api, path, body)
        assert status == (201 if kind is Kind.DIAL else 200), answer
        taken = core.taken[-1]
        assert taken.kind is kind
        assert {name: getattr(taken.arguments, name) for name in expected} == expected
    assert {kind for _, _, kind, _ in asked} == set(Kind)


OUTCOMES = {
    ("unknown", "outcome_unknown"): 504,
    ("failed", "bad_command"): 504,
    ("failed", "pbx_away"): 503,
    ("failed", "control_not_configured"): 503,
    ("failed", "hold_not_configured"): 503,
    ("failed", "not_your_call"): 403,
    ("failed", "destination_refused"): 403,
    ("failed", "agent_not_found"): 404,
    **{
        ("failed", code): 409
        for code in (
            *(
                "call_over",
                "channel_gone",
                "not_talking",
                "which_leg",
                "not_held",
                "no_consultation",
                "not_recorded",
                "recorded_by_ari",
                "pbx_refused",
            ),
            *("agent_no_answer", "agent_busy", "agent_unavailable"),
        )
    },
}


async def test_what_went_wrong_is_a_problem_and_stays_it(api: Served, core: Core, call_id: UUID) -> None:
    for (state, code), status in OUTCOMES.items():
        core.outcome, core.taken = Outcome(state, code, "why"), []  # type: ignore[arg-type]
        answered, body, headers = await post(api, f"calls/{call_id}/hangup", key=code)
        renamed = {"not_your_call": "not_yours", "bad_command": "outcome_unknown"}.get(code, code)
        assert (answered, body["code"]) == (status, renamed)
        assert body["commandId"] == str(core.taken[-1].id)
        assert ("Retry-After" in headers) == (code == "pbx_away")
        again = await post(api, f"calls/{call_id}/hangup", key=code)
        told_to_try_again = code in ("pbx_away", "control_not_configured")
        assert len(core.taken) == (2 if told_to_try_again else 1), code
        assert again[0] == status


async def test_what_takes_longer_is_answered_with_a_url(api: Served, core: Core, monkeypatch: Any) -> None:
    monkeypatch.setattr("trunkline.api.commands.WAIT_S", 0.2)
    core.outcome = None
    status, body, headers = await post(api, "calls", {"extension": "1001", "to": "1002"})
    assert (status, body["state"]) == (202, "CLAIMED")
    assert headers["Location"] == f"/api/v1/commands/{body['id']}"
    assert body["externalId"] == f"trunkline-{UUID(body['id']).hex}"
    assert (await api.get(headers["Location"], headers=bearer(KEY)))[1]["state"] == "CLAIMED"


async def test_nobody_is_there_to_take_it(serve: Serve, pool: Pool, account_id: UUID) -> None:
    await pool.execute(
        """INSERT INTO integration (account_id, channel, integration_id, external_id)
           VALUES ($1, 'telephony', 'asterisk', 'hq')""",
        account_id,
    )
    api = await serve(pool, keys=[KEY])
    status, body, headers = await post(api, "calls", {"extension": "1001", "to": "1002"})
    assert (status, body["code"], headers["Retry-After"]) == (503, "command_expired", "5")
    assert await pool.fetchval("SELECT state FROM command") == "failed"


async def test_two_servers_wait_for_one_core(api: Served, serve: Serve, pool: Pool, core: Core) -> None:
    other = await serve(pool, keys=[KEY], commands=ALLOWED)
    body = {"extension": "1001", "to": "1002"}
    one, same = await asyncio.gather(post(api, "calls", body, key="k"), post(other, "calls", body, key="k"))
    assert one[:2] == same[:2]
    assert len(core.taken) == 1
    assert (await post(api, "calls", {**body, "to": "1003"}, key="k"))[1]["code"] == "idempotency_key_reused"
    _, other_key = await add_key(pool, await api.state.account_id(), ["calls:control"])
    assert (await post(api, "calls", body, key="k", who=other_key))[1]["code"] == "idempotency_key_reused"


async def test_a_key_has_a_form(api: Served, core: Core) -> None:
    for key in (None, "a b", "ü", "", "x" * 256, "a\tb"):
        headers = bearer(KEY) | ({} if key is None else {"Idempotency-Key": key})
        async with api.client.post(
            f"{api.url}/api/v1/calls", json={"extension": "1001", "to": "1002"}, headers=headers
        ) as response:
            assert response.status == 400
            code = (await response.json(content_type=None))["code"]
        assert code == ("idempotency_key_missing" if key is None else "bad_idempotency_key")
    assert core.taken == []


async def test_a_call_that_is_over_is_told_nothing_but_the_same_answer(
    api: Served, pool: Pool, core: Core, call_id: UUID
) -> None:
    done = await post(api, f"calls/{call_id}/hangup", key="k")
    await pool.execute("UPDATE call SET status = 'completed', ended_at = now()")
    assert (await post(api, f"calls/{call_id}/hangup", key="k"))[:2] == done[:2]
    assert (await post(api, f"calls/{call_id}/hangup"))[1]["code"] == "call_over"
    assert len(core.taken) == 1


async def test_where_may_not_be_called(api: Served, core: Core, call_id: UUID) -> None:
    refused = {
        "+442071234567": "destination_refused",
        "02071234567": "destination_refused",
        "1001@trunk": "destination_refused",
        "+12025550123,1": "destination_refused",
        "+1202555\r\nAction: Hangup": "destination_refused",
        "+1202555\u0000": "bad_body",
        "": "bad_body",
        "1" * 33: "bad_body",
    }
    for to, code in refused.items():
        for path, body in (("calls", {"extension": "1001", "to": to}), (f"calls/{call_id}/transfer", {"to": to})):
            _, answer, _ = await post(api, path, body)
            assert answer["code"] == code
            assert len(to) < 5 or to not in answer["detail"]
    assert core.taken == []


async def test_the_default_is_that_nothing_outside_may_be_called(serve: Serve, pool: Pool, core: Core) -> None:
    api = await serve(pool, keys=[KEY])
    _, answer, _ = await post(api, "calls", {"extension": "1001", "to": "+12025550123"})
    assert answer["code"] == "destination_refused"
    assert 'set commands.destinations, such as ["GB", "+3531"]' in answer["detail"]
    assert (await post(api, "calls", {"extension": "1001", "to": "1002"}))[0] == 201


async def test_so_many_calls_to_the_outside_and_no_more(api: Served, core: Core) -> None:
    body = {"extension": "1001", "to": "+12025550123"}
    made = await asyncio.gather(*(post(api, "calls", body) for _ in range(6)))
    over = [(answer, headers) for status, answer, headers in made if status == 429]
    assert len(over) == 3
    for answer, headers in over:
        assert (answer["code"], answer["limit"], headers["Retry-After"]) == ("call_limit", "per_second", "1")
    assert b'reason="call_limit"} 3.0' in (await api.raw("/metrics", headers=bearer(KEY)))[1]


async def test_an_agent_commands_his_own_phone_and_its_calls(
    api: Served, pool: Pool, core: Core, account_id: UUID, call_id: UUID
) -> None:
    his = await log_in(pool, account_id, await add_user(pool, account_id, "AGENT", extension="1001"))
    status, made, headers = await post(api, "calls", {"to": "1002"}, who=his)
    assert status == 201
    assert (core.taken[-1].arguments.extension, core.taken[-1].arguments.only) == ("1001", "1001")  # type: ignore[union-attr]
    assert (await post(api, f"calls/{call_id}/hangup", who=his))[0] == 200
    assert core.taken[-1].arguments.only == "1001"  # type: ignore[union-attr]  # the core looks again
    assert (await api.get(headers["Location"], headers=bearer(his)))[1]["id"] == made["id"]
    assert (await post(api, "agents/1001/pause", who=his))[0] == 200

    others = await log_in(pool, account_id, await add_user(pool, account_id, "AGENT", extension="1002"))
    none = await log_in(pool, account_id, await add_user(pool, account_id, "AGENT"))
    taken = len(core.taken)
    for who, path, body in (
        (his, "calls", {"extension": "1002", "to": "1003"}),
        (his, "agents/1002/pause", {}),
        (his, f"calls/{call_id}/hangup", {"extension": "1002"}),
        (others, f"calls/{call_id}/hangup", {}),
        (others, f"calls/{call_id}/transfer", {"to": "1002"}),
        (none, "calls", {"to": "1002"}),
        (none, "agents/1001/pause", {}),
    ):
        status, answer, _ = await post(api, path, body, who=who)
        assert (status, answer["code"]) == (403, "not_yours"), path
    assert (await post(api, f"calls/{call_id}/supervise", who=his))[1]["code"] == "scope_missing"
    assert (await api.get(headers["Location"], headers=bearer(others)))[1]["code"] == "command_not_found"
    assert len(core.taken) == taken


async def test_a_supervisor_commands_any_call(
    api: Served, pool: Pool, core: Core, account_id: UUID, call_id: UUID
) -> None:
    hers = await log_in(pool, account_id, await add_user(pool, account_id, "SUPERVISOR", extension="1004"))
    assert (await post(api, f"calls/{call_id}/supervise", {"mode": "WHISPER"}, who=hers))[0] == 200
    arguments = core.taken[-1].arguments
    assert arguments is not None
    assert (arguments.extension, arguments.mode, arguments.only) == ("1004", "WHISPER", None)
    assert (await post(api, f"calls/{call_id}/hangup", who=hers))[0] == 200


async def test_every_command_is_audited_and_no_number_is(
    api: Served, pool: Pool, core: Core, capfd: pytest.CaptureFixture[str]
) -> None:
    await post(api, "calls", {"extension": "1001", "to": "+12025550123"})
    core.outcome = Outcome("failed", "agent_busy", "the phone is busy")
    await post(api, "calls", {"extension": "1001", "to": "+12025550123"})
    rows = await pool.fetch("SELECT action, subject, detail, actor FROM audit ORDER BY at")
    assert [(row["action"], row["detail"]) for row in rows] == [
        ("command.dial", "done"),
        ("command.dial", "failed: agent_busy"),
    ]
    assert [row["subject"] for row in rows] == [f"command:{taken.id}" for taken in core.taken]
    assert all(row["actor"].startswith("key:") for row in rows)
    await post(api, "calls", {"extension": "1001", "to": "+442071234567"})
    (refused,) = await pool.fetch("SELECT action, subject, detail FROM audit WHERE detail LIKE 'refused%'")
    assert tuple(refused) == ("command.dial", "call:new", "refused: destination_refused")
    rows += await pool.fetch("SELECT * FROM audit")
    assert "2071234567" not in str([tuple(row) for row in rows])
    assert "2025550123" not in str([tuple(row) for row in rows]) + "".join(capfd.readouterr())


async def test_which_pbx_has_to_be_said_where_there_are_several(
    api: Served, pool: Pool, core: Core, account_id: UUID
) -> None:
    await pool.execute(
        """INSERT INTO integration (account_id, channel, integration_id, external_id)
           VALUES ($1, 'telephony', 'asterisk', 'branch')""",
        account_id,
    )
    body = {"extension": "1001", "to": "1002"}
    status, answer, _ = await post(api, "calls", body)
    assert (status, answer["code"], answer["allowed"]) == (422, "bad_body", ["branch", "hq"])
    assert (await post(api, "calls", {**body, "pbx": "hq"}))[0] == 201
    await pool.execute("UPDATE integration SET status = 'disabled' WHERE external_id = 'branch'")
    assert (await post(api, "calls", body))[0] == 201


async def test_without_a_pbx(serve: Serve, pool: Pool, account_id: UUID) -> None:
    api = await serve(pool, keys=[KEY])
    assert (await post(api, "calls", {"extension": "1001", "to": "1002"}))[1]["code"] == "no_pbx"


async def test_every_route_of_commands_asks_for_a_key(api: Served) -> None:
    posts = [route for route in COMMANDS if route.method == "POST"]
    assert len(posts) == 13
    assert all(route.repeats is Repeats.HANDLED for route in posts)
    _, document = await api.get("/api/openapi.json")
    for route in posts:
        parameters = document["paths"][route.path]["post"]["parameters"]
        assert [p for p in parameters if p["name"] == "Idempotency-Key" and p["in"] == "header" and p["required"]]
