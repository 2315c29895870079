"""Where webhooks may lead: never inside. The URLs are strangers' words, and what they resolve to is theirs too.

A URL is checked when it is given, and its addresses at every connection: a name is resolved by us, each of its
addresses must be public, and the connection is made to one of these very addresses (client.py). So a name that leads
elsewhere the second time (DNS rebinding) gains nothing.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from yarl import URL

from trunkline.threads import in_thread

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name. Raises OSError."""

LONGEST_URL: Final = 2048

# Ports beside 80, 443 and those from 1024 on are other protocols'. So are these, which no browser speaks HTTP to.
# Source: https://fetch.spec.whatwg.org/#port-blocking
_BAD_PORTS: Final = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)

# What `is_global` lets through, or lets through in some Python that we run on.
# Source: https://www.iana.org/assignments/iana-ipv6-special-registry/
_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # an IPv4 address is its end: what a network without IPv4 has for names
_NOT_PUBLIC: Final[tuple[Network, ...]] = (
    IPv4Network("192.88.99.0/24"),  # 6to4's relays
    IPv4Network("168.63.129.16/32"),  # Azure's own services, on every machine there
    IPv6Network("2001::/23"),  # Teredo (an IPv4 address is hidden in it), ORCHID, benchmarks
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address is in it
    IPv6Network("3fff::/20"),
)
# Source: https://url.spec.whatwg.org/#ends-in-a-number-checker
_ENDS_IN_NUMBER: Final = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)\.?$", re.IGNORECASE)


class Refused(Exception):
    """A URL that webhooks may not lead to; the text says why, and names no address that it resolved to."""


class Unresolved(Refused):
    """The name of a host leads nowhere, for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations:
    """What the settings allow. networks: what is allowed although it is not public; resolve: of names (for tests)."""

    allow_http: bool = False
    networks: tuple[Network, ...] = ()
    resolve: Resolve | None = None

    def parse(self, text: str) -> URL:
        """The URL that a text is, as the client will read it. Raises Refused."""
        if len(text) > LONGEST_URL:
            raise Refused(f"it is longer than {LONGEST_URL} characters")
        if any(c.isspace() or not c.isprintable() for c in text) or "\\" in text:
            raise Refused("it holds a space, a control character or a backslash")
        try:
            url = URL(text)
            host, port = url.host, url.port
        except ValueError:
            raise Refused("it is no URL; allowed: https://HOST/PATH") from None
        if url.scheme not in ("https", "http") or not host:
            raise Refused("it is no URL of a web server; allowed: https://HOST/PATH")
        if url.scheme == "http" and not self.allow_http:
            raise Refused("http is not encrypted; allowed: https, or http where the settings have webhooks.allow_http")
        if url.user is not None or url.password is not None or "@" in _authority(text):
            raise Refused("it holds a user or a password; allowed: https://HOST/PATH, who it is from is signed")
        if _is_odd_address(host):
            raise Refused(
                "its host is neither a name nor an address as one writes it; allowed: 192.0.2.1, [2001:db8::1]"
            )
        if "#" in text:
            raise Refused("it has a fragment (#), which is never sent")
        if port is None or port in _BAD_PORTS or not (port in (80, 443) or 1024 <= port <= 65535):
            raise Refused(f"port {port} is not a web server's; allowed: 80, 443, and most from 1024 on")
        return url

    def permits(self, address: str) -> bool:
        """Whether a connection may be made to an address."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        found = _unwrapped(found)
        if any(found in network for network in self.networks if network.version == found.version):
            return True
        return _is_public(found)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, a name or an address, all of them permitted. Raises Refused."""
        try:
            found = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                found = list(await (self.resolve or resolve)(host, port))
            except (OSError, UnicodeError):
                raise Unresolved(f"the name {host} leads nowhere") from None
        if not found:
            raise Unresolved(f"the name {host} leads nowhere")
        if not all(map(self.permits, found)):  # not the others either: whoever mixes them means no good
            raise Refused(f"{host} does not lead to a public address")
        return found

    async def check(self, text: str) -> None:
        """Look at a URL as a connection would. Raises Refused."""
        url = self.parse(text)
        await self.addresses(url.host or "", url.port or 0)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, in the system's order. Raises OSError.

    In a thread that is left behind: a name server that does not answer holds up nobody else's names.
    """
    found = await in_thread(_getaddrinfo, host, port)
    return list(dict.fromkeys(found))


def _authority(text: str) -> str:
    return re.split("[/?#]", text.partition("//")[2], maxsplit=1)[0]


def _is_odd_address(host: str) -> bool:
    """Whether a host is an address in a form of which some programs think otherwise than others, as 127.1."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _ENDS_IN_NUMBER.search(host) is not None
    return False


def _getaddrinfo(host: str, port: int) -> list[str]:
    return [
        str(address[0])
        for _, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    ]


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return not any(address in network for network in _NOT_PUBLIC if network.version == address.version)
