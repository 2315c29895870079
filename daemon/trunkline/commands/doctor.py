"""`trunkline doctor`: check a PBX before going live."""

import argparse
import json
import sys
from functools import partial

import trio

from trunkline import config
from trunkline.asterisk.doctor import LISTEN_S, examine, examine_ari
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.findings import Finding, Level, Role
from trunkline.calls.needs import NEEDED
from trunkline.commands import target
from trunkline.config_reading import ConfigError

_MARKS = {Level.OK: "ok  ", Level.UNSEEN: " ?  ", Level.WARNING: "WARN", Level.ERROR: "FAIL"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which PBX, which kind of login, how long to listen."""
    target.add_arguments(parser)
    parser.add_argument("--trunk", action="append", metavar="PATTERN", help='your trunks (default: "PJSIP/trunk*")')
    parser.add_argument("--role", choices=[role.value for role in Role], default="events", help="what the login is for")
    parser.add_argument("--seconds", type=float, default=LISTEN_S, help="how long to listen (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Print the findings; 0 without an error among them, 1 with one, 2 when there was nothing to look at."""
    try:
        found = [
            (one.link.name, trio.run(partial(_examine, one, arguments.role, arguments.seconds)))
            for one in target.targets(arguments)
        ]
        if arguments.pbx is None:
            found += _of_recordings(config.load(arguments.config).recordings)
    except (ConfigError, target.NoTarget) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps([{"pbx": name, "findings": [f._asdict() for f in findings]} for name, findings in found]))
    else:
        for name, findings in found:
            print(f"{name}:")
            for finding in findings:
                print(f"  {_MARKS[finding.level]}  {finding.check:15} {finding.found}")
                if finding.todo:
                    print(f"        {'':15} -> {finding.todo}")
    return int(any(finding.level is Level.ERROR for _, findings in found for finding in findings))


async def _examine(one: target.Target, role: str, seconds: float) -> list[Finding]:
    findings = await examine(one.link, role=Role(role), trunks=one.trunks, needed=_needed, listen_s=seconds)
    if one.ari is not None:
        findings += await examine_ari(one.ari, one.link.systemname)
    return findings


def _of_recordings(kept: config.Recordings) -> list[tuple[str, list[Finding]]]:
    """What this machine lacks for what is to become of recordings."""
    if kept.format != "opus":
        return []
    from trunkline.recordings.opus import NoEncoder, OpusEncoder  # here: only who wants it needs it

    try:
        OpusEncoder(kept.ffmpeg).check()
    except NoEncoder as error:
        todo = "install ffmpeg (Debian's has libopus), or set recordings.ffmpeg to its path"
        finding = Finding(Level.WARNING, "opus", f"{error}: recordings are stored as they are", todo)
    else:
        finding = Finding(Level.OK, "opus", f"{kept.ffmpeg} makes Opus")
    return [("recordings", [finding])]


def _needed(frame: Frame | Event) -> bool:
    rule = NEEDED.get(frame.kind, ("", ()))
    return rule is None or frame.fields.get(rule[0], "").startswith(rule[1])
