"""Access tokens: a JWT (RFC 7519) of 15 minutes that says who is logged in, where, and in which session.

HS256 only, whatever the token's head says: the algorithm is never the token's choice (RFC 8725, 3.1).
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

LIFETIME_S: Final = 900
SECRET_BYTES: Final = 32
_ISSUER: Final = "trunkline"
_ALGORITHM: Final = "HS256"
_CLAIMS: Final = ("iss", "aud", "sub", "sid", "gen", "iat", "exp", "jti")


class Claims(NamedTuple):
    """What a good token says."""

    user_id: UUID
    session: UUID  # the family of its refresh token
    generation: int


class BadToken(Exception):
    """A token that is not believed; the text says why, without it."""


def issue(secret: bytes, account_id: UUID, claims: Claims, *, now: datetime | None = None) -> str:
    """Make a token, good for LIFETIME_S."""
    import jwt  # here: with `cryptography`, which it takes where that is, it is 9 MB; Known has it loaded in a thread

    at = now or datetime.now(UTC)
    payload = {
        "iss": _ISSUER,
        "aud": str(account_id),
        "sub": str(claims.user_id),
        "sid": str(claims.session),
        "gen": claims.generation,
        "iat": at,
        "exp": at + timedelta(seconds=LIFETIME_S),
        "jti": uuid4().hex,
    }
    return jwt.encode(payload, secret, algorithm=_ALGORITHM)


def read(secret: bytes, account_id: UUID, token: str) -> Claims:
    """What a token says, if it is one of ours, of this account and in time. Raises BadToken."""
    import jwt

    try:
        found: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=[_ALGORITHM],
            audience=str(account_id),
            issuer=_ISSUER,
            options={"require": list(_CLAIMS)},
        )
        generation = found["gen"]
        if type(generation) is not int:
            raise BadToken("it is not one of this server's")
        return Claims(UUID(found["sub"]), UUID(found["sid"]), generation)
    except jwt.ExpiredSignatureError as error:
        raise BadToken("it has expired") from error
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise BadToken("it is not one of this server's") from error


def looks_like_one(text: str) -> bool:
    """Whether this could be a token: three parts."""
    return text.count(".") == 2
