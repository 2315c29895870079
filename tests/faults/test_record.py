"""`trunkline record`: what is on disk after a recording, however it ended."""

import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from ami_peer import Peer, channel_lines, event, newchannel, within

from trunkline.asterisk.anonymise import Anonymiser
from trunkline.asterisk.record import Recording
from trunkline.asterisk.session import LinkError, Reason


def hangup(number: int) -> bytes:
    return event("Hangup", *channel_lines(number, "Cause: 16", "Cause-txt: Normal Clearing"))


@pytest.mark.trio
async def test_it_stops_after_the_calls_asked_for(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    peer, folder = Peer(), tmp_path / "rec"
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        recording = Recording(folder, peer.settings(), calls=2)

        async def calls() -> None:
            await peer.until(lambda: peer.asked("ParkedCalls"))
            for number in (1, 2):
                await peer.conversations[0].send(newchannel(number) + hangup(number))

        nursery.start_soon(calls)
        with within(60):
            await recording.run()
        nursery.cancel_scope.cancel()
    raw = (folder / "ami.raw").read_bytes()
    assert raw.startswith(b"Event: FullyBooted\r\n")
    assert raw.count(b"Event: Newchannel\r\n") == raw.count(b"Event: Hangup\r\n") == 2
    assert b"Event: CoreShowChannelsComplete\r\n" in raw
    assert peer.secret.encode() not in raw
    assert b"Challenge" not in raw
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    notes = (folder / "notes.md").read_text()
    assert "calls that began and ended: 2" in notes
    assert "REAL" in notes


@pytest.mark.trio
async def test_a_lost_connection_goes_on_in_a_second_file(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    peer, folder = Peer(), tmp_path / "rec"
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        recording = Recording(folder, peer.settings(), anonymiser=Anonymiser(), calls=1)

        async def calls() -> None:
            await peer.until(lambda: peer.asked("ParkedCalls") == 1)
            await peer.conversations[0].send(newchannel(1)[:200])
            await peer.conversations[0].cut()
            await peer.until(lambda: peer.asked("ParkedCalls") == 2)
            await peer.conversations[1].send(newchannel(2) + hangup(2))

        nursery.start_soon(calls)
        with within(60):
            await recording.run()
        nursery.cancel_scope.cancel()
    raw, raw2 = (folder / "ami.raw").read_bytes(), (folder / "ami2.raw").read_bytes()
    assert b"Event: Newchannel\r\n" in raw  # as far as it came
    assert b"Event: Hangup\r\n" in raw2
    assert b"15551234567" not in raw + raw2
    assert b"Jane Doe" not in raw + raw2
    assert "pseudonyms" in (folder / "notes.md").read_text()


@pytest.mark.trio
async def test_a_wrong_secret_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        with within(10), pytest.raises(LinkError) as refused:
            await Recording(tmp_path / "rec", peer.settings(secret="wrong")).run()
        nursery.cancel_scope.cancel()
    assert refused.value.reason is Reason.LOGIN_REFUSED
    assert list((tmp_path / "rec").iterdir()) == []


def test_an_older_recording_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "ami.raw").touch()
    with pytest.raises(FileExistsError, match="name another folder"):
        Recording(tmp_path, Peer().settings())
