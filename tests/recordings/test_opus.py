"""Recordings made into Ogg/Opus: what is stored is what was said, and whatever goes wrong costs no recording."""

import asyncio
import io
import json
import os
import subprocess
import wave
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from encoder import FFMPEG, audio_of, encoded
from house import House
from served import Serve
from sounds import MULAW, heard, mulaw, raw, tone, wav, wav49
from structlog.testing import capture_logs

from trunkline.recordings.opus import NoEncoder, NotEncoded, OpusEncoder
from trunkline.recordings.peaks import peaks
from trunkline.recordings.service import Keeping, RecordingService
from trunkline.recordings.spool import Directories
from trunkline.recordings.upload import Uploader
from trunkline.store.pool import open_pool


def played(opus: bytes) -> bytes:
    """What a player makes of it: a WAV."""
    asked = [FFMPEG, "-loglevel", "error", "-i", "pipe:0", "-f", "s16le", "-ar", "8000", "-ac", "1", "pipe:1"]
    samples = subprocess.run(asked, input=opus, capture_output=True, check=True, timeout=30).stdout
    return wav(samples)


@pytest_asyncio.fixture
async def opus(house: House) -> House:
    """A house that makes Opus."""
    house.uploader.opus = OpusEncoder(FFMPEG)
    return house


async def _metadata(house: House) -> dict[str, Any]:
    return json.loads((await house.rows())[0]["file_metadata"])


@pytest.mark.asyncio
async def test_what_is_stored_is_opus_and_what_was_said(opus: House) -> None:
    data = wav(tone(440, 3))
    row = await opus.stored("one.wav", data)
    content = opus.content(row["key"])
    assert opus.steps == ["encode", "put", "read back", "commit", "remove"]
    assert (row["mime_type"], row["name"], row["size"]) == ("audio/ogg", "one.opus", len(content))
    assert row["key"].endswith(f"{row['id']}.opus")
    assert content.startswith(b"OggS")
    assert len(content) < len(data) / 4
    sound = heard(played(content))
    assert abs(sound.frequency - 440) < 2
    assert abs(sound.seconds - 3) < 0.1
    assert row["duration_seconds"] == 3
    assert await _metadata(opus) == {
        "sha256": sha256(content).hexdigest(),
        "codec": "opus",
        "mended": None,
        "original": {"sha256": sha256(data).hexdigest(), "size": len(data), "codec": "pcm_s16le"},
    }
    assert opus.files() == []


@pytest.mark.asyncio
async def test_the_api_serves_it_with_its_waveform(opus: House, serve: Serve) -> None:
    data = wav(tone(440, 2) + tone(440, 1, loudness=0.1))
    row = await opus.stored("one.wav", data)
    api = await serve()
    where = f"{api.url}/api/v1/recordings/{row['id']}"
    async with api.client.get(f"{where}/audio", headers={"Range": "bytes=0-3"}) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (206, "audio/ogg", b"OggS")
    async with api.client.get(f"{where}/peaks") as answer:
        assert answer.status == 200
        shown = await answer.json()
    audio, file = audio_of("one.wav", data)
    assert shown == msgspec.to_builtins(peaks(file, audio))
    async with api.client.get(where) as answer:
        told = await answer.json()
    assert (told["mimeType"], told["durationSeconds"]) == ("audio/ogg", 3)
    assert told["sha256"] == sha256(opus.content(row["key"])).hexdigest()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.WAV", wav49(2)),
        ("a.wav", wav(mulaw(tone(440, 2)), kind=MULAW)),
        ("a.wav16", wav(tone(440, 2, 16_000), 16_000)),
        ("two.wav", wav(tone(440, 2, channels=2), channels=2)),
        *((f"a.{kind}", raw(kind, 440, 2)) for kind in ("ulaw", "alaw", "sln", "sln16", "gsm", "g722")),
    ],
)
def test_every_kind_that_asterisk_writes_is_as_long_afterwards(name: str, data: bytes) -> None:
    with wave.open(io.BytesIO(played(encoded(name, data)))) as read:
        assert abs(read.getnframes() / 8000 - 2) < 0.1


def test_the_same_sound_gives_the_same_bytes() -> None:
    data = wav(tone(440, 2))
    assert encoded("a.wav", data) == encoded("a.wav", data)


@pytest.mark.asyncio
async def test_what_ffmpeg_is_not_asked_about_is_stored_as_it_is(opus: House) -> None:
    row = await opus.stored("a.g729", bytes(10) * 100)
    assert (row["mime_type"], row["state"], row["size"]) == ("audio/G729", "stored", 1000)


@pytest.mark.asyncio
async def test_what_is_left_in_the_spool_is_known_by_the_sound_that_was_encoded(opus: House) -> None:
    """Its daemon was killed between the commit and the removal."""
    data = wav(tone(440, 1))
    row = await opus.stored("one.wav", data)
    path = opus.write("one.wav", data)
    await opus.uploader.take(row["id"])
    assert not path.exists()
    opus.write("one.wav", wav(tone(500, 1)))
    with capture_logs() as logs:
        await opus.uploader.take(row["id"])
    assert [line["event"] for line in logs] == ["recording.name_reused"]
    assert opus.files() == ["one.wav"]


# The encoding is told by what it is asked to make; the decoding, which follows, is left to the real one.
_ENCODING = '#!/bin/sh\ncase "$*" in *libopus*) {does};; esac\nexec {ffmpeg} "$@"\n'


