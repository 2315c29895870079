"""The pulled families: their names, their labels, and which values a label may take.

Source of the names: https://prometheus.io/docs/practices/naming/ ; of the event kinds: the AMI events that Asterisk 22
documents at https://docs.asterisk.org/Asterisk_22_Documentation/API_Documentation/AMI_Events/ .
"""

from typing import Literal, NamedTuple

from trunkline.calls.record import LIVE

OTHER = "other"  # where values outside the closed set are counted together


class Pulled(NamedTuple):
    """A family whose numbers somebody else keeps. `label` is the one beside `pbx`; None for a single number."""

    name: str  # without the _total that a counter gets
    kind: Literal["counter", "gauge"]
    help: str
    label: str | None = None
    allowed: frozenset[str] | None = None  # None: at most MAX_VALUES different ones, the rest is OTHER


MAX_VALUES = 32

_KNOWN_KINDS = frozenset(
    """
    AGIExecEnd AGIExecStart AOC-D AOC-E AOC-S AgentCalled AgentComplete AgentConnect AgentDump AgentLogin
    AgentLogoff AgentRingNoAnswer Agents AgentsComplete Alarm AlarmClear AorDetail AorList AorListComplete
    AsyncAGIEnd AsyncAGIExec AsyncAGIStart AttendedTransfer AuthDetail AuthMethodNotAllowed BlindTransfer
    BridgeCreate BridgeDestroy BridgeEnter BridgeInfoChannel BridgeInfoComplete BridgeLeave BridgeListComplete
    BridgeListItem BridgeMerge BridgeVideoSourceUpdate CEL Cdr ChallengeResponseFailed ChallengeSent ChanSpyStart
    ChanSpyStop ChannelTalkingStart ChannelTalkingStop ConfbridgeEnd ConfbridgeJoin ConfbridgeLeave ConfbridgeList
    ConfbridgeListComplete ConfbridgeListRooms ConfbridgeListRoomsComplete ConfbridgeMute ConfbridgeRecord
    ConfbridgeStart ConfbridgeStopRecord ConfbridgeTalking ConfbridgeUnmute ContactList ContactListComplete
    ContactStatus ContactStatusDetail CoreShowChannel CoreShowChannelMap CoreShowChannelMapComplete
    CoreShowChannelsComplete DAHDIChannel DNDState DTMFBegin DTMFEnd DeadlockStart DeviceStateChange
    DeviceStateListComplete DialBegin DialEnd DialState EndpointDetail EndpointDetailComplete EndpointList
    EndpointListComplete ExtensionStateListComplete ExtensionStatus FAXSession FAXStatus FailedACL Flash FullyBooted
    Hangup HangupHandlerPop HangupHandlerPush HangupHandlerRun HangupRequest Hold IdentifyDetail InvalidAccountID
    InvalidPassword InvalidTransport LoadAverageLimit LocalBridge LocalOptimizationBegin LocalOptimizationEnd MCID
    MWIGet MWIGetComplete MeetmeEnd MeetmeJoin MeetmeLeave MeetmeMute MeetmeTalking MemoryLimit MessageWaiting
    MiniVoiceMail MixMonitorMute MixMonitorStart MixMonitorStop MonitorStart MonitorStop MusicOnHoldStart
    MusicOnHoldStop NewAccountCode NewCallerid NewConnectedLine NewExten Newchannel Newexten Newstate
    OriginateResponse ParkedCall ParkedCallGiveUp ParkedCallSwap ParkedCallTimeOut ParkedCallsComplete PeerStatus
    Pickup PresenceStateChange PresenceStateListComplete PresenceStatus QueueCallerAbandon QueueCallerJoin
    QueueCallerLeave QueueEntry QueueMember QueueMemberAdded QueueMemberPause QueueMemberPenalty QueueMemberRemoved
    QueueMemberRinginuse QueueMemberStatus QueueParams QueueStatusComplete QueueSummary QueueSummaryComplete
    RTCPReceived RTCPSent ReceiveFAX Registry Reload Rename RequestBadFormat RequestNotAllowed RequestNotSupported
    SendFAX SessionLimit SessionTimeout Shutdown SoftHangupRequest SpanAlarm SpanAlarmClear Status StatusComplete
    SuccessfulAuth TestEvent TransportDetail UnParkedCall UnexpectedAddress Unhold UserEvent VarSet
    VoicemailUserEntry VoicemailUserEntryComplete Wink
    """.split()  # two hundred quoted names are no easier to read
)

