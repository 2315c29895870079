"""Webhooks: who is told of events, their secrets, and the log of their deliveries.

A secret is in the answer that makes it, and in no other. The test is posted from here, at once and beside the line of
deliveries, so that it tells how the receiver is now, also where no daemon runs that delivers.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar
from uuid import UUID, uuid4

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from trunkline.api import cursor
from trunkline.api.change import changing, check_version
from trunkline.api.contract import BODY, QUERY
from trunkline.api.parameters import limit_of, shortened
from trunkline.api.problem import Problem, bad_parameter
from trunkline.api.representation import version_of
from trunkline.api.sessions import by
from trunkline.api.state import STATE, State, json_response
from trunkline.calls.record import encode
from trunkline.crm.webhooks.client import Answer
from trunkline.crm.webhooks.destination import LONGEST_URL, Refused
from trunkline.crm.webhooks.message import headers_of, new_secret, test_bodies
from trunkline.store.pool import Connection
from trunkline.store.queries import Position
from trunkline.store.webhooks import (
    MOST,
    Change,
    Delivery,
    EventType,
    Profile,
    Try,
    Webhook,
    delete_webhook,
    insert_test,
    insert_webhook,
    lock_webhook,
    replay,
    rotate_secret,
    select_deliveries,
    select_delivery,
    select_secrets,
    select_webhook,
    select_webhooks,
    update_webhook,
)

RESOLVE_S: Final = 5.0
TEST_S: Final = 8.0  # below the API's own limit
STATES: Final = ("PENDING", "DELIVERED", "FAILED")

_Url = Annotated[str, Meta(min_length=1, max_length=LONGEST_URL)]
_Description = Annotated[str, Meta(max_length=200)]
Body = TypeVar("Body", bound=msgspec.Struct)
_EventTypes = Annotated[list[EventType], Meta(max_length=50)]


class NewWebhook(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A webhook to be added. eventTypes: which it wants; empty: all."""

    url: _Url
    description: _Description = ""
    profile: Profile = "STANDARD"
    event_types: _EventTypes = []


class WebhookChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What of a webhook is to become otherwise; what is left out stays."""

    url: _Url | UnsetType = UNSET
    description: _Description | UnsetType = UNSET
    profile: Profile | UnsetType = UNSET
    event_types: _EventTypes | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class WebhookSecret(msgspec.Struct):
    """A webhook with the secret that it was just given: it is never shown again."""

    webhook: Webhook
    secret: str  # whsec_...


class WebhookList(msgspec.Struct):
    """Webhooks."""

    items: list[Webhook]


class DeliveryPage(msgspec.Struct, rename="camel"):
    """Deliveries, and where the next page begins."""

    items: list[Delivery]
    next_cursor: str | None


async def list_webhooks(request: web.Request) -> web.Response:
    """The account's webhooks, the oldest first: {"items": [...]}."""
    state = request.app[STATE]
    return json_response(request, encode(WebhookList(await select_webhooks(state.pool, await state.account_id()))))


async def add_webhook(request: web.Request) -> web.Response:
    """Add a webhook: 201, with its secret."""
    state, new = request.app[STATE], _body(request, NewWebhook)
    account_id = await state.account_id()
    _check_text(new.description)
    await _check_url(state, new.url)
    secret = new_secret()
    webhook = await insert_webhook(
        state.pool, account_id, by(request), new.url, new.description, new.profile, new.event_types, secret
    )
    if webhook is None:
        raise Problem("too_many_webhooks", f"There are {MOST} webhooks already; delete one first.")
    return json_response(request, encode(WebhookSecret(webhook, secret)), status=201)


async def get_webhook(request: web.Request) -> web.Response:
    """One webhook."""
    _, webhook = await _wanted(request)
    return json_response(request, encode(webhook), version=_version(webhook))


async def change_webhook(request: web.Request) -> web.Response:
    """Change a webhook; as it is then."""
    account_id, webhook = await _wanted(request)
    state, asked = request.app[STATE], _body(request, WebhookChange)
    given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}
    change = Change(**given)
    if change.description is not None:
        _check_text(change.description)
    if change.url is not None:
        await _check_url(state, change.url)
    connection = await _lock(request, webhook.id)
    changed = _there(await update_webhook(connection, account_id, by(request), webhook.id, change))
    return json_response(request, encode(changed), version=_version(changed))


async def remove_webhook(request: web.Request) -> web.Response:
    """Delete a webhook and the log of its deliveries."""
    account_id, webhook = await _wanted(request)
    await delete_webhook(await _lock(request, webhook.id), account_id, by(request), webhook.id)
    return web.Response(status=204)


async def rotate_webhook_secret(request: web.Request) -> web.Response:
    """Give a webhook a new secret; for a day the one before signs too."""
    account_id, webhook = await _wanted(request)
    secret = new_secret()
    rotated = await rotate_secret(request.app[STATE].pool, account_id, by(request), webhook.id, secret)
    return json_response(request, encode(WebhookSecret(_there(rotated), secret)))


