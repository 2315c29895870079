"""Commands of the API on a real Asterisk: each does what it says, once, in time or never."""

import os
import signal
from collections.abc import Iterator

import pytest
from commander import Commander
from daemon_process import COMMANDS, Daemon, running_daemon
from filled import execute, fetch
from stage import Rows, Stage, check, talk, until
from wire import Wire

from trunkline.calls.record import Direction, EndedBy, EndReason, Status
from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.phone import SipError


@pytest.fixture(scope="module")
def wire(pbx: Asterisk) -> Iterator[Wire]:
    wire = Wire(pbx.host, pbx.ami_port)
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def daemon(
    pbx: Asterisk, module_database: str, wire: Wire, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    with running_daemon(
        pbx, module_database, tmp_path_factory.mktemp("commands"), ami_port=wire.port, commands=COMMANDS, strict=False
    ) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def api(daemon: Daemon, module_database: str) -> Commander:
    api = Commander(daemon.base, Rows(module_database))
    until("the PBX can be commanded", lambda: api.post("agents/1001/unpause").code not in ("no_pbx", "pbx_away"))
    return api


def test_click_to_dial_rings_the_agent_first_and_then_the_number(stage: Stage, api: Commander) -> None:
    phone = stage.agent("1003")
    asking = api.start("calls", {"extension": "1003", "to": f"+{stage.caller}"})
    desk = phone.wait_call()
    assert (desk.caller, desk.caller_name) == ("1003", f"+{stage.caller}")  # his own, so that the dialplan knows him
    stage.carrier.forget_calls()
    desk.answer()
    outside = stage.carrier.wait_call()
    answer = asking.answer()
    assert (answer.status, answer.body["state"]) == (201, "DONE")
    assert answer.headers["Location"] == f"/api/v1/commands/{answer.body['id']}"
    assert outside.caller == stage.pbx.did("0003")  # the agent's own number, as when his phone had dialled
    assert outside.caller_name == "Carol Cole"
    outside.answer()
    talk()
    outside.hangup()
    desk.wait_end()
    record = api.call_of(answer)
    check(
        record,
        direction=Direction.OUTBOUND,
        status=Status.COMPLETED,
        caller_name=record.caller_name,
        ended_by=EndedBy.CALLEE,
        answered_by=stage.caller,
        rang=record.rang,
    )
    assert (record.from_, record.to) == ("1003", f"+{stage.caller}")
    assert api.get(answer.headers["Location"]).body["callId"] == str(record.id)


def test_click_to_dial_that_nobody_picks_up(stage: Stage, api: Commander) -> None:
    phone = stage.agent("1003")
    asking = api.start("calls", {"extension": "1003", "to": "1004"})
    phone.wait_call().reject("486 Busy Here")
    answer = asking.answer()
    assert (answer.status, answer.code) == (409, "agent_busy")
    assert api.post("calls", {"extension": "1008", "to": "1004"}).code == "agent_unavailable"  # not registered


def test_click_to_dial_that_rings_longer_than_the_api_waits(stage: Stage, api: Commander) -> None:
    phone = stage.agent("1003")
    asking = api.start("calls", {"extension": "1003", "to": "1004"})
    desk = phone.wait_call()
    answer = asking.answer()
    assert (answer.status, answer.body["state"]) == (202, "CLAIMED")
    call = api.live("1003", Status.RINGING)
    assert answer.body["callId"] == call
    assert api.post(f"calls/{call}/hangup").status == 200
    desk.wait_end()
    ended = until("the command is over", lambda: (a := api.get(answer.headers["Location"])).body["finishedAt"] and a)
    assert (ended.body["state"], ended.body["code"]) == ("FAILED", "call_over")
    record = api.call_of(answer)
    assert (record.status, record.end_reason) == (Status.NO_ANSWER, EndReason.AGENT_NO_ANSWER)


def test_hangup(stage: Stage, api: Commander) -> None:
    customer, desk = stage.connect()
    call = api.live(stage.caller)
    answer = api.post(f"calls/{call}/hangup")
    assert (answer.status, answer.body["callId"]) == (200, call)
    customer.wait_end()
    desk.wait_end()
    check(
        api.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLEE,
        answered_by="1002",
        rang=["1002"],
        recordings=1,
    )
    assert api.post(f"calls/{call}/hangup").code == "call_over"


def test_blind_transfer(stage: Stage, api: Commander) -> None:
    target = stage.agent("1003")
    customer, desk = stage.connect()
    answer = api.post(f"calls/{api.live(stage.caller)}/transfer", {"to": "1003"})
    assert answer.status == 200, answer
    other = target.wait_call()
    desk.wait_end()
    other.answer()
    talk()
    customer.hangup()
    other.wait_end()
    check(
        api.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party="1003",
        rang=["1002", "1003"],
        transfers=[("BLIND", "1002", "1003", "ANSWERED")],
        recordings=1,
    )


def test_attended_transfer(stage: Stage, api: Commander) -> None:
    target = stage.agent("1003")
    customer, desk = stage.connect()
    path = f"calls/{api.live(stage.caller)}/transfer"
    assert api.post(path, {"kind": "ATTENDED_COMPLETE"}).code == "no_consultation"
    assert api.post(path, {"to": "1003", "kind": "ATTENDED"}).status == 200
    assert not desk.ended.is_set()
    other = target.wait_call()
    other.answer()
    talk()
    completed = api.post(path, {"kind": "ATTENDED_COMPLETE", "extension": "1002"})
    assert completed.status == 200, completed
    stage.tap.event("AttendedTransfer", stage.mark)
    desk.wait_end()
    talk()
    customer.hangup()
    other.wait_end()
    record = api.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party="1003",
        rang=record.rang,
        transfers=[("ATTENDED", "1002", "1003", "ANSWERED")],
        holds=record.holds and [hold.by for hold in record.holds],
        recordings=1,
    )


