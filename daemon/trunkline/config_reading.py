"""How a section of settings is read: every mistake is collected with its key, what is wrong and what is allowed.

Knows nothing of which settings there are; that is config.py. A key that holds a Secret is never shown.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta


class ConfigError(Exception):
    """The settings cannot be used; `problems` says which keys, why, and what is allowed."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        super().__init__("\n  ".join([f"{source} cannot be used, {count}:", *problems]))


class Secret:
    """A text that shows itself only to who asks by `reveal()`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One table of the file. Its fields' Meta descriptions are what the errors call allowed."""

    def problems(self, unread: Collection[str]) -> list[str]:
        """Say what no single field's type can: each as "key: what is wrong; allowed: ...".

        Fields in `unread` were given wrongly, or are missing, and hold a default or nothing: of them enough is said.
        """
        return []


S = TypeVar("S", bound=Section)

# What people type for it.
_SYNONYMS = {
    "password": "secret",
    "user": "username",
    "ip": "host",
    "address": "host",
    "dsn": "url",
    "country": "region",
}
_KINDS = {str: "a text", int: "a number", float: "a number", bool: "a boolean", list: "a list", dict: "a section"}


class Reader:
    """Reads table after table; `problems` grows, so that an admin mends it all in one go.

    `file_keys` are keys that name a file holding a secret: (section, key) -> the key whose value the file holds.
    """

    def __init__(self, base: Path, file_keys: Mapping[tuple[str, str], str]) -> None:
        self.base = base
        self.problems: list[str] = []
        self._file_keys = file_keys

    def section(self, where: str, kind: type[S], table: Mapping[str, Any]) -> S | None:
        """Read one table; None if anything in it is wrong. `where` is "http" or "pbx[2]"."""
        name = where.partition("[")[0]
        before = len(self.problems)
        unread: set[str] = set()
        hints = get_type_hints(kind, include_extras=True)
        files = {key: target for (owner, key), target in self._file_keys.items() if owner == name}
        values: dict[str, Any] = {}
        for key, value in table.items():
            said, target = len(self.problems), files.get(key, key)
            made: Any = None
            if key in files and target in table:
                self.problems.append(f"{where}.{key}: give either this or {target}, not both")
            elif key in files:
                made = self._from_file(f"{where}.{key}", value, hints[target])
            elif key in hints:
                made = self._value(f"{where}.{key}", value, hints[key])
            else:
                self.unknown(f"{where}.{key}", key, {*hints, *files})
            if len(self.problems) == said:
                values[target] = made
            else:
                unread.add(target)
        for field in msgspec.structs.fields(kind):
            file_key = next((key for key, target in files.items() if target == field.name), None)
            if field.required and field.name not in table and file_key not in table:
                either = f"{where}.{field.name}" + (f" or {file_key}" if file_key else "")
                self.problems.append(f"{either}: is missing; allowed: {allowed(hints[field.name])}")
                unread.add(field.name)
            if field.required and field.name in unread:
                values[field.name] = None
        section = kind(**values)
        self.problems.extend(f"{where}.{problem}" for problem in section.problems(unread))
        return section if len(self.problems) == before else None

    def unknown(self, where: str, key: str, known: Collection[str]) -> None:
        """Refuse a key nobody knows, and guess which one was meant."""
        close = get_close_matches(_SYNONYMS.get(key.lower(), key.lower()), known, n=1)
        meant = f" did you mean {close[0]}?" if close else ""
        self.problems.append(f"{where}: there is no such key;{meant} allowed: {', '.join(sorted(known))}")

    def _from_file(self, where: str, value: Any, hint: Any) -> Any:
        if not isinstance(value, str) or not value:
            self.problems.append(f"{where}: {_kind(value)} is not allowed here; allowed: a path")
            return None
        path = self.base / value
        try:
            text = path.read_text("utf-8")
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.problems.append(f"{where}: {path} cannot be read: {reason}")
            return None
        if get_origin(hint.__origin__ if hasattr(hint, "__metadata__") else hint) is not tuple:
            return self._value(where, text.rstrip("\r\n"), hint)
        lines = [line.strip() for line in text.splitlines()]
        entries = [line for line in lines if line and not line.startswith("#")]
        if not entries:
            self.problems.append(f"{where}: {path} is empty; allowed: one entry to a line")
        return self._value(where, entries, hint)

    def _value(self, where: str, value: Any, hint: Any) -> Any:
        if isinstance(value, dict) and (entry := _of_entries(hint)) is not None:
            return {key: self._value(f"{where}.{key}", held, entry) for key, held in value.items()}
        try:
            made = msgspec.convert(value, hint, dec_hook=_decode)
        except msgspec.ValidationError:
            shown = _kind(value) if _holds_secret(hint) else _short(value)
            self.problems.append(f"{where}: {shown} is not allowed here; allowed: {allowed(hint)}")
            return None
        return self.base / made if isinstance(made, Path) else made


def allowed(hint: Any) -> str:
    """Say what a field takes, from its own declaration."""
    for part in (hint, *get_args(hint)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Meta) and meta.description:
                return meta.description
    if get_origin(hint) is Literal:
        return ", ".join(f'"{choice}"' for choice in get_args(hint))
    return "true or false"


def _decode(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str) and value:
        return Secret(value)
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("not allowed")


def _holds_secret(hint: Any) -> bool:
    return hint is Secret or any(_holds_secret(part) for part in get_args(hint))


def _of_entries(hint: Any) -> Any:
    """What the values of a section of free keys may be; None where a field is none."""
    bare = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    return get_args(bare)[1] if get_origin(bare) is dict else None


def _kind(value: Any) -> str:
    return "an empty text" if value == "" else _KINDS.get(type(value), "this")


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
