"""Metrics: labels stay within their closed sets whatever comes in, and a scrape disturbs nobody."""

import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Quality, Status
from trunkline.metrics import PULLED, Metrics, families


def parsed(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """The page by sample name and label values, in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.page()[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(v for _, v in sorted(sample.labels.items()))] = sample.value
    return found


@given(st.dictionaries(st.text(max_size=20) | st.sampled_from(["Hangup", "Newchannel"]), st.integers(0, 10**9)))
def test_kinds_that_asterisk_does_not_have_are_counted_together(counts: dict[str, int]) -> None:
    metrics = Metrics("test")
    metrics.pull(families.EVENTS_READ, "office", lambda: counts)
    page = parsed(metrics).get("trunkline_ami_events_read_total", {})
    assert {kind for kind, _ in page} <= {*counts, "other"}
    assert all(kind == "other" or kind in (families.EVENTS_READ.allowed or ()) for kind, _ in page)
    assert sum(page.values()) == pytest.approx(sum(counts.values()))


def test_open_labels_are_bounded_too() -> None:
    metrics = Metrics("test")
    metrics.pull(families.EVENTS_REFUSED, "office", lambda: {f"reason{n}": 1 for n in range(1000)})
    metrics.pull(families.FRAMES_BAD, "office", lambda: {"x" * 1000: 7})
    page = parsed(metrics)
    assert len(page["trunkline_ami_events_refused_total"]) == families.MAX_VALUES + 1
    assert page["trunkline_ami_events_refused_total"][("office", "other")] == 1000 - families.MAX_VALUES
    assert page["trunkline_ami_frames_bad_total"] == {("office", "other"): 7}


def test_names_follow_prometheus_conventions() -> None:
    assert len({family.name for family in PULLED}) == len(PULLED)
    for family in PULLED:
        assert family.name.startswith("trunkline_")
        assert family.help.endswith(".")
        assert not family.name.endswith("_total"), "the exposition adds it"
        assert "milliseconds" not in family.name


def test_a_source_that_fails_is_left_out_and_counted() -> None:
    metrics = Metrics("test")
    metrics.pull(families.RESYNCS, "office", lambda: 1 // 0)
    metrics.pull(families.CONNECTS, "office", lambda: 4)
    page = parsed(metrics)
    assert "trunkline_ami_resyncs_total" not in page
    assert page["trunkline_ami_connects_total"] == {("office",): 4}
    assert page["trunkline_metrics_source_errors_total"] == {(): 1}


def test_only_declared_families_and_a_bounded_number_of_pbxs() -> None:
    metrics = Metrics("test")
    with pytest.raises(ValueError, match="PULLED"):
        metrics.pull(families.Pulled("mine", "gauge", "Mine."), "office", lambda: 1)
    for n in range(256):
        metrics.pull(families.LINK_UP, str(n), lambda: 1)
    with pytest.raises(ValueError, match="256"):
        metrics.pull(families.LINK_UP, "one more", lambda: 1)


def test_a_scrape_beside_a_thread_that_counts() -> None:
    metrics = Metrics("test")
    counts: dict[str, int] = {}
    stop = threading.Event()
    metrics.pull(families.EVENTS_READ, "office", lambda: counts)

    def count() -> None:
        while not stop.is_set():
            for n in range(5000):
                counts[str(n)] = counts.get(str(n), 0) + 1
            counts.clear()

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(50):
            page = parsed(metrics)
            assert page["trunkline_metrics_source_errors_total"] == {(): 0}
    finally:
        stop.set()
        thread.join()


def test_two_in_one_process_do_not_meet() -> None:
    one, two = Metrics("one"), Metrics("two")
    one.count_failed_write()
    assert parsed(one)["trunkline_store_writes_failed_total"] == {(): 1}
    assert parsed(two)["trunkline_store_writes_failed_total"] == {(): 0}


def test_calls_are_counted_when_they_end_and_by_how_well_they_were_seen() -> None:
    metrics = Metrics("test")

    def update(status: Status, *happened: str, quality: Quality = Quality.OBSERVED) -> CallUpdate:
        started_at = datetime(2026, 1, 1, tzinfo=UTC)
        return CallUpdate(
            CallRecord(
                pbx="office",
                external_id="1",
                direction=Direction.INBOUND,
                status=status,
                started_at=started_at,
                from_="02079460001",
                quality=quality,
            ),
            happened,
        )

    metrics.count_updates(
        "office",
        [
            update(Status.RINGING, "call.ringing"),
            update(Status.COMPLETED, "call.answered", "call.ended"),
            update(Status.COMPLETED),
            update(Status.MISSED, "call.merged", "call.ended", quality=Quality.ESTIMATED),
        ],
    )
    page = parsed(metrics)
    assert page["trunkline_calls_ended_total"] == {
        ("INBOUND", "office", "COMPLETED"): 1,
        ("INBOUND", "office", "MISSED"): 1,
    }
    assert page["trunkline_calls_ended_quality_total"] == {("office", "OBSERVED"): 1, ("office", "ESTIMATED"): 1}
    assert page["trunkline_calls_merged_total"] == {("office",): 1}
    assert "0207946" not in metrics.page()[0].decode()


def test_writes_are_timed() -> None:
    metrics = Metrics("test")
    metrics.observe_write(40, 0.004, 0.03)
    metrics.observe_write(1, 0.001)
    page = parsed(metrics)
    assert page["trunkline_store_write_seconds_count"] == {(): 2}
    assert page["trunkline_store_batch_calls_sum"] == {(): 41}
    assert page["trunkline_event_to_commit_seconds_count"] == {(): 1}
    assert page["trunkline_event_to_commit_seconds_bucket"][("0.05",)] == 1


def test_every_metric_is_in_the_documentation_and_nothing_else_is() -> None:
    metrics = Metrics("test")
    told = set(re.findall(r"trunkline_\w+", (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")))
    families = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()}
    assert told == {name for name in families if name.startswith("trunkline_")}
