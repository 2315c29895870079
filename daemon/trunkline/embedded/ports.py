"""Blocks of free ports on loopback, for servers side by side.

All below 32768, where the kernel's own choices begin. A block is ours as long as we listen on its last port: whoever
else looks for one, in any process, sees that. So two that start at the same moment never get the same.
"""

import contextlib
import random
import socket
from collections.abc import Iterable
from typing import Final

BLOCK: Final = 400
_FIRST: Final = 12000
_LAST: Final = 32000


class NoPorts(RuntimeError):
    """No free block of ports was found."""


class PortBlock:
    """`BLOCK` ports from `base`; the last one is the lock."""

    def __init__(self, base: int, host: str, lock: socket.socket) -> None:
        """Use `claim`."""
        self.base = base
        self._host = host
        self._lock: socket.socket | None = lock

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def hold(self) -> None:
        """Have it again after release(). Raises NoPorts when somebody else has it now."""
        if self._lock is None:
            self._lock = _locked(self._host, self.base)
            if self._lock is None:
                raise NoPorts(f"the ports from {self.base} on {self._host} were taken by another program meanwhile")


def claim(used: Iterable[int], host: str = "127.0.0.1") -> PortBlock:
    """A block in which the ports `base + n` for every n of `used` are free, on TCP and UDP. Raises NoPorts."""
    offsets = tuple(used)
    bases = list(range(_FIRST, _LAST, BLOCK))
    random.shuffle(bases)
    for base in bases:
        lock = _locked(host, base)
        if lock is None:
            continue
        if all(_free(host, base + offset) for offset in offsets):
            return PortBlock(base, host, lock)
        lock.close()
    raise NoPorts(f"no block of {BLOCK} free ports between {_FIRST} and {_LAST} on {host}: are many PBXs left running?")


def _locked(host: str, base: int) -> socket.socket | None:
    """The lock of a block; None where somebody has it. Listening, for merely bound two can have the same port."""
    lock = _bound(socket.SOCK_STREAM, host, base + BLOCK - 1)
    if lock is not None:
        try:
            lock.listen(1)
        except OSError:
            lock.close()
            return None
    return lock


def _free(host: str, port: int) -> bool:
    with contextlib.ExitStack() as held:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            bound = _bound(kind, host, port)
            if bound is None:
                return False
            held.enter_context(bound)
    return True


def _bound(kind: socket.SocketKind, host: str, port: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            # a port that a stopped server has left in TIME_WAIT is free for the next one, which sets this too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        return None
    return sock
