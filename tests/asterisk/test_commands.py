"""Commands of the API on a real Asterisk: each does what it says, once, in time or never."""

from collections.abc import Iterator

import pytest
from commander import Commander
from daemon_process import COMMANDS, Daemon, running_daemon
from stage import Rows, Stage, check, talk, until
from wire import Wire

from trunkline.calls.record import Direction, EndedBy, EndReason, Status
from trunkline.embedded.asterisk import Asterisk


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
    try:
        desk = phone.wait_call()
    except Exception:
        raise AssertionError(asking.answer())
    assert desk.caller == "1003"
    stage.carrier.forget_calls()
    desk.answer()
    outside = stage.carrier.wait_call()
    answer = asking.answer()
    assert (answer.status, answer.body["state"]) == (201, "DONE")
    assert answer.headers["Location"] == f"/api/v1/commands/{answer.body['id']}"
    assert outside.caller == stage.pbx.did("0003")  # the agent's own number, as when his phone had dialled
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
        answered_by=f"+{stage.caller}",
        rang=record.rang,
    )
    assert (record.from_, record.to) == ("1003", f"+{stage.caller}")
    assert api.get(answer.headers["Location"]).body["callId"] == str(record.id)
