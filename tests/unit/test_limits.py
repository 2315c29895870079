"""Token buckets and counted tries, by a clock that the test moves."""

from trunkline.identity import limits
from trunkline.identity.limits import Buckets, Tries


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


def test_so_many_tries_and_then_none_for_a_while() -> None:
    clock = Clock()
    tries = Tries(3, 60, clock=clock)
    assert [tries.begin("a") for _ in range(4)] == [0.0, 0.0, 0.0, 60.0]
    assert tries.begin("b") == 0.0
    clock.now += 59
    assert tries.begin("a") == 1.0
    clock.now += 1
    assert [tries.begin("a") for _ in range(4)] == [0.0, 0.0, 0.0, 60.0]


def test_one_that_went_well_takes_one_back() -> None:
    tries = Tries(2, 60, clock=Clock())
    for _ in range(10):
        assert tries.begin("a") == 0.0
        tries.went_well("a")
    assert [tries.begin("a") for _ in range(3)] == [0.0, 0.0, 60.0]


def test_tries_are_forgotten_only_where_that_is_said() -> None:
    clock = Clock()
    forgets, remembers = Tries(2, 60, forget_s=60, clock=clock), Tries(2, 60, clock=clock)
    for tries in (forgets, remembers):
        assert tries.begin("a") == 0.0
    clock.now += 61
    for tries in (forgets, remembers):
        assert tries.begin("a") == 0.0
    assert (forgets.begin("a"), remembers.begin("a")) == (0.0, 60.0)


def test_strangers_do_not_fill_the_memory(monkeypatch) -> None:
    monkeypatch.setattr(limits, "_MOST", 10)
    buckets, tries = Buckets(1.0, clock=Clock()), Tries(2, 60, clock=Clock())
    for n in range(100):
        buckets.take(str(n))
        tries.begin(str(n))
    assert len(buckets._left) == len(tries._of) == 10
