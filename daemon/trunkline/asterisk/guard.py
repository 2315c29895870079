"""What the guard believes: an event counts only if Asterisk wrote it, all of it. Pure.

A caller can put CR LF into his number, or into the number he dials, and so write lines and whole blocks into the stream
(FINDINGS: event forging; each value is cut at 80 characters). Genuine events begin with Event, Privilege, Timestamp,
SystemName, then the channel's or bridge's own fields, in an order that never changes: those are too many characters for
one value to imitate. What a caller broke is mended where the safe parts say enough (the head before the first number,
the ids in front of the tail), else refused; both are counted, and `suspicious` tells the link to resync.
"""

import re

from trunkline.asterisk.event import Event, Frame, Shape

_GENUINE = "genuine"
_SHAPES_JUDGED = 10_000  # remembered; sessions come and go, and an outsider can invent shapes
_ORDER = ["Event", "Privilege", "Timestamp", "SystemName"]
_TIMESTAMP = re.compile(r"\d{9,11}\.\d{6}")
_PRIVILEGE = re.compile(r"[a-z]+(,[a-z]+)*")
_REPEATS_BY_DESIGN = re.compile(
    r"(Dest|Transferer|Transferee|OrigTransferer|SecondTransferer|TransferTarget|Parkee|Parker|"
    r"Retriever|Local(One|Two)|Source|Target|Spyer|Spyee)?ChanVariable"
)

_CHANNEL = ("Channel", "Uniqueid", "Linkedid")
_DEST = ("DestChannel", "DestUniqueid", "DestLinkedid")
_BRIDGE = ("BridgeUniqueid",)
_LOCALS = ("LocalOneChannel", "LocalOneUniqueid", "LocalTwoChannel", "LocalTwoUniqueid")
_PARKEE = ("ParkeeChannel", "ParkeeUniqueid", "ParkeeLinkedid", "ParkingSpace")

# Its name, and the reason of its pause, may be an agent's own words: with all of these, each once, they change nothing.
_MEMBER = (
    "Queue", "MemberName", "Interface", "StateInterface", "Membership", "Penalty", "CallsTaken", "LastCall", "Status",
    "Paused",
)  # fmt: skip

REQUIRED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        "Newchannel Newstate NewCallerid NewConnectedLine Hold Unhold HangupRequest SoftHangupRequest DTMFEnd "
        "DTMFBegin MixMonitorStart MixMonitorStop MixMonitorMute MusicOnHoldStart MusicOnHoldStop".split(),
        _CHANNEL,
    ),
    "Hangup": (*_CHANNEL, "Cause"),
    "Rename": ("Channel", "Newname", "Uniqueid"),
    "Newexten": (*_CHANNEL, "Application"),
    "VarSet": (*_CHANNEL, "Variable", "Value"),
    "DialBegin": _DEST,
    "DialState": (*_DEST, "DialStatus"),
    "DialEnd": (*_DEST, "DialStatus"),
    "BridgeCreate": _BRIDGE,
    "BridgeDestroy": _BRIDGE,
    "BridgeEnter": _BRIDGE + _CHANNEL,
    "BridgeLeave": _BRIDGE + _CHANNEL,
    "BridgeMerge": ("ToBridgeUniqueid", "FromBridgeUniqueid"),
    "BlindTransfer": ("Result", "TransfererChannel", "TransfererUniqueid", "TransfererLinkedid"),
    "AttendedTransfer": (
        "Result", "OrigTransfererChannel", "OrigTransfererUniqueid", "OrigTransfererLinkedid",
        "SecondTransfererChannel", "SecondTransfererUniqueid", "SecondTransfererLinkedid",
    ),
    "Pickup": (*_CHANNEL, "TargetChannel", "TargetUniqueid", "TargetLinkedid"),
    "LocalBridge": _LOCALS,
    "LocalOptimizationBegin": _LOCALS,
    "LocalOptimizationEnd": _LOCALS,
    "ParkedCall": _PARKEE,
    "ParkedCallGiveUp": _PARKEE,
    "ParkedCallTimeOut": _PARKEE,
    "ParkedCallSwap": _PARKEE,
    "UnParkedCall": (*_PARKEE, "RetrieverChannel", "RetrieverUniqueid", "RetrieverLinkedid"),
    "QueueCallerJoin": (*_CHANNEL, "Queue"),
    "QueueCallerLeave": (*_CHANNEL, "Queue"),
    "QueueCallerAbandon": (*_CHANNEL, "Queue"),
    **dict.fromkeys(
        "QueueMemberAdded QueueMemberRemoved QueueMemberStatus QueueMemberPause QueueMemberPenalty "
        "QueueMemberRinginuse".split(),
        _MEMBER,
    ),
    "PeerStatus": ("ChannelType", "Peer", "PeerStatus"),
    "AgentCalled": (*_CHANNEL, *_DEST, "Queue"),
    "AgentConnect": (*_CHANNEL, *_DEST, "Queue"),
    "AgentComplete": (*_CHANNEL, *_DEST, "Queue"),
    "AgentRingNoAnswer": (*_CHANNEL, *_DEST, "Queue"),
    "ConfbridgeStart": ("Conference", "BridgeUniqueid"),
    "ConfbridgeEnd": ("Conference", "BridgeUniqueid"),
    "ConfbridgeJoin": ("Conference", "BridgeUniqueid", *_CHANNEL),
    "ConfbridgeLeave": ("Conference", "BridgeUniqueid", *_CHANNEL),
    "OriginateResponse": ("Response", "Channel", "Uniqueid"),
    "Shutdown": ("Shutdown",),
}  # fmt: skip