def test_a_transfer_outside_goes_only_where_calls_may(stage: Stage, api: Commander) -> None:
    customer, desk = stage.connect()
    path = f"calls/{api.live(stage.caller)}/transfer"
    for to, why in (("+442071234567", "commands.destinations"), ("900", "agents"), ("+12025550199,1", "neither")):
        refused = api.post(path, {"to": to})
        assert refused.code in ("destination_refused", "agent_not_found"), refused
        assert why in refused.body["detail"]
        assert to not in refused.body["detail"]
    customer.hangup()
    desk.wait_end()


def test_park(stage: Stage, api: Commander) -> None:
    customer, desk = stage.connect()
    answer = api.post(f"calls/{api.live(stage.caller)}/park")
    assert answer.status == 200, answer
    space = answer.body["result"]["space"]
    assert 701 <= int(space) <= 720
    desk.wait_end()
    fetched = stage.agent("1003").call(space).wait_answer()
    talk()
    fetched.hangup()
    customer.wait_end()
    record = api.rows.ended(stage.caller)
    assert [(p.space, p.retrieved_by) for p in record.parked] == [(space, "1003")]
    assert record.last_party == "1003"


def test_a_recording_is_paused(stage: Stage, api: Commander) -> None:
    customer, desk = stage.connect()
    path = f"calls/{api.live(stage.caller)}/record"
    assert api.post(f"{path}/pause").status == 200
    talk()
    assert api.post(f"{path}/resume").status == 200
    talk()
    customer.hangup()
    desk.wait_end()
    (recording,) = api.rows.ended(stage.caller).recordings
    ((started, ended),) = [(span.started_at, span.ended_at) for span in recording.paused_spans]
    assert ended is not None
    assert 0.3 < (ended - started).total_seconds() < 2


def test_hold(stage: Stage, api: Commander) -> None:
    customer, desk = stage.connect()
    path = f"calls/{api.live(stage.caller)}"
    assert api.post(f"{path}/unhold").code == "not_held"
    held = api.post(f"{path}/hold")
    assert held.status == 200, held
    talk()
    assert api.post(f"{path}/hold").code == "not_talking"
    resumed = api.post(f"{path}/unhold")
    assert resumed.status == 200, resumed
    talk()
    customer.hangup()
    desk.wait_end()
    check(
        api.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang=["1002"],
        holds=["1002"],
        recordings=1,
    )


@pytest.mark.parametrize("mode", ["LISTEN", "WHISPER", "BARGE"])
def test_supervise(stage: Stage, api: Commander, mode: str) -> None:
    supervisor = stage.agent("1004")
    customer, desk = stage.connect()
    asking = api.start(f"calls/{api.live(stage.caller)}/supervise", {"extension": "1004", "mode": mode})
    ear = supervisor.wait_call()
    ear.answer()
    answer = asking.answer()
    assert (answer.status, answer.body["result"]) == (200, {"mode": mode, "extension": "1002"})
    channels = stage.pbx.cli("core show channels concise")
    assert "ChanSpy" in channels
    customer.hangup()
    desk.wait_end()
    ear.wait_end()
    record = api.rows.ended(stage.caller)
    assert (record.answered_by, len(record.legs)) == ("1002", 2)
    assert api.rows.where("external_id LIKE 'trunkline-spy-%' OR from_number = '1004'") == []


def test_agents_breaks_and_queues(stage: Stage, api: Commander) -> None:
    def member(extension: str) -> str:
        lines = stage.pbx.cli("queue show support").splitlines()
        return next((line for line in lines if f"PJSIP/{extension}" in line), "")

    assert "paused" not in member("1001")
    assert api.post("agents/1001/pause", {"queue": "support", "reason": "lunch"}).status == 200
    assert "paused" in member("1001")
    assert api.post("agents/1001/unpause").status == 200
    assert "paused" not in member("1001")
    assert api.post("agents/1003/login", {"queue": "support", "penalty": 3}).status == 200
    assert "with penalty 3" in member("1003")
    assert api.post("agents/1003/logout", {"queue": "support"}).status == 200
    assert member("1003") == ""
    refused = api.post("agents/1003/logout", {"queue": "support"})
    assert (refused.status, refused.code) == (409, "pbx_refused")
    assert api.post("agents/1003/pause", {"queue": "no-such"}).code == "pbx_refused"
    assert api.post("agents/901/pause").code == "agent_not_found"


