"""The sweeper: every file in the spool becomes a call's recording or is unmatched with a reason, once."""

import errno
import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from house import ACCOUNT, PBX, House
from sounds import tone, wav
from structlog.testing import capture_logs

from trunkline.recordings.jobs import JobRunner
from trunkline.recordings.spool import Directories, RecordingSpool
from trunkline.recordings.sweep import Sweeper
from trunkline.recordings.upload import Uploader

pytestmark = pytest.mark.asyncio

DAY_S = 86_400


async def _unique(house: House, call_id: UUID) -> str:
    """`epoch.counter` of a call's channel, without the systemname."""
    return (await house.channel(call_id)).removeprefix(f"{PBX}-")


async def _call(house: House, call_id: UUID) -> tuple[list[dict[str, Any]], UUID | None]:
    row = await house.pool.fetchrow("SELECT recordings, recording_id FROM call WHERE id = $1", call_id)
    return json.loads(row["recordings"]), row["recording_id"]


async def _jobs(house: House) -> int:
    return await house.pool.fetchval("SELECT count(*) FROM jobs.pgqueuer")


@pytest.mark.parametrize(
    "name",
    [
        "{id}.wav",
        "{pbx}-{id}.wav",
        "in-442071234567-15551234567-20261122-101010-{id}.wav",
        "2026/11/22/q-600-15551234567-20261122-101010-{pbx}-{id}.wav",
        "{id}-in.wav",
        "out-1763801234.99999-{id}.wav",  # another id before it, of no call
    ],
)
async def test_a_file_that_the_stream_missed_is_linked_by_the_id_in_its_name(house: House, name: str) -> None:
    call_id = await house.call()
    path = house.write(name.format(pbx=PBX, id=await _unique(house, call_id)))
    data = path.read_bytes()
    await house.sweeper.sweep()
    (row,) = await house.settled()
    assert (row["state"], row["call_id"], row["channel_id"]) == ("stored", call_id, await house.channel(call_id))
    assert house.content(row["key"]) == data
    assert house.files() == []
    assert house.sweeper.linked == 1
    for _ in range(2):
        listed, recording_id = await _call(house, call_id)
        assert [(one["path"], one["channelId"], one["kind"]) for one in listed] == [
            (str(path), await house.channel(call_id), "CALL")
        ]
        assert listed[0]["startedAt"] <= listed[0]["endedAt"]
        assert recording_id == row["id"]
        await house.sweeper.sweep()  # changes nothing
        assert len(await house.settled()) == 1


async def test_a_recording_told_without_its_name_is_the_file_of_its_channel(house: House) -> None:
    call_id = await house.call("")
    path = house.write(f"{await _unique(house, call_id)}.wav")
    await house.settled()
    await house.sweeper.sweep()
    (row,) = await house.settled()
    assert (row["state"], row["path"], row["call_id"]) == ("stored", str(path), call_id)
    listed, recording_id = await _call(house, call_id)
    assert ([one["path"] for one in listed], recording_id) == ([str(path)], row["id"])


async def test_a_file_of_no_known_call_is_unmatched_once_until_its_call_comes(house: House) -> None:
    unique = f"{int(time.time()) - 700}.77"
    path = house.write(f"in-15551234567-{unique}.wav")
    nameless = house.write("meeting.wav")
    await house.call()  # so that the PBX is known
    with capture_logs() as logs:
        for _ in range(3):
            await house.sweeper.sweep()
    assert len([one for one in logs if one["event"] == "recording.unmatched"]) == 2
    rows = {row["path"]: row for row in await house.rows()}
    assert {row["state"] for row in rows.values()} == {"unmatched"}
    assert "no call is known with the id" in rows[str(path)]["reason"]
    assert "holds no call's id" in rows[str(nameless)]["reason"]
    assert house.files() == sorted([path.name, nameless.name])
    assert await _jobs(house) == 0
    call_id = await house.call(unique=unique)
    await house.sweeper.sweep()
    rows = {row["path"]: row for row in await house.settled()}
    assert (rows[str(path)]["state"], rows[str(path)]["call_id"]) == ("stored", call_id)
    assert (len(rows), rows[str(nameless)]["state"]) == (2, "unmatched")
    assert house.files() == [nameless.name]


