"""Asterisk from Debian's packages, unpacked once into a directory of ours by `asterisk-config/install.sh`.

Idempotent and quick when it is there already; callers of the same directory, in any process, wait for each other.
"""

import fcntl
import hashlib
import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_SAID: Final = 12  # of the script's last lines, told when it fails


class ProvisionError(RuntimeError):
    """Asterisk could not be installed; the text says why and what to do."""


def checkout() -> Path:
    """The checkout that this program runs from: it holds asterisk-config/ and dialplan/.

    Raises ProvisionError when there is none (the package was installed as a wheel).
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "asterisk-config" / "install.sh").is_file():
        raise ProvisionError(
            f"asterisk-config/ is not below {root}: the embedded Asterisk needs a checkout of trunkline "
            "(or use your own PBX: trunkline up --pbx HOST)"
        )
    return root


def default_directory() -> Path:
    """Where this checkout keeps its Asterisk."""
    return checkout() / ".trunkline" / "asterisk"


def provision(
    directory: Path | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Make sure that a runnable Asterisk is in `directory` (default: default_directory()) and return the directory.

    `say` gets each line of progress. DEBS, SUITE and MIRROR are taken from the environment, see install.sh.
    Blocks, about 10 s with network the first time. Raises ProvisionError.
    """
    script = checkout() / "asterisk-config" / "install.sh"
    directory = (directory or default_directory()).resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    stamp = directory / ".installed"
    want = hashlib.sha256(script.read_bytes() + _modules(script)).hexdigest()
    if _is(stamp, want):
        return directory
    with (directory.parent / f".{directory.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"asterisk: another process is installing into {directory}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is(stamp, want):
            _run(script, directory, say, environment)
            stamp.write_text(want + "\n")
    return directory


def _modules(script: Path) -> bytes:
    return (script.parent / "modules.conf").read_bytes()


def _is(stamp: Path, want: str) -> bool:
    try:
        return stamp.read_text().strip() == want and (stamp.parent / "bin" / "asterisk").exists()
    except OSError:
        return False


def _run(script: Path, directory: Path, say: Callable[[str], None], environment: Mapping[str, str] | None) -> None:
    said: deque[str] = deque(maxlen=_SAID)
    with subprocess.Popen(
        ["/bin/bash", str(script), str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ if environment is None else environment),
        text=True,
        errors="replace",
    ) as process:
        if process.stdout is None:
            raise ProvisionError("install.sh has no output")
        for line in process.stdout:
            said.append(line.rstrip())
            say(line.rstrip())
    if process.returncode != 0:
        raise ProvisionError(
            f"asterisk-config/install.sh ended with status {process.returncode}:\n  " + "\n  ".join(said)
        )
