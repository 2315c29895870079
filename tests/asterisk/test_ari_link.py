"""The ARI link with a real Asterisk: what it hears, what it notices, what it never says and never does."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
import trio
from ami_peer import within
from ari_user import AriUser
from proxy import Proxy
from stage import Stage
from structlog.testing import capture_logs

from trunkline.asterisk.ari import AriLink, AriPatience, ari_settings
from trunkline.asterisk.ari_events import AriRecording, RecordingIs
from trunkline.asterisk.doctor import examine_ari
from trunkline.asterisk.findings import Finding, Level
from trunkline.asterisk.session import Reason
from trunkline.embedded.asterisk import Asterisk

QUICK = AriPatience(handshake=2.0, ping=0.4, pong=0.8, close=0.1)


@pytest.fixture
def user(pbx: Asterisk) -> Iterator[AriUser]:
    with closing(AriUser(pbx, "noticed")) as user:
        yield user


class Heard:
    """What a link has told, and how it stands."""

    def __init__(self, pbx: Asterisk, port: int = 0, **options: Any) -> None:
        self.told: list[AriRecording] = []
        where = f"http://{pbx.host}:{port or pbx.http_port}{options.pop('path', '')}"
        secret = options.pop("secret", pbx.secrets.ari_recordings)
        settings = ari_settings("one", where, "recordings", secret)
        self.link = AriLink(settings, self.told.append, **({"patience": QUICK} | options))

    async def until(self, what: Any) -> None:
        with within(15):
            while not what():  # noqa: ASYNC110  # it is told in plain calls
                await trio.sleep(0.01)

    async def fails(self) -> Reason:
        await self.until(lambda: self.link.failure is not None)
        assert self.link.failure is not None
        return self.link.failure.reason


@asynccontextmanager
async def linked(heard: Heard) -> AsyncIterator[Heard]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heard.link.run)
        yield heard
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_it_hears_of_a_recording_of_an_application_that_is_not_ours(stage: Stage, user: AriUser) -> None:
    customer, desk = await trio.to_thread.run_sync(stage.connect)
    channel = stage.tap.event("BridgeEnter", stage.mark, CallerIDNum=stage.caller)["Uniqueid"]
    async with linked(Heard(stage.pbx)) as heard:
        await heard.until(lambda: heard.link.up)
        snoop = user.snoop(channel)
        user.record(f"channels/{snoop}", "heard/by us", ifExists="overwrite")
        await heard.until(lambda: heard.told)
        await trio.to_thread.run_sync(customer.hangup)
        await trio.to_thread.run_sync(desk.wait_end)
        await heard.until(lambda: len(heard.told) == 2)
    started, finished = heard.told
    assert (started.state, started.name, started.format) == (RecordingIs.STARTED, "heard/by us", "wav")
    assert started.target == finished.target == f"channel:{snoop}"
    assert finished.state is RecordingIs.FINISHED
    assert finished.seconds is not None
    assert started.at <= finished.at
    assert heard.link.recordings == {"started": 1, "finished": 1}
    (stage.pbx.ari_recordings / "heard" / "by us.wav").unlink()


@pytest.mark.trio
async def test_two_that_listen_do_not_silence_each_other(pbx: Asterisk, user: AriUser) -> None:
    async with linked(Heard(pbx)) as one, linked(Heard(pbx)) as other:
        await one.until(lambda: one.link.up and other.link.up)
        names = {app["name"] for app in user.ask("GET", "applications")}
        assert len({name for name in names if name.startswith("trunkline-")}) >= 2
        await trio.sleep(0.3)
        assert one.link.up
        assert other.link.up
        assert one.link.reconnects == other.link.reconnects == 0


@pytest.mark.trio
async def test_a_half_open_connection_is_noticed_and_made_again(pbx: Asterisk, nursery: trio.Nursery) -> None:
    proxy = await nursery.start(Proxy(pbx.host, pbx.http_port).run)
    async with linked(Heard(pbx, proxy.port)) as heard:
        await heard.until(lambda: heard.link.up)
        proxy.freeze()
        began = trio.current_time()
        await heard.until(lambda: not heard.link.up)
        assert trio.current_time() - began < QUICK.ping + QUICK.pong + QUICK.close + 1.5
        assert await heard.fails() is Reason.SILENT
        proxy.thaw()
        await proxy.cut()
        await heard.until(lambda: heard.link.connects == 2)
        assert heard.link.reconnects == 1


def test_half_open_is_noticed_in_15_s() -> None:
    patience = AriPatience()
    assert patience.ping + patience.pong + patience.close <= 15


@pytest.mark.trio
async def test_a_cut_connection_is_made_again(pbx: Asterisk, nursery: trio.Nursery) -> None:
    proxy = await nursery.start(Proxy(pbx.host, pbx.http_port).run)
    async with linked(Heard(pbx, proxy.port)) as heard:
        await heard.until(lambda: heard.link.up)
        await proxy.cut()
        await heard.until(lambda: heard.link.connects == 2 and heard.link.up)
        assert heard.link.connect_failures == {"closed": 1}


@pytest.mark.trio
async def test_a_wrong_password_is_told_not_hammered_and_never_shown(
    pbx: Asterisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with linked(Heard(pbx, secret="canary-9137")) as heard:
            assert await heard.fails() is Reason.LOGIN_REFUSED
        async with linked(Heard(pbx)) as heard:
            await heard.until(lambda: heard.link.up)
    (down,) = (line for line in logs if line["event"] == "ari.down")
    assert down["retry_s"] >= 5
    said = json.dumps(logs) + caplog.text
    for secret in ("canary-9137", pbx.secrets.ari_recordings, "Y2FuYXJ5", "Basic "):
        assert secret not in said


@pytest.mark.trio
@pytest.mark.parametrize(
    ("port", "path", "reason"),
    [
        (lambda pbx: pbx.http_port, "/nothing", Reason.NOT_ARI),
        (lambda pbx: pbx.ami_port, "", Reason.NOT_ARI),
        (lambda pbx: pbx.https_port, "", Reason.PORT_CLOSED),
    ],
)
async def test_what_is_no_ari_is_told(pbx: Asterisk, port: Any, path: str, reason: Reason) -> None:
    async with linked(Heard(pbx, port(pbx), path=path)) as heard:
        assert await heard.fails() is reason
        assert not heard.link.up


@pytest.mark.trio
async def test_the_ari_of_another_pbx_is_refused(pbx: Asterisk) -> None:
    async with linked(Heard(pbx, expected=lambda: "branch")) as heard:
        assert await heard.fails() is Reason.WRONG_PBX
    async with linked(Heard(pbx, expected=lambda: pbx.systemname)) as heard:
        await heard.until(lambda: heard.link._systemname == pbx.systemname)
        assert heard.link.failure is None


def test_the_user_that_listens_can_change_nothing(pbx: Asterisk) -> None:
    with closing(AriUser(pbx, "reader", "recordings")) as reader:
        assert reader.status("GET", "channels") == 200
        assert reader.status("POST", "channels", endpoint="PJSIP/1001", app="reader") == 403
        assert reader.status("DELETE", "recordings/stored/x") == 403


def _found(findings: list[Finding]) -> dict[str, Level]:
    return {finding.check: finding.level for finding in findings}


@pytest.mark.trio
async def test_the_doctor_examines_ari(pbx: Asterisk) -> None:
    where, secrets = f"http://{pbx.host}:{pbx.http_port}", pbx.secrets
    reader = ari_settings("one", where, "recordings", secrets.ari_recordings)
    writer = ari_settings("one", where, "trunkline", secrets.ari)
    well = {"ari": Level.OK, "ari_systemname": Level.OK, "ari_rights": Level.OK}
    assert _found(await examine_ari(reader, pbx.systemname)) == well
    assert _found(await examine_ari(writer, None)) == well | {"ari_rights": Level.WARNING}
    assert _found(await examine_ari(reader, "branch")) == well | {"ari_systemname": Level.ERROR}
    stranger = ari_settings("one", where, "recordings", "guessed")
    assert _found(await examine_ari(stranger, None)) == {"ari_login_refused": Level.ERROR}
