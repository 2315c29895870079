"""`/api/v1/users`, `/api/v1/api-keys` and `/api/v1/audit`: what admins do."""

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from aiohttp import web
from msgspec import UNSET, structs

from trunkline.api.change import afterwards, changing, check_version
from trunkline.api.contract import BODY, QUERY
from trunkline.api.identity_forms import (
    DEFAULT_AUDIT,
    MAX_AUDIT,
    ApiKeyList,
    AuditPage,
    ChangedUser,
    MadeApiKey,
    NewApiKey,
    NewUser,
    UserList,
)
from trunkline.api.parameters import read_id, read_limit
from trunkline.api.problem import Problem
from trunkline.api.representation import version_of
from trunkline.api.sessions import by, place
from trunkline.api.state import STATE, State, json_response
from trunkline.calls.record import encode
from trunkline.identity.keys import make_key
from trunkline.store.api_keys import insert_key, revoke_key, select_keys
from trunkline.store.audit import select_audit
from trunkline.store.pool import Connection
from trunkline.store.users import (
    Refusal,
    User,
    delete_user,
    insert_user,
    lock_user,
    select_user,
    select_users,
    update_user,
)

_PLACE: Final = struct.Struct(">q16s")  # microseconds since 1970, id
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NEWEST: Final = (datetime(9999, 12, 31, tzinfo=UTC), UUID(int=0))
_NOT_KEPT: Final = {"Cache-Control": "no-store"}


async def list_users(request: web.Request) -> web.Response:
    """The account's users, by email."""
    state = request.app[STATE]
    return json_response(request, encode(UserList(await select_users(state.pool, await state.account_id()))))


async def create_user(request: web.Request) -> web.Response:
    """Make a user."""
    state = request.app[STATE]
    asked: NewUser = request[BODY]  # type: ignore[assignment]  # the route's body
    password_hash = None if asked.password is None else await _hash(state, asked.password)
    user = await insert_user(
        await changing(request),
        await state.account_id(),
        by(request),
        email=asked.email.strip().lower(),
        name=asked.name.strip(),
        role=asked.role,
        extension=asked.extension and asked.extension.strip(),
        password_hash=password_hash,
    )
    if user is None:
        raise _refused("email_taken")
    return json_response(request, encode(user), status=201, version=_version(user))


async def get_user(request: web.Request) -> web.Response:
    """One user."""
    state, user_id = request.app[STATE], _user_id(request)
    user = await select_user(state.pool, await state.account_id(), user_id)
    if user is None:
        raise _refused("user_not_found")
    return json_response(request, encode(user), version=_version(user))


async def change_user(request: web.Request) -> web.Response:
    """Change a user; what is left out stays."""
    state, user_id = request.app[STATE], _user_id(request)
    asked: ChangedUser = request[BODY]  # type: ignore[assignment]  # the route's body
    changes = {name: value for name, value in structs.asdict(asked).items() if value is not UNSET}
    if "password" in changes:
        changes["password_hash"] = await _hash(state, changes.pop("password"))
    for name in ("email", "name", "extension"):
        if isinstance(changes.get(name), str):
            changes[name] = changes[name].strip()
    if "email" in changes:
        changes["email"] = changes["email"].lower()
    connection = await changing(request)
    await _lock(request, connection, user_id)
    user = await update_user(connection, await state.account_id(), by(request), user_id, changes)
    if isinstance(user, str):
        raise _refused(user)
    afterwards(request, state.known.forget)
    return json_response(request, encode(user), version=_version(user))


async def remove_user(request: web.Request) -> web.Response:
    """Delete a user."""
    state, user_id = request.app[STATE], _user_id(request)
    connection = await changing(request)
    await _lock(request, connection, user_id)
    refused = await delete_user(connection, await state.account_id(), by(request), user_id)
    if refused is not None:
        raise _refused(refused)
    afterwards(request, state.known.forget)
    return web.Response(status=204, headers=_NOT_KEPT)


async def list_api_keys(request: web.Request) -> web.Response:
    """The account's keys, without themselves."""
    state = request.app[STATE]
    return json_response(request, encode(ApiKeyList(await select_keys(state.pool, await state.account_id()))))


async def create_api_key(request: web.Request) -> web.Response:
    """Make a key; the answer is the one place where it is seen."""
    state = request.app[STATE]
    asked: NewApiKey = request[BODY]  # type: ignore[assignment]  # the route's body
    made = make_key()
    key = await insert_key(
        state.pool,
        await state.account_id(),
        by(request),
        name=asked.name.strip(),
        prefix=made.prefix,
        digest=made.digest,
        scopes=sorted(set(asked.scopes)),
        expires_at=asked.expires_at,
    )
    return json_response(request, encode(MadeApiKey(**structs.asdict(key), key=made.text)), status=201)


async def remove_api_key(request: web.Request) -> web.Response:
    """Revoke a key, for good. It stays in the list."""
    state, key_id = request.app[STATE], read_id(request)
    if key_id is None or not await revoke_key(state.pool, await state.account_id(), by(request), key_id):
        raise Problem("key_not_found", "No API key has this id. GET /api/v1/api-keys lists those there are.")
    state.known.forget()
    return web.Response(status=204, headers=_NOT_KEPT)


async def list_audit(request: web.Request) -> web.Response:
    """Who changed what, the newest first."""
    state, asked = request.app[STATE], request[QUERY]
    limit = read_limit(asked, DEFAULT_AUDIT, MAX_AUDIT)
    before = _place(asked["cursor"][0]) if "cursor" in asked else _NEWEST
    found = await select_audit(state.pool, await state.account_id(), before, limit + 1)
    following = None
    if len(found) > limit:
        found = found[:limit]
        at_us = (found[-1].at - _EPOCH) // _MICROSECOND
        following = urlsafe_b64encode(_PLACE.pack(at_us, found[-1].id.bytes)).decode()
    return json_response(request, encode(AuditPage(found, following)))


async def _lock(request: web.Request, connection: Connection, user_id: UUID) -> None:
    """Have the user to oneself, as the client knows him. Raises Problem."""
    user = await lock_user(connection, await request.app[STATE].account_id(), user_id)
    if user is None:
        raise _refused("user_not_found")
    check_version(request, _version(user))


def _version(user: User) -> str:
    return version_of(user.email, user.name, user.role, user.extension, user.has_password, user.disabled_at)


def _place(cursor: str) -> tuple[datetime, UUID]:
    """Where a page begins. A made up one is harmless: every query names the account."""
    try:
        at_us, id_bytes = _PLACE.unpack(urlsafe_b64decode(cursor.encode("ascii")))
        return _EPOCH + at_us * _MICROSECOND, UUID(bytes=id_bytes)
    except (ValueError, binascii.Error, struct.error, OverflowError):
        raise Problem(
            "bad_cursor", "cursor: is not one of ours. Hand back nextCursor as it came, or leave it out.",
            parameter="cursor",
        ) from None  # fmt: skip


async def _hash(state: State, password: str) -> str:
    with place(state):
        return await state.passwords.hash(password)


def _user_id(request: web.Request) -> UUID:
    user_id = read_id(request)
    if user_id is None:
        raise _refused("user_not_found")
    return user_id


def _refused(code: Refusal) -> Problem:
    match code:
        case "user_not_found":
            return Problem("user_not_found", "No user has this id. GET /api/v1/users lists those there are.")
        case "email_taken":
            return Problem("email_taken", "A user of the account has this email already.")
        case "last_admin":
            return Problem("last_admin", "This is the last admin who can log in: make another one first.")
