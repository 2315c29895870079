"""The picture of queues and agents: what members, callers and phones do, one event after another."""

from datetime import UTC, datetime
from typing import Any

import pytest

from trunkline.asterisk.event import Event
from trunkline.asterisk.lists import Snapshot
from trunkline.calls.queue_record import AgentStatus, MemberRecord, QueuesUpdate
from trunkline.calls.queues import MOST_MEMBERS, MOST_QUEUES
from trunkline.calls.tracker import Tracker

T0 = 1_795_000_000.0
NAMES = {"1001": "Alice Able", "1002": "Bob Baker"}


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


class Pbx:
    """An Asterisk with the queue `support`."""

    def __init__(self) -> None:
        self.tracker = Tracker("p")
        self.at = T0

    def say(self, kind: str, fields: dict[str, str]) -> None:
        self.at += 1.0
        self.tracker.handle(Event(kind, self.at, fields))

    def member(self, extension: str, kind: str = "QueueMemberPenalty", queue: str = "support", **fields: Any) -> None:
        self.say(kind, row(extension, queue) | {key: str(value) for key, value in fields.items()})

    def channel(self, uid: str, endpoint: str, linkedid: str = "", state: str = "6") -> dict[str, str]:
        return {
            "Channel": f"{endpoint}-{uid}", "ChannelState": state, "CallerIDNum": "15551234567", "Exten": "s",
            "Uniqueid": uid, "Linkedid": linkedid or uid,
        }  # fmt: skip

    def caller(self, uid: str) -> dict[str, str]:
        fields = self.channel(uid, "PJSIP/trunk")
        self.say("Newchannel", fields | {"ChannelState": "4"})
        return fields

    def joins(self, uid: str, position: int, queue: str = "support") -> None:
        self.say("QueueCallerJoin", self.caller(uid) | {"Queue": queue, "Position": str(position)})

    def take(self) -> QueuesUpdate:
        update = self.tracker.take_queues()
        assert update is not None
        return update

    def line(self, queue: str = "support") -> list[tuple[str, int]]:
        record = self.take().queues[queue]
        assert record is not None
        return [(caller.channel_id, caller.position) for caller in record.waiting]

    def status(self, extension: str) -> tuple[AgentStatus, float]:
        agent = self.take().agents[extension]
        return agent.status, agent.status_since.timestamp() - T0


def row(extension: str, queue: str = "support") -> dict[str, str]:
    return {
        "Queue": queue, "MemberName": NAMES.get(extension, ""), "Interface": f"PJSIP/{extension}",
        "StateInterface": f"PJSIP/{extension}", "Membership": "static", "Penalty": "0", "CallsTaken": "0",
        "LastCall": "0", "LastPause": "0", "LoginTime": str(int(T0)), "InCall": "0", "Status": "1", "Paused": "0",
        "PausedReason": "",
    }  # fmt: skip


def listed(extension: str, **fields: str) -> dict[str, str]:
    fields = row(extension) | fields
    return fields | {"Location": fields.pop("Interface"), "Name": fields.pop("MemberName")}


@pytest.fixture
def pbx() -> Pbx:
    return Pbx()


def test_a_member_is_what_his_last_event_says(pbx: Pbx) -> None:
    pbx.member("1001", "QueueMemberAdded", Membership="dynamic", Penalty=3)
    pbx.member("1001", "QueueMemberPause", Paused=1, PausedReason="lunch", LastPause=int(T0) + 5, CallsTaken=7)
    update = pbx.take()
    assert update.members["support", "PJSIP/1001"] == MemberRecord(
        queue="support", interface="PJSIP/1001", extension="1001", name="Alice Able", membership="static", penalty=0,
        paused=True, paused_reason="lunch", paused_since=moment(T0 + 5), in_call=False, calls_taken=7,
        last_call_at=None, logged_in_since=moment(T0),
    )  # fmt: skip
    assert (update.agents["1001"].paused, update.agents["1001"].queues) == (True, ("support",))
    assert pbx.tracker.take_queues() is None
    pbx.member("1001", queue="sales")
    assert pbx.take().agents["1001"].paused is False  # in one of his two queues only
    pbx.member("1001", "QueueMemberRemoved")
    assert pbx.take().members == {("support", "PJSIP/1001"): None}
    pbx.member("1001", "QueueMemberRemoved", queue="sales")
    agent = pbx.take().agents["1001"]
    assert (agent.status, agent.queues, agent.logged_in_since) == (AgentStatus.LOGGED_OUT, (), None)


@pytest.mark.parametrize(
    ("state", "status"),
    [("0", "UNKNOWN"), ("1", "AVAILABLE"), ("2", "IN_USE"), ("3", "IN_USE"), ("4", "UNAVAILABLE"), ("5", "UNAVAILABLE"),
     ("6", "RINGING"), ("7", "IN_USE"), ("8", "ON_HOLD"), ("", "UNKNOWN"), ("x", "UNKNOWN")],
)  # fmt: skip
def test_states_of_the_device(pbx: Pbx, state: str, status: str) -> None:
    pbx.member("1001", Status=state)
    assert pbx.status("1001") == (AgentStatus(status), 1.0)


