"""The spool: changes that PostgreSQL can't take now, in a local SQLite file, one row a Call, in order.

A second change of a Call goes into its row: the newest state, all happenings. What is in the file survives a kill -9 of
the daemon at once, and the loss of power from the next end of a call on. Changes that PostgreSQL refused for what is in
them are kept in the table `refused`, for a human to look at.

All of it is synchronous: a batch costs about a millisecond, and a thread for it would have to be ended, too.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from trunkline.calls.record import CallRecord
from trunkline.store.change import Change, Happening, encoded, in_order
from trunkline.store.faults import summary

FILE: Final = "calls.sqlite"
_VERSION: Final = 1
_HIGHEST: Final = 2**63 - 1  # of SQLite's integers

_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS change (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    pbx TEXT NOT NULL,
    external_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    record BLOB NOT NULL,
    happened TEXT NOT NULL, -- lines of "revision type"
    version INTEGER NOT NULL DEFAULT 1, -- grows with every write of the row
    UNIQUE (pbx, external_id)
);
CREATE TABLE IF NOT EXISTS refused (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    reason TEXT NOT NULL,
    pbx TEXT NOT NULL,
    external_id TEXT NOT NULL,
    record BLOB NOT NULL,
    happened TEXT NOT NULL
);
PRAGMA user_version = {_VERSION};
"""

# Bare columns right of SET are those of the row as it was.
_PUT: Final = """
INSERT INTO change (pbx, external_id, revision, ended, record, happened) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (pbx, external_id) DO UPDATE SET
    ended = CASE WHEN excluded.revision >= revision THEN excluded.ended ELSE ended END,
    record = CASE WHEN excluded.revision >= revision THEN excluded.record ELSE record END,
    revision = max(excluded.revision, revision),
    happened = happened || excluded.happened,
    version = version + 1
RETURNING version
"""
_TAKE: Final = "SELECT seq, version, record, happened FROM change ORDER BY seq LIMIT ?"
_LIVE: Final = "SELECT record FROM change WHERE pbx = ? AND NOT ended ORDER BY seq"
_DONE: Final = "DELETE FROM change WHERE seq = ? AND version = ?"
_REFUSE: Final = "INSERT INTO refused (at, reason, pbx, external_id, record, happened) VALUES (?, ?, ?, ?, ?, ?)"
_SET_ASIDE: Final = """
INSERT INTO refused (at, reason, pbx, external_id, record, happened)
SELECT ?, ?, pbx, external_id, record, happened FROM change WHERE seq = ?
"""

_decode: Final = msgspec.json.Decoder(CallRecord).decode


class SpoolError(Exception):
    """The spool's file can't be used; the message says which, why and what to do."""


class Spooled(NamedTuple):
    """A change in the file, and which state of its row was read."""

    seq: int
    version: int
    change: Change


class Spool:
    """The file of one daemon. Raises SpoolError whenever the file can't be read or written."""

    depth: int  # Calls that wait
    refused: int  # changes kept as refused

    def __init__(self, directory: Path) -> None:
        """Open the file in `directory`, making both where they are missing. Nobody else may have it open."""
        self.path = directory / FILE
        with self._errors():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Whose calls these are is nobody else's business; SQLite gives its other files the mode of this one.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._file = sqlite3.connect(self.path, isolation_level=None, timeout=1)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def _open(self) -> None:
        # Held from the first read until the close: a second daemon with the same spool must not drain it, too.
        self._file.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._file.execute("PRAGMA journal_mode = WAL")
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise SpoolError(
                f"{self.path}: was written by a newer trunkline (spool {version}); run that one to drain it"
            )
        self._file.executescript(_SCHEMA)
        (self.depth,) = self._file.execute("SELECT count(*) FROM change").fetchone()
        (self.refused,) = self._file.execute("SELECT count(*) FROM refused").fetchone()

    def put(self, changes: Iterable[Change]) -> None:
        """Add changes, each to what the file has of its Call. On disk at return when one of them ends a call.

        A change that has no JSON form is kept as refused.
        """
        rows = []
        odd = []
        for change in changes:
            try:
                record, text = encoded(change.record)
            except Exception as error:  # whatever it is, it is this record's
                odd.append((change, summary(error)))
                continue
            revision, ended = min(record.revision, _HIGHEST), record.ended_at is not None
            rows.append((record.pbx, record.external_id, revision, ended, text, _lines(change.happened)))
        with self._transaction(durable=any(row[3] for row in rows)):
            new = sum(self._file.execute(_PUT, row).fetchone()[0] == 1 for row in rows)
        self.depth += new
        for change, reason in odd:
            self.refuse(change, reason)

    def take(self, limit: int) -> list[Spooled]:
        """The oldest changes; they stay in the file until `done`.

        What is no CallRecord (any more: the file may be an older version's) goes to the refused ones.
        """
        while True:
            with self._errors():
                rows = self._file.execute(_TAKE, (limit,)).fetchall()
            taken = []
            for seq, version, record, lines in rows:
                try:
                    taken.append(Spooled(seq, version, Change(_decode(record), _happened(lines))))
                except (msgspec.MsgspecError, ValueError) as error:
                    self._set_aside(seq, summary(error))
            if taken or not rows:
                return taken

    def done(self, stored: Sequence[Spooled]) -> None:
        """Remove what was stored, but for Calls that have changed again since they were taken."""
        with self._transaction():
            gone = sum(self._file.execute(_DONE, (one.seq, one.version)).rowcount for one in stored)
        self.depth -= gone
        if not self.depth:
            with self._errors():  # give the disk back
                self._file.execute("VACUUM")
                self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def refuse(self, change: Change, reason: str) -> None:
        """Keep a change that PostgreSQL refused."""
        try:
            record, text = encoded(change.record)
        except Exception:  # what it holds has no JSON form
            record, text = change.record, repr(change.record).encode("ascii", "backslashreplace")
        row = (reason, record.pbx, record.external_id, text, _lines(change.happened))
        with self._transaction(durable=True):
            self._file.execute(_REFUSE, (datetime.now(UTC).isoformat(), *row))
        self.refused += 1

    def _set_aside(self, seq: int, reason: str) -> None:
        with self._transaction(durable=True):
            self._file.execute(_SET_ASIDE, (datetime.now(UTC).isoformat(), reason, seq))
            self._file.execute("DELETE FROM change WHERE seq = ?", (seq,))
        self.depth -= 1
        self.refused += 1

    def refusals(self) -> list[tuple[str, str]]:
        """The refused changes as (externalId, reason), oldest first."""
        with self._errors():
            return self._file.execute("SELECT external_id, reason FROM refused ORDER BY seq").fetchall()

    def live(self, pbx: str) -> list[CallRecord]:
        """The Calls of a PBX that wait in the file and have not ended."""
        with self._errors():
            rows = self._file.execute(_LIVE, (pbx,)).fetchall()
        records = []
        for (record,) in rows:
            with suppress(msgspec.MsgspecError):  # `take` says what is wrong with it
                records.append(_decode(record))
        return records

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):
            self._file.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            advice = "check that the disk has room, that spool.path may be written to and that no other daemon uses it"
            raise SpoolError(f"{self.path}: {error}; {advice}") from error

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[None]:
        with self._errors():
            self._file.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._file.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._file.execute("ROLLBACK")
                raise


def _lines(happened: Iterable[Happening]) -> str:
    return "".join(f"{happening.revision} {happening.type}\n" for happening in happened)


def _happened(lines: str) -> tuple[Happening, ...]:
    words = (line.split(" ", 1) for line in lines.splitlines())
    return in_order(Happening(int(revision), kind) for revision, kind in words)
