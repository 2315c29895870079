"""Secrets of integrations, sealed: what the database holds of them opens nothing without a key of the settings.

AES-256-GCM. What a secret is of (account, integration, name) is sealed in with it, so that none can be put in another's
place. The first key seals; all open, so that a new one can be put before an old one.
"""

import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

KEY_BYTES: Final = 32
_VERSION: Final = b"\x01"
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12


class CannotOpen(Exception):
    """It was sealed by a key that the settings do not hold, for another place, or was changed."""


class Vault:
    """Seals and opens. The library, and with it some MB, is loaded when it is first needed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """keys: of KEY_BYTES each; none: nothing can be sealed or opened."""
        self._keys = {_id_of(key): key for key in keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def seal(self, text: str, place: str) -> bytes:
        """Seal a secret for one place. Raises LookupError where there is no key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not self._keys:
            raise LookupError("there is no key to seal with")
        id_, key = next(iter(self._keys.items()))
        head, nonce = _VERSION + id_, secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + AESGCM(key).encrypt(nonce, text.encode(), head + place.encode())

    def open(self, sealed: bytes, place: str) -> str:
        """What was sealed for that place. Raises CannotOpen."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        head, rest = sealed[: 1 + _ID_BYTES], sealed[1 + _ID_BYTES :]
        key = self._keys.get(head[1:])
        if key is None or head[:1] != _VERSION:
            raise CannotOpen("it was sealed by a key that integrations.secret_keys does not hold")
        try:
            return AESGCM(key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head + place.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise CannotOpen("it was changed, or sealed for another integration") from error


def _id_of(key: bytes) -> bytes:
    return sha256(b"trunkline vault key " + key).digest()[:_ID_BYTES]