async def test_an_unmatched_file_keeps_its_id_and_its_legal_hold_when_its_call_comes(house: House) -> None:
    unique = f"{int(time.time()) - 700}.78"
    house.write(f"{unique}.wav")
    await house.call()
    await house.sweeper.sweep()
    (before,) = await house.rows()
    await house.pool.execute("UPDATE call_recording SET legal_hold = true")
    await house.call(unique=unique)
    await house.sweeper.sweep()
    (after,) = await house.settled()
    assert (after["state"], after["id"], after["legal_hold"]) == ("stored", before["id"], True)


async def test_a_file_older_than_the_call_that_its_name_says_is_not_its(house: House) -> None:
    call_id = await house.call()
    house.write(f"{await _unique(house, call_id)}.wav", age_s=DAY_S)
    await house.sweeper.sweep()
    (row,) = await house.settled()
    assert (row["state"], row["call_id"]) == ("unmatched", None)
    assert "before the call" in row["reason"]
    assert (await _call(house, call_id))[0] == []
    assert len(house.files()) == 1


async def test_a_young_file_is_left_alone(house: House) -> None:
    house.sweeper = Sweeper(house.pool, ACCOUNT, Directories(lambda: {PBX: RecordingSpool(house.spool)}), grace_s=30)
    call_id = await house.call()
    path = house.write(f"{await _unique(house, call_id)}.wav", age_s=5)
    stray = house.write("stray.wav", age_s=5)
    await house.sweeper.sweep()
    assert await house.rows() == []
    for one in (path, stray):
        os.utime(one, (time.time() - 31,) * 2)
    await house.sweeper.sweep()
    assert sorted(await house.states()) == ["pending", "unmatched"]


async def test_a_live_calls_file_is_left_alone(house: House) -> None:
    call_id = await house.call(ended=False)
    house.write(f"{await _unique(house, call_id)}.wav")
    await house.sweeper.sweep()
    assert await house.rows() == []
    assert await _jobs(house) == 0
    await house.pool.execute("UPDATE call SET ended_at = now() WHERE id = $1", call_id)
    await house.sweeper.sweep()
    (row,) = await house.settled()
    assert (row["state"], row["call_id"]) == ("stored", call_id)


async def test_a_file_from_the_future_is_no_young_file(house: House) -> None:
    call_id = await house.call()
    path = house.write(f"{await _unique(house, call_id)}.wav", age_s=-1000 * DAY_S)
    house.write("stray.wav", age_s=-1000 * DAY_S)
    await house.sweeper.sweep()
    rows = {row["path"]: row for row in await house.settled()}
    assert rows[str(path)]["state"] == "stored"
    assert sorted(row["state"] for row in rows.values()) == ["stored", "unmatched"]


def _hostile(spool: Path) -> dict[str, str]:
    """Put what a stranger may leave into the directory; by a part of its path as shown, what its reason has to say."""
    outside = spool.parent / "outside"
    outside.mkdir()
    for name in ("secret.wav", "1763801234.5.wav"):
        (outside / name).write_bytes(wav(tone(440, 1)))
    (spool / "link.wav").symlink_to(outside / "secret.wav")
    (spool / "broken.wav").symlink_to(outside / "nothing.wav")
    (spool / "folder").symlink_to(outside)
    os.mkfifo(spool / "pipe.wav")
    deep = spool.joinpath(*"abcdefghijklmnopqrst")  # 20 folders
    deep.mkdir(parents=True)
    (deep / "bottom.wav").write_bytes(b"")
    wordy = spool.joinpath(*(os.urandom(120).hex() for _ in range(15)))  # 3,600 characters that compress badly
    wordy.mkdir(parents=True)
    (wordy / "long.wav").write_bytes(b"")
    (spool / ("n" * 251 + ".wav")).write_bytes(b"")
    (spool / "a\nb.wav").write_bytes(b"")
    (spool / "escape\x1b[31m.wav").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(spool) + b"/byte\xff.wav")).write_bytes(b"")
    for folder, _, names in os.walk(spool):
        for name in names:
            os.utime(os.path.join(folder, name), (time.time() - 60,) * 2, follow_symlinks=False)
    return {
        "/link.wav": "symbolic link",
        "/broken.wav": "symbolic link",
        "/folder": "symbolic link",
        "/pipe.wav": "no ordinary file",
        "/a/b/c": "folders deep",
        str(wordy.relative_to(spool))[:240]: "characters long",
        "/nnn": "holds no call's id",
        "/a\\x0ab.wav": "control character",
        "/escape\\x1b[31m.wav": "control character",
        "/byte\\xff.wav": "not UTF-8",
    }


