"""Integrations: what is connected. Their secrets go in and never come out; those of PBXs are the core's.

A test says what can be known from here: of a PBX what the core last wrote of its link, for the API never touches one;
of a bot what Telegram says of its token; of others only whether their secrets can be opened.
"""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from trunkline.api.change import changing, check_version
from trunkline.api.contract import BODY
from trunkline.api.listing import Narrowed, list_page
from trunkline.api.parameters import read_id
from trunkline.api.problem import Problem
from trunkline.api.representation import version_of
from trunkline.api.sessions import by
from trunkline.api.state import STATE, State, json_response
from trunkline.calls.record import encode
from trunkline.inbox.secrets import CannotOpen
from trunkline.store import integrations as rows
from trunkline.store.audit import insert_audit
from trunkline.store.integrations import INTEGRATIONS, Integration
from trunkline.store.pool import Connection

SILENT_S: Final = 60.0  # a core reports its links every 10 s
TELEGRAM: Final = "https://api.telegram.org"
BOT_TOKEN: Final = "botToken"  # noqa: S105  # the name of a secret
TEST_S: Final = 8.0
_AGAINST: Final = {
    "live_calls": "Calls are live on this PBX: it can be deleted once they are over.",
    "followed": "A daemon follows this PBX: stop the daemon or take the PBX out of its settings first; "
    f"{SILENT_S:.0f} s later it can be deleted.",
}
_LONGEST_SETTINGS: Final = 8192  # bytes of JSON

_Name = Annotated[str, Meta(max_length=200)]
_ExternalId = Annotated[str, Meta(min_length=1, max_length=255)]
_SecretName = Annotated[str, Meta(pattern=r"^[a-zA-Z][a-zA-Z0-9_]{0,63}$")]
_Secret = Annotated[str, Meta(min_length=1, max_length=4096)]


