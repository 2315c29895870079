"""`/api/v1/auth`: logging in and out, refreshing, one's own password."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import structlog
from aiohttp import web

from trunkline.api.contract import BODY
from trunkline.api.guard import CALLER, Caller, check_origin, is_local
from trunkline.api.identity_forms import ChangePassword, Login, Me, Session
from trunkline.api.problem import Problem
from trunkline.api.state import REQUEST_ID, STATE, State, json_response
from trunkline.calls.record import encode
from trunkline.identity.keys import digest_of, make_refresh_token
from trunkline.identity.passwords import needs_rehash
from trunkline.identity.tokens import LIFETIME_S, Claims
from trunkline.store.audit import By
from trunkline.store.sessions import REFRESH_DAYS, close_all_sessions, close_session, open_session, rotate
from trunkline.store.users import begin_login, end_login, select_user, update_user

COOKIE: Final = "tl_refresh"
REFRESH_PATH: Final = "/api/v1/auth/refresh"
_NOT_KEPT: Final = {"Cache-Control": "no-store"}

log = structlog.get_logger(__name__)


async def login(request: web.Request) -> web.Response:
    """An access token, and a cookie with a refresh token, for who knows the password.

    An unknown user, a disabled one and a wrong password get the same answer after the same work.
    """
    state = request.app[STATE]
    check_origin(request, state.access.origins)
    asked: Login = request[BODY]  # type: ignore[assignment]  # the route's body
    account_id, email = await state.account_id(), asked.email.strip().lower()
    user_id, generation = await _authenticate(request, state, account_id, email, asked.password)
    token, digest = make_refresh_token()
    family = await open_session(state.pool, account_id, by(request, user_id), user_id, digest, generation)
    if family is None:  # the password was right, and is another one by now
        raise _login_refused()
    return await _session(request, state, Claims(user_id, family, generation), token)


async def refresh(request: web.Request) -> web.Response:
    """The next access token and the next refresh token, for the cookie."""
    state = request.app[STATE]
    check_origin(request, state.access.origins)
    given = request.cookies.get(COOKIE)
    if not given:
        raise _refresh_refused()
    account_id = await state.account_id()
    token, digest = make_refresh_token()
    rotated = await rotate(state.pool, account_id, by(request), digest_of(given), digest)
    if rotated == "reused":
        log.warning("session.token_reused", request_id=request[REQUEST_ID], todo="the session was ended: log in again")
        state.known.forget()
    if isinstance(rotated, str):
        raise _refresh_refused()
    return await _session(request, state, Claims(*rotated), token)


async def logout(request: web.Request) -> web.Response:
    """End the session of this access token."""
    state, caller = request.app[STATE], _user(request)
    if caller.session is not None:
        await close_session(state.pool, await state.account_id(), caller.session)
        state.known.forget()
    return _without_cookie(request)


async def logout_everywhere(request: web.Request) -> web.Response:
    """End all sessions of this user, this one too."""
    state, user_id = request.app[STATE], _user_id(request)
    await close_all_sessions(state.pool, await state.account_id(), by(request), user_id)
    state.known.forget()
    return _without_cookie(request)


async def me(request: web.Request) -> web.Response:
    """Who asks, and what he may do."""
    state, caller = request.app[STATE], request[CALLER]
    user = None
    if caller.user_id is not None:
        user = await select_user(state.pool, await state.account_id(), caller.user_id)
    kind = caller.kind.upper()
    return json_response(
        request,
        encode(Me(kind=kind, actor=caller.actor, scopes=sorted(caller.scopes), user=user)),  # type: ignore[arg-type]
    )


async def change_password(request: web.Request) -> web.Response:
    """Set one's own password; all sessions end, this one too."""
    state, user_id = request.app[STATE], _user_id(request)
    asked: ChangePassword = request[BODY]  # type: ignore[assignment]  # the route's body
    account_id = await state.account_id()
    user = await select_user(state.pool, account_id, user_id)
    if user is None:
        raise _login_refused()
    _, generation = await _authenticate(request, state, account_id, user.email.lower(), asked.current)
    with place(state):
        changes = {"password_hash": await state.passwords.hash(asked.new)}
    changed = await update_user(state.pool, account_id, by(request), user_id, changes, generation=generation)
    state.known.forget()
    if isinstance(changed, str):  # an admin was quicker
        raise _login_refused()
    return _without_cookie(request)


