"""Messages: those of a conversation, and what is written into it from here.

INTERNAL is a note for those who work in the inbox. OUTBOUND goes to the customer, on channels that have a sender; none
has one yet, and that is said before anything is stored. INBOUND messages are the channels' to bring.
"""

from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta

from trunkline.api.change import changing, tell
from trunkline.api.contract import BODY
from trunkline.api.conversations import locked, wanted
from trunkline.api.guard import actor
from trunkline.api.listing import Narrowed, list_page
from trunkline.api.problem import Problem
from trunkline.api.state import STATE, json_response
from trunkline.calls.record import encode
from trunkline.store import conversations
from trunkline.store.messages import CREATED, MESSAGES, Message, event_of, insert_note, lock_files, message_of

LONGEST_CONTENT: Final = 10_000  # characters
MOST_FILES: Final = 10


class NewMessage(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A message to be written: a text, files in their order, or both. INTERNAL: a note that the customer never sees."""

    content: Annotated[str, Meta(min_length=1, max_length=LONGEST_CONTENT)] | None = None
    media_file_ids: Annotated[list[UUID], Meta(max_length=MOST_FILES)] = []
    direction: Literal["OUTBOUND", "INTERNAL"] = "OUTBOUND"


class MessagePage(msgspec.Struct, rename="camel"):
    """Messages, and where the next page begins."""

    items: list[Message]
    next_cursor: str | None


async def list_messages(request: web.Request) -> web.Response:
    """A page of a conversation's messages, the newest first."""
    _, conversation = await wanted(request)
    narrowed = Narrowed(("message.conversation_id = $2",), (conversation.id,), conversation.id)
    return await list_page(request, MESSAGES, narrowed, message_of)


async def add_message(request: web.Request) -> web.Response:
    """Write a message into a conversation: 201."""
    asked: NewMessage = request[BODY]  # type: ignore[assignment]  # the route's body
    account_id = await request.app[STATE].account_id()
    connection = await changing(request)
    conversation = await locked(request, connection)
    _check(asked)
    if asked.direction == "OUTBOUND":
        raise Problem(
            "channel_cannot_send",
            f"Nothing sends messages on {conversation.channel} yet, so this was not stored. A note for your colleagues "
            'is one with "direction": "INTERNAL".',
            channel=conversation.channel,
        )
    free = await lock_files(connection, account_id, asked.media_file_ids)
    for n, file_id in enumerate(asked.media_file_ids):
        if file_id not in free:
            raise _bad(f"mediaFileIds[{n}]", "is no media file, or another message's; upload it by POST …/media-files")
    message = await insert_note(
        connection,
        account_id,
        conversation.id,
        conversation.integration_id,
        asked.content,
        asked.media_file_ids,
        actor(request),
    )
    await conversations.touch_conversation(connection, account_id, conversation.id)
    tell(request, event_of(CREATED, message, conversation.lead_id))
    return json_response(request, encode(message), status=201)


def _check(asked: NewMessage) -> None:
    """Refuse a message of nothing, and a file twice. Raises Problem."""
    if (asked.content is None or not asked.content.strip()) and not asked.media_file_ids:
        raise _bad("content", "there is neither a text nor a file")
    if len(set(asked.media_file_ids)) < len(asked.media_file_ids):
        raise _bad("mediaFileIds", "holds one twice")


def _bad(field: str, why: str) -> Problem:
    return Problem("bad_body", f"{field}: {why}.")
