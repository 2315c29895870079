"""Where a PBX's ARI is, and as whom; apart from ari.py, so that who only says it loads no websockets."""

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from trunkline.asterisk.dial import Address
from trunkline.asterisk.session import Credentials


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
