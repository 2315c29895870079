"""Memory: of each live call, whether it grows with the calls that were, and of the idle daemon.

    .venv/bin/python bench/memory.py

Promises: a live call takes at most 20 kB, from 10,000 calls on to 100,000 nothing grows by more than 1 MB, and the idle
daemon takes at most 80 MB, whether it stores recordings or not. Calls ring, are answered and hang up; what has changed
is taken as the daemon takes it, and garbage goes when it goes there. The daemon is `trunkline run` in a process of its
own, with a real PostgreSQL and a real S3; what it takes after a recording was stored is told beside.
"""

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import tracemalloc
import wave
from pathlib import Path
from typing import NamedTuple

from daemon import call, daemon, rss_mb
from trunkline.asterisk.event import Event
from trunkline.calls.tracker import Tracker
from trunkline.embedded.postgres import Postgres
from trunkline.embedded.s3 import S3Server
from trunkline.garbage import settle
from trunkline.store.migrate import upgrade
from verdict import Promises, headline

LIVE_LIMIT_KB = 20.0
GROWTH_LIMIT_MB = 1.0
RSS_LIMIT_MB = 80.0
IDLE_S = 3.0  # after the PBX was asked all: the first sweep is done as well
STORED_WITHIN_S = 60.0
CUSTOMERS = 5_000  # who call again and again
MANY_LIVE = 5_000  # of which the memory of one is found
LIVE = 500  # at any time, while many come and go
BATCH = 20  # calls that come between two looks at what has changed
STEP_S = 0.02  # between two events
MARKS = (10_000, 50_000, 100_000)


class Pbx:
    """Says what an Asterisk would of bridged calls, in the fields that the tracker reads."""

    def __init__(self) -> None:
        self.tracker = Tracker("pbx1", region="GB")
        self.at = 1_795_000_000.0

    def say(self, kind: str, *parts: dict[str, str], **fields: str) -> None:
        """Feed one event."""
        self.at += STEP_S
        merged = {key: value for part in parts for key, value in part.items()}
        self.tracker.handle(Event(kind, self.at, merged | fields))

    def ring(self, number: int) -> None:
        """A customer calls, and an agent's phone rings."""
        caller, agent = self.channels(number)
        self.say("Newchannel", caller)
        self.say("Newchannel", agent)
        self.say("DialBegin", caller, {f"Dest{key}": value for key, value in agent.items()}, DialString="1001")

    def answer(self, number: int) -> None:
        """The agent answers; both are bridged."""
        caller, agent = self.channels(number)
        self.say("Newstate", agent | {"ChannelState": "6"})
        self.say("DialEnd", caller, {f"Dest{key}": value for key, value in agent.items()}, DialStatus="ANSWER")
        for place, channel in enumerate((agent, caller), 1):
            self.say("BridgeEnter", channel, BridgeUniqueid=f"b-{number}", BridgeNumChannels=str(place))

    def hang_up(self, number: int) -> None:
        """The customer hangs up."""
        caller, agent = self.channels(number)
        self.say("HangupRequest", caller)
        for place, channel in enumerate((caller, agent)):
            self.say("BridgeLeave", channel, BridgeUniqueid=f"b-{number}", BridgeNumChannels=str(1 - place))
            self.say("Hangup", channel, Cause="16")

    def channels(self, number: int) -> tuple[dict[str, str], dict[str, str]]:
        """The customer's and the agent's; no string is shared with another event, as when they are decoded."""
        linkedid = f"pbx1-1795000000.{2 * number}"
        customer, extension = f"4420{number % CUSTOMERS:08d}", str(1001 + number % 50)
        caller = {
            "Channel": f"PJSIP/trunk-{number:08x}", "ChannelState": "4", "CallerIDNum": customer,
            "CallerIDName": f"Customer {number}", "Exten": "442079460001", "Uniqueid": linkedid, "Linkedid": linkedid,
        }  # fmt: skip
        agent = {
            "Channel": f"PJSIP/{extension}-{number:08x}", "ChannelState": "0", "CallerIDNum": extension,
            "CallerIDName": "", "Exten": "s", "Uniqueid": f"pbx1-1795000000.{2 * number + 1}", "Linkedid": linkedid,
        }  # fmt: skip
        return caller, agent


class Memory(NamedTuple):
    """What is in use."""

    rss_mb: float
    blocks: int  # small objects: exact, and free of charge, where tracemalloc would take four times as long


