"""What ARI has recorded, as files: found where no event told of it, refused where its name is not to be followed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from house import ACCOUNT, PBX, House

from trunkline.calls.record import RecordingKind
from trunkline.recordings.spool import Directories, RecordingSpool
from trunkline.recordings.sweep import Sweeper

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def ari(house: House) -> AsyncIterator[House]:
    """The house's other directory, beside that of MixMonitor's; `write` writes there."""
    monitor, spool = house.spool, house.spool.parent / "recording"
    spool.mkdir()
    kept = {"call": RecordingSpool(monitor), "ari": RecordingSpool(spool, None, "ari_recordings")}
    house.spool_of = lambda kind, pbx: kept.get(kind) if pbx == PBX else None  # type: ignore[method-assign]
    house.uploader._spool_of = house.spool_of
    house.sweeper = Sweeper(
        house.pool, ACCOUNT, Directories(lambda: {PBX: kept["call"]}, ari=lambda: {PBX: kept["ari"]}), grace_s=0
    )
    house.spool = spool
    yield house


async def told(house: House, path: Path | str, **more: Any) -> Any:
    """A call with a recording that ARI told of; its row."""
    call_id = await house.call(str(path), kind=RecordingKind.ARI, **more)
    return await house.pool.fetchrow("SELECT * FROM call_recording WHERE call_id = $1", call_id)


async def test_a_file_that_ari_told_of_is_stored_from_its_own_directory(ari: House) -> None:
    path = ari.write("greetings/anything at all.wav")
    data = path.read_bytes()
    assert (await told(ari, path))["kind"] == "ari"
    (row,) = await ari.settled()
    assert (row["state"], row["kind"]) == ("stored", "ari")
    assert ari.content(row["key"]) == data
    assert not path.exists()


async def test_what_nobody_told_of_is_tied_by_the_id_in_its_name_or_unmatched(ari: House) -> None:
    call_id = await ari.call()
    ari.write(f"dictated-{await ari.channel(call_id)}.wav")
    ari.write("greeting.wav")
    monitored = ari.spool.parent / "monitor" / "stranger.wav"
    monitored.write_bytes(ari.write("copied.wav").read_bytes())
    await ari.sweeper.sweep()
    rows = {Path(row["path"]).name: row for row in await ari.settled()}
    tied = rows.pop(f"dictated-{await ari.channel(call_id)}.wav")
    assert (tied["state"], tied["kind"], tied["call_id"]) == ("stored", "ari", call_id)
    assert {name: (row["state"], row["kind"]) for name, row in rows.items()} == {
        "greeting.wav": ("unmatched", "ari"),
        "copied.wav": ("unmatched", "ari"),
        "stranger.wav": ("unmatched", "call"),
    }
    assert rows["greeting.wav"]["reason"].startswith("ARI did not tell of it while it was listened to (pbx.ari_url)")
    assert rows["stranger.wav"]["reason"].startswith("its name holds no call's id")


async def test_the_one_directory_says_nothing_of_the_others_files(ari: House) -> None:
    """A file that is gone from one is forgotten; those of the other are not gone."""
    (ari.spool.parent / "monitor" / "stranger.wav").write_bytes(ari.write("greeting.wav").read_bytes())
    await ari.call()
    await ari.sweeper.sweep()
    await ari.sweeper.sweep()
    assert await ari.states() == ["unmatched", "unmatched"]
    (ari.spool / "greeting.wav").unlink()
    await ari.sweeper.sweep()
    assert [row["kind"] for row in await ari.rows()] == ["call"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../monitor/secret.wav", "'.' or '..'"),
        ("a/../../../etc/passwd.wav", "'.' or '..'"),
        ("two\nlines.wav", "control character"),
        ("x" * 300 + ".wav", "longer than 255 bytes"),
        ("link.wav", "symbolic link"),
        ("folder.wav", "no ordinary file"),
    ],
)
async def test_a_name_is_never_followed_out(ari: House, name: str, why: str) -> None:
    secret = ari.spool.parent / "monitor" / "secret.wav"
    secret.write_bytes(b"canary")
    (ari.spool / "link.wav").symlink_to(secret)
    (ari.spool / "folder.wav").mkdir()
    row = await told(ari, f"{ari.spool}/{name}")
    await ari.uploader.take(row["id"])
    (row,) = await ari.rows()
    assert row["state"] == "failed"
    assert why in row["reason"]
    assert ari.objects() == {}
    assert secret.read_bytes() == b"canary"


async def test_a_path_that_is_not_aris_says_which_setting_is_wrong(ari: House) -> None:
    row = await told(ari, "/var/elsewhere/one.wav")
    await ari.uploader.take(row["id"])
    assert "set pbx.ari_recordings and ari_recordings_seen_as" in (await ari.rows())[0]["reason"]


async def test_a_name_that_was_used_again_before_it_was_stored_is_the_later_calls(ari: House) -> None:
    """The storage was away, and whoever uses ARI had the file overwritten: it is not given to both calls."""
    path = ari.write("message.wav", seconds=1)
    first = await told(ari, path, days_ago=0.02)
    path.write_bytes(ari.write("other.wav", seconds=3).read_bytes())
    second = await told(ari, path, days_ago=0.01)
    await ari.settled()
    states = {row["id"]: row for row in await ari.rows()}
    assert states[first["id"]]["state"] == "failed"
    assert "a later recording took its file's name" in states[first["id"]]["reason"]
    assert (states[second["id"]]["state"], states[second["id"]]["duration_seconds"]) == ("stored", 3)
    assert len(ari.objects()) == 1
