"""Queues for Prometheus: counters of what became of callers, gauges of how it is now. docs/metrics.md defines each.

A queue's name is its PBX administrator's; there are not many, but a label is bounded all the same: beyond MOST_NAMES
names the rest is `other`, together.
"""

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trunkline.calls.queue_record import AgentStatus, QueuesUpdate, Visited
from trunkline.calls.record import QueueOutcome
from trunkline.metrics.families import OTHER

MOST_NAMES: Final = 100
LONGEST_NAME: Final = 80
_WAIT_BUCKETS_S: Final = (2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)
_PAUSED: Final = "PAUSED"
_OUTCOMES: Final = {
    QueueOutcome.ANSWERED: "ANSWERED",
    QueueOutcome.ABANDONED: "ABANDONED",
    QueueOutcome.TIMEOUT: "TIMED_OUT",
    QueueOutcome.EMPTY: "TIMED_OUT",
    QueueOutcome.LEFT: "LEFT",
}
_SHORT: Final = "SHORT_ABANDONED"


class QueueMetrics:
    """What one process tells Prometheus of its queues. target_s, short_s: as in docs/metrics.md."""

    def __init__(self, registry: CollectorRegistry, *, target_s: float, short_s: float) -> None:
        self._target_s, self._short_s = target_s, short_s
        self._names: set[str] = set()
        self._now = _Now(self._name)
        registry.register(self._now)
        self._offered = Counter(
            "trunkline_queue_calls_offered", "Callers who came into a queue.", ["pbx", "queue"], registry=registry
        )
        self._ended = Counter(
            "trunkline_queue_calls_ended",
            "Callers who left a queue, by how; TIMED_OUT: the queue gave them up.",
            ["pbx", "queue", "outcome"],
            registry=registry,
        )
        self._in_time = Counter(
            "trunkline_queue_calls_answered_within_target",
            f"Callers answered within {target_s:g} s.",
            ["pbx", "queue"],
            registry=registry,
        )
        self._wait = Histogram(
            "trunkline_queue_answer_wait_seconds",
            "How long those waited who were answered.",
            ["pbx", "queue"],
            buckets=_WAIT_BUCKETS_S,
            registry=registry,
        )
        self._folded = Counter(
            "trunkline_queue_names_folded",
            f"Times that a queue beyond the first {MOST_NAMES} names was counted as `other`.",
            registry=registry,
        )

    def count(self, pbx: str, visits: Iterable[Visited]) -> None:
        """Count callers who came or left."""
        for visit in visits:
            queue = self._name(visit.queue)
            if visit.outcome is None:
                self._offered.labels(pbx, queue).inc()
                continue
            outcome = _OUTCOMES[visit.outcome]
            if visit.outcome is QueueOutcome.ABANDONED and visit.waited_s < self._short_s:
                outcome = _SHORT
            self._ended.labels(pbx, queue, outcome).inc()
            if visit.outcome is QueueOutcome.ANSWERED:
                self._wait.labels(pbx, queue).observe(visit.waited_s)
                if visit.waited_s <= self._target_s:
                    self._in_time.labels(pbx, queue).inc()

    def follow(self, pbx: str, seen: Callable[[], bool]) -> None:
        """A PBX's gauges are shown while it is seen: what was before is nothing to be shown as now."""
        self._now.follow(pbx, seen)

    def picture(self, pbx: str, update: QueuesUpdate) -> None:
        """How the queues are now."""
        self._now.take(pbx, update)

    def _name(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) >= MOST_NAMES or len(name) > LONGEST_NAME:
            self._folded.inc()
            return OTHER
        self._names.add(name)
        return name


class _Now(Collector):
    """The gauges, made of the picture at each scrape."""

    def __init__(self, name: Callable[[str], str]) -> None:
        self._name = name
        self._seen: dict[str, Callable[[], bool]] = {}
        self._pictures: dict[str, QueuesUpdate] = {}  # never changed, but replaced: a scrape is another thread's

    def follow(self, pbx: str, seen: Callable[[], bool]) -> None:
        self._seen = {**self._seen, pbx: seen}

    def take(self, pbx: str, update: QueuesUpdate) -> None:
        held = self._pictures.get(pbx)
        now = update if held is None else held.then(update)
        now = now._replace(
            queues={name: queue for name, queue in now.queues.items() if queue is not None},
            members={key: member for key, member in now.members.items() if member is not None},
            agents={key: agent for key, agent in now.agents.items() if agent.status is not AgentStatus.LOGGED_OUT},
        )
        self._pictures = {**self._pictures, pbx: now}

    def collect(self) -> Iterator[Metric]:
        labels = ["pbx", "queue"]
        waiting = GaugeMetricFamily("trunkline_queue_waiting", "Callers who wait now.", labels=labels)
        longest = GaugeMetricFamily(
            "trunkline_queue_longest_wait_seconds",
            "How long he who came first has waited; 0: nobody waits.",
            labels=labels,
        )
        agents = GaugeMetricFamily(
            "trunkline_queue_agents",
            "Members of a queue, by state; PAUSED whatever their phones do.",
            labels=[*labels, "state"],
        )
        now = time.time()
        for pbx, picture in self._pictures.items():
            if not self._seen.get(pbx, bool)():
                continue
            callers: Counts[str] = Counts()
            oldest: dict[str, float] = {}
            for queue in picture.queues.values():
                if queue is None:
                    continue
                name = self._name(queue.name)
                callers[name] += len(queue.waiting)
                waits = [now - caller.since.timestamp() for caller in queue.waiting]
                oldest[name] = max([oldest.get(name, 0.0), *waits])
            states: Counts[tuple[str, str]] = Counts()
            for member in picture.members.values():
                if member is not None:
                    agent = picture.agents.get(member.extension)
                    status = AgentStatus.UNKNOWN if agent is None else agent.status
                    states[self._name(member.queue), _PAUSED if member.paused else status.value] += 1
            for name, number in callers.items():
                waiting.add_metric([pbx, name], number)
                longest.add_metric([pbx, name], oldest[name])
            for (name, state), number in states.items():
                agents.add_metric([pbx, name, state], number)
        yield from (waiting, longest, agents)
