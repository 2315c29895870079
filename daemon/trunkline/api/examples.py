"""Examples of what is sent and answered, by the type of it, for the OpenAPI document.

Every one is run against a served API (tests/api/test_examples.py): sent as it stands here, and answered in the
shape that stands here. A type that a route takes as its body has to have one.
"""

from collections.abc import Mapping
from typing import Any, Final

from trunkline.api import (
    calls,
    commands,
    conversations,
    health,
    integrations,
    leads,
    live,
    messages,
    oidc,
    recordings,
    webhooks,
)
from trunkline.api import identity_forms as forms
from trunkline.store.commands import Command
from trunkline.store.identities import UserIdentity
from trunkline.store.leads import Lead
from trunkline.store.recordings import Recording
from trunkline.store.rows import Call
from trunkline.store.users import User
from trunkline.store.webhooks import Delivery, Webhook

_AT: Final = "2026-11-22T15:45:54.016849Z"
_ANSWERED: Final = "2026-11-22T15:45:55.032528Z"
_ENDED: Final = "2026-11-22T15:45:57.046172Z"
_CALL_ID: Final = "97af9995-35c3-46da-91eb-993134beebe5"
_CHANNEL: Final = "pbx-5ff58e242f8e-1795362354.0"
_PATH: Final = f"/var/spool/asterisk/monitor/{_CHANNEL}_{_CHANNEL}.wav"

