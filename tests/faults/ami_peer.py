"""A scripted AMI: a real socket on loopback that says what a test wants it to say.

It does the ordinary things (banner, login, lists, Getvar, Ping) until a test tells it otherwise.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio

from trunkline.asterisk.dial import Address, LinkSettings
from trunkline.asterisk.event import Event
from trunkline.asterisk.link import Hello
from trunkline.asterisk.lists import Snapshot
from trunkline.asterisk.session import Credentials

BANNER = b"Asterisk Call Manager/11.0.0\r\n"
LISTS = {
    "CoreShowChannels": ("Channels will follow", "CoreShowChannelsComplete"),
    "Status": ("Channel status will follow", "StatusComplete"),
    "BridgeList": ("Bridge listing will follow", "BridgeListComplete"),
    "QueueStatus": ("Queue status will follow", "QueueStatusComplete"),
    "ParkedCalls": ("Parked calls will follow", "ParkedCallsComplete"),
}


def packet(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def event(kind: str, *lines: str, at: float = 1795347145.5, systemname: str | None = "pbx1") -> bytes:
    """An event as Asterisk writes it."""
    named = [f"SystemName: {systemname}"] if systemname else []
    return packet(f"Event: {kind}", "Privilege: call,all", f"Timestamp: {at:.6f}", *named, *lines)


def channel_lines(number: int, *more: str) -> list[str]:
    uniqueid = f"pbx1-1795347145.{number}"
    return [
        f"Channel: PJSIP/trunk-{number:08x}", "ChannelState: 4", "ChannelStateDesc: Ring", "CallerIDNum: 15551234567",
        "CallerIDName: Jane Doe", "ConnectedLineNum: <unknown>", "ConnectedLineName: <unknown>", "Language: en",
        "AccountCode: ", "Context: from-trunk", "Exten: 442070001001", "Priority: 1", f"Uniqueid: {uniqueid}",
        f"Linkedid: {uniqueid}", *more,
    ]  # fmt: skip


def newchannel(number: int, **options: Any) -> bytes:
    return event("Newchannel", *channel_lines(number), **options)


class Conversation:
    """One connection of a client."""

    def __init__(self, peer: "Peer", stream: trio.SocketStream) -> None:
        self.peer = peer
        self.stream = stream
        self.actions: list[dict[str, str]] = []
        self.logged_in = False
        self._sending = trio.Lock()

    async def send(self, data: bytes) -> None:
        async with self._sending:
            await self.stream.send_all(data)

    async def cut(self) -> None:
        await trio.aclose_forcefully(self.stream)

    async def serve(self) -> None:
        try:
            await self.send(self.peer.banner)
            heard = b""
            while data := await self.stream.receive_some(65536):
                heard += data
                *blocks, heard = heard.split(b"\r\n\r\n")
                for block in blocks:
                    await self._act(dict(line.split(": ", 1) for line in block.decode().split("\r\n")))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(self.stream)

    async def _act(self, fields: dict[str, str]) -> None:
        peer = self.peer
        self.actions.append(fields)
        peer.noticed()
        if peer.mute:
            return
        answer = peer.answers.get(fields["Action"], peer.answer)(self, fields)
        if answer:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.send(answer)


class Peer:
    """The AMI. Change its attributes to change what it does."""

    def __init__(self) -> None:
        self.banner = BANNER
        self.username, self.secret, self.challenge = "events", "s3cret", "188705023"
        self.systemname = "pbx1"
        self.version = "22.10.1"
        self.uptime_s = 100
        self.started = ("2026-11-22", "14:40:18")
        self.clock = 1795347145.25
        self.fully_booted = True
        self.mute = False  # reads on, but answers nothing any more
        self.channels: list[int] = []
        self.variables: dict[str, str] = {}
        self.answers: dict[str, Callable[[Conversation, dict[str, str]], bytes]] = {}
        self.conversations: list[Conversation] = []
        self.port = 0
        self._news = trio.Event()
        self._listener: list[trio.SocketListener] = []

    async def run(self, task_status: trio.TaskStatus["Peer"] = trio.TASK_STATUS_IGNORED) -> None:
        self._listener = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = self._listener[0].socket.getsockname()[1]
        task_status.started(self)
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._accept, self._listener, handler_nursery=nursery)

    def settings(self, **changes: object) -> LinkSettings:
        values: dict[str, object] = {"secret": self.secret, "host": "127.0.0.1", "port": self.port} | changes
        return LinkSettings(
            "main",
            Address(str(values["host"]), int(str(values["port"])), values.get("tls")),  # type: ignore[arg-type]
            Credentials(self.username, str(values["secret"])),
            values.get("systemname"),  # type: ignore[arg-type]
        )

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; it is looked at whenever a client comes or asks something."""
        with trio.fail_after(600):
            while not condition():
                await self._news.wait()

    def noticed(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def asked(self, action: str) -> int:
        """How many times any client has asked for it."""
        return sum(fields["Action"] == action for c in self.conversations for fields in c.actions)

    async def _accept(self, stream: trio.SocketStream) -> None:
        conversation = Conversation(self, stream)
        self.conversations.append(conversation)
        self.noticed()
        await conversation.serve()

    def answer(self, conversation: Conversation, fields: dict[str, str]) -> bytes:
        """The ordinary answer to an action."""
        name, mine = fields["Action"], f"ActionID: {fields['ActionID']}"
        ok = ["Response: Success", mine]
        match name:
            case "Challenge":
                return packet(*ok, f"Challenge: {self.challenge}")
            case "Login":
                key = hashlib.md5((self.challenge + self.secret).encode(), usedforsecurity=False).hexdigest()
                if fields.get("Secret", fields.get("Key")) not in {self.secret, key}:
                    return packet("Response: Error", mine, "Message: Authentication failed")
                conversation.logged_in = True
                return packet(*ok, "Message: Authentication accepted") + (self.booted() if self.fully_booted else b"")
            case "CoreSettings":
                name_line = [f"SystemName: {self.systemname}"]
                return packet(*ok, "AMIversion: 11.0.0", f"AsteriskVersion: {self.version}", *name_line)
            case "CoreStatus":
                return packet(*ok, f"CoreStartupDate: {self.started[0]}", f"CoreStartupTime: {self.started[1]}")
            case "Ping":
                return packet(*ok, "Ping: Pong", f"Timestamp: {self.clock:.6f}")
            case "Getvar":
                value = self.variables.get(fields["Variable"], "")
                return packet(*ok, f"Variable: {fields['Variable']}", f"Value: {value}")
            case _ if name in LISTS:
                return b"".join(self.list_rows(name, fields["ActionID"]))
        return packet("Response: Error", mine, "Message: Permission denied")

    def booted(self) -> bytes:
        up = f"Uptime: {self.uptime_s}"
        return packet("Event: FullyBooted", "Privilege: system,all", up, "LastReload: 1", "Status: Fully Booted")

    def list_rows(self, name: str, action_id: str) -> Iterator[bytes]:
        message, complete = LISTS[name]
        mine = f"ActionID: {action_id}"
        yield packet("Response: Success", mine, "EventList: start", f"Message: {message}")
        rows = self.channels if name in {"CoreShowChannels", "Status"} else []
        for number in rows:
            if name == "Status":
                yield packet("Event: Status", "Privilege: Call", *channel_lines(number, "Seconds: 1", mine))
            else:
                yield packet("Event: CoreShowChannel", mine, *channel_lines(number, "Duration: 00:00:01", "BridgeId: "))
        yield packet(f"Event: {complete}", mine, "EventList: Complete", f"ListItems: {len(rows)}")


class Notes:
    """A consumer that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.hellos: list[Hello] = []
        self.events: list[Event] = []
        self.snapshots: list[tuple[Snapshot, list[Event]]] = []
        self.endings: list[tuple[str, float]] = []
        self._news = trio.Event()

    def connected(self, hello: Hello) -> None:
        self.hellos.append(hello)
        self._note("connected", hello)

    def event(self, event: Event) -> None:
        self.events.append(event)
        self._note("event", event)

    def resynced(self, snapshot: Snapshot, buffered: list[Event]) -> None:
        self.snapshots.append((snapshot, buffered))
        self._note("resynced", snapshot)

    def disconnected(self, reason: str, at: float) -> None:
        self.endings.append((reason, at))
        self._note("disconnected", reason)

    @property
    def order(self) -> list[str]:
        return [what for what, _ in self.told]

    @property
    def all_events(self) -> list[Event]:
        """Those told one by one and those that came with a resync."""
        return [*self.events, *(event for _, buffered in self.snapshots for event in buffered)]

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(600):
            while not condition():
                await self._news.wait()

    def _note(self, what: str, value: object) -> None:
        self.told.append((what, value))
        self._news.set()
        self._news = trio.Event()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """A deadline for waits that are to end by themselves."""
    with trio.fail_after(seconds):
        yield