def test_one_key_is_one_call_however_often_it_is_sent(stage: Stage, api: Commander) -> None:
    phone = stage.agent("1003")
    body = {"extension": "1003", "to": "1004"}
    phone.forget_calls()
    both = [api.start("calls", body, key="once") for _ in range(2)]
    desk = phone.wait_call()
    desk.answer()
    other = stage.agent("1004").wait_call()
    one, same = (asking.answer() for asking in both)
    assert (one.status, one.body["id"]) == (201, same.body["id"])
    assert api.post("calls", body, key="once").body["id"] == one.body["id"]
    assert api.post("calls", {**body, "to": "1005"}, key="once").code == "idempotency_key_reused"
    assert api.post("calls", {**body, "to": "1005"}, key="x" * 256).code == "bad_idempotency_key"
    other.reject("486 Busy Here")
    desk.wait_end()
    api.call_of(one)
    rung = [event["Uniqueid"] for event in stage.tap.events(stage.mark, "Newchannel") if "/1003-" in event["Channel"]]
    assert rung == [one.body["externalId"]]


def test_a_pbx_that_is_away_is_told_nothing_later(stage: Stage, api: Commander, wire: Wire) -> None:
    phone = stage.agent("1003")
    phone.forget_calls()
    customer, desk = stage.connect()
    call = api.live(stage.caller)
    wire.cut()
    try:
        until("the daemon has seen it", lambda: api.get("/readyz").status == 503)
        for path, body in ((f"calls/{call}/hangup", {}), ("calls", {"extension": "1003", "to": "1004"})):
            away = api.post(path, body, key=f"away-{path}")
            assert (away.status, away.code, away.headers["Retry-After"]) == (503, "pbx_away", "5")
    finally:
        wire.mend()
    until("the PBX is there again", lambda: api.post("agents/1001/unpause").status == 200, 20)
    until("its calls are known again", lambda: api.get("/readyz").status == 200)
    with pytest.raises(SipError):
        phone.wait_call(0.5)
    assert not desk.ended.is_set()
    customer.hangup()
    desk.wait_end()
    # The client was told to try again, and does so with the same key.
    asking = api.start("calls", {"extension": "1003", "to": "1004"}, key="away-calls")
    phone.wait_call().reject("486 Busy Here")
    assert asking.answer().code == "agent_busy"


def test_a_pbx_that_hangs_is_told_nothing_later(stage: Stage, api: Commander) -> None:
    phone = stage.agent("1003")
    phone.forget_calls()
    os.kill(stage.pbx.pid, signal.SIGSTOP)
    try:
        away = api.post("calls", {"extension": "1003", "to": "1004"})
    finally:
        os.kill(stage.pbx.pid, signal.SIGCONT)
    assert (away.status, away.code) == (503, "pbx_away")
    with pytest.raises(SipError):
        phone.wait_call(1)


def test_a_daemon_that_dies_over_a_command_leaves_it_unknown(
    stage: Stage, api: Commander, daemon: Daemon, module_database: str
) -> None:
    phone = stage.agent("1003")
    phone.forget_calls()
    asking = api.start("calls", {"extension": "1003", "to": "1004"}, key="died")
    desk = phone.wait_call()
    daemon.kill()
    with pytest.raises(ConnectionError):
        asking.answer()
    execute(module_database, "UPDATE command SET lease_until = now() WHERE state = 'claimed'")
    daemon.start()
    until("the PBX can be commanded", lambda: api.post("agents/1001/unpause").status == 200)
    again = api.post("calls", {"extension": "1003", "to": "1004"}, key="died")
    assert (again.status, again.code) == (504, "outcome_unknown")
    with pytest.raises(SipError):
        phone.wait_call(0.3)
    desk.reject("486 Busy Here")


def test_a_command_that_nobody_takes_in_time_is_never_begun(
    stage: Stage, api: Commander, daemon: Daemon, module_database: str
) -> None:
    """Two API processes and no core: the row waits, its time is over, and a core that comes then does not begin it."""
    phone = stage.agent("1003")
    phone.forget_calls()
    execute(
        module_database,
        """INSERT INTO command (account_id, integration_id, idempotency_key, kind, arguments, actor)
           SELECT account_id, id, 'late', 'dial', '{"extension": "1003", "to": "1004"}', 'test' FROM integration;
           SELECT pg_notify('trunkline_command', '')""",
    )
    until(
        "it is over",
        lambda: fetch(module_database, "SELECT code FROM command WHERE idempotency_key = 'late'")[0][0],
    )
    assert fetch(module_database, "SELECT state, code FROM command WHERE idempotency_key = 'late'")[0][:] == (
        "failed",
        "command_expired",
    )
    with pytest.raises(SipError):
        phone.wait_call(0.3)
