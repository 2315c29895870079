"""API keys and refresh tokens: 32 random bytes, shown once, kept as SHA-256.

A slow hash is for what people think up; of 256 random bits nobody finds a preimage. Looked up by digest in an index, a
key gives nothing away by the time it takes: who sends it cannot choose its digest.
"""

import re
import secrets
from hashlib import sha256
from typing import Final, NamedTuple

PREFIX: Final = "tl_"
_SHOWN: Final = len(PREFIX) + 6  # characters; what is left has 220 bits
_KEY: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)


class NewKey(NamedTuple):
    """A key that was just made; `text` is never to be seen again."""

    text: str
    prefix: str
    digest: bytes


def make_key() -> NewKey:
    """Make a key."""
    text = PREFIX + secrets.token_urlsafe(32)
    return NewKey(text, text[:_SHOWN], digest_of(text))


def make_refresh_token() -> tuple[str, bytes]:
    """Make a refresh token: itself, and its digest."""
    text = secrets.token_urlsafe(32)
    return text, digest_of(text)


def is_key(text: str) -> bool:
    """Whether this could be a key of the database; nothing else is looked up there."""
    return _KEY.fullmatch(text) is not None


def digest_of(text: str) -> bytes:
    """SHA-256."""
    return sha256(text.encode("utf-8", "surrogateescape")).digest()