def test_what_the_phone_does_is_seen_at_its_channels(pbx: Pbx) -> None:
    """Where a device is busy from its first call on, its state is 3 from the ringing to the end."""
    pbx.member("1001")
    assert pbx.status("1001") == (AgentStatus.AVAILABLE, 1.0)
    caller = pbx.caller("c.0")
    desk = pbx.channel("c.1", "PJSIP/1001", "c.0", state="0")
    pbx.say("Newchannel", desk)
    assert pbx.status("1001") == (AgentStatus.RINGING, 3.0)
    pbx.member("1001", Status=3)
    assert pbx.status("1001") == (AgentStatus.RINGING, 3.0)
    pbx.say("Newstate", desk | {"ChannelState": "6"})
    assert pbx.status("1001") == (AgentStatus.IN_USE, 5.0)
    pbx.say("Hold", desk)
    assert pbx.status("1001") == (AgentStatus.ON_HOLD, 6.0)
    pbx.say("Unhold", desk)
    assert pbx.status("1001") == (AgentStatus.IN_USE, 7.0)
    pbx.say("Hangup", desk | {"Cause": "16"})
    assert pbx.status("1001") == (AgentStatus.AVAILABLE, 8.0)
    pbx.say("Hangup", caller | {"Cause": "16"})
    pbx.say("Newchannel", pbx.channel("c.2", "PJSIP/1001", state="4"))  # he dials
    assert pbx.status("1001")[0] is AgentStatus.IN_USE


def test_a_phone_that_goes_and_comes_back(pbx: Pbx) -> None:
    pbx.member("1001")
    pbx.member("1001", queue="sales")
    pbx.take()
    for word, status in (("Unreachable", "UNAVAILABLE"), ("Registered", "AVAILABLE"), ("Unregistered", "UNAVAILABLE")):
        pbx.say("PeerStatus", {"Peer": "PJSIP/1001", "PeerStatus": word})
        assert pbx.status("1001") == (AgentStatus(status), pbx.at - T0)
        pbx.say("PeerStatus", {"Peer": "PJSIP/1001", "PeerStatus": word})
        pbx.say("PeerStatus", {"Peer": "PJSIP/1001", "PeerStatus": "Rejected"})
        pbx.say("PeerStatus", {"Peer": "PJSIP/trunk", "PeerStatus": word})
        assert pbx.tracker.take_queues() is None


@pytest.mark.parametrize("device", ["Local/1003@agents/n", "hint:1003@ext-local"])
def test_a_member_by_a_local_interface_is_known_by_its_number(pbx: Pbx, device: str) -> None:
    pbx.member("1003", Interface="Local/1003@agents/n", StateInterface=device, Status=1)
    assert pbx.status("1003")[0] is AgentStatus.AVAILABLE
    pbx.caller("c.0")
    pbx.say("Newchannel", pbx.channel("c.1", "PJSIP/1003", "c.0", state="5"))
    assert pbx.status("1003")[0] is AgentStatus.RINGING


def test_callers_move_up(pbx: Pbx) -> None:
    pbx.joins("c.0", 1)
    pbx.joins("c.1", 2)
    pbx.joins("c.2", 1)  # of a higher priority
    assert pbx.line() == [("c.2", 1), ("c.0", 2), ("c.1", 3)]
    pbx.say("QueueCallerLeave", pbx.channel("c.0", "PJSIP/trunk") | {"Queue": "support"})
    assert pbx.line() == [("c.2", 1), ("c.1", 2)]
    pbx.say("QueueCallerAbandon", pbx.channel("c.2", "PJSIP/trunk") | {"Queue": "support"})
    assert pbx.line() == [("c.1", 1)]
    pbx.say("Hangup", pbx.channel("c.1", "PJSIP/trunk") | {"Cause": "0"})  # all else was lost
    assert pbx.line() == []


def test_the_next_queue_takes_him_out_of_the_one_before(pbx: Pbx) -> None:
    pbx.joins("c.0", 1)
    pbx.say("QueueCallerJoin", pbx.channel("c.0", "PJSIP/trunk") | {"Queue": "sales", "Position": "1"})
    queues = pbx.take().queues
    assert [len(queues[name].waiting) for name in ("support", "sales")] == [0, 1]  # type: ignore[union-attr]


