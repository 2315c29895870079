"""`Metrics`: the registry of this process, what is pushed into it and the page that Prometheus scrapes."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from trunkline.calls.queue_record import SHORT_S, TARGET_S
from trunkline.calls.record import LIVE, CallUpdate
from trunkline.metrics.families import MAX_VALUES, OTHER, PULLED, Pulled
from trunkline.metrics.queues import QueueMetrics

Reading = float | Mapping[str, float]
"""What a source gives: one number, or the live dict of its counters by label value (copied here, never changed)."""

MAX_PBXS = 256
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WRITE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_COMMIT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0, 30.0)
_BATCH_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)
_HTTP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Metrics:
    """Everything one process tells Prometheus. Its methods may be called from any thread."""

    def __init__(self, version: str) -> None:
        # The _created series double the page, and Prometheus makes no use of them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self._sources = _Sources()
        registry.register(self._sources)
        ProcessCollector(registry=registry)
        build = Gauge("trunkline_build_info", "1, labelled with what runs.", ["version", "python"], registry=registry)
        build.labels(version, platform.python_version()).set(1)
        self._ended = Counter(
            "trunkline_calls_ended",
            "Calls ended, by direction and final status.",
            ["pbx", "direction", "status"],
            registry=registry,
        )
        self._quality = Counter(
            "trunkline_calls_ended_quality",
            "Calls ended, by how well they were seen: OBSERVED whole, REPAIRED or ESTIMATED after a gap.",
            ["pbx", "quality"],
            registry=registry,
        )
        self._merged = Counter(
            "trunkline_calls_merged", "Calls folded into an earlier one.", ["pbx"], registry=registry
        )
        self._write = Histogram(
            "trunkline_store_write_seconds",
            "Time to write one batch of changed calls.",
            buckets=_WRITE_BUCKETS_S,
            registry=registry,
        )
        self._batch = Histogram(
            "trunkline_store_batch_calls", "Changed calls in one batch.", buckets=_BATCH_BUCKETS, registry=registry
        )
        self._failed = Counter(
            "trunkline_store_writes_failed", "Batches that PostgreSQL did not take.", registry=registry
        )
        self._commit = Histogram(
            "trunkline_event_to_commit_seconds",
            "Time from an event's arrival to the commit of the call it changed; the oldest event of each batch.",
            buckets=_COMMIT_BUCKETS_S,
            registry=registry,
        )
        self.queues = QueueMetrics(registry, target_s=TARGET_S, short_s=SHORT_S)
        self._requests = Counter(
            "trunkline_http_requests", "HTTP requests answered.", ["method", "route", "code"], registry=registry
        )
        self._refusals = Counter(
            "trunkline_http_refusals", "Requests answered with a problem, by its code.", ["reason"], registry=registry
        )
        self._request_time = Histogram(
            "trunkline_http_request_seconds",
            "Time to answer an HTTP request.",
            ["route"],
            buckets=_HTTP_BUCKETS_S,
            registry=registry,
        )

    def pull(self, family: Pulled, pbx: str, read: Callable[[], Reading]) -> None:
        """Let `read` be asked for a family's numbers of one PBX ("" where there is none) at each scrape.

        It is called on the HTTP thread: it must be quick, must not raise, and may hand out a dict that another thread
        goes on changing. A second source for the same family and PBX takes the place of the first.
        """
        self._sources.plug(family, pbx, read)

    def count_updates(self, pbx: str, updates: Iterable[CallUpdate]) -> None:
        """Count the calls that ended or merged in what the tracker handed out."""
        for update in updates:
            record = update.record
            if "call.ended" in update.happened and record.status not in LIVE:
                self._ended.labels(pbx, record.direction.value, record.status.value).inc()
                self._quality.labels(pbx, record.quality.value).inc()
            if "call.merged" in update.happened:
                self._merged.labels(pbx).inc()

    def observe_write(self, calls: int, seconds: float, event_to_commit_s: float | None = None) -> None:
        """Tell of one committed batch; `event_to_commit_s` is the age of its oldest event, None when not known."""
        self._write.observe(seconds)
        self._batch.observe(calls)
        if event_to_commit_s is not None:
            self._commit.observe(event_to_commit_s)

    def count_failed_write(self) -> None:
        """Count a batch that could not be written (and went to the spool)."""
        self._failed.inc()

    def observe_request(self, method: str, route: str, code: int, seconds: float) -> None:
        """Tell of one answered request; `route` is the route's pattern, never the path asked for."""
        self._requests.labels(method if method in _METHODS else OTHER, route, str(code)).inc()
        self._request_time.labels(route).observe(seconds)

    def count_refusal(self, code: str) -> None:
        """Count a request that was answered with a problem; `code` is one of a closed set."""
        self._refusals.labels(code).inc()

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """Return the page in the format that an Accept header asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class _Sources(Collector):
    """The pulled families, read at scrape time."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], Callable[[], Reading]] = {}
        self._values: dict[str, set[str]] = {}
        self._errors = 0

    def plug(self, family: Pulled, pbx: str, read: Callable[[], Reading]) -> None:
        if family not in PULLED:
            raise ValueError(f"{family.name} is not one of the families of trunkline.metrics.families.PULLED")
        if len({known for _, known in self._read} | {pbx}) > MAX_PBXS:
            raise ValueError(f"more than {MAX_PBXS} PBXs in one process: run several cores")
        self._read = {**self._read, (family.name, pbx): read}  # replaced, not changed: a scrape may be going over it

    def collect(self) -> Iterator[Metric]:
        """Yield each family with the numbers of now. A source that fails is left out and counted."""
        sources = self._read
        for family in PULLED:
            labels = ["pbx", family.label] if family.label else ["pbx"]
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(family.name, family.help, labels=labels)
            for (name, pbx), read in sources.items():
                if name == family.name:
                    for values, number in self._samples(family, pbx, read):
                        metric.add_metric(values, number)
            yield metric
        yield CounterMetricFamily(
            "trunkline_metrics_source_errors", "Sources of metrics that failed when they were read.", value=self._errors
        )

    def _samples(self, family: Pulled, pbx: str, read: Callable[[], Reading]) -> list[tuple[Sequence[str], float]]:
        try:
            reading = read()
            if family.label is None:
                if isinstance(reading, Mapping):
                    reading = sum(dict(reading).values())
                return [((pbx,), float(reading))]
            # dict() of a dict copies in one step, so that the thread which counts may go on meanwhile.
            counts = dict(reading) if isinstance(reading, Mapping) else {OTHER: float(reading)}
            folded: dict[str, float] = {}
            for value, number in counts.items():
                bounded = self._bounded(family, str(value))
                folded[bounded] = folded.get(bounded, 0.0) + float(number)
        except Exception:
            self._errors += 1
            return []
        return [((pbx, value), number) for value, number in folded.items()]

    def _bounded(self, family: Pulled, value: str) -> str:
        if family.allowed is not None:
            return value if value in family.allowed else OTHER
        seen = self._values.setdefault(family.name, set())
        if value not in seen:
            if len(seen) >= MAX_VALUES or len(value) > 64:
                return OTHER
            seen.add(value)
        return value
