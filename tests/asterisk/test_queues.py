"""Queues and agents of a real Asterisk: how they are, by the API; and how they did, beside Asterisk's own queue_log."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from stage import Stage, talk, until

from trunkline.calls.record import Status


def ask(stage: Stage, path: str, **query: str) -> Any:
    """What the API answers; an empty thing where there is none."""
    try:
        with urllib.request.urlopen(f"{stage.api}/api/v1/{path}?{urlencode(query)}", timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code == 404:
                return {}
            raise


def agent_is(stage: Stage, extension: str, status: str) -> dict[str, Any]:
    """The agent, as soon as he is in that state."""

    def one() -> dict[str, Any] | None:
        agent: dict[str, Any] = ask(stage, f"agents/{extension}")
        return agent if agent.get("status") == status and agent["connected"] else None

    found: dict[str, Any] = until(f"agent {extension} is {status}", one)
    return found


def waiting(stage: Stage, callers: int) -> dict[str, Any]:
    """The queue, as soon as so many wait."""
    found: dict[str, Any] = until(
        f"{callers} wait",
        lambda: queue if (queue := ask(stage, "queues/support")).get("waiting") == callers else None,
    )
    return found


def test_a_call_through_the_queue_is_seen_from_its_beginning_to_its_end(stage: Stage) -> None:
    first, second = stage.agent("1001"), stage.agent("1002")
    for phone in (first, second):
        phone.forget_calls()
    agent_is(stage, "1001", "AVAILABLE")
    assert agent_is(stage, "1002", "AVAILABLE")["queues"][0]["name"] == "support"
    taken = {a["extension"]: a["callsTaken"] for a in ask(stage, "queues/support")["agents"]}
    customer = stage.dial("0200").wait_answer()
    first.wait_call()
    queue = waiting(stage, 1)
    (caller,) = queue["callers"]
    record = stage.rows.live(stage.caller, Status.QUEUED)
    assert (caller["callId"], caller["from"], caller["position"]) == (record.id, stage.caller, 1)
    assert abs(datetime.fromisoformat(caller["since"]) - datetime.now(UTC)) < timedelta(seconds=10)
    assert (queue["connected"], queue["strategy"], queue["waitingSince"]) == (True, "linear", caller["since"])
    assert agent_is(stage, "1001", "RINGING")["callId"] == record.id
    desk = second.wait_call()  # the first did not answer
    agent_is(stage, "1002", "RINGING")
    desk.answer()
    agent_is(stage, "1001", "AVAILABLE")
    busy = agent_is(stage, "1002", "IN_USE")
    assert busy["callId"] == record.id
    assert waiting(stage, 0)["callers"] == []
    desk.hold()
    agent_is(stage, "1002", "ON_HOLD")
    desk.unhold()
    agent_is(stage, "1002", "IN_USE")
    customer.hangup()
    desk.wait_end()
    stage.rows.ended(stage.caller)
    agent_is(stage, "1002", "AVAILABLE")
    until(
        "it is counted for him",
        lambda: (
            {a["extension"]: a["callsTaken"] for a in ask(stage, "queues/support")["agents"]}
            == taken | {"1002": taken["1002"] + 1}
        ),
    )


def test_an_agent_comes_pauses_and_goes(stage: Stage) -> None:
    phone = stage.agent("1004")
    after = ask(stage, "events", limit="1000")["nextAfter"]
    while (page := ask(stage, "events", after=after, limit="1000"))["items"]:
        after = page["nextAfter"]
    phone.call("*50").wait_end()
    found = agent_is(stage, "1004", "AVAILABLE")
    assert (found["paused"], [queue["name"] for queue in found["queues"]]) == (False, ["support"])
    phone.call("*52").wait_end()
    until("he pauses", lambda: ask(stage, "agents/1004")["paused"])
    phone.call("*51").wait_end()
    agent_is(stage, "1004", "LOGGED_OUT")
    assert "1004" not in {agent["extension"] for agent in ask(stage, "queues/support")["agents"]}
    told = ask(stage, "events", after=after, extension="1004", types="agent.*", limit="1000")["items"]
    states = [(event["data"]["agent"]["status"], event["data"]["agent"]["paused"]) for event in told]
    assert states[-1] == ("LOGGED_OUT", False)
    assert ("AVAILABLE", True) in states
    assert len(states) <= 12  # a second apart, however many events the PBX sent


def test_a_phone_that_is_gone_is_no_agent_to_ring(stage: Stage) -> None:
    phone = stage.agent("1001")
    agent_is(stage, "1001", "AVAILABLE")
    phone.unregister()
    try:
        agent_is(stage, "1001", "UNAVAILABLE")
    finally:
        phone.register()
    agent_is(stage, "1001", "AVAILABLE")


def queue_log(path: Path, behind: int) -> list[tuple[str, str, list[str]]]:
    """(call, what, its data) of the queue `support`, as Asterisk itself wrote them down, behind so many characters."""
    found = []
    for line in path.read_text()[behind:].splitlines():
        _, call, queue, _agent, what, *data = line.split("|")
        if queue == "support":
            found.append((call, what, data))
    return found


def test_the_figures_agree_with_asterisks_own_queue_log(stage: Stage) -> None:
    """Answered at once and late, given up at once and late, and a caller whom the queue gives up."""
    first, second = stage.agent("1001"), stage.agent("1002")
    for phone in (first, second):
        phone.forget_calls()
    path = stage.pbx.home / "log" / "queue_log"
    written, since = len(path.read_text()), datetime.now(UTC)
    # answered by the first who rings
    customer = stage.dial("0200").wait_answer()
    desk = first.wait_call()
    desk.answer()
    stage.tap.event("AgentConnect", stage.mark)
    talk()
    customer.hangup()
    desk.wait_end()
    # by the second, after the first has let it ring
    mark = len(stage.tap.raw)
    customer = stage.dial("0200").wait_answer()
    first.wait_call()
    desk = second.wait_call()
    desk.answer()
    stage.tap.event("AgentConnect", mark)
    talk()
    desk.hangup()
    customer.wait_end()
    # given up at once, and after a while
    for seconds in (0.3, 1.5):
        customer = stage.dial("0200").wait_answer()
        first.wait_call()
        talk(seconds)
        customer.hangup()
    # the queue gives up
    for phone in (first, second):
        phone.on_call = lambda call: call.reject("486 Busy Here")
    try:
        stage.dial("0200").wait_answer().wait_end(15)
    finally:
        for phone in (first, second):
            phone.on_call = None
            phone.forget_calls()
    until("all five have ended", lambda: len(ended_in(stage)) == 5)
    log = queue_log(path, written)
    what = [event for _, event, _ in log]
    answered = [float(data[0]) for _, event, data in log if event == "CONNECT"]
    abandoned = [float(data[2]) for _, event, data in log if event == "ABANDON"]
    target, short = 1, 1
    span = {"from": since.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "target": str(target), "short": str(short)}
    answer = ask(stage, "analytics/queues", **span)
    figures = next(item["figures"] for item in answer["items"] if item["queue"] == "support")
    assert figures["offered"] == what.count("ENTERQUEUE") == 5
    assert figures["answered"] == len(answered) == 2
    assert figures["timedOut"] == what.count("EXITWITHTIMEOUT") == 1
    assert figures["abandoned"] + figures["shortAbandoned"] == len(abandoned) == 2
    assert (figures["abandoned"], figures["shortAbandoned"]) == (1, 1)
    assert figures["answeredWithinTarget"] == 1
    assert figures["left"] == figures["waiting"] == 0
    assert figures["serviceLevel"] == round(1 / 4, 4)
    # Asterisk's waits are differences of whole seconds.
    assert abs(figures["asaSeconds"] - sum(answered) / 2) <= 1
    assert abs(figures["longestWaitSeconds"] - max(float(d[2]) for _, e, d in log if e == "EXITWITHTIMEOUT")) <= 1
    visits = {call.channel_id: call.queue_visits for call in ended_in(stage)}
    for call, event, data in log:
        if event in {"CONNECT", "ABANDON"}:
            (visit,) = visits[call]
            assert visit.left_at is not None
            assert visit.outcome == {"CONNECT": "ANSWERED", "ABANDON": "ABANDONED"}[event]
            waited = (visit.left_at - visit.joined_at).total_seconds()
            assert abs(waited - float(data[0] if event == "CONNECT" else data[2])) <= 1


def ended_in(stage: Stage) -> list[Any]:
    """The calls of this test that have ended."""
    return stage.rows.where("from_number = $1 AND ended_at IS NOT NULL", stage.caller)
