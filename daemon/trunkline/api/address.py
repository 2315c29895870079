"""Where a request comes from: the address of its connection, or what a proxy that is trusted says of it.

X-Forwarded-For is anybody's word but for what trusted proxies have added at its right end. So it is read from the
right, for as long as who added an entry is trusted; whatever stands to the left of the first stranger is his own.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from trunkline.api.state import STATE

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORWARDED: Final = "X-Forwarded-For"
_MOST: Final = 32  # entries that are looked at
_OF_ONE: Final = 64  # bits of an IPv6 address that are a customer's network: he has all addresses in it


def address_of(request: web.Request) -> str | None:
    """The client's address; None where the connection has none."""
    return client_address(request.remote, request.headers.getall(_FORWARDED, ()), request.app[STATE].trusted_proxies)


def client_address(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """The client's address, where `peer` is that of the connection and `forwarded` the headers, in order."""
    if peer is None or not trusted or not forwarded:
        return peer
    found = _parse(peer)
    if found is None:
        return peer
    entries = ",".join(forwarded).rsplit(",", _MOST)[-_MOST:]
    while entries and any(found in network for network in trusted):
        said = _parse(entries.pop().strip())
        if said is None:
            break  # no address: who is trusted has not said whose request it is
        found = said
    return str(found)


def counted_as(address: str | None) -> str:
    """What tries are counted by: an address, or the network that one customer has."""
    found = None if address is None else _parse(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _OF_ONE), strict=False))
    return address or "" if found is None else str(found)


def _parse(text: str) -> _Address | None:
    """An address as proxies write it: perhaps with a port, an IPv6 one in brackets then."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found
