"""`trunkline api` beside a daemon that follows a real PBX: several at once say the same, and each may go any time."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import WSMsgType
from api_process import ApiProcess, role_of_the_api
from daemon_process import Daemon, Storage, running_daemon
from receiver import Receiver
from stage import Rows, Stage, talk

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.postgres import Postgres
from trunkline.embedded.s3 import S3Server

DEADLINE_S = 30
HERE = '[webhooks]\nallow_http = true\nallow_networks = ["127.0.0.0/8"]\n'


class House(NamedTuple):
    """A daemon, and what another process needs beside it."""

    daemon: Daemon
    rows: Rows
    url: str  # of a role that is in trunkline_api only
    storage: Storage


@pytest.fixture(scope="module")
def house(
    pbx: Asterisk, postgres: Postgres, migrated: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    name = f"alone_{uuid4().hex}"
    url = postgres.create_database(name, template=migrated)
    storage = Storage(s3, prefix=f"{name}/")
    with (
        role_of_the_api(url) as api_url,
        running_daemon(pbx, url, tmp_path_factory.mktemp("alone"), storage=storage, webhooks=True) as daemon,
    ):
        yield House(daemon, Rows(url), api_url, storage)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def pair(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiProcess, ApiProcess]]:
    """Two processes, as on two machines: each with its own settings and its own port."""
    directory = tmp_path_factory.mktemp("apis")
    one, other = (ApiProcess(house.url, directory / name, more=HERE, storage=house.storage) for name in "ab")
    yield one, other
    one.kill()
    other.kill()


@pytest.fixture
def two(pair: tuple[ApiProcess, ApiProcess]) -> tuple[ApiProcess, ApiProcess]:
    """Both run, whatever an earlier test did to them."""
    starting = [process.start() for process in pair if not process.running]
    for process in starting:
        process.listening()
    return pair


class Client:
    """Follows the events, and keeps what it was told."""

    def __init__(self, session: aiohttp.ClientSession, begin: int = 0) -> None:
        self.session = session
        self.begin = begin
        self.told: list[tuple[int, str, str | None]] = []
        self.news = asyncio.Event()

    @property
    def after(self) -> int:
        return self.told[-1][0] if self.told else self.begin

    def hear(self, event: dict[str, Any]) -> None:
        self.told.append((event["seq"], event["type"], event["callId"]))
        self.news.set()

    async def listen(self, base: str) -> aiohttp.ClientWebSocketResponse:
        """By WebSocket, from where it is; returns the socket once that is over."""
        async with self.session.ws_connect(f"{base}/api/v1/ws?after={self.after}") as socket:
            assert (await socket.receive_json())["type"] == "hello"
            async for message in socket:
                if message.type is WSMsgType.TEXT and "callId" in (event := json.loads(message.data)):
                    self.hear(event)
            return socket

    async def poll(self, base: str) -> None:
        """By long poll, from where it is."""
        while True:
            async with self.session.get(f"{base}/api/v1/events?after={self.after}&wait=10") as response:
                page = await response.json()
            for event in page["items"]:
                self.hear(event)

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not happened():
                self.news.clear()
                await self.news.wait()

    async def until_stored(self, call_id: str | None = None) -> None:
        """Until it was told that the recording of that call, or of any, is stored."""
        await self.until(
            lambda: any(kind == "call.recording_stored" and call_id in (None, of) for _, kind, of in self.told)
        )


@asynccontextmanager
async def running(*tasks: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    started = [asyncio.create_task(task) for task in tasks]
    try:
        yield started
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


def one_call(stage: Stage) -> None:
    customer, desk = stage.connect()
    talk(1)
    customer.hangup()
    desk.wait_end()


async def get(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        return await response.json()


@pytest.mark.asyncio
async def test_a_call_shows_in_both_alike(house: House, two: tuple[ApiProcess, ApiProcess], stage: Stage) -> None:
    bases = [house.daemon.base, *(process.base for process in two)]
    async with aiohttp.ClientSession() as session:
        clients = [Client(session) for _ in range(2 * len(bases))]
        following = [
            *(client.listen(base) for client, base in zip(clients, bases, strict=False)),
            *(client.poll(base) for client, base in zip(clients[len(bases) :], bases, strict=True)),
        ]
        async with running(*following):
            await asyncio.to_thread(one_call, stage)
            for client in clients:
                await client.until_stored()
        told = clients[0].told
        assert [seq for seq, _, _ in told] == list(range(1, len(told) + 1))
        assert {"call.ringing", "call.answered", "call.ended", "call.recording_stored"} <= {kind for _, kind, _ in told}
        assert [client.told for client in clients] == [told] * len(clients)

        call_id = next(of for _, kind, of in told if kind == "call.ringing")
        shown = [await get(session, f"{base}/api/v1/calls?include=legs") for base in bases]
        assert shown[0] == shown[1] == shown[2]
        assert [call["id"] for call in shown[0]["items"]] == [call_id]
        assert shown[0]["items"][0]["status"] == "COMPLETED"
        (recording,) = (await get(session, f"{bases[1]}/api/v1/calls/{call_id}/recordings"))["items"]
        sounds = []
        for base in bases:
            async with session.get(f"{base}/api/v1/recordings/{recording['id']}/audio") as response:
                assert response.status == 200
                sounds.append(await response.read())
        assert len(sounds[0]) == recording["size"]
        assert sounds[0] == sounds[1] == sounds[2]
        assert await get(session, f"{bases[1]}/readyz") == {
            "status": "ready",
            "checks": [{"check": "database", "ok": True}, {"check": "migrations", "ok": True}],
        }
        async with session.get(f"{bases[1]}/metrics") as response:
            page = await response.text()
        assert 'trunkline_http_requests_total{code="200",method="GET",route="/api/v1/calls"} 1.0' in page


@pytest.mark.asyncio
async def test_what_is_ordered_at_one_is_done_by_the_daemon(
    house: House, two: tuple[ApiProcess, ApiProcess], stage: Stage
) -> None:
    one, other = two
    receiver = await Receiver().start()
    async with aiohttp.ClientSession() as session:
        async with session.post(
            f"{one.base}/api/v1/webhooks", json={"url": receiver.url, "eventTypes": ["call.*"]}
        ) as response:
            assert response.status == 201
            made = await response.json()
        path = f"/api/v1/webhooks/{made['webhook']['id']}"
        async with session.post(f"{other.base}{path}/test") as response:
            assert (response.status, (await response.json())["statusCode"]) == (200, 200)
        await asyncio.to_thread(one_call, stage)
        ping, first = (received.verified(made["secret"]) for received in (await receiver.got(2))[:2])
        assert (ping["type"], first["type"]) == ("webhook.test", "call.ringing")  # the daemon delivers, not the API
        async with session.delete(f"{one.base}{path}") as response:
            assert response.status == 204
        record = await asyncio.to_thread(house.rows.ended, stage.caller)
        client = Client(session)
        async with running(client.listen(other.base)):
            await client.until_stored(str(record.id))
        (recording,) = (await get(session, f"{one.base}/api/v1/calls/{record.id}/recordings"))["items"]
        async with session.delete(f"{one.base}/api/v1/recordings/{recording['id']}") as response:
            assert response.status == 202
        async with asyncio.timeout(DEADLINE_S):
            path = f"{other.base}/api/v1/recordings/{recording['id']}"
            while (await get(session, path))["erasedAt"] is None:  # noqa: ASYNC110  # by a job in another process
                await asyncio.sleep(0.1)
    await receiver.close()


@pytest.mark.asyncio
async def test_who_listened_to_one_that_is_killed_goes_on_at_the_other(
    two: tuple[ApiProcess, ApiProcess], stage: Stage
) -> None:
    one, other = two
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE_S):
        newest = (await get(session, f"{one.base}/api/v1/events?after=0&limit=1000"))["nextAfter"]
        heard, polled, witness = (Client(session, newest) for _ in range(3))
        async with running(witness.listen(other.base)):
            listening = asyncio.create_task(heard.listen(one.base))
            polling = asyncio.create_task(polled.poll(one.base))
            calling = asyncio.create_task(asyncio.to_thread(one_call, stage))
            await heard.until(lambda: bool(heard.told))
            await polled.until(lambda: bool(polled.told))
            one.signal(signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await polling
            await asyncio.gather(listening, return_exceptions=True)
            assert "call.ended" not in {kind for client in (heard, polled) for _, kind, _ in client.told}
            assert not calling.done()
            async with running(heard.listen(other.base), polled.poll(other.base)):
                await calling
                for client in (witness, heard, polled):
                    await client.until(lambda client=client: "call.ended" in {kind for _, kind, _ in client.told})
        last = next(seq for seq, kind, _ in witness.told if kind == "call.ended")
        told = [event for event in witness.told if event[0] <= last]
        assert [seq for seq, _, _ in told] == list(range(newest + 1, last + 1))
        for client in (heard, polled):
            assert [event for event in client.told if event[0] <= last] == told


@pytest.mark.asyncio
async def test_sigterm_sends_everybody_home_in_time(two: tuple[ApiProcess, ApiProcess]) -> None:
    one, _ = two
    host, port = one.base.removeprefix("http://").split(":")
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE_S):
        socket = await session.ws_connect(f"{one.base}/api/v1/ws")
        assert (await socket.receive_json())["type"] == "hello"
        newest = (await get(session, f"{one.base}/api/v1/events?after=0&limit=1000"))["nextAfter"]
        polling = asyncio.create_task(get(session, f"{one.base}/api/v1/events?after={newest}&wait=30"))
        # Who opens a socket and reads nothing, and who is in the middle of a request, keep it from nothing.
        deaf, half = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        deaf[1].write(
            f"GET /api/v1/ws?after=0 HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert b"101" in await deaf[0].readline()
        half[1].write(b"POST /api/v1/webhooks HTTP/1.1\r\nHost: " + host.encode() + b"\r\nContent-Length: 10\r\n\r\n{")
        await half[1].drain()
        await get(session, f"{one.base}/healthz")  # by now it has all of them
        began = time.monotonic()
        one.signal(signal.SIGTERM)
        closed = await socket.receive()
        assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1001)
        assert await polling == {"items": [], "nextAfter": newest}
        await socket.close()
        assert await asyncio.to_thread(one.ended, 10) == 0
        assert time.monotonic() - began < 5
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{one.base}/healthz")
        for _, writer in (deaf, half):
            writer.close()
    assert [line["event"] for line in map(json.loads, one.log.splitlines()) if line["level"] == "error"] == []
