"""The client that posts to strangers: to a checked address, within a deadline, reading little, following nothing."""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from trunkline.crm.webhooks.destination import Destinations, Refused

DEADLINE_S: Final = 15.0  # for all of it: the name, the connection, TLS, the request, the answer
MOST_READ: Final = 64 * 1024  # bytes of an answer
KEPT: Final = 1024  # characters of it that are shown
USER_AGENT: Final = f"trunkline/{version('trunkline')} (webhooks)"


class Answer(NamedTuple):
    """What a receiver said. status None: nothing, and `error` says why; beginning: of the body, None without any."""

    status: int | None
    error: str | None
    beginning: str | None
    duration_ms: int
    refused: bool = False  # we did not even connect

    @property
    def delivered(self) -> bool:
        """Whether it took the message."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether it wants none any more."""
        return self.status == 410


class WebhookClient:
    """Posts. Every request has a connection of its own, so every request is checked."""

    def __init__(self, destinations: Destinations, *, tls: ssl.SSLContext | None = None) -> None:
        """tls: how certificates are checked; None: by the system's CAs."""
        self.destinations = destinations
        self._tls: ssl.SSLContext | bool = tls or True

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, deadline_s: float = DEADLINE_S
    ) -> Answer:
        """Post a body once; whatever comes of it is an answer. The error tells nothing of the URL but its host."""
        began = time.perf_counter()
        status: int | None = None
        read: bytes | None = None
        error: str | None = None
        refused = False
        try:
            async with asyncio.timeout(deadline_s):
                status, read = await self._post(url, body, headers)
            if not 200 <= status < 300:
                error = f"it answered {status}" + (", which is not followed" if 300 <= status < 400 else "")
        except Refused as refusal:
            error, refused = str(refusal), True
        except aiohttp.InvalidURL:
            error, refused = "it is no URL", True
        except TimeoutError:
            error = f"no whole answer within {deadline_s:g} s"
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as fault:
            refusal_in = _refusal(fault)
            error, refused = (str(refusal_in), True) if refusal_in is not None else (_told(fault), False)
        duration_ms = round((time.perf_counter() - began) * 1000)
        return Answer(status, error, None if read is None else _shown(read), duration_ms, refused)

    async def _post(self, text: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        url = self.destinations.parse(text)
        connector = aiohttp.TCPConnector(
            resolver=_CheckedNames(self.destinations),
            socket_factory=self._socket,
            use_dns_cache=False,
            force_close=True,
            limit=1,
            ssl=self._tls,
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
                skip_auto_headers=("Accept", "Accept-Encoding"),
            ) as session,
            session.post(
                url,
                data=body,
                headers={**headers, "User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                allow_redirects=False,
            ) as response,
        ):
            read = bytearray()
            while len(read) < MOST_READ and (chunk := await response.content.read(MOST_READ - len(read))):
                read += chunk
            return response.status, bytes(read)

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last word: a socket for this very address, however it was come by (a URL's own address has no name)."""
        family, kind, protocol, _, address = info
        if not self.destinations.permits(str(address[0])):
            raise _NotPermitted
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


class _NotPermitted(OSError):
    """A connection to an address that is not permitted; an OSError, so that aiohttp takes it for one that failed."""

    def __str__(self) -> str:
        return "it does not lead to a public address"


class _CheckedNames(AbstractResolver):
    """Resolves a name to addresses that are all permitted, or to none."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._destinations.addresses(host, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _refusal(fault: BaseException | None) -> Exception | None:
    """The refusal that a fault of aiohttp was made of."""
    while fault is not None:
        if isinstance(fault, Refused | _NotPermitted):
            return fault
        fault = getattr(fault, "os_error", None) or fault.__cause__ or fault.__context__
    return None


def _told(fault: Exception) -> str:
    """A fault in words that hold nothing of the URL."""
    match fault:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not good: {getattr(fault.certificate_error, 'verify_message', 'see its TLS')}"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "TLS failed: it speaks none, or none that we do"
        case aiohttp.ClientConnectorError():
            return f"it cannot be connected to: {fault.os_error.strerror or 'no answer'}"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return "it closed the connection before it had answered"
        case aiohttp.ClientPayloadError():
            return "its answer broke off"
        case _:
            return "its answer is no HTTP"


def _shown(read: bytes) -> str:
    text = read[: KEPT * 4].decode("utf-8", "replace")[:KEPT]
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
