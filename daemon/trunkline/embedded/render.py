#!/usr/bin/env python3
"""Fill in the templates of asterisk-config/ and dialplan/. Standard library only: `asterisk-config/install.sh --config`
runs this file on machines that have nothing but python3.

Templates: `@NAME@` is replaced; a line that begins with `@?NAME@` stays only where NAME is set, `@!NAME@` only where it
is not. Secrets are made at the first rendering and kept in secrets.json beside the rendered files.
"""

import argparse
import grp
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

_MARK: Final = re.compile(r"@([A-Z][A-Z_]*)@")
_CONDITION: Final = re.compile(r"^@([?!])([A-Z][A-Z_]*)@")
# what would end a value, begin a comment or a section, or call a dialplan function
_HOSTILE: Final = re.compile(r"[\x00-\x1f\x7f;\"\[\]\\{}$]|#exec", re.IGNORECASE)
_SYSTEMNAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,19}")
# Asterisk warns when these are missing; an empty file says that they are meant to be
_EMPTY: Final = (
    "acl ccss cli codecs dnsmgr extconfig pjproject queuerules sorcery stasis stun udptl websocket_client".split()
)


@dataclass(frozen=True)
class Agent:
    """A colleague with a phone. `kind` is `softphone` (UDP, TLS) or `browser` (WSS)."""

    number: str
    name: str
    kind: str = "softphone"
    mailbox: bool = False
    queue: bool = False  # a member of the queue `support`
    sales: bool = False  # rings with the group `sales`


COMPANY: Final = (
    Agent("1001", "Alice Able", mailbox=True, queue=True, sales=True),
    Agent("1002", "Bob Baker", queue=True, sales=True),
    Agent("1003", "Carol Cole", sales=True),
    Agent("1004", "Dave Dunn"),
    Agent("1005", "Erin East", mailbox=True),
    Agent("1006", "Frank Ford"),
    Agent("1007", "Grace Gale", kind="browser"),
    Agent("1008", "Hana Hale", kind="browser"),
)


@dataclass(frozen=True)
class Settings:
    """What the templates need to know. Directories are those of Debian's package; `""` leaves an optional part out."""

    etc_dir: str = "/etc/asterisk"
    modules_dir: str = "/usr/lib/x86_64-linux-gnu/asterisk/modules"
    data_dir: str = "/usr/share/asterisk"
    var_dir: str = "/var/lib/asterisk"
    spool_dir: str = "/var/spool/asterisk"
    run_dir: str = "/var/run/asterisk"
    log_dir: str = "/var/log/asterisk"
    moh_dir: str = "/usr/share/asterisk/moh"
    systemname: str = ""  # "": made up, and kept in secrets.json
    ami_bind: str = "127.0.0.1"
    ami_permit: str = "127.0.0.1/255.255.255.255"
    ami_port: int = 5038
    ami_tls_port: int = 5039
    http_bind: str = "127.0.0.1"
    http_port: int = 8088
    https_port: int = 8089
    sip_bind: str = "0.0.0.0"  # noqa: S104  # a PBX is for the network; the embedded one sets 127.0.0.1
    sip_port: int = 5060
    sips_port: int = 5061
    rtp_start: int = 10000
    rtp_end: int = 20000
    media_address: str = ""
    external_address: str = ""
    local_net: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    trunk_host: str = "127.0.0.2"
    trunk_port: int = 5060
    trunk_user: str = ""
    trunk_password: str = ""
    did_prefix: str = "44207946"
    qualify_s: int = 60
    ring_s: int = 20
    queue_s: int = 300
    queue_ring_s: int = 15
    queue_strategy: str = "rrmemory"
    park_s: int = 60
    agents: Sequence[Agent] = COMPANY


@dataclass(frozen=True)
class Secrets:
    """What was made up for this PBX. Never printed, never in a file that others may read."""

    systemname: str
    ami_events: str
    ami_control: str
    ami_doctor: str
    ari: str
    ari_recordings: str
    conference_pin: str
    passwords: Mapping[str, str] = field(default_factory=dict)  # by agent's number
    pins: Mapping[str, str] = field(default_factory=dict)


class BadSetting(ValueError):
    """A setting that must not go into a configuration file."""