async def test_hostile_entries_are_said_once_and_never_followed(house: House) -> None:
    wanted = _hostile(house.spool)
    call_id = await house.call(unique="1763801234.5", days_ago=1)  # what the linked directory seems to hold
    found = house.write(f"{await _unique(house, call_id)}-true.wav")
    there = house.files()
    with capture_logs() as logs:
        for _ in range(3):
            await house.sweeper.sweep()
    assert len([one for one in logs if one["event"] == "recording.unmatched"]) == len(wanted)
    rows = [row for row in await house.settled() if row["path"] != str(found)]
    assert {row["state"] for row in rows} == {"unmatched"}
    told = {row["path"]: row["reason"] for row in rows}
    assert len(told) == len(rows) == len(wanted)
    for part, reason in wanted.items():
        (path,) = (path for path in told if part in path)
        assert reason in told[path], path
        assert told[path].isprintable()
        assert path.isprintable()
        assert len(path) <= 600
    assert len(house.objects()) == 1
    assert house.files() == [name for name in there if name != found.name]
    assert len(list((house.spool.parent / "outside").iterdir())) == 2
    assert house.sweeper.refused_names == len(wanted) - 1  # all but the long name, which is a good one


async def test_no_phone_number_of_a_files_name_is_in_the_log(house: House) -> None:
    call_id = await house.call()
    house.write("in-442071234567-15551234567-20261122-101010.wav")
    house.write(f"in-442071234567-15551234567-{await _unique(house, call_id)}.wav")
    (house.spool / "15551234567.wav").symlink_to("/etc/hostname")
    with capture_logs() as logs:
        await house.sweeper.sweep()
        await house.settled()
    assert {one["event"] for one in logs} >= {"recording.unmatched", "recording.found", "recording.stored"}
    assert "5551234567" not in repr(logs)


async def test_a_pending_recording_whose_job_was_lost_gets_a_new_one(house: House) -> None:
    await house.call(str(house.write("one.wav")))
    await house.pool.execute("DELETE FROM jobs.pgqueuer")
    await house.sweeper.sweep()
    await house.sweeper.sweep()
    assert await _jobs(house) == 1
    (row,) = await house.settled()
    assert row["state"] == "stored"


async def test_a_file_that_is_stored_already_is_removed_and_another_of_its_name_is_not(house: House) -> None:
    same, other = house.write("same.wav"), house.write("other.wav")
    data = same.read_bytes()
    await house.call(str(same), str(other))
    await house.settled()
    assert house.files() == []
    house.write("same.wav", data)  # as if the daemon had been killed before it removed them
    house.write("other.wav", wav(tone(880, 1)))
    with capture_logs() as logs:
        await house.sweeper.sweep()
        rows = await house.settled()
    assert house.files() == ["other.wav"]
    assert [row["state"] for row in rows] == ["stored", "stored"]
    assert len(house.objects()) == 2
    assert {sha256(house.content(row["key"])).hexdigest() for row in rows} == {sha256(data).hexdigest()}
    assert [one["event"] for one in logs] == ["recording.name_reused"]


async def test_a_file_of_a_stored_recording_stays_where_its_object_is_not_what_was_put(house: House) -> None:
    gone, differs = house.write("gone.wav"), house.write("differs.wav")
    data = gone.read_bytes()
    await house.call(str(gone), str(differs))
    keys = {row["name"]: row["key"] for row in await house.settled()}
    house.store._client.remove_object(bucket_name=house.store.bucket, object_name=keys["gone.wav"])
    _overwrite(house, keys["differs.wav"], b"else")
    for name in keys:
        house.write(name, data)
    with capture_logs() as logs:
        await house.sweeper.sweep()
        await house.settled()
    assert house.files() == ["differs.wav", "gone.wav"]
    assert {"recording.object_gone", "recording.object_differs"} <= {one["event"] for one in logs}


