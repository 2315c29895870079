"""The daemon as a whole: from the event on the wire to the event row in PostgreSQL, and a flood.

    .venv/bin/python bench/daemon.py [--seconds 20] [--rounds 40]

A scripted AMI in this process, `trunkline run` in one of its own, PostgreSQL in its own: all on this machine's cores.
The flood is set beside what the codec alone does with the same bytes, on one core, in the same run. Memory of the idle
daemon is bench/memory.py's.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from streams import SYSTEMNAME, afresh, captures
from trunkline.asterisk.codec import Decoder
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.embedded.postgres import Postgres
from trunkline.store.migrate import upgrade
from verdict import Promises, headline

RATE = 2_000  # events/s of the latency run
EVENTS_A_CALL = 86  # of a bridged call, as Asterisk sends it unfiltered (most of them are VarSets)
P99_LIMIT_MS = 100.0

_LISTS = {
    "CoreShowChannels": "CoreShowChannelsComplete",
    "Status": "StatusComplete",
    "BridgeList": "BridgeListComplete",
    "QueueStatus": "QueueStatusComplete",
    "ParkedCalls": "ParkedCallsComplete",
}


class Ami:
    """An AMI that lets anybody in and says what it is told to."""

    def __init__(self) -> None:
        self.port = 0
        self.followed = asyncio.Event()  # all lists were asked
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._session, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)
        await self._writer.drain()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        writer.write(b"Asterisk Call Manager/11.0.0\r\n")
        try:
            while True:
                block = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in block.strip().split("\r\n"))
                writer.write(self._answer(fields["Action"], f"ActionID: {fields['ActionID']}\r\n").encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, action: str, mine: str) -> str:
        ok = f"Response: Success\r\n{mine}"
        if action == "Challenge":
            return f"{ok}Challenge: 1\r\n\r\n"
        if action == "Login":
            return f"{ok}\r\nEvent: FullyBooted\r\nPrivilege: system,all\r\nUptime: 9\r\nStatus: Fully Booted\r\n\r\n"
        if action == "CoreSettings":
            return f"{ok}AsteriskVersion: 22.10.1\r\nSystemName: {SYSTEMNAME}\r\n\r\n"
        if action == "Ping":
            return f"{ok}Ping: Pong\r\nTimestamp: {time.time():.6f}\r\n\r\n"
        if action in _LISTS:
            if action == "ParkedCalls":
                self.followed.set()
            return f"{ok}EventList: start\r\n\r\nEvent: {_LISTS[action]}\r\n{mine}ListItems: 0\r\n\r\n"
        return f"{ok}\r\n"


def packet(kind: str, *lines: str) -> bytes:
    head = f"Event: {kind}\r\nPrivilege: call,all\r\nTimestamp: {time.time():.6f}\r\nSystemName: {SYSTEMNAME}\r\n"
    return (head + "\r\n".join(lines) + "\r\n\r\n").encode()


def call(number: int) -> tuple[str, list[bytes]]:
    """One call of EVENTS_A_CALL events: it rings, and hangs up."""
    uniqueid = f"{SYSTEMNAME}-{int(time.time())}.{number}"
    channel = [
        f"Channel: PJSIP/trunk-{number:08x}", "ChannelState: 4", "ChannelStateDesc: Ring",
        f"CallerIDNum: 4477009{number % 100_000:05d}", "CallerIDName: Jane Doe", "ConnectedLineNum: <unknown>",
        "ConnectedLineName: <unknown>", "Language: en", "AccountCode: ", "Context: from-trunk", "Exten: 442079460001",
        "Priority: 1", f"Uniqueid: {uniqueid}", f"Linkedid: {uniqueid}",
    ]  # fmt: skip
    varset = packet("VarSet", *channel, "Variable: SIPDOMAIN", "Value: 127.0.0.1")
    hangup = packet("Hangup", *channel, "Cause: 16", "Cause-txt: Normal Clearing")
    return uniqueid, [packet("Newchannel", *channel), *[varset] * (EVENTS_A_CALL - 2), hangup]


@asynccontextmanager
async def daemon(
    directory: Path, url: str, *, pbx: str = "", more: str = "", port: int = 0
) -> AsyncIterator[tuple[Ami, int]]:
    """A daemon that follows a scripted AMI, and its process id.

    pbx: keys of [[pbx]]; more: sections; port: HTTP's, 0 for any.
    """
    ami = Ami()
    async with await ami.serve():
        settings = directory / "trunkline.toml"
        settings.write_text(
            f'[database]\nurl = "{url}"\n[[pbx]]\nhost = "127.0.0.1"\nport = {ami.port}\nsecret = "x"\nregion = "GB"\n'
            f'{pbx}[http]\nport = {port}\n[log]\nlevel = "warning"\n{more}'
        )
        process = subprocess.Popen([sys.executable, "-m", "trunkline", "run", "--config", str(settings)])
        try:
            await asyncio.wait_for(ami.followed.wait(), 30)
            yield ami, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            await asyncio.sleep(0.1)  # the AMI's session sees that it has ended


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def latency(ami: Ami, connection: Any, seconds: float, *, number: int = 0) -> list[float]:
    """Milliseconds from an event's write to the wire until its event row could be read, at RATE events a second."""
    sent: dict[tuple[str, str], float] = {}
    took: list[float] = []
    news = asyncio.Event()

    def notified(*_: object) -> None:
        news.set()

    await connection.add_listener("trunkline_event", notified)
    last = await connection.fetchval("SELECT coalesce(max(seq), 0) FROM event")

    async def read() -> None:
        nonlocal last
        while True:
            await news.wait()
            news.clear()
            rows = await connection.fetch(
                "SELECT seq, type, data->'call'->>'externalId' AS id FROM event WHERE seq > $1 ORDER BY seq", last
            )
            now = time.perf_counter()
            for row in rows:
                last = row["seq"]
                if (at := sent.pop((row["id"], row["type"]), None)) is not None:
                    took.append((now - at) * 1000)

    reading = asyncio.create_task(read())
    expected = await pace(ami, seconds, sent, number)
    deadline = time.perf_counter() + 10
    while len(took) < expected and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.wait([reading])
    await connection.remove_listener("trunkline_event", notified)
    if len(took) < expected:
        raise SystemExit(f"{expected - len(took)} of {expected} events never became rows")
    return took


