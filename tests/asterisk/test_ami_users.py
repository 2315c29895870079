"""manager.conf: each login can do its work and nothing else, and the daemon's hears all it needs and little more."""

import base64
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import Stage, Tap, talk

from trunkline.calls.needs import NEEDED
from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.provision import checkout

DENIED = b"Permission denied"


@pytest.fixture
def login(pbx: Asterisk, request: pytest.FixtureRequest) -> Iterator[Tap]:
    secrets = {"events": pbx.secrets.ami_events, "control": pbx.secrets.ami_control, "doctor": pbx.secrets.ami_doctor}
    tap = Tap(pbx, request.param, secrets[request.param])
    yield tap
    tap.close()


@pytest.mark.parametrize("login", ["events", "doctor"], indirect=True)
def test_readers_see_every_list_and_change_nothing(login: Tap) -> None:
    for action in (
        "CoreShowChannels",
        "Status",
        "BridgeList",
        "QueueStatus",
        "CoreSettings",
        "CoreStatus",
        "Ping",
    ):
        assert b"Success" in login.ask(action), action
    assert b"Success" in login.ask("Getvar", "Variable: RING_S\r\n")
    for action in (
        "Originate",
        "Hangup",
        "Redirect",
        "Command",
        "Setvar",
        "QueueAdd",
        "UpdateConfig",
        "GetConfig",
        "Filter",
        "UserEvent",
    ):
        assert DENIED in login.ask(action), action


@pytest.mark.parametrize("login", ["control"], indirect=True)
def test_control_controls_calls_and_queues_only(login: Tap) -> None:
    for action in (
        "Originate",
        "Hangup",
        "Redirect",
        "Atxfer",
        "BlindTransfer",
        "Park",
        "QueuePause",
        "MixMonitorMute",
    ):
        assert DENIED not in login.ask(action), action
    for action in (
        "Command",
        "UpdateConfig",
        "GetConfig",
        "Reload",
        "ModuleLoad",
        "DBPut",
        "Filter",
        "UserEvent",
        "CreateConfig",
    ):
        assert DENIED in login.ask(action), action
    for application in ("System", "TrySystem", "Exec"):
        fields = f"Channel: Local/1002@agents\r\nApplication: {application}\r\nData: touch /tmp/x\r\n"
        assert b"Error" in login.ask("Originate", fields), application
    assert b"Event: " not in login.raw


def test_ari_asks_for_its_secret(pbx: Asterisk) -> None:
    def ping(secret: str) -> int:
        credentials = base64.b64encode(f"trunkline:{secret}".encode()).decode()
        request = urllib.request.Request(f"http://{pbx.host}:{pbx.http_port}/ari/asterisk/ping")
        request.add_header("Authorization", f"Basic {credentials}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code

    assert (ping(pbx.secrets.ari), ping("trunkline"), ping("")) == (200, 401, 401)


def test_nobody_reads_the_class_security() -> None:
    text = (checkout() / "asterisk-config" / "manager.conf").read_text()
    for granted in re.findall(r"^(?:read|write) = (.*)$", text, re.MULTILINE):
        assert not {"security", "all", "command", "config", "log", "verbose"} & set(granted.split(","))


def test_the_filter_lets_through_what_the_tracker_needs() -> None:
    text = (checkout() / "asterisk-config" / "manager.conf").read_text()
    whole = set(re.findall(r"^eventfilter\(action\(include\),name\((\w+)\)\) =$", text, re.MULTILINE))
    by_header: dict[tuple[str, str], list[tuple[str, str]]] = {}
    line = r"^eventfilter\(action\(include\),name\((\w+)\),header\((\w+)\),method\((\w+)\)\) = (.+)$"
    for kind, header, method, value in re.findall(line, text, re.MULTILINE):
        by_header.setdefault((kind, header), []).append((method, value))
    for kind, part in NEEDED.items():
        if part is None:
            assert kind in whole, kind
            continue
        header, beginnings = part
        for beginning in beginnings:
            # a beginning that runs into the next line wants the whole of this one
            value, _, more = beginning.partition("\r\n")
            assert any(
                value.startswith(let) if method == "starts_with" else let == value if more else let.startswith(value)
                for method, let in by_header[kind, header]
            ), (kind, beginning)


def test_a_recorded_call_sends_a_quarter_of_its_events(stage: Stage) -> None:
    customer, desk = stage.connect()
    customer.hangup()
    desk.wait_end()
    record = stage.rows.ended(stage.caller)
    talk(0.1)
    events = stage.tap.raw[stage.mark :].count(b"\r\nLinkedid: " + record.external_id.encode())
    assert 15 <= events <= 24  # 80 of them name the call when nothing is filtered


def test_no_secret_is_in_a_template() -> None:
    root = checkout()
    for path in [*Path(root / "asterisk-config").iterdir(), *Path(root / "dialplan").iterdir()]:
        for value in re.findall(r"^(?:secret|password|pin)\s*=\s*(.*)$", path.read_text(), re.MULTILINE):
            assert re.fullmatch(r"@[A-Z_]+@", value), f"{path}: {value}"
