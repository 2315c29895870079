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

    def problems(self) -> list[str]:
        """Say what no single field's type can: each as "key: what is wrong; allowed: ..."."""
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
        hints = get_type_hints(kind, include_extras=True)
        files = {key: target for (owner, key), target in self._file_keys.items() if owner == name}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key in files:
                if files[key] in table:
                    self.problems.append(f"{where}.{key}: give either this or {files[key]}, not both")
                else:
                    values[files[key]] = self._from_file(f"{where}.{key}", value, hints[files[key]])
            elif key in hints:
                values[key] = self._value(f"{where}.{key}", value, hints[key])
            else:
                self.unknown(f"{where}.{key}", key, {*hints, *files})
        for field in msgspec.structs.fields(kind):
            file_key = next((key for key, target in files.items() if target == field.name), None)
            if field.required and field.name not in table and file_key not in table:
                either = f"{where}.{field.name}" + (f" or {file_key}" if file_key else "")
                self.problems.append(f"{either}: is missing; allowed: {allowed(hints[field.name])}")
        if len(self.problems) > before:
            return None
        made = kind(**values)
        self.problems.extend(f"{where}.{problem}" for problem in made.problems())
        return made if len(self.problems) == before else None

    def unknown(self, where: str, key: str, known: Collection[str]) -> None:
        """Refuse a key nobody knows, and guess which one was meant."""
        close = get_close_matches(_SYNONYMS.get(key.lower(), key.lower()), known, n=1)
        meant = f" did you mean {close[0]}?" if close else ""
        self.problems.append(f"{where}: there is no such key;{meant} allowed: {', '.join(sorted(known))}")

    def _from_file(self, where: str, value: Any, hint: Any) -> Any:
        if not isinstance(value, str) or not value:
            self.problems.append(f"{where}: {_KINDS.get(type(value), 'this')} is not allowed here; allowed: a path")
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
        try:
            made = msgspec.convert(value, hint, dec_hook=_decode)
        except msgspec.ValidationError:
            shown = _KINDS.get(type(value), "this") if _holds_secret(hint) else _short(value)
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


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