def _faulty(path: Path, does: str) -> OpusEncoder:
    """An ffmpeg that does this where it should encode."""
    path.write_text(_ENCODING.format(does=does, ffmpeg=FFMPEG))
    path.chmod(0o755)
    encoder = OpusEncoder(str(path))
    encoder._least_s = 0.5
    return encoder


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("exit 3", "ended by 3"),
        ("echo 'no room' >&2; exit 1", "no room"),
        ("cat >/dev/null; echo nonsense; exit 0", "ffmpeg: "),
        ("cat >/dev/null; exit 0", "ffmpeg: "),
        (f"{FFMPEG} -loglevel error -t 0.5 -i pipe:0 -c:a libopus -f ogg pipe:1; exit 0", "of 1.00 s of audio 0.5"),
        ("exec sleep 60", "took longer than"),
        ("exec cat /dev/zero", "ffmpeg: "),
        ("kill -9 $$", "ended by -9"),
    ],
)
def test_what_ffmpeg_did_wrong_is_told(tmp_path: Path, does: str, why: str) -> None:
    with pytest.raises(NotEncoded, match=why):
        encoded("one.wav", wav(tone(440, 1)), _faulty(tmp_path / "ffmpeg", does))


@pytest.mark.asyncio
async def test_whatever_ffmpeg_does_the_recording_is_stored(house: House, tmp_path: Path) -> None:
    house.uploader.opus = _faulty(tmp_path / "ffmpeg", "cat >/dev/null; exit 0")
    data = wav(tone(440, 1))
    with capture_logs() as logs:
        row = await house.stored("one.wav", data)
    assert (row["state"], row["mime_type"], row["name"]) == ("stored", "audio/wav", "one.wav")
    assert house.content(row["key"]) == data
    assert [line["event"] for line in logs] == ["recording.not_encoded", "recording.stored"]


def test_an_encoder_that_takes_no_more_is_not_waited_for(tmp_path: Path) -> None:
    """It stays, and reads nothing: the pipe is full."""
    encoder = _faulty(tmp_path / "ffmpeg", "exec sleep 60")
    encoder._least_s = -7.5  # of eight seconds of sound a half is left
    with pytest.raises(NotEncoded, match="took longer than"):
        encoded("a.wav", wav(tone(440, 1) * 8, stated=16_000), encoder)


def test_an_encoder_sees_no_secret_and_yields_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_RECORDINGS_SECRET_KEY", "canary")
    seen = tmp_path / "seen"
    encoder = _faulty(tmp_path / "ffmpeg", f"sleep 0.2; (env; cat /proc/$$/stat; echo $*) > {seen}")
    encoded("a.wav", wav(tone(440, 1)), encoder)
    said = seen.read_text()
    assert "canary" not in said
    assert str(tmp_path / "spool") not in said
    stat = said.splitlines()[-2].split(") ")[1].split()  # proc(5), from the state on
    assert stat[16] == "19"  # nice
    assert int(stat[3]) == os.getsid(0)  # a session of its own would be given as much time as all of us


@pytest.mark.asyncio
async def test_without_an_encoder_it_is_said_once_and_they_are_stored_as_they_are(
    house: House, database_url: str, tmp_path: Path
) -> None:
    hollow = tmp_path / "hollow"
    hollow.write_text("#!/bin/sh\necho ' A....D aac  AAC'\n")
    hollow.chmod(0o755)
    for program, why in ((tmp_path / "none", "there is no program"), (hollow, "built without libopus")):
        with pytest.raises(NoEncoder, match=why):
            OpusEncoder(str(program)).check()
    keeping = Keeping(opus=True, ffmpeg=str(hollow), prefix=house.prefix)
    service = await RecordingService.open(
        database_url, house.store, house.account, Directories(lambda: {"pbx1": house.spool_of("call", "pbx1")}), keeping
    )
    with capture_logs() as logs:
        await service.prepare()
        row_of = service.uploader
        await house.call(str(house.write("one.wav")))
        (row,) = await house.rows()
        await row_of.take(row["id"])
    assert [line["event"] for line in logs if line["event"].startswith("recordings.")] == ["recordings.no_opus"]
    assert (await house.rows())[0]["mime_type"] == "audio/wav"
    await service.close()


def test_an_encoder_that_is_there_is_found() -> None:
    OpusEncoder(FFMPEG).check()


@pytest.mark.asyncio
async def test_two_that_store_the_same_leave_one_object(house: House, database_url: str) -> None:
    path = house.write("one.wav")
    await house.call(str(path))
    (row,) = await house.rows()
    async with await open_pool(database_url) as pool:
        other = Uploader(pool, house.store, house.spool_of, prefix=house.prefix, opus=OpusEncoder(FFMPEG))
        house.uploader.opus = OpusEncoder(FFMPEG)
        await asyncio.gather(house.uploader.take(row["id"]), other.take(row["id"]))
    (row,) = await house.rows()
    assert list(house.objects()) == [row["key"]]
    assert sha256(house.content(row["key"])).hexdigest() == (await _metadata(house))["sha256"]


def test_without_room_for_it_the_recording_is_not_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(NotEncoded, match="no room"):
        encoded("a.wav", wav(tone(440, 1)))
    monkeypatch.undo()
    broken = tmp_path / "ffmpeg"
    broken.write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    with pytest.raises(NotEncoded, match="cannot be run"):
        encoded("a.wav", wav(tone(440, 1)), OpusEncoder(str(broken)))
