"""Who may pass the breaker while the storage is away, comes back, and goes away again."""

import asyncio

import pytest
from house import House
from structlog.testing import capture_logs

from trunkline.embedded.s3 import S3Server
from trunkline.objects.faults import StoreFault
from trunkline.objects.s3 import ObjectStore
from trunkline.recordings.breaker import Breaker

pytestmark = pytest.mark.asyncio


class _Job:
    """Something that is at the storage from `there` until `leave`."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self.there, self._leave = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def leave(self) -> None:
        self._leave.set()
        await self._task

    async def _run(self) -> None:
        async with self._breaker:
            self.there.set()
            await self._leave.wait()


async def test_a_trial_that_ends_after_the_doubt_does_not_keep_all_others_out(house: House) -> None:
    """One that was at the storage before the fault may be the first to say that it works."""
    breaker = Breaker(house.store, first_wait_s=0.01)
    older = _Job(breaker)
    await older.there.wait()
    breaker.trip(StoreFault("it was away"))
    trial = _Job(breaker)
    await trial.there.wait()
    await older.leave()
    await trial.leave()
    breaker.trip(StoreFault("it was away again"))
    last = _Job(breaker)
    async with asyncio.timeout(20):
        await last.there.wait()
    await last.leave()


class _Stumbles(ObjectStore):
    """A store that is asked with a bug in the way, twice."""

    stumbles = 2

    def check(self) -> None:
        if self.stumbles:
            self.stumbles -= 1
            raise LookupError("a bug")
        super().check()


async def test_a_question_that_fails_in_another_way_is_asked_again(house: House, s3: S3Server) -> None:
    store = _Stumbles(s3.endpoint, "recordings", s3.access_key, s3.secret_key)
    breaker = Breaker(store, first_wait_s=0.01)
    with capture_logs() as logs:
        breaker.trip(StoreFault("it was away"))
        job = _Job(breaker)
        async with asyncio.timeout(20):
            await job.there.wait()
    await job.leave()
    store.close()
    assert (breaker.probes, breaker.fault) == (3, None)
    assert [line["event"] for line in logs].count("recordings.probe_failed") == 1
