"""From the spool into the bucket: what is stored, what is not, and that nothing is lost or doubled on the way."""

import json
from hashlib import sha256

import pytest
from house import House
from sounds import tone, wav

pytestmark = pytest.mark.asyncio


async def test_a_recording_is_stored_read_back_and_its_file_goes(house: House) -> None:
    path = house.write("one.wav", seconds=2)
    data = path.read_bytes()
    call_id = await house.call(str(path))
    (row,) = await house.settled()
    assert (row["state"], row["reason"], row["duration_seconds"]) == ("stored", None, 2)
    assert row["key"].startswith(f"{house.prefix}{row['account_id']}/")
    assert row["key"].endswith(f"/{call_id}/{row['id']}.wav")
    assert house.content(row["key"]) == data
    assert json.loads(row["file_metadata"])["sha256"] == sha256(data).hexdigest()
    assert (row["name"], row["size"], row["mime_type"]) == ("one.wav", len(data), "audio/wav")
    assert list(house.objects()) == [row["key"]]
    assert house.files() == []
    events = await house.pool.fetch("SELECT type, data FROM event ORDER BY seq")
    assert [event["type"] for event in events] == ["call.ringing", "call.ended", "call.recording_stored"]
    told = json.loads(events[-1]["data"])
    assert told["recording"]["id"] == str(row["id"])
    assert told["call"]["recordingId"] == str(row["id"])
    assert house.steps == ["put", "read back", "commit", "remove"]


async def test_what_killed_asterisk_left_is_mended(house: House) -> None:
    audio = tone(440, 1.5)
    whole = wav(audio)
    broken = whole[:4] + b"\0\0\0\0" + whole[8:40] + b"\0\0\0\0" + audio
    path = house.write("killed.wav", broken)
    await house.call(str(path))
    (row,) = await house.settled()
    assert (row["state"], row["duration_seconds"]) == ("stored", 2)
    assert house.content(row["key"]) == whole
    assert json.loads(row["file_metadata"])["mended"]
    assert house.files() == []


async def test_no_audio_is_empty_and_not_uploaded(house: House) -> None:
    path = house.write("empty.wav", wav(b""))
    await house.call(str(path))
    (row,) = await house.settled()
    assert row["state"] == "empty"
    assert row["reason"]
    assert house.objects() == {}
    assert house.files() == []


async def test_a_live_call_keeps_its_file(house: House) -> None:
    path = house.write("live.wav")
    await house.call(str(path), ended=False)
    assert await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer") == 0
    assert await house.states() == ["pending"]
    assert house.files() == ["live.wav"]


async def test_a_file_that_is_written_is_never_taken(house: House) -> None:
    path = house.write("busy.wav", wav(tone(440, 1)), age_s=600)
    with path.open("ab") as writer:  # as Asterisk has it
        await house.call(str(path))
        async with house.running():
            await house.until("it was looked at", lambda: house.runner.done["retried"] >= 3)
        assert house.objects() == {}
        writer.write(tone(440, 1))
    (row,) = await house.settled()
    assert (row["state"], row["duration_seconds"]) == ("stored", 2)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("/etc/../etc/hostname", "not below"),
        ("{spool}/../secret.wav", "'..'"),
        ("/etc/hostname", "not below"),
        ("{spool}/link.wav", "symbolic link"),
        ("{spool}/folder/secret.wav", "symbolic link"),
        ("{spool}/a\nb.wav", "control character"),
        ("{spool}/" + 300 * "x" + ".wav", "longer than 255 bytes"),
        ("{spool}/" + 700 * "y/" + ".wav", "characters long"),
        ("{spool}/b\ufffd.wav", "not UTF-8"),
        ("relative.wav", "not below"),
        ("{spool}/pipe.wav", "no ordinary file"),
        ("{spool}/notes.txt", "no recording"),
    ],
)
async def test_a_hostile_name_is_not_followed_and_said(house: House, told: str, reason: str) -> None:
    import os

    outside = house.spool.parent / "secret.wav"
    outside.write_bytes(wav(tone(440, 1)))
    (house.spool / "link.wav").symlink_to(outside)
    (house.spool / "folder").symlink_to(house.spool.parent)
    (house.spool / "notes.txt").write_text("hello")
    os.mkfifo(house.spool / "pipe.wav")
    await house.call(told.replace("{spool}", str(house.spool)))
    (row,) = await house.settled()
    assert row["state"] == "failed"
    assert reason in row["reason"]
    assert house.objects() == {}
    assert outside.exists()


async def test_a_file_that_never_comes_is_given_up_and_one_that_comes_late_is_not(house: House) -> None:
    await house.call(str(house.spool / "never.wav"), days_ago=1)
    (row,) = await house.settled()
    assert (row["state"], "not there" in row["reason"]) == ("failed", True)
    house.write("never.wav")
    await house.sweeper.sweep()
    (row,) = await house.settled()
    assert row["state"] == "stored"


async def test_many_at_once_each_stored_once(house: House) -> None:
    for n in range(40):
        await house.call(str(house.write(f"{n:03}.wav", seconds=0.2 + n / 100)))
    rows = await house.settled(60)
    assert {row["state"] for row in rows} == {"stored"}
    assert len(house.objects()) == len({row["key"] for row in rows}) == 40
    assert house.files() == []
    assert await house.pool.fetchval("SELECT count(*) FROM event WHERE type = 'call.recording_stored'") == 40
