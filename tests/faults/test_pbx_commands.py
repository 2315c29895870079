"""`trunkline doctor` and `trunkline record` as an admin starts them."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from ami_peer import Conversation, Peer, packet
from encoder import FFMPEG

from trunkline.cli import main

EVENTS = "CoreShowChannels Status Getvar CoreSettings CoreStatus QueueStatus".split()


def permitted_to(may: list[str]) -> Callable[[Conversation, dict[str, str]], bytes]:
    """An answer to ListCommands."""
    lines = [f"{action}: ... (Priv: reporting,all)" for action in may]
    return lambda _, fields: packet("Response: Success", f"ActionID: {fields['ActionID']}", *lines)


@pytest.fixture
def peer() -> Iterator[Peer]:
    """The scripted AMI in a thread of its own: the commands have their own trio."""
    peer, up, token = Peer(), threading.Event(), []
    peer.answers["ListCommands"] = permitted_to(EVENTS)
    scope = trio.CancelScope()

    async def serve() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(peer.run)
                up.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert up.wait(5)
    yield peer
    token[0].run_sync_soon(scope.cancel)
    thread.join(5)
    assert not thread.is_alive()


def words(peer: Peer, tmp_path: Path, secret: str = "") -> list[str]:
    (tmp_path / "secret").write_text(f"{secret or peer.secret}\n")
    return ["--pbx", f"127.0.0.1:{peer.port}", "--user", peer.username, "--secret-file", str(tmp_path / "secret")]


@pytest.mark.parametrize(("ffmpeg", "found"), [(FFMPEG, "ok    opus"), ("/nowhere/ffmpeg", "WARN  opus")])
def test_doctor_tells_whether_there_is_what_makes_opus(
    peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str], ffmpeg: str, found: str
) -> None:
    (tmp_path / "trunkline.toml").write_text(f"""
[database]
url = "postgresql://u:p@127.0.0.1/d"
[[pbx]]
host = "127.0.0.1"
port = {peer.port}
username = "{peer.username}"
secret = "{peer.secret}"
[recordings]
endpoint = "http://127.0.0.1:9"
access_key = "a"
secret_key = "s"
format = "opus"
ffmpeg = "{ffmpeg}"
""")
    status = main(["doctor", "--config", str(tmp_path / "trunkline.toml"), "--seconds", "0"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert found in out


def test_doctor_tells_what_it_found(peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", *words(peer, tmp_path), "--seconds", "0"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert "ok    privileges" in out
    assert "WARN  version" not in out
    assert "ok    systemname      pbx1" in out
    assert "-> " in out


def test_doctor_asks_of_a_control_login_only_what_it_may(
    peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    may = "Originate Hangup Redirect Atxfer BlindTransfer Park MixMonitorMute QueuePause Setvar".split()

    def refused(_: Conversation, fields: dict[str, str]) -> bytes:
        return packet("Response: Error", f"ActionID: {fields['ActionID']}", "Message: Permission denied")

    peer.answers |= {"ListCommands": permitted_to(may), "CoreSettings": refused, "CoreStatus": refused}
    status = main(["doctor", *words(peer, tmp_path), "--role", "control"])
    out = capsys.readouterr().out
    assert status == 0, out
    for check in ("version", "systemname"):
        assert f" ?    {check:15} not asked: this login may not\n" in out
    assert "reporting" not in out


def test_doctor_lists_endpoints_and_no_hints(peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices = ["PJSIP/1001", "Queue:support_pause_PJSIP/1001", "Local/1002@agents", "IAX2/carrier", "Custom:door/1"]

    def listed(_: Conversation, fields: dict[str, str]) -> bytes:
        mine = f"ActionID: {fields['ActionID']}"
        rows = [packet("Event: DeviceStateChange", mine, f"Device: {d}", "State: NOT_INUSE") for d in devices]
        done = packet("Event: DeviceStateListComplete", mine, "EventList: Complete", f"ListItems: {len(rows)}")
        return packet("Response: Success", mine, "EventList: start") + b"".join(rows) + done

    peer.answers["DeviceStateList"] = listed
    assert main(["doctor", *words(peer, tmp_path), "--seconds", "0"]) == 1
    assert "no endpoint matches PJSIP/trunk*; there are: IAX2/carrier, PJSIP/1001\n" in capsys.readouterr().out


def test_doctor_says_it_to_a_script_too(peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer.version = "22.4.0"
    assert main(["doctor", *words(peer, tmp_path), "--seconds", "0", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    version = next(f for f in found["findings"] if f["check"] == "version")
    assert (version["level"], version["todo"]) == ("warning", "upgrade to 22.10.1 or later")


def test_doctor_fails_where_the_link_would(peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words(peer, tmp_path, "hunter2-wrong")]) == 1
    out = capsys.readouterr().out
    assert "FAIL  login_refused" in out
    assert "hunter2" not in out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--pbx", "127.0.0.1:http"], "HOST or HOST:PORT"),
        (["--pbx", "127.0.0.1", "--secret-file", "nowhere.secret"], "nowhere.secret cannot be read"),
        (["--pbx", "127.0.0.1", "--tls", "nowhere.pem"], "cannot be used as a CA file"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "record"])
def test_what_was_asked_wrongly_is_named(
    command: str, wrong: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = [str(tmp_path / "rec")] if command == "record" else []
    assert main([command, *folder, *wrong]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "rec").exists()


def test_record_ends_after_its_seconds(peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "rec"
    assert main(["record", str(folder), *words(peer, tmp_path), "--seconds", "0.5"]) == 0
    assert b"Event: FullyBooted\r\n" in (folder / "ami.raw").read_bytes()
    assert (folder / "notes.md").exists()
    assert "trunkline replay" in capsys.readouterr().err
    assert main(["record", str(folder), *words(peer, tmp_path), "--seconds", "0.5"]) == 1
    assert "name another folder" in capsys.readouterr().err


def test_record_says_why_it_cannot(peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", str(tmp_path / "rec"), *words(peer, tmp_path, "wrong")]) == 1
    assert "login_refused" in capsys.readouterr().err
