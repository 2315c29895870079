"""Which events the tracker reads. Everything else is skipped undecoded, and may be filtered out in manager.conf.

None: every event of the kind; else (header, beginnings of its value that count).
asterisk-config/manager.conf's eventfilter lets exactly these through (tests/asterisk holds them together).
"""

_CHANNEL = (
    "Newchannel Newstate NewCallerid Rename DialBegin DialState DialEnd BridgeCreate BridgeEnter BridgeLeave BridgeMerge "
    "BridgeDestroy Hold Unhold BlindTransfer AttendedTransfer Pickup LocalBridge LocalOptimizationEnd ParkedCall "
    "ParkedCallGiveUp ParkedCallTimeOut UnParkedCall ParkedCallSwap QueueCallerJoin QueueCallerLeave QueueCallerAbandon "
    "AgentCalled AgentConnect AgentRingNoAnswer ConfbridgeStart ConfbridgeJoin ConfbridgeLeave ConfbridgeEnd "
    "MixMonitorStart MixMonitorStop OriginateResponse DTMFEnd HangupRequest SoftHangupRequest Hangup Shutdown"
)

NEEDED: dict[str, tuple[str, tuple[str, ...]] | None] = {
    **dict.fromkeys(_CHANNEL.split()),
    "VarSet": ("Variable", ("MIXMONITOR_FILENAME", "TL_", "DIALSTATUS", "QUEUESTATUS", "STASISSTATUS")),
    "Newexten": ("Application", ("VoiceMail", "Queue", "Stasis", "ConfBridge", "Read")),
}
