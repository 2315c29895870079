"""A live AMI stream into a folder that `trunkline replay` reads: ami.raw, after a reconnect ami2.raw, and notes.md.

What is written is what came after the login: no secret is ever in it. The lists are asked at the start of each session,
so that calls which are up already make sense. Files are for their owner only (0600).
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import trio

from trunkline.asterisk.anonymise import Anonymiser
from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.dial import LinkSettings
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.lists import RESYNC_ACTIONS
from trunkline.asterisk.session import EVENTS, LinkError, Reason, new_action_id
from trunkline.asterisk.wire import open_wire

_END = b"\r\n\r\n"


class Recording:
    """One recording under way; `run()` until cancelled, or until `calls` calls have ended."""

    def __init__(
        self,
        folder: Path,
        settings: LinkSettings,
        *,
        anonymiser: Anonymiser | None = None,
        calls: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Raises OSError when the folder cannot be made, FileExistsError when it holds a recording."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / "ami.raw").exists():
            raise FileExistsError(f"{folder} holds a recording already: name another folder")
        self.kinds: Counter[str] = Counter()
        self.ended = 0  # calls, by their Linkedid
        self._folder = folder
        self._settings = settings
        self._anonymiser = anonymiser
        self._calls = calls
        self._say = say
        self._sessions = 0
        self._began = time.time()
        self._version = self._systemname = ""
        self._alive: dict[str, set[str]] = {}  # Uniqueids by Linkedid
        self._linked: dict[str, str] = {}
        self._enough = trio.Event()
        self._file: BinaryIO | None = None
        self._accepted = False
        self._rest = b""

    async def run(self) -> None:
        """Record; reconnects when the PBX goes away. Raises LinkError when the first connection cannot be made."""
        backoff = Backoff()
        try:
            while not self._enough.is_set():
                try:
                    await self._session()
                except LinkError as error:
                    if not self._sessions or error.reason is Reason.LOGIN_REFUSED:
                        raise
                    wait_s = backoff.next_s(refused=False)
                    self._say(f"{error.detail}; again in {wait_s:.1f} s")
                    await trio.sleep(wait_s)
        finally:
            self._close()
            if self._sessions:
                self._write_notes()

    async def _session(self) -> None:
        self._accepted, self._rest = False, b""
        try:
            async with open_wire(self._settings, self._on_frame, on_chunk=self._on_chunk, events=EVENTS) as wire:
                self._version, self._systemname = wire.session.pbx.version, wire.session.pbx.systemname
                for action in RESYNC_ACTIONS:
                    wire.send(action, (), new_action_id())
                self._say(f"recording {self._systemname or self._settings.address} into {self._folder}")
                await self._enough.wait()
        finally:
            self._close()

    def _on_chunk(self, data: bytes) -> None:
        *blocks, self._rest = (self._rest + data).split(_END)
        for block in blocks:
            if self._accepted:
                self._write(block + _END)
            elif block.startswith(b"Response: Success") and b"Message: Authentication accepted" in block:
                self._accepted = True
                self._open()

    def _on_frame(self, frame: Frame | Event) -> None:
        if not frame.kind or "Privilege" not in frame.fields:
            return
        self.kinds[frame.kind] += 1
        uniqueid, linkedid = frame.fields.get("Uniqueid", ""), frame.fields.get("Linkedid", "")
        if frame.kind == "Newchannel":
            self._linked[uniqueid] = linkedid
            self._alive.setdefault(linkedid, set()).add(uniqueid)
        elif frame.kind == "Hangup" and (linkedid := self._linked.pop(uniqueid, "")):
            self._alive[linkedid].discard(uniqueid)
            if not self._alive[linkedid]:
                del self._alive[linkedid]
                self.ended += 1
                if self._calls is not None and self.ended >= self._calls and not self._alive:
                    self._enough.set()

    def _open(self) -> None:
        self._sessions += 1
        name = "ami.raw" if self._sessions == 1 else f"ami{self._sessions}.raw"
        self._file = _create(self._folder / name)

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            if self._anonymiser is not None:
                text = data.decode("utf-8", "surrogateescape")
                data = self._anonymiser.block(text).encode("utf-8", "surrogateescape")
            self._file.write(data)

    def _close(self) -> None:
        if self._file is not None:
            self._write(self._rest)
            self._file.close()
            self._file, self._rest = None, b""

    def _write_notes(self) -> None:
        numbers = "pseudonyms" if self._anonymiser is not None else "REAL: do not publish this recording"
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.kinds.most_common())
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._began))
        lines = [
            f"# Recorded by trunkline, {began}, {time.time() - self._began:.0f} s, {self._sessions} session(s)",
            "",
            f"- Asterisk {self._version or '?'}, systemname {self._systemname or '(none)'}",
            f"- numbers and names: {numbers}",
            f"- calls that began and ended: {self.ended}",
            f"- events: {kinds or 'none'}",
            "",
        ]
        with _create(self._folder / "notes.md") as file:
            file.write("\n".join(lines).encode("utf-8", "replace"))


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