async def pace(ami: Ami, seconds: float, sent: dict[tuple[str, str], float], number: int = 0) -> int:
    """RATE events a second; `sent` tells when those were sent that make event rows. Returns how many of these."""
    live: list[list[tuple[str, bytes]]] = []
    began = time.perf_counter()
    expected = 0
    step_s = 0.01
    due = 0.0
    while (elapsed := time.perf_counter() - began) < seconds:
        due += step_s
        quota = int(RATE * step_s)
        out = b""
        while quota > 0:
            if not live:
                for _ in range(10):  # ten calls go on at once
                    number += 1
                    uniqueid, packets = call(number)
                    live.append([(uniqueid, p) for p in packets])
            line = live.pop(0)
            uniqueid, data = line.pop(0)
            out += data
            if data.startswith(b"Event: Newchannel"):
                sent[uniqueid, "call.ringing"] = time.perf_counter()
                expected += 1
            elif not line:
                sent[uniqueid, "call.ended"] = time.perf_counter()
                expected += 1
            if line:
                live.append(line)
            quota -= 1
        await ami.send(out)
        if due > elapsed:
            await asyncio.sleep(due - elapsed)
    return expected


def flood_bytes(rounds: int) -> list[bytes]:
    """The captures of one PBX, `rounds` times over, each time other calls."""
    ordinary = [data for data in captures() if b"Uniqueid: forged" not in data]
    return [afresh(data, 1 + time_over) for time_over in range(rounds) for data in ordinary]


async def flood(ami: Ami, connection: Any, streams: list[bytes]) -> tuple[float, int]:
    """Seconds from the first byte sent until the last row was committed, and how many calls that were."""
    marker, packets = call(9_999_999)
    before = await connection.fetchval("SELECT count(*) FROM call")
    began = time.perf_counter()
    for data in streams:
        await ami.send(data)
    await ami.send(packets[0] + packets[-1])
    while not await connection.fetchval("SELECT ended_at IS NOT NULL FROM call WHERE external_id = $1", marker):
        await asyncio.sleep(0.02)
    return time.perf_counter() - began, await connection.fetchval("SELECT count(*) FROM call") - before


def codec_alone(streams: list[bytes]) -> float:
    """Seconds that the codec alone takes for the same bytes."""
    decoder = Decoder(wanted=NEEDED, fields=FIELDS)
    began = time.perf_counter()
    for data in streams:
        for start in range(0, len(data), 65536):
            decoder.feed(data[start : start + 65536])
    return time.perf_counter() - began


async def measure(url: str, directory: Path, seconds: float, rounds: int) -> int:
    streams = flood_bytes(rounds)
    events = sum(data.count(b"\r\n\r\n") for data in streams)
    connection = await asyncpg.connect(url)
    headline("The daemon as a whole, beside the PBX that feeds it and its PostgreSQL")
    promises = Promises()
    async with daemon(directory, url) as (ami, pid):
        first = await latency(ami, connection, 0.2, number=1_000_000)  # opens connections and prepares statements
        print(f"the first calls after the start      max {max(first):6.1f} ms")
        took = sorted(await latency(ami, connection, seconds))
        p99 = took[int(len(took) * 0.99)]
        print(
            f"wire to event row, {RATE} events/s    p50 {statistics.median(took):6.1f} ms, p99 {p99:6.1f} ms, "
            f"max {took[-1]:6.1f} ms, {len(took)} rows"
        )
        promises.tell(
            f"wire to event row within {P99_LIMIT_MS:g} ms in 99 of 100", f"p99 {p99:.1f} ms", kept=p99 <= P99_LIMIT_MS
        )
        flood_s, calls = await flood(ami, connection, streams)
        print(
            f"flood over a socket                  {events / flood_s:10,.0f} events/s into {calls} committed calls; "
            f"RSS after {rss_mb(pid):.1f} MB"
        )
    alone_s = codec_alone(streams)
    share = alone_s / flood_s
    print(f"the codec alone, the same bytes      {events / alone_s:10,.0f} events/s; the flood does {share:.0%} of it")
    await connection.close()
    promises.tell(
        "a flood becomes rows at 100,000 events/s or at 60% of the codec alone",
        f"{events / flood_s:,.0f} events/s, {share:.0%}", kept=events / flood_s >= 100_000 or share >= 0.6,
    )  # fmt: skip
    return promises.status


def main() -> int:
    """Print the figures; 1 where one is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of the latency run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="of all captures in the flood (default: %(default)s)")
    arguments = parser.parse_args()
    with Postgres(durable=False) as server, tempfile.TemporaryDirectory() as directory:
        url = server.create_database("bench")
        upgrade(url)
        return asyncio.run(measure(url, Path(directory), arguments.seconds, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
