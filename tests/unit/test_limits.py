"""Token buckets, by a clock that the test moves."""

from trunkline.identity import limits
from trunkline.identity.limits import Buckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3.0, clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b") == 0.0
    clock.now += 0.5
    assert [buckets.take("a") for _ in range(2)] == [0.0, 0.5]
    clock.now += 3600
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_who_keeps_asking_is_not_kept_out_for_it() -> None:
    clock = Clock()
    buckets = Buckets(1.0, 1.0, clock=clock)
    assert buckets.take("a") == 0.0
    for _ in range(100):
        clock.now += 0.009
        assert buckets.take("a") > 0
    clock.now += 0.2
    assert buckets.take("a") == 0.0


def test_strangers_do_not_fill_the_memory(monkeypatch) -> None:
    monkeypatch.setattr(limits, "_MOST", 10)
    buckets = Buckets(1.0, clock=Clock())
    for n in range(100):
        buckets.take(str(n))
    assert len(buckets._left) == 10
