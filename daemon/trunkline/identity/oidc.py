"""Logging in at an OpenID Connect issuer: what of it everybody may load. oidc_client.py asks the issuer.

A login that is under way is kept by the browser, in a cookie that is signed: so it is bound to that browser, and any
process of the API can finish it.
"""

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

LOGIN_S: Final = 600  # how long somebody may take at the issuer
_ALGORITHM: Final = "HS256"
_FIELDS: Final = ("state", "nonce", "verifier", "to")


class OidcRefused(Exception):
    """The login is not accepted; the text says why, and holds nothing secret."""


class OidcUnavailable(Exception):
    """The issuer cannot be asked; the text says what of it."""


class Pending(NamedTuple):
    """A login that is under way."""

    state: str
    nonce: str
    verifier: str  # of PKCE
    return_to: str  # a path of this server


class Identity(NamedTuple):
    """Who somebody is at the issuer."""

    subject: str
    email: str | None = None  # in lowercase, and only one that the issuer has verified
    name: str = ""


class Issuer(Protocol):
    """An issuer, as the API uses it."""

    issuer: str
    label: str  # for the button
    default_role: str | None  # of users that are made at their first login; None: none are

    async def begin(self, return_to: str) -> tuple[str, Pending]:
        """Where to send the browser, and what it keeps. Raises OidcUnavailable."""

    async def finish(self, pending: Pending, code: str) -> Identity:
        """Who has come back with a code. Raises OidcRefused, OidcUnavailable."""


def seal(secret: bytes, account_id: UUID, pending: Pending) -> str:
    """What the browser keeps: signed, good for LOGIN_S and for this account."""
    import jwt  # here: as in tokens.py

    claims = {**dict(zip(_FIELDS, pending, strict=True)), "exp": datetime.now(UTC) + timedelta(seconds=LOGIN_S)}
    return jwt.encode(claims, _key(secret, account_id), algorithm=_ALGORITHM)


def unseal(secret: bytes, account_id: UUID, text: str) -> Pending:
    """What was sealed. Raises OidcRefused."""
    import jwt

    try:
        found: dict[str, Any] = jwt.decode(
            text, _key(secret, account_id), algorithms=[_ALGORITHM], options={"require": ["exp", *_FIELDS]}
        )
    except jwt.PyJWTError as error:
        raise OidcRefused("this browser has begun no login, or more than 10 minutes ago") from error
    return Pending(*(str(found[name]) for name in _FIELDS))


def local_path(text: str) -> str | None:
    """A path of this server that a browser may be sent to; None where it could lead elsewhere.

    Browsers take `\\` for `/` and leave out tabs and line ends, and `//host` is another host.
    """
    plain = text.isascii() and text.isprintable() and "\\" not in text and " " not in text
    return text if plain and text.startswith("/") and not text.startswith("//") else None


def _key(secret: bytes, account_id: UUID) -> bytes:
    """A key of its own, so that this is never taken for an access token, nor one for this."""
    return hmac.digest(secret, b"oidc " + account_id.bytes, sha256)
