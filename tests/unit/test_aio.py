"""The crossing between trio and the uvloop thread, with a real trio and a real uvloop on both sides."""

import asyncio
import gc
import threading

import pytest
import trio
import uvloop

from trunkline import aio
from trunkline.aio import AsyncioCancelled, AsyncioThreadDied, open_asyncio_thread


async def _where() -> tuple[str, type]:
    return threading.current_thread().name, type(asyncio.get_running_loop())


async def _add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def _fail(message: str) -> None:
    await asyncio.sleep(0)
    raise LookupError(message)


@pytest.mark.trio
async def test_runs_on_the_uvloop_thread_and_returns() -> None:
    async with open_asyncio_thread("loop-under-test") as thread:
        assert await thread.call(_where) == ("loop-under-test", uvloop.Loop)
        assert await thread.call(_add, 2, 3) == 5


@pytest.mark.trio
async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    answers: dict[int, int] = {}

    async def one(n: int) -> None:
        answers[n] = await thread.call(_add, n, n)

    async with open_asyncio_thread() as thread, trio.open_nursery() as nursery:
        for n in range(200):
            nursery.start_soon(one, n)
    assert answers == {n: 2 * n for n in range(200)}


@pytest.mark.trio
async def test_an_error_over_there_is_raised_here() -> None:
    async with open_asyncio_thread() as thread:
        with pytest.raises(LookupError, match="no such call"):
            await thread.call(_fail, "no such call")
        with pytest.raises(TypeError):
            await thread.call(_add, 1)  # type: ignore[call-arg,arg-type]
        assert await thread.call(_add, 1, 1) == 2


@pytest.mark.trio
async def test_cancelling_here_cancels_there_and_waits_for_its_cleanup() -> None:
    running = threading.Event()
    log: list[str] = []

    async def work() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # the cleanup takes time, and is waited for
            log.append("cleaned up")

    async with open_asyncio_thread() as thread:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(thread.call, work)
                await trio.to_thread.run_sync(running.wait)
                scope.cancel()
        assert scope.cancelled_caught
        assert log == ["cleaned up"]


@pytest.mark.trio
async def test_work_that_finishes_despite_a_cancel_keeps_its_result() -> None:
    running = threading.Event()

    async def commit() -> str:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "committed"
        return "never"

    results: list[str] = []

    async def caller() -> None:
        results.append(await thread.call(commit))

    async with open_asyncio_thread() as thread:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller)
                await trio.to_thread.run_sync(running.wait)
                scope.cancel()
    assert results == ["committed"]


@pytest.mark.trio
async def test_a_call_in_a_cancelled_scope_never_starts() -> None:
    started: list[bool] = []

    async def work() -> None:
        started.append(True)

    async with open_asyncio_thread() as thread:
        with trio.CancelScope() as scope:
            scope.cancel()
            await thread.call(work)
        assert scope.cancelled_caught
        await thread.call(_add, 0, 0)  # anything that was posted before has run by now
    assert started == []


@pytest.mark.trio
async def test_a_cancel_on_the_asyncio_side_is_an_error_not_a_trio_cancel() -> None:
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with open_asyncio_thread() as thread:
        with pytest.raises(AsyncioCancelled, match="cancels_itself"):
            await thread.call(cancels_itself)


@pytest.mark.trio
async def test_leftover_tasks_are_cancelled_when_it_closes() -> None:
    ended = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tasks: list[asyncio.Task[None]] = []

    async def leave_behind() -> None:
        tasks.append(asyncio.get_running_loop().create_task(forever()))
        await asyncio.sleep(0)

    async with open_asyncio_thread("leftovers") as thread:
        await thread.call(leave_behind)
        assert not ended.is_set()
    assert ended.is_set()
    assert "leftovers" not in {t.name for t in threading.enumerate()}
    with pytest.raises(AsyncioThreadDied):
        await thread.call(_add, 1, 1)


@pytest.mark.trio
async def test_a_task_that_refuses_to_end_is_named_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "SHUTDOWN_S", 0.2)
    release = threading.Event()
    tasks: list[asyncio.Task[None]] = []

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async def leave_behind() -> None:
        tasks.append(asyncio.get_running_loop().create_task(stubborn()))
        await asyncio.sleep(0)

    with pytest.raises(AsyncioThreadDied, match=r"within 0\.2 s"):
        async with open_asyncio_thread() as thread:
            await thread.call(leave_behind)
    release.set()
    thread._thread.join(10)
    assert not thread._thread.is_alive()


@pytest.mark.trio
async def test_a_thread_that_dies_cancels_the_body_and_is_an_error() -> None:
    async def kill_the_loop() -> None:
        asyncio.get_running_loop().call_soon(_raise_exit)
        await asyncio.Event().wait()

    def _raise_exit() -> None:
        raise SystemExit(3)

    seen: list[BaseException] = []

    async def caller() -> None:
        try:
            await thread.call(kill_the_loop)
        except (AsyncioThreadDied, AsyncioCancelled) as error:
            seen.append(error)

    with pytest.raises(AsyncioThreadDied, match="by itself") as raised:  # noqa: PT012  # the block's exit raises
        async with open_asyncio_thread() as thread, trio.open_nursery() as nursery:
            nursery.start_soon(caller)
            await trio.sleep_forever()
    assert isinstance(raised.value.__cause__, SystemExit)
    assert len(seen) == 1
    gc.collect()


@pytest.mark.trio
async def test_asyncio_can_tell_trio() -> None:
    told = trio.Event()
    where: list[str] = []

    def hear(word: str) -> None:
        where.append(f"{word} in {threading.current_thread().name}")
        told.set()

    async def work() -> None:
        thread.tell(hear, "heard")

    async with open_asyncio_thread() as thread:
        await thread.call(work)
        await told.wait()
    assert where == [f"heard in {threading.current_thread().name}"]


@pytest.mark.trio
async def test_something_can_be_done_later_over_there_unless_it_closes_before() -> None:
    done = trio.Event()
    late: list[str] = []
    async with open_asyncio_thread() as thread:
        thread.later(3600, lambda: late.append("an hour later"))
        thread.later(0.01, lambda: thread.tell(done.set))
        await done.wait()
    thread.later(0, lambda: late.append("after the end"))
    assert late == []