def by(request: web.Request, user_id: UUID | None = None) -> By:
    """Who does what the request asks for, for the audit; user_id: who it turned out to be, where no key says so."""
    caller = request.get(CALLER)
    if user_id is not None or caller is None:
        actor = "nobody" if user_id is None else f"user:{user_id}"
    else:
        actor, user_id = caller.actor, caller.user_id
    return By(actor, request.remote, request[REQUEST_ID], user_id)


@contextmanager
def place(state: State) -> Iterator[None]:
    """A place in the line before the passwords. Raises Problem where it is full."""
    if not state.passwords.enter():
        raise Problem(
            "passwords_busy",
            "More passwords wait to be looked at than this server does in good time. Try again.",
            headers={"Retry-After": "5"},
        )
    try:
        yield
    finally:
        state.passwords.leave()


async def _authenticate(
    request: web.Request, state: State, account_id: UUID, email: str, password: str
) -> tuple[UUID, int]:
    """The user of this email and password, and the generation of his tokens. Raises Problem."""
    with place(state):  # before the try is counted
        return await _look_at(request, state, account_id, email, password)


async def _look_at(request: web.Request, state: State, account_id: UUID, email: str, password: str) -> tuple[UUID, int]:
    address = request.remote or ""
    locked_s = state.tries_of_address.begin(address)
    found = None
    if not locked_s:
        found = await begin_login(state.pool, account_id, by(request), email)
        # Whoever is not there is locked out just as well, or that would tell.
        locked_s = state.tries_of_nobody.begin(email) if found is None else found.locked_s
    if locked_s:
        log.warning("login.locked", request_id=request[REQUEST_ID], known=found is not None)
        raise Problem(
            "login_locked",
            "Too many wrong passwords. Wait as long as Retry-After says; an admin can set a new password meanwhile.",
            headers={"Retry-After": str(math.ceil(locked_s))},
        )
    known = None if found is None or found.disabled else found.password_hash
    if not await state.passwords.verify(known, password) or found is None or known is None:
        log.info("login.refused", request_id=request[REQUEST_ID], known=found is not None)
        raise _login_refused()
    rehashed = await state.passwords.hash(password) if needs_rehash(known) else None
    await end_login(state.pool, account_id, found.id, known, rehashed)
    state.tries_of_address.went_well(address)
    return found.id, found.token_generation


async def _session(request: web.Request, state: State, claims: Claims, token: str) -> web.Response:
    user = await select_user(state.pool, await state.account_id(), claims.user_id)
    if user is None:  # deleted this very moment
        raise _refresh_refused()
    access_token = await state.known.issue_token(claims)
    response = json_response(request, encode(Session(access_token=access_token, expires_in=LIFETIME_S, user=user)))
    response.set_cookie(
        COOKIE,
        token,
        path=REFRESH_PATH,
        max_age=REFRESH_DAYS * 86400,
        httponly=True,
        secure=not is_local(request),
        samesite="Strict",
    )
    return response


def _without_cookie(request: web.Request) -> web.Response:
    response = web.Response(status=204, headers=_NOT_KEPT)
    response.del_cookie(COOKIE, path=REFRESH_PATH, httponly=True, secure=not is_local(request), samesite="Strict")
    return response


def _user(request: web.Request) -> Caller:
    caller = request[CALLER]
    if caller.user_id is None:
        raise Problem("no_session", "This is for users who are logged in, and you came with an API key or none.")
    return caller


def _user_id(request: web.Request) -> UUID:
    user_id = _user(request).user_id
    assert user_id is not None  # noqa: S101  # _user has looked
    return user_id


def _login_refused() -> Problem:
    return Problem("login_refused", "No user has this email and this password.")


def _refresh_refused() -> Problem:
    return Problem("refresh_refused", "There is no refresh token, or it is over, or it was used before: log in again.")
