"""CSV as it comes: bytes in, records out, with the line that each begins in. Pure, and bounded by one record.

A record that is broken costs itself: its fault comes in its place, and what is behind the next line end is read.
Source: RFC 4180; a line end may also be LF alone.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

DELIMITERS: Final = ",;\t"
LONGEST_RECORD: Final = 64 * 1024  # characters
_BOM: Final = "\ufeff"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_EMPTY_LINES: Final = re.compile(r"(?:\r?\n)+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Unreadable(Exception):
    """The rest cannot be read; says in which line, why, and what to do."""


class Record(NamedTuple):
    """One record. fault: what is wrong with it; its fields are none then."""

    line: int  # where it begins, from 1
    fields: list[str]
    fault: str | None = None


class CsvReader:
    """Takes bytes as they come, in chunks of any size. delimiter: None until the first line has shown it."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("strict").decode
        self._text = ""
        self._line = 1
        self._begun = False
        self.delimiter: str | None = None

    def feed(self, chunk: bytes, *, end: bool = False) -> Iterator[Record]:
        """The records that are whole by now; with `end` the last one too. Raises Unreadable."""
        if not self._begun and chunk:
            self._begun = True
            if chunk.startswith(_OTHER_BOMS) or b"\0" in chunk[:4]:
                raise Unreadable("line 1: this is UTF-16 or UTF-32; save it as UTF-8")
        broken = False
        try:
            text = self._decode(chunk, end)
        except UnicodeDecodeError as error:
            broken, text = True, error.object[: error.start].decode()  # with what was left of the chunk before
        if self._line == 1 and not self._text:
            text = text.removeprefix(_BOM)
        self._text += text
        if self.delimiter is None:
            first, found, _ = self._text.partition("\n")
            if not found and not end and not broken:
                self._check_length(0)
                return
            self.delimiter = max(DELIMITERS, key=first.count)
        yield from self._records(end)
        if broken:
            line = self._line + self._text.count("\n")
            raise Unreadable(f"line {line}: this is not UTF-8; save the file as UTF-8 (Excel: CSV UTF-8)")

    def _records(self, end: bool) -> Iterator[Record]:
        at = self._behind_empty_lines(0)
        while (found := self._record(at, end)) is not None:
            record, behind = found
            self._line += self._text.count("\n", at, behind)
            at = self._behind_empty_lines(behind)
            yield record
        self._check_length(at)
        self._text = self._text[at:]

    def _behind_empty_lines(self, at: int) -> int:
        """Where something stands again; an empty line is no record."""
        found = _EMPTY_LINES.match(self._text, at)
        behind = at if found is None else found.end()
        self._line += self._text.count("\n", at, behind)
        return behind

    def _check_length(self, at: int) -> None:
        if len(self._text) - at > LONGEST_RECORD:
            raise Unreadable(
                f"line {self._line}: its record is longer than {LONGEST_RECORD} characters; a quote may be missing"
            )

    def _record(self, at: int, end: bool) -> tuple[Record, int] | None:
        """The record that begins there, and where the next one does. None: it is not whole yet, or there is none."""
        text, fields, begin = self._text, [], at
        if at == len(text):
            return None
        while True:
            if text.startswith('"', at):
                closed = self._closing(at + 1)
                if closed is None:
                    return self._broken(begin, "a quote is not closed", end) if end else None
                fields.append(text[at + 1 : closed].replace('""', '"'))
                at = closed + 1
                if at == len(text) and not end:
                    return None
                if not (at == len(text) or text.startswith((str(self.delimiter), "\n", "\r\n"), at)):
                    if at == len(text) - 1 and text[at] == "\r" and not end:
                        return None
                    return self._broken(begin, "something stands behind a closing quote", end, at)
            else:
                behind = self._end_of_field(at)
                if behind == len(text) and not end:
                    return None
                field = text[at:behind]
                if field.endswith("\r") and (behind == len(text) or text[behind] == "\n"):
                    field = field[:-1]
                if '"' in field:
                    return self._broken(begin, "a quote stands in a field that is not quoted", end, at)
                fields.append(field)
                at = behind
            if at < len(text) and text[at] == self.delimiter:
                at += 1
                continue
            at += 2 if text.startswith("\r\n", at) else 1 if at < len(text) else 0
            fault = next((f"column {n}: holds a control character" for n, f in enumerate(fields, 1)
                          if _CONTROL.search(f)), None)  # fmt: skip
            return Record(self._line, [] if fault else fields, fault), at

    def _closing(self, at: int) -> int | None:
        """Where the quoted field ends that begins there; None: not in what there is."""
        while (quote := self._text.find('"', at)) >= 0:
            if not self._text.startswith('"', quote + 1):
                return quote
            at = quote + 2
        return None

    def _end_of_field(self, at: int) -> int:
        ends = (self._text.find(str(self.delimiter), at), self._text.find("\n", at))
        return min((end for end in ends if end >= 0), default=len(self._text))

    def _broken(self, begin: int, fault: str, end: bool, at: int | None = None) -> tuple[Record, int] | None:
        """A record that is not one, up to the end of the line that it breaks in."""
        behind = self._text.find("\n", begin if at is None else at)
        if behind < 0 and not end:
            return None
        return Record(self._line, [], fault), len(self._text) if behind < 0 else behind + 1
