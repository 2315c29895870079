"""Start a program that dies with us, as another user where asked, without running Python between fork and exec.

The kernel's parent death signal is tied to the *thread* that forked, and is forgotten by setuid. So the fork is done by
a thread that lives as long as the child, and a few lines of Python in the child set the signal after the user is set,
then become the program. Those lines run in a process of their own: a preexec_fn would run in a fork of this one, where
another thread may have held any lock.
"""

import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_BECOME: Final = """
import ctypes, os, signal, sys
parent, death, uid, gid = (int(arg) for arg in sys.argv[1:5])
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if ctypes.CDLL(None, use_errno=True).prctl(1, death, 0, 0, 0) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed: " + os.strerror(ctypes.get_errno()))
if os.getppid() != parent:
    sys.exit("the starting process is gone already")
os.umask(0o077)
os.execv(sys.argv[5], sys.argv[5:])
"""


class Child:
    """A program in a session of its own (the terminal's Ctrl-C is ours to handle, not its)."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        output: Path,
        user: pwd.struct_passwd | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `argv` (its first word an absolute path); stdout and stderr are appended to `output`.

        Raises OSError when it cannot be started.
        """
        self._argv = tuple(argv)
        self._output = output
        self._user = user
        self._death_signal = death_signal
        self._environment = dict(os.environ if environment is None else environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._fault: OSError | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name=f"child {Path(argv[0]).name}", daemon=True).start()
        self._started.wait()
        if self._fault is not None:
            raise self._fault

    def _keep(self) -> None:
        uid, gid = (-1, -1) if self._user is None else (self._user.pw_uid, self._user.pw_gid)
        words = [str(os.getpid()), str(int(self._death_signal)), str(uid), str(gid)]
        try:
            with self._output.open("ab") as output:
                self._process = subprocess.Popen(  # the programs are ours to name
                    [sys.executable, "-I", "-S", "-c", _BECOME, *words, *self._argv],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=self._environment,
                    start_new_session=True,
                )
        except OSError as fault:
            self._fault = fault
            return
        finally:
            self._started.set()
        self._process.wait()
        self._ended.set()

    @property
    def pid(self) -> int:
        """The process id; the program keeps that of the launcher."""
        if self._process is None:
            raise RuntimeError("the child was never started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode if self._process is not None and self._ended.is_set() else None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; say whether it came in time."""
        return self._ended.wait(timeout_s)

    def send(self, what: signal.Signals) -> None:
        """Signal the program; nothing happens when it has ended."""
        if self._process is not None and not self._ended.is_set():
            self._process.send_signal(what)
