"""Logging in by an OpenID Connect issuer: `/api/v1/auth/oidc/…`; and who a user is there, for admins.

The browser comes back with a code and a state; a cookie says that it is the one that went. Then it is logged in as by a
password: with our refresh cookie, and the page asks for its access token.
"""

import hmac
import re
from typing import Annotated, Final, cast
from uuid import UUID

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from trunkline.api.change import afterwards, changing
from trunkline.api.contract import BODY, QUERY
from trunkline.api.guard import is_local
from trunkline.api.parameters import read_id
from trunkline.api.problem import Problem, bad_parameter
from trunkline.api.sessions import begin_try_of_address, by, login_locked, set_session, take_back_try_of_address
from trunkline.api.state import REQUEST_ID, STATE, json_response
from trunkline.calls.record import encode
from trunkline.identity.keys import make_refresh_token
from trunkline.identity.oidc import LOGIN_S, Issuer, OidcRefused, OidcUnavailable, local_path, seal, unseal
from trunkline.store.identities import UserIdentity, delete_identity, find_or_tie, insert_identity, select_identities
from trunkline.store.sessions import open_session
from trunkline.store.users import RoleWord, select_user

LOGIN_PATH: Final = "/api/v1/auth/oidc/login"
CALLBACK_PATH: Final = "/api/v1/auth/oidc/callback"
COOKIE: Final = "tl_oidc"
_COOKIE_PATH: Final = "/api/v1/auth/oidc"
_LONGEST_PATH: Final = 1024
_WORD: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_WHY: Final = {
    "unknown": "nobody here has its verified email: an admin can make the user, or tie him to it",
    "disabled": "the user is disabled",
    "tied_to_another": "the user of its email is another one there: an admin has to untie him first",
}

log = structlog.get_logger(__name__)


class OidcMethod(msgspec.Struct):
    """An issuer where one can log in."""

    name: str
    url: str  # where a page sends the browser, with ?returnTo=


class Methods(msgspec.Struct):
    """How one can log in."""

    password: bool
    oidc: OidcMethod | None


