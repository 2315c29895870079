"""A flood over a socket: link, guard and tracker beside the codec alone, and beside panoramisk reading the same flood.

    .venv/bin/python bench/link.py [--rounds 3] [--times 20]

A process of its own plays Asterisk and writes the captures as fast as it can. Rates are by the CPU time of the reader,
which other work on the machine disturbs little; the wall clock's are in brackets (reader and writer share the cores).
Left out for all are captures that panoramisk does not survive (forged events end its reading, Shutdown its connection)
and those with answers to somebody else's list actions.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog
import trio
from panoramisk import Manager
from panoramisk.message import Message

from streams import SYSTEMNAME, afresh, captures
from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.dial import Address, LinkSettings
from trunkline.asterisk.event import Event
from trunkline.asterisk.guard import Guard
from trunkline.asterisk.link import Hello, Link
from trunkline.asterisk.lists import Snapshot
from trunkline.asterisk.session import Credentials
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.tracker import Tracker
from verdict import Promises, headline

SENTINEL = (
    b"Event: UserEvent\r\nPrivilege: user,all\r\nTimestamp: 1795347145.000000\r\n"
    b"SystemName: pbx1\r\nUserEvent: BenchEnd\r\n\r\n"
)
LISTS = {
    "CoreShowChannels": ("Channels will follow", "CoreShowChannelsComplete"),
    "Status": ("Channel status will follow", "StatusComplete"),
    "BridgeList": ("Bridge listing will follow", "BridgeListComplete"),
    "QueueStatus": ("Queue status will follow", "QueueStatusComplete"),
    "ParkedCalls": ("Parked calls will follow", "ParkedCallsComplete"),
}


def pieces_of(times: int) -> list[bytes]:
    """The flood, in pieces between which an answer may stand."""
    ordinary = [
        data for data in captures("[!q]*") if b"Event: Shutdown\r\n" not in data and b"EventList: start\r\n" not in data
    ]
    return [afresh(data, time_over) for time_over in range(times) for data in ordinary]


def answer(action: dict[str, str]) -> bytes:
    """As much of an AMI as a login and a resync need; any secret is right."""
    mine, name = f"ActionID: {action.get('ActionID', '')}", action.get("Action", "")
    more = {
        "Challenge": "Challenge: 1\r\n",
        "Login": "Message: Authentication accepted\r\n",
        "CoreSettings": f"AsteriskVersion: 22.10.1\r\nSystemName: {SYSTEMNAME}\r\n",
        "CoreStatus": "CoreStartupDate: 2026-11-22\r\nCoreStartupTime: 14:40:18\r\n",
        "Ping": f"Ping: Pong\r\nTimestamp: {time.time():.6f}\r\n",
    }
    if name in LISTS:
        message, complete = LISTS[name]
        text = f"Response: Success\r\n{mine}\r\nEventList: start\r\nMessage: {message}\r\n\r\n"
        return f"{text}Event: {complete}\r\n{mine}\r\nEventList: Complete\r\nListItems: 0\r\n\r\n".encode()
    booted = "Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 9\r\nStatus: Fully Booted\r\n\r\n"
    return f"Response: Success\r\n{mine}\r\n{more.get(name, '')}\r\n{booted if name == 'Login' else ''}".encode()


def flood(times: int) -> None:
    """The other process: the flood begins when ParkedCalls, the last list, was answered."""
    pieces = pieces_of(times)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, pieces), daemon=True).start()


def _serve(client: socket.socket, pieces: list[bytes]) -> None:
    turn = threading.Lock()  # answers stand between two captures, never inside one

    def pour() -> None:
        try:
            for piece in pieces:
                with turn:
                    client.sendall(piece)
            with turn:
                client.sendall(SENTINEL)
        except OSError:
            pass

    heard, begun = b"", False
    client.sendall(b"Asterisk Call Manager/11.0.0\r\n")
    with client:
        while data := _heard(client):
            heard += data
            *blocks, heard = heard.split(b"\r\n\r\n")
            for block in blocks:
                action = dict(line.split(": ", 1) for line in block.decode().split("\r\n") if ": " in line)
                with turn:
                    client.sendall(answer(action))
                if action.get("Action") == "ParkedCalls" and not begun:
                    begun = True
                    threading.Thread(target=pour, daemon=True).start()


def _heard(client: socket.socket) -> bytes:
    try:
        return client.recv(65536)
    except OSError:
        return b""


class Took(NamedTuple):
    """Seconds from the first event to the last."""

    cpu: float
    wall: float


class Following:
    """A tracker, fed by the link; tells when the flood is over."""

    def __init__(self) -> None:
        self.tracker = Tracker(SYSTEMNAME)
        self.ended = trio.Event()
        self.fed = 0

    def connected(self, hello: Hello) -> None:
        """Nothing to do for a PBX that is new."""

    def event(self, event: Event) -> None:
        if event.kind == "UserEvent":
            self._look(event)
        else:
            self.fed += 1
            self.tracker.handle(event)

    def resynced(self, snapshot: Snapshot, buffered: list[Event]) -> None:
        self.tracker.resync(snapshot, [event for event in buffered if event.kind != "UserEvent"])
        for event in buffered:
            if event.kind == "UserEvent":
                self._look(event)

    def _look(self, event: Event) -> None:
        if event.fields.get("UserEvent") == "BenchEnd":  # captures have UserEvents of their own
            self.ended.set()

    def disconnected(self, reason: str, at: float) -> None:
        if not self.ended.is_set() and reason != "shutdown":
            raise RuntimeError(f"the flood broke the link: {reason}")


async def trunkline(port: int) -> Took:
    following = Following()
    settings = LinkSettings("bench", Address("127.0.0.1", port), Credentials("bench", "bench"))
    link = Link(settings, following, wanted={**NEEDED, "UserEvent": None}, fields=FIELDS | {"UserEvent"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        cpu, wall = time.process_time(), time.perf_counter()
        await following.ended.wait()
        took = Took(time.process_time() - cpu, time.perf_counter() - wall)
        nursery.cancel_scope.cancel()
    return took


async def panoramisk(port: int) -> Took:
    ended = asyncio.Event()
    manager = Manager(host="127.0.0.1", port=port, username="bench", secret="bench")

    def look(_: Manager, message: Message) -> None:
        if message["UserEvent"] == "BenchEnd":
            ended.set()

    manager.register_event("UserEvent", look)
    await manager.connect()
    cpu, wall = time.process_time(), time.perf_counter()
    manager.send_action({"Action": "ParkedCalls"})
    await ended.wait()
    took = Took(time.process_time() - cpu, time.perf_counter() - wall)
    manager.close()
    return took


def codec(data: bytes) -> Took:
    decoder = Decoder(wanted=NEEDED, fields=FIELDS)
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, len(data), 1 << 18):
        decoder.feed(data[start : start + (1 << 18)])
    return Took(time.process_time() - cpu, time.perf_counter() - wall)


def tracked(data: bytes) -> Took:
    decoder, guard, tracker = Decoder(wanted=NEEDED, fields=FIELDS), Guard(SYSTEMNAME), Tracker(SYSTEMNAME)
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, len(data), 1 << 18):
        for frame in decoder.feed(data[start : start + (1 << 18)]):
            event = guard.check(frame, 0.0)
            if event is not None:
                tracker.handle(event)
    return Took(time.process_time() - cpu, time.perf_counter() - wall)


def main() -> int:
    """Print the figures; 1 where the link takes the flood at less than a third of the codec's own rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=20, help="how often the captures are sent in one flood")
    parser.add_argument("--flood", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.flood:
        flood(arguments.times)
        return 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # forged events are meant here
    corpus = b"".join(pieces_of(arguments.times))
    events = corpus.count(b"\r\n\r\n")
    headline(f"The link reads a flood of {events:,} AMI packets from a socket, beside panoramisk")
    words = [sys.executable, os.fspath(Path(__file__)), "--flood", "--times", str(arguments.times)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            port = int(writer.stdout.readline())
            runs: list[tuple[str, Callable[[], Took]]] = [
                ("codec alone, no socket", lambda: codec(corpus)),
                ("codec + guard + tracker, no socket", lambda: tracked(corpus)),
                ("the whole link + tracker", lambda: trio.run(trunkline, port)),
                ("panoramisk, one callback", lambda: asyncio.run(panoramisk(port))),
            ]
            took = [[run() for _, run in runs] for _ in range(arguments.rounds)]
        finally:
            writer.kill()
    size = len(corpus) / 1e6
    print(f"{events} AMI packets, {size:.0f} MB in one flood, median of {arguments.rounds} rounds in turn")
    rates = []
    for n, (name, _) in enumerate(runs):
        rates.append(events / statistics.median(row[n].cpu for row in took))
        wall = events / statistics.median(row[n].wall for row in took)
        print(f"{name:35} {rates[n]:10,.0f} events/s  ({wall:,.0f} by the wall clock)")
    alone, _, link, peer = rates
    print(f"link and tracker do {link / alone:.0%} of the codec alone and {link / peer:.1f} x panoramisk")
    promises = Promises()
    promises.tell("at least a third of the codec alone", f"{link / alone:.0%}", kept=link >= alone / 3)
    return promises.status


if __name__ == "__main__":
    raise SystemExit(main())
