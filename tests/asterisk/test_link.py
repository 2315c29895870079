"""The link, the doctor and the recorder with a real Asterisk that restarts, dies, hangs and is out of sight."""

import os
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from ami_peer import Notes, within
from proxy import Proxy
from stage import Tap, until

from trunkline.asterisk.anonymise import Anonymiser
from trunkline.asterisk.ari import AriLink, ari_settings
from trunkline.asterisk.dial import Address, LinkSettings
from trunkline.asterisk.doctor import examine
from trunkline.asterisk.findings import Finding, Level, Role
from trunkline.asterisk.link import Link
from trunkline.asterisk.record import Recording
from trunkline.asterisk.session import Credentials, Reason
from trunkline.asterisk.wire import Patience
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.demo import agent_phone, carrier_phone
from trunkline.embedded.phone import Call, Phone

CALLER = "12025550177"
UPTIME = "core show uptime seconds"
QUICK = Patience(ping=0.4, dead=1.2)


@pytest.fixture(scope="module")
def lone(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk]:
    """A PBX of this module's own: it has a hard life."""
    with Asterisk(dist, tmp_path_factory.mktemp("lone"), tls=True) as pbx:
        yield pbx


@pytest.fixture
def phones(lone: Asterisk) -> Iterator[tuple[Phone, Phone]]:
    with carrier_phone(lone) as carrier, agent_phone(lone, "1001") as agent:
        yield carrier, agent


def connect(pbx: Asterisk, phones: tuple[Phone, Phone]) -> tuple[Call, Call]:
    """A customer and agent 1001 talk."""
    carrier, agent = phones
    customer = carrier.call(pbx.did("0001"), caller=CALLER, name="Jane Doe")
    desk = agent.wait_call()
    desk.answer()
    customer.wait_answer()
    return customer, desk


def hang_up(customer: Call, desk: Call) -> None:
    customer.hangup()
    desk.wait_end()


def login(pbx: Asterisk, user: str = "events", **address: object) -> LinkSettings:
    values: dict[str, object] = {"host": pbx.host, "port": pbx.ami_port} | address
    secret = {"events": pbx.secrets.ami_events, "control": pbx.secrets.ami_control, "doctor": pbx.secrets.ami_doctor}
    return LinkSettings("lone", Address(**values), Credentials(user, secret[user]), pbx.systemname)  # type: ignore[arg-type]


@asynccontextmanager
async def linked(settings: LinkSettings, **options: object) -> AsyncIterator[tuple[Link, Notes]]:
    notes = Notes()
    link = Link(settings, notes, wanted=NEEDED, fields=FIELDS, **options)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        with within(30):
            await notes.until(lambda: notes.snapshots)
        yield link, notes
        nursery.cancel_scope.cancel()


@pytest.mark.trio
@pytest.mark.parametrize("tls", [False, True], ids=["challenge", "TLS and secret"])
async def test_login(tls: bool, lone: Asterisk) -> None:
    settings = login(lone)
    if tls:
        trusted = ssl.create_default_context(cafile=str(lone.home / "etc" / "tls.crt"))
        settings = login(lone, port=lone.ami_tls_port, tls=trusted)
    async with linked(settings) as (link, notes):
        hello = notes.hellos[0]
        assert hello.systemname == lone.systemname
        assert hello.version
        assert hello.uptime_s is not None
        assert not hello.restarted
        assert abs(link.clock_offset_s) < 0.5


@pytest.mark.trio
async def test_after_a_gap_the_lists_and_variables_tell(lone: Asterisk, phones: tuple[Phone, Phone]) -> None:
    async with trio.open_nursery() as nursery:
        proxy = Proxy(lone.host, lone.ami_port)
        await nursery.start(proxy.run)
        async with linked(login(lone, port=proxy.port)) as (link, notes):
            proxy.freeze()
            await proxy.cut()
            await notes.until(lambda: notes.endings)
            customer, desk = await trio.to_thread.run_sync(connect, lone, phones)
            proxy.thaw()
            with within(30):
                await notes.until(lambda: len(notes.snapshots) == 2)
            snapshot = notes.snapshots[1][0]
            assert sorted(row["Channel"].split("-")[0] for row in snapshot.channels.values()) == [
                "PJSIP/1001",
                "PJSIP/trunk",
            ]
            assert len({row["BridgeId"] for row in snapshot.channels.values()}) == 1
            trunk = next(u for u, row in snapshot.channels.items() if row["Channel"].startswith("PJSIP/trunk"))
            assert {"CDR(start)", "CDR(answer)", "MIXMONITOR_FILENAME"} <= snapshot.variables[trunk].keys()
            assert not notes.hellos[1].restarted
            await trio.to_thread.run_sync(hang_up, customer, desk)
            with within(10):
                await notes.until(lambda: sum(e.kind == "Hangup" for e in notes.all_events) == 2)
            assert link.refused == {}
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_restart_and_kill_are_seen_as_restarts(lone: Asterisk) -> None:
    async with linked(login(lone)) as (link, notes):
        await trio.to_thread.run_sync(lone.restart_now)
        with within(30):
            await notes.until(lambda: len(notes.snapshots) == 2)
        assert notes.endings[0][0] == "restarting"
        # it boots in less than the second that it gives its start time in: let it be another one
        await trio.to_thread.run_sync(until, "a second of life", lambda: "uptime: 0" not in lone.cli(UPTIME))
        await trio.to_thread.run_sync(lone.kill)
        with within(30):
            await notes.until(lambda: len(notes.endings) == 2)
        assert notes.endings[1][0] == "closed"
        await trio.to_thread.run_sync(lone.start)
        with within(40):
            await notes.until(lambda: len(notes.snapshots) == 3)
        assert [hello.restarted for hello in notes.hellos] == [False, True, True]
        assert link.connects == 3


