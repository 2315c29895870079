"""Webhooks: from the committed event to the request at a healthy receiver, alone and among receivers that are not.

    .venv/bin/python bench/webhooks.py [--seconds 15] [--rate 10]

The daemon's webhook service and the writer in this process, the receivers in one of their own, PostgreSQL in its own:
all on this machine's cores. Each webhook is told each event. There is no peer: it is compared with no sick one there.
"""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import structlog
import uvloop
from aiohttp import web

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Status
from trunkline.crm.webhooks.destination import Destinations
from trunkline.crm.webhooks.message import new_secret
from trunkline.crm.webhooks.service import Sending, WebhookService
from trunkline.embedded.postgres import Postgres
from trunkline.store.audit import By
from trunkline.store.migrate import upgrade
from trunkline.store.pool import Pool, open_pool
from trunkline.store.webhooks import insert_webhook
from trunkline.store.writer import CallWriter
from verdict import Promises, headline

P99_LIMIT_S = 2.0  # promise 8
HEALTHY = 3
_SICK = {"hang": 8, "slow": 8, "refuse": 4}  # never answer; answer 500 after 5 s; nobody listens
_SLOW_S = 5.0
_UNTIL_S = 30.0  # for the last to come
_HERE = Destinations(allow_http=True, networks=(ip_network("127.0.0.0/8"),))


async def receive() -> None:
    """In a process of its own: be the receivers, say where, and at the end what came when."""
    came: list[tuple[str, str, float]] = []

    async def well(request: web.Request) -> web.Response:
        now = time.perf_counter()
        body = json.loads(await request.read())
        came.append((request.path, body["data"]["data"]["call"]["externalId"], now))
        return web.Response(status=204)

    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(_SLOW_S)
        return web.Response(status=500)

    app = web.Application()
    app.router.add_post("/well/{n}", well)
    app.router.add_post("/hang/{n}", hang)
    app.router.add_post("/slow/{n}", slow)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)  # type: ignore[union-attr]
    loop = asyncio.get_running_loop()
    while (line := await loop.run_in_executor(None, sys.stdin.readline)).strip():
        wanted, end = int(line), time.perf_counter() + _UNTIL_S
        while len(came) < wanted and time.perf_counter() < end:
            await asyncio.sleep(0.05)
        print(json.dumps(came), flush=True)
        came.clear()
    await runner.cleanup()


def ringing(name: str) -> CallUpdate:
    """A call that begins to ring: one event."""
    record = CallRecord(
        pbx="pbx1", external_id=name, channel_id=name, direction=Direction.INBOUND, status=Status.RINGING,
        from_="02079460001", to="02079460000", phone_number="02079460001", started_at=datetime.now(UTC), rang=["1001"],
    )  # fmt: skip
    return CallUpdate(record, ("call.ringing",))


class Receivers:
    """The process with the receivers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--receive"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def came(self, count: int) -> list[tuple[str, str, float]]:
        """What came where and when, once that is so much."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        found: list[tuple[str, str, float]] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


async def run(pool: Pool, receivers: Receivers, what: str, seconds: float, rate: float) -> list[float]:
    """Write events at that rate; p50, p99, the longest to a healthy receiver in seconds, and how many are missing."""
    writer, sent = CallWriter(pool, "main"), {}
    began = time.perf_counter()
    for n in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        name = f"{what}-{n}"
        await writer.write([ringing(name)])
        sent[name] = time.perf_counter()  # it is committed
    came = await asyncio.to_thread(receivers.came, HEALTHY * len(sent))
    took = sorted(max(0.0, at - sent[name]) for _, name, at in came if name in sent)
    missing = HEALTHY * len(sent) - len({(path, name) for path, name, _ in came})
    p50, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
    print(
        f"{what}: {len(took)} requests at {HEALTHY} healthy receivers, {rate:g} events/s:"
        f" p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, longest {took[-1] * 1000:.0f} ms, missing {missing}"
    )
    return [p50, p99, took[-1], missing]


async def bench(url: str, seconds: float, rate: float) -> int:
    receivers = Receivers()
    async with await open_pool(url) as pool:
        account_id: UUID = await pool.fetchval("INSERT INTO account (name) VALUES ('main') RETURNING id")

        async def add(path: str, port: int) -> None:
            where = f"http://127.0.0.1:{port}/{path}"
            made: Any = await insert_webhook(
                pool, account_id, By("bench"), where, "", "STANDARD", ["call.ringing"], new_secret()
            )
            assert made is not None

        for n in range(HEALTHY):
            await add(f"well/{n}", receivers.port)
        service = await WebhookService.open(url, Sending(_HERE))
        running = asyncio.create_task(service.run())
        await run(pool, receivers, "warm", 1, rate)
        alone = await run(pool, receivers, "alone", seconds, rate)
        with socket.socket() as nobody:  # bound, so that nobody else takes the port, and not listening
            nobody.bind(("127.0.0.1", 0))
            for kind, count in _SICK.items():
                for n in range(count):
                    await add(f"{kind}/{n}", nobody.getsockname()[1] if kind == "refuse" else receivers.port)
            among = await run(pool, receivers, "among the sick", seconds, rate)
        outcomes = dict(service.deliverer.outcomes)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        service.cut()
    receivers.close()
    print(f"tries by outcome: {outcomes}; the sick: {sum(_SICK.values())} of {sum(_SICK.values()) + HEALTHY} webhooks")
    promises = Promises()
    assert outcomes.get("retried", 0) > 0, "the sick were not sick"
    promises.tell(
        f"a dead receiver slows no healthy one: event → request p99 ≤ {P99_LIMIT_S:g} s",
        f"p99 {among[1] * 1000:.0f} ms among {sum(_SICK.values())} sick ones, {alone[1] * 1000:.0f} ms without",
        kept=among[1] <= P99_LIMIT_S and not among[3],
    )
    return promises.status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=10.0, help="events a second")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        uvloop.run(receive())
        return 0
    headline("webhooks: event → request at a healthy receiver, alone and among sick ones")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # that they are sick is known
    with Postgres() as server:
        url = server.create_database("bench")
        upgrade(url)
        return uvloop.run(bench(url, arguments.seconds, arguments.rate))


if __name__ == "__main__":
    sys.exit(main())
