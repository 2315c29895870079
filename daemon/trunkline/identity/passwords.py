"""Passwords: argon2id, never on the event loop, and few at a time: each takes 64 MiB and a tenth of a second."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

SHORTEST: Final = 12  # characters
LONGEST: Final = 256
_AT_ONCE: Final = 2
MOST_WAITING: Final = 32  # a few seconds of work, and less than a request may take

_hasher: Final = PasswordHasher()  # RFC 9106's second choice: 64 MiB, 3 passes, 4 lanes


def hash_password(password: str) -> str:
    """The hash, with its salt and parameters, as text. Blocks."""
    return _hasher.hash(password)


class Passwords:
    """Hashes and checks in threads of its own: one who gives up waiting leaves his thread busy, not free for another.

    Whoever wants one of both takes a place in the line first, and gives it back.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="passwords")
        self._waiting = 0
        self._nobody: str | None = None

    def enter(self) -> bool:
        """Take a place in the line, those who are being served included. False: it is full."""
        if self._waiting >= MOST_WAITING:
            return False
        self._waiting += 1
        return True

    def leave(self) -> None:
        """Give the place back."""
        self._waiting -= 1

    async def hash(self, password: str) -> str:
        """The hash of a new password."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, hash_password, password)

    async def verify(self, known: str | None, password: str) -> bool:
        """Whether this is the password of that hash. None is nobody's: False, after as much work as for a wrong one."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, known, password)

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
