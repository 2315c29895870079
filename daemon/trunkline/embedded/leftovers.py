"""Directories of temporary servers whose process was killed before it could remove them: the next one does.

A directory is marked as temporary while its lock is held. It is left over once it has the mark and nobody has the lock.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from trunkline.embedded import postgres_programs

_MARKED: Final = "temporary"


def hold(home: Path, asked: Path | None) -> int | None:
    """Take the directory of a server, which went into `asked`: the descriptor of its lock; None: somebody has it."""
    lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    _mark(home, asked)
    return lock


def _mark(home: Path, asked: Path | None) -> None:
    """Say that `home` is temporary, or goes with `asked` when that is.

    `asked` is temporary when it lies where temporary files do, as the directories of tests.
    """
    if asked is None:
        (home / _MARKED).write_text("")
    elif asked != home and asked.is_relative_to(Path(tempfile.gettempdir()).resolve()):
        (home / _MARKED).write_text(str(asked))


def sweep() -> None:
    """Remove what is left over, of this user."""
    for parent in {Path(tempfile.gettempdir()), postgres_programs.OWN}:
        for found in parent.glob(f"trunkline-*/{_MARKED}"):
            with contextlib.suppress(OSError):  # in use, or somebody else is at it
                _remove(found)


def _remove(found: Path) -> None:
    home, asked = found.parent, found.read_text()
    if home.lstat().st_uid != os.geteuid() or (asked and Path(asked).exists()):
        return
    lock = os.open(home / "lock", os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(home)
    finally:
        os.close(lock)
