"""Queues and agents in the recorded streams of a real Asterisk."""

from itertools import pairwise

import pytest
from scoring import CAPTURES

from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.guard import Guard
from trunkline.asterisk.lists import Snapshot
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.queue_record import AgentStatus, QueuesUpdate
from trunkline.calls.tracker import Tracker
from trunkline.replay import Replay, sessions_of, systemname_of


def in_the_end(name: str) -> QueuesUpdate | None:
    sessions = sessions_of(CAPTURES / name)
    names = [known for known in map(systemname_of, sessions) if known is not None]
    replay = Replay(("PJSIP/trunk*",), None, names[0] if names else None)
    for session in sessions:
        replay.session(session)
    return replay.tracker.take_queues()


@pytest.mark.parametrize("name", sorted(path.name for path in CAPTURES.iterdir()))
def test_in_the_end_nobody_waits_and_every_agent_is_free(name: str):
    update = in_the_end(name)
    if update is not None:
        assert all(queue is not None and queue.waiting == () for queue in update.queues.values())
        assert {agent.status for agent in update.agents.values()} <= {AgentStatus.AVAILABLE, AgentStatus.LOGGED_OUT}
        assert not any(member.in_call for member in update.members.values() if member is not None)


def test_members_come_pause_and_go():
    update = in_the_end("e_queue_members")
    assert update is not None
    assert update.whole
    assert {queue.name: queue.strategy for queue in update.queues.values() if queue is not None} == {
        "sales": "ringall", "support": "linear", "support-local": "linear",
    }  # fmt: skip
    assert update.members["sales", "PJSIP/1003"] is None
    assert update.agents["1003"].status is AgentStatus.LOGGED_OUT
    assert update.agents["1001"].queues == ("support", "support-local")


LISTED = [
    {"Queue": "support", "Location": f"PJSIP/{n}", "StateInterface": f"PJSIP/{n}", "Name": n, "Status": "1"}
    for n in ("1001", "1002")
]


def statuses(name: str) -> dict[str, list[str]]:
    """What each agent's status was, one after another, and how many waited."""
    (data,) = sessions_of(CAPTURES / name)
    guard = Guard(systemname_of(data))
    tracker = Tracker("p")
    tracker.resync(Snapshot(0.0, {}, {}, [], [], {}, queues=[{"Queue": "support"}], queue_members=LISTED))
    seen: dict[str, list[str]] = {}
    for frame in [None, *Decoder(wanted=NEEDED, fields=FIELDS).feed(data)]:
        event = None if frame is None else guard.check(frame, 0.0)
        if event is not None:
            tracker.handle(event)
        update = tracker.take_queues()
        for agent in update.agents.values() if update is not None else ():
            seen.setdefault(agent.extension, []).append(agent.status)
        for queue in update.queues.values() if update is not None else ():
            if queue is not None:
                seen.setdefault(queue.name, []).append(str(len(queue.waiting)))
    return {key: [one for one, after in pairwise([*some, ""]) if one != after] for key, some in seen.items()}


def test_an_agent_rings_talks_and_is_free_again():
    """This PBX has its phones busy from their first call on: their state as devices would not tell these apart."""
    seen = statuses("e_queue_second_agent")
    assert seen["1001"] == ["AVAILABLE", "RINGING", "AVAILABLE"]
    assert seen["1002"] == ["AVAILABLE", "RINGING", "IN_USE", "AVAILABLE"]
    assert seen["support"] == ["0", "1", "0"]
    held = statuses("h_hold_unhold")["1001"]
    assert held == ["AVAILABLE", "RINGING", "IN_USE", "ON_HOLD", "IN_USE", "ON_HOLD", "IN_USE", "AVAILABLE"]
