"""A PBX made of recorded captures: an AMI server on loopback that plays them as if they happened now.

For `trunkline up --pbx replay`, where no Asterisk can be had. Each play gives new calls: its times, Uniqueids, channel
names and bridges are moved so that nothing is seen twice. The lists answer what is true of the play at that moment.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

import trio

_NOT_PLAYED = ("Event: TestEvent\r\n", "Event: FullyBooted\r\n")  # of a build for tests; of the recorder's login
_TIMESTAMP = re.compile(r"^Timestamp: (\d+\.\d{6})(?=\r|\Z)", re.MULTILINE)
_SYSTEMNAME = re.compile(r"^SystemName: ([^\r\n]*)", re.MULTILINE)
_UNIQUEID = re.compile(r"(?<![\d.])(\d{10})\.(\d{1,5})(?!\d)")
_CHANNEL_NUMBER = re.compile(r"-([0-9a-f]{8})(?![0-9a-f-])")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SNAPSHOT = (
    "Channel ChannelState ChannelStateDesc CallerIDNum CallerIDName ConnectedLineNum ConnectedLineName Language "
    "AccountCode Context Exten Priority Uniqueid Linkedid"
).split()
_LISTS = {
    "CoreShowChannels": ("Channels will follow", "CoreShowChannelsComplete"),
    "Status": ("Channel status will follow", "StatusComplete"),
    "BridgeList": ("Bridge listing will follow", "BridgeListComplete"),
    "QueueStatus": ("Queue status will follow", "QueueStatusComplete"),
    "ParkedCalls": ("Parked calls will follow", "ParkedCallsComplete"),
}


class Capture(NamedTuple):
    """One recorded stream: its events, each with its own Timestamp, in the order of the wire."""

    name: str
    systemname: str
    events: list[tuple[float, str]]


def load(folder: Path) -> Capture:
    """Read `folder`/ami.raw. What only answers an action, and the login's own events, are left out."""
    text = (folder / "ami.raw").read_bytes().decode("utf-8", "surrogateescape")
    events: list[tuple[float, str]] = []
    for block in text.split("\r\n\r\n"):
        block = block.lstrip("\r\n")
        stamp = _TIMESTAMP.search(block)
        if stamp is None and events and not block.startswith(("Event: ", "Response: ")) and block:
            at, before = events[-1]  # the tail of an event that a caller's CR LF has cut in two
            events[-1] = (at, f"{before}\r\n\r\n{block}")
        elif stamp is not None and "\r\nPrivilege: security,all\r\n" not in block and not block.startswith(_NOT_PLAYED):
            events.append((float(stamp[1]), block))
    name = _SYSTEMNAME.search(events[0][1]) if events else None
    return Capture(folder.name, name[1] if name is not None else "", events)


def loadable(folder: Path) -> bool:
    """Has this folder a capture that can be played: one session, with events in it?"""
    return (folder / "ami.raw").is_file() and not (folder / "ami2.raw").exists() and bool(load(folder).events)


class _Shift:
    """Moves one play of a capture to now: ids that belong together stay together, and none was there before."""

    def __init__(self, since: float, to: float, first_id: int) -> None:
        self._seconds = to - since
        self._epochs = int(to) - int(since)
        self._first = first_id
        self.next_id = first_id
        self._bridges = uuid5(NAMESPACE_OID, secrets.token_hex(8))

    def __call__(self, block: str) -> str:
        block = _UUID.sub(lambda found: str(uuid5(self._bridges, str(UUID(found[0])))), block)
        block = _UNIQUEID.sub(self._uniqueid, block)
        block = _CHANNEL_NUMBER.sub(lambda found: f"-{int(found[1], 16) + self._first:08x}", block)
        return _TIMESTAMP.sub(lambda found: f"Timestamp: {float(found[1]) + self._seconds:.6f}", block)

    def _uniqueid(self, found: re.Match[str]) -> str:
        number = int(found[2]) + self._first
        self.next_id = max(self.next_id, number + 1)
        return f"{int(found[1]) + self._epochs}.{number}"


