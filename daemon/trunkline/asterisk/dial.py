"""Open the connection to an AMI: name, TCP, TLS; each failure with its reason and what to do about it."""

import contextlib
import socket
import ssl
from dataclasses import dataclass

import structlog
import trio
from trio.abc import Stream

from trunkline.asterisk.session import Credentials, LinkError, Reason

RECEIVE_BUFFER = (
    4 << 20
)  # bytes; Asterisk closes a session whose reader stalls for `writetimeout`, so let the kernel hold much
CONNECT_TIMEOUT_S = 5.0
_SO_RCVBUFFORCE = 33  # Linux; needs CAP_NET_ADMIN, and then is not limited by net.core.rmem_max

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an AMI listens, and how to talk to it."""

    host: str
    port: int = 5038
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """One login at one PBX. `name` is what logs and metrics call it; `systemname` None means: whatever it says."""

    name: str
    address: Address
    credentials: Credentials
    systemname: str | None = None


def tell_down(event: str, pbx: str, address: Address, failure: LinkError, retry_s: float) -> None:
    """Log why a link is not up, and when it is tried again."""
    log.warning(
        event,
        pbx=pbx,
        address=str(address),
        reason=failure.reason.value,
        detail=failure.detail,
        todo=failure.todo,
        retry_s=round(retry_s, 1),
    )


async def open_stream(address: Address) -> Stream:
    """Connect; the first address of the name that answers wins. Raises LinkError."""
    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LinkError(
            Reason.DNS,
            f"{address.host!r} has no address ({error})",
            "check the spelling of host and this machine's DNS",
        ) from None
    failure: LinkError | None = None
    for family, kind, proto, _, where in found:
        try:
            stream = await _connect(family, kind, proto, where, address)
        except LinkError as error:
            failure = failure or error
        else:
            return stream if address.tls is None else await _encrypt(stream, address, address.tls)
    assert failure is not None  # noqa: S101 - getaddrinfo gives one address at least, or raises
    raise failure


async def _connect(
    family: int, kind: int, proto: int, where: tuple[str | int | bytes, ...], address: Address
) -> trio.SocketStream:
    sock = trio.socket.socket(family, kind, proto)
    try:
        _widen(sock)
        with trio.fail_after(CONNECT_TIMEOUT_S):
            await sock.connect(where)
        return trio.SocketStream(sock)
    except trio.TooSlowError:
        sock.close()
        raise LinkError(
            Reason.TIMEOUT,
            f"{address} ({where[0]!s}) did not answer in {CONNECT_TIMEOUT_S:g} s",
            "check that the PBX is up and that no firewall drops the port",
        ) from None
    except ConnectionRefusedError:
        sock.close()
        raise LinkError(
            Reason.PORT_CLOSED,
            f"nothing listens on {address} ({where[0]!s})",
            "is Asterisk running, and has manager.conf enabled = yes and a bindaddr that this machine can reach?",
        ) from None
    except OSError as error:
        sock.close()
        raise LinkError(
            Reason.UNREACHABLE,
            f"{address} ({where[0]!s}): {error.strerror or error}",
            "check the route to the PBX and its firewall",
        ) from None
    except BaseException:
        sock.close()
        raise


def _widen(sock: trio.socket.SocketType) -> None:
    """Make the receive buffer as big as the kernel lets us; before connect, for TCP's window scale is fixed there."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:
        with contextlib.suppress(OSError):  # a smaller one works too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


async def _encrypt(stream: trio.SocketStream, address: Address, context: ssl.SSLContext) -> Stream:
    tls = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            await tls.do_handshake()
    except trio.TooSlowError:
        await trio.aclose_forcefully(stream)
        raise LinkError(
            Reason.TLS, f"{address} does not speak TLS", "use the port of tlsbindaddr (5039), or set tls to off"
        ) from None
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            detail = f"the certificate of {address} is not trusted: {cause.verify_message}"
            todo = "set tls to the path of the CA file that signed it; host has to be the name in the certificate"
        else:
            detail = f"TLS with {address} failed: {cause or error}"
            todo = "use the port of tlsbindaddr (5039) and check tlscertfile in manager.conf"
        raise LinkError(Reason.TLS, detail, todo) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls
