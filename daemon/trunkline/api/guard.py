"""Who is answered: keys of the settings and of the database, users that are logged in, and without any this machine."""

import hmac
import ipaddress
import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from aiohttp import web

from trunkline.api.problem import Problem
from trunkline.identity import tokens
from trunkline.identity.keys import digest_of, is_key
from trunkline.identity.known import Known
from trunkline.identity.limits import Buckets
from trunkline.identity.scopes import ADMIN, SCOPES_OF, Role, common
from trunkline.store.faults import of_the_server

_HOW: Final = (
    "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; `trunkline admin create-key` makes one, and "
    "http.api_keys in the configuration may hold some. Users log in: POST /api/v1/auth/login."
)
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="trunkline"'}
_EVERYTHING: Final = frozenset({ADMIN})


class Caller(NamedTuple):
    """Who a request comes from, and what he may do."""

    actor: str  # for the audit: see store/identity_tables.py
    kind: Literal["settings_key", "api_key", "user", "loopback"]
    scopes: frozenset[str]
    user_id: UUID | None = None
    session: UUID | None = None  # the family of his refresh token


CALLER = web.RequestKey("caller", Caller)  # of a request that was let in; an open route may have none
_LOOPBACK: Final = Caller("loopback", "loopback", _EVERYTHING)


class Guard:
    """Lets callers in, and says who they are.

    keys: those of the settings, which may do everything. Only their digests are kept, and each comparison takes the
    same time. open_routes: the paths that are answered without any. required: nobody is let in without, also where the
    settings hold no key. buckets: how often each may ask; None: as often as he likes.
    """

    def __init__(
        self,
        keys: Sequence[str],
        open_routes: Collection[str],
        known: Known,
        *,
        required: bool = False,
        buckets: Buckets | None = None,
    ) -> None:
        self.known = known
        self._open = open_routes
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)
        self._required = required
        self._buckets = buckets

    @property
    def guarded(self) -> bool:
        """Whether nobody is let in without a key or a login; else only loopback may be listened on."""
        return self._required or bool(self._digests)

    async def check(self, request: web.Request, route: str) -> bool:
        """Let a request for `route` in, or raise Problem. Returns whether it is known whose it is (or need not be).

        Raises as asyncpg does where a key has to be looked up and cannot be.
        """
        if not self.guarded and not is_loopback(_host(request)):
            raise Problem(
                "host_not_allowed",
                "This server has no API key and answers only to localhost, 127.0.0.1 or [::1] in the Host header. "
                "To reach it by another name set http.api_keys, or auth.required, in the configuration.",
            )
        try:
            caller = await self._caller(request)
        except Exception as error:
            if route in self._open and (isinstance(error, Problem) or of_the_server(error)):
                return False
            raise
        request[CALLER] = caller
        if self._buckets is not None and (wait_s := self._buckets.take(caller.actor)):
            raise Problem(
                "rate_limited",
                "You ask more often than http.rate_limit allows. Wait as long as Retry-After says.",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        return True

    async def identify(self, credentials: Sequence[str]) -> Caller:
        """Who holds these keys or access tokens: each has to be good, and what all allow is allowed.

        Raises Problem, and as asyncpg does.
        """
        first, *others = [await self._holder(one) for one in credentials]
        scopes = first.scopes
        for other in others:
            scopes = common(scopes, other.scopes)
        return first._replace(scopes=scopes)

    async def _caller(self, request: web.Request) -> Caller:
        credentials = credentials_of(request)
        if credentials:
            return await self.identify(credentials)
        if not self.guarded:
            return _LOOPBACK
        raise key_missing()

    async def _holder(self, text: str) -> Caller:
        digest = digest_of(text)
        # Every key is compared, so that the time tells neither which one nor how much of it was right.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if any(matches):
            return Caller(f"key:{digest.hex()[:12]}", "settings_key", _EVERYTHING)
        if is_key(text):
            return await self._holder_of_key(digest)
        if tokens.looks_like_one(text):
            return await self._holder_of_token(text)
        raise _unknown()

    async def _holder_of_key(self, digest: bytes) -> Caller:
        key = await self.known.key(digest)
        if key is None:
            raise _unknown()
        if key.revoked_at is not None:
            raise Problem("key_revoked", f"This API key was revoked. {_HOW}", headers=_CHALLENGE)
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            raise Problem("key_expired", f"This API key has expired. {_HOW}", headers=_CHALLENGE)
        return Caller(f"api_key:{key.id}", "api_key", frozenset(key.scopes))

    async def _holder_of_token(self, text: str) -> Caller:
        try:
            claims = await self.known.read_token(text)
        except tokens.BadToken as error:
            raise _refused(str(error)) from error
        user = await self.known.session(claims.user_id, claims.session)
        if user is None or user.generation != claims.generation:
            raise _refused("its session is over")
        return Caller(f"user:{claims.user_id}", "user", SCOPES_OF[Role(user.role)], claims.user_id, claims.session)


def key_missing() -> Problem:
    """The problem of who does not say who he is."""
    return Problem("key_missing", f"This route needs an API key or a login. {_HOW}", headers=_CHALLENGE)


def actor(request: web.Request) -> str:
    """Who a request that was let in comes from, for an audit; store/identity_tables.py lists what there is."""
    return request[CALLER].actor


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(request: web.Request, allowed: Collection[str]) -> None:
    """Refuse what a page of another site sends. Raises Problem.

    allowed: origins beside the server's own. Only the host is compared with the request's: a proxy may have taken TLS
    off. Who sends no Origin is no browser.
    """
    origin = request.headers.get("Origin")
    if origin is None or origin in allowed:
        return
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        host = ""
    if not host or host.lower() != request.headers.get("Host", "").lower():
        raise Problem("origin_not_allowed", "A page of this origin is not let in; http.allowed_origins lists others.")


def is_local(request: web.Request) -> bool:
    """Whether the request was sent to a name of this machine."""
    return is_loopback(_host(request))


def _unknown() -> Problem:
    return Problem("key_unknown", f"This API key is not known. {_HOW}", headers=_CHALLENGE)


def _refused(why: str) -> Problem:
    headers = {"WWW-Authenticate": 'Bearer realm="trunkline", error="invalid_token"'}
    return Problem(
        "token_refused", f"This access token is not accepted: {why}. POST /api/v1/auth/refresh.", headers=headers
    )


def credentials_of(request: web.Request) -> list[str]:
    """What a request was sent with: where that is two, both have to be good."""
    found = [key.strip() for key in request.headers.getall("X-API-Key", ())]
    for given in request.headers.getall("Authorization", ()):
        scheme, _, credentials = given.partition(" ")
        if scheme.lower() == "bearer":
            found.append(credentials.strip())
    return found


def _host(request: web.Request) -> str:
    """Return the Host header without its port: a stranger's page that is rebound to us still sends its own name."""
    host = request.headers.get("Host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