def _overwrite(house: House, key: str, data: bytes) -> None:
    import io

    house.store.put(key, io.BytesIO(data), len(data), mime_type="audio/wav", metadata={})


async def test_no_recording_of_the_same_name_as_a_stored_one_is_left_for_good(house: House) -> None:
    """What is no audio at all is said like any other file of a name that is stored."""
    path = house.write("one.wav")
    await house.call(str(path))
    await house.settled()
    house.write("one.wav", b"no recording")
    with capture_logs() as logs:
        await house.sweeper.sweep()
        await house.settled(5)
    assert house.files() == ["one.wav"]
    assert [one["event"] for one in logs] == ["recording.name_reused"]


async def test_keep_leaves_what_is_stored(house: House) -> None:
    uploader = Uploader(house.pool, house.store, house.spool_of, prefix=house.prefix, keep=True)
    house.runner = JobRunner(house.pool, uploader.take)
    house.sweeper = Sweeper(
        house.pool, ACCOUNT, Directories(lambda: {PBX: RecordingSpool(house.spool)}), grace_s=0, keep=True
    )
    await house.call(str(house.write("one.wav")), str(house.write("none.wav", wav(b""))))
    assert sorted(row["state"] for row in await house.settled()) == ["empty", "stored"]
    await house.sweeper.sweep()
    assert await _jobs(house) == 0
    assert house.files() == ["none.wav", "one.wav"]
    assert len(house.objects()) == 1


async def test_two_pbxs_with_equal_paths_do_not_mix(house: House, tmp_path: Path) -> None:
    seen_as, unique = "/var/spool/asterisk/monitor", f"{int(time.time()) - 700}.5"
    names = (PBX, "pbx2")
    spools = {name: RecordingSpool(tmp_path / name, seen_as) for name in names}
    data: dict[str, dict[str, bytes]] = {"told.wav": {}, f"{unique}.wav": {}, "stray.wav": {}}
    for at, (pbx, spool) in enumerate(spools.items()):
        for more, (name, by_pbx) in enumerate(data.items()):
            by_pbx[pbx] = wav(tone(300 + 200 * at + 50 * more, 1))
            spool.root.mkdir(exist_ok=True)
            (spool.root / name).write_bytes(by_pbx[pbx])
            os.utime(spool.root / name, (time.time() - 60,) * 2)
    calls = {pbx: await house.call(f"{seen_as}/told.wav", pbx=pbx, unique=unique) for pbx in names}
    house.uploader = Uploader(house.pool, house.store, lambda kind, pbx: spools.get(pbx), prefix=house.prefix)
    house.runner = JobRunner(house.pool, house.uploader.take)
    house.sweeper = Sweeper(house.pool, ACCOUNT, Directories(lambda: spools), grace_s=0)
    await house.sweeper.sweep()
    rows = await house.settled()
    assert sorted(row["state"] for row in rows) == 4 * ["stored"] + 2 * ["unmatched"]
    for row in rows:
        if row["state"] == "stored":
            pbx = next(pbx for pbx, call_id in calls.items() if call_id == row["call_id"])
            assert row["channel_id"] == f"{pbx}-{unique}"
            assert house.content(row["key"]) == data[row["name"]][pbx]
    assert {row["integration_id"] for row in rows if row["state"] == "unmatched"} == {
        row["id"] for row in await house.pool.fetch("SELECT id FROM integration")
    }
    assert [os.listdir(spool.root) for spool in spools.values()] == [["stray.wav"], ["stray.wav"]]


async def test_a_pbx_whose_spool_cannot_be_listed_does_not_keep_the_others_waiting(house: House) -> None:
    spools = {"pbx0": RecordingSpool(house.spool.parent / "not mounted"), PBX: RecordingSpool(house.spool)}
    house.sweeper = Sweeper(house.pool, ACCOUNT, Directories(lambda: spools), grace_s=0)
    call_id = await house.call()
    await house.call(pbx="pbx0")
    house.write(f"{await _unique(house, call_id)}.wav")
    with capture_logs() as logs:
        await house.sweeper.sweep()
    assert [(row["state"], row["call_id"]) for row in await house.rows()] == [("pending", call_id)]
    assert [(one["event"], one["pbx"]) for one in logs if one["log_level"] == "warning"] == [
        ("recordings.sweep_failed", "pbx0")
    ]


