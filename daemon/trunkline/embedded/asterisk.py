"""A private Asterisk with our asterisk-config/ and dialplan/, for `trunkline up` and the tests.

Everything is on 127.0.0.0/8 and on ports below 32768; many run side by side; none outlives us.
"""

import contextlib
import math
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from trunkline.embedded.launch import Child
from trunkline.embedded.ports import PortBlock, claim
from trunkline.embedded.provision import checkout
from trunkline.embedded.render import COMPANY, Agent, Secrets, Settings, render

_AMI, _AMI_TLS, _HTTP, _HTTPS, _SIP, _SIPS, _TRUNK, _RTP_START, _RTP_END = 0, 1, 2, 3, 4, 5, 6, 100, 397
_USED: Final = (_AMI, _AMI_TLS, _HTTP, _HTTPS, _SIP, _SIPS, _TRUNK)
_POLL_S: Final = 0.02
# sun_path holds 108 bytes; asterisk.ctl must fit behind the directory
_SOCKET_DIR_MAX: Final = 90


class AsteriskError(RuntimeError):
    """Asterisk did not start or did not do what it was told; the text holds its last words."""


class Asterisk:
    """One PBX. All methods block; from trio call them in a thread."""

    def __init__(
        self,
        dist: Path,
        home: Path,
        *,
        base: int | None = None,
        host: str = "127.0.0.1",
        trunk_host: str = "127.0.0.2",
        agents: Sequence[Agent] = COMPANY,
        tls: bool = False,
        **settings: Any,
    ) -> None:
        """`dist` is what provision() returned, `home` a directory for its files (kept between starts).

        `base`: first of 400 ports, None for free ones. `settings` are those of render.Settings (ring_s, park_s, …).
        """
        self.dist, self.home, self.host, self.trunk_host = dist.resolve(), home.resolve(), host, trunk_host
        self._block: PortBlock | None = claim(_USED, host) if base is None else None
        self.base = base if self._block is None else self._block.base
        assert self.base is not None  # noqa: S101  # one of the two gave it
        self.ami_port, self.http_port, self.sip_port = self.base + _AMI, self.base + _HTTP, self.base + _SIP
        self.https_port, self.sips_port, self.trunk_port = self.base + _HTTPS, self.base + _SIPS, self.base + _TRUNK
        self.ami_tls_port = self.base + _AMI_TLS
        self.agents, self._tls = tuple(agents), tls
        self._settings: dict[str, Any] = {"qualify_s": 0, **settings}
        self._child: Child | None = None
        self._secrets: Secrets | None = None
        self._socket_dir: Path | None = None

    @property
    def secrets(self) -> Secrets:
        """AMI and ARI secrets, agents' passwords, the systemname; there once it was started."""
        if self._secrets is None:
            raise AsteriskError("not started: the configuration is written by start()")
        return self._secrets

    @property
    def systemname(self) -> str:
        """The name that every event and Uniqueid carries."""
        return self.secrets.systemname

    @property
    def recordings(self) -> Path:
        """Where MixMonitor writes."""
        return self.home / "spool" / "monitor"

    @property
    def ari_recordings(self) -> Path:
        """Where what ARI records is written."""
        return self.home / "spool" / "recording"

    @property
    def mailboxes(self) -> Path:
        """Where app_voicemail keeps messages."""
        return self.home / "spool" / "voicemail"

    @property
    def pid(self) -> int:
        """Asterisk's process id; stays through restart_now()."""
        return self._running().pid

    def start(self, timeout_s: float = 30) -> Self:
        """Write the configuration, start, and return when it is fully booted. Raises AsteriskError, NoPorts."""
        if self._block is not None:
            self._block.hold()
        self._write_configuration()
        self._child = Child(
            [str(self.dist / "bin" / "asterisk"), "-f", "-C", str(self.home / "etc" / "asterisk.conf")],
            output=self.home / "log" / "stdout.log",
            death_signal=signal.SIGTERM,
        )
        try:
            self.wait_booted(timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def wait_booted(self, timeout_s: float = 30) -> None:
        """Return when AMI says FullyBooted (the port opens, and login works, before that). Raises AsteriskError."""
        deadline = time.monotonic() + timeout_s
        while not self._is_booted(deadline):
            child = self._running()
            if child.returncode is not None:
                raise AsteriskError(f"Asterisk ended with status {child.returncode}.\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise AsteriskError(f"Asterisk was not up within {timeout_s:g} s.\n{self._last_words()}")
            time.sleep(_POLL_S)

    def stop(self, timeout_s: float = 10) -> None:
        """SIGTERM, then SIGKILL; nothing is left behind, the ports are free. May be called twice, or before start()."""
        if self._child is not None:
            self._child.send(signal.SIGTERM)
            if not self._child.wait(timeout_s):
                self._child.send(signal.SIGKILL)
                self._child.wait()
            self._child = None
        self._release()

    def kill(self) -> None:
        """SIGKILL: no Hangup, no CDR. The ports stay ours; start() begins anew."""
        child = self._running()
        child.send(signal.SIGKILL)
        child.wait()

    def restart_now(self) -> None:
        """`core restart now`: every call is cut, the process id stays. Follow with wait_booted()."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.cli("core restart now")

    def cli(self, command: str, timeout_s: float = 20) -> str:
        """What Asterisk's console answers."""
        return subprocess.run(
            [str(self.dist / "bin" / "asterisk"), "-C", str(self.home / "etc" / "asterisk.conf"), "-rx", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        ).stdout

    def did(self, last: str) -> str:
        """The full number for its last four digits: did("0001") reaches agent 1001, did("0200") the queue."""
        return f"{self._settings.get('did_prefix', Settings.did_prefix)}{last}"

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _running(self) -> Child:
        if self._child is None:
            raise AsteriskError("Asterisk is not running: call start()")
        return self._child

    def _release(self) -> None:
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
        if self._block is not None:
            self._block.release()

    def _write_configuration(self) -> None:
        for name in (
            "etc",
            "var/keys",
            "spool/monitor",
            "spool/recording",
            "spool/tmp",
            "spool/voicemail",
            "run",
            "log/cdr-custom",
            "log/cel-custom",
            "moh",
        ):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        run = self.home / "run"
        if len(str(run)) > _SOCKET_DIR_MAX:
            self._socket_dir = run = self._socket_dir or Path(tempfile.mkdtemp(prefix="trunkline-"))
        tone = self.home / "moh" / "tone.sln"
        if not tone.exists():
            samples = (int(6000 * math.sin(2 * math.pi * 440 * i / 8000)) for i in range(8000))
            tone.write_bytes(b"".join(struct.pack("<h", sample) for sample in samples) * 10)
        certificate, key = self._certificate() if self._tls else ("", "")
        base = self.ami_port - _AMI
        # without an address RTP would be bound to 0.0.0.0
        media: dict[str, Any] = {
            "media_address": self.host,
            "rtp_start": base + _RTP_START,
            "rtp_end": base + _RTP_END,
        }
        settings = Settings(
            etc_dir=str(self.home / "etc"),
            modules_dir=str(self.dist / "modules"),
            data_dir=str(self.dist / "root" / "usr" / "share" / "asterisk"),
            var_dir=str(self.home / "var"),
            spool_dir=str(self.home / "spool"),
            run_dir=str(run),
            log_dir=str(self.home / "log"),
            moh_dir=str(self.home / "moh"),
            ami_bind=self.host,
            ami_permit="127.0.0.0/255.0.0.0",
            ami_port=self.ami_port,
            ami_tls_port=self.ami_tls_port,
            http_bind=self.host,
            http_port=self.http_port,
            https_port=self.https_port,
            sip_bind=self.host,
            sip_port=self.sip_port,
            sips_port=self.sips_port,
            tls_cert=certificate,
            tls_key=key,
            trunk_host=self.trunk_host,
            trunk_port=self.trunk_port,
            agents=self.agents,
            **(media | self._settings),
        )
        self._secrets = render(checkout(), self.home / "etc", settings)

    def _certificate(self) -> tuple[str, str]:
        certificate, key = self.home / "etc" / "tls.crt", self.home / "etc" / "tls.key"
        if not certificate.exists():
            config = self.home / "etc" / "openssl.cnf"
            config.write_text("[req]\ndistinguished_name = name\n[name]\n")
            subprocess.run(
                [
                    *(str(self.dist / "bin" / "openssl"), "req", "-x509", "-newkey", "ec"),
                    *("-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", "/CN=localhost"),
                    *("-addext", f"subjectAltName=DNS:localhost,IP:{self.host}", "-config", str(config)),
                    *("-keyout", str(key), "-out", str(certificate)),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=True,
            )
        return str(certificate), str(key)

    def _is_booted(self, deadline: float) -> bool:
        try:
            with socket.create_connection((self.host, self.ami_port), 1) as ami:
                ami.settimeout(max(0.1, min(5.0, deadline - time.monotonic())))
                login = (
                    f"Action: Login\r\nUsername: doctor\r\nSecret: {self.secrets.ami_doctor}\r\nEvents: system\r\n\r\n"
                )
                ami.sendall(login.encode())
                heard = b""
                while b"Event: FullyBooted" not in heard:
                    data = ami.recv(4096)
                    if not data:
                        return False
                    heard += data
        except OSError:
            return False
        return True

    def _last_words(self) -> str:
        words = []
        for log in (self.home / "log" / "stdout.log", self.home / "log" / "messages.log"):
            with contextlib.suppress(OSError):
                words.append(f"{log}:\n{log.read_text(errors='replace')[-1500:]}")
        return "\n".join(words)
