"""The waits between tries."""

from trunkline.asterisk.backoff import Backoff


def test_jitter_takes_off_up_to_half() -> None:
    assert Backoff(jitter=lambda: 0.0).next_s(refused=False) == 0.2
    assert Backoff(jitter=lambda: 1.0).next_s(refused=False) == 0.1


def test_a_short_session_does_not_reset() -> None:
    backoff = Backoff(jitter=lambda: 0.0)
    waits = [backoff.next_s(refused=False) for _ in range(3)]
    backoff.held(1.0)
    waits.append(backoff.next_s(refused=False))
    backoff.held(11.0)
    waits.append(backoff.next_s(refused=False))
    assert waits == [0.2, 0.4, 0.8, 1.6, 0.2]


def test_it_never_grows_past_its_cap() -> None:
    backoff = Backoff(jitter=lambda: 0.0)
    assert max(backoff.next_s(refused=False) for _ in range(2000)) == 30.0
    assert max(backoff.next_s(refused=True) for _ in range(2000)) == 300.0
