"""The daemon as the admin runs it: `trunkline run` with a settings file, in a process of its own."""

import contextlib
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from stage import until

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.launch import Child
from trunkline.embedded.s3 import S3Server

_HTTP = 10  # of the PBX's block of ports
_READY_S = 20.0
_HERE = """
[webhooks]
allow_http = true
allow_networks = ["127.0.0.0/8"]
"""

COMMANDS = """
[commands]
destinations = ["+1202"]  # its numbers set aside for fiction are in no country
per_second = 100
"""


def _with_files(pbx: Asterisk) -> str:
    return f"""
recordings = "{pbx.recordings}"
voicemail = "{pbx.mailboxes}"
ari_url = "http://{pbx.host}:{pbx.http_port}"
ari_secret_file = "ari"
ari_recordings = "{pbx.ari_recordings}"
"""


class Storage(NamedTuple):
    """Where a daemon puts recordings: a server's bucket, by another endpoint (a proxy's) where one is given."""

    server: S3Server
    endpoint: str = ""
    prefix: str = ""

    def settings(self) -> str:
        return f"""
[recordings]
endpoint = "{self.endpoint or self.server.endpoint}"
bucket = "recordings"
prefix = "{self.prefix}"
access_key = "{self.server.access_key}"
secret_key = "{self.server.secret_key}"
sweep_s = 2
"""


class Daemon:
    """A daemon that follows `pbx` (by `ami_port`, a proxy's, where given); its settings and log are in `directory`.

    webhooks: they may lead to this machine. commands: the settings of [commands]; "": nothing can be commanded.
    """

    def __init__(
        self,
        pbx: Asterisk,
        url: str,
        directory: Path,
        *,
        ami_port: int = 0,
        storage: Storage | None = None,
        webhooks: bool = False,
        commands: str = "",
    ) -> None:
        self._directory = directory
        self._child: Child | None = None
        http = pbx.base + _HTTP + (storage is not None) + 2 * webhooks + 4 * bool(commands)
        self.base = f"http://127.0.0.1:{http}"
        (directory / "ami").write_text(pbx.secrets.ami_events)
        (directory / "ari").write_text(pbx.secrets.ari_recordings)
        (directory / "control").write_text(pbx.secrets.ami_control)
        (directory / "url").write_text(url)
        (directory / "trunkline.toml").write_text(
            f"""
[database]
url_file = "url"

[[pbx]]
host = "{pbx.host}"
port = {ami_port or pbx.ami_port}
username = "events"
secret_file = "ami"
region = "GB"
{'control_secret_file = "control"' if commands else ""}
{_with_files(pbx) if storage else ""}

[http]
port = {http}

[log]
level = "debug"
format = "json"

[spool]
path = "spool"
{storage.settings() if storage else ""}
{_HERE if webhooks else ""}
{commands}
"""
        )

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    def start(self) -> Self:
        """Start, and return once it is ready."""
        words = [sys.executable, "-m", "trunkline", "run", "--config", str(self._directory / "trunkline.toml")]
        self._child = Child(words, output=self._directory / "log")
        try:
            until(f"the daemon is ready; its log: {self._directory}/log", self._ready, _READY_S)
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            self._child.wait()

    def stop(self, *, strict: bool = True) -> None:
        """SIGTERM, which it must follow. strict: no error may be in its log."""
        assert self._child is not None
        self._child.send(signal.SIGTERM)
        in_time = self._child.wait(10)
        self.kill()
        assert in_time, f"the daemon did not stop:\n{self.log[-2000:]}"
        assert self._child.returncode == 0, f"the daemon ended with {self._child.returncode}:\n{self.log[-2000:]}"
        faults = [line for line in self.log.splitlines() if '"level":"error"' in line.replace(" ", "")]
        assert faults == [] or not strict, "\n".join(faults)

    def _ready(self) -> bool:
        assert self._child is not None
        if self._child.returncode is not None:
            raise AssertionError(f"the daemon ended with {self._child.returncode}:\n{self.log[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.base}/readyz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


@contextlib.contextmanager
def running_daemon(
    pbx: Asterisk,
    url: str,
    directory: Path,
    *,
    ami_port: int = 0,
    storage: Storage | None = None,
    strict: bool = True,
    webhooks: bool = False,
    commands: str = "",
) -> Iterator[Daemon]:
    """A daemon that runs and is ready. `strict` as in `Daemon.stop`."""
    daemon = Daemon(pbx, url, directory, ami_port=ami_port, storage=storage, webhooks=webhooks, commands=commands)
    daemon.start()
    try:
        yield daemon
    except BaseException:
        daemon.kill()
        raise
    daemon.stop(strict=strict)
