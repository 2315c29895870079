"""Which events the tracker reads. Everything else is skipped undecoded, and may be filtered out in manager.conf.

None: every event of the kind; else (header, beginnings of its value that count).
asterisk-config/manager.conf's eventfilter lets these through, and little more; tests/asterisk holds them together.
"""

_EVERY = (
    "Newchannel Newstate NewCallerid Rename DialBegin DialEnd BridgeEnter BridgeLeave BridgeMerge LocalBridge Hold "
    "Unhold BlindTransfer AttendedTransfer Pickup ParkedCall ParkedCallTimeOut UnParkedCall MixMonitorStart "
    "MixMonitorStop MixMonitorMute QueueCallerJoin QueueCallerLeave QueueCallerAbandon AgentCalled AgentConnect "
    "AgentComplete AgentRingNoAnswer QueueMemberAdded QueueMemberRemoved QueueMemberPause QueueMemberPenalty "
    "QueueMemberRinginuse ConfbridgeStart ConfbridgeJoin ConfbridgeLeave OriginateResponse DTMFEnd HangupRequest "
    "SoftHangupRequest Hangup PeerStatus Shutdown"
)
# Not QueueMemberStatus: with each change of a phone it comes once for each queue of the agent, 20 lines long, and says
# what the phone's channels and PeerStatus have said.
_VARIABLES = (
    "MIXMONITOR_FILENAME",
    "TL_DIV",
    "__TL_DIV",
    "TL_HOLD",
    "VMSTATUS",
    "QUEUESTATUS",
    "BLINDTRANSFER",
    *(f"DIALSTATUS\r\nValue: {first}" for first in "BCN"),  # BUSY, CHANUNAVAIL, CONGESTION, CANCEL, NOANSWER
    "STASISSTATUS\r\nValue: F",  # FAILED
)
_APPLICATIONS = ("VoiceMail", "Queue", "Stasis", "ConfBridge", "Read", "MixMonitor", "Authenticate")

NEEDED: dict[str, tuple[str, tuple[str, ...]] | None] = {
    **dict.fromkeys(_EVERY.split()),
    "VarSet": ("Variable", _VARIABLES),
    "Newexten": ("Application", _APPLICATIONS),
}

_SNAPSHOT = "Channel ChannelState CallerIDNum CallerIDName Exten Uniqueid Linkedid"
_OTHERS = "Channel ChannelState CallerIDNum Uniqueid Linkedid"
_PREFIXES = (
    "Dest Transferer Transferee OrigTransferer SecondTransferer TransferTarget Parkee Retriever LocalOne LocalTwo "
    "Target"
)

FIELDS: frozenset[str] = frozenset(
    [
        *"Timestamp SystemName ActionID".split(),
        *_SNAPSHOT.split(),
        *(prefix + key for prefix in _PREFIXES.split() for key in _OTHERS.split()),
        *"Cause DialStatus DialString Forward Newname Response Reason CID-CallingPres".split(),
        *"BridgeUniqueid BridgeType BridgeCreator BridgeNumChannels SwapUniqueid".split(),
        *"ToBridgeUniqueid FromBridgeUniqueid DestBridgeUniqueid Result Extension".split(),
        *"Queue Position Conference ParkingSpace ParkerDialString Digit Direction State".split(),
        *"Variable Value Application AppData Status Uptime".split(),
        *"MemberName Interface StateInterface Membership Penalty CallsTaken LastCall LastPause".split(),
        *"LoginTime InCall Paused PausedReason Peer PeerStatus".split(),
        # rows of the resync's lists
        *"Duration Seconds DNID BridgeId BridgeID Wait Strategy Name Location ListItems EventList".split(),
    ]
)
"""The keys that the tracker reads of them. The decoder proves the others, but does not keep them."""
