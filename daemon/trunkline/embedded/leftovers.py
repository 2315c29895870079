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

_MARK: Final = "temporary"


def mark(home: Path, asked: Path | None) -> None:
    """Say that `home` is temporary, or goes with `asked` when that is; the caller holds the lock.

    `asked` is temporary when it lies where temporary files do, as the directories of tests.
    """
    if asked is None:
        (home / _MARK).write_text("")
    elif asked != home and asked.is_relative_to(Path(tempfile.gettempdir()).resolve()):
        (home / _MARK).write_text(str(asked))


def sweep() -> None:
    """Remove what is left over, of this user."""
    for parent in {Path(tempfile.gettempdir()), postgres_programs.OWN}:
        for found in parent.glob(f"trunkline-*/{_MARK}"):
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
