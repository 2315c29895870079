"""The event loop stays free: files are listed, hashed and sent in threads."""

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from house import House
from sounds import wav

from trunkline.garbage import settle

pytestmark = pytest.mark.asyncio

TICK_S = 0.005


class _Ticker:
    """Ticks every 5 ms. `late_s` is the most that a tick was late, `own_s` the most that the loop worked at once.

    The difference is what others took: threads that hold the interpreter, other processes.
    """

    def __init__(self) -> None:
        self.late_s = self.own_s = 0.0
        self.ticks = 0

    async def run(self) -> None:
        last, last_own = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(TICK_S)
            now, own = time.perf_counter(), time.thread_time()
            self.late_s = max(self.late_s, now - last - TICK_S)
            self.own_s = max(self.own_s, own - last_own)
            self.ticks += 1
            last, last_own = now, own

    def read(self) -> tuple[float, float]:
        """(late_s, own_s) since the last read."""
        result = self.late_s, self.own_s
        self.late_s = self.own_s = 0.0
        return result


@pytest.fixture
def collector() -> Iterator[None]:
    """Python's collector as the daemon has it, not with all of pytest to look through; and back."""
    thresholds = gc.get_threshold()
    settle()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def test_no_sweep_and_no_upload_blocks_the_loop(house: House, collector: None) -> None:
    at = time.time() - 60
    for n in range(10_000):
        file = os.open(house.spool / f"in-442071234567-15551234567-{n}-17638{n:05}.{n}.wav", os.O_CREAT | os.O_WRONLY)
        os.utime(file, (at, at))
        os.close(file)
    noise = os.urandom(1 << 20)
    for n in range(8):
        await house.call(str(house.write(f"long-{n}.wav", wav(noise * 4))))
    ticker = _Ticker()
    ticking = asyncio.create_task(ticker.run())
    gaps = {}
    await house.until("it ticks", lambda: ticker.ticks > 5)
    ticker.read()
    await house.sweeper.sweep()
    gaps["first sweep"] = ticker.read()
    async with house.running():
        await asyncio.gather(
            house.sweeper.sweep(), house.until("all are stored", lambda: house.uploader.stored == 8, 60)
        )
    gaps["sweep and 8 uploads of 4 MiB"] = ticker.read()
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    for name, (late, own) in gaps.items():
        print(f"{name}: late {late * 1000:.0f} ms, own {own * 1000:.0f} ms; {ticker.ticks} ticks")  # noqa: T201
    assert house.uploader.stored == 8
    assert house.sweeper.files >= 10_000
    assert ticker.ticks > 100
    assert max(own for _, own in gaps.values()) < 0.05
    assert max(late for late, _ in gaps.values()) < 0.5  # on a machine that has other things to do
