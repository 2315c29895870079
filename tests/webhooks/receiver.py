"""A receiver of webhooks as it may be found out there: a real HTTP server that does as it is told, however rude."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from standardwebhooks import Webhook

DEADLINE_S = 60.0


class Received(NamedTuple):
    """One request."""

    method: str
    target: str
    headers: dict[str, str]  # names in lowercase
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def verified(self, secret: str) -> Any:
        """The body, once the library found its signature good."""
        return Webhook(secret).verify(self.body, self.headers)


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """Listens on loopback. `behaves` is what it does with each request from now on; `connections` counts them all."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.sent = 0  # bytes of the body of `gigantic`
        self.behaves: Behaviour = answer(200)
        self.tls: ssl.SSLContext | None = None
        self.names: list[str | None] = []  # by which TLS asked for it
        self._changed = asyncio.Condition()
        self._server: asyncio.Server
        self._open: set[asyncio.Task[Any]] = set()

    async def start(self) -> "Receiver":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/very-secret-path"

    async def got(self, count: int) -> list[Received]:
        """What it received, once that is so much."""
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._request(reader)
                await self.behaves(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = line.split(" ", 2)
        async with self._changed:
            self.received.append(Received(method, target, headers, body))
            self._changed.notify_all()


def answer(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """Answer decently."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        told = {"Content-Length": str(len(body)), "Connection": "close", **given}
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body)
        await writer.drain()

    return behave


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the client goes."""
    await reader.read()


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing and hang up."""


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak something else."""
    writer.write(b"220 mail.example.com ESMTP ready\r\n" * 3)
    await writer.drain()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say yes, and never stop saying it."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    gone = asyncio.ensure_future(reader.read())
    while not gone.done():
        writer.write(b"1\r\n.\r\n")
        await writer.drain()
        await asyncio.wait({gone}, timeout=0.01)


async def drip_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never come to the end of the head."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    gone = asyncio.ensure_future(reader.read())
    while not gone.done():
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.wait({gone}, timeout=0.05)


def gigantic(receiver: Receiver) -> Behaviour:
    """Answer 200 with a body without end."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            receiver.sent += 65536

    return behave
