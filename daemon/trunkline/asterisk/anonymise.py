"""Numbers and names out of an AMI stream, each always by the same other one: so that a recording still makes sense.

A number keeps its length and its beginning (country, area), and how it is written: +44…, 0044… and 0… of the same
number stay the same number. A name keeps its shape. Extensions of up to 5 digits, ids, times, uuids and the counters of
channel names stay. Typed digits become 0. The key is random and never written, so nobody can compute it back.
"""

import hashlib
import hmac
import re
import secrets
import string

_NAME = re.compile(r"(CallerIDName|CallerIDname|ConnectedLineName|MemberName|CIDName|FullName|Fullname|Email)$")
_QUOTED_NAME = re.compile(r'"([^"]{2,})" ?<')
_WHOLE = frozenset(("Timestamp", "EventTV", "SessionTV", "ActionID", "Event", "Privilege", "SystemName"))  # stay
_TOKENS = re.compile(
    r"(?P<keep>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # a bridge's id
    r"|\d{9,11}\.\d+"  # a Uniqueid, or a time
    r"|-[0-9a-f]{8}(?![0-9A-Za-z]))"  # a channel's counter
    r"|(?P<address>(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.]))"
    r"|(?P<number>(?<![0-9])\d{6,20}(?![0-9]))"
)


class Anonymiser:
    """Changes lines. One for a whole recording, or the same caller becomes two."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._ends: dict[str, str] = {}
        self._taken: set[str] = set()
        self._names: dict[str, str] = {}
        self._known_names = re.compile("(?!)")  # matches nothing

    def block(self, text: str) -> str:
        """One frame, or a piece of the stream: lines ended by CR LF."""
        return "\r\n".join(self._line(line) for line in text.split("\r\n"))

    def _line(self, line: str) -> str:
        key, colon, value = line.partition(": ")
        if not colon or key in _WHOLE:
            return line if colon else self._value(line)  # the rest of a value that holds CR LF
        if key == "Digit":
            return f"{key}: 0"
        if _NAME.search(key):
            return f"{key}: {self._name(value)}"
        for name in _QUOTED_NAME.findall(value):
            self._name(name)
        return f"{key}: {self._value(value)}"

    def _value(self, value: str) -> str:
        if self._names:
            value = self._known_names.sub(lambda found: self._names[found[0]], value)
        return _TOKENS.sub(self._token, value)

    def _token(self, found: re.Match[str]) -> str:
        if found["number"]:
            return self._number(found["number"])
        if found["address"] and not found["address"].startswith("127."):
            return f"198.51.100.{int(self._digits('address', found['address'], 3)) % 254 + 1}"
        return found[0]

    def _number(self, number: str) -> str:
        """The end is mapped by itself, so that the same subscriber written otherwise stays the same."""
        length = 7 if len(number) >= 10 else 4
        end = number[-length:]
        if end not in self._ends:
            other, tries = end, 0
            while other == end or other in self._taken:
                other, tries = self._digits(f"number {tries}", end, length), tries + 1
            self._ends[end] = other
            self._taken.add(other)
        return number[:-length] + self._ends[end]

    def _name(self, name: str) -> str:
        if not name or name == "<unknown>" or "/" in name:
            return name
        if _TOKENS.fullmatch(name) or name.lstrip("+").isdecimal():
            return self._value(name)
        if name not in self._names:
            self._names[name] = self._shape(name)
            longest_first = sorted((n for n in self._names if len(n) > 2), key=len, reverse=True)
            self._known_names = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        return self._names[name]

    def _shape(self, name: str) -> str:
        pool = self._bytes("name", name, len(name))
        made = []
        for character, chance in zip(name, pool, strict=True):
            if character.isdigit():
                made.append(string.digits[chance % 10])
            elif character.isalpha():
                letters = string.ascii_uppercase if character.isupper() else string.ascii_lowercase
                made.append(letters[chance % 26])
            else:
                made.append(character)
        return "".join(made)

    def _digits(self, what: str, text: str, length: int) -> str:
        return "".join(string.digits[byte % 10] for byte in self._bytes(what, text, length))

    def _bytes(self, what: str, text: str, length: int) -> bytes:
        made = b""
        while len(made) < length:
            message = f"{what} {len(made)} {text}".encode("utf-8", "surrogateescape")
            made += hmac.digest(self._key, message, hashlib.sha256)
        return made[:length]
