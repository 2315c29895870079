"""One AMI session from the banner to "ready", and the actions in flight. No I/O: frames in, bytes to send out.

Login is by MD5 challenge, or with the plain secret where TLS hides it. After it the session waits for FullyBooted,
because Asterisk lets one log in before it is ready, and then learns the PBX's name, version, start time and clock.
Source: Asterisk main/manager.c (action_challenge, authenticate, action_login, action_coresettings, action_corestatus).
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from trunkline.asterisk.codec import encode_action
from trunkline.asterisk.event import Frame

GREETING = "Asterisk Call Manager"
EVENTS = "system,call,agent,user,dialplan,dtmf"
"""Classes of events asked for at login; `security` stays out: strangers without credentials can write into it."""

Answer = Callable[[Frame], None]


class Reason(StrEnum):
    """Why a link is not up; the label of the metric, and the first word to look for in docs/link.md."""

    DNS = "dns"
    PORT_CLOSED = "port_closed"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    NOT_AMI = "not_ami"
    NOT_ARI = "not_ari"
    LOGIN_REFUSED = "login_refused"
    WRONG_PBX = "wrong_pbx"
    NOT_BOOTED = "not_booted"
    RESYNC_FAILED = "resync_failed"
    CLOSED = "closed"
    SILENT = "silent"
    RESTARTING = "restarting"
    SHUTDOWN = "shutdown"


class LinkError(Exception):
    """A link that could not be made or has ended: why, in which words, and what the admin may do about it."""

    def __init__(self, reason: Reason, detail: str, todo: str) -> None:
        super().__init__(f"{reason}: {detail}; {todo}")
        self.reason = reason
        self.detail = detail
        self.todo = todo

    @property
    def refused(self) -> bool:
        """Was it the peer's decision, which soon trying again will not change?"""
        return self.reason in (Reason.LOGIN_REFUSED, Reason.WRONG_PBX)


