"""What a caller may be allowed, and what each role is: the two tables that say so."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

ADMIN: Final = "admin"
ANYBODY: Final = ""  # the scope of a route that every caller may use who is known

SCOPES: Final[Mapping[str, str]] = {
    ADMIN: "everything, users and keys included",
    "agents:control": "agents' breaks, and the queues they are logged in to",
    "calls:control": "make calls, and hang up, hold, transfer, park and pause the recording of those there are",
    "agents:read": "agents: who they are and what they do",
    "analytics:read": "how the queues did",
    "calls:read": "calls, with their legs",
    "calls:supervise": "listen to calls, whisper, barge in",
    "calls:write": "notes, tags and disposition of calls, and whose they are",
    "conversations:read": "conversations: with whom, whose, how they stand",
    "conversations:write": "assign, snooze, close and read them",
    "events:read": "what happens, live",
    "integrations:read": "what is connected: PBXs, bots, numbers; never their secrets",
    "integrations:write": "add, change, test and remove them",
    "leads:manage": "delete, merge and import leads",
    "leads:read": "leads",
    "leads:write": "make and change leads",
    "media-files:read": "files that were uploaded or came with messages",
    "media-files:write": "upload and delete them",
    "messages:read": "what was said in conversations, and their timelines",
    "messages:write": "write into conversations",
    "metrics:read": "the page for Prometheus",
    "queues:read": "queues: who waits, who serves",
    "recordings:read": "recordings: what there is, sound, waveform",
    "recordings:write": "legal hold, erasure",
    "webhooks:read": "webhooks and their deliveries",
    "webhooks:write": "make, change and remove webhooks; to say where events are sent takes events:read too",
}
"""Each scope and what it opens. A route's is that of its tag, `:read` for GET and `:write` for all else."""


class Role(StrEnum):
    """What a user is in the account."""

    ADMIN = "ADMIN"
    SUPERVISOR = "SUPERVISOR"
    AGENT = "AGENT"
    VIEWER = "VIEWER"


_INBOX: Final = frozenset(
    f"{what}:{how}" for what in ("conversations", "messages", "media-files") for how in ("read", "write")
)

SCOPES_OF: Final[Mapping[Role, frozenset[str]]] = {
    Role.ADMIN: frozenset({ADMIN}),
    Role.SUPERVISOR: frozenset(
        {
            "agents:control",
            "agents:read",
            "analytics:read",
            "calls:control",
            "calls:read",
            "calls:supervise",
            "calls:write",
            "events:read",
            "integrations:read",
            "leads:manage",
            "leads:read",
            "leads:write",
            "metrics:read",
            "queues:read",
            "recordings:read",
            "recordings:write",
            "webhooks:read",
        }
        | _INBOX
    ),
    Role.AGENT: frozenset(
        {
            "agents:control",  # to control: his own extension only, which api/commands.py sees to
            "agents:read",
            "calls:control",
            "calls:read",
            "calls:write",
            "events:read",
            "leads:read",
            "leads:write",
            "queues:read",
            "recordings:read",
        }
        | _INBOX
    ),
    # sees what goes on, hears nobody
    Role.VIEWER: frozenset(
        {
            "agents:read",
            "analytics:read",
            "calls:read",
            "conversations:read",
            "events:read",
            "leads:read",
            "queues:read",
        }
    ),
}


def allows(held: Collection[str], needed: str) -> bool:
    """Whether who holds these scopes may do what needs that one. A scope that nobody lists is an admin's."""
    return needed == ANYBODY or needed in held or ADMIN in held


def common(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """What both allow."""
    if ADMIN in one:
        return other
    return one if ADMIN in other else one & other
