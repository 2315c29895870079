"""The ARI link against a peer that is no ARI, or one that misbehaves: it ends with a reason, and nothing leaks."""

import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from ami_peer import within
from structlog.testing import capture_logs

from trunkline.asterisk.ari import AriLink, AriPatience, ari_settings
from trunkline.asterisk.ari_events import AriRecording
from trunkline.asterisk.session import Reason

SECRET = "canary-4711"
PATIENCE = AriPatience(handshake=0.5, ping=0.3, pong=0.5, close=0.1)
EVENT = {
    "type": "RecordingStarted",
    "timestamp": "2026-11-22T23:45:42.119+0000",
    "recording": {"name": "one", "format": "wav", "state": "recording", "target_uri": "channel:p-1"},
}

Behaves = Callable[[trio.SocketStream, bytes], Awaitable[None]]


def text(*messages: object) -> bytes:
    """Text frames."""
    sent = b""
    for message in messages:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        sent += bytes([0x81, 126]) + struct.pack(">H", len(data)) + data
    return sent


async def welcome(stream: trio.SocketStream, request: bytes) -> None:
    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")).split(b": ")[1]
    accept = base64.b64encode(
        hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    )
    await stream.send_all(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def after_welcome(sent: bytes, *, stays: bool = True) -> Behaves:
    async def behave(stream: trio.SocketStream, request: bytes) -> None:
        await welcome(stream, request)
        await stream.send_all(sent)
        while stays and await stream.receive_some():
            pass

    return behave


def answering(sent: bytes) -> Behaves:
    async def behave(stream: trio.SocketStream, request: bytes) -> None:
        await stream.send_all(sent)

    return behave


async def mute(stream: trio.SocketStream, request: bytes) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def peer(behaves: Behaves) -> AsyncIterator[tuple[AriLink, list[bytes], list[AriRecording]]]:
    """A link to a peer that behaves so; the heads of the requests that it got, and what the link has told."""
    requests: list[bytes] = []
    told: list[AriRecording] = []

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                if not (data := await stream.receive_some()):
                    return
                head += data
            requests.append(head)
            await behaves(stream, head)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        link = AriLink(
            ari_settings("p", f"http://127.0.0.1:{port}/asterisk", "recordings", SECRET), told.append, patience=PATIENCE
        )
        nursery.start_soon(link.run)
        yield link, requests, told
        nursery.cancel_scope.cancel()


async def failed(link: AriLink) -> Reason:
    with within(10):
        while link.failure is None:  # noqa: ASYNC110  # plain attributes, for metrics to read
            await trio.sleep(0.01)
    return link.failure.reason


@pytest.mark.trio
@pytest.mark.parametrize(
    ("behaves", "reason"),
    [
        (mute, Reason.TIMEOUT),
        (answering(b"Asterisk Call Manager/11.0.0\r\n"), Reason.NOT_ARI),
        (answering(b""), Reason.NOT_ARI),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Reason.NOT_ARI),
        (answering(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000), Reason.NOT_ARI),
        (answering(b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), Reason.NOT_ARI),
        (answering(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"), Reason.LOGIN_REFUSED),
        (after_welcome(b"", stays=False), Reason.CLOSED),
        (after_welcome(b"\x81\x7f" + struct.pack(">Q", 1 << 40)), Reason.CLOSED),  # a frame of a terabyte
        (after_welcome(b"\xff" * 100), Reason.CLOSED),
        (after_welcome(b"\x01\x04xxxx" + b"\x00\x04xxxx" * 100_000), Reason.CLOSED),  # one message without an end
        (after_welcome(text({"type": "ApplicationReplaced"})), Reason.CLOSED),
        (after_welcome(b"\x88\x02\x03\xe8"), Reason.CLOSED),
    ],
)
async def test_it_ends_with_a_reason_and_is_tried_again(behaves: Behaves, reason: Reason) -> None:
    with capture_logs() as logs:
        async with peer(behaves) as (link, _, told):
            assert await failed(link) is reason
            assert told == []
    said = json.dumps(logs, default=str)
    assert "ari.fault" not in said
    assert SECRET not in said
    assert base64.b64encode(f"recordings:{SECRET}".encode()).decode() not in said


@pytest.mark.trio
async def test_it_is_not_led_elsewhere_with_its_password(nursery: trio.Nursery) -> None:
    elsewhere: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        elsewhere.append(await stream.receive_some())

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    redirect = f"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:{port}/ari/events\r\nContent-Length: 0\r\n\r\n"
    async with peer(answering(redirect.encode())) as (link, requests, _):
        assert await failed(link) is Reason.NOT_ARI
        with within(10):
            while len(requests) < 2:  # noqa: ASYNC110  # it was tried again, where it was told to
                await trio.sleep(0.01)
    assert elsewhere == []


@pytest.mark.trio
async def test_a_bad_event_costs_that_event_alone() -> None:
    bad = (b'{"type":"RecordingStarted"', {**EVENT, "timestamp": "never"}, {**EVENT, "recording": {"name": "x" * 9000}})
    with capture_logs() as logs:
        async with peer(after_welcome(text(*bad, EVENT))) as (link, requests, told):
            with within(10):
                while not told:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert (link.up, link.bad, [one.name for one in told]) == (True, 3, ["one"])
    assert [line["event"] for line in logs].count("ari.bad_event") == 3
    path = requests[0].split(b" ")[1]
    assert path.startswith(b"/asterisk/ari/events?app=trunkline-")
    assert SECRET.encode() not in path