class State(Enum):
    GREETING = "waiting for the banner"
    CHALLENGE = "waiting for the login challenge"
    LOGIN = "waiting for the answer to the login"
    BOOTING = "logged in; waiting for FullyBooted"
    LEARNING = "asking the PBX who it is"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An AMI user. The secret is not in its repr."""

    username: str
    secret: str = field(repr=False)


@dataclass(slots=True)
class Pbx:
    """What the PBX says about itself."""

    systemname: str = ""  # "" when asterisk.conf sets none, or the login may not ask
    version: str = ""  # "22.10.1+dfsg..."; "" when the login may not ask
    ami_version: str = ""
    uptime_s: int | None = None  # None when FullyBooted was not seen (the login lacks the class `system`)
    started: str | None = None  # "2026-11-22 14:40:18", the PBX's local time, fixed for one run of Asterisk
    clock: float | None = None  # epoch seconds by the PBX's clock when it answered the first Ping


class Session:
    """Feed it the banner and every frame; send what `take_outgoing()` gives.

    Raises LinkError out of `greet` and `receive` when the peer is no AMI or the login is refused.
    """

    def __init__(self, credentials: Credentials, *, plain: bool = False, events: str = EVENTS) -> None:
        self.state = State.GREETING
        self.pbx = Pbx()
        self._credentials = credentials
        self._plain = plain
        self._events = events
        self._waiting: dict[str, Answer] = {}
        self._outgoing = bytearray()
        self._learning = 0

    @property
    def ready(self) -> bool:
        """Is the PBX fully booted and known?"""
        return self.state is State.READY

    def take_outgoing(self) -> bytes:
        """Return what is to be sent, and forget it."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def greet(self, banner: str) -> None:
        """Take the first line of the peer and begin the login."""
        if not banner.startswith(GREETING):
            raise LinkError(
                Reason.NOT_AMI,
                f"the peer said {banner[:60]!r} instead of {GREETING!r}",
                "check host and port: AMI is port 5038 (manager.conf [general] port), not SIP or HTTP",
            )
        self.pbx.ami_version = banner.rpartition("/")[2]
        if self._plain:
            self._login([("Secret", self._credentials.secret)])
        else:
            self.state = State.CHALLENGE
            self.ask("Challenge", [("AuthType", "MD5")], self._challenged)

    def ask(self, name: str, fields: Iterable[tuple[str, str]], answer: Answer | None, action_id: str = "") -> str:
        """Queue an action and return its ActionID; its response goes to `answer`, None leaves it to the caller.

        The ActionID is unguessable: a caller who forges AMI packets cannot forge an answer.
        """
        action_id = action_id or new_action_id()
        self._outgoing += encode_action(name, fields, action_id)
        if answer is not None:
            self._waiting[action_id] = answer
        return action_id

    def forget(self, action_id: str) -> None:
        """Give up waiting for an answer."""
        self._waiting.pop(action_id, None)

    def receive(self, frame: Frame) -> bool:
        """Take one frame; True when it was the session's own and nobody else needs it."""
        if not frame.kind:
            answer = self._waiting.pop(frame.fields.get("ActionID", ""), None)
            if answer is None:
                return False
            answer(frame)
            return True
        if frame.kind == "FullyBooted":
            if self.state is State.BOOTING:
                uptime = frame.fields.get("Uptime", "")
                self.pbx.uptime_s = int(uptime) if uptime.isdecimal() else None
                self._learn()
            return True
        return False

    def go_on_without_fullybooted(self) -> None:
        """FullyBooted never came: the PBX still boots, or the login lacks the class `system`. Ask the PBX itself.

        Raises LinkError later, when it does not answer.
        """
        if self.state is State.BOOTING:
            self._learn()

    def _challenged(self, frame: Frame) -> None:
        challenge = frame.fields.get("Challenge")
        if not challenge:
            raise _refused(self._credentials.username, frame)
        key = hashlib.md5((challenge + self._credentials.secret).encode(), usedforsecurity=False).hexdigest()
        self._login([("AuthType", "MD5"), ("Key", key)])

    def _login(self, proof: list[tuple[str, str]]) -> None:
        self.state = State.LOGIN
        fields = [("Username", self._credentials.username), *proof, ("Events", self._events)]
        self.ask("Login", fields, self._logged_in)

    def _logged_in(self, frame: Frame) -> None:
        if frame.fields.get("Response") != "Success":
            raise _refused(self._credentials.username, frame)
        self.state = State.BOOTING

    def _learn(self) -> None:
        self.state = State.LEARNING
        self._learning = 3
        self.ask("CoreSettings", (), self._learnt)
        self.ask("CoreStatus", (), self._learnt)
        self.ask("Ping", (), self._learnt)

    def _learnt(self, frame: Frame) -> None:
        said, pbx = frame.fields, self.pbx
        pbx.systemname = said.get("SystemName", pbx.systemname)
        pbx.version = said.get("AsteriskVersion", pbx.version)
        if "CoreStartupTime" in said:
            pbx.started = f"{said.get('CoreStartupDate', '')} {said['CoreStartupTime']}".strip() or None
        pbx.clock = clock(frame) or pbx.clock
        self._learning -= 1
        if not self._learning:
            self.state = State.READY


def new_action_id() -> str:
    """Return an ActionID that nobody can guess, of 32 characters."""
    return secrets.token_hex(16)


def clock(pong: Frame) -> float | None:
    """The PBX's time in the answer to a Ping; None where there is none."""
    try:
        return float(pong.fields["Timestamp"])
    except (KeyError, ValueError):
        return None


def _refused(username: str, frame: Frame) -> LinkError:
    return LinkError(
        Reason.LOGIN_REFUSED,
        f"the PBX refused the AMI user {username!r}: {frame.fields.get('Message', 'no reason given')}",
        f"compare username and secret with [{username}] in manager.conf, and its permit/deny with this machine's "
        "address; then run `asterisk -rx 'manager reload'`",
    )
