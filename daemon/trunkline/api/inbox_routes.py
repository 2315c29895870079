"""The routes of conversations and their messages, declared; routes.py has the others."""

from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta

from trunkline.api import conversations, messages
from trunkline.api.change import Repeats
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.listing import listing_parameters
from trunkline.api.parameters import DEFAULT_LIMIT
from trunkline.store.conversations import CONVERSATIONS, Channel, Conversation, Status, Unread
from trunkline.store.keyset import MAX_PAGE
from trunkline.store.messages import MESSAGES, Message

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_PATH: Final = "/api/v1/conversations"
_ONE: Final = ("conversation_not_found",)

INBOX: Final = (
    Route(
        method="GET",
        path=_PATH,
        handler=conversations.list_conversations,
        about="The conversations, the one with the newest activity first.",
        tag="conversations",
        sparse=True,
        parameters=(
            Parameter(name="status", about="Those that are so.", type=Status, many=True),
            Parameter(name="channel", about="Those on these channels.", type=Channel, many=True),
            Parameter(name="assignee", about="Those of this user: an id, me, or none for those of nobody."),
            Parameter(name="unread", about="1: those that hold something unread.", type=Literal["1"]),
            Parameter(name="leadId", about="Those with this lead.", type=UUID),
            *listing_parameters(CONVERSATIONS),
            _PRETTY,
        ),
        answers=(Answer(about="A page.", type=conversations.ConversationPage),),
        problems=("bad_cursor",),
    ),
    Route(
        method="GET",
        path="/api/v1/inbox/unread",
        handler=conversations.count_unread,
        about="How many conversations hold something unread: of all, of the user who asks, of nobody.",
        tag="conversations",
        parameters=(_PRETTY,),
        answers=(Answer(about="How many.", type=Unread),),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{id}}",
        handler=conversations.get_conversation,
        about="A conversation.",
        tag="conversations",
        versioned=True,
        sparse=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="The conversation.", type=Conversation),),
        problems=_ONE,
    ),
    Route(
        method="PATCH",
        path=f"{_PATH}/{{id}}",
        handler=conversations.change_conversation,
        about="Assign a conversation, snooze, close or reopen it, mark it as read, name its customer.",
        tag="conversations",
        versioned=True,
        parameters=(_PRETTY,),
        body=conversations.ConversationChange,
        answers=(Answer(about="The conversation as it is now.", type=Conversation),),
        problems=(*_ONE, "conversation_closed", "conversation_open_already"),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{id}}/timeline",
        handler=conversations.get_timeline,
        about="What was exchanged in a conversation, messages and calls in one order, the newest first.",
        tag="messages",
        parameters=(
            Parameter(
                name="limit",
                about=f"How many to a page, {DEFAULT_LIMIT} unless told.",
                type=Annotated[int, Meta(ge=1, le=MAX_PAGE)],
            ),
            Parameter(name="cursor", about="nextCursor of the page before."),
            _PRETTY,
        ),
        answers=(Answer(about="A page.", type=conversations.TimelinePage),),
        problems=(*_ONE, "bad_cursor"),
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{id}}/messages",
        handler=messages.list_messages,
        about="The messages of a conversation, the newest first.",
        tag="messages",
        sparse=True,
        parameters=(*listing_parameters(MESSAGES), _PRETTY),
        answers=(Answer(about="A page.", type=messages.MessagePage),),
        problems=(*_ONE, "bad_cursor"),
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{id}}/messages",
        handler=messages.add_message,
        about="Write a message into a conversation. No channel has a sender yet, so only notes are taken: INTERNAL.",
        tag="messages",
        repeats=Repeats.KEPT,
        parameters=(_PRETTY,),
        body=messages.NewMessage,
        answers=(Answer(about="The message.", status=201, type=Message),),
        problems=(*_ONE, "channel_cannot_send"),
    ),
)
