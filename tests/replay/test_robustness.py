"""The robustness scores of docs/calls.md, with their figures printed (pytest -s, or on a failure)."""

import pytest
from robustness import MODES, Score, score
from scoring import scored

LIMITS = {
    "dropped": 1.0,
    "doubled": 0.0,
    "swapped": 1.0,
    "booted": 0.0,
}  # percent wrong, of the events the tracker reads


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
