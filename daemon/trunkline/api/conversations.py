"""Conversations: which there are, whose they are, put aside, closed and read; and what was exchanged in one.

All that one request changes of a conversation is one change of its row, and an event of each thing that happened by it.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from trunkline.api import cursor
from trunkline.api.change import changing, check_version, tell
from trunkline.api.contract import BODY, QUERY
from trunkline.api.guard import CALLER
from trunkline.api.listing import Narrowed, list_page
from trunkline.api.parameters import DEFAULT_LIMIT, read_id, read_limit, read_words
from trunkline.api.problem import Problem, bad_parameter
from trunkline.api.representation import version_of
from trunkline.api.state import STATE, json_response
from trunkline.calls.record import encode
from trunkline.store import conversations as rows
from trunkline.store.conversations import CONVERSATIONS, Change, Conversation
from trunkline.store.keyset import MAX_PAGE
from trunkline.store.messages import TimelineItem, select_timeline
from trunkline.store.pool import Connection

STATUSES: Final = ("OPEN", "SNOOZED", "CLOSED")
CHANNELS: Final = ("TELEPHONY", "WHATSAPP", "TELEGRAM")
LONGEST_SNOOZE: Final = timedelta(days=366)
_OF_STATUS: Final = {
    "OPEN": "(conversation.status = 'open' AND conversation.snoozed_until IS NULL)",
    "SNOOZED": "conversation.snoozed_until IS NOT NULL",
    "CLOSED": "conversation.status = 'closed'",
}


class ConversationPage(msgspec.Struct, rename="camel"):
    """Conversations, and where the next page begins."""

    items: list[Conversation]
    next_cursor: str | None


class TimelinePage(msgspec.Struct, rename="camel"):
    """Messages and calls, the newest first, and where the next page begins."""

    items: list[TimelineItem]
    next_cursor: str | None


class ConversationChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What of a conversation is to become otherwise; what is left out stays, null empties.

    status: CLOSED, or OPEN again; either ends a snooze. snoozedUntil: a time to come. unreadCount: 0, it was read.
    """

    assigned_user_id: UUID | UnsetType | None = UNSET
    snoozed_until: datetime | UnsetType | None = UNSET
    status: Literal["OPEN", "CLOSED"] | UnsetType = UNSET
    unread_count: Annotated[int, Meta(ge=0, le=0)] | UnsetType = UNSET
    contact_name: Annotated[str, Meta(min_length=1, max_length=200)] | UnsetType | None = UNSET
    lead_id: UUID | UnsetType | None = UNSET


async def list_conversations(request: web.Request) -> web.Response:
    """A page of conversations, the one with the newest activity first."""
    return await list_page(request, CONVERSATIONS, _narrowed(request), rows.conversation_of)


async def count_unread(request: web.Request) -> web.Response:
    """How many conversations hold something unread."""
    state = request.app[STATE]
    found = await rows.count_unread(state.pool, await state.account_id(), request[CALLER].user_id)
    return json_response(request, encode(found))


async def get_conversation(request: web.Request) -> web.Response:
    """One conversation."""
    _, conversation = await wanted(request)
    return json_response(request, encode(conversation), version=_version(conversation))


async def change_conversation(request: web.Request) -> web.Response:
    """Assign, snooze, close, reopen, mark as read, name, or give a lead to a conversation; as it is then."""
    asked: ConversationChange = request[BODY]  # type: ignore[assignment]  # the route's body
    account_id = await request.app[STATE].account_id()
    connection = await changing(request)
    before = await locked(request, connection)
    check_version(request, _version(before))
    await _check(connection, account_id, asked)
    change = _changed(before, asked, datetime.now(UTC))
    read = asked.unread_count is not UNSET or (asked.status == "CLOSED" and before.status != "CLOSED")
    after = await rows.update_conversation(connection, account_id, before.id, change, read=read)
    if after is None:
        raise Problem(
            "conversation_open_already",
            "Another conversation with this customer is open on the channel: go on in that one. "
            "GET /api/v1/conversations?status=OPEN,SNOOZED lists it.",
        )
    for type_ in _happened(before, after):
        tell(request, rows.event_of(type_, after))
    return json_response(request, encode(after), version=_version(after))


async def get_timeline(request: web.Request) -> web.Response:
    """A page of what was exchanged in a conversation, messages and calls, the newest first."""
    state, asked = request.app[STATE], request[QUERY]
    account_id, conversation = await wanted(request)
    limit = read_limit(asked, DEFAULT_LIMIT, MAX_PAGE)
    narrow = ("timeline", conversation.id)
    after = cursor.read_place(account_id, narrow, asked["cursor"][0], "timestamptz") if "cursor" in asked else None
    items, end = await select_timeline(state.pool, account_id, conversation.id, after, limit)
    following = None if end is None else cursor.write_place(account_id, narrow, end)
    return json_response(request, encode(TimelinePage(items, following)))


async def wanted(request: web.Request) -> tuple[UUID, Conversation]:
    """The account, and its conversation of the path's id. Raises Problem."""
    state = request.app[STATE]
    account_id, conversation_id = await state.account_id(), read_id(request)
    found = None
    if conversation_id is not None:
        found = await rows.select_conversation(state.pool, account_id, conversation_id)
    if found is None:
        raise _none()
    return account_id, found


async def locked(request: web.Request, connection: Connection) -> Conversation:
    """The conversation of the path's id, which nobody else changes until the commit. Raises Problem."""
    conversation_id = read_id(request)
    found = None
    if conversation_id is not None:
        found = await rows.lock_conversation(connection, await request.app[STATE].account_id(), conversation_id)
    if found is None:
        raise _none()
    return found


