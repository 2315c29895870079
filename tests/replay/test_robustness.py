"""The robustness scores of docs/calls.md, with their figures printed (pytest -s, or on a failure)."""

import pytest
from robustness import MODES, Score, score
from scoring import scored

# Percent wrong, of the events that the tracker reads. Some of what a lost event said, nothing else says.
LIMITS = {"dropped": 1.5, "doubled": 0.0, "swapped": 0.1, "booted": 0.0}


@pytest.mark.parametrize("mode", MODES)
def test_robustness(mode: str, capsys: pytest.CaptureFixture[str]):
    found: Score = score(scored(), mode)
    wrong = 100 * found.wrong / found.tried
    with capsys.disabled():
        print(
            f"\nrobustness: {mode}: {found.wrong} wrong ({wrong:.2f} %), {found.raised} raised, {found.leaked} leaked"
            f" of {found.tried}"
        )
    assert found.tried > 1000
    assert found.raised == 0
    assert found.leaked == 0
    assert wrong <= LIMITS[mode]
