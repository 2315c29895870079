"""SIP messages for the built-in phone: read one, make one, answer a digest challenge. No sockets here.

Text is decoded with surrogateescape, so that a test can send and see any bytes.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final

_SHORT: Final = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
    "c": "content-type",
    "r": "refer-to",
}
_TAG: Final = re.compile(r";\s*tag=([^;>\s]+)")
_URI: Final = re.compile(r"<([^>]*)>")
_PARAMETER: Final = re.compile(r'(\w+)=(?:"([^"]*)"|([^,\s]+))')


class BadMessage(ValueError):
    """The bytes are no SIP message."""


class Message:
    """A received request (`method`, `uri`) or response (`status`, `reason`; `method` is that of its CSeq)."""

    def __init__(self, data: bytes) -> None:
        """Read `data`. Raises BadMessage."""
        head, _, self.body = data.decode("utf-8", "surrogateescape").partition("\r\n\r\n")
        self.start, *lines = head.split("\r\n")
        self.headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            self.headers.setdefault(_SHORT.get(name, name), []).append(value.strip())
        words = self.start.split(" ", 2)
        if len(words) < 2:
            raise BadMessage(f"not SIP: {self.start!r}")
        self.status = int(words[1]) if words[0].startswith("SIP/") and words[1].isdigit() else 0
        self.reason = words[2] if self.status and len(words) > 2 else ""
        self.method = self.get("cseq").partition(" ")[2] if self.status else words[0]
        self.uri = "" if self.status else words[1]

    def get(self, name: str) -> str:
        """The first header of that (lower case) name, or ""."""
        return self.headers.get(name, [""])[0]

    def tag(self, name: str) -> str:
        """The tag of From or To, or ""."""
        found = _TAG.search(self.get(name))
        return found[1] if found else ""

    @property
    def branch(self) -> str:
        """The transaction: the branch of the topmost Via."""
        found = re.search(r"branch=([^;,\s]+)", self.get("via"))
        return found[1] if found else ""


def compose(start: str, headers: Sequence[str], body: str = "") -> bytes:
    """The bytes of a message; Content-Length is added."""
    data = body.encode("utf-8", "surrogateescape")
    lines = [start, *(line for line in headers if line), f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + data


def uri_of(header: str) -> str:
    """The URI in a Contact or To header."""
    found = _URI.search(header)
    return found[1] if found else header.split(";")[0].strip()


def token(length: int = 16) -> str:
    """Random hex digits for tags, branches and Call-IDs."""
    return secrets.token_hex(length // 2)


def authorization(challenge: Message, method: str, uri: str, user: str, password: str) -> str:
    """The header that answers a 401 or 407. Source: RFC 2617 3.2.2, MD5 with or without qop."""
    asked = challenge.get("www-authenticate")
    name = "Authorization" if asked else "Proxy-Authorization"
    given = {
        key: quoted or bare for key, quoted, bare in _PARAMETER.findall(asked or challenge.get("proxy-authenticate"))
    }
    realm, nonce, cnonce = given.get("realm", ""), given.get("nonce", ""), token()
    ha1, ha2 = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{uri}")
    if "qop" in given:
        response = _md5(f"{ha1}:{nonce}:00000001:{cnonce}:auth:{ha2}")
        qop = f', qop=auth, nc=00000001, cnonce="{cnonce}"'
    else:
        response, qop = _md5(f"{ha1}:{nonce}:{ha2}"), ""
    opaque = f', opaque="{given["opaque"]}"' if "opaque" in given else ""
    return (
        f'{name}: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", '
        f'response="{response}", algorithm=MD5{qop}{opaque}'
    )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
