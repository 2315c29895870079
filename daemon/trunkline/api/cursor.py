"""Cursors: where the next page starts, as text that a client hands back unread.

A cursor holds only the last item's place in the order, so it needs no secret: whoever makes one up gains nothing, since
every query names the account. The check value is there so that a changed, cut or foreign one is refused instead of
giving a page from nowhere; it covers the account and the filter.
"""

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from uuid import UUID

import msgspec

from trunkline.api.problem import Problem
from trunkline.store.keyset import Place
from trunkline.store.queries import Position

VERSION = 1
_LAYOUT = struct.Struct(">Bq16s8s")  # version, microseconds since 1970, id, check value
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_filter_bytes = msgspec.msgpack.Encoder().encode


def write(account_id: UUID, narrow: object, position: Position) -> str:
    """Return the cursor of the page that starts after `position`; narrow: what the list is narrowed to."""
    at_us = (position.started_at - _EPOCH) // _MICROSECOND
    packed = _LAYOUT.pack(VERSION, at_us, position.id.bytes, _check(account_id, narrow, at_us, position.id))
    return urlsafe_b64encode(packed).decode().rstrip("=")


def read(account_id: UUID, narrow: object, text: str) -> Position:
    """Return the position that a cursor stands for. Raises Problem."""
    try:
        packed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        version, at_us, id_bytes, check = _LAYOUT.unpack(packed)
    except (ValueError, binascii.Error, struct.error):
        raise _bad("is not one of ours") from None
    # Base64 reads several texts as the same bytes; only the one that was written counts.
    if urlsafe_b64encode(packed).decode().rstrip("=") != text:
        raise _bad("is not one of ours")
    if version != VERSION:
        raise _bad(f"is of version {version}, and this is version {VERSION}")
    call_id = UUID(bytes=id_bytes)
    if check != _check(account_id, narrow, at_us, call_id):
        raise _bad("was changed, or came from other filters than the ones beside it")
    return Position(_EPOCH + at_us * _MICROSECOND, call_id)


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A cursor of a list whose order is asked for."""

    version: int
    value: int | str  # microseconds since 1970, or text
    id: bytes
    check: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Packed).decode


def write_place(account_id: UUID, narrow: object, place: Place) -> str:
    """As `write`, for a place in whatever order; narrow: the filters, and the order."""
    value = place.value if isinstance(place.value, str) else (place.value - _EPOCH) // _MICROSECOND
    told = _check_place(account_id, narrow, value, place.id)
    return urlsafe_b64encode(_pack(_Packed(VERSION, value, place.id.bytes, told))).decode().rstrip("=")


def read_place(account_id: UUID, narrow: object, text: str, kind: str) -> Place:
    """The place that a cursor of `write_place` stands for; kind: of store.keyset.Order. Raises Problem."""
    try:
        packed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        found = _unpack(packed)
        id_ = UUID(bytes=found.id)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise _bad("is not one of ours") from None
    if urlsafe_b64encode(packed).decode().rstrip("=") != text or found.version != VERSION:
        raise _bad("is not one of ours")
    if found.check != _check_place(account_id, narrow, found.value, id_):
        raise _bad("was changed, or came from other filters or another order than the ones beside it")
    if isinstance(found.value, str) != (kind == "text"):
        raise _bad("is not one of ours")
    if isinstance(found.value, str):
        return Place(found.value, id_)
    return Place(_EPOCH + found.value * _MICROSECOND, id_)


def _check_place(account_id: UUID, narrow: object, value: int | str, id_: UUID) -> bytes:
    told = _filter_bytes((value, id_.bytes, narrow))
    return blake2b(told, digest_size=8, key=account_id.bytes, person=b"trunkline-list").digest()


def _check(account_id: UUID, narrow: object, at_us: int, call_id: UUID) -> bytes:
    told = struct.pack(">q", at_us) + call_id.bytes + _filter_bytes(narrow)
    return blake2b(told, digest_size=8, key=account_id.bytes, person=b"trunkline-calls").digest()


def _bad(what: str) -> Problem:
    return Problem(
        "bad_cursor",
        f"cursor: {what}. Hand back nextCursor as it came, with the same filters, or leave it out to start anew.",
        parameter="cursor",
    )
