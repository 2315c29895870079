"""The queues of one PBX as the events so far say: who waits, who serves, how each is.

Each QueueMember event holds its member whole, so one that was lost is made good by the next. Of callers there are only
comings and goings: a place in the line that one missed is put right by the next resync. What an agent's phone does is
seen at its channels, and by PeerStatus that it has come or gone. The state of its device would say less: where that
counts as busy from the first call on (device_state_busy_at), it does not tell ringing from talking.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trunkline.asterisk.lists import Snapshot
from trunkline.calls.names import extension_of, known
from trunkline.calls.queue_record import AgentRecord, AgentStatus, MemberRecord, QueueRecord, QueuesUpdate, Waiting

if TYPE_CHECKING:
    from trunkline.calls.live import Live
    from trunkline.calls.model import Channel

MOST_QUEUES = 1_000
MOST_MEMBERS = 10_000  # of all queues; the dialplan may make members of what callers say
MOST_WAITING = 10_000
_LONGEST_S = 30 * 86_400

# Source: include/asterisk/devicestate.h, enum ast_device_state
_DEVICE_STATES = {
    "1": AgentStatus.AVAILABLE,
    "2": AgentStatus.IN_USE,
    "3": AgentStatus.IN_USE,  # busy: as many calls as it may have
    "4": AgentStatus.UNAVAILABLE,  # no such device
    "5": AgentStatus.UNAVAILABLE,
    "6": AgentStatus.RINGING,
    "7": AgentStatus.IN_USE,  # and one more rings
    "8": AgentStatus.ON_HOLD,
}


_PEER_STATES = {
    **dict.fromkeys(("Registered", "Reachable", "Lagged"), AgentStatus.AVAILABLE),
    **dict.fromkeys(("Unregistered", "Unreachable", "Unknown"), AgentStatus.UNAVAILABLE),
}
_PHONES = ("PJSIP/", "SIP/")  # what a phone's channels may be called where its member is a Local channel or a hint
_BUSY = frozenset({AgentStatus.RINGING, AgentStatus.IN_USE, AgentStatus.ON_HOLD})


class _Caller:
    __slots__ = ("since", "uniqueid")

    def __init__(self, uniqueid: str, since: float) -> None:
        self.uniqueid = uniqueid
        self.since = since


class _Member:
    __slots__ = (
        "calls_taken", "extension", "in_call", "interface", "last_call", "logged_in", "membership", "name",
        "paused", "paused_at", "paused_reason", "penalty", "queue", "status",
    )  # fmt: skip

    def __init__(self, queue: str, interface: str, device: str) -> None:
        self.queue = queue
        self.interface = interface
        self.extension = extension_of_interface(device)
        self.name = ""
        self.membership = ""
        self.penalty = 0
        self.paused = False
        self.paused_reason: str | None = None
        self.paused_at: float | None = None
        self.in_call = False
        self.calls_taken = 0
        self.last_call: float | None = None
        self.logged_in: float | None = None
        self.status = AgentStatus.UNKNOWN


class _Queue:
    __slots__ = ("callers", "members", "name", "strategy")

    def __init__(self, name: str) -> None:
        self.name = name
        self.strategy: str | None = None
        self.callers: list[_Caller] = []  # the first in the line first
        self.members: dict[str, _Member] = {}  # by interface


class _Agent:
    __slots__ = ("since", "status")

    def __init__(self, status: AgentStatus, since: float) -> None:
        self.status = status
        self.since = since


class Queues:
    """The picture. What has changed is remembered until `take`."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._agents: dict[str, _Agent] = {}
        self._places: dict[str, dict[tuple[str, str], _Member]] = {}  # extension -> (queue, interface) -> place
        self.devices: dict[str, str] = {}  # the name of an agent's phone -> extension
        self._where: dict[str, _Queue] = {}  # Uniqueid of a caller -> his queue
        self._members = 0
        self._whole = False
        self._resynced_at = 0.0
        self._changed_queues: set[str] = set()
        self._changed_members: set[tuple[str, str]] = set()
        self._changed_agents: dict[str, float] = {}  # extension -> when
        self.refused = 0  # queues, members and callers beyond what is kept

    # ---- callers

    def join(self, name: str, uniqueid: str, position: int | None, at: float) -> None:
        """A caller enters a queue, at that place of the line; None: the last."""
        queue = self._queue(name)
        if queue is None or self._where.get(uniqueid) is queue:
            return
        self.leave(uniqueid)
        if len(self._where) >= MOST_WAITING:
            self.refused += 1
            return
        place = len(queue.callers) if position is None else min(max(position - 1, 0), len(queue.callers))
        queue.callers.insert(place, _Caller(uniqueid, at))
        self._where[uniqueid] = queue
        self._changed_queues.add(name)

    def leave(self, uniqueid: str) -> None:
        """A caller has left whatever queue he was in."""
        queue = self._where.pop(uniqueid, None)
        if queue is not None:
            queue.callers = [caller for caller in queue.callers if caller.uniqueid != uniqueid]
            self._changed_queues.add(queue.name)

    def leave_all(self) -> None:
        """The PBX has gone, and who waited there."""
        for uniqueid in list(self._where):
            self.leave(uniqueid)

    # ---- members

    def member(self, f: dict[str, str], at: float, interface: str, name: str) -> None:
        """How a member is: what all QueueMember events and the rows of the list say."""
        queue = self._queue(f["Queue"])
        if queue is None:
            return
        member = queue.members.get(interface)
        if member is None:
            if self._members >= MOST_MEMBERS:
                self.refused += 1
                return
            self._members += 1
            member = queue.members[interface] = _Member(queue.name, interface, f.get("StateInterface") or interface)
            self._places.setdefault(member.extension, {})[queue.name, interface] = member
            for device in (f.get("StateInterface", ""), *(tech + member.extension for tech in _PHONES)):
                self.devices[device] = member.extension
        member.name = name
        member.membership = f.get("Membership", member.membership)
        member.penalty = _number(f.get("Penalty")) or 0
        member.paused = f.get("Paused") == "1"
        member.paused_reason = known(f.get("PausedReason")) if member.paused else None
        member.paused_at = _time(f.get("LastPause")) if member.paused else None
        member.in_call = f.get("InCall") == "1"
        member.calls_taken = _number(f.get("CallsTaken")) or 0
        member.last_call = _time(f.get("LastCall"))
        member.logged_in = _time(f.get("LoginTime"))
        member.status = _DEVICE_STATES.get(f.get("Status", ""), AgentStatus.UNKNOWN)
        self._changed_members.add((queue.name, interface))
        self._changed_agents[member.extension] = at

    def member_gone(self, name: str, interface: str, at: float) -> None:
        """A member has left a queue."""
        queue = self._queues.get(name)
        member = queue.members.pop(interface, None) if queue is not None else None
        if member is not None:
            self._members -= 1
            del self._places[member.extension][name, interface]
            self._changed_members.add((name, interface))
            self._changed_agents[member.extension] = at

    def connected(self, name: str, interface: str) -> None:
        """A member talks to a caller of the queue; no QueueMember event says so."""
        queue = self._queues.get(name)
        member = queue.members.get(interface) if queue is not None else None
        if member is not None and not member.in_call:
            member.in_call = True
            self._changed_members.add((name, interface))

    def completed(self, name: str, interface: str, at: float) -> None:
        """A member has talked to a caller of the queue."""
        queue = self._queues.get(name)
        member = queue.members.get(interface) if queue is not None else None
        if member is not None:
            member.in_call = False
            member.calls_taken += 1
            member.last_call = at
            self._changed_members.add((name, interface))

    def peer(self, name: str, status: AgentStatus, at: float) -> None:
        """A phone has come or gone."""
        extension = self.devices.get(name)
        for member in self._places.get(extension, {}).values() if extension is not None else ():
            if member.status is not status:
                member.status = status
                self._changed_agents[member.extension] = at

    def phone(self, ch: "Channel", at: float) -> None:
        """Something has happened at this channel of one of `devices`: he may be in another state."""
        self._changed_agents[self.devices[ch.endpoint]] = at

    def phone_free(self, ch: "Channel", at: float) -> None:
        """A channel has gone. If it was the agent's last he is free; should his phone be gone too, an event says so."""
        extension = self.devices[ch.endpoint]
        self._changed_agents[extension] = at
        for member in self._places.get(extension, {}).values():
            if member.status in _BUSY:
                member.status = AgentStatus.AVAILABLE

    # ---- the lists

    def reconcile(self, snapshot: Snapshot) -> None:
        """Put the picture right by the PBX's lists; where they are not whole, only what they name."""
        at = snapshot.at
        for row in snapshot.queues:
            queue = self._queue(row.get("Queue", ""))
            if queue is not None:
                queue.strategy = row.get("Strategy", queue.strategy)
        listed = set()
        for row in snapshot.queue_members:
            if "Queue" in row and "Location" in row:
                listed.add((row["Queue"], row["Location"]))
                self.member(row, at, row["Location"], row.get("Name", ""))
        waiting = {row["Uniqueid"] for row in snapshot.queue_entries if "Uniqueid" in row}
        if snapshot.queues_whole:
            self._whole, self._resynced_at = True, at
            names = {row.get("Queue", "") for row in snapshot.queues}
            for queue in list(self._queues.values()):
                for interface in [i for i in queue.members if (queue.name, i) not in listed]:
                    self.member_gone(queue.name, interface, at)
                if queue.name not in names:
                    for caller in queue.callers:
                        self._where.pop(caller.uniqueid, None)
                    del self._queues[queue.name]
                    self._changed_queues.add(queue.name)
            if not snapshot.unreadable:  # one whose row was broken may still wait
                for uniqueid in [u for u in self._where if u not in waiting]:
                    self.leave(uniqueid)
        rows = [row for row in snapshot.queue_entries if "Uniqueid" in row and "Queue" in row]
        for row in sorted(rows, key=lambda row: _number(row.get("Position")) or 0):
            since = at - min(_number(row.get("Wait")) or 0, _LONGEST_S)
            self.join(row["Queue"], row["Uniqueid"], _number(row.get("Position")), since)
            self._put(row["Uniqueid"], _number(row.get("Position")))

    def _put(self, uniqueid: str, position: int | None) -> None:
        """Move a caller to the place where the PBX has him."""
        queue = self._where.get(uniqueid)
        if queue is None or position is None:
            return
        place = min(max(position - 1, 0), len(queue.callers) - 1)
        if queue.callers[place].uniqueid != uniqueid:
            caller = next(caller for caller in queue.callers if caller.uniqueid == uniqueid)
            queue.callers.remove(caller)
            queue.callers.insert(place, caller)
            self._changed_queues.add(queue.name)

    # ---- what is told

    @property
    def changed(self) -> bool:
        """Is there something to take?"""
        return bool(self._whole or self._changed_queues or self._changed_members or self._changed_agents)

    def take(self, live: "Live", pbx: str) -> QueuesUpdate | None:
        """What has changed since the last time; None: nothing."""
        if not self.changed:
            return None
        if self._whole:
            self._changed_queues |= self._queues.keys()
            for queue in self._queues.values():
                self._changed_members |= {(queue.name, interface) for interface in queue.members}
            members = [member for queue in self._queues.values() for member in queue.members.values()]
            self._changed_agents = {
                **dict.fromkeys((member.extension for member in members), self._resynced_at),
                **self._changed_agents,
            }
        update = QueuesUpdate(
            pbx,
            self._whole,
            {name: self._queue_record(live, self._queues.get(name)) for name in self._changed_queues},
            {key: self._member_record(*key) for key in self._changed_members},
            self._agent_records(live),
        )
        self._whole = False
        self._changed_queues, self._changed_members, self._changed_agents = set(), set(), {}
        return update

    def _queue_record(self, live: "Live", queue: _Queue | None) -> QueueRecord | None:
        if queue is None:
            return None
        waiting = []
        for place, caller in enumerate(queue.callers):
            ch = live.channels.get(caller.uniqueid)
            of_call = caller.uniqueid if ch is None else ch.call.external_id
            waiting.append(Waiting(caller.uniqueid, of_call, place + 1, _moment(caller.since)))
        return QueueRecord(name=queue.name, strategy=queue.strategy, waiting=tuple(waiting))

    def _member_record(self, name: str, interface: str) -> MemberRecord | None:
        queue = self._queues.get(name)
        member = queue.members.get(interface) if queue is not None else None
        if member is None:
            return None
        return MemberRecord(
            queue=name,
            interface=interface,
            extension=member.extension,
            name=member.name,
            membership=member.membership,
            penalty=member.penalty,
            paused=member.paused,
            paused_reason=member.paused_reason,
            paused_since=_maybe(member.paused_at),
            in_call=member.in_call,
            calls_taken=member.calls_taken,
            last_call_at=_maybe(member.last_call),
            logged_in_since=_maybe(member.logged_in),
        )

    def _agent_records(self, live: "Live") -> dict[str, AgentRecord]:
        if not self._changed_agents:
            return {}
        phones: dict[str, list[Channel]] = {}
        for ch in live.channels.values():
            of = self.devices.get(ch.endpoint)
            if of is not None:
                phones.setdefault(of, []).append(ch)
        records = {}
        for extension, at in self._changed_agents.items():
            members = list(self._places.get(extension, {}).values())
            status = _status(members, phones.get(extension, ()))
            agent = self._agents.get(extension)
            if agent is None:
                agent = self._agents[extension] = _Agent(status, at)
            elif agent.status is not status:
                agent.status, agent.since = status, at
            records[extension] = AgentRecord(
                extension=extension,
                name=next((member.name for member in members), ""),
                status=status,
                status_since=_moment(agent.since),
                paused=bool(members) and all(member.paused for member in members),
                queues=tuple(sorted(member.queue for member in members)),
                logged_in_since=_maybe(min((m.logged_in for m in members if m.logged_in is not None), default=None)),
            )
            if not members:
                del self._agents[extension]
                self._places.pop(extension, None)
                for device in [device for device, of in self.devices.items() if of == extension]:
                    del self.devices[device]
        return records

    def _queue(self, name: str) -> _Queue | None:
        queue = self._queues.get(name)
        if queue is None and name:
            if len(self._queues) >= MOST_QUEUES:
                self.refused += 1
                return None
            queue = self._queues[name] = _Queue(name)
            self._changed_queues.add(name)
        return queue


