"""What a (re)connected session asks the PBX for, and the answers put together. Pure.

Rows of a list action carry neither Timestamp nor SystemName, and a caller's number stands in them raw: a row counts
only if it has an ActionID of ours, which nobody can guess, and all of its keys once.  Source: FINDINGS, "Resync".
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from trunkline.asterisk.event import Frame

RESYNC_ACTIONS = ("CoreShowChannels", "Status", "BridgeList", "QueueStatus", "ParkedCalls")

_ROW_KINDS = {
    "CoreShowChannel": "CoreShowChannels",
    "Status": "Status",
    "BridgeListItem": "BridgeList",
    "BridgeInfoChannel": "BridgeInfo",
    "QueueParams": "QueueStatus",
    "QueueMember": "QueueStatus",
    "QueueEntry": "QueueStatus",
    "ParkedCall": "ParkedCalls",
}
_COMPLETE_KINDS = {
    "CoreShowChannelsComplete": "CoreShowChannels",
    "StatusComplete": "Status",
    "BridgeListComplete": "BridgeList",
    "BridgeInfoComplete": "BridgeInfo",
    "QueueStatusComplete": "QueueStatus",
    "ParkedCallsComplete": "ParkedCalls",
}
LIST_KINDS = frozenset(_ROW_KINDS) | frozenset(_COMPLETE_KINDS)


_SNAPSHOT = (
    "Channel ChannelState ChannelStateDesc CallerIDNum CallerIDName ConnectedLineNum ConnectedLineName Language "
    "AccountCode Context Exten Priority Uniqueid Linkedid"
).split()
_BEHIND = {
    "CoreShowChannel": frozenset("Application ApplicationData Duration BridgeId ChanVariable ActionID".split()),
    "Status": frozenset(
        "Type DNID EffectiveConnectedLineNum EffectiveConnectedLineName TimeToHangup BridgeID Application Data "
        "Nativeformats Readformat Readtrans Writeformat Writetrans Callgroup Pickupgroup Seconds Variable ChanVariable "
        "ActionID".split()
    ),
}


def _is_regular(frame: Frame) -> bool:
    """Are these the row's own keys, in Asterisk's order, and no caller's? Values behind a channel's ids may repeat."""
    if "\r\n\r\n" in frame.irregular:
        return False
    repeated = {key for key, _ in frame.repeated}
    behind = _BEHIND.get(frame.kind)
    if behind is None:
        return not repeated
    keys = list(frame.fields)
    start = keys.index("Channel") if "Channel" in keys else len(keys)
    end = start + len(_SNAPSHOT)
    return (
        repeated <= {"Variable", "ChanVariable"}
        and keys[start:end] == _SNAPSHOT
        and set(keys[:start]) <= {"Event", "Privilege", "ActionID"}
        and set(keys[end:]) <= behind
    )


class Snapshot(NamedTuple):
    """What the PBX says is there. All rows as AMI has them (names still C-escaped)."""

    at: float  # epoch seconds, when the last row was read
    channels: dict[str, dict[str, str]]  # by Uniqueid: CoreShowChannel with Status' further fields
    bridges: dict[str, dict[str, str]]  # by BridgeUniqueid
    queue_entries: list[dict[str, str]]
    parked: list[dict[str, str]]
    variables: dict[str, dict[str, str]]  # by Uniqueid: what Getvar found, name -> value
    whole: bool = True  # False: a row is missing, so absence from `channels` proves nothing
    queues: Sequence[dict[str, str]] = ()
    queue_members: Sequence[dict[str, str]] = ()
    queues_whole: bool = False  # the three lists of queues hold all there is, broken rows aside
    unreadable: frozenset[str] = frozenset()  # names of channels whose rows callers broke: nothing is known of those


class ListCollector:
    """Gathers the answers to list actions.

    action_ids: ActionID -> action name, of what was sent. None: take any that a Response announces (a capture's
    replay).
    """

    def __init__(self, action_ids: Mapping[str, str] | None) -> None:
        self._sent = dict(action_ids) if action_ids is not None else None
        self._open: dict[str, str] = dict(self._sent or {})
        self._rows: dict[str, list[dict[str, str]]] = {}
        self._whole = True
        self._torn: set[str] = set()  # actions whose rows are not as many as were announced
        self._broken: dict[str, int] = {}
        self._unreadable: set[str] = set()
        self.started = False
        self.failed: dict[str, str] = {}  # action -> the PBX's words, where it refused

    @property
    def done(self) -> bool:
        """Nothing asked for is still to come."""
        return not self._open

    def feed(self, frame: Frame) -> bool:
        """Take a frame if it is part of an answer of ours; False for an event, or somebody else's response."""
        action_id = frame.fields.get("ActionID")
        if action_id is None:
            return False
        if not frame.kind:
            return self._response(action_id, frame.fields)
        action = self._open.get(action_id)
        if action is None:
            return False
        rows = self._rows.setdefault(action, [])
        if _COMPLETE_KINDS.get(frame.kind) == action:
            expected = frame.fields.get("ListItems", "")
            if expected.isdigit() and int(expected) != len(rows) + self._broken.get(action, 0):
                self._whole = False
                self._torn.add(action)
            del self._open[action_id]
        elif _ROW_KINDS.get(frame.kind) == action:
            if _is_regular(frame):
                rows.append(frame.fields | {"": frame.kind})
            else:  # a caller's value broke it; the channel's name stands before any of those
                self._broken[action] = self._broken.get(action, 0) + 1
                self._unreadable.add(frame.fields.get("Channel", ""))
        return True

    def _response(self, action_id: str, fields: dict[str, str]) -> bool:
        if self._sent is None:
            if fields.get("EventList") == "start":
                action = _ANNOUNCED.get(fields.get("Message", ""))
                if action is not None:
                    self._open[action_id] = action
                    self._rows[action] = []
                    self.started = True
            return True
        action = self._open.get(action_id)
        if action is None:
            return False
        self.started = True
        if fields.get("Response") == "Error":
            self.failed[action] = fields.get("Message", "")
            del self._open[action_id]
            if action == "CoreShowChannels":
                self._whole = False
        return True

    def rows(self, action: str) -> list[dict[str, str]]:
        """The rows of that action so far; the key "" holds the row's kind."""
        return self._rows.get(action, [])

    def snapshot(self, at: float, variables: dict[str, dict[str, str]] | None = None) -> Snapshot:
        """All that was gathered, as one picture."""
        channels: dict[str, dict[str, str]] = {}
        for row in self.rows("CoreShowChannels"):
            if row.get("Uniqueid") and row.get("Channel"):
                channels[row["Uniqueid"]] = row
            else:
                self._whole = False
        for row in self.rows("Status"):
            known = channels.get(row.get("Uniqueid", ""))
            if known is not None:
                channels[row["Uniqueid"]] = row | known
        return Snapshot(
            at,
            channels,
            {row["BridgeUniqueid"]: row for row in self.rows("BridgeList") if "BridgeUniqueid" in row},
            [row for row in self.rows("QueueStatus") if row[""] == "QueueEntry"],
            self.rows("ParkedCalls"),
            variables or {},
            self._whole and "CoreShowChannels" in self._rows,
            queues=[row for row in self.rows("QueueStatus") if row[""] == "QueueParams"],
            queue_members=[row for row in self.rows("QueueStatus") if row[""] == "QueueMember"],
            queues_whole="QueueStatus" in self._rows and not self._unsure("QueueStatus"),
            unreadable=frozenset(self._unreadable),
        )

    def _unsure(self, action: str) -> bool:
        """May there be more than its rows say?"""
        return action in self._torn or action in self.failed or action in self._open.values()


_ANNOUNCED = {
    "Channels will follow": "CoreShowChannels",
    "Channel status will follow": "Status",
    "Bridge listing will follow": "BridgeList",
    "Bridge channel listing will follow": "BridgeInfo",
    "Queue status will follow": "QueueStatus",
    "Parked calls will follow": "ParkedCalls",
}
