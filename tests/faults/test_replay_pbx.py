"""The PBX made of captures: a link follows it like any other."""

from pathlib import Path

import pytest
import trio
import trio.testing
from ami_peer import Notes, within

from trunkline.asterisk.dial import Address, LinkSettings
from trunkline.asterisk.link import Link
from trunkline.asterisk.session import Credentials, Reason
from trunkline.embedded.replay_pbx import ReplayPbx, load, loadable

CAPTURES = Path(__file__).parents[1] / "replay" / "captures"
RECORDED = CAPTURES / "l_recording"


def link_to(pbx: ReplayPbx, notes: Notes, secret: str = "") -> Link:
    credentials = Credentials(pbx.username, secret or pbx.secret)
    return Link(LinkSettings("replay", Address(pbx.host, pbx.port), credentials), notes, now=lambda: 1_900_000_000.0)


@pytest.mark.trio
async def test_each_play_is_a_new_call(autojump_clock: trio.testing.MockClock) -> None:
    pbx, notes = ReplayPbx([RECORDED], now=lambda: 1_900_000_000.0), Notes()
    async with trio.open_nursery() as nursery:
        await nursery.start(pbx.run)
        link = link_to(pbx, notes)
        nursery.start_soon(link.run)
        await notes.until(lambda: link.up)
        await pbx.play(times=2)
        hangups = [e for e in load(RECORDED).events if e[1].startswith("Event: Hangup\r\n")]
        await notes.until(lambda: link.events_read.get("Hangup") == 2 * len(hangups))
        nursery.cancel_scope.cancel()
    born = [e.fields for e in notes.all_events if e.kind == "Newchannel"]
    assert len({f["Uniqueid"] for f in born}) == len({f["Channel"] for f in born}) == len(born) == 2 * len(hangups)
    assert len({f["Linkedid"] for f in born}) == 2
    assert all(f["Uniqueid"].startswith("pbx1-1900000") for f in born)
    assert {round(e.at - 1_900_000_000.0) for e in notes.all_events} <= set(range(10))
    files = {e.fields["Value"] for e in notes.all_events if e.fields.get("Variable") == "MIXMONITOR_FILENAME"}
    assert len(files) == 2
    assert all(any(f["Linkedid"] in name for f in born) for name in files)
    bridges = {e.fields["BridgeUniqueid"] for e in notes.all_events if e.kind == "BridgeCreate"}
    assert len(bridges) == 2
    assert link.refused == {}


@pytest.mark.trio
async def test_who_comes_in_mid_call_finds_it_in_the_lists(autojump_clock: trio.testing.MockClock) -> None:
    pbx, notes = ReplayPbx([RECORDED]), Notes()
    async with trio.open_nursery() as nursery:
        await nursery.start(pbx.run)
        nursery.start_soon(pbx.play)
        await trio.sleep(1.5)
        nursery.start_soon(link_to(pbx, notes).run)
        await notes.until(lambda: notes.snapshots)
        nursery.cancel_scope.cancel()
    snapshot = notes.snapshots[0][0]
    assert sorted(row["Channel"].split("-")[0] for row in snapshot.channels.values()) == ["PJSIP/1001", "PJSIP/trunk"]
    assert all(row["BridgeId"] for row in snapshot.channels.values())
    assert any("MIXMONITOR_FILENAME" in found for found in snapshot.variables.values())


@pytest.mark.trio
async def test_its_door_is_locked(autojump_clock: trio.testing.MockClock) -> None:
    pbx, notes = ReplayPbx([RECORDED]), Notes()
    async with trio.open_nursery() as nursery:
        await nursery.start(pbx.run)
        link = link_to(pbx, notes, "wrong")
        nursery.start_soon(link.run)
        with within(600):
            while not link.connect_failures:  # noqa: ASYNC110 - counters have no events
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert list(link.connect_failures) == [Reason.LOGIN_REFUSED]


def test_what_can_be_played() -> None:
    playable = [folder.name for folder in sorted(CAPTURES.iterdir()) if folder.is_dir() and loadable(folder)]
    assert "l_recording" in playable
    assert "r_restart_now" not in playable
    assert len(playable) > 30
