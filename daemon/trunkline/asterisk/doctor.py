"""What a PBX lacks, or has too much of, before it goes live: each finding with what to do about it.

Nothing is changed on the PBX and no call is made. What the login may not ask is said to be unseen, never guessed.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import trio

from trunkline.asterisk.ari import AriPatience, AriSettings, open_ari
from trunkline.asterisk.ari_events import Answer, answer_of, request, systemname_of
from trunkline.asterisk.dial import LinkSettings
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.findings import (
    Finding,
    Heard,
    Level,
    Role,
    check_ari_name,
    check_ari_rights,
    check_clock,
    check_fully_booted,
    check_privileges,
    check_stream,
    check_systemname,
    check_trunks,
    check_version,
    check_write_timeout,
    is_endpoint,
    not_asked,
)
from trunkline.asterisk.session import LinkError, clock, new_action_id
from trunkline.asterisk.wire import Patience, Wire, open_wire

LISTEN_S = 3.0
_ANSWER_S = 10.0
_ARI_ANSWER_S = 3.0
_PATIENCE = Patience(fully_booted=2.0)  # a login without the class system never hears of it


class _Ear:
    """Takes the frames of a wire: counts events, gathers lists."""

    def __init__(self, needed: Callable[[Frame | Event], bool]) -> None:
        self.lists: dict[str, list[Mapping[str, str]]] = {}
        self.done: dict[str, trio.Event] = {}
        self.kinds: Counter[str] = Counter()
        self.stamped = self.unstamped = self.idle = 0
        self._needed = needed

    def __call__(self, frame: Frame | Event) -> None:
        rows = self.lists.get(frame.fields.get("ActionID", ""))
        if rows is not None:
            if frame.fields.get("EventList") == "Complete" or frame.fields.get("Response") == "Error":
                self.done[frame.fields["ActionID"]].set()
            elif frame.kind:
                rows.append(frame.fields)
        elif frame.kind and "Privilege" in frame.fields:
            self.kinds[frame.kind] += 1
            if "Timestamp" in frame.fields:
                self.stamped += 1
            else:
                self.unstamped += 1
            self.idle += frame.kind in ("VarSet", "Newexten") and not self._needed(frame)


async def examine(
    settings: LinkSettings,
    *,
    role: Role = Role.EVENTS,
    trunks: Sequence[str] = ("PJSIP/trunk*",),
    needed: Callable[[Frame | Event], bool] = lambda frame: False,
    listen_s: float = LISTEN_S,
    now: Callable[[], float] = time.time,
) -> list[Finding]:
    """Log in as `settings` say and look around. needed: is this VarSet or Newexten one that the tracker reads?"""
    ear = _Ear(needed)
    try:
        async with open_wire(settings, ear, events="on", patience=_PATIENCE) as wire:
            return await _examine(wire, ear, settings, role, trunks, listen_s, now)
    except LinkError as error:
        return [Finding(Level.ERROR, str(error.reason), error.detail, error.todo)]


async def _examine(
    wire: Wire, ear: _Ear, settings: LinkSettings, role: Role, trunks: Sequence[str], listen_s: float,
    now: Callable[[], float],
) -> list[Finding]:  # fmt: skip
    user, pbx = settings.credentials.username, wire.session.pbx
    findings = [Finding(Level.OK, "reachable", f"{settings.address}, logged in as {user}")]
    may = await _permitted(wire)
    own = await _own_section(wire, user) if "GetConfig" in may else {}
    if role is Role.CONTROL and may and "CoreSettings" not in may:
        findings += [not_asked("version"), not_asked("systemname")]
    else:
        findings.append(check_version(pbx.version))
        findings.append(check_systemname(pbx.systemname, settings.systemname))
    findings += check_privileges(user, role, may)
    before, pong = now(), await wire.ask("Ping")
    pbx_clock = clock(pong) if pong is not None else None
    findings.append(check_clock(None if pbx_clock is None else pbx_clock - (before + now()) / 2))
    if role is Role.EVENTS:
        findings.append(check_fully_booted(user, pbx.uptime_s))
        if "UserEvent" in may:  # harmless, and shows how this PBX writes an event
            await wire.ask("UserEvent", (("UserEvent", "TrunklineDoctor"),))
        await _log_in_beside(settings)
        await trio.sleep(listen_s)
        heard = Heard(listen_s, ear.kinds, ear.stamped, ear.unstamped, ear.idle)
        findings += check_stream(user, heard, own)
        findings.append(check_write_timeout(user, own))
        findings.append(await _recordings(wire))
        findings.append(check_trunks(await _devices(wire, ear), trunks))
    return findings


async def examine_ari(settings: AriSettings, systemname: str | None) -> list[Finding]:
    """Listen as `settings` say, and see whether that is the same PBX and whether the user may do more."""
    may_write = request("DELETE", f"recordings/live/{new_action_id()}")  # there is none of that name
    answers: dict[str, Answer] = {}
    try:
        async with open_ari(settings, f"trunkline-{new_action_id()}", AriPatience()) as socket:
            for asked in (request("GET", "asterisk/info?only=config"), may_write):
                await socket.send(asked)
            with trio.move_on_after(_ARI_ANSWER_S):
                while len(answers) < 2:
                    if (answer := answer_of(await socket.recv(decode=False))) is not None:
                        answers[answer.request_id.partition(" ")[0]] = answer
    except LinkError as error:
        return [Finding(Level.ERROR, f"ari_{error.reason}", error.detail, error.todo)]
    user = settings.credentials.username
    return [
        Finding(Level.OK, "ari", f"{settings.address}, told of recordings as {user}"),
        check_ari_name(None if "GET" not in answers else systemname_of(answers["GET"]), systemname),
        check_ari_rights(user, answers["DELETE"].status_code if "DELETE" in answers else None),
    ]


async def _permitted(wire: Wire) -> frozenset[str]:
    """The actions that this login may use: Asterisk lists no others."""
    answer = await wire.ask("ListCommands")
    if answer is None or answer.fields.get("Response") == "Error":
        return frozenset()
    return frozenset(answer.fields) - {"Response", "ActionID"}


async def _own_section(wire: Wire, user: str) -> dict[str, list[str]]:
    """Our own section of manager.conf, if the login may read it (it should not); the secret is left out."""
    answer = await wire.ask("GetConfig", (("Filename", "manager.conf"), ("Category", user)))
    section: dict[str, list[str]] = {}
    for key, line in answer.fields.items() if answer is not None else ():
        name, equals, value = line.partition("=")
        if key.startswith("Line-") and equals and name != "secret":
            section.setdefault(name, []).append(value)
    return section


async def _log_in_beside(settings: LinkSettings) -> None:
    """A second login, for its SuccessfulAuth: it shows whether the first one reads the class `security`."""
    async with open_wire(settings, lambda frame: None, events="system", patience=_PATIENCE):
        pass


async def _devices(wire: Wire, ear: _Ear) -> list[str] | None:
    """The endpoints as "PJSIP/name"; None when neither list may be asked."""
    for action, field, prefix in (("PJSIPShowEndpoints", "ObjectName", "PJSIP/"), ("DeviceStateList", "Device", "")):
        action_id = new_action_id()
        ear.lists[action_id], ear.done[action_id] = [], trio.Event()
        wire.send(action, (), action_id)
        with trio.move_on_after(_ANSWER_S):
            await ear.done[action_id].wait()
        if names := [prefix + row[field] for row in ear.lists[action_id] if field in row]:
            return sorted(filter(is_endpoint, names))
    return None


async def _recordings(wire: Wire) -> Finding:
    answer = await wire.ask("Getvar", (("Variable", "ASTSPOOLDIR"),))
    spool = answer.fields.get("Value", "") if answer is not None else ""
    if not spool:
        return Finding(Level.UNSEEN, "recordings", "the login may not ask for ASTSPOOLDIR", "add write = reporting")
    monitor = f"{spool}/monitor"
    if await trio.Path(monitor).is_dir():
        return Finding(Level.OK, "recordings", f"MixMonitor writes to {monitor}, which this machine has too")
    return Finding(
        Level.WARNING, "recordings", f"MixMonitor writes to {monitor}, which is not on this machine",
        "mount it here at the same path, or recordings are known by name only",
    )  # fmt: skip