_LEG: Final = {
    "channelId": "pbx-5ff58e242f8e-1795362354.2",
    "endpoint": "PJSIP/1001",
    "party": "1001",
    "role": "AGENT",
    "startedAt": _AT,
    "answeredAt": _ANSWERED,
    "endedAt": _ENDED,
    "dialStatus": "ANSWER",
    "hangupCause": 16,
    "endReason": "HANGUP",
}
_SUMMARY: Final[dict[str, Any]] = {  # a call without its legs, as in a list
    "id": _CALL_ID,
    "accountId": "0b3bb4a6-4d0e-4e0c-8d5b-2f6f0f1f7c11",
    "integrationId": "5a3f4f0e-0f6a-4a55-9a52-0a6f2a9d3f52",
    "leadId": "7d1a7c3e-6a37-4d0a-9c59-1f1d2b3c4d5e",
    "conversationId": "264e3025-5e03-4140-875f-8780b5e774ef",
    "recordingId": "39922788-78b1-4e74-a457-1840261684af",
    "metadata": None,
    "createdAt": _AT,
    "pbx": "pbx-5ff58e242f8e",
    "externalId": _CHANNEL,
    "aliases": [],
    "channelId": _CHANNEL,
    "direction": "INBOUND",
    "status": "COMPLETED",
    "from": "12025550123",
    "to": "442079460001",
    "phoneNumber": "12025550123",
    "fromE164": "+12025550123",
    "toE164": "+442079460001",
    "fromPrivate": False,
    "callerName": "Jane Doe",
    "startedAt": _AT,
    "answeredAt": _ANSWERED,
    "endedAt": _ENDED,
    "duration": 3,
    "waitSeconds": 1,
    "talkSeconds": 2,
    "holdSeconds": 0,
    "endReason": None,
    "endedBy": "CALLER",
    "answeredBy": "1001",
    "lastParty": "1001",
    "rang": ["1001"],
    "queue": None,
    "queueWaitSeconds": None,
    "queuePosition": None,
    "transfers": [],
    "holds": [],
    "parked": [],
    "conference": None,
    "participants": [],
    "digits": None,
    "divertedFrom": None,
    "forwardedFrom": None,
    "recordings": [
        {
            "path": _PATH,
            "channelId": _CHANNEL,
            "startedAt": _ANSWERED,
            "endedAt": _ENDED,
            "kind": "CALL",
            "pausedSpans": [],
        }
    ],
    "queueVisits": [],
    "quality": "OBSERVED",
    "revision": 14,
    "notes": "",
    "tags": [],
    "disposition": None,
}
_RECORDING: Final[dict[str, Any]] = {
    "id": "39922788-78b1-4e74-a457-1840261684af",
    "callId": _CALL_ID,
    "channelId": _CHANNEL,
    "kind": "CALL",
    "state": "STORED",
    "reason": None,
    "path": _PATH,
    "startedAt": _ANSWERED,
    "endedAt": _ENDED,
    "durationSeconds": 2,
    "pausedSpans": [],
    "legalHold": False,
    "erasedAt": None,
    "mediaFileId": "8f14e45f-ceea-467f-a0e6-94a8f4a1c3b2",
    "name": f"{_CHANNEL}_{_CHANNEL}.wav",
    "mimeType": "audio/wav",
    "size": 32364,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "createdAt": "2026-11-22T15:45:55.046000Z",
}
_USER: Final = {
    "id": "c0a8f5d2-1b1e-4e55-8a3f-6d0f4b7b8f10",
    "email": "ada@example.com",
    "name": "Ada",
    "role": "SUPERVISOR",
    "extension": "1001",
    "hasPassword": True,
    "createdAt": _AT,
    "disabledAt": None,
    "lockedUntil": None,
}
_IDENTITY: Final = {
    "id": "6512bd43-d9ca-46a6-8e3b-1c4f2a9d0e77",
    "issuer": "https://id.example.com/realms/office",
    "subject": "248289761001",
    "createdAt": _AT,
    "lastLoginAt": None,
}
_KEY: Final = {
    "id": "5d41402a-bc4b-4a76-b971-9d911017c592",
    "name": "crm",
    "prefix": "tl_Ab3dEf",
    "scopes": ["calls:read", "recordings:read"],
    "createdBy": None,
    "createdAt": _AT,
    "lastUsedAt": None,
    "expiresAt": "2030-01-01T00:00:00Z",
    "revokedAt": None,
}
_WEBHOOK: Final = {
    "id": "1c7d0f7e-9a77-4f4d-8f0e-3f8f6f0e2b55",
    "url": "https://crm.example.com/hook",
    "description": "CRM",
    "profile": "STANDARD",
    "eventTypes": ["call.ringing", "call.ended"],
    "enabled": True,
    "disabledReason": None,
    "lastSeq": 1042,
    "failures": 0,
    "failingSince": None,
    "openUntil": None,
    "secretRotatesUntil": None,
    "createdAt": _AT,
}
_DELIVERY: Final = {
    "id": "3b0c2b1a-7f8e-4b52-9d50-2f3d8a0b6c77",
    "webhookId": _WEBHOOK["id"],
    "eventSeq": 1043,
    "messageId": "evt_4e3dfb1b5d2d4bb8a5b0a4a3f1c7e9d2_1043",
    "type": "call.ended",
    "state": "DELIVERED",
    "attempts": 1,
    "nextAt": None,
    "statusCode": 204,
    "error": None,
    "response": "",
    "tries": [{"at": _ENDED, "statusCode": 204, "error": None, "durationMs": 12}],
    "createdAt": _ENDED,
    "triedAt": _ENDED,
    "deliveredAt": _ENDED,
}
_TOLD: Final = (
    *("id", "integrationId", "leadId", "conversationId", "pbx", "externalId", "channelId", "direction", "status"),
    *("from", "to", "phoneNumber", "fromE164", "toE164", "fromPrivate", "callerName", "startedAt", "answeredAt"),
    *("endedAt", "duration", "endReason", "endedBy", "answeredBy", "lastParty", "rang", "queue", "recordingId"),
    "revision",
)
_EVENT: Final = {
    "seq": 42,
    "type": "call.ended",
    "callId": _CALL_ID,
    "leadId": _SUMMARY["leadId"],
    "conversationId": _SUMMARY["conversationId"],
    "createdAt": _ENDED,
    "data": {
        "call": {name: _SUMMARY[name] for name in _TOLD} | {"ringing": []},
        "lead": {
            "id": _SUMMARY["leadId"],
            "name": "Jane Doe",
            "phone": "+1 202 555 0123",
            "email": None,
            "status": "NEW",
        },
    },
}
_LEAD: Final = {
    "id": _SUMMARY["leadId"],
    "name": "Jane Doe",
    "phone": "+1 202 555 0123",
    "phones": [{"number": "+1 202 555 0123", "e164": "+12025550123"}],
    "email": "jane@example.com",
    "status": "NEW",
    "source": None,
    "externalId": "17",
    "metadata": None,
    "createdAt": _AT,
    "updatedAt": _AT,
}
_COMMAND: Final = {
    "id": "45c48cce-2e2d-4fbd-a1a5-fc51c7c6ad26",
    "kind": "DIAL",
    "state": "PENDING",
    "callId": None,
    "externalId": None,
    "code": None,
    "detail": None,
    "result": None,
    "createdAt": _AT,
    "claimedAt": None,
    "finishedAt": None,
    "notAfter": _ENDED,
}
_SESSION: Final = {
    "accessToken": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...",
    "expiresIn": 900,
    "user": _USER,
    "tokenType": "Bearer",
}