async def test_webhook(request: web.Request) -> web.Response:
    """Post a test to the receiver now, once; what it said, as a delivery of the log."""
    account_id, webhook = await _wanted(request)
    state = request.app[STATE]
    secrets = await select_secrets(state.pool, account_id, webhook.id)
    at, id_ = datetime.now(UTC), uuid4()
    message_id = f"evt_test_{id_.hex}"
    answer: Answer | None = None
    bodies = test_bodies(webhook.profile.lower(), at, id_)
    for body in bodies:
        headers = headers_of(message_id, body, secrets, at)
        answer = await state.webhooks.post(webhook.url, body, headers, deadline_s=TEST_S / len(bodies))
        if not answer.delivered:
            break
    if answer is None:
        raise _no_webhook()
    tried = Try(at=at, status_code=answer.status, error=answer.error, duration_ms=answer.duration_ms)
    made = await insert_test(state.pool, account_id, webhook.id, message_id, tried, answer.delivered, answer.beginning)
    if made is None:
        raise _no_webhook()
    return json_response(request, encode(made))


async def list_deliveries(request: web.Request) -> web.Response:
    """A page of a webhook's deliveries, newest first."""
    account_id, webhook = await _wanted(request)
    asked = request[QUERY]
    states = sorted({value.strip().upper() for value in asked.get("state", ())})
    for one in states:
        if one not in STATES:
            raise bad_parameter("state", f"{shortened(one)!r} is not one of {', '.join(STATES)}.", allowed=STATES)
    limit = limit_of(asked)
    narrow = ("deliveries", webhook.id, states)
    after = cursor.read(account_id, narrow, asked["cursor"][0]) if "cursor" in asked else None
    words = [one.lower() for one in states]
    found = await select_deliveries(request.app[STATE].pool, account_id, webhook.id, words, after, limit + 1)
    items, more = found[:limit], len(found) > limit
    next_ = cursor.write(account_id, narrow, Position(items[-1].created_at, items[-1].id)) if more else None
    return json_response(request, encode(DeliveryPage(items, next_)))


async def replay_delivery(request: web.Request) -> web.Response:
    """Have a delivery made again, with the same message id: 202."""
    account_id, webhook = await _wanted(request)
    pool, delivery_id = request.app[STATE].pool, _uuid(request, "deliveryId")
    found = None if delivery_id is None else await select_delivery(pool, account_id, webhook.id, delivery_id)
    if found is None:
        raise Problem("delivery_not_found", "No delivery of this webhook has this id; GET …/deliveries lists them.")
    if not webhook.enabled:
        raise Problem("webhook_disabled", 'This webhook is disabled; PATCH it with {"enabled": true} first.')
    replayed = await replay(await changing(request), account_id, webhook.id, found.id)
    if replayed is None:
        raise Problem("not_replayable", "This is a test, or its event is no longer kept; POST …/test sends a new test.")
    return json_response(request, encode(replayed), status=202)


async def _wanted(request: web.Request) -> tuple[UUID, Webhook]:
    """The account, and its webhook of the path's id. Raises Problem."""
    state = request.app[STATE]
    account_id, webhook_id = await state.account_id(), _uuid(request, "id")
    found = None if webhook_id is None else await select_webhook(state.pool, account_id, webhook_id)
    return account_id, _there(found)


async def _lock(request: web.Request, webhook_id: UUID) -> Connection:
    """Have the webhook to oneself, as the client knows it. Raises Problem."""
    connection = await changing(request)
    account_id = await request.app[STATE].account_id()
    check_version(request, _version(_there(await lock_webhook(connection, account_id, webhook_id))))
    return connection


def _version(webhook: Webhook) -> str:
    return version_of(webhook.url, webhook.description, webhook.profile, webhook.event_types, webhook.enabled)


def _there(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise _no_webhook()
    return webhook


def _no_webhook() -> Problem:
    return Problem("webhook_not_found", "No webhook has this id. GET /api/v1/webhooks lists them.")


def _uuid(request: web.Request, name: str) -> UUID | None:
    text = request.match_info[name]
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None


def _check_text(description: str) -> None:
    if not description.isprintable():
        raise Problem("bad_body", "description: holds a control character or a line end; allowed: one line of text.")


async def _check_url(state: State, url: str) -> None:
    try:
        async with asyncio.timeout(RESOLVE_S):
            await state.webhooks.destinations.check(url)
    except Refused as refused:
        raise Problem("webhook_url_refused", f"url: {refused}.") from None
    except TimeoutError:
        raise Problem("webhook_url_refused", f"url: its name was not found within {RESOLVE_S:g} s.") from None


def _body(request: web.Request, type_: type[Body]) -> Body:
    body = request[BODY]
    assert isinstance(body, type_)  # noqa: S101  # its Route says so
    return body