EVENTS_READ = Pulled(
    "trunkline_ami_events_read",
    "counter",
    "AMI events decoded, by kind (other: not a kind of Asterisk 22).",
    "kind",
    _KNOWN_KINDS,
)
EVENTS_SKIPPED = Pulled(
    "trunkline_ami_events_skipped",
    "counter",
    "AMI events of kinds that are not wanted, passed over undecoded.",
    "kind",
    _KNOWN_KINDS,
)
EVENTS_REFUSED = Pulled(
    "trunkline_ami_events_refused", "counter", "AMI events that the guard did not believe, by reason.", "reason"
)
FRAMES_BAD = Pulled(
    "trunkline_ami_frames_bad",
    "counter",
    "AMI frames that could not be decoded (too long, garbage), by reason.",
    "reason",
)
EVENT_LAG = Pulled(
    "trunkline_ami_event_lag_seconds",
    "gauge",
    "Time between an event's own Timestamp and its arrival here, of the last one.",
)
LINK_UP = Pulled("trunkline_ami_link_up", "gauge", "1 when the PBX is logged in to, booted and resynced, else 0.")
CONNECTS = Pulled("trunkline_ami_connects", "counter", "Logins to the PBX that succeeded; the first included.")
RECONNECTS = Pulled(
    "trunkline_ami_reconnects", "counter", "Times the link to the PBX was lost and had to be made again."
)
RESYNCS = Pulled(
    "trunkline_ami_resyncs", "counter", "Resyncs by the PBX's own lists, after a connect or a refused event."
)
RESYNC_TIME = Pulled("trunkline_ami_resync_seconds", "gauge", "How long the last resync took.")
RESYNCS_ASKED = Pulled("trunkline_ami_resyncs_asked", "counter", "Reasons to resync; several may share one.", "reason")
RESYNCS_FAILED = Pulled("trunkline_ami_resyncs_failed", "counter", "Resyncs that the PBX did not finish in time.")
CONNECTS_FAILED = Pulled(
    "trunkline_ami_connects_failed", "counter", "Links that were not made or were lost, by reason.", "reason"
)
EVENTS_MENDED = Pulled("trunkline_ami_events_mended", "counter", "Events that a caller's value had broken, put right.")
EVENTS_MISNAMED = Pulled(
    "trunkline_ami_events_misnamed", "counter", "Events that put one channel's name on another's ids: not believed."
)
ARI_UP = Pulled(
    "trunkline_ari_link_up", "gauge", "1 when ARI is listened to, for the recordings that it makes, else 0."
)
ARI_CONNECTS = Pulled("trunkline_ari_connects", "counter", "Connections to ARI that were made; the first included.")
ARI_RECONNECTS = Pulled(
    "trunkline_ari_reconnects", "counter", "Times the connection to ARI was lost and had to be made again."
)
ARI_CONNECTS_FAILED = Pulled(
    "trunkline_ari_connects_failed", "counter", "Connections to ARI not made or lost, by reason.", "reason"
)
ARI_RECORDINGS = Pulled(
    "trunkline_ari_recording_events",
    "counter",
    "Events of recordings that ARI told of, by what has become of it.",
    "state",
    frozenset({"started", "finished", "failed"}),
)
ARI_BAD = Pulled("trunkline_ari_events_bad", "counter", "Events of recordings that are not as Asterisk writes them.")
CONTROL_UP = Pulled(
    "trunkline_control_link_up",
    "gauge",
    "1 when the login that carries out commands is up, else 0.",
)
CONTROL_ACTIONS = Pulled("trunkline_control_actions", "counter", "Actions that the PBX was told, by name.", "action")
CONTROL_UNANSWERED = Pulled(
    "trunkline_control_unanswered", "counter", "Actions that the PBX did not answer: what came of them is unknown."
)
TRACKER_FAULTS = Pulled(
    "trunkline_tracker_faults", "counter", "Events or calls that the tracker failed on: bugs of ours."
)
CALLS_ACTIVE = Pulled(
    "trunkline_calls_active",
    "gauge",
    "Calls alive now, by status.",
    "status",
    frozenset(status.value for status in LIVE),
)
CHANNELS_ACTIVE = Pulled("trunkline_channels_active", "gauge", "Channels tracked now.")
SPOOL_DEPTH = Pulled("trunkline_spool_calls", "gauge", "Changed calls that wait on disk because PostgreSQL is away.")
WRITE_QUEUE = Pulled("trunkline_store_waiting_calls", "gauge", "Changed calls that wait in memory for the next batch.")
ROWS_WRITTEN = Pulled("trunkline_store_rows_written", "counter", "Calls written to PostgreSQL, each change once.")
EVENTS_WRITTEN = Pulled("trunkline_store_events_written", "counter", "Events of the live sequence written.")
STALE_CHANGES = Pulled("trunkline_store_stale_changes", "counter", "Changes older than what was stored, passed over.")
REFUSED_CHANGES = Pulled(
    "trunkline_store_refused_changes", "counter", "Changes PostgreSQL refused for what is in them; kept in the spool."
)
DROPPED_CALLS = Pulled(
    "trunkline_store_dropped_calls", "counter", "Ended calls that neither PostgreSQL nor the spool took: lost."
)
DATABASE_UP = Pulled("trunkline_store_up", "gauge", "1 when the last write reached PostgreSQL, else 0.")
RECORDINGS_STORED = Pulled(
    "trunkline_recordings_stored", "counter", "Recordings put into object storage and read back."
)
RECORDINGS_STORED_BYTES = Pulled("trunkline_recordings_stored_bytes", "counter", "Bytes of them.")
RECORDINGS_WAITING = Pulled(
    "trunkline_recordings_waiting",
    "gauge",
    "Recordings that are not stored, by state: PENDING, UNMATCHED (no call is known), FAILED (given up).",
    "state",
    frozenset({"PENDING", "UNMATCHED", "FAILED"}),
)
RECORDINGS_OLDEST = Pulled(
    "trunkline_recordings_oldest_waiting_seconds", "gauge", "Age of the oldest recording that waits to be stored."
)
RECORDINGS_FOUND = Pulled(
    "trunkline_recordings_found",
    "counter",
    "Files in the spool that no event told of, tied to their call by the sweeper.",
)
RECORDINGS_REFUSED = Pulled(
    "trunkline_recordings_refused_names", "counter", "Names of recordings that were not followed (outside, links, ...)."
)
RECORDING_JOBS = Pulled(
    "trunkline_recording_jobs",
    "counter",
    "Runs of the jobs that store recordings, by outcome.",
    "outcome",
    frozenset({"done", "retried", "failed"}),
)
OBJECT_STORE_UP = Pulled(
    "trunkline_object_store_up", "gauge", "1 when the object storage did what it was last asked, else 0."
)
SPOOL_FREE = Pulled(
    "trunkline_recordings_spool_free_bytes", "gauge", "Room left where the PBX records; the least of several PBXs."
)
SPOOL_FILES = Pulled("trunkline_recordings_spool_files", "gauge", "Files where the PBX records, as last swept.")
SPOOL_UNREAD = Pulled(
    "trunkline_recordings_spool_unread_folders", "gauge", "Folders there, and in mailboxes, that cannot be read."
)
WEBHOOK_DELIVERIES = Pulled(
    "trunkline_webhook_deliveries",
    "counter",
    "Tries of webhook deliveries, by outcome; failed: the last one, gone: 410, refused: to no public address.",
    "outcome",
    frozenset({"delivered", "retried", "failed", "gone", "refused"}),
)
WEBHOOKS_WAITING = Pulled(
    "trunkline_webhook_waiting", "gauge", "Webhook deliveries that wait to be made or made again."
)
WEBHOOKS_OLDEST = Pulled(
    "trunkline_webhook_oldest_waiting_seconds", "gauge", "Age of the oldest webhook delivery that waits."
)
WEBHOOKS_OPEN = Pulled(
    "trunkline_webhook_open_circuits", "gauge", "Webhooks that are left alone for now because their receiver fails."
)
COMMANDS = Pulled(
    "trunkline_commands",
    "counter",
    "Commands that this core took, by how they ended (unknown: whether the PBX did it nobody can say).",
    "outcome",
    frozenset({"done", "failed", "unknown"}),
)

