"""What the doctor's findings are, and the rules behind them. No I/O: what was seen goes in, findings come out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

_SAFE = {22: (22, 10, 1), 20: (20, 20, 1)}  # ARI authorisation fixes
_CLOCK_OK_S = 0.5
_WRITE_TIMEOUT_MS = 1000

_NEEDED = ("CoreShowChannels", "Status", "Getvar", "CoreSettings", "CoreStatus")
# Not ParkedCalls: it needs write = call, which could hang up everybody. Parking is seen by its events.
_BY_MODULE = {"QueueStatus": "app_queue"}
_CONTROL = ("Originate", "Hangup", "Redirect", "Atxfer", "BlindTransfer", "Park", "MixMonitorMute", "QueuePause")
_DANGEROUS = {
    "Command": "run any console command, a shell included",
    "UpdateConfig": "rewrite the configuration",
    "GetConfig": "read manager.conf with everybody's secrets",
    "AGI": "run AGI commands on any call",
    "Originate": "start calls, at your cost",
    "Hangup": "end calls",
    "Setvar": "change calls",
    "DBPut": "change Asterisk's database",
}


class Level(StrEnum):
    OK = "ok"
    UNSEEN = "unseen"  # could not be looked at with this login
    WARNING = "warning"
    ERROR = "error"


class Role(StrEnum):
    """What a login is for."""

    EVENTS = "events"
    CONTROL = "control"


class Finding(NamedTuple):
    """One thing looked at."""

    level: Level
    check: str  # "version", "trunks", ...: constant, for scripts
    found: str
    todo: str = ""


class Heard(NamedTuple):
    """What came unasked while the doctor listened."""

    seconds: float
    kinds: Counter[str]
    stamped: int  # of the events that Asterisk stamps
    unstamped: int
    idle: int  # VarSet and Newexten that the tracker has no use for


def not_asked(check: str) -> Finding:
    """What this kind of login need not know, and so had better not be allowed to ask."""
    return Finding(Level.UNSEEN, check, "not asked: this login may not")


def is_endpoint(device: str) -> bool:
    """Is this device what a phone or a carrier registers as ("PJSIP/1001"), and no hint ("Queue:q_pause_PJSIP/1")?"""
    technology, slash, _ = device.partition("/")
    return bool(slash) and technology.isalnum() and technology != "Local"


def check_version(version: str) -> Finding:
    """Is this Asterisk one that may go live?"""
    number = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if not number:
        todo = "it has to be 22.10.1, 20.20.1 or later" if version else "add write = reporting, so that it can be seen"
        return Finding(Level.UNSEEN, "version", f"Asterisk {version or 'of unknown version'}", todo)
    have = tuple(int(part) for part in number.groups())
    safe = _SAFE.get(have[0])
    if safe is None and have[0] > max(_SAFE):
        return Finding(Level.OK, "version", f"Asterisk {version}, newer than what trunkline is tested with (22)")
    if safe is None:
        return Finding(
            Level.WARNING, "version", f"Asterisk {version} is no long-term release that still gets fixes",
            "upgrade to Asterisk 22 (22.10.1 or later)",
        )  # fmt: skip
    if have < safe:
        wanted = ".".join(map(str, safe))
        return Finding(
            Level.WARNING, "version", f"Asterisk {version} lacks the ARI authorisation fixes",
            f"upgrade to {wanted} or later",
        )  # fmt: skip
    return Finding(Level.OK, "version", f"Asterisk {version}")


def check_systemname(systemname: str, expected: str | None) -> Finding:
    """A systemname tells PBXs apart, and genuine events from forged ones."""
    if not systemname:
        return Finding(
            Level.WARNING, "systemname", "the PBX has no systemname: forged events are harder to tell",
            "set systemname in asterisk.conf [options], then restart Asterisk when no call is up",
        )  # fmt: skip
    if expected is not None and systemname != expected:
        return Finding(
            Level.ERROR, "systemname", f"the PBX calls itself {systemname!r}, configured is {expected!r}",
            "correct the one or the other: the link refuses the wrong PBX",
        )  # fmt: skip
    return Finding(Level.OK, "systemname", systemname)


def check_privileges(user: str, role: Role, may: frozenset[str]) -> list[Finding]:
    """Has the login what it needs, and no more?"""
    if not may:
        return [Finding(Level.UNSEEN, "privileges", f"ListCommands was not answered for {user}", "ask again later")]
    needed = _NEEDED if role is Role.EVENTS else _CONTROL
    harmless = () if role is Role.EVENTS else ("Originate", "Hangup", "Setvar")
    missing = [action for action in needed if action not in may]
    excess = [action for action in _DANGEROUS if action in may and action not in harmless]
    right = "write = reporting" if role is Role.EVENTS else "write = call,agent,originate"
    findings = []
    if missing:
        findings.append(
            Finding(
                Level.ERROR,
                "privileges",
                f"{user} may not {', '.join(missing)}",
                f"in manager.conf [{user}] set {right}, then `manager reload`",
            )
        )
    if excess:
        could = "; ".join(f"{action}: {_DANGEROUS[action]}" for action in excess)
        findings.append(
            Finding(
                Level.WARNING,
                "privileges",
                f"{user} may do too much ({could})",
                f"in manager.conf [{user}] set {right} and nothing else (never write = all), then `manager reload`",
            )
        )
    if role is Role.EVENTS:
        findings += [
            Finding(Level.WARNING, "privileges", f"{action} is not there", f"is the module {module} loaded?")
            for action, module in _BY_MODULE.items()
            if action not in may
        ]
    return findings or [Finding(Level.OK, "privileges", f"{user} may do what it needs, and no more")]


def check_fully_booted(user: str, uptime_s: int | None) -> Finding:
    """FullyBooted, in the class `system`, tells of restarts."""
    if uptime_s is None:
        return Finding(
            Level.ERROR, "read_system", f"{user} gets no FullyBooted: restarts of the PBX are seen late",
            f"add system to read = in manager.conf [{user}], then `manager reload`",
        )  # fmt: skip
    return Finding(Level.OK, "read_system", f"Asterisk is up for {uptime_s} s")


def check_clock(offset_s: float | None) -> Finding:
    """Calls have the PBX's times, and everything else has ours."""
    if offset_s is None:
        return Finding(Level.UNSEEN, "clock", "the PBX did not tell its time")
    said = f"the PBX's clock is {abs(offset_s):.3f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's"
    if abs(offset_s) > _CLOCK_OK_S:
        return Finding(Level.WARNING, "clock", said, "run NTP (chrony) on both machines")
    return Finding(Level.OK, "clock", said)


