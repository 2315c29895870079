"""Links that cannot be made: each failure has its reason, its words, its count, and no PBX is hammered."""

import pytest
import trio
import trio.testing
from ami_peer import Notes, Peer, within
from structlog.testing import capture_logs

from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.dial import Address, LinkSettings
from trunkline.asterisk.link import Link
from trunkline.asterisk.session import Credentials, Reason


async def failed_tries(settings: LinkSettings, count: int = 1) -> tuple[Link, Notes, list[dict[str, object]], float]:
    """Let a link try until it has failed `count` times; returns how long the (virtual) clock ran too."""
    notes = Notes()
    link = Link(settings, notes, backoff=Backoff(jitter=lambda: 0.0))
    start = trio.current_time()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            while sum(link.connect_failures.values()) < count:  # noqa: ASYNC110 - counters have no events
                await trio.sleep(0.05)
            took = trio.current_time() - start
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    return link, notes, [dict(line) for line in logs if line["event"] == "link.down"], took


async def closed_port() -> int:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


@pytest.mark.trio
async def test_a_closed_port_is_named_and_tried_again_ever_more_slowly(autojump_clock: trio.testing.MockClock) -> None:
    settings = LinkSettings("main", Address("127.0.0.1", await closed_port()), Credentials("events", "s3cret"))
    link, notes, logs, took = await failed_tries(settings, 12)
    assert link.connect_failures == {Reason.PORT_CLOSED: 12}
    assert [line["retry_s"] for line in logs] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0, 30.0]
    assert "manager.conf" in str(logs[0]["todo"])
    assert not link.up
    assert notes.told == []
    assert 140 < took < 150


@pytest.mark.trio
async def test_an_unknown_name_is_a_matter_of_dns() -> None:
    settings = LinkSettings("main", Address("pbx.invalid"), Credentials("events", "s3cret"))
    with within(10):
        link, _, logs, _ = await failed_tries(settings)
    assert link.connect_failures == {Reason.DNS: 1}
    assert "pbx.invalid" in str(logs[0]["detail"])


@pytest.mark.trio
@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\nServer: Asterisk\r\n\r\n",
        bytes(range(128, 256)) * 40,
        b"\x16\x03\x01\x02\x00\r\n",
        b"Event: FullyBooted\r\n\r\n",
    ],
    ids=["ssh", "http", "garbage", "tls", "no banner"],
)
async def test_what_is_no_ami_is_not_logged_in_to(banner: bytes, autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    peer.banner = banner
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        link, notes, logs, _ = await failed_tries(peer.settings())
        nursery.cancel_scope.cancel()
    assert link.connect_failures == {Reason.NOT_AMI: 1}
    assert peer.asked("Login") == peer.asked("Challenge") == 0
    assert notes.told == []
    assert "5038" in str(logs[0]["todo"])


@pytest.mark.trio
async def test_a_peer_that_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    peer.banner = b""
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        link, _, _, took = await failed_tries(peer.settings())
        nursery.cancel_scope.cancel()
    assert link.connect_failures == {Reason.NOT_AMI: 1}
    assert 9 < took < 12


@pytest.mark.trio
async def test_a_wrong_secret_is_not_hammered(autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        link, notes, logs, _ = await failed_tries(peer.settings(secret="hunter2-wrong"), 7)
        nursery.cancel_scope.cancel()
    assert link.connect_failures == {Reason.LOGIN_REFUSED: 7}
    assert [line["retry_s"] for line in logs] == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert "Authentication failed" in str(logs[0]["detail"])
    assert "[events] in manager.conf" in str(logs[0]["todo"])
    assert "hunter2" not in str(logs)
    assert "hunter2" not in repr(link.__dict__)
    assert notes.told == []


@pytest.mark.trio
async def test_the_wrong_pbx_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        link, notes, logs, _ = await failed_tries(peer.settings(systemname="pbx2"))
        nursery.cancel_scope.cancel()
    assert link.connect_failures == {Reason.WRONG_PBX: 1}
    assert "'pbx1'" in str(logs[0]["detail"])
    assert notes.told == []


@pytest.mark.trio
async def test_a_login_that_is_never_answered_ends(autojump_clock: trio.testing.MockClock) -> None:
    peer = Peer()
    peer.mute = True
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        link, _, _, _ = await failed_tries(peer.settings())
        nursery.cancel_scope.cancel()
    assert link.connect_failures == {Reason.TIMEOUT: 1}


@pytest.mark.trio
async def test_the_waits_begin_anew_after_a_session_that_held(autojump_clock: trio.testing.MockClock) -> None:
    peer, notes = Peer(), Notes()
    link = Link(peer.settings(port=await closed_port()), notes, backoff=Backoff(jitter=lambda: 0.0))
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            while sum(link.connect_failures.values()) < 6:  # noqa: ASYNC110 - counters have no events
                await trio.sleep(0.05)
            peer.port = link._settings.address.port
            await nursery.start(peer.run)
            with within(60):
                await notes.until(lambda: link.up)
            await trio.sleep(60)
            await peer.conversations[-1].cut()
            with within(60):
                await notes.until(lambda: link.reconnects == 1 and link.up)
            nursery.cancel_scope.cancel()
    assert [line["retry_s"] for line in logs if line["event"] == "link.down"] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 0.2]
    assert (link.connects, link.reconnects) == (2, 1)


@pytest.mark.trio
async def test_a_login_without_the_class_system_is_warned_and_used(autojump_clock: trio.testing.MockClock) -> None:
    peer, notes = Peer(), Notes()
    peer.fully_booted = False
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await nursery.start(peer.run)
            link = Link(peer.settings(), notes)
            nursery.start_soon(link.run)
            with within(60):
                await notes.until(lambda: link.up)
            nursery.cancel_scope.cancel()
    assert notes.hellos[0].uptime_s is None
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["link.no_fullybooted"]