@pytest.mark.trio
async def test_a_pbx_that_hangs_is_noticed_and_taken_up_again(lone: Asterisk) -> None:
    async with linked(login(lone), patience=QUICK) as (_, notes):
        os.kill(lone.pid, signal.SIGSTOP)
        try:
            with within(10):
                await notes.until(lambda: notes.endings)
        finally:
            os.kill(lone.pid, signal.SIGCONT)
        assert notes.endings[0][0] == "silent"
        with within(40):
            await notes.until(lambda: len(notes.snapshots) == 2)
        assert not notes.hellos[1].restarted


@pytest.mark.trio
async def test_a_thousand_channels_are_in_step_within_five_seconds(lone: Asterisk) -> None:
    """Local channels, for their number is what counts; asked for while they are all up."""

    def crowd() -> None:
        for step in ("1,Answer()", "2,Wait(60)"):
            lone.cli(f"dialplan add extension 99,{step} into extensions replace")
        tap = Tap(lone, "control", lone.secrets.ami_control)
        for _ in range(500):
            tap.ask(
                "Originate",
                "Channel: Local/99@extensions/n\r\nContext: extensions\r\nExten: 99\r\nPriority: 1\r\nAsync: true\r\n",
            )
        until("1,000 channels", lambda: "1000 active channels" in lone.cli("core show channels count"), 20)
        tap.close()

    try:
        await trio.to_thread.run_sync(crowd)
        async with linked(login(lone)) as (link, notes):
            assert len(notes.snapshots[0][0].channels) == 1000
            assert link.resync_s < 5
    finally:
        await trio.to_thread.run_sync(lone.cli, "channel request hangup all")


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


@pytest.mark.trio
async def test_the_doctor_finds_our_own_configuration_well(lone: Asterisk, phones: tuple[Phone, Phone]) -> None:
    found: list[Finding] = []
    needed = lambda frame: frame.kind not in {"VarSet", "Newexten"}  # noqa: E731 - none of them at all

    async def look() -> None:
        found.extend(await examine(login(lone), needed=needed, listen_s=2.0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        while not found:  # it does not say when it begins to listen
            customer, desk = await trio.to_thread.run_sync(connect, lone, phones)
            await trio.to_thread.run_sync(hang_up, customer, desk)
    checks = by_check(found)
    assert {f.level for f in found} <= {Level.OK, Level.UNSEEN, Level.WARNING}
    for check in ("reachable", "privileges", "systemname", "clock", "read_system", "timestampevents", "read_security"):
        assert checks[check].level is Level.OK, checks[check]
    assert checks["trunks"].level is Level.OK
    assert "PJSIP/trunk" in checks["trunks"].found
    assert str(lone.recordings) in checks["recordings"].found
    assert checks["writetimeout"].level is Level.UNSEEN


@pytest.mark.trio
async def test_ari_over_tls_and_through_a_restart(lone: Asterisk) -> None:
    where, secret = f"https://{lone.host}:{lone.https_port}", lone.secrets.ari_recordings
    stranger = AriLink(ari_settings("lone", where, "recordings", secret), lambda told: None)
    own = ari_settings("lone", where, "recordings", secret, str(lone.home / "etc" / "tls.crt"))
    link = AriLink(own, lambda told: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger.run)
        nursery.start_soon(link.run)
        with within(30):
            while not (link.up and stranger.failure):  # noqa: ASYNC110  # plain attributes, for metrics to read
                await trio.sleep(0.01)
            assert stranger.failure.reason is Reason.TLS  # its certificate is the PBX's own
            await trio.to_thread.run_sync(lone.kill)
            await trio.to_thread.run_sync(lone.start)
            while link.connects < 2 or not link.up:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert link.connect_failures["closed"] == 1


@pytest.mark.trio
async def test_the_doctor_tells_control_from_events(lone: Asterisk) -> None:
    control = by_check(await examine(login(lone, "control"), role=Role.CONTROL))
    assert control["privileges"].level is Level.OK
    wrong = by_check(await examine(login(lone, "control"), listen_s=0.0))
    assert wrong["privileges"].level is Level.WARNING or wrong["privileges"].level is Level.ERROR
    assert "reporting" in wrong["privileges"].todo


@pytest.mark.trio
async def test_the_doctor_says_why_a_login_is_refused(lone: Asterisk) -> None:
    settings = LinkSettings("lone", Address(lone.host, lone.ami_port), Credentials("events", "wrong"))
    (finding,) = await examine(settings)
    assert (finding.level, finding.check) == (Level.ERROR, "login_refused")
    assert "manager.conf" in finding.todo


@pytest.mark.trio
async def test_a_recording_of_a_call_shows_no_number(
    lone: Asterisk, phones: tuple[Phone, Phone], tmp_path: Path
) -> None:
    recording = Recording(tmp_path / "rec", login(lone), anonymiser=Anonymiser(), calls=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recording.run)
        with within(20):
            while not (tmp_path / "rec" / "ami.raw").exists():  # noqa: ASYNC110 - a file has no events
                await trio.sleep(0.02)
            customer, desk = await trio.to_thread.run_sync(partial(connect, lone, phones))
            await trio.to_thread.run_sync(hang_up, customer, desk)
    raw = (tmp_path / "rec" / "ami.raw").read_bytes()
    assert CALLER.encode() not in raw
    assert b"Jane Doe" not in raw
    assert raw.count(b"Event: Newchannel\r\n") == raw.count(b"Event: Hangup\r\n") == 2
    assert lone.secrets.ami_events.encode() not in raw
