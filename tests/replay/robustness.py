"""The robustness scores of docs/calls.md: each event of each capture dropped, doubled, swapped; FullyBooted.

`python tests/replay/robustness.py [CAPTURE…]` prints what went wrong where.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from scoring import CAPTURES, as_json, compare, expected_calls, scored

from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.guard import Guard
from trunkline.asterisk.lists import LIST_KINDS, ListCollector, Snapshot
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.record import CallRecord
from trunkline.calls.tracker import Tracker
from trunkline.replay import sessions_of, systemname_of

Step = Event | Snapshot
BOOTED = Event("FullyBooted", 0.0, {"Event": "FullyBooted", "Status": "Fully Booted", "Uptime": "0"})
# What a lost event said and nothing else says: each MixMonitorMute is one end of a span.
UNTOLD = {"dropped": frozenset({"pausedSpans"})}
MODES = ("dropped", "doubled", "swapped", "booted")


class Score(NamedTuple):
    tried: int
    wrong: int
    raised: int
    leaked: int


def steps_of(name: str) -> tuple[str, list[Step]]:
    """The capture as the tracker is fed with it: events that passed the guard, and resync pictures."""
    sessions = sessions_of(CAPTURES / name)
    systemname = next((n for n in map(systemname_of, sessions) if n), "")
    guard = Guard(systemname)
    steps: list[Step] = []
    for data in sessions:
        lists: ListCollector | None = None
        frames = Decoder(wanted={**NEEDED, **dict.fromkeys(LIST_KINDS)}, fields=FIELDS).feed(data)
        for frame in frames:
            if isinstance(frame, Frame) and "ActionID" in frame.fields:
                lists = lists or ListCollector(None)
                if lists.feed(frame):
                    continue
            event = guard.check(frame, 0.0)
            if event is None:
                continue
            if lists is not None and lists.started and lists.done:
                steps.append(lists.snapshot(event.at))
                lists = None
            steps.append(event)
    return systemname, steps


def play(systemname: str, steps: list[Step]) -> tuple[list[CallRecord], int]:
    """The Calls, and how many channels are left once a resync list says that there are none."""
    tracker = Tracker(systemname)
    calls: dict[str, CallRecord] = {}
    for step in steps:
        if isinstance(step, Snapshot):
            tracker.resync(step)
        else:
            tracker.handle(step)
    end = max((s.at for s in steps), default=0.0)
    tracker.resync(Snapshot(end + 1.0, {}, {}, [], [], {}))
    for update in tracker.take():
        for alias in update.record.aliases:
            calls.pop(alias, None)
        calls[update.record.external_id] = update.record
    return list(calls.values()), tracker.channels + tracker.live


def variants(steps: list[Step], mode: str) -> Iterator[tuple[str, list[Step]]]:
    for i, step in enumerate(steps):
        if isinstance(step, Snapshot):
            continue
        what = f"{i} {step.kind} {step.fields.get('Channel') or step.fields.get('DestChannel') or ''}"
        before, after = steps[:i], steps[i + 1 :]
        if mode == "dropped":
            yield what, before + after
        elif mode == "doubled":
            yield what, [*before, step, step, *after]
        elif mode == "booted":
            yield what, [*before, BOOTED, step, *after]
        elif after and not isinstance(after[0], Snapshot):
            yield f"{what} <> {after[0].kind}", [*before, after[0], step, *after[1:]]


def score(names: list[str], mode: str, *, say: bool = False) -> Score:
    tried = wrong = raised = leaked = 0
    for name in names:
        systemname, steps = steps_of(name)
        for what, changed in variants(steps, mode):
            tried += 1
            try:
                records, left = play(systemname, changed)
            except Exception as error:
                raised += 1
                if say:
                    print(f"{mode:8} {name}: {what}: raised {error!r}")
                continue
            leaked += bool(left)
            found = compare(name, as_json(records), UNTOLD.get(mode, frozenset()))
            wrong += bool(found)
            if say and (found or left):
                print(f"{mode:8} {name}: {what}: {found[:3]} left {left}")
    return Score(tried, wrong, raised, leaked)


def main() -> None:
    names = sys.argv[1:] or scored()
    events = sum(
        data.count(b"\r\n\r\nEvent: ") + data.startswith(b"Event: ")
        for name in names
        for data in sessions_of(CAPTURES / name)
    )
    for mode in MODES:
        s = score(names, mode, say=True)
        print(
            f"{mode}: {s.wrong} wrong, {s.raised} raised, {s.leaked} leaked of {s.tried} that the tracker reads "
            f"({100 * s.wrong / max(1, s.tried):.2f} %) among {events} events ({100 * s.wrong / max(1, events):.2f} %)"
        )
    unscored = sorted(p.name for p in CAPTURES.iterdir() if expected_calls(p.name) is None)
    print("not scored:", ", ".join(unscored))


if __name__ == "__main__":
    main()
