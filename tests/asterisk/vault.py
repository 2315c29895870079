"""A real PBX, a real daemon, a real S3: what became of the recordings of real calls, counted."""

import asyncio
import io
import os
import wave
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import minio
from sounds import share
from stage import until

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.s3 import S3Server
from trunkline.recordings.spool import is_written

_STORED_S = 60.0  # that a busy machine has
_SELECT = """
SELECT call.from_number, call.external_id AS linkedid, call.ended_at, recording.id, recording.path, recording.state,
    recording.reason, leg.channel_id, file.key, file.size, file.metadata ->> 'sha256' AS sha256
FROM call_recording AS recording
LEFT JOIN call ON call.id = recording.call_id
LEFT JOIN call_leg AS leg ON leg.call_id = call.id AND leg.channel_id = recording.channel_id
LEFT JOIN media_file AS file ON file.id = recording.media_file_id
"""
_TOLD = "SELECT data::jsonb #>> '{recording,id}' AS id FROM event WHERE type = 'call.recording_stored'"


@dataclass
class Figures:
    """What became of the recordings; printed when all tests of a module are done."""

    calls: int = 0
    stored: int = 0
    lost: int = 0
    doubled: int = 0
    more: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        numbers = {"calls": self.calls, **self.more, "stored": self.stored, "lost": self.lost, "doubled": self.doubled}
        return ", ".join(f"{name} {count}" for name, count in numbers.items())


class Vault:
    """One daemon's database, spool and part of the bucket; and a hard link to each file that was ever in the spool.

    Such a link is another name of the same bytes: the daemon removes its own name, and the test still has what the PBX
    wrote.
    """

    def __init__(self, pbx: Asterisk, url: str, server: S3Server, prefix: str, directory: Path) -> None:
        self.pbx, self.url, self.server, self.prefix = pbx, url, server, prefix
        self.written: dict[str, Path] = {}  # by the path that the PBX knows it by
        self.figures = Figures()
        self._links = directory / "written"
        self._links.mkdir()
        where = server.endpoint.removeprefix("http://")
        self._client = minio.Minio(where, server.access_key, server.secret_key, secure=False)
        self._runner = asyncio.Runner()
        self._database = self._runner.run(asyncpg.connect(url))

    def close(self) -> None:
        self._runner.run(self._database.close())
        self._runner.close()

    def keep(self) -> None:
        """Link what is in the spool now, each file once."""
        for path in self.spool():
            if str(path) not in self.written:
                self.written[str(path)] = self._links / path.name
                os.link(path, self._links / path.name)

    def complete(self) -> dict[str, str]:
        """The SHA-256 of each file that was in the spool, once the PBX has closed them all."""

        def closed() -> bool:
            for link in self.written.values():
                with link.open("rb", buffering=0) as file:
                    if is_written(file) is not False:
                        return False
            return True

        until("the PBX has closed its files", closed)
        return {path: sha256(link.read_bytes()).hexdigest() for path, link in self.written.items()}

    def spool(self) -> list[Path]:
        return sorted(path for path in self.pbx.recordings.rglob("*") if path.is_file())

    def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        return self._runner.run(self._database.fetch(statement, *values))

    def execute(self, statements: str) -> None:
        self._runner.run(self._database.execute(statements))

    def rows(self) -> list[asyncpg.Record]:
        return self.fetch(_SELECT)

    def states(self) -> Counter[str]:
        return Counter(row["state"] for row in self.fetch("SELECT state FROM call_recording"))

    def jobs(self) -> int:
        return int(self.fetch("SELECT count(*) FROM jobs.pgqueuer")[0][0])

    def objects(self) -> dict[str, int]:
        """Keys and sizes of what this daemon has put into the bucket."""
        found = self._client.list_objects(bucket_name="recordings", prefix=self.prefix, recursive=True)
        return {one.object_name: one.size for one in found}

    def content(self, key: str) -> bytes:
        answer = self._client.get_object(bucket_name="recordings", object_name=key)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def told(self) -> str:
        """What there is to do, for a message."""
        reasons = sorted({row["reason"] or "" for row in self.rows()})
        jobs = Counter(row["status"] for row in self.fetch("SELECT status::text FROM jobs.pgqueuer"))
        return f"{dict(self.states())} ({reasons}), jobs {dict(jobs)}, {len(self.spool())} files in the spool"

    def settle(self, tones: dict[str, int]) -> None:
        """Wait until nothing is left to do; then each call has one recording: stored once, whole, told once, its own.

        tones: what each caller has said, by number.
        """
        count = len(tones)

        def done() -> bool:
            return self.jobs() == 0 and self.states()["stored"] >= count and not self.spool()

        try:
            until(f"{count} are stored", done, _STORED_S)
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.told()}") from None
        rows, digests, objects = self.rows(), self.complete(), self.objects()
        told = Counter(row["id"] for row in self.fetch(_TOLD))
        files = self.fetch("SELECT count(*) FROM media_file")[0][0]
        sounds = {row["path"]: self.content(row["key"]) for row in rows if row["key"]}
        kept = [
            row["from_number"]
            for row in rows
            if row["state"] == "stored"
            and sha256(sounds[row["path"]]).hexdigest() == row["sha256"] == digests[row["path"]]
        ]
        self.figures.calls = count
        self.figures.stored = len(kept)
        self.figures.lost = len(set(tones) - set(kept))
        self.figures.doubled = max(len(rows), len(objects), told.total(), files) - count
        assert sorted(kept) == sorted(tones)
        assert objects == {row["key"]: len(sounds[row["path"]]) for row in rows}
        assert told == {str(row["id"]): 1 for row in rows}
        assert (len(rows), files, len(digests)) == (count, count, count)
        for row in rows:
            assert Path(row["path"]).name == f"{row['linkedid']}_{row['channel_id']}.wav"  # its call's and its leg's
        assert {n: heard for n, heard in _strangers(rows, sounds, tones).items() if heard} == {}

    def backends(self) -> int:
        """Others that are connected to the database."""
        return int(
            self.fetch(
                """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
            )[0][0]
        )


def _strangers(rows: Sequence[Any], sounds: dict[str, bytes], tones: dict[str, int]) -> dict[str, str]:
    """Whose recording is not of their own voice alone, and what it is."""
    found = {}
    for row in rows:
        sound, hz = sounds[row["path"]], tones[row["from_number"]]
        with wave.open(io.BytesIO(sound)) as read:
            seconds = read.getnframes() / read.getframerate()
        own, others = share(sound, hz), max(share(sound, hz - 10), share(sound, hz + 10))
        if not (own > 0.1 and own > 4 * others):
            found[row["from_number"]] = f"{own:.2f} of {hz} Hz, {others:.2f} of its neighbours, {seconds:.2f} s"
    return found
