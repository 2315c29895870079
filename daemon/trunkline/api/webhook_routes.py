"""The routes of webhooks, declared; routes.py has the others."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from trunkline.api import webhooks
from trunkline.api.change import Repeats
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.parameters import DEFAULT_LIMIT
from trunkline.store.queries import MAX_LIMIT
from trunkline.store.webhooks import Delivery, Webhook

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_BODY: Final = ("bad_body", "bad_json", "not_json")
_ONE: Final = ("webhook_not_found",)
_PATH: Final = "/api/v1/webhooks"

WEBHOOKS: Final = (
    Route(
        method="GET",
        path=_PATH,
        handler=webhooks.list_webhooks,
        about="The webhooks, the oldest first.",
        tag="webhooks",
        parameters=(_PRETTY,),
        answers=(Answer(about="All of them.", type=webhooks.WebhookList),),
    ),
    Route(
        method="POST",
        path=_PATH,
        handler=webhooks.add_webhook,
        also="events:read",  # who says where events are sent can read them there
        queues=False,  # it asks the name of the receiver first, or the receiver
        about="Add a webhook: it is told of what happens from now on. Its secret is shown this once.",
        tag="webhooks",
        parameters=(_PRETTY,),
        body=webhooks.NewWebhook,
        answers=(Answer(about="The webhook and its secret.", status=201, type=webhooks.WebhookSecret),),
        problems=(*_BODY, "webhook_url_refused", "too_many_webhooks"),
        repeats=Repeats.REFUSED,
        secret=True,
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{id}}",
        versioned=True,
        handler=webhooks.get_webhook,
        about="A webhook, and how its receiver does.",
        tag="webhooks",
        parameters=(_PRETTY,),
        answers=(Answer(about="The webhook.", type=Webhook),),
        problems=_ONE,
    ),
    Route(
        method="PATCH",
        path=f"{_PATH}/{{id}}",
        versioned=True,
        handler=webhooks.change_webhook,
        also="events:read",  # who says where events are sent can read them there
        queues=False,  # it asks the name of the receiver first, or the receiver
        about="Change a webhook; what is left out stays. Enabled again, it is told of what happens from now on.",
        tag="webhooks",
        parameters=(_PRETTY,),
        body=webhooks.WebhookChange,
        answers=(Answer(about="The webhook as it is now.", type=Webhook),),
        problems=(*_ONE, *_BODY, "webhook_url_refused"),
    ),
    Route(
        method="DELETE",
        path=f"{_PATH}/{{id}}",
        versioned=True,
        handler=webhooks.remove_webhook,
        about="Delete a webhook, and the log of its deliveries.",
        tag="webhooks",
        parameters=(_PRETTY,),
        answers=(Answer(about="It is gone.", status=204),),
        problems=_ONE,
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{id}}/secret",
        handler=webhooks.rotate_webhook_secret,
        about="Give a webhook a new secret, shown this once; for 24 hours the one before signs too.",
        tag="webhooks",
        parameters=(_PRETTY,),
        answers=(Answer(about="The webhook and its new secret.", type=webhooks.WebhookSecret),),
        problems=_ONE,
        repeats=Repeats.REFUSED,
        secret=True,
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{id}}/test",
        handler=webhooks.test_webhook,
        queues=False,  # it asks the name of the receiver first, or the receiver
        about="Send a `webhook.test` now, once.",
        tag="webhooks",
        parameters=(_PRETTY,),
        answers=(Answer(about="What the receiver said.", type=Delivery),),
        problems=_ONE,
        repeats=Repeats.REFUSED,
    ),
    Route(
        method="GET",
        path=f"{_PATH}/{{id}}/deliveries",
        handler=webhooks.list_deliveries,
        about="What a webhook was told and is to be told, newest first; kept for 30 days unless configured otherwise.",
        tag="webhooks",
        parameters=(
            Parameter(
                name="state",
                about="Deliveries in one of these states.",
                type=Literal["DELIVERED", "FAILED", "PENDING"],
                many=True,
            ),
            Parameter(
                name="limit",
                about=f"How many to a page, {DEFAULT_LIMIT} unless told.",
                type=Annotated[int, Meta(ge=1, le=MAX_LIMIT)],
            ),
            Parameter(name="cursor", about="nextCursor of the page before, with the same states."),
            _PRETTY,
        ),
        answers=(Answer(about="A page.", type=webhooks.DeliveryPage),),
        problems=(*_ONE, "bad_cursor"),
    ),
    Route(
        method="POST",
        path=f"{_PATH}/{{id}}/deliveries/{{deliveryId}}/replay",
        handler=webhooks.replay_delivery,
        about="Make a delivery again, with the same id, from the beginning of the schedule.",
        tag="webhooks",
        parameters=(_PRETTY,),
        answers=(Answer(about="It is in the line again.", status=202, type=Delivery),),
        problems=(*_ONE, "delivery_not_found", "not_replayable", "webhook_disabled"),
        repeats=Repeats.KEPT,
    ),
)