class ReplayPbx:
    """The AMI server; `run()` serves, `play()` plays. Log in as `username` with `secret`."""

    def __init__(
        self, captures: Sequence[Path], *, host: str = "127.0.0.1", port: int = 0, now: Callable[[], float] = time.time
    ) -> None:
        self.captures = [load(folder) for folder in captures]
        self.username, self.secret = "replay", secrets.token_hex(16)
        self.systemname = next((c.systemname for c in self.captures if c.systemname), "")
        self.host, self.port = host, port
        self._now = now
        self._started = now()
        self._next_id = 0
        self._sessions: dict[trio.MemorySendChannel[str], str] = {}  # who gets events
        self._channels: dict[str, dict[str, str]] = {}
        self._variables: dict[str, dict[str, str]] = {}  # by channel name

    async def run(self, *, task_status: trio.TaskStatus["ReplayPbx"] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `port` is the real one once it has started."""
        listeners = await trio.open_tcp_listeners(self.port, host=self.host)
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started(self)
        await trio.serve_listeners(self._serve, listeners)

    async def play(self, *, speed: float = 1.0, pause_s: float = 2.0, times: int | None = 1) -> None:
        """Play all captures one after the other, `times` over (None: for ever), with `pause_s` between two."""
        played = 0
        while times is None or played < times:
            for capture in self.captures:
                await self._play(capture, speed)
                await trio.sleep(pause_s)
            played += 1

    async def _play(self, capture: Capture, speed: float) -> None:
        first = capture.events[0][0]
        began, began_at = trio.current_time(), self._now()
        shift: _Shift | None = None
        for at, block in capture.events:
            due = (at - first) / speed
            await trio.sleep_until(began + due)
            if shift is None:
                shift = _Shift(first, began_at, self._next_id)
            # At another speed the times shrink or stretch with it, so that no event is from the future.
            moved = shift(_TIMESTAMP.sub(f"Timestamp: {first + due:.6f}", block))
            self._next_id = shift.next_id
            self._note(moved)
            for session in list(self._sessions):
                session.send_nowait(moved)
        self._channels.clear()  # of a recording that ends in mid-call
        self._variables.clear()

    def _note(self, block: str) -> None:
        """Keep what the lists will be asked for."""
        fields = dict(line.split(": ", 1) for line in reversed(block.split("\r\n")) if ": " in line)
        uniqueid, kind = fields.get("Uniqueid", ""), fields["Event"]
        if not uniqueid or "Linkedid" not in fields:
            return
        if kind == "Hangup":
            self._channels.pop(uniqueid, None)
            self._variables.pop(fields["Channel"], None)
            return
        if kind == "Newchannel" or uniqueid in self._channels:
            row = self._channels.setdefault(uniqueid, {"BridgeId": ""})
            row.update((key, fields[key]) for key in _SNAPSHOT if key in fields)
            if kind == "BridgeEnter":
                row["BridgeId"] = fields.get("BridgeUniqueid", "")
            elif kind == "BridgeLeave":
                row["BridgeId"] = ""
            elif kind == "VarSet":
                self._variables.setdefault(fields["Channel"], {})[fields.get("Variable", "")] = fields.get("Value", "")

    async def _serve(self, stream: trio.SocketStream) -> None:
        outgoing, to_send = trio.open_memory_channel[str](100_000)
        outgoing.send_nowait("Asterisk Call Manager/11.0.0")

        async def write() -> None:
            end = "\r\n"  # of the banner; packets end with an empty line
            async for text in to_send:
                await stream.send_all((text + end).encode("utf-8", "surrogateescape"))
                end = "\r\n\r\n"

        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write)
                    await self._read(stream, outgoing)
                    nursery.cancel_scope.cancel()
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._sessions.pop(outgoing, None)
                await trio.aclose_forcefully(stream)

    async def _read(self, stream: trio.SocketStream, outgoing: trio.MemorySendChannel[str]) -> None:
        heard, challenge = b"", secrets.token_hex(4)
        async for data in stream:
            heard += data
            *blocks, heard = heard.split(b"\r\n\r\n")
            if len(heard) > 65536:
                return
            for block in blocks:
                lines = block.decode("utf-8", "replace").split("\r\n")
                fields = dict(line.split(": ", 1) for line in lines if ": " in line)
                for answer in self._answers(fields, challenge, outgoing):
                    outgoing.send_nowait(answer)

    def _answers(self, fields: dict[str, str], challenge: str, outgoing: trio.MemorySendChannel[str]) -> Iterator[str]:
        name, mine = fields.get("Action", ""), f"ActionID: {fields.get('ActionID', '')}"
        ok = f"Response: Success\r\n{mine}"
        if name == "Challenge":
            yield f"{ok}\r\nChallenge: {challenge}"
        elif name == "Login":
            key = hashlib.md5((challenge + self.secret).encode(), usedforsecurity=False).hexdigest()
            right = self.secret if "Secret" in fields else key
            given = fields.get("Secret", fields.get("Key", ""))
            if fields.get("Username") != self.username or not secrets.compare_digest(given.encode(), right.encode()):
                yield f"Response: Error\r\n{mine}\r\nMessage: Authentication failed"
                return
            yield f"{ok}\r\nMessage: Authentication accepted"
            uptime = int(self._now() - self._started)
            yield f"Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: {uptime}\r\nStatus: Fully Booted"
            self._sessions[outgoing] = fields["Username"]
        elif outgoing not in self._sessions:
            yield f"Response: Error\r\n{mine}\r\nMessage: Permission denied"
        elif name in _LISTS:
            yield from self._list(name, mine)
        elif name == "CoreSettings":
            yield f"{ok}\r\nAMIversion: 11.0.0\r\nAsteriskVersion: 22.10.1-replay\r\nSystemName: {self.systemname}"
        elif name == "CoreStatus":
            started = time.strftime(
                "CoreStartupDate: %Y-%m-%d\r\nCoreStartupTime: %H:%M:%S", time.gmtime(self._started)
            )
            yield f"{ok}\r\n{started}"
        elif name == "Ping":
            yield f"{ok}\r\nPing: Pong\r\nTimestamp: {self._now():.6f}"
        elif name == "Getvar":
            value = self._variables.get(fields.get("Channel", ""), {}).get(fields.get("Variable", ""), "")
            yield f"{ok}\r\nVariable: {fields.get('Variable', '')}\r\nValue: {value}"
        else:
            yield f"Response: Error\r\n{mine}\r\nMessage: A replay cannot do this"

    def _list(self, name: str, mine: str) -> Iterator[str]:
        message, complete = _LISTS[name]
        yield f"Response: Success\r\n{mine}\r\nEventList: start\r\nMessage: {message}"
        rows = list(self._channels.values()) if name in ("CoreShowChannels", "Status") else []
        for row in rows:
            lines = "\r\n".join(f"{key}: {value}" for key, value in row.items() if key != "BridgeId")
            if name == "Status":
                yield f"Event: Status\r\nPrivilege: Call\r\n{lines}\r\nBridgeID: {row['BridgeId']}\r\n{mine}"
            else:
                yield f"Event: CoreShowChannel\r\n{mine}\r\n{lines}\r\nBridgeId: {row['BridgeId']}"
        yield f"Event: {complete}\r\n{mine}\r\nEventList: Complete\r\nListItems: {len(rows)}"
