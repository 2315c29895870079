"""What Prometheus sees of queues: counted by the definitions, bounded, and nothing of a PBX that is not seen."""

from datetime import UTC, datetime, timedelta

import pytest

from trunkline.asterisk.event import Event
from trunkline.calls.queue_record import (
    AgentRecord,
    AgentStatus,
    MemberRecord,
    QueueRecord,
    QueuesUpdate,
    Visited,
    Waiting,
)
from trunkline.calls.record import QueueOutcome
from trunkline.calls.tracker import Tracker
from trunkline.metrics import Metrics
from trunkline.metrics.queues import MOST_NAMES

T0 = 1_795_000_000.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("0")


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"pbx": "p", **labels})


def test_callers_are_counted_as_the_definitions_say(metrics: Metrics) -> None:
    ended = [
        (QueueOutcome.ANSWERED, 20.0), (QueueOutcome.ANSWERED, 20.1), (QueueOutcome.ABANDONED, 4.9),
        (QueueOutcome.ABANDONED, 5.0), (QueueOutcome.TIMEOUT, 60.0), (QueueOutcome.EMPTY, 1.0),
        (QueueOutcome.LEFT, 1.0),
    ]  # fmt: skip
    metrics.queues.count("p", [Visited("support", None)] * len(ended))
    metrics.queues.count("p", [Visited("support", outcome, waited) for outcome, waited in ended])
    assert value(metrics, "trunkline_queue_calls_offered_total", queue="support") == 7
    for outcome, n in {"ANSWERED": 2, "ABANDONED": 1, "SHORT_ABANDONED": 1, "TIMED_OUT": 2, "LEFT": 1}.items():
        assert value(metrics, "trunkline_queue_calls_ended_total", queue="support", outcome=outcome) == n
    assert value(metrics, "trunkline_queue_calls_answered_within_target_total", queue="support") == 1
    assert value(metrics, "trunkline_queue_answer_wait_seconds_count", queue="support") == 2
    assert value(metrics, "trunkline_queue_answer_wait_seconds_sum", queue="support") == pytest.approx(40.1)
    assert value(metrics, "trunkline_queue_answer_wait_seconds_bucket", queue="support", le="20.0") == 1


def test_names_are_bounded_and_the_rest_is_counted_together(metrics: Metrics) -> None:
    metrics.queues.count("p", [Visited(f"q{n}", None) for n in range(MOST_NAMES + 3)] + [Visited("x" * 200, None)])
    assert value(metrics, "trunkline_queue_calls_offered_total", queue="other") == 4
    assert metrics.registry.get_sample_value("trunkline_queue_names_folded_total") == 4
    assert value(metrics, "trunkline_queue_calls_offered_total", queue="q0") == 1


def member(extension: str, **fields: bool) -> MemberRecord:
    return MemberRecord(
        queue="support", interface=f"PJSIP/{extension}", extension=extension, name="", membership="static", penalty=0,
        paused_reason=None, paused_since=None, in_call=False, calls_taken=0, last_call_at=None, logged_in_since=None,
        **{"paused": False} | fields,
    )  # fmt: skip


def test_gauges_are_of_now_and_only_while_the_pbx_is_seen(metrics: Metrics) -> None:
    since = datetime.now(UTC) - timedelta(seconds=90)
    waiting = (Waiting("a", "a", 1, since), Waiting("b", "b", 2, since + timedelta(seconds=60)))
    members = {("support", f"PJSIP/{n}"): member(n) for n in ("1", "2")}
    members["support", "PJSIP/3"] = member("3", paused=True)
    agents = {
        n: AgentRecord(
            extension=n, name="", status=AgentStatus.IN_USE, status_since=since, paused=False, queues=("support",),
            logged_in_since=None,
        )
        for n in ("1", "2", "3")
    }  # fmt: skip
    queues = {"support": QueueRecord(name="support", strategy=None, waiting=waiting)}
    metrics.queues.picture("p", QueuesUpdate("pbx1", True, queues, members, agents))
    seen = True
    metrics.queues.follow("p", lambda: seen)
    assert value(metrics, "trunkline_queue_waiting", queue="support") == 2
    assert value(metrics, "trunkline_queue_longest_wait_seconds", queue="support") == pytest.approx(90, abs=5)
    assert value(metrics, "trunkline_queue_agents", queue="support", state="IN_USE") == 2
    assert value(metrics, "trunkline_queue_agents", queue="support", state="PAUSED") == 1
    metrics.queues.picture("p", QueuesUpdate("pbx1", False, {}, {("support", "PJSIP/1"): None}, {}))
    assert value(metrics, "trunkline_queue_agents", queue="support", state="IN_USE") == 1
    seen = False
    assert value(metrics, "trunkline_queue_waiting", queue="support") is None


def test_a_big_page_is_quick_and_bounded(metrics: Metrics) -> None:
    """50 queues with 500 agents: the families of this file are less than 3,500 lines."""
    members = {(f"q{n % 50}", f"PJSIP/{n}"): member(str(n)) for n in range(500)}
    queues = {f"q{n}": QueueRecord(name=f"q{n}", strategy=None, waiting=()) for n in range(50)}
    metrics.queues.follow("p", lambda: True)
    metrics.queues.picture("p", QueuesUpdate("pbx1", True, queues, members, {}))
    metrics.queues.count("p", [Visited(name, outcome, 1.0) for name in queues for outcome in (None, *QueueOutcome)])
    page, _ = metrics.page()
    assert page.count(b"\ntrunkline_queue_") < 3500


def test_the_tracker_tells_each_visit_once(metrics: Metrics) -> None:
    tracker = Tracker("p")
    caller = {
        "Channel": "PJSIP/trunk-1", "ChannelState": "4", "CallerIDNum": "15551234567", "Exten": "s", "Uniqueid": "u.0",
        "Linkedid": "u.0",
    }  # fmt: skip

    def say(kind: str, at: float, **fields: str) -> list[Visited]:
        tracker.handle(Event(kind, T0 + at, caller | fields))
        tracker.take()
        return tracker.take_visits()

    assert say("Newchannel", 0) == []
    assert say("QueueCallerJoin", 1, Queue="support", Position="1") == [Visited("support", None)]
    assert say("QueueCallerAbandon", 11, Queue="support") == []  # app_queue says so of who waited too long, too
    assert say("QueueCallerLeave", 11, Queue="support") == []
    assert say("VarSet", 11, Variable="QUEUESTATUS", Value="TIMEOUT") == []
    assert say("QueueCallerJoin", 12, Queue="sales", Position="1") == [
        Visited("support", QueueOutcome.TIMEOUT, 10.0),
        Visited("sales", None),
    ]
    assert say("Hangup", 15, Cause="0") == [Visited("sales", QueueOutcome.ABANDONED, 3.0)]
    assert say("Hangup", 16, Cause="0") == []