# Of a broken event: what stands behind the last value that a caller can write, up to the end (optional ones in
# brackets).
_IDS = ["Priority", "Uniqueid", "Linkedid"]
_DEST_IDS = ["DestPriority", "DestUniqueid", "DestLinkedid"]
_MENDABLE: dict[str, tuple[list[str], ...]] = {
    **dict.fromkeys("Newchannel Newstate NewCallerid NewConnectedLine BridgeLeave Unhold".split(), (_IDS,)),
    "BridgeEnter": (_IDS, [*_IDS, "SwapUniqueid"]),
    "Hold": (_IDS, [*_IDS, "MusicClass"]),
    "HangupRequest": (_IDS, [*_IDS, "Cause"]),
    "SoftHangupRequest": (_IDS, [*_IDS, "Cause"]),
    "Hangup": ([*_IDS, "Cause", "Cause-txt"],),
    "DialBegin": ([*_DEST_IDS, "DialString"],),
    "DialState": ([*_DEST_IDS, "DialStatus"],),
    "DialEnd": ([*_DEST_IDS, "DialStatus"], [*_DEST_IDS, "DialStatus", "Forward"]),
    "QueueCallerJoin": ([*_IDS, "Queue", "Position", "Count"],),
    "QueueCallerLeave": ([*_IDS, "Queue", "Position", "Count"],),
    "QueueCallerAbandon": ([*_IDS, "Queue", "Position", "OriginalPosition", "HoldTime"],),
}
_CALLER_WRITES = frozenset(
    {
        "CallerIDNum",
        "ConnectedLineNum",
        "Exten",
        "AccountCode",
        "CallerIDName",
        "ConnectedLineName",
        "Context",
        "Language",
    }
)