def _status(members: list[_Member], channels: "Iterable[Channel]") -> AgentStatus:
    """What his phone does, by its channels; else what the PBX says of it."""
    if not members:
        return AgentStatus.LOGGED_OUT
    talks = held = rings = False
    for ch in channels:
        if ch.answered_at is None and not ch.came_in:
            rings = True
        elif any(hold.uniqueid == ch.uniqueid and hold.ended_at is None for hold in ch.call.holds):
            held = True
        else:
            talks = True
    if talks:
        return AgentStatus.IN_USE
    if held:
        return AgentStatus.ON_HOLD
    if rings:
        return AgentStatus.RINGING
    return members[0].status


def extension_of_interface(device: str) -> str:
    """Of PJSIP/1003, Local/1003@agents/n and hint:1003@ext-local 1003."""
    if device.startswith(("Local/", "hint:")):
        return device[len("Local/") if device.startswith("Local/") else len("hint:") :].partition("@")[0]
    return extension_of(device, None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 9 and text.isascii() and text.isdigit() else None


def _time(text: str | None) -> float | None:
    """Epoch seconds; 0 and what is none are None."""
    plain = text is not None and len(text) <= 11 and text.isascii() and text.isdigit()
    return float(text or 0) or None if plain else None


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _maybe(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


# ---- handlers


def queue_member(live: "Live", f: dict[str, str], at: float) -> None:
    """QueueMemberAdded, -Pause, -Penalty, -Ringinuse: the member as he is now."""
    live.queues.member(f, at, f["Interface"], f["MemberName"])


def queue_member_removed(live: "Live", f: dict[str, str], at: float) -> None:
    live.queues.member_gone(f["Queue"], f["Interface"], at)


def peer_status(live: "Live", f: dict[str, str], at: float) -> None:
    status = _PEER_STATES.get(f["PeerStatus"])  # others, as Rejected, say nothing of the phone
    if status is not None:
        live.queues.peer(f["Peer"], status, at)