SENT: Final[Mapping[Any, Any]] = {
    forms.Login: {"email": "ada@example.com", "password": "correct horse battery staple"},
    forms.ChangePassword: {"current": "correct horse battery staple", "new": "a longer one than before"},
    forms.NewUser: {"email": "grace@example.com", "name": "Grace", "role": "AGENT", "extension": "1002"},
    forms.ChangedUser: {"role": "SUPERVISOR", "extension": "1003"},
    forms.NewApiKey: {"name": "crm", "scopes": ["calls:read", "recordings:read"], "expiresAt": "2030-01-01T00:00:00Z"},
    oidc.NewIdentity: {"issuer": "https://id.example.com/realms/office", "subject": "248289761001"},
    calls.CallChange: {"notes": "Wants an offer by Friday.", "tags": ["sales"], "disposition": "callback"},
    leads.NewLead: {"name": "Grace Hopper", "phones": ["+1 202 555 0145"], "email": "grace@example.com"},
    leads.LeadChange: {"status": "CONTACTED", "source": "fair"},
    leads.Merge: {"leadId": _SUMMARY["leadId"]},
    commands.NewCall: {"extension": "1002", "to": "+12025550123"},
    commands.OfCall: {"extension": "1002"},
    commands.CallTransfer: {"kind": "BLIND", "to": "1003", "extension": "1002"},
    commands.Supervision: {"mode": "WHISPER", "extension": "1009"},
    commands.AgentBreak: {"queue": "support", "reason": "lunch"},
    commands.AgentQueue: {"queue": "support"},
    conversations.ConversationChange: {"contactName": "Ada Lovelace", "unreadCount": 0},
    messages.NewMessage: {"direction": "INTERNAL", "content": "Wants an offer by Friday."},
    integrations.NewIntegration: {"channel": "TELEGRAM", "externalId": "acme_bot", "name": "Acme's bot"},
    integrations.IntegrationChange: {"name": "Head office"},
    webhooks.NewWebhook: {
        "url": "https://crm.example.com/hook",
        "description": "CRM",
        "eventTypes": ["call.ringing", "call.ended"],
    },
    webhooks.WebhookChange: {"eventTypes": ["call.*"], "enabled": True},
}
"""What a body may be, by its type."""

ANSWERED: Final[Mapping[Any, Any]] = {
    calls.CallPage: {"items": [_SUMMARY], "nextCursor": None},
    Call: {**_SUMMARY, "legs": [_LEG]},
    Command: _COMMAND,
    Lead: _LEAD,
    leads.LeadPage: {"items": [_LEAD], "nextCursor": None},
    recordings.RecordingList: {"items": [_RECORDING]},
    Recording: _RECORDING,
    forms.Session: _SESSION,
    forms.Me: {"kind": "SETTINGS_KEY", "actor": "key:9fc8daf430b0", "scopes": ["admin"], "user": None},
    forms.UserList: {"items": [_USER]},
    User: _USER,
    forms.ApiKeyList: {"items": [_KEY]},
    forms.MadeApiKey: {**_KEY, "key": "tl_Ab3dEf..."},
    forms.AuditPage: {
        "items": [
            {
                "id": "0cc175b9-c0f1-46b6-a31c-399e26977266",
                "actor": "cli:root",
                "action": "user.created",
                "subject": f"user:{_USER['id']}",
                "at": _AT,
                "address": None,
                "requestId": None,
                "detail": "ada@example.com: SUPERVISOR",
            }
        ],
        "nextCursor": None,
    },
    oidc.Methods: {"password": True, "oidc": None},
    oidc.IdentityList: {"items": [_IDENTITY]},
    UserIdentity: _IDENTITY,
    webhooks.WebhookList: {"items": [_WEBHOOK]},
    Webhook: _WEBHOOK,
    webhooks.WebhookSecret: {"webhook": _WEBHOOK, "secret": "whsec_..."},
    webhooks.DeliveryPage: {"items": [_DELIVERY], "nextCursor": None},
    Delivery: _DELIVERY,
    live.EventPage: {"items": [_EVENT], "nextAfter": 42},
    health.Health: {"status": "ok"},
    health.Readiness: {"status": "ready", "checks": [{"check": "database", "ok": True}]},
}
"""What an answer may be, by its type."""