def _none() -> Problem:
    return Problem("conversation_not_found", "No conversation has this id. GET /api/v1/conversations lists them.")


def _version(conversation: Conversation) -> str:
    """Of what clients change; a call that comes in meanwhile changes nothing of that but wakes it."""
    return version_of(
        conversation.status,
        conversation.assigned_user_id,
        conversation.snoozed_until,
        conversation.contact_name,
        conversation.lead_id,
    )


async def _check(connection: Connection, account_id: UUID, asked: ConversationChange) -> None:
    """Refuse what cannot be pointed to, and a name that is no line. Raises Problem."""
    user_id, lead_id, name = asked.assigned_user_id, asked.lead_id, asked.contact_name
    if isinstance(user_id, UUID) and not await rows.is_user(connection, account_id, user_id):
        raise _bad("assignedUserId", "no user who can log in has this id; GET /api/v1/users lists them")
    if isinstance(lead_id, UUID) and not await rows.is_lead(connection, account_id, lead_id):
        raise _bad("leadId", "no lead has this id")
    if isinstance(name, str) and not name.isprintable():
        raise _bad("contactName", "holds a control character or a line end; allowed: one line of text")


def _changed(before: Conversation, asked: ConversationChange, now: datetime) -> Change:
    """The row as it is to be. Raises Problem."""
    closed = asked.status == "CLOSED" if asked.status is not UNSET else before.status == "CLOSED"
    until = before.snoozed_until if asked.status is UNSET else None
    if asked.snoozed_until is not UNSET:
        until = asked.snoozed_until
        if until is not None and closed:
            raise Problem("conversation_closed", "It is closed, so it cannot be snoozed: reopen it by status OPEN.")
        if until is not None and (until.tzinfo is None or not now < until <= now + LONGEST_SNOOZE):
            raise _bad("snoozedUntil", f"has to be a time to come, with its offset, {LONGEST_SNOOZE.days} days at most")
    return Change(
        status="closed" if closed else "open",
        assigned_user_id=_or(asked.assigned_user_id, before.assigned_user_id),
        snoozed_until=until,
        contact_name=_or(asked.contact_name, before.contact_name),
        lead_id=_or(asked.lead_id, before.lead_id),
        unread_count=0 if closed or asked.unread_count is not UNSET else before.unread_count,
    )


def _or(asked: Any, before: Any) -> Any:
    return before if asked is UNSET else asked


def _happened(before: Conversation, after: Conversation) -> list[str]:
    """What a change was, as events, in order."""
    happened = []
    if before.status == "CLOSED" and after.status != "CLOSED":
        happened.append(rows.REOPENED)
    if after.assigned_user_id != before.assigned_user_id:
        happened.append(rows.ASSIGNED)
    if (after.contact_name, after.lead_id) != (before.contact_name, before.lead_id):
        happened.append(rows.UPDATED)
    if before.unread_count and not after.unread_count:
        happened.append(rows.READ)
    if after.status == "CLOSED" != before.status:
        happened.append(rows.CLOSED)
    elif after.snoozed_until is not None and after.snoozed_until != before.snoozed_until:
        happened.append(rows.SNOOZED)
    elif before.status == "SNOOZED" and after.status == "OPEN":
        happened.append(rows.WOKEN)
    return happened


def _narrowed(request: web.Request) -> Narrowed:
    """What the list is narrowed to. Raises Problem."""
    asked: dict[str, list[str]] = request[QUERY]
    conditions: list[str] = []
    arguments: list[object] = []
    statuses = read_words("status", asked, STATUSES)
    if statuses:
        conditions.append(f"({' OR '.join(_OF_STATUS[status] for status in statuses)})")
        if "CLOSED" not in statuses and len(statuses) > 1:
            conditions[-1] = "conversation.status = 'open'"
    channels = read_words("channel", asked, CHANNELS)
    if channels:
        arguments.append([channel.lower() for channel in channels])
        conditions.append(f"conversation.channel = ANY (${len(arguments) + 1}::text[])")
        if len(channels) == 1:  # so that one index has its order
            arguments[-1] = channels[0].lower()
            conditions[-1] = f"conversation.channel = ${len(arguments) + 1}"
    assignee: object = None
    if "assignee" in asked:
        assignee = _assignee(request, asked["assignee"][0])
        if assignee is None:
            conditions.append("conversation.assigned_user_id IS NULL")
        else:
            arguments.append(assignee)
            conditions.append(f"conversation.assigned_user_id = ${len(arguments) + 1}")
    if "leadId" in asked:
        arguments.append(_uuid("leadId", asked["leadId"][0]))
        conditions.append(f"conversation.lead_id = ${len(arguments) + 1}")
    if "unread" in asked:
        if asked["unread"] != ["1"]:
            raise bad_parameter("unread", "the only value is 1.")
        conditions.append("conversation.unread_count > 0")
    told = (statuses, channels, "assignee" in asked, assignee, asked.get("leadId"), "unread" in asked)
    return Narrowed(tuple(conditions), tuple(arguments), told)


def _assignee(request: web.Request, text: str) -> UUID | None:
    """Whose conversations; None: nobody's. Raises Problem."""
    if text == "none":
        return None
    if text == "me":
        user_id = request[CALLER].user_id
        if user_id is None:
            raise bad_parameter("assignee", "me is a user who is logged in, and this is a key; give a user's id.")
        return user_id
    return _uuid("assignee", text)


def _uuid(name: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        allowed = "a user's id, me or none" if name == "assignee" else "an id"
        raise bad_parameter(name, f"is not allowed; allowed: {allowed}.") from None


def _bad(field: str, why: str) -> Problem:
    return Problem("bad_body", f"{field}: {why}.")