def load_secrets(path: Path, settings: Settings) -> Secrets:
    """The secrets of `path`, made up where they are missing, and written back (mode 0600)."""
    known = json.loads(path.read_text()) if path.exists() else {}

    def kept(name: str, made: str) -> str:
        return str(known.get(name) or made)

    numbers = [agent.number for agent in settings.agents]
    passwords, pins = known.get("passwords", {}), known.get("pins", {})
    made = Secrets(
        # the name is part of the guard against forged events: not guessable, and the same after every rendering
        systemname=settings.systemname or kept("systemname", "pbx-" + secrets.token_hex(6)),
        ami_events=kept("ami_events", secrets.token_urlsafe(24)),
        ami_control=kept("ami_control", secrets.token_urlsafe(24)),
        ami_doctor=kept("ami_doctor", secrets.token_urlsafe(24)),
        ari=kept("ari", secrets.token_urlsafe(24)),
        ari_recordings=kept("ari_recordings", secrets.token_urlsafe(24)),
        conference_pin=kept("conference_pin", _digits(6)),
        passwords={number: passwords.get(number) or secrets.token_urlsafe(18) for number in numbers},
        pins={number: pins.get(number) or _digits(6) for number in numbers},
    )
    text = json.dumps(made.__dict__, indent=1, sort_keys=True) + "\n"
    if not path.exists() or path.read_text() != text:
        _write(path, text, 0o600)
    return made