async def test_a_folder_that_cannot_be_read_is_said_once_and_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_id = await house.call()
    house.write("locked/kept.wav")
    house.write("open/stranger.wav")
    await house.sweeper.sweep()
    before = {row["path"]: row["id"] for row in await house.rows()}
    assert len(before) == 2
    really_open, locked = os.open, True

    def refuse(path: Any, *arguments: Any, **how: Any) -> int:  # root reads whatever its mode says
        if locked and path == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return really_open(path, *arguments, **how)

    monkeypatch.setattr(os, "open", refuse)
    house.write(f"{await _unique(house, call_id)}.wav")
    with capture_logs() as logs:
        await house.sweeper.sweep()
        await house.sweeper.sweep()
    said = [one for one in logs if one["event"] == "recordings.folder_unread"]
    assert [(one["pbx"], one["folder"]) for one in said] == [(PBX, "locked")]
    assert "Permission denied" in said[0]["error"]
    assert (house.sweeper.unread, house.sweeper.linked) == (1, 1)  # the others are looked at
    rows = {row["path"]: row["id"] for row in await house.rows()}
    assert before.items() <= rows.items(), "what is in it is not forgotten"
    locked = False
    with capture_logs() as logs:
        await house.sweeper.sweep()
        locked = True
        await house.sweeper.sweep()
    assert [one["event"] for one in logs].count("recordings.folder_unread") == 1  # once more, for it was well between
    assert len(await house.rows()) == 3


async def test_a_mailbox_that_cannot_be_read_is_said_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.call()
    box = house.spool.parent / "voicemail" / "default" / "1001"
    box.mkdir(parents=True)
    house.sweeper = Sweeper(
        house.pool, ACCOUNT, Directories(voicemail=lambda: {PBX: RecordingSpool(house.spool.parent / "voicemail")})
    )
    really_list = os.listdir

    def refuse(at: Any) -> list[str]:
        if os.path.realpath(f"/proc/self/fd/{at}") == str(box):
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_list(at)

    monkeypatch.setattr(os, "listdir", refuse)
    with capture_logs() as logs:
        await house.sweeper.sweep()
    assert [one["folder"] for one in logs if one["event"] == "recordings.folder_unread"] == ["default/1001"]
    assert house.sweeper.unread == 1


async def test_ten_thousand_files(house: House) -> None:
    told = [str(house.spool / f"{at % 20}/told-{at}.wav") for at in range(500)]
    call_id = await house.call(*told)
    await house.pool.execute(
        """INSERT INTO call_leg (account_id, call_id, channel_id, endpoint, role, started_at, position)
           SELECT account_id, id, 'pbx1-1763900000.' || n, 'PJSIP/trunk', 'caller', started_at, n
           FROM call, generate_series(1, 500) AS n WHERE id = $1""",
        call_id,
    )
    missed = [f"{at % 20}/in-15551234567-1763900000.{at}.wav" for at in range(1, 501)]
    strays = [f"{at % 20}/in-15551234567-{at}.wav" for at in range(9000)]
    for folder in range(20):
        (house.spool / str(folder)).mkdir()
    at = time.time() - 60
    for name in (*told, *missed, *strays):
        file = os.open(house.spool / name, os.O_CREAT | os.O_WRONLY)
        os.utime(file, (at, at))
        os.close(file)
    for _ in range(2):
        await house.sweeper.sweep()
        counts = await house.pool.fetch("SELECT state, count(*), count(DISTINCT path) FROM call_recording GROUP BY 1")
        assert sorted(map(tuple, counts)) == [("pending", 1000, 1000), ("unmatched", 9000, 9000)]
        assert (house.sweeper.files, house.sweeper.linked) == (10_000, 500)
        assert house.sweeper.waiting == {"PENDING": 1000, "UNMATCHED": 9000}
        assert await _jobs(house) == 1000


async def test_an_unmatched_file_that_is_removed_is_forgotten(house: House) -> None:
    await house.call()
    path = house.write("stranger.wav")
    await house.sweeper.sweep()
    assert await house.states() == ["unmatched"]
    path.unlink()
    await house.sweeper.sweep()
    assert await house.states() == []
