"""Who is answered: API keys, and without any key only this machine under one of its own names."""

import hmac
import ipaddress
from collections.abc import Collection, Sequence
from hashlib import sha256

from aiohttp import web

from trunkline.api.problem import Problem

_HOW = "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; keys are set by http.api_keys in the configuration."


class Guard:
    """The keys that are let in. Only their digests are kept, and each comparison takes the same time.

    open_routes: the paths that are answered without a key; they tell nothing about calls.
    """

    def __init__(self, keys: Sequence[str], open_routes: Collection[str]) -> None:
        self._open = open_routes
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)

    @property
    def has_keys(self) -> bool:
        """Whether any key is set; without one only loopback may be listened on."""
        return bool(self._digests)

    def check(self, request: web.Request, route: str) -> bool:
        """Let a request for `route` in, or raise Problem. Returns whether it came with a key (or needs none)."""
        if not self._digests:
            if not is_loopback(_host(request)):
                raise Problem(
                    "host_not_allowed",
                    "This server has no API key and answers only to localhost, 127.0.0.1 or [::1] in the Host header. "
                    "To reach it by another name set http.api_keys in the configuration.",
                )
            return True
        keys = _keys(request)
        if keys and all(map(self.knows, keys)):
            return True
        if route in self._open:
            return False
        headers = {"WWW-Authenticate": 'Bearer realm="trunkline"'}
        if not keys:
            raise Problem("key_missing", f"This route needs an API key. {_HOW}", headers=headers)
        raise Problem("key_unknown", f"This API key is not known. {_HOW}", headers=headers)

    def knows(self, key: str) -> bool:
        """Is this one of the keys?"""
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        # Every key is compared, so that the time tells neither which one nor how much of it was right.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def actor(request: web.Request, guard: Guard) -> str:
    """Who a request that was let in comes from, for an audit: "key:" and the beginning of its digest, or "loopback"."""
    keys = _keys(request)
    if not keys or not guard.has_keys:
        return "loopback"
    return f"key:{sha256(keys[0].encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _keys(request: web.Request) -> list[str]:
    """The keys that a request was sent with: where that is two, both have to be good."""
    keys = [key.strip() for key in request.headers.getall("X-API-Key", ())]
    for given in request.headers.getall("Authorization", ()):
        scheme, _, credentials = given.partition(" ")
        if scheme.lower() == "bearer":
            keys.append(credentials.strip())
    return keys


def _host(request: web.Request) -> str:
    """Return the Host header without its port: a stranger's page that is rebound to us still sends its own name."""
    host = request.headers.get("Host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
