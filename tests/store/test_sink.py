"""The sink: PostgreSQL away, in every way it can be, costs nothing but time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from calls import answered, ringing

from trunkline.store.pool import Pool
from trunkline.store.sink import CallSink
from trunkline.store.spool import Spool
from trunkline.store.writer import CallWriter


@pytest_asyncio.fixture
async def sink(writer: CallWriter, tmp_path: Path) -> AsyncIterator[CallSink]:
    sink = CallSink(writer, Spool(tmp_path), first_wait_s=0.01)
    yield sink
    await sink.close()


@pytest.mark.asyncio
async def test_updates_are_rows_when_write_returns(sink: CallSink, pool: Pool) -> None:
    await sink.write([ringing("a"), ringing("b")])
    await sink.write([answered("a")])
    assert sink.depth == 0
    assert await pool.fetchval("SELECT count(*) FROM call") == 2
    live = await sink.live("pbx1")
    assert [(r.external_id, r.revision, len(r.legs)) for r in live] == [("a", 2, 2), ("b", 1, 1)]
