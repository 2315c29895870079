"""The daemon as the admin runs it: `trunkline run` with a settings file, in a process of its own."""

import contextlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from stage import until

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.s3 import S3Server

_HTTP = 10  # of the PBX's block of ports
_READY_S = 20.0
_HERE = """
[webhooks]
allow_http = true
allow_networks = ["127.0.0.0/8"]
"""


@contextlib.contextmanager
def running_daemon(
    pbx: Asterisk,
    url: str,
    directory: Path,
    *,
    ami_port: int = 0,
    s3: S3Server | None = None,
    strict: bool = True,
    webhooks: bool = False,
) -> Iterator[str]:
    """A daemon that follows `pbx` (by `ami_port`, a proxy's, where given) and is ready; its base URL.

    s3: where it stores recordings, else nowhere. strict: no error may be in its log. webhooks: they may lead here.
    """
    (directory / "ami").write_text(pbx.secrets.ami_events)
    (directory / "url").write_text(url)
    http = pbx.base + _HTTP + (s3 is not None) + 2 * webhooks
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
{f'recordings = "{pbx.recordings}"' if s3 else ""}
{f'voicemail = "{pbx.mailboxes}"' if s3 else ""}

[http]
port = {http}

[log]
level = "debug"
format = "json"

[spool]
path = "spool"
{_stored_in(s3) if s3 else ""}
{_HERE if webhooks else ""}
"""
    )
    log = directory / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "trunkline", "run", "--config", str(directory / "trunkline.toml")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    base = f"http://127.0.0.1:{http}"
    try:
        until(f"the daemon is ready; its log: {log}", lambda: _ready(process, base, log), _READY_S)
        yield base
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert status == 0, f"the daemon ended with {status}:\n{log.read_text()[-2000:]}"
    if not strict:
        return
    faults = [line for line in log.read_text().splitlines() if '"level":"error"' in line.replace(" ", "")]
    assert faults == []


def _stored_in(s3: S3Server) -> str:
    return f"""
[recordings]
endpoint = "{s3.endpoint}"
bucket = "recordings"
access_key = "{s3.access_key}"
secret_key = "{s3.secret_key}"
sweep_s = 2
"""


def _ready(process: subprocess.Popen[bytes], base: str, log: Path) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"the daemon ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    try:
        with urllib.request.urlopen(f"{base}/readyz", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