PULLED = (
    EVENTS_READ,
    EVENTS_SKIPPED,
    EVENTS_REFUSED,
    FRAMES_BAD,
    EVENT_LAG,
    LINK_UP,
    CONNECTS,
    RECONNECTS,
    RESYNCS,
    RESYNC_TIME,
    RESYNCS_ASKED,
    RESYNCS_FAILED,
    CONNECTS_FAILED,
    EVENTS_MENDED,
    EVENTS_MISNAMED,
    ARI_UP,
    ARI_CONNECTS,
    ARI_RECONNECTS,
    ARI_CONNECTS_FAILED,
    ARI_RECORDINGS,
    ARI_BAD,
    CONTROL_UP,
    CONTROL_ACTIONS,
    CONTROL_UNANSWERED,
    TRACKER_FAULTS,
    CALLS_ACTIVE,
    CHANNELS_ACTIVE,
    SPOOL_DEPTH,
    WRITE_QUEUE,
    DATABASE_UP,
    ROWS_WRITTEN,
    EVENTS_WRITTEN,
    STALE_CHANGES,
    REFUSED_CHANGES,
    DROPPED_CALLS,
    RECORDINGS_STORED,
    RECORDINGS_STORED_BYTES,
    RECORDINGS_WAITING,
    RECORDINGS_OLDEST,
    RECORDINGS_FOUND,
    RECORDINGS_REFUSED,
    RECORDING_JOBS,
    OBJECT_STORE_UP,
    SPOOL_FREE,
    SPOOL_FILES,
    SPOOL_UNREAD,
    WEBHOOK_DELIVERIES,
    WEBHOOKS_WAITING,
    WEBHOOKS_OLDEST,
    WEBHOOKS_OPEN,
    COMMANDS,
)
