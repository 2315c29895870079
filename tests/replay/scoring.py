"""What a capture's Calls must say against what they say; adapted from the project's conformance scorer."""

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec

from trunkline.calls.record import CallRecord

CAPTURES = Path(__file__).parent / "captures"
COUNTED = {"recordings", "holds", "parked"}  # expected: a number, or what each must say
SETS = {"rang", "participants"}
NOT_COMPARED = {"callerNameSent", "callerSent"}  # what the driver sent, not what the PBX showed
COUNT_ONLY = {"q_callerid_hostile"}


def expected_calls(name: str) -> list[dict[str, Any]] | None:
    """None: the capture is there to be read, not to be scored."""
    return json.loads((CAPTURES / name / "expected.json").read_text())["calls"]


def scored() -> list[str]:
    """Names of the captures that say what their Calls must be."""
    return sorted(p.name for p in CAPTURES.iterdir() if expected_calls(p.name) is not None)


def as_json(records: list[CallRecord]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(r) for r in records]


def differences(want: dict[str, Any], got: dict[str, Any], without: frozenset[str]) -> list[str]:
    out = []
    for key, w in want.items():
        g = got.get(key)
        if key in NOT_COMPARED:
            continue
        if key in COUNTED and not isinstance(w, list):
            g = len(g or [])
            ok = g == w
        elif key in SETS:
            ok = sorted(g or []) == sorted(w)
        elif key == "transfers" or key in COUNTED:
            ok = len(g or []) == len(w) and all(
                all(a[k] == v for k, v in b.items() if k not in without) for a, b in zip(g, w, strict=True)
            )
        else:
            ok = g == w
        if not ok:
            out.append(f"{key}: want {w!r}, got {g!r}")
    return out


def compare(name: str, got: list[dict[str, Any]], without: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with these Calls; empty when they are right. Calls are matched in the order that fits best.

    without: keys of a list's entries (a transfer's, a recording's) that are not compared.
    """
    want = expected_calls(name)
    assert want is not None
    if len(want) != len(got):
        return [f"calls: want {len(want)}, got {len(got)}"]
    if name in COUNT_ONLY:
        return []
    best: list[str] | None = None
    for order in itertools.permutations(range(len(got))):
        found = [f"call {i}: {d}" for i, j in enumerate(order) for d in differences(want[i], got[j], without)]
        if best is None or len(found) < len(best):
            best = found
        if not found:
            break
    return best or []
