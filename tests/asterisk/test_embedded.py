"""The embedded PBX itself: private, side by side, gone when we are; and how it is installed."""

import base64
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Tap, until

from trunkline.embedded.asterisk import Asterisk, AsteriskError
from trunkline.embedded.demo import play_demo_call
from trunkline.embedded.phone import Phone
from trunkline.embedded.ports import BLOCK, NoPorts
from trunkline.embedded.provision import ProvisionError, default_directory, provision
from trunkline.embedded.rtp import NotLoopback

LOOPBACK = re.compile(r"^[0-9A-F]{6}7F:")  # /proc writes addresses in the machine's byte order
FIRST_EPHEMERAL = 32768


def sockets(pid: int) -> Iterator[tuple[str, str, int]]:
    """(protocol, address, port) of what a process has bound."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(descriptor))
        except FileNotFoundError:
            continue
    for protocol in ("tcp", "udp", "tcp6", "udp6"):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].partition(":")
                yield protocol, address, int(port, 16)


def test_two_side_by_side_on_loopback_only(dist: Path, tmp_path: Path) -> None:
    with Asterisk(dist, tmp_path / "one") as one, Asterisk(dist, tmp_path / "two", tls=True) as two:
        assert abs(one.base - two.base) >= 400
        assert one.systemname != two.systemname
        for pbx in (one, two):
            bound = list(sockets(pbx.pid))
            assert {port for _, _, port in bound} >= {pbx.ami_port, pbx.http_port, pbx.sip_port}
            # pjlib's DNS resolver has its sockets in any case; it is asked nothing, as all our peers are addresses
            served = [one for one in bound if one[0] not in {"udp", "udp6"} or one[2] < FIRST_EPHEMERAL]
            assert len(bound) - len(served) <= 2
            for protocol, address, port in served:
                assert LOOPBACK.match(f"{address}:"), (protocol, address, port)
                assert port < FIRST_EPHEMERAL, (protocol, address, port)
        tls_is_prepared(two)


def tls_is_prepared(pbx: Asterisk) -> None:
    """SIP over TLS answers, a browser gets its WebSocket, AMI has TLS too."""
    context = ssl.create_default_context(cafile=str(pbx.home / "etc" / "tls.crt"))

    def connect(port: int) -> ssl.SSLSocket:
        return context.wrap_socket(socket.create_connection((pbx.host, port), 5), server_hostname=pbx.host)

    with connect(pbx.sips_port) as sip:
        assert sip.version() in {"TLSv1.2", "TLSv1.3"}
    with connect(pbx.ami_tls_port) as ami:
        assert ami.recv(100).startswith(b"Asterisk Call Manager/")
    key = base64.b64encode(os.urandom(16)).decode()
    with connect(pbx.https_port) as browser:
        browser.sendall(
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: sip\r\n\r\n".encode()
        )
        assert browser.recv(100).startswith(b"HTTP/1.1 101 ")


def test_the_log_has_nothing_to_complain_about(pbx: Asterisk) -> None:
    """A configuration that warns at every start hides the warning that matters."""
    lines = (pbx.home / "log" / "messages.log").read_text().splitlines()
    before_calls = lines[: next((n for n, line in enumerate(lines) if "Asterisk Ready" in line), len(lines))]
    assert [line for line in before_calls if re.search(r"\] (WARNING|ERROR)\[", line)] == []


def test_nothing_is_left_when_its_starter_is_killed(dist: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from trunkline.embedded.asterisk import Asterisk\n"
        "pbx = Asterisk(Path(sys.argv[1]), Path(sys.argv[2])).start(); print(pbx.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(dist), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        starter.send_signal(signal.SIGKILL)
    until("Asterisk is gone", lambda: not Path(f"/proc/{pid}").exists())


def test_what_cannot_start_says_why(dist: Path, tmp_path: Path) -> None:
    pbx = Asterisk(dist, tmp_path)
    with socket.create_server((pbx.host, pbx.ami_port)), pytest.raises(AsteriskError, match=r"not up within 1 s"):
        pbx.start(1)


def test_the_demo_call(dist: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with Asterisk(dist, tmp_path) as pbx:
        tap = Tap(pbx)
        for _ in range(2):
            play_demo_call(pbx, said.append, ring_s=0.1, talk_s=0.3)
        assert tap.raw.count(b"\r\nDialStatus: ANSWER\r\n") == 2
        tap.close()
    assert len(said) == 8


def test_stopped_and_started_again_at_the_same_ports(dist: Path, tmp_path: Path) -> None:
    pbx = Asterisk(dist, tmp_path)
    first = (pbx.start().ami_port, pbx.systemname, pbx.secrets)
    pbx.stop()
    with pbx:
        assert (pbx.ami_port, pbx.systemname, pbx.secrets) == first
    pbx.stop()
    with socket.create_server((pbx.host, pbx.base + BLOCK - 1)), pytest.raises(NoPorts, match=str(pbx.base)):
        pbx.start()


def test_a_phone_speaks_to_nobody_outside() -> None:
    with pytest.raises(NotLoopback, match=r"192\.0\.2\.1"):
        Phone("1001", ("192.0.2.1", 5060), ip="127.0.0.11")
    with Phone("1001", ("127.0.0.1", 9), ip="127.0.0.11") as phone, pytest.raises(NotLoopback):
        phone.call("1").audio.send_to(("192.0.2.1", 4000))


def test_two_at_once_install_once(dist: Path, tmp_path: Path) -> None:
    """From the packages that were fetched for these tests: no network."""
    environment = os.environ | {"DEBS": f"{default_directory()}.debs", "MIRROR": "http://127.0.0.1:9"}
    said: list[list[str]] = [[], []]

    def install(lines: list[str]) -> None:
        provision(tmp_path / "asterisk", say=lines.append, environment=environment)

    threads = [threading.Thread(target=install, args=(lines,)) for lines in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    everything = [*said[0], *said[1]]
    assert sum("unpacking" in line for line in everything) == 1
    assert sum("waiting for it" in line for line in everything) == 1
    version = subprocess.run(
        [tmp_path / "asterisk" / "bin" / "asterisk", "-V"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("Asterisk ")
    again: list[str] = []
    assert provision(tmp_path / "asterisk", say=again.append, environment=environment) == tmp_path / "asterisk"
    assert again == []


def test_packages_that_were_tampered_with_are_not_unpacked(dist: Path, tmp_path: Path) -> None:
    debs = tmp_path / "debs"
    debs.mkdir()
    (debs / "asterisk_22_amd64.deb").write_bytes(b"not what was fetched")
    (debs / "packages.lock").write_text(f"{'0' * 64}  asterisk_22_amd64.deb\n")
    environment = os.environ | {"DEBS": str(debs), "MIRROR": f"file://{tmp_path}", "SUITE": "sid", "FULL": "1"}
    said: list[str] = []
    with pytest.raises(ProvisionError, match="no Asterisk could be installed"):
        provision(tmp_path / "asterisk", say=said.append, environment=environment)
    assert any("do not fit packages.lock" in line for line in said)
    assert not any("unpacking" in line for line in said)
    assert not (tmp_path / "asterisk").exists()
