"""Recorded AMI streams through codec, guard and tracker: `trunkline replay`, the tests and the benches use one way."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.guard import Guard
from trunkline.asterisk.lists import LIST_KINDS, ListCollector
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.record import CallRecord
from trunkline.calls.tracker import Tracker

_CHUNK = 1 << 16
_LIST_START = ("", "EventList", "start")


class CaptureError(Exception):
    """What was named is no capture."""


def sessions_of(path: Path) -> list[bytes]:
    """The sessions of a capture, in order: a folder's ami.raw, ami2.raw, …, or the one file."""
    if path.is_dir():
        files = sorted(path.glob("ami*.raw"), key=lambda p: (len(p.name), p.name))
        if not files:
            raise CaptureError(f"{path}: no ami.raw in this folder; `trunkline record` makes one")
    elif path.exists():
        files = [path]
    else:
        raise CaptureError(f"{path}: no such file or folder")
    return [f.read_bytes() for f in files]


def systemname_of(session: bytes) -> str | None:
    """The SystemName that the stream's first genuine event carries; None where the PBX sets none."""
    for block in session.split(b"\r\n\r\n", 64):
        lines = block.split(b"\r\n", 5)
        if len(lines) > 3 and lines[0].startswith(b"Event: ") and lines[1].startswith(b"Privilege: "):
            for line in lines[2:4]:
                if line.startswith(b"SystemName: "):
                    return line[12:].decode("utf-8", "replace")
    return None


class Replay:
    """One capture through the rooms; `records` are its Calls as they ended."""

    def __init__(self, trunks: Sequence[str], region: str | None, systemname: str | None) -> None:
        self.guard = Guard(systemname)
        self.tracker = Tracker(systemname or "", trunks=trunks, region=region)
        self.calls: dict[str, CallRecord] = {}

    def session(self, data: bytes) -> None:
        """One AMI session from login to EOF."""
        decoder = Decoder(wanted={**NEEDED, **dict.fromkeys(LIST_KINDS)}, fields=FIELDS)
        decoder.trust(self.guard)
        lists: ListCollector | None = None
        buffered: list[Event] = []
        at = 0.0
        for start in range(0, len(data), _CHUNK):
            for frame in decoder.feed(data[start : start + _CHUNK]):
                if isinstance(frame, Frame) and "ActionID" in frame.fields:
                    lists = lists or ListCollector(None)
                    if lists.feed(frame):
                        continue
                event = self.guard.check(frame, at)
                if event is None:
                    continue
                at = event.at
                if lists is None or not lists.started:
                    self.tracker.handle(event)
                elif not lists.done:
                    buffered.append(event)
                else:
                    self.tracker.resync(lists.snapshot(at), buffered)
                    lists, buffered = None, []
                    self.tracker.handle(event)
        if lists is not None and lists.started:
            self.tracker.resync(lists.snapshot(at), buffered)

    def finish(self) -> list[CallRecord]:
        """The Calls, the oldest first; one that was folded into another is not among them."""
        for update in self.tracker.take():
            for alias in update.record.aliases:
                self.calls.pop(alias, None)
            self.calls[update.record.external_id] = update.record
        return sorted(self.calls.values(), key=lambda r: (r.started_at, r.external_id))


def replay(path: Path, *, trunks: Sequence[str] = ("PJSIP/trunk*",), region: str | None = None) -> list[CallRecord]:
    """The Calls of one capture. Raises CaptureError where there is none."""
    sessions = sessions_of(path)
    names = (systemname_of(s) for s in sessions)
    run = Replay(trunks, region, next((n for n in names if n is not None), None))
    for data in sessions:
        run.session(data)
    return run.finish()


def replay_all(
    paths: Iterable[str], *, trunks: Sequence[str], region: str | None
) -> Iterable[tuple[str, list[CallRecord]]]:
    """(path as given, its Calls) one by one."""
    for path in paths:
        yield path, replay(Path(path), trunks=trunks, region=region)
