"""The ARI link of one PBX: told of every recording that ARI makes there, by a websocket that is made again when lost.

It only listens. A user that may only read is enough, and nothing is asked of the PBX but its name: what it tells is
AMI's supplement, for AMI has no event of these recordings. What was recorded while the link was away is found in its
directory by the sweeper (recordings/sweep.py).
"""

import logging
import ssl
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import Final, NoReturn
from urllib.parse import urlsplit

import structlog
import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.trio.client import ClientConnection, connect

from trunkline.asterisk.ari_events import AriRecording, BadAriEvent, Replaced, answer_of, decode, request, systemname_of
from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.dial import Address, open_stream, tell_down
from trunkline.asterisk.session import Credentials, LinkError, Reason

_LARGEST: Final = (
    1 << 18
)  # bytes of an event; the largest that Asterisk writes, of a channel with many variables: 30 kB
_WAITING: Final = 64  # events read ahead, at most
_TODO: Final = {
    Reason.PORT_CLOSED: "is Asterisk running, and has http.conf enabled = yes, bindaddr and bindport as in ari_url?",
    Reason.TLS: "ari_url: http:// where http.conf has no tlsenable; tls: the CA file that signed its tlscertfile",
}
# websockets would write the headers, and so the password, into the log at debug level.
_MUTE: Final = logging.Logger("trunkline.ari", logging.CRITICAL + 1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AriPatience:
    """How long to wait for what, in seconds. Half-open is noticed `ping` + `pong` seconds after the last answer."""

    handshake: float = 10.0
    ping: float = 5.0
    pong: float = 7.0
    close: float = 1.0


@dataclass(frozen=True, slots=True)
class AriSettings:
    """One ARI user at one PBX. `name` is what logs and metrics call it; `prefix` is http.conf's: "/asterisk", or ""."""

    name: str
    address: Address
    credentials: Credentials
    prefix: str = ""


def ari_settings(name: str, url: str, username: str, secret: str, ca_file: str | None = None) -> AriSettings:
    """Those of an ARI at a URL; with https its certificate is held against the system's CAs, or those of the file.

    Raises OSError, ssl.SSLError for a file that holds none.
    """
    parts = urlsplit(url)
    tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
    address = Address(parts.hostname or "", parts.port or (8088 if tls is None else 8089), tls)
    return AriSettings(name, address, Credentials(username, secret), parts.path.rstrip("/").removesuffix("/ari"))


class AriLink:
    """`run()` is its life. The public attributes are for metrics and readiness to read.

    consumer: is given every event of a recording, as it is read; returns at once and raises nothing. expected: the
    systemname of the PBX that AMI knows, "" while it knows none. Its application has a name of its own, for two of the
    same name would silence each other.
    """

    def __init__(
        self,
        settings: AriSettings,
        consumer: Callable[[AriRecording], None],
        *,
        expected: Callable[[], str] = lambda: "",
        patience: AriPatience | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = settings.name
        self.up = False
        self.failure: LinkError | None = None  # why it is not up; None while it is
        self.connects = 0
        self.reconnects = 0
        self.connect_failures: Counter[str] = Counter()  # by Reason; a link that was up and was lost counts too
        self.recordings: Counter[str] = Counter()  # events, by RecordingIs
        self.bad = 0  # events of recordings that were not as Asterisk writes them
        self._settings = settings
        self._consumer = consumer
        self._expected = expected
        self._patience = patience or AriPatience()
        self._backoff = backoff or Backoff()
        self._application = f"trunkline-{token_hex(4)}"
        self._systemname: str | None = None  # as ARI says it; None where it does not

    async def run(self) -> NoReturn:
        """Keep the link up, for ever: only cancellation ends it."""
        while True:
            connects, since = self.connects, trio.current_time()
            try:
                failure = self.failure = await self._session()
            finally:
                self.up = False
            self.connect_failures[failure.reason] += 1
            if self.connects > connects:
                self.reconnects += 1
                self._backoff.held(trio.current_time() - since)
            wait_s = self._backoff.next_s(refused=failure.refused)
            tell_down("ari.down", self.name, self._settings.address, failure, wait_s)
            await trio.sleep(wait_s)

    async def _session(self) -> LinkError:
        """One connection from its opening to its end; returns why it ended."""
        try:
            async with open_ari(self._settings, self._application, self._patience) as socket:
                self.connects += 1
                self.up, self.failure, self._systemname = True, None, None
                log.info("ari.connected", pbx=self.name, address=str(self._settings.address))
                await self._follow(socket)
        except LinkError as error:
            return error
        except Exception as error:  # whatever a peer has made the library do: calls go on without ARI
            log.exception("ari.fault", pbx=self.name, todo="please report it")
            return LinkError(Reason.CLOSED, f"a fault of ours: {type(error).__name__}", "see ari.fault in the log")

    async def _follow(self, socket: ClientConnection) -> NoReturn:
        """Read for ever. Raises ConnectionClosed, LinkError."""
        await socket.send(
            request("GET", "asterisk/info?only=config")
        )  # an Asterisk before 20.14 and 22.4 does not answer
        while True:
            message = await socket.recv(decode=False)
            try:
                told = decode(message)
            except BadAriEvent as error:
                self.bad += 1
                log.warning("ari.bad_event", pbx=self.name, error=str(error), todo="please report it")
                continue
            match told:
                case None:
                    if (answer := answer_of(message)) is not None:
                        self._systemname = systemname_of(answer)
                        self._check_name()
                case Replaced():
                    raise LinkError(
                        Reason.CLOSED, "another connection took our application over", "nothing: it is rare"
                    )
                case AriRecording():
                    self._check_name()
                    self.recordings[told.state] += 1
                    self._consumer(told)

    def _check_name(self) -> None:
        expected = self._expected()
        if self._systemname and expected and self._systemname != expected:
            raise LinkError(
                Reason.WRONG_PBX,
                f"ARI is that of the PBX {self._systemname!r}, AMI that of {expected!r}",
                "correct ari_url in the [[pbx]] section",
            )


@asynccontextmanager
async def open_ari(settings: AriSettings, application: str, patience: AriPatience) -> AsyncIterator[ClientConnection]:
    """A websocket that is told of everything on the PBX, for the time of the block.

    Raises LinkError when there is none, or when it ends before.
    """
    try:
        stream = await open_stream(settings.address)
    except LinkError as error:
        raise LinkError(error.reason, error.detail, _TODO.get(error.reason, error.todo)) from None
    user, host = settings.credentials, settings.address.host
    key = b64encode(f"{user.username}:{user.secret}".encode()).decode()
    where = f"{f'[{host}]' if ':' in host else host}:{settings.address.port}{settings.prefix}"
    socket = None
    try:
        async with connect(
            f"ws://{where}/ari/events?app={application}&subscribeAll=true",
            stream=stream,  # encrypted already, where it is to be; no redirect is followed with it
            additional_headers={"Authorization": f"Basic {key}"},
            proxy=None,
            compression=None,
            open_timeout=patience.handshake,
            ping_interval=patience.ping,
            ping_timeout=patience.pong,
            close_timeout=patience.close,
            max_size=_LARGEST,
            max_queue=_WAITING,
            logger=_MUTE,
        ) as socket:
            yield socket
    except ConnectionClosed as error:
        raise _closed(error, patience) from None
    except (OSError, EOFError, ValueError, InvalidHandshake, trio.BrokenResourceError) as error:
        if socket is not None:
            raise
        raise _refusal(error, settings) from None


def _refusal(error: Exception, settings: AriSettings) -> LinkError:
    """Why a websocket could not be opened."""
    address = settings.address
    if isinstance(error.__cause__, InvalidStatus):
        error = error.__cause__  # a redirect
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403):
            return LinkError(
                Reason.LOGIN_REFUSED,
                f"the PBX refused the ARI user {settings.credentials.username!r} (HTTP status {status})",
                "compare ari_user and ari_secret with the user's section of ari.conf (read_only = yes is enough there)",
            )
        return LinkError(
            Reason.NOT_ARI,
            f"{address}{settings.prefix}/ari/events answers with HTTP status {status}",
            "enabled = yes in ari.conf, load = res_ari_events.so in modules.conf; the prefix of http.conf in ari_url",
        )
    if isinstance(error, TimeoutError):
        return LinkError(Reason.TIMEOUT, f"{address} did not answer the handshake in time", "is the PBX overloaded?")
    return LinkError(
        Reason.NOT_ARI,
        f"what {address} answers is no websocket: {str(error.__cause__ or error)[:200] or type(error).__name__}",
        "ari_url has to be as http.conf says: bindaddr and bindport with http://, tlsbindaddr with https://",
    )


def _closed(error: ConnectionClosed, patience: AriPatience) -> LinkError:
    if error.sent is not None and error.sent.reason == "keepalive ping timeout":
        return LinkError(
            Reason.SILENT,
            f"no answer to a ping within {patience.pong:g} s",
            "the network or the PBX's host is gone, or Asterisk hangs; the daemon reconnects by itself",
        )
    return LinkError(
        Reason.CLOSED,
        f"the connection ended: {str(error)[:200]}",
        "Asterisk was stopped, or websocket_write_timeout in ari.conf is too short; the daemon reconnects by itself",
    )
