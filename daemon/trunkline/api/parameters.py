"""Query parameters, read strictly: what is unknown, doubled or malformed is refused with what is allowed."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, TypeVar
from uuid import UUID

from aiohttp import web

from trunkline.api.problem import Problem, bad_parameter
from trunkline.calls.record import Direction, Status
from trunkline.store.queries import MAX_LIMIT, CallFilter

DEFAULT_LIMIT = 50
LONGEST_NUMBER = 255  # characters; the store keeps none longer in an index
INCLUDE = ("legs",)
DEFAULT_EVENTS = 100
MAX_EVENTS = 1000
MAX_WAIT_S = 30
_INTEGER = re.compile(r"[0-9]{1,19}", re.ASCII)
_EVENT_TYPE = re.compile(r"[a-z_]{1,32}\.([a-z_]{1,32}|\*)", re.ASCII)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[ +-][0-9]{2}:[0-9]{2})", re.ASCII
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)

Word = TypeVar("Word", bound=StrEnum)


class CallsQuery(NamedTuple):
    """What `GET /api/v1/calls` was asked."""

    narrow: CallFilter
    limit: int
    cursor: str | None
    legs: bool


def read_query(request: web.Request, allowed: Mapping[str, bool], *, lenient: bool = False) -> dict[str, list[str]]:
    """Return the query's values by name.

    allowed: the parameters' names, and whether several values may be given, a,b or repeated; several are parted here.
    lenient: others are passed over. Raises Problem for unknown names, empty values and doubled parameters.
    """
    found: dict[str, list[str]] = {}
    for name, value in request.query.items():
        if name not in allowed and lenient:
            continue
        if name not in allowed:
            raise Problem(
                "unknown_parameter",
                f"{_shown(name)} is not a parameter of this route; allowed: {', '.join(allowed) or 'none'}.",
                parameter=shortened(name),
                allowed=list(allowed),
            )
        if not value:
            raise bad_parameter(name, "is empty; give a value or leave it out.")
        if not value.isprintable():
            raise bad_parameter(name, "holds a control character or is not UTF-8.")
        found.setdefault(name, []).extend(value.split(",") if allowed[name] else [value])
    for name, values in found.items():
        if len(values) > 1 and not allowed[name]:
            raise bad_parameter(name, f"is given {len(values)} times; give it once.")
    if "pretty" in found:
        pretty(request)  # refused before anything is done
    return found


def read_fields(asked: Sequence[str], allowed: Sequence[str]) -> frozenset[str]:
    """The fields that are wanted. Raises Problem."""
    for name in asked:
        if name not in allowed:
            raise bad_parameter(
                "fields", f"{_shown(name)} is none; allowed: {', '.join(allowed)}.", allowed=list(allowed)
            )
    return frozenset(asked)


def calls_query(found: dict[str, list[str]]) -> CallsQuery:
    """Read the parameters of `GET /api/v1/calls`. Raises Problem."""
    narrow = CallFilter(
        statuses=_words("status", found, Status),
        directions=_words("direction", found, Direction),
        from_=_number("from", found),
        to=_number("to", found),
        number=_number("number", found),
        since=read_time("since", found),
        until=read_time("until", found),
    )
    if narrow.number is not None and (narrow.from_ is not None or narrow.to is not None):
        raise bad_parameter("number", "is either side of the call; give it alone, or from and to.")
    if narrow.since and narrow.until and narrow.since >= narrow.until:
        raise bad_parameter("until", "is not after since; calls from since on and before until are listed.")
    include = found.get("include", [])
    for part in include:
        if part not in INCLUDE:
            raise bad_parameter("include", f"{_shown(part)} is not known; allowed: {', '.join(INCLUDE)}.")
    cursor = found["cursor"][0] if "cursor" in found else None
    return CallsQuery(
        narrow, read_limit(found, DEFAULT_LIMIT, MAX_LIMIT), cursor, "legs" in (*include, *found.get("fields", ()))
    )


class EventsQuery(NamedTuple):
    """What `GET /api/v1/events` and the WebSocket are asked."""

    after: int | None
    limit: int
    wait_s: float
    types: tuple[str, ...]
    extension: str | None


def events_query(found: dict[str, list[str]]) -> EventsQuery:
    """Read their parameters. Raises Problem."""
    for type_ in found.get("types", ()):
        if not _EVENT_TYPE.fullmatch(type_):
            raise bad_parameter("types", f"{_shown(type_)} is no type of an event, such as call.ended or call.*.")
    return EventsQuery(
        after=_integer("after", found, 0, 2**63 - 1),
        limit=read_limit(found, DEFAULT_EVENTS, MAX_EVENTS),
        wait_s=_integer("wait", found, 0, MAX_WAIT_S) or 0,
        types=tuple(found.get("types", ())),
        extension=_number("extension", found),
    )


def limit_of(found: dict[str, list[str]]) -> int:
    """How many items to a page. Raises Problem."""
    return read_limit(found, DEFAULT_LIMIT, MAX_LIMIT)


def pretty(request: web.Request) -> bool:
    """Tell whether the JSON is for human eyes: asked for with ?pretty=1, or by a browser."""
    asked = request.query.get("pretty")
    if asked is not None:
        if asked not in ("0", "1"):
            raise bad_parameter("pretty", f"{_shown(asked)} is not allowed; allowed: 0, 1.")
        return asked == "1"
    return request.headers.get("Accept", "").startswith("text/html")


def _words(name: str, found: dict[str, list[str]], words: type[Word]) -> tuple[Word, ...]:
    chosen: set[Word] = set()
    for value in found.get(name, ()):
        try:
            chosen.add(words(value.strip().upper()))
        except ValueError:
            allowed = [word.value for word in words]
            raise bad_parameter(
                name, f"{_shown(value)} is not known; allowed: {', '.join(allowed)}.", allowed=allowed
            ) from None
    return tuple(sorted(chosen))  # in one order, so that the same filter makes the same cursor


def read_words(name: str, found: Mapping[str, list[str]], allowed: Sequence[str]) -> tuple[str, ...]:
    """The words of a closed set that a list is narrowed to, in any case. Raises Problem."""
    chosen = {value.strip().upper() for value in found.get(name, ())}
    for word in sorted(chosen - set(allowed)):
        raise bad_parameter(name, f"{_shown(word)} is not known; allowed: {', '.join(allowed)}.", allowed=list(allowed))
    return tuple(sorted(chosen))  # in one order, so that the same filter makes the same cursor


def _number(name: str, found: dict[str, list[str]]) -> str | None:
    if name not in found:
        return None
    value = found[name][0]
    # A + that was not written %2B arrives as a space, and no number begins with one.
    value = "+" + value.strip() if value.startswith(" ") else value.strip()
    if not 1 <= len(value) <= LONGEST_NUMBER:
        raise bad_parameter(name, f"is {len(value)} characters long; allowed: 1 to {LONGEST_NUMBER}.")
    return value


def read_time(name: str, found: dict[str, list[str]]) -> datetime | None:
    """A moment, aware UTC; None where it is not given. Raises Problem."""
    if name not in found:
        return None
    value = found[name][0]
    try:
        if _DATE.fullmatch(value):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        if _TIME.fullmatch(value):
            # As for numbers: the + of an offset may have become a space.
            return datetime.fromisoformat(value.upper().replace(" ", "+")).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise bad_parameter(
        name,
        f"{_shown(value)} is not a time; allowed: RFC 3339 such as 2026-01-31T09:00:00Z or "
        "2026-01-31T09:00:00%2B02:00, or a date such as 2026-01-31 (from midnight UTC).",
    )


def read_limit(found: dict[str, list[str]], default: int, most: int) -> int:
    """How many to a page. Raises Problem."""
    return _integer("limit", found, 1, most) or default


def read_seconds(name: str, found: dict[str, list[str]], default: int, most: int) -> int:
    """A number of seconds. Raises Problem."""
    seconds = _integer(name, found, 0, most)
    return default if seconds is None else seconds


def _integer(name: str, found: dict[str, list[str]], least: int, most: int) -> int | None:
    if name not in found:
        return None
    value = found[name][0]
    if not _INTEGER.fullmatch(value) or not least <= int(value) <= most:
        raise bad_parameter(name, f"{_shown(value)} is not allowed; allowed: {least} to {most}.")
    return int(value)


def read_id(request: web.Request, name: str = "id") -> UUID | None:
    """An id of the path; None where it is none as we write them: UUID() also reads braces, urn:uuid: and no hyphens."""
    text = request.match_info[name]
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None


def shortened(value: str) -> str:
    """Return what the client wrote, short and harmless enough to be written back."""
    return "".join(c if c.isprintable() else "\ufffd" for c in value[:40]) + ("…" if len(value) > 40 else "")


def _shown(value: str) -> str:
    return repr(shortened(value))