def memory() -> Memory:
    """What is in use as it is: whoever collects garbage here does not see what waits for the collector."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Memory(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, sys.getallocatedblocks())


def live_call_kb(live: int) -> float:
    """Traced memory of each of so many live, answered calls."""
    pbx = Pbx()
    follow(pbx, range(LIVE), live=LIVE // 2)  # caches and tables that are there once
    began = pbx.tracker.live
    tracemalloc.start()
    for number in range(LIVE, LIVE + live):
        pbx.ring(number)
        pbx.answer(number)
        if number % BATCH == 0:
            pbx.tracker.take()
    pbx.tracker.take()
    if pbx.tracker.live - began != live:
        raise RuntimeError(f"{pbx.tracker.live - began} calls are live, not {live}: the feed is wrong")
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return traced / 1000 / live


def follow(pbx: Pbx, numbers: range, live: int = LIVE) -> None:
    """Calls come one after another, and each goes when `live` others have come since."""
    for number in numbers:
        pbx.ring(number)
        if number >= live // 10:
            pbx.answer(number - live // 10)
        if number >= live:
            pbx.hang_up(number - live)
        if number % BATCH == 0:
            pbx.tracker.take()


def after() -> dict[int, Memory]:
    """Memory after each of MARKS, in one tracker."""
    pbx, found, begin = Pbx(), {}, 0
    for mark in MARKS:
        follow(pbx, range(begin, mark))
        begin, found[mark] = mark, memory()
        print(
            f"after {mark:7,} calls   {found[mark].rss_mb:8.2f} MB RSS  {found[mark].blocks:10,} small objects",
            flush=True,
        )
        if pbx.tracker.live != LIVE:
            raise RuntimeError(f"{pbx.tracker.live} calls are live, not {LIVE}: the feed is wrong")
    return found


async def idle_daemon(url: str, directory: Path) -> float:
    """MB of a daemon that follows a PBX on which nothing happens."""
    async with daemon(directory, url) as (_, pid):
        await asyncio.sleep(IDLE_S)
        return rss_mb(pid)


async def idle_storing_daemon(url: str, directory: Path, s3: S3Server) -> tuple[float, float]:
    """MB of one that stores recordings: before it has stored any, and after the first."""
    spool = directory / "monitor"
    spool.mkdir()
    keys = f'access_key = "{s3.access_key}"\nsecret_key = "{s3.secret_key}"\n'
    more = f'[recordings]\nendpoint = "{s3.endpoint}"\nbucket = "bench"\nsweep_s = 1\n{keys}'
    async with daemon(directory, url, pbx=f'recordings = "{spool}"\n', more=more) as (ami, pid):
        await asyncio.sleep(IDLE_S)
        before = rss_mb(pid)
        uniqueid, packets = call(1)
        with wave.open(str(spool / f"call-{uniqueid}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(range(256)) * 625)  # 10 s
        await ami.send(b"".join(packets))
        async with asyncio.timeout(STORED_WITHIN_S):  # the sweeper leaves a new file alone for 10 s
            while any(spool.iterdir()):
                await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        return before, rss_mb(pid)


def tell_idle(promises: Promises) -> None:
    """Measure the idle daemon both ways."""
    with Postgres(durable=False) as server, S3Server() as s3, tempfile.TemporaryDirectory() as folder:
        s3.create_bucket("bench")
        urls = {name: server.create_database(name) for name in ("plain", "storing")}
        for name, url in urls.items():
            upgrade(url)
            (Path(folder) / name).mkdir()
        plain = asyncio.run(idle_daemon(urls["plain"], Path(folder) / "plain"))
        promises.tell(
            f"the idle daemon takes at most {RSS_LIMIT_MB:g} MB", f"{plain:.1f} MB RSS", kept=plain <= RSS_LIMIT_MB
        )
        before, after = asyncio.run(idle_storing_daemon(urls["storing"], Path(folder) / "storing", s3))
        promises.tell(
            f"the idle daemon with [recordings] takes at most {RSS_LIMIT_MB:g} MB",
            f"{before:.1f} MB RSS", kept=before <= RSS_LIMIT_MB,
        )  # fmt: skip
        print(f"once it has stored a recording, with the S3 client that it loads for it: {after:.1f} MB RSS")


def main() -> int:
    """Print the figures; 1 where a promise is broken."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    headline(f"Memory: of a live call, after many that have ended, {LIVE} live at any time, and of the idle daemon")
    promises = Promises()
    settle()
    found = after()
    first, last = found[MARKS[0]], found[MARKS[-1]]
    grown_mb = last.rss_mb - first.rss_mb
    promises.tell(
        f"from {MARKS[0]:,} calls to {MARKS[-1]:,} it grows by at most {GROWTH_LIMIT_MB:g} MB",
        f"RSS by {grown_mb:.2f} MB, small objects by {last.blocks - first.blocks:,}", kept=grown_mb <= GROWTH_LIMIT_MB,
    )  # fmt: skip
    each_kb = live_call_kb(MANY_LIVE)
    promises.tell(
        f"a live call takes at most {LIVE_LIMIT_KB:g} kB", f"{each_kb:.2f} kB, of {MANY_LIVE:,} live ones",
        kept=each_kb <= LIVE_LIMIT_KB,
    )  # fmt: skip
    tell_idle(promises)
    return promises.status


if __name__ == "__main__":
    sys.exit(main())
