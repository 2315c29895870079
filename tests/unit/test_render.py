"""The templates of asterisk-config/ and dialplan/: filled in whole, with secrets of their own, nothing smuggled in."""

import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline.embedded.provision import checkout
from trunkline.embedded.render import Agent, BadSetting, Settings, fill, main, read_agents, render


def test_marks_and_conditions() -> None:
    text = "a = @A@\n@?B@b = @B@\n@!B@no b\n@?A@@?B@both\nmail@example.com"
    assert fill(text, {"A": "1", "B": ""}, "x") == "a = 1\nno b\nmail@example.com"
    assert fill(text, {"A": "1", "B": "2"}, "x") == "a = 1\nb = 2\nboth\nmail@example.com"
    with pytest.raises(BadSetting, match=r"x: unknown mark @A@"):
        fill(text, {"B": ""}, "x")


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(tls_cert="/c", tls_key="/k", trunk_user="u", trunk_password="p", external_address="192.0.2.1"),
    ],
)
def test_no_mark_is_left(tmp_path: Path, settings: Settings) -> None:
    render(checkout(), tmp_path, settings)
    for path in tmp_path.rglob("*.conf"):
        left = re.findall(r"@[A-Z_]+@|@[?!]", path.read_text())
        assert left == [], path
    pjsip = (tmp_path / "pjsip.conf").read_text()
    assert ("protocol = wss" in pjsip) == bool(settings.tls_cert)
    assert ("type = registration" in pjsip) == bool(settings.trunk_user)


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    first = render(checkout(), tmp_path / "a", Settings())
    assert render(checkout(), tmp_path / "a", Settings()) == first
    other = render(checkout(), tmp_path / "b", Settings())
    assert first.ami_events != other.ami_events
    assert first.systemname != other.systemname
    logins = {first.ami_events, first.ami_control, first.ami_doctor, first.ari, first.ari_recordings}
    assert len({*logins, *first.passwords.values()}) == 13
    assert stat.S_IMODE((tmp_path / "a" / "secrets.json").stat().st_mode) == 0o600
    for path in (tmp_path / "a").rglob("*.conf"):
        assert not path.stat().st_mode & stat.S_IRWXO, path


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(trunk_host="1.2.3.4\nsecret = x"), "trunk_host"),
        (Settings(trunk_password="a;b"), "trunk_password"),
        (Settings(did_prefix="44x"), "did_prefix"),
        (Settings(systemname="x" * 20), "systemname"),
        (Settings(ring_s="${SHELL(id)}"), "ring_s"),  # type: ignore[arg-type]
        (Settings(agents=[Agent("1001", 'A"\n[x]')]), "name"),
        (Settings(agents=[Agent("2000", "A")]), "2000"),
        (Settings(agents=[Agent("1001", "A", kind="fax")]), "fax"),
    ],
)
def test_what_does_not_belong_in_a_file_is_refused(tmp_path: Path, settings: Settings, said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        render(checkout(), tmp_path, settings)
    assert not (tmp_path / "pjsip.conf").exists()


def test_agents_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "agents.csv"
    file.write_text("# number,name,kind,roles\n1001,Zoë Able,softphone,mailbox queue\n\n1002, Bob,browser,\n")
    assert read_agents(file) == (
        Agent("1001", "Zoë Able", mailbox=True, queue=True),
        Agent("1002", "Bob", kind="browser"),
    )
    file.write_text("1001,Alice,softphone,boss\n")
    with pytest.raises(BadSetting, match=r"agents\.csv:1: .*boss"):
        read_agents(file)


def test_the_admins_own_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "pjsip.conf").write_text("; mine\n")
    render(checkout(), tmp_path, Settings(), backup=True)
    (kept,) = tmp_path.glob("before-trunkline-*/pjsip.conf")
    assert kept.read_text() == "; mine\n"
    before = sorted(tmp_path.glob("before-trunkline-*/*"))
    render(checkout(), tmp_path, Settings(), backup=True)
    assert sorted(tmp_path.glob("before-trunkline-*/*")) == before


def test_modules_that_are_not_installed_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "app_dial.so").touch()
    render(checkout(), tmp_path / "etc", replace(Settings(), modules_dir=str(tmp_path / "modules")))
    text = (tmp_path / "etc" / "modules.conf").read_text()
    assert re.findall(r"^load = (.*)$", text, re.MULTILINE) == ["app_dial.so"]


def test_the_script_writes_a_machines_own_configuration(tmp_path: Path) -> None:
    """With the system's python3 and nothing else."""
    script = checkout() / "asterisk-config" / "install.sh"
    command = [script, "--config", tmp_path / "etc", "--trunk-host", "192.0.2.7", "--did-prefix", "4930123"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, check=False)
    assert done.returncode == 0, done.stderr
    assert "match = 192.0.2.7" in (tmp_path / "etc" / "pjsip.conf").read_text()
    assert "_493012300XX" in (tmp_path / "etc" / "dialplan" / "from-trunk.conf").read_text()
    refused = subprocess.run([*command, "--trunk-user", "a;b"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "trunk_user" in refused.stderr


def test_a_refusal_is_an_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--templates", str(tmp_path), "--into", str(tmp_path / "etc")]) == 2
    assert "must hold asterisk-config/ and dialplan/" in capsys.readouterr().err