class NewIntegration(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """An integration to be added; PBXs are added by the core. secrets: by name, such as botToken; never shown."""

    channel: Literal["WHATSAPP", "TELEGRAM"]
    external_id: _ExternalId
    name: _Name = ""
    settings: dict[str, Any] = {}
    secrets: Annotated[dict[_SecretName, _Secret], Meta(max_length=10)] = {}


class IntegrationChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What of an integration is to become otherwise; of a PBX only its name. secrets: null removes one."""

    external_id: _ExternalId | UnsetType = UNSET
    name: _Name | UnsetType = UNSET
    status: Literal["ACTIVE", "DISABLED"] | UnsetType = UNSET
    settings: dict[str, Any] | UnsetType = UNSET
    secrets: Annotated[dict[_SecretName, _Secret | None], Meta(max_length=10)] | UnsetType = UNSET


class Check(msgspec.Struct):
    """One thing that was looked at."""

    name: Literal["link", "secrets", "telegram"]
    ok: bool
    detail: str


class IntegrationTest(msgspec.Struct):
    """What a test found: ok where all of it is."""

    ok: bool
    checks: list[Check]


class IntegrationPage(msgspec.Struct, rename="camel"):
    """Integrations, and where the next page begins."""

    items: list[Integration]
    next_cursor: str | None


async def list_integrations(request: web.Request) -> web.Response:
    """A page of integrations, the oldest first."""
    return await list_page(request, INTEGRATIONS, Narrowed(), rows.integration_of)


async def get_integration(request: web.Request) -> web.Response:
    """One integration."""
    _, integration = await _wanted(request)
    return json_response(request, encode(integration), version=_version(integration))


async def add_integration(request: web.Request) -> web.Response:
    """Add an integration: 201."""
    state, asked = request.app[STATE], request[BODY]
    assert isinstance(asked, NewIntegration)  # noqa: S101  # its Route says so
    _check_texts(asked.name, asked.external_id, asked.settings)
    account_id = await state.account_id()
    connection = await changing(request)
    added = await rows.insert_integration(
        connection, account_id, asked.channel, asked.channel.lower(), asked.external_id, asked.name, asked.settings
    )
    if added is None:
        raise _taken()
    await _set_secrets(state, connection, account_id, added, dict(asked.secrets))
    await insert_audit(connection, account_id, by(request), "integration.created", f"integration:{added}")
    made = _there(await rows.select_integration(connection, account_id, added))
    return json_response(request, encode(made), status=201, version=_version(made))


async def change_integration(request: web.Request) -> web.Response:
    """Change an integration; as it is then."""
    state, asked = request.app[STATE], request[BODY]
    assert isinstance(asked, IntegrationChange)  # noqa: S101  # its Route says so
    account_id = await state.account_id()
    connection = await changing(request)
    before = await _locked(request, connection)
    check_version(request, _version(before))
    given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}
    if before.channel == "TELEPHONY" and set(given) - {"name"}:
        raise Problem("integration_of_core", "This is a PBX: its name can be changed; all else is in the settings.")
    secrets = given.pop("secrets", {})
    after = msgspec.structs.replace(before, **given)
    _check_texts(after.name, after.external_id, after.settings)
    if not await rows.update_integration(connection, account_id, after):
        raise _taken()
    await _set_secrets(state, connection, account_id, before.id, secrets)
    told = ", ".join(sorted([*given, *(f"secret {name}" for name in secrets)]))
    await insert_audit(connection, account_id, by(request), "integration.changed", f"integration:{before.id}", told)
    changed = _there(await rows.select_integration(connection, account_id, before.id))
    return json_response(request, encode(changed), version=_version(changed))


async def remove_integration(request: web.Request) -> web.Response:
    """Delete an integration, with its secrets; its calls, conversations and messages stay."""
    account_id = await request.app[STATE].account_id()
    connection = await changing(request)
    integration = await _locked(request, connection)
    check_version(request, _version(integration))
    against = await rows.delete_integration(connection, account_id, integration.id, followed_s=SILENT_S)
    if against is not None:
        raise Problem("integration_in_use", _AGAINST[against])
    subject = f"integration:{integration.id}"
    await insert_audit(connection, account_id, by(request), "integration.deleted", subject, integration.external_id)
    return web.Response(status=204)


async def test_integration(request: web.Request) -> web.Response:
    """Say what can be known of an integration now."""
    state = request.app[STATE]
    account_id, integration = await _wanted(request)
    if integration.channel == "TELEPHONY":
        checks = [await _check_link(state, account_id, integration)]
    else:
        checks = await _check_secrets(state, account_id, integration)
    return json_response(request, encode(IntegrationTest(all(check.ok for check in checks), checks)))


async def _check_link(state: State, account_id: UUID, integration: Integration) -> Check:
    link = await rows.select_link(state.pool, account_id, integration.id)
    if link is None:
        return Check("link", False, "no daemon has said anything of this PBX: is it in the settings of one that runs?")
    heard = "never heard" if link.heard_at is None else f"last heard at {link.heard_at:%Y-%m-%dT%H:%M:%SZ}"
    if link.silent_s > SILENT_S:
        return Check("link", False, f"no daemon has said anything since {link.reported_at:%Y-%m-%dT%H:%M:%SZ}; {heard}")
    return Check("link", link.up, f"connected, {heard}" if link.up else f"{link.detail or 'not connected'}; {heard}")


async def _check_secrets(state: State, account_id: UUID, integration: Integration) -> list[Check]:
    """Whether its secrets can be opened, and what Telegram says of a bot's token."""
    opened: dict[str, str] = {}
    for name, sealed in (await rows.select_secrets(state.pool, account_id, integration.id)).items():
        try:
            opened[name] = state.vault.open(sealed, _place(account_id, integration.id, name))
        except CannotOpen as error:
            return [Check("secrets", False, f"{name}: {error}; set it anew")]
    if not opened:
        return [Check("secrets", False, 'it has none; PATCH it with {"secrets": {"NAME": "…"}}')]
    checks = [Check("secrets", True, f"it has {', '.join(sorted(opened))}")]
    if integration.channel == "TELEGRAM" and BOT_TOKEN in opened:
        checks.append(await _ask_telegram(state, opened[BOT_TOKEN]))
    return checks


async def _ask_telegram(state: State, token: str) -> Check:
    """What the Bot API says of a token: to nobody else, and only where a public address is behind its name."""
    if not _is_token(token):
        return Check("telegram", False, f"{BOT_TOKEN} is none: BotFather's look like 123456:ABC-DEF…")
    answer = await state.webhooks.post(f"{state.telegram}/bot{token}/getMe", b"", {}, deadline_s=TEST_S)
    if answer.delivered:
        return Check("telegram", True, "Telegram knows the bot")
    if answer.status in (401, 404):
        return Check("telegram", False, f"Telegram does not know {BOT_TOKEN}: take it from BotFather")
    return Check("telegram", False, f"Telegram was asked, and {answer.error}")


def _is_token(token: str) -> bool:
    number, colon, rest = token.partition(":")
    return bool(colon) and number.isascii() and number.isdigit() and rest.replace("-", "").replace("_", "").isalnum()


async def _set_secrets(
    state: State, connection: Connection, account_id: UUID, integration_id: UUID, secrets: dict[str, str | None]
) -> None:
    """Seal and store secrets. Raises Problem where there is no key."""
    if any(value is not None for value in secrets.values()) and not state.vault:
        raise Problem(
            "secrets_not_configured",
            "This server has no key to seal secrets with: set integrations.secret_key_file in its settings.",
        )
    sealed = {
        name: None if value is None else state.vault.seal(value, _place(account_id, integration_id, name))
        for name, value in secrets.items()
    }
    await rows.set_secrets(connection, account_id, integration_id, sealed)


def _place(account_id: UUID, integration_id: UUID, name: str) -> str:
    return f"{account_id}/{integration_id}/{name}"


async def _wanted(request: web.Request) -> tuple[UUID, Integration]:
    """The account, and its integration of the path's id. Raises Problem."""
    state, id_ = request.app[STATE], read_id(request)
    account_id = await state.account_id()
    return account_id, _there(None if id_ is None else await rows.select_integration(state.pool, account_id, id_))


async def _locked(request: web.Request, connection: Connection) -> Integration:
    """The integration of the path's id, which nobody else changes until the commit. Raises Problem."""
    id_, account_id = read_id(request), await request.app[STATE].account_id()
    return _there(None if id_ is None else await rows.lock_integration(connection, account_id, id_))


def _there(found: Integration | None) -> Integration:
    if found is None:
        raise Problem("integration_not_found", "No integration has this id. GET /api/v1/integrations lists them.")
    return found


def _version(integration: Integration) -> str:
    settings = encode(integration.settings)  # as JSON: a whole number there may have any length
    return version_of(integration.external_id, integration.name, integration.status, settings)


def _taken() -> Problem:
    return Problem("integration_taken", "There is an integration of this channel with this externalId already.")


def _check_texts(name: str, external_id: str, settings: dict[str, Any]) -> None:
    for field, text in (("name", name), ("externalId", external_id)):
        if not text.isprintable():
            raise _bad(field, "holds a control character or a line end; allowed: one line of text")
    if len(encode(settings)) > _LONGEST_SETTINGS:
        raise _bad("settings", f"is longer than {_LONGEST_SETTINGS} bytes")


def _bad(field: str, why: str) -> Problem:
    return Problem("bad_body", f"{field}: {why}.")