def check_stream(user: str, heard: Heard, own: Mapping[str, list[str]]) -> list[Finding]:
    """What the login is sent: stamped, not flooded, and nothing that strangers can write."""
    total, findings = heard.kinds.total(), []
    if heard.unstamped:
        findings.append(
            Finding(
                Level.WARNING,
                "timestampevents",
                f"{heard.unstamped} of {total} events had no Timestamp",
                "set timestampevents = yes in manager.conf [general], then `manager reload`",
            )
        )
    elif heard.stamped:
        findings.append(Finding(Level.OK, "timestampevents", f"all of {total} events had a Timestamp"))
    else:
        findings.append(
            Finding(
                Level.UNSEEN,
                "timestampevents",
                f"no event came in {heard.seconds:g} s",
                "make a call meanwhile, or listen longer (--seconds 60)",
            )
        )
    reads = {name.strip() for value in own.get("read", ()) for name in value.split(",")}
    if "SuccessfulAuth" in heard.kinds or reads & {"security", "all"}:
        findings.append(
            Finding(
                Level.WARNING,
                "read_security",
                f"{user} reads the class security, which strangers can write into",
                f"take security out of read = in manager.conf [{user}]; it needs system,call,agent,user,dialplan,dtmf",
            )
        )
    else:
        findings.append(Finding(Level.OK, "read_security", f"{user} does not read the class security"))
    filters = len(own.get("eventfilter", ()))
    if heard.idle:
        findings.append(
            Finding(
                Level.WARNING,
                "eventfilter",
                f"{heard.idle} of {total} events were VarSet or Newexten of no use",
                f"copy the eventfilter lines of asterisk-config/manager.conf into [{user}]: 1 in 4 events is left",
            )
        )
    elif total > heard.kinds["UserEvent"] + heard.kinds["SuccessfulAuth"] or filters:
        findings.append(Finding(Level.OK, "eventfilter", f"none of {total} events was a VarSet or Newexten of no use"))
    else:
        findings.append(
            Finding(
                Level.UNSEEN,
                "eventfilter",
                f"no call's event came in {heard.seconds:g} s",
                "make a call meanwhile, or listen longer (--seconds 60)",
            )
        )
    return findings


