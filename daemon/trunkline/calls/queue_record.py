"""What leaves the room of the queues: who waits in them, who serves them and how he is. docs/calls.md, "Queues".

Times are aware UTC. An extension is what the member's phone is called, or what the number of a Local interface is.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

from trunkline.calls.record import QueueOutcome

# What a caller's wait is held against unless something else is asked for; docs/metrics.md.
TARGET_S = 20
SHORT_S = 5


class AgentStatus(StrEnum):
    AVAILABLE = "AVAILABLE"  # his phone is registered and idle
    RINGING = "RINGING"
    IN_USE = "IN_USE"  # on a call, of a queue or not
    ON_HOLD = "ON_HOLD"  # he holds whoever he talks to
    UNAVAILABLE = "UNAVAILABLE"  # his phone is not registered
    UNKNOWN = "UNKNOWN"  # the PBX does not say
    LOGGED_OUT = "LOGGED_OUT"  # a member of no queue any more


class Waiting(msgspec.Struct, rename="camel", frozen=True):
    """A caller in a queue."""

    channel_id: str  # Uniqueid
    external_id: str  # of his Call
    position: int  # from 1
    since: datetime


class QueueRecord(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A queue without its members."""

    name: str
    strategy: str | None  # app_queue's word; None: not asked yet
    waiting: tuple[Waiting, ...]  # the first in the line first


class MemberRecord(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Somebody's place in a queue; how he is stands in his AgentRecord."""

    queue: str
    interface: str
    extension: str
    name: str
    membership: str  # static, dynamic, realtime
    penalty: int
    paused: bool
    paused_reason: str | None
    paused_since: datetime | None
    in_call: bool  # of this queue
    calls_taken: int  # of this queue, as app_queue counts: since it was loaded or he logged in
    last_call_at: datetime | None
    logged_in_since: datetime | None


class AgentRecord(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A member of queues, once for all of them."""

    extension: str
    name: str
    status: AgentStatus
    status_since: datetime
    paused: bool  # in every one of his queues
    queues: tuple[str, ...]
    logged_in_since: datetime | None  # the earliest of his queues


class Visited(NamedTuple):
    """A caller has come into a queue (outcome None), or left it: each is told once."""

    queue: str
    outcome: QueueOutcome | None
    waited_s: float = 0.0


class QueuesUpdate(NamedTuple):
    """What has changed in the queues of a PBX. None stands for what is gone."""

    pbx: str
    whole: bool  # after a resync: what is not named is not there
    queues: Mapping[str, QueueRecord | None]  # by name
    members: Mapping[tuple[str, str], MemberRecord | None]  # by queue and interface
    agents: Mapping[str, AgentRecord]  # by extension

    def then(self, later: "QueuesUpdate") -> "QueuesUpdate":
        """Both as one: of each thing the newest state."""
        if later.whole:
            return later
        return QueuesUpdate(
            self.pbx,
            self.whole,
            {**self.queues, **later.queues},
            {**self.members, **later.members},
            {**self.agents, **later.agents},
        )
