"""Events over WebSockets: from the event on the wire to the message at every socket, and what a socket costs.

    .venv/bin/python bench/live.py [--seconds 10] [--sockets 500] [--idle 5000]

A scripted AMI in this process, `trunkline run` in one of its own, PostgreSQL in its own, the clients in another: all on
this machine's cores. Each of the sockets is sent each event. There is no peer: what is measured is a promise.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
import uvloop

from daemon import RATE, daemon, latency, pace, rss_mb
from trunkline.embedded.ports import claim
from trunkline.embedded.postgres import Postgres
from trunkline.store.migrate import upgrade
from verdict import Promises, headline

P99_LIMIT_MS = 150.0
SOCKET_LIMIT_KB = 40.0
_SILENCE_S = 3.0  # without a message, after which all have come
_AT_ONCE = 50  # sockets that are opened together


class _Call(msgspec.Struct, rename="camel", frozen=True):
    external_id: str


class _Data(msgspec.Struct, frozen=True):
    call: _Call | None = None


class _Message(msgspec.Struct):
    type: str
    data: _Data = _Data()


_decode = msgspec.json.Decoder(_Message).decode


async def clients(url: str, count: int, *, listen: bool) -> None:
    """In a process of its own: open sockets, say so, and at the end which message came when at each."""
    came: list[tuple[str, str, float]] = []
    last = [time.perf_counter()]

    async def follow(socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            now = time.perf_counter()
            told = _decode(message.data)
            if told.data.call is not None:
                last[0] = now
                came.append((told.data.call.external_id, told.type, now))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        room = asyncio.Semaphore(_AT_ONCE)

        async def opened() -> aiohttp.ClientWebSocketResponse:
            async with room:
                socket = await session.ws_connect(f"{url}/api/v1/ws", compress=0)
                await socket.receive()
                return socket

        sockets = await asyncio.gather(*(opened() for _ in range(count)))
        following = [asyncio.create_task(follow(socket)) for socket in sockets]
        print("open", flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.readline)  # until all was sent
        while listen and time.perf_counter() - last[0] < _SILENCE_S:
            await asyncio.sleep(0.1)
        for task in following:
            task.cancel()
    print(json.dumps(came), flush=True)


async def _clients(url: str, count: int, *, listen: bool) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--clients", url, "--sockets", str(count), *(() if listen else ("--idle", "1")),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 30,
    )  # fmt: skip
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 120)
    if line != b"open\n":
        raise SystemExit("the clients could not open their sockets")
    return process


async def _over(process: asyncio.subprocess.Process) -> list[tuple[str, str, float]]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    await process.stdin.drain()
    came = json.loads(await asyncio.wait_for(process.stdout.readline(), 120))
    await process.wait()
    return [(external_id, kind, at) for external_id, kind, at in came]


async def measure(url: str, directory: Path, seconds: float, sockets: int, idle: int) -> int:
    promises = Promises()
    connection = await asyncpg.connect(url)
    headline(
        f"Events over WebSockets, {RATE} AMI events/s, {sockets} sockets, beside the PBX, PostgreSQL and the clients"
    )
    block = claim([0])
    port = block.base
    block.release()
    async with daemon(directory, url, port=port) as (ami, pid):
        api = f"http://127.0.0.1:{port}"
        await latency(ami, connection, 0.5, number=1_000_000)  # opens connections and prepares statements
        process = await _clients(api, sockets, listen=True)
        sent: dict[tuple[str, str], float] = {}
        expected = await pace(ami, seconds, sent)
        came = await _over(process)
        took = sorted(
            (at - sent[external_id, kind]) * 1e3 for external_id, kind, at in came if (external_id, kind) in sent
        )
        if len(took) != expected * sockets:
            raise SystemExit(f"{len(took):,} messages came, {expected * sockets:,} were expected")
        p99 = took[int(len(took) * 0.99)]
        print(
            f"wire to message   p50 {statistics.median(took):.1f} ms, p99 {p99:.1f} ms, max {took[-1]:.1f} ms; "
            f"{expected:,} events, {len(took):,} messages, {len(took) / seconds:,.0f} a second"
        )
        promises.tell(
            f"from the wire to the message within {P99_LIMIT_MS:g} ms in 99 of 100, with {sockets} sockets",
            f"p99 {p99:.1f} ms", kept=p99 <= P99_LIMIT_MS,
        )  # fmt: skip
        await asyncio.sleep(1)
        before = rss_mb(pid)
        process = await _clients(api, idle, listen=False)
        await asyncio.sleep(1)
        each_kb = (rss_mb(pid) - before) * 1e3 / idle
        await _over(process)
        promises.tell(
            f"one of {idle:,} idle sockets takes {SOCKET_LIMIT_KB:g} kB or less", f"{each_kb:.1f} kB",
            kept=each_kb <= SOCKET_LIMIT_KB,
        )  # fmt: skip
    await connection.close()
    return promises.status


def main() -> int:
    """Run the bench, or the clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--sockets", type=int, default=500)
    parser.add_argument("--idle", type=int, default=5_000)
    parser.add_argument("--clients", metavar="URL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.clients is not None:
        uvloop.run(clients(asked.clients, asked.sockets, listen=asked.idle != 1))
        return 0
    with Postgres(durable=True) as postgres, tempfile.TemporaryDirectory() as directory:
        url = postgres.create_database("bench")
        upgrade(url)
        return asyncio.run(measure(url, Path(directory), asked.seconds, asked.sockets, asked.idle))


if __name__ == "__main__":
    sys.exit(main())