class NewIdentity(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A subject of the issuer to tie a user to."""

    subject: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
    issuer: Annotated[str, Meta(min_length=8, max_length=500, pattern=r"^https?://[^\x00-\x20\x7f]+$")]


class IdentityList(msgspec.Struct):
    """Who a user is elsewhere."""

    items: list[UserIdentity]


async def methods(request: web.Request) -> web.Response:
    """How one can log in."""
    oidc = request.app[STATE].oidc
    found = None if oidc is None else OidcMethod(oidc.label or "Single sign-on", LOGIN_PATH)
    return json_response(request, encode(Methods(True, found)))


async def oidc_login(request: web.Request) -> web.Response:
    """Send the browser to the issuer."""
    state, oidc = request.app[STATE], _configured(request)
    return_to = _return_to(request[QUERY])
    try:
        url, pending = await oidc.begin(return_to)
    except OidcUnavailable as error:
        raise _unavailable(request, error) from error
    response = web.Response(status=302, headers={"Location": url, "Cache-Control": "no-store"})
    response.set_cookie(
        COOKIE,
        seal(await state.known.signing_secret(), await state.account_id(), pending),
        path=_COOKIE_PATH,
        max_age=LOGIN_S,
        httponly=True,
        secure=not is_local(request),
        samesite="Lax",  # the issuer's page sends the browser back, by a link
    )
    return response


async def oidc_callback(request: web.Request) -> web.Response:
    """Whom the issuer sends back is logged in, and sent to where he wanted to go."""
    state, oidc = request.app[STATE], _configured(request)
    asked = {name: values[0] for name, values in request[QUERY].items()}
    account_id = await state.account_id()
    try:
        pending = unseal(await state.known.signing_secret(), account_id, request.cookies.get(COOKIE, ""))
        if not hmac.compare_digest(asked.get("state", "").encode(), pending.state.encode()):
            raise OidcRefused("its state is not that of the login that this browser has begun")
        if asked.get("iss", oidc.issuer) != oidc.issuer:  # RFC 9207
            raise OidcRefused("the answer is of another issuer")
        if "error" in asked:
            word = asked["error"] if _WORD.fullmatch(asked["error"]) else "an error"
            raise OidcRefused(f"the issuer answered {word}")
        if "code" not in asked:
            raise OidcRefused("it came back without a code")
        # Not before: a foreign page can send anybody's browser here, but not with our cookie and the state in it.
        if locked_s := await begin_try_of_address(request):
            raise login_locked(locked_s)
        identity = await oidc.finish(pending, asked["code"])
        found = await find_or_tie(
            state.pool,
            account_id,
            by(request)._replace(actor="oidc"),
            issuer=oidc.issuer,
            subject=identity.subject,
            email=identity.email,
            name=identity.name,
            default_role=cast("RoleWord | None", oidc.default_role),
        )
        if isinstance(found, str):
            raise OidcRefused(_WHY[found])
        token, digest = make_refresh_token()
        family = await open_session(
            state.pool, account_id, by(request, found.user_id), found.user_id, digest, found.generation
        )
        if family is None:  # he was, this very moment
            raise OidcRefused(_WHY["disabled"])
    except OidcRefused as error:
        log.warning("oidc.refused", request_id=request[REQUEST_ID], reason=str(error))
        raise Problem(
            "oidc_refused",
            f"This login is not accepted: {error}. Begin anew at {LOGIN_PATH}.",
            headers={"Set-Cookie": f"{COOKIE}=; Max-Age=0; Path={_COOKIE_PATH}; HttpOnly; SameSite=Lax"},
        ) from error
    except OidcUnavailable as error:
        await take_back_try_of_address(request)
        raise _unavailable(request, error) from error
    await take_back_try_of_address(request)
    response = web.Response(status=302, headers={"Location": pending.return_to, "Cache-Control": "no-store"})
    set_session(request, response, token)
    response.del_cookie(COOKIE, path=_COOKIE_PATH, httponly=True, secure=not is_local(request), samesite="Lax")
    return response


async def list_identities(request: web.Request) -> web.Response:
    """Who a user is elsewhere."""
    state, user_id = request.app[STATE], _user_id(request)
    account_id = await state.account_id()
    if await select_user(state.pool, account_id, user_id) is None:
        raise _no_user()
    return json_response(request, encode(IdentityList(await select_identities(state.pool, account_id, user_id))))


async def add_identity(request: web.Request) -> web.Response:
    """Tie a user to a subject of an issuer."""
    state, user_id = request.app[STATE], _user_id(request)
    asked: NewIdentity = request[BODY]  # type: ignore[assignment]  # the route's body
    connection = await changing(request)
    made = await insert_identity(
        connection, await state.account_id(), by(request), user_id, asked.issuer, asked.subject
    )
    if made == "identity_taken":
        raise Problem("identity_taken", "This user is tied to that issuer already, or another user to that subject.")
    if isinstance(made, str):
        raise _no_user()
    return json_response(request, encode(made), status=201)


async def remove_identity(request: web.Request) -> web.Response:
    """Untie a user; the sessions that he has go on."""
    state, user_id = request.app[STATE], _user_id(request)
    identity_id = read_id(request, "identityId")
    connection = await changing(request)
    gone = identity_id is not None and await delete_identity(
        connection, await state.account_id(), by(request), user_id, identity_id
    )
    if not gone:
        raise Problem("identity_not_found", "The user is tied to nothing of this id.")
    afterwards(request, state.known.forget)
    return web.Response(status=204)


def _configured(request: web.Request) -> Issuer:
    oidc = request.app[STATE].oidc
    if oidc is None:
        raise Problem("oidc_not_configured", "No issuer is configured: log in with a password, or set [oidc].")
    return oidc


def _return_to(asked: dict[str, list[str]]) -> str:
    """Where to send the browser in the end: within this server, or this would send people to anybody's page."""
    text = asked["returnTo"][0] if "returnTo" in asked else "/"
    path = local_path(text) if len(text) <= _LONGEST_PATH else None
    if path is None:
        raise bad_parameter("returnTo", "is no path of this server; allowed: one such as /desk?tab=calls.")
    return path


def _user_id(request: web.Request) -> UUID:
    user_id = read_id(request)
    if user_id is None:
        raise _no_user()
    return user_id


def _no_user() -> Problem:
    return Problem("user_not_found", "No user has this id. GET /api/v1/users lists those there are.")


def _unavailable(request: web.Request, error: OidcUnavailable) -> Problem:
    log.warning("oidc.unavailable", request_id=request[REQUEST_ID], reason=str(error))
    return Problem(
        "oidc_unavailable",
        f"The issuer cannot be asked: {error}. Try again, or log in with a password.",
        headers={"Retry-After": "5"},
    )
