"""Errors as RFC 9457 problems: what is wrong, where, and what to do; `code` is stable, for programs to go by."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"
MAX_BODY: Final = 64 * 1024  # bytes of a request, where its route does not say otherwise
_encode = msgspec.json.Encoder().encode


PROBLEMS: Final[Mapping[str, tuple[int, str]]] = {
    "account_missing": (503, "the account of the configuration is not in the database yet"),
    "agent_busy": (409, "the phone that was to ring first is busy"),
    "agent_no_answer": (409, "the phone that was to ring first was not answered"),
    "agent_not_found": (404, "no agent has this extension"),
    "agent_unavailable": (409, "the phone that was to ring first cannot be rung"),
    "bad_body": (422, "the JSON of the body is not what the route takes"),
    "bad_csv": (400, "the file is not the CSV that the route takes"),
    "bad_cursor": (400, "the cursor was changed, or is of other filters"),
    "bad_idempotency_key": (400, "an Idempotency-Key is 1 to 255 visible ASCII characters"),
    "bad_json": (400, "the body is no JSON"),
    "bad_upload": (422, "the form holds what is no file, or cannot be read"),
    "bad_parameter": (400, "a parameter cannot be used: `parameter`, and often `allowed`, say which and what could be"),
    "body_too_large": (413, "the body is too long"),
    "call_limit": (429, "more calls to the outside than the account may order; `limit` says which, `Retry-After` when"),
    "call_not_found": (404, "no call of the account has this id"),
    "channel_cannot_send": (409, "nothing sends messages on this channel yet; `channel` says which"),
    "conversation_closed": (409, "a closed conversation cannot be snoozed"),
    "conversation_not_found": (404, "no conversation of the account has this id"),
    "conversation_open_already": (409, "another conversation with the customer is open on the channel"),
    "call_over": (409, "the call is over"),
    "channel_gone": (409, "who was meant is not on the call any more"),
    "command_expired": (503, "nobody took the command in time; it was not done"),
    "command_not_found": (404, "no command of the account has this id"),
    "control_not_configured": (503, "the settings hold no control login for the PBX"),
    "cursor_ahead": (409, "the cursor is ahead of the newest event: it is of another database"),
    "database_unavailable": (503, "PostgreSQL is away"),
    "delivery_not_found": (404, "no delivery of the webhook has this id"),
    "destination_refused": (403, "calls may not be made there; `detail` says by which setting"),
    "email_taken": (409, "a user of the account has this email"),
    "external_id_taken": (409, "a lead of the account has this externalId"),
    "hold_not_configured": (503, "the PBX's dialplan has no context to hold calls in"),
    "host_not_allowed": (421, "without a key only names of this machine are answered"),
    "idempotency_key_missing": (400, "the request needs the header Idempotency-Key"),
    "idempotency_key_reused": (422, "another request had this Idempotency-Key in the last 24 hours"),
    "idempotency_not_kept": (400, "the route takes no Idempotency-Key"),
    "identity_not_found": (404, "the user is tied to nothing of this id"),
    "identity_taken": (409, "the user or the subject is tied to another one already"),
    "integration_in_use": (409, "the PBX has live calls, or a daemon follows it"),
    "integration_not_found": (404, "no integration of the account has this id"),
    "integration_of_core": (409, "of a PBX only the name can be changed"),
    "integration_taken": (409, "the account has an integration of this channel with this externalId"),
    "import_stopped": (422, "the rest of the file cannot be read; `report` says what became of what stands before"),
    "internal_error": (500, "ours; the log has it"),
    "key_expired": (401, "the API key has expired"),
    "key_missing": (401, "no API key was sent"),
    "key_not_found": (404, "no API key of the account has this id"),
    "key_revoked": (401, "the API key was revoked"),
    "key_unknown": (401, "no such API key"),
    "last_admin": (409, "nobody else could administer the account"),
    "lead_merged": (410, "the lead was merged into another one: `leadId` says which"),
    "lead_not_found": (404, "no lead of the account has this id"),
    "lead_unknown": (422, "no lead of the account has the id in the body"),
    "legal_hold": (409, "the recording is under legal hold"),
    "login_locked": (429, "too many wrong passwords; `Retry-After` says how long no more are looked at"),
    "login_refused": (401, "no user has this email and password"),
    "media_file_not_found": (404, "no media file of the account has this id"),
    "method_not_allowed": (405, "the route does not take the method"),
    "no_audio": (404, "the recording has no audio; `state` says why"),
    "no_consultation": (409, "no attended transfer is under way that could be ended"),
    "no_pbx": (409, "there is no PBX that could do it"),
    "no_peaks": (404, "no waveform can be made of the recording"),
    "no_session": (403, "the route is for users who are logged in"),
    "no_websocket": (426, "the route takes WebSockets only"),
    "not_csv": (415, "the body was not sent as CSV in UTF-8"),
    "not_held": (409, "the call is not on hold by command"),
    "not_http": (400, "no HTTP request could be read"),
    "not_json": (415, "the body was not sent as JSON"),
    "not_multipart": (415, "the body was not sent as multipart/form-data"),
    "not_replayable": (409, "the delivery has nothing that could be sent again"),
    "object_missing": (404, "the object storage has lost the recording or file"),
    "not_recorded": (409, "nothing of the call is being recorded"),
    "not_talking": (409, "it takes two who talk, and there are none, or more"),
    "not_yours": (403, "agents may command only their own extension and the calls it is on"),
    "oidc_not_configured": (404, "no issuer is configured"),
    "oidc_refused": (401, "the login at the issuer is not accepted; `detail` says why"),
    "oidc_unavailable": (503, "the issuer cannot be asked"),
    "origin_not_allowed": (403, "a page of this origin is not let in"),
    "outcome_unknown": (504, "whether the PBX did it nobody can say; it is not done again"),
    "pbx_away": (503, "the PBX is away; nothing was done"),
    "pbx_refused": (409, "the PBX refused; `detail` has its words"),
    "passwords_busy": (503, "too many passwords wait to be looked at"),
    "precondition_failed": (412, "what If-Match names is not what is there: it was changed since"),
    "queue_not_found": (404, "no queue of the account has this id or name"),
    "range_refused": (416, "the Range is not one that is served"),
    "rate_limited": (429, "more requests than http.rate_limit allows; `Retry-After` says how long to wait"),
    "recorded_by_ari": (409, "an ARI application records the call, which no command pauses"),
    "recording_erased": (410, "the recording was erased"),
    "recording_not_found": (404, "no recording of the account has this id"),
    "refresh_refused": (401, "the refresh token is missing, over, or was used before: log in again"),
    "refused": (400, "the request cannot be served"),
    "request_in_progress": (
        409,
        "a request with this Idempotency-Key is being answered; ask again",
    ),
    "route_not_found": (404, "there is nothing at this path"),
    "scope_missing": (403, "the key or the user may not do this; `scope` says what it takes"),
    "secrets_not_configured": (503, "there is no key in the settings to seal secrets with"),
    "several_pbxs": (409, "several PBXs have one of this name: `pbx` says which"),
    "storage_not_configured": (503, "there is no object storage in the settings"),
    "storage_unavailable": (503, "the object storage is away"),
    "token_refused": (401, "the access token has expired, is of a session that is over, or is not ours"),
    "too_many_webhooks": (409, "the account has as many webhooks as it may"),
    "too_slow": (503, "the answer took too long"),
    "unknown_parameter": (400, "the route has no such parameter; `allowed` lists those it has"),
    "upload_broke_off": (400, "the body ended, or stopped, before its end"),
    "user_not_found": (404, "no user of the account has this id"),
    "webhook_disabled": (409, "the webhook is disabled"),
    "webhook_not_found": (404, "no webhook of the account has this id"),
    "webhook_url_refused": (400, "webhooks may not lead to this URL; `detail` says why"),
    "which_leg": (409, "several phones are on the call; `extension` has to say which is meant"),
}
"""Each code, the status it comes with, and what it says. Codes stay: programs go by them."""

EVERYWHERE: Final = (
    "unknown_parameter", "bad_parameter", "key_missing", "key_unknown", "key_revoked", "key_expired", "token_refused",
    "scope_missing", "rate_limited", "method_not_allowed", "body_too_large", "host_not_allowed", "refused",
    "internal_error", "database_unavailable", "account_missing", "too_slow", "not_http",
)  # fmt: skip
"""The codes that every route may answer with."""

WITH_BODY: Final = ("bad_body", "bad_json", "not_json")
"""… and those of every route that takes a body."""


WITH_KEY: Final = ("bad_idempotency_key", "idempotency_key_reused", "request_in_progress")
"""… those of every POST that takes an Idempotency-Key."""

WITH_NO_KEY: Final = ("bad_idempotency_key", "idempotency_not_kept")
"""… and of every one that takes none."""


class Problem(Exception):
    """A request that is answered with an error.

    code: of PROBLEMS. status: where it is not the one that stands there. more: further members of the body; headers: of
    the answer.
    """

    def __init__(
        self, code: str, detail: str, *, status: int | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = PROBLEMS[code][0] if status is None else status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.more = more

    def response(self, request_id: str) -> web.Response:
        """Return the answer."""
        body = {
            "type": f"urn:trunkline:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.more,
            "requestId": request_id,
        }
        return web.Response(
            body=_encode(body), status=self.status, headers={**self.headers, "Content-Type": CONTENT_TYPE}
        )


def bad_parameter(name: str, detail: str, **more: Any) -> Problem:
    """Return the problem of a query parameter that cannot be used."""
    return Problem("bad_parameter", f"{name}: {detail}", parameter=name, **more)
