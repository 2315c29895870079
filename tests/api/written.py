"""The examples that are written down: the curl commands of a text, the JSON that stands behind them, its shape."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_REQUEST = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/\S*)")
_VARIABLE = re.compile(r"\$([A-Z]+)")
_PIPE = "|"
_SILENT = {"-s", "-S", "-sS", "-N"}  # what changes only what curl shows


class Curl(NamedTuple):
    """One command: what it sends."""

    text: str
    method: str
    url: str
    headers: dict[str, str]
    body: bytes | list[tuple[str, str]] | None  # or the parts of a form: a field's name, a file's


class Example(NamedTuple):
    """A command and the JSON that its answer is said to look like; None where nothing is said."""

    where: str
    line: str
    answer: Any


def examples(file: Path) -> list[Example]:
    """Every curl command of a text: in fenced blocks, indented ones, and within a line."""
    text = file.read_text()
    found: list[Example] = []
    blocks = [(match.start(), match[1], match[2]) for match in _FENCED.finditer(text)]
    outside = _FENCED.sub(lambda match: "\n" * match[0].count("\n"), text)
    for n, (_, _, body) in enumerate(blocks):
        lines = _commands(body)
        answer = json.loads(blocks[n + 1][2]) if lines and n + 1 < len(blocks) and blocks[n + 1][1] == "json" else None
        for line in lines:
            found.append(Example(file.name, line, answer if line is lines[-1] else None))
    for block in _INDENTED.findall(outside):
        found += [Example(file.name, line, None) for line in _commands(re.sub(r"^ {4}", "", block, flags=re.MULTILINE))]
    spans = _SPAN.findall(_INDENTED.sub("", outside))
    found += [Example(file.name, span, None) for span in spans if span.startswith("curl ")]
    # A shell function is no command. docs/commands.md has one; what it orders is done in tests/asterisk, on a real PBX.
    told = re.findall(r"(?<![\w./-])curl (?=[-'\"$\d])", re.sub(r"^\w+\(\) \{.*$", "", text, flags=re.MULTILINE))
    assert len(found) == len(told), f"a command of {file} was overlooked"
    return found


def requests(file: Path) -> list[tuple[str, str]]:
    """Every `METHOD /path` that a text names."""
    return [match.groups() for span in _SPAN.findall(file.read_text()) if (match := _REQUEST.fullmatch(span))]


def _commands(block: str) -> list[str]:
    return [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl ")]


def read_curl(line: str, variables: Mapping[str, str], files: Mapping[str, bytes] = MappingProxyType({})) -> Curl:
    """What a shell and curl make of a command. An option that is not known here is no example that a test could run."""
    method, url, headers, body, cookies = "", "", {}, None, None
    form: list[tuple[str, str]] = []
    line = _VARIABLE.sub(lambda match: variables[match[1]], line)
    words = iter(shlex.split(line, comments=True)[1:])
    for word in words:
        if word == _PIPE:
            break  # what comes is for the eye
        if word.startswith("-s") and word not in _SILENT:
            word = f"-{word[2:]}"
        if word in _SILENT or word in ("-c",):
            if word == "-c":
                next(words)
        elif word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words).encode()
        elif word == "-T":
            body = files[next(words)]
        elif word == "-F":
            name, _, file = next(words).partition("=@")
            form.append((name, file))
        elif word == "-b":
            cookies = next(words)
        elif word.startswith("-"):
            raise AssertionError(f"{word} in: {line}")
        else:
            assert not url, line
            url = word if "://" in word else f"http://{word}"
    assert url, line
    assert cookies in (None, "cookies"), line
    body = form or body
    return Curl(line, method or ("GET" if body is None else "POST"), url, headers, body)


def unlike(said: Any, found: Any, where: str = "$") -> list[str]:
    """In what an answer is not of the shape that was said: names, and kinds of values. "…" is anything, null too."""
    if said in ("…", None) or found is None:
        return []
    if isinstance(said, dict) and isinstance(found, dict):
        missing = [f"{where}.{name}: is not there" for name in said if name != "…" and name not in found]
        more = [f"{where}.{name}: was not said" for name in found if name not in said and "…" not in said]
        within = [unlike(said[name], found[name], f"{where}.{name}") for name in said if name in found]
        return [*missing, *more, *(one for several in within for one in several)]
    if isinstance(said, list) and isinstance(found, list):
        if said and not found and where.endswith(".items"):
            return [f"{where}: is empty"]
        return [one for item in found for one in unlike(_of_kind(said, item), item, f"{where}[]")]
    if isinstance(said, bool) != isinstance(found, bool) or type(said) is not type(found):
        return [f"{where}: {found!r} is not like {said!r}"]
    return []


def _of_kind(said: list[Any], item: Any) -> Any:
    """What is said of an item: of an event, what is said of its type."""
    if isinstance(item, dict) and "seq" in item:
        return next((one for one in said if one["type"] == item["type"]), None)
    return said[0] if said else None
