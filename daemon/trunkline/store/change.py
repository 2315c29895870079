"""Change: a Call on its way into the database, however often and by whatever detour it gets there.

Each happening carries the revision it came with. The writer makes events only of happenings that are newer than the
revision stored, so a Change may be coalesced with earlier ones, spooled, and written again after a commit whose answer
was lost, and still each event exists exactly once.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from trunkline.calls.record import CallRecord, CallUpdate, encode

# Asterisk's own bound is 150. A row of a PostgreSQL index holds 2,700 bytes, and a character may be four.
LONGEST_KEY: Final = 255


class Happening(NamedTuple):
    """An event type and the revision of the update that told of it."""

    revision: int
    type: str


class Key(NamedTuple):
    """What a Call is known by before it has an id."""

    pbx: str
    external_id: str


class Change(NamedTuple):
    """The newest state of a Call, and what has happened to it that may not be stored yet, in order."""

    record: CallRecord
    happened: tuple[Happening, ...] = ()

    @property
    def key(self) -> Key:
        return Key(self.record.pbx, self.record.external_id)


def change_of(update: CallUpdate) -> Change:
    """The Change that an update of the tracker stands for."""
    revision = update.record.revision
    return Change(update.record, tuple(Happening(revision, kind) for kind in update.happened))


def coalesce(changes: Iterable[Change]) -> dict[Key, Change]:
    """One Change a Call, in the order in which the Calls first appear; the highest revision is the state."""
    merged: dict[Key, Change] = {}
    for change in changes:
        key = change.key
        earlier = merged.get(key)
        merged[key] = change if earlier is None else both(earlier, change)
    return merged


def both(earlier: Change, later: Change) -> Change:
    """Two Changes of one Call as one."""
    record = later.record if later.record.revision >= earlier.record.revision else earlier.record
    return Change(record, in_order(earlier.happened + later.happened))


def in_order(happened: Iterable[Happening]) -> tuple[Happening, ...]:
    """Happenings by revision, those of one revision as they came, each once."""
    return tuple(dict.fromkeys(sorted(happened, key=lambda happening: happening.revision)))


def encoded(record: CallRecord) -> tuple[CallRecord, bytes]:
    """A record that PostgreSQL can hold, and its JSON.

    NUL and lone surrogates are replaced by U+FFFD; what names the PBX and the Call is cut at LONGEST_KEY characters, as
    it is in an index. The record comes back as it is when it needs neither, which costs no more than the JSON.
    """
    if len(record.external_id) > LONGEST_KEY or len(record.pbx) > LONGEST_KEY or record.aliases:
        record = msgspec.structs.replace(
            record,
            pbx=record.pbx[:LONGEST_KEY],
            external_id=record.external_id[:LONGEST_KEY],
            aliases=[alias[:LONGEST_KEY] for alias in record.aliases],
        )
    try:
        text = encode(record)
        if b"\\u0000" not in text:
            return record, text
    except UnicodeEncodeError:
        pass
    record = msgspec.convert(_clean(msgspec.to_builtins(record)), CallRecord)
    return record, encode(record)


def _clean(value: Any) -> Any:
    match value:
        case str():
            # By way of UTF-16, so that two surrogates which belong together become their character.
            text = value.replace("\x00", "\ufffd").encode("utf-16-le", "surrogatepass")
            return text.decode("utf-16-le", "replace")
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}
        case list():
            return [_clean(item) for item in value]
        case _:
            return value
