"""What a real Asterisk did, through tracker and writer: the rows are the tracker's Calls, field by field."""

from pathlib import Path

import msgspec
import pytest
from calls import stored

from trunkline.asterisk.event import Event
from trunkline.calls.record import CallRecord, CallUpdate
from trunkline.replay import Replay, sessions_of, systemname_of
from trunkline.store.pool import Pool
from trunkline.store.writer import CallWriter

CAPTURES = Path(__file__).parents[1] / "replay" / "captures"
EVENTS_A_BATCH = 15
OF_THE_STORE = dict.fromkeys(
    ("id", "account_id", "integration_id", "lead_id", "conversation_id", "recording_id", "created_at")
)


def batches_of(capture: Path) -> list[list[CallUpdate]]:
    """What the daemon would take from the tracker, every few events."""
    sessions = sessions_of(capture)
    run = Replay(["PJSIP/trunk*"], "GB", next(filter(None, map(systemname_of, sessions)), None))
    batches: list[list[CallUpdate]] = []
    handle, seen = run.tracker.handle, 0

    def handle_and_take(event: Event) -> None:
        nonlocal seen
        handle(event)
        seen += 1
        if seen % EVENTS_A_BATCH == 0:
            batches.append(run.tracker.take())

    run.tracker.handle = handle_and_take
    for session in sessions:
        run.session(session)
    return [*batches, run.tracker.take()]


def test_the_captures_are_there() -> None:
    assert len(list(CAPTURES.iterdir())) >= 40


@pytest.mark.asyncio
async def test_rows_are_the_trackers_calls(writer: CallWriter, pool: Pool) -> None:
    calls = 0
    for capture in sorted(CAPTURES.iterdir()):
        latest: dict[str, CallRecord] = {}
        told: list[tuple[str, str]] = []
        for batch in batches_of(capture):
            result = await writer.write(batch)
            assert result.refused == (), capture.name
            for update in batch:
                latest[update.record.external_id] = update.record
                told += [(update.record.external_id, kind) for kind in update.happened if kind != "call.merged"]
        await writer.write([CallUpdate(record) for record in latest.values()])
        folded = {alias for record in latest.values() for alias in record.aliases}
        for external_id, record in latest.items():
            if external_id in folded:
                assert not await pool.fetchval("SELECT count(*) FROM call WHERE external_id = $1", external_id)
                continue
            calls += 1
            got = await stored(pool, external_id)
            assert msgspec.structs.replace(got, **OF_THE_STORE) == record, capture.name
        rows = await pool.fetch(
            "SELECT data->'call'->>'externalId', type FROM event WHERE type LIKE 'call.%' AND type <> 'call.merged'"
        )
        assert sorted(tuple(row) for row in rows) == sorted(told), capture.name
        await pool.execute("TRUNCATE event, event_cursor")
    assert await pool.fetchval("SELECT count(*) FROM call") == calls
    assert calls >= 40
