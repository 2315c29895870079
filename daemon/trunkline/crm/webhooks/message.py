"""What a receiver is sent: body and headers of Standard Webhooks, or the body that a CRM of its own kind expects.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import secrets
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from standardwebhooks import Webhook as Signer

from trunkline.crm.webhooks import zammad
from trunkline.store.events import StoredEvent
from trunkline.store.webhooks import TEST

ZAMMAD: Final = "zammad"
_encode: Final = msgspec.json.Encoder().encode
_SECRET_BYTES: Final = 32


class Message(msgspec.Struct):
    """The body of a webhook. data: the event as `GET /api/v1/events` has it; of a test, an empty object."""

    type: str
    timestamp: datetime
    data: StoredEvent | dict[str, Any]


def new_secret() -> str:
    """A secret to sign with, as it is shown once."""
    return f"whsec_{b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


def body_of(profile: str, event: StoredEvent) -> bytes:
    """The body that tells of an event."""
    if profile == ZAMMAD:
        return _encode(zammad.told(event))
    return _encode(Message(event.type, event.created_at, event))


def test_bodies(profile: str, at: datetime, id_: UUID) -> list[bytes]:
    """What a receiver is sent to see whether it is there, in order."""
    if profile == ZAMMAD:
        return [_encode(told) for told in zammad.test(id_)]
    return [_encode(Message(TEST, at, {}))]


def headers_of(message_id: str, body: bytes, signed_with: Sequence[str], at: datetime) -> dict[str, str]:
    """The headers of a body: who verifies takes any signature that one of his secrets makes."""
    at = at.astimezone(UTC)
    text = body.decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Signer(secret).sign(message_id, at, text) for secret in signed_with),
    }
