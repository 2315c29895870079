"""The doctor's rules: what is said of what was seen."""

from collections import Counter

import pytest

from trunkline.asterisk.findings import (
    Heard,
    Level,
    Role,
    check_clock,
    check_fully_booted,
    check_privileges,
    check_stream,
    check_systemname,
    check_trunks,
    check_version,
    check_write_timeout,
)

EVENTS = frozenset("CoreShowChannels Status Getvar CoreSettings CoreStatus QueueStatus Ping".split())


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("22.10.1+dfsg+~cs6.17-1", Level.OK),
        ("22.11.0", Level.OK),
        ("22.10.0", Level.WARNING),
        ("22.4.1", Level.WARNING),
        ("20.20.1", Level.OK),
        ("20.9.3", Level.WARNING),
        ("21.12.0", Level.WARNING),
        ("18.26.4", Level.WARNING),
        ("16.28.0~dfsg-0+deb11u4", Level.WARNING),
        ("23.1.0", Level.OK),
        ("GIT-master-1a2b3c", Level.UNSEEN),
        ("", Level.UNSEEN),
    ],
)
def test_versions(version: str, level: Level) -> None:
    finding = check_version(version)
    assert finding.level is level
    assert bool(finding.todo) == (level is not Level.OK)


def test_systemnames() -> None:
    assert check_systemname("pbx1", None).level is Level.OK
    assert check_systemname("pbx1", "pbx1").level is Level.OK
    assert check_systemname("", None).level is Level.WARNING
    assert check_systemname("pbx2", "pbx1").level is Level.ERROR


def test_a_login_with_just_enough() -> None:
    assert [f.level for f in check_privileges("events", Role.EVENTS, EVENTS)] == [Level.OK]


def test_a_login_with_too_little() -> None:
    (finding,) = check_privileges("events", Role.EVENTS, EVENTS - {"Status", "CoreShowChannels"})
    assert finding.level is Level.ERROR
    assert "CoreShowChannels, Status" in finding.found
    assert "[events]" in finding.todo


def test_a_login_with_write_all() -> None:
    (finding,) = check_privileges("events", Role.EVENTS, EVENTS | {"Command", "GetConfig", "Originate"})
    assert finding.level is Level.WARNING
    assert "Command" in finding.found
    assert "never write = all" in finding.todo


def test_a_control_login_may_originate_but_run_no_shell() -> None:
    control = frozenset("Originate Hangup Redirect Atxfer BlindTransfer Park MixMonitorMute QueuePause Setvar".split())
    assert [f.level for f in check_privileges("control", Role.CONTROL, control)] == [Level.OK]
    assert [f.level for f in check_privileges("control", Role.CONTROL, control | {"Command"})] == [Level.WARNING]
    assert [f.level for f in check_privileges("control", Role.CONTROL, EVENTS)] == [Level.ERROR]


@pytest.mark.parametrize(("offset_s", "level"), [(0.1, Level.OK), (-0.6, Level.WARNING), (3600.0, Level.WARNING)])
def test_clocks(offset_s: float, level: Level) -> None:
    assert check_clock(offset_s).level is level


def test_a_clock_that_was_not_told() -> None:
    assert check_clock(None).level is Level.UNSEEN


def levels(heard: Heard, own: dict[str, list[str]] | None = None) -> dict[str, Level]:
    return {finding.check: finding.level for finding in check_stream("events", heard, own or {})}


def test_a_filtered_stamped_stream_is_well() -> None:
    assert set(levels(Heard(3, Counter({"Newchannel": 2}), 2, 0, 0)).values()) == {Level.OK}


def test_a_flood_is_told() -> None:
    heard = Heard(3, Counter({"VarSet": 54, "Newexten": 9, "Newchannel": 2}), 65, 0, 60)
    assert levels(heard)["eventfilter"] is Level.WARNING


def test_silence_proves_nothing() -> None:
    found = levels(Heard(3, Counter(), 0, 0, 0))
    assert (found["timestampevents"], found["eventfilter"]) == (Level.UNSEEN, Level.UNSEEN)


def test_events_without_a_time_are_told() -> None:
    assert levels(Heard(3, Counter({"Newchannel": 2}), 0, 2, 0))["timestampevents"] is Level.WARNING


def test_the_class_security_is_told_by_its_event_or_by_the_configuration() -> None:
    assert levels(Heard(3, Counter({"SuccessfulAuth": 1}), 1, 0, 0))["read_security"] is Level.WARNING
    assert levels(Heard(3, Counter(), 0, 0, 0), {"read": ["call, security"]})["read_security"] is Level.WARNING


def test_write_timeouts() -> None:
    assert check_write_timeout("events", {}).level is Level.UNSEEN
    assert check_write_timeout("events", {"read": ["all"]}).level is Level.WARNING  # Asterisk's 100 ms
    assert check_write_timeout("events", {"writetimeout": ["5000"]}).level is Level.OK
    for own in ({}, {"writetimeout": ["100"]}):
        todo = check_write_timeout("events", own).todo
        assert "the line `writetimeout = 5000` (ms) into manager.conf, section [events], then `manager reload`" in todo


def test_trunks() -> None:
    devices = ["PJSIP/1001", "PJSIP/carrier-a"]
    assert check_trunks(devices, ["PJSIP/carrier*"]).level is Level.OK
    wrong = check_trunks(devices, ["PJSIP/trunk*"])
    assert wrong.level is Level.ERROR
    assert "PJSIP/carrier-a" in wrong.found
    assert check_trunks(None, ["PJSIP/trunk*"]).level is Level.UNSEEN


def test_restarts_need_the_class_system() -> None:
    assert check_fully_booted("events", None).level is Level.ERROR
    assert check_fully_booted("events", 5).level is Level.OK