def check_write_timeout(user: str, own: Mapping[str, list[str]]) -> Finding:
    """Asterisk closes a session that cannot be written to for so long; its default is 100 ms."""
    section = f"manager.conf, section [{user}]"
    advice = (
        f"put the line `writetimeout = 5000` (ms) into {section}, then `manager reload`: with the default of "
        "100 ms Asterisk hangs up on whoever the network holds up"
    )
    if not own:
        look = f"look yourself; where it is missing or below {_WRITE_TIMEOUT_MS}, {advice}"
        return Finding(Level.UNSEEN, "writetimeout", "this login may not read manager.conf, and that is right", look)
    given = own.get("writetimeout", ["100"])[-1]
    if not given.isdecimal() or int(given) < _WRITE_TIMEOUT_MS:
        return Finding(Level.WARNING, "writetimeout", f"{given} ms", advice)
    return Finding(Level.OK, "writetimeout", f"{given} ms")


def check_ari_name(found: str | None, expected: str | None) -> Finding:
    """Is ARI that of the PBX whose AMI is followed? `found`: what it calls itself, None where it does not say."""
    if found is None:
        return Finding(Level.UNSEEN, "ari_systemname", "ARI did not say whose it is (before 20.14 and 22.4 it cannot)")
    if expected is not None and found != expected:
        return Finding(
            Level.ERROR, "ari_systemname", f"ARI is that of {found!r}, configured is {expected!r}",
            "correct ari_url: recordings of another PBX fit no call",
        )  # fmt: skip
    return Finding(Level.OK, "ari_systemname", found)


def check_ari_rights(user: str, status: int | None) -> Finding:
    """May the ARI user change something? `status`: with which it was refused to delete what is not there."""
    if status is None:
        return Finding(Level.UNSEEN, "ari_rights", f"ARI did not say what {user} may do")
    if status == 403:
        return Finding(Level.OK, "ari_rights", f"{user} only reads")
    return Finding(
        Level.WARNING, "ari_rights", f"{user} may do too much: start, record and end calls",
        f"in ari.conf [{user}] set read_only = yes, then `module reload res_ari.so`",
    )  # fmt: skip


def check_trunks(devices: Sequence[str] | None, patterns: Sequence[str]) -> Finding:
    """Without a trunk every call is an internal one."""
    if devices is None:
        return Finding(
            Level.UNSEEN, "trunks", "the login may list neither endpoints nor device states",
            f"make sure that your carrier's endpoints match {', '.join(patterns)}",
        )  # fmt: skip
    trunks = [name for name in devices if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not trunks:
        seen = ", ".join(devices[:20]) or "none at all"
        return Finding(
            Level.ERROR, "trunks", f"no endpoint matches {', '.join(patterns)}; there are: {seen}",
            "set trunks in the [[pbx]] section: without them every call counts as internal",
        )  # fmt: skip
    return Finding(Level.OK, "trunks", f"{', '.join(trunks)} of {len(devices)} endpoints")
