"""What networks do to a link: freezes, cuts, delays; and TLS."""

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from ami_peer import Notes, Peer, newchannel, within
from proxy import Proxy

from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.dial import LinkSettings
from trunkline.asterisk.link import Link
from trunkline.asterisk.session import Reason
from trunkline.embedded.provision import provision

CLOCK = trio.testing.MockClock


@asynccontextmanager
async def proxied(peer: Peer) -> AsyncIterator[tuple[Link, Notes, Proxy]]:
    notes = Notes()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        proxy = Proxy("127.0.0.1", peer.port)
        await nursery.start(proxy.run)
        link = Link(peer.settings(port=proxy.port), notes, backoff=Backoff(jitter=lambda: 0.0))
        nursery.start_soon(link.run)
        with within(60):
            await notes.until(lambda: notes.snapshots)
        yield link, notes, proxy
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_frozen_network_is_noticed_and_survived(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with proxied(peer) as (link, notes, proxy):
        for round_ in range(1, 4):
            proxy.freeze()
            frozen_at = trio.current_time()
            with within(60):
                await notes.until(lambda n=round_: len(notes.endings) == n)
            assert trio.current_time() - frozen_at <= 15
            proxy.thaw()
            with within(120):
                await notes.until(lambda n=round_: len(notes.snapshots) == n + 1)
        assert [reason for reason, _ in notes.endings] == ["silent"] * 3
        assert link.connect_failures[Reason.SILENT] == link.reconnects == 3


@pytest.mark.trio
async def test_every_cut_brings_a_resync(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with proxied(peer) as (link, notes, proxy):
        for round_ in range(1, 11):
            await peer.conversations[-1].send(newchannel(round_))
            await notes.until(lambda n=round_: len(notes.all_events) == n)
            await proxy.cut()
            with within(120):
                await notes.until(lambda n=round_: len(notes.snapshots) == n + 1)
        assert len(notes.all_events) == 10
        assert link.resyncs == 11
        assert not any(hello.restarted for hello in notes.hellos)


@pytest.mark.trio
async def test_a_slow_network_is_no_dead_one(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with proxied(peer) as (link, notes, proxy):
        proxy.delay_s = 2.0  # a round trip of four seconds
        await trio.sleep(300)
        assert notes.endings == []
        assert link.up


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key. A machine without openssl has the one that comes with our Asterisk."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cnf").write_text("[req]\ndistinguished_name = name\n[name]\n")
    openssl = shutil.which("openssl") or str(provision() / "bin" / "openssl")
    words = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
    )
    words += "-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:TRUE".split()
    files = ["-config", str(folder / "cnf"), "-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run([*words, *files], check=True, capture_output=True, timeout=30)
    return folder / "crt", folder / "key"


@asynccontextmanager
async def tls_peer(peer: Peer, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """TLS in front of the scripted AMI, as Asterisk's tlsbindaddr is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def serve(stream: trio.SSLStream) -> None:
        inner = await trio.open_tcp_stream("127.0.0.1", peer.port)
        async with stream, inner, trio.open_nursery() as nursery:

            async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                try:
                    while data := await source.receive_some(65536):
                        await sink.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(pump, stream, inner)
            nursery.start_soon(pump, inner, stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
        port: int = listeners[0].transport_listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield port
        nursery.cancel_scope.cancel()


async def first_failure(settings: LinkSettings) -> dict[str, int]:
    link = Link(settings, Notes())
    with within(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            while not link.connect_failures:  # noqa: ASYNC110 - counters have no events
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert link.failure is not None
    return {link.failure.reason: 1, link.failure.detail: 1}


@pytest.mark.trio
async def test_over_tls_the_plain_secret_is_enough(certificate: tuple[Path, Path]) -> None:
    peer, notes = Peer(), Notes()
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    async with tls_peer(peer, certificate) as port, trio.open_nursery() as nursery:
        link = Link(peer.settings(host="localhost", port=port, tls=trusted), notes)
        nursery.start_soon(link.run)
        with within(20):
            await notes.until(lambda: notes.snapshots)
        assert peer.asked("Challenge") == 0
        assert peer.conversations[-1].actions[0]["Secret"] == peer.secret
        await peer.conversations[-1].send(newchannel(1))
        await notes.until(lambda: notes.events)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_certificate_that_nobody_vouches_for_gets_no_secret(certificate: tuple[Path, Path]) -> None:
    peer = Peer()
    async with tls_peer(peer, certificate) as port:
        failure = await first_failure(peer.settings(host="localhost", port=port, tls=ssl.create_default_context()))
    assert Reason.TLS in failure
    assert any("not trusted" in words for words in failure)
    assert peer.asked("Login") == 0


@pytest.mark.trio
async def test_tls_to_a_port_without_it_is_told() -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        assert Reason.TLS in await first_failure(peer.settings(tls=ssl.create_default_context()))
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_no_tls_to_a_port_with_it_is_told(certificate: tuple[Path, Path], autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with tls_peer(peer, certificate) as port:
        failure = await first_failure(peer.settings(port=port))
    assert Reason.NOT_AMI in failure