def test_who_is_connected_is_in_a_call_of_the_queue(pbx: Pbx) -> None:
    pbx.member("1001")
    pbx.joins("c.0", 1)
    desk = {f"Dest{key}": value for key, value in pbx.channel("c.1", "PJSIP/1001", "c.0").items()}
    caller = pbx.channel("c.0", "PJSIP/trunk")
    pbx.take()
    pbx.say("AgentConnect", caller | desk | {"Queue": "support", "Interface": "PJSIP/1001"})
    update = pbx.take()
    member = update.members["support", "PJSIP/1001"]
    assert member is not None
    assert (member.in_call, member.calls_taken) == (True, 0)
    assert update.queues["support"].waiting == ()  # type: ignore[union-attr]
    pbx.say("AgentComplete", caller | desk | {"Queue": "support", "Interface": "PJSIP/1001"})
    member = pbx.take().members["support", "PJSIP/1001"]
    assert member is not None
    assert (member.in_call, member.calls_taken, member.last_call_at) == (False, 1, moment(pbx.at))


def snapshot(at: float, **lists: Any) -> Snapshot:
    whole = {"queues": [{"Queue": "support", "Strategy": "linear"}], "queues_whole": True}
    entries = lists.pop("entries", [])
    return Snapshot(at, lists.pop("channels", {}), {}, entries, [], {}, **whole | lists)


def test_the_lists_put_the_picture_right(pbx: Pbx) -> None:
    pbx.member("1001")
    pbx.member("1002")
    pbx.member("1001", queue="old")
    pbx.joins("c.0", 1)
    pbx.joins("c.1", 2)
    pbx.joins("c.2", 1, queue="old")
    pbx.take()
    entries = [
        {"Queue": "support", "Uniqueid": "c.1", "Position": "2", "Wait": "9"},
        {"Queue": "support", "Uniqueid": "c.9", "Position": "1", "Wait": "60"},
    ]
    channels = {uid: pbx.channel(uid, "PJSIP/trunk") for uid in ("c.1", "c.9")}
    at = T0 + 100
    pbx.tracker.resync(snapshot(at, channels=channels, entries=entries, queue_members=[listed("1002", Penalty="5")]))
    update = pbx.take()
    assert update.whole
    assert update.queues["old"] is None
    support = update.queues["support"]
    assert support is not None
    assert support.strategy == "linear"
    assert [(c.channel_id, c.position, c.since) for c in support.waiting] == [
        ("c.9", 1, moment(at - 60)),
        ("c.1", 2, support.waiting[1].since),
    ]
    assert {key for key, member in update.members.items() if member is None} == {
        ("support", "PJSIP/1001"),
        ("old", "PJSIP/1001"),
    }
    assert update.members["support", "PJSIP/1002"].penalty == 5  # type: ignore[union-attr]
    assert update.agents["1001"].status is AgentStatus.LOGGED_OUT
    assert update.agents["1002"].status_since == moment(T0 + 2)  # nothing has changed for him


def test_lists_that_are_not_whole_prove_no_absence(pbx: Pbx) -> None:
    pbx.member("1001")
    pbx.joins("c.0", 1)
    channels = {"c.0": pbx.channel("c.0", "PJSIP/trunk")}
    pbx.take()
    pbx.tracker.resync(snapshot(pbx.at + 9, channels=channels, queues=[], queues_whole=False))
    assert pbx.tracker.take_queues() is None
    # nor does a row that a caller broke prove that he has gone
    name = frozenset({channels["c.0"]["Channel"]})
    pbx.tracker.resync(snapshot(pbx.at + 9, channels={}, queue_members=[listed("1001")], unreadable=name))
    assert pbx.line() == [("c.0", 1)]


def test_the_pbx_that_goes_takes_its_callers_with_it(pbx: Pbx) -> None:
    pbx.member("1001")
    pbx.joins("c.0", 1)
    pbx.take()
    pbx.tracker.lost(pbx.at)
    assert pbx.line() == []


def test_the_newest_of_two_updates_wins(pbx: Pbx) -> None:
    pbx.member("1001")
    pbx.member("1002")
    first = pbx.take()
    pbx.member("1001", Paused=1)
    pbx.member("1002", "QueueMemberRemoved")
    both = first.then(pbx.take())
    assert both.members["support", "PJSIP/1001"].paused  # type: ignore[union-attr]
    assert both.members["support", "PJSIP/1002"] is None
    pbx.tracker.resync(snapshot(pbx.at, queue_members=[listed("1001")]))
    whole = pbx.take()
    assert both.then(whole) is whole
    pbx.member("1001", Paused=1)
    assert whole.then(pbx.take()).whole


def test_what_strangers_can_make_of_it_is_bounded(pbx: Pbx) -> None:
    for n in range(MOST_QUEUES + 5):
        pbx.member("1001", queue=f"q{n}")
    assert len(pbx.take().queues) == MOST_QUEUES
    for n in range(MOST_MEMBERS):
        pbx.member(f"{n}", queue="q1")
    assert len(pbx.take().members) <= MOST_MEMBERS
    pbx.member("x", LastCall="9" * 400, LoginTime="-1", Penalty="9" * 400, CallsTaken="٣", queue="q1")
