"""Which events the tracker reads. Everything else is skipped undecoded, and may be filtered out in manager.conf.

None: every event of the kind; else (header, beginnings of its value that count).
asterisk-config/manager.conf's eventfilter lets exactly these through (tests/asterisk holds them together).
"""

_EVERY = (
    "Newchannel Newstate NewCallerid Rename DialBegin DialState DialEnd BridgeCreate BridgeEnter BridgeLeave BridgeMerge "
    "BridgeDestroy Hold Unhold BlindTransfer AttendedTransfer Pickup LocalBridge ParkedCall ParkedCallTimeOut UnParkedCall "
    "MixMonitorStart QueueCallerJoin QueueCallerLeave QueueCallerAbandon AgentCalled AgentConnect AgentRingNoAnswer ConfbridgeStart "
    "ConfbridgeJoin ConfbridgeLeave MixMonitorStop OriginateResponse DTMFEnd HangupRequest SoftHangupRequest Hangup Shutdown"
)
_VARIABLES = ("MIXMONITOR_FILENAME", "TL_DI", "__TL_DI", "DIALSTATUS", "STASISSTATUS", "VMSTATUS", "BLINDTRANSFER")
_APPLICATIONS = ("VoiceMail", "Queue", "Stasis", "ConfBridge", "Read", "MixMonitor")

NEEDED: dict[str, tuple[str, tuple[str, ...]] | None] = {
    **dict.fromkeys(_EVERY.split()),
    "VarSet": ("Variable", _VARIABLES),
    "Newexten": ("Application", _APPLICATIONS),
}
