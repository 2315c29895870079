"""Passwords: argon2id, never on the event loop, and few at a time: each takes 64 MiB and a tenth of a second."""

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

SHORTEST: Final = 12  # characters
LONGEST: Final = 256
_AT_ONCE: Final = 2

_hasher: Final = PasswordHasher()  # RFC 9106's second choice: 64 MiB, 3 passes, 4 lanes


def hash_password(password: str) -> str:
    """The hash, with its salt and parameters, as text. Blocks."""
    return _hasher.hash(password)


class Passwords:
    """Hashes and checks in threads."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """The hash of a new password."""
        async with self._room:
            return await asyncio.to_thread(hash_password, password)

    async def verify(self, known: str | None, password: str) -> bool:
        """Whether this is the password of that hash. None is nobody's: False, after as much work as for a wrong one."""
        async with self._room:
            return await asyncio.to_thread(self._verify, known, password)

    def _verify(self, known: str | None, password: str) -> bool:
        if self._nobody is None:  # whoever comes first pays for it, so that this tells nothing either
            self._nobody = hash_password("nobody's")
        right = _matches(known or self._nobody, password)
        return right and known is not None


def needs_rehash(known: str) -> bool:
    """Whether a hash is of weaker parameters than those of now."""
    return _hasher.check_needs_rehash(known)


def _matches(known: str, password: str) -> bool:
    try:
        return _hasher.verify(known, password)
    except (Argon2Error, InvalidHashError):  # the second: the row holds something else
        return False