def render(templates: Path, into: Path, settings: Settings, *, backup: bool = False) -> Secrets:
    """Write the whole configuration below `into`; `backup` keeps a copy of every file that changes.

    Raises BadSetting, and OSError where `into` cannot be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    made = load_secrets(into / "secrets.json", settings)
    marks = _marks(settings, made)
    files = {f"{name}.conf": "" for name in _EMPTY}
    for source in sorted((templates / "asterisk-config").glob("*.conf")):
        files[source.name] = fill(source.read_text(), marks, source.name)
    for source in sorted((templates / "dialplan").glob("*.conf")):
        files[f"dialplan/{source.name}"] = fill(source.read_text(), marks, source.name)
    if "modules.conf" not in files:
        raise BadSetting(f"there are no templates below {templates}: it must hold asterisk-config/ and dialplan/")
    files["modules.conf"] = _installed(files["modules.conf"], Path(settings.modules_dir))
    agent = (templates / "asterisk-config" / "agent.tmpl").read_text()
    files["pjsip_agents.conf"] = "".join(fill(agent, _agent_marks(a, made), "agent.tmpl") for a in settings.agents)
    old = into / time.strftime("before-trunkline-%Y%m%d-%H%M%S")
    for name, text in files.items():
        target = into / name
        if target.exists() and target.read_text(errors="replace") == text:
            continue
        if backup and target.exists():
            (old / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(target, old / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, text, 0o640)
    return made


def fill(text: str, marks: Mapping[str, str], name: str) -> str:
    """The template with its marks replaced. Raises BadSetting for a mark that nobody knows."""
    lines = []
    for line in text.split("\n"):
        wanted = True
        while found := _CONDITION.match(line):
            wanted = wanted and bool(_known(marks, found[2], name)) == (found[1] == "?")
            line = line[found.end() :]
        if wanted:
            lines.append(_MARK.sub(lambda mark: _known(marks, mark[1], name), line))
    return "\n".join(lines)


def _known(marks: Mapping[str, str], mark: str, name: str) -> str:
    if mark not in marks:
        raise BadSetting(f"{name}: unknown mark @{mark}@")
    return marks[mark]


def _marks(settings: Settings, made: Secrets) -> dict[str, str]:
    marks = {"AT": "@"}
    for key, value in vars(settings).items():
        if key != "agents":
            marks[key.upper()] = _clean(key, str(value))
    if not settings.did_prefix.isdigit():
        raise BadSetting(f"did_prefix is {settings.did_prefix!r}: digits only, as the carrier sends them, without +")
    if not _SYSTEMNAME.fullmatch(made.systemname):
        raise BadSetting(
            f"systemname is {made.systemname!r}: 1 to 19 of A-Z a-z 0-9 _ . - (Asterisk cuts the rest off)"
        )
    marks |= {
        "SYSTEMNAME": made.systemname,
        "AMI_EVENTS_SECRET": made.ami_events,
        "AMI_CONTROL_SECRET": made.ami_control,
        "AMI_DOCTOR_SECRET": made.ami_doctor,
        "ARI_SECRET": made.ari,
        "ARI_RECORDINGS_SECRET": made.ari_recordings,
        "CONFERENCE_PIN": made.conference_pin,
    }
    agents = settings.agents
    for agent in agents:
        if not re.fullmatch(r"10\d\d", agent.number):
            raise BadSetting(f"agent {agent.number!r}: the dialplan has agents 1000 to 1099")
    marks["SALES_GROUP"] = "&".join(f"PJSIP/{agent.number}" for agent in agents if agent.sales)
    marks["QUEUE_MEMBERS"] = "\n".join(
        f"member => PJSIP/{a.number},0,{_clean('name', a.name)},PJSIP/{a.number}" for a in agents if a.queue
    )
    marks["MAILBOXES"] = "\n".join(
        f"{a.number} => {made.pins[a.number]},{_clean('name', a.name)}" for a in agents if a.mailbox
    )
    return marks


def _agent_marks(agent: Agent, made: Secrets) -> dict[str, str]:
    if agent.kind not in ("softphone", "browser"):
        raise BadSetting(f"agent {agent.number}: kind is {agent.kind!r}; allowed are softphone and browser")
    return {
        "AT": "@",
        "NUMBER": agent.number,
        "NAME": _clean("name", agent.name),
        "KIND": agent.kind,
        "MAILBOX": "yes" if agent.mailbox else "",
        "PASSWORD": made.passwords[agent.number],
    }


def _clean(key: str, value: str) -> str:
    if _HOSTILE.search(value) or (key == "name" and "," in value):
        raise BadSetting(f"{key} holds a character that must not be in a configuration file: {value!r}")
    return value


def _installed(text: str, modules: Path) -> str:
    """`modules.conf` without the modules that this Asterisk does not have (16 has no Debian voicemail, for one)."""
    if not modules.is_dir():
        return text
    there = {path.name for path in modules.glob("*.so")}
    return "\n".join(
        line for line in text.split("\n") if not line.startswith("load = ") or line.removeprefix("load = ") in there
    )


def _digits(count: int) -> str:
    return "".join(secrets.choice("0123456789") for _ in range(count))


def _write(path: Path, text: str, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    fresh.replace(path)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="install.sh --config",
        description="Write the configuration of an Asterisk that is already there. Files that change are kept in "
        "DIR/before-trunkline-…; secrets are made up and kept in DIR/secrets.json. The trunk's password is "
        "taken from the environment variable TRUNK_PASSWORD.",
    )
    parser.add_argument("--templates", required=True, type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--into", required=True, type=Path, metavar="DIR", help="e.g. /etc/asterisk (first word after --config)"
    )
    parser.add_argument(
        "--agents", type=Path, help="CSV: number,name,softphone|browser,roles (of: mailbox queue sales)"
    )
    for key, value in vars(Settings()).items():
        if key not in ("agents", "etc_dir", "trunk_password"):
            parser.add_argument(
                f"--{key.replace('_', '-')}", type=type(value), default=None, help=f"default: {value!r}"
            )
    return parser


def read_agents(path: Path) -> tuple[Agent, ...]:
    """Agents from a CSV file: number, name, kind, roles separated by spaces. Raises BadSetting with the line."""
    agents = []
    for place, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split(",")] + ["", ""]
        roles = set(parts[3].split())
        if len(parts) < 4 or roles - {"mailbox", "queue", "sales"}:
            raise BadSetting(f"{path}:{place}: wanted number,name,kind,roles (mailbox queue sales), found {line!r}")
        agents.append(
            Agent(parts[0], parts[1], parts[2] or "softphone", "mailbox" in roles, "queue" in roles, "sales" in roles)
        )
    return tuple(agents)


def main(argv: Sequence[str] | None = None) -> int:
    """`install.sh --config DIR …`: 0 when written, 2 when a setting is refused."""
    chosen = vars(_options().parse_args(argv))
    templates, into, agents = chosen.pop("templates"), chosen.pop("into"), chosen.pop("agents")
    settings = replace(
        Settings(etc_dir=str(into), trunk_password=os.environ.get("TRUNK_PASSWORD", "")),
        **{key: value for key, value in chosen.items() if value is not None},
    )
    try:
        if agents is not None:
            settings = replace(settings, agents=read_agents(agents))
        render(templates, into, settings, backup=True)
        if os.geteuid() == 0:
            _give_to_asterisk(into)
    except (BadSetting, OSError) as fault:
        print(f"asterisk config: {fault}", file=sys.stderr)  # noqa: T201
        return 2
    print(f"asterisk config: written to {into}; the logins are in {into / 'secrets.json'}")  # noqa: T201
    return 0


def _give_to_asterisk(into: Path) -> None:
    try:
        group = grp.getgrnam("asterisk").gr_gid
    except KeyError:
        return
    for path in (into, into / "dialplan", *into.glob("*.conf"), *into.glob("dialplan/*.conf")):
        os.chown(path, -1, group)


if __name__ == "__main__":
    sys.exit(main())