class Guard:
    """Judges the frames of one PBX. Keeps its counts over reconnects.

    systemname: what every event must carry; None where the PBX sets none (the checks that are left still hold).
    timestamps: does the PBX set timestampevents? Without it `at` is the time of arrival.
    """

    def __init__(self, systemname: str | None, *, timestamps: bool = True) -> None:
        self.systemname = systemname
        self.timestamps = timestamps
        self.passed = 0
        self.refused: dict[str, int] = {}
        self.mended = 0
        self.suspicious = 0  # grows with everything refused or mended: a reason to resync
        self._verdicts: dict[Shape, str] = {}
        self._order = [k for k in _ORDER if (k != "Timestamp" or timestamps) and (k != "SystemName" or systemname)]

    def trusts(self, shape: Shape) -> bool:
        """Are frames of this shape genuine if SystemName and Timestamp are as they must be? Not without timestamps."""
        return self.timestamps and self._verdict(shape.kind, shape.keys) is _GENUINE

    def check(self, frame: Frame | Event, now: float) -> Event | None:
        """The event in this frame, or None if it is none or not to be believed. now: epoch seconds of its arrival."""
        if isinstance(frame, Event):  # proved while it was decoded (Decoder.trust)
            self.passed += 1
            return frame
        fields = frame.fields
        shape = frame.shape
        if shape is not None:
            verdict = self._verdicts.get(shape)
            if verdict is None:
                verdict = self._judge(shape)
            if verdict:
                if verdict is not _GENUINE:
                    return self._refused(verdict)
                if self.systemname and fields["SystemName"] != self.systemname:
                    return self._refused("systemname")
                self.passed += 1
                if self.timestamps:
                    if not _TIMESTAMP.fullmatch(fields["Timestamp"]):
                        return self._refused("timestamp")
                    now = float(fields["Timestamp"])
            return Event(frame.kind, now, fields)
        return self._check_irregular(frame, now)

    def _judge(self, shape: Shape) -> str:
        """What all frames of this shape have in common: _GENUINE, "" for FullyBooted, else why they are refused."""
        if len(self._verdicts) >= _SHAPES_JUDGED:
            self._verdicts.clear()
        verdict = self._verdicts[shape] = self._verdict(shape.kind, shape.keys)
        return verdict

    def _verdict(self, kind: str, keys: tuple[str, ...]) -> str:
        order = self._order
        if list(keys[: len(order)]) != order:
            return "" if kind == "FullyBooted" else "head"
        required = REQUIRED.get(kind)
        if required is not None:
            if any(key not in keys for key in required):
                return "incomplete"
            # what follows the head is the channel's own: a caller's value cannot imitate so much
            if required is _CHANNEL and keys[len(order)] != "Channel":
                return "order"
        return _GENUINE

    def _check_irregular(self, frame: Frame, now: float) -> Event | None:
        kind, fields, repeated, irregular = frame.kind, frame.fields, frame.repeated, frame.irregular
        if not kind:
            if irregular and "Response" not in fields:
                self._refused("continuation")
            return None
        by_design = not repeated or all(_REPEATS_BY_DESIGN.fullmatch(key) for key, _ in repeated)
        if not by_design or "\r\n\r\n" in irregular or irregular.count("\r\n") + 1 != len(fields) + len(repeated):
            return self._mend(frame, now)
        verdict = self._verdict(kind, tuple(fields))
        if verdict is not _GENUINE:
            return Event(kind, now, fields) if not verdict else self._refused(verdict)
        if self.systemname and fields["SystemName"] != self.systemname:
            return self._refused("systemname")
        self.passed += 1
        return Event(kind, self._time(fields, now), fields)

    def _time(self, fields: dict[str, str], now: float) -> float:
        stamped = self.timestamps and _TIMESTAMP.fullmatch(fields["Timestamp"])
        return float(fields["Timestamp"]) if stamped else now

    def _refused(self, reason: str) -> Event | None:
        self.suspicious += 1
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return None

    def _mend(self, frame: Frame, now: float) -> Event | None:
        """A genuine event that a caller's value has broken up: keep what he could not have written, or refuse it."""
        lines = [line for line in frame.irregular.split("\r\n") if line]
        order = self._order
        first = dict(map(_pair, lines[: len(order)]))
        if list(first) != order or not _PRIVILEGE.fullmatch(first["Privilege"]):
            return self._refused("head")
        if self.timestamps and not _TIMESTAMP.fullmatch(first["Timestamp"]):
            return self._refused("head")
        if self.systemname and first["SystemName"] != self.systemname:
            return self._refused("systemname")
        for keys in _MENDABLE.get(frame.kind, ()):
            if [line.partition(":")[0] for line in lines[-len(keys) :]] == keys:
                tail = lines[-len(keys) :]
                break
        else:
            return self._refused("broken")
        fields = first
        for line in lines[len(order) : -len(tail)]:
            key, value = _pair(line)
            if key in fields:
                break
            fields[key] = value
            if key in _CALLER_WRITES:
                break  # from here on, anything may be the caller's
        fields.update(map(_pair, tail))
        self.mended += 1
        self.suspicious += 1
        return Event(frame.kind, float(first["Timestamp"]) if self.timestamps else now, fields)


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key, value.removeprefix(" ")
