"""AMI on the wire: bytes in, frames out; actions in, bytes out. Pure, bounded, indifferent to how the bytes are cut.

A frame is header lines and an empty line, CRLF throughout. Asterisk does not escape CR LF in caller-controlled values
(FINDINGS: event forging), so an empty line may stand *inside* a value: a block that does not begin as Asterisk begins
one belongs to the frame before it, and is kept there (`Frame.irregular`) for the guard to judge.
Source: Asterisk main/manager.c (astman_append, __manager_event_sessions_va).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter

from trunkline.asterisk.event import Event, Frame, Judge, Shape

MAX_LINE = 1024  # bytes of an action's line; Asterisk answers "line too long" above
_END = b"\r\n\r\n"
_KINDS_COUNTED = 256
_HEAD = 40  # bytes: `Event: KIND`, Privilege and no digit yet of Timestamp, whatever the kind
_SHAPES_KEPT = 8  # of a kind: Asterisk has one or two, an outsider can invent more
_FOLLOWS = b"Response: Follows\r\n"
_beginning = itemgetter(slice(_HEAD))
_FOLLOWS_END = b"--END COMMAND--"

Wanted = Mapping[str, tuple[str, tuple[str, ...]] | None]
"""Event kinds to decode: None for every one of the kind, or (header, beginnings of its value that count)."""


# What matches a frame of the Shape, what reads its fields out of the match, and whether the judge trusts it.
_Match = Callable[[str], re.Match[str] | None]
_Read = Callable[[re.Match[str]], dict[str, str]]
_Layout = tuple[_Match, _Read, Shape, bool]

_no_match: _Match = re.compile("(?!)").fullmatch
_by_name: _Read = re.Match.groupdict


class _Head:
    """The beginning of a block, `Event: KIND\\r\\nPrivilege: `, and what is done with blocks that begin so."""

    __slots__ = ("kind", "layouts", "match", "only", "read", "seen", "shapes", "skip")

    def __init__(self, kind: str, rule: tuple[str, tuple[str, ...]] | None, skip: bool) -> None:
        self.kind = kind
        self.skip = skip
        self.seen = 0  # how many were skipped
        self.only: tuple[bytes, slice, frozenset[bytes], tuple[bytes, ...]] | None = None
        if rule is not None:
            beginnings = tuple(value.encode() for value in rule[1])
            # a few letters are looked up quicker than all the beginnings are compared
            few = slice(min(map(len, beginnings)))
            self.only = (f"\r\n{rule[0]}: ".encode(), few, frozenset(b[few] for b in beginnings), beginnings)
        self.shapes: dict[tuple[str, ...], Shape] = {}
        self.forget()

    def forget(self) -> None:
        """Nothing is known, and nothing trusted, of how a frame of the kind looks."""
        self.layouts: list[_Layout] = []
        self.match = _no_match  # of the trusted layout that was met last
        self.read = _by_name


class Decoder:
    """Bytes of one AMI session into frames; a new session needs a new Decoder.

    wanted: what to decode, None for all. Other kinds are counted in `skipped` and cost a tenth of a decoded one.
    fields: the only keys to keep of a regular event, None for all. That a frame is regular is proved over all its keys.
    max_frame: bytes; a longer frame is thrown away and counted in `bad`, reading goes on behind it.
    """

    def __init__(
        self, *, wanted: Wanted | None = None, fields: frozenset[str] | None = None, max_frame: int = 1 << 20
    ) -> None:
        self.banner: str | None = None  # "Asterisk Call Manager/11.0.0", or whatever else the peer says first
        self.bad: dict[str, int] = {}
        self.decoded = 0
        self._wanted = wanted
        self._fields = fields
        self._heads: dict[bytes, _Head] = {}
        self._others = _Head("other", None, skip=True)
        self._max = max_frame
        self._tail: list[bytes] = []  # what has come of a frame whose end has not
        self._tail_len = 0
        self._discarding = False
        self._begun = False
        self._judge: Judge | None = None
        self._passed_over = False  # was the last block one that nobody wants? Then so is what a caller broke off it

    @property
    def skipped(self) -> dict[str, int]:
        """How many events of each kind were not decoded; kinds beyond the first 256 are counted as `other`."""
        counts: dict[str, int] = {}
        for head in (*self._heads.values(), self._others):
            if head.seen:
                counts[head.kind] = counts.get(head.kind, 0) + head.seen
        return counts

    def trust(self, judge: Judge) -> None:
        """From now on hand out what this judge trusts as the Event it is, which needs no check any more."""
        self._judge = judge
        for head in self._heads.values():
            head.forget()

    def feed(self, data: bytes) -> list[Frame | Event]:
        """The frames completed by these bytes, in order; the Events among them are trusted.

        A frame is handed out as soon as its empty line is here, with the blocks behind it that belong to it as far as
        they have come; what comes of them later is a frame of its own with an empty kind and no Response, which nothing
        believes.
        """
        if not data:
            return []
        if not self._begun:
            data = self._greeting(data)
            if not data:
                return []
        # A separator may be cut in two: look for it in the new bytes and the last three old ones only.
        seam = b"".join(self._tail)[-3:] if self._tail_len < 3 else self._tail[-1][-3:]
        if self._tail and len(self._tail[-1]) < 3:
            seam = b"".join(self._tail[-3:])[-3:]
        cut = _END in seam + data[:3]
        if not cut and _END not in data:
            self._keep(data)
            return []
        if cut:
            blocks = b"".join((*self._tail, data)).split(_END)
        else:  # spares a copy of all the data
            blocks = _split(data)
            blocks[0] = b"".join((*self._tail, blocks[0]))
        rest = blocks.pop()
        self._tail = []
        self._tail_len = 0
        if self._discarding:
            self._discarding = False
            del blocks[0]
        frames = self._frames(blocks)
        if rest:
            self._keep(rest)
        return frames

    def _greeting(self, data: bytes) -> bytes:
        """Take the banner line off the front; a peer that starts with a header line has none (as in a capture)."""
        self._tail.append(data)
        text = b"".join(self._tail)
        line, newline, rest = text.partition(b"\n")
        if not newline and len(text) <= 256:
            return b""
        self._tail = []
        self._begun = True
        if newline and line.startswith((b"Event: ", b"Response: ")):
            return text
        self.banner = line[:256].decode("utf-8", "replace").strip()
        return rest if newline else b""

    def _keep(self, data: bytes) -> None:
        if self._discarding:
            self._tail = [data[-3:]]  # enough to see a separator cut in two
            self._tail_len = len(self._tail[0])
            return
        self._tail.append(data)
        self._tail_len += len(data)
        if self._tail_len > self._max:
            self._count("oversized")
            self._discarding = True
            self._tail = [data[-3:]]
            self._tail_len = len(self._tail[0])

    def _frames(self, blocks: list[bytes]) -> list[Frame | Event]:
        frames: list[Frame | Event] = []
        append = frames.append
        longest = self._max
        trusted = 0
        # The block that the last frame was made of, to which one without a head belongs; b"" where that was handed out
        # before, None where it was passed over: then so is what a caller broke off it.
        last = None if self._passed_over else b""
        for block, head in zip(blocks, map(self._heads.get, map(_beginning, blocks)), strict=True):
            if head is None:
                block = block.removesuffix(b"\r\n")
                if block.startswith(b"\r\n"):  # the one line more of FullyBooted, where the data was cut before it
                    block = block.lstrip(b"\r\n")
                    head = self._heads.get(block[:_HEAD])
                if head is None and block.startswith(b"Event: "):
                    head = self._head(block)
                if head is None:
                    last = self._without_head(block, frames, last)
                    continue
            if head.skip:
                head.seen += 1
                last = None
                continue
            if head.only is not None:
                line, few, initials, beginnings = head.only
                value = block.rpartition(line)[2]
                if value[few] not in initials or not value.startswith(beginnings):
                    head.seen += 1
                    last = None
                    continue
            if len(block) > longest:
                self._count("oversized")
                continue
            last = block
            try:
                text = block.decode()
            except UnicodeDecodeError:
                text = block.decode("utf-8", "replace")
            found = head.match(text)
            if found is None:
                if block.endswith(b"\r\n"):  # FullyBooted may end with one line more
                    last, text = block[:-2], text[:-2]
                    found = head.match(text)
                if found is None:
                    append(self._decode(head, text))
                    continue
            trusted += 1
            fields = head.read(found)
            at = int(fields["Timestamp"].replace(".", "")) / 1_000_000  # what float() gives, in half of its time
            append(Event(head.kind, at, fields))
        self.decoded += trusted
        self._passed_over = last is None
        return frames

    def _head(self, block: bytes) -> _Head | None:
        """The head of a kind that comes for the first time; None for a row of a list, or what is no event at all."""
        end = block.find(b"\r\n", 7)
        if not block.startswith(b"\r\nPrivilege: ", end):
            return None
        kind = block[7:end].decode("utf-8", "replace")
        wanted = self._wanted
        skip = wanted is not None and kind not in wanted
        if skip and len(self._heads) >= _KINDS_COUNTED:  # an outsider can invent kinds
            return self._others
        head = _Head(kind, None if wanted is None or skip else wanted[kind], skip)
        if len(self._heads) < 2 * _KINDS_COUNTED:
            self._heads[block[:_HEAD]] = head
        return head

    def _without_head(self, block: bytes, frames: list[Frame | Event], last: bytes | None) -> bytes | None:
        """A response, a row of a list, or what a caller broke off; the `last` of `_frames` behind it."""
        if block.startswith(b"Response: ") or (block.startswith(b"Event: ") and b"\r\nActionID: " in block):
            answer = self._answer(block)
            if answer is None:
                return None
            frames.append(answer)
            return block
        self._broken_off(block, frames, last)
        return last

    def _answer(self, block: bytes) -> Frame | None:
        """A response or a row of a list; None if it is too long, or a row that nobody wants."""
        if len(block) > self._max:
            self._count("oversized")
            return None
        if block.startswith(_FOLLOWS):
            return _follows(block)
        wanted = self._wanted
        if wanted is not None and block.startswith(b"Event: "):
            kind = block[7 : block.find(b"\r\n", 7)].decode("utf-8", "replace")
            if kind not in wanted:
                self._others.seen += 1
                return None
        self.decoded += 1
        return _decode_lines(block.decode("utf-8", "replace"), None)

    def _broken_off(self, block: bytes, frames: list[Frame | Event], owner: bytes | None) -> None:
        """A block that begins like nothing of Asterisk's: a caller's value broke it off the one before.

        owner: that one, as `last` of `_frames`.
        """
        self._count("headless")
        if len(block) > self._max or owner is None:
            return
        text = block.decode("utf-8", "replace")
        if not owner:
            frames.append(Frame("", {}, irregular=text))
            return
        frame = frames[-1]
        if isinstance(frame, Event):
            frame = Frame(frame.kind, frame.fields)
        whole = frame.irregular or owner.decode("utf-8", "replace")
        frames[-1] = Frame(frame.kind, frame.fields, None, frame.repeated, f"{whole}\r\n\r\n{text}")

    def _decode(self, head: _Head, text: str) -> Frame | Event:
        """One that is not of the layout met last."""
        self.decoded += 1
        layouts = head.layouts
        for layout in layouts:
            match, read, shape, trusted = layout
            if match is head.match:
                continue
            found = match(text)
            if found is not None:
                if layout is not layouts[0]:  # the usual ones come to the front
                    layouts.remove(layout)
                    layouts.insert(0, layout)
                fields = read(found)
                if trusted:
                    head.match, head.read = match, read
                    return Event(head.kind, float(fields["Timestamp"]), fields)
                return Frame(head.kind, fields, shape)
        frame = _decode_lines(text, head)
        if frame.shape is None:
            return frame
        self._learn(head, frame.shape)
        wanted = self._fields
        if wanted is None:
            return frame
        return Frame(frame.kind, {k: v for k, v in frame.fields.items() if k in wanted}, frame.shape)

    def _learn(self, head: _Head, shape: Shape) -> None:
        """From now on one regular expression reads, and proves, a frame of this shape."""
        if any(layout[2] is shape for layout in head.layouts):
            return
        del head.layouts[_SHAPES_KEPT - 1 :]
        judge = self._judge
        trusted = judge is not None and judge.trusts(shape)
        systemname = judge.systemname if judge is not None and trusted else None
        match, read = _layout(shape.keys, self._fields, systemname, trusted)
        head.layouts.append((match, read, shape, trusted))
        if trusted:
            head.match, head.read = match, read

    def _count(self, what: str) -> None:
        self.bad[what] = self.bad.get(what, 0) + 1


def _split(data: bytes) -> list[bytes]:
    """The blocks of these bytes. CPython mostly finds them quicker from the right (decision 7).

    The difference: of three line ends, one is left at the end of the block before, not at the beginning of the one
    behind. At the end of the data that would part it from what it may belong to.
    """
    if data.endswith((b"\r\n\r\n\r\n", b"\r\n\r\n\r\n\r")):
        return data.split(_END)
    return data.rsplit(_END)


@lru_cache(maxsize=512)  # sessions come and go, Asterisk's shapes stay
def _layout(
    keys: tuple[str, ...], wanted: frozenset[str] | None, systemname: str | None, trusted: bool
) -> tuple[_Match, _Read]:
    """What matches the text of a frame with exactly these keys, and reads those that are kept out of the match.

    trusted: only with a true Timestamp, and with this systemname unless it is None.
    """
    kept = [key for key in keys if wanted is None or key in wanted or (trusted and key == "Timestamp")]
    if trusted and systemname is not None:  # it is the same in all
        kept = [key for key in kept if key != "SystemName"]
    named = all(key.isidentifier() for key in kept)  # as the name of a group has to be
    lines = []
    for key in keys:
        value = "[^\r]*+"
        if trusted and key == "SystemName" and systemname is not None:
            value = re.escape(systemname)
        elif trusted and key == "Timestamp":
            value = r"[0-9]{9,11}+\.[0-9]{6}+"
        if key in kept:
            value = f"(?P<{key}>{value})" if named else f"({value})"
        lines.append(f"{re.escape(key)}: {value}")
    match = re.compile("\r\n".join(lines)).fullmatch
    return match, _by_name if named else lambda found: dict(zip(kept, found.groups(), strict=True))


def _decode_lines(text: str, head: _Head | None) -> Frame:
    """Line by line; a frame whose every key stands once has a shape, which its like are then known by."""
    repeated: list[tuple[str, str]] = []
    lines = text.split("\r\n")
    try:
        fields = dict([line.split(": ", 1) for line in lines])
    except ValueError:  # a line that is no header
        fields = {}
    if len(fields) != len(lines):
        fields = {}
        for line in lines:
            key, colon, value = line.partition(":")
            if not colon:
                continue
            value = value.removeprefix(" ")
            if key in fields:
                repeated.append((key, value))
            else:
                fields[key] = value
    kind = fields.get("Event", "")
    if len(fields) != len(lines):
        return Frame(kind, fields, None, tuple(repeated), text)
    if head is None:
        return Frame(kind, fields)
    keys = tuple(fields)
    shape = head.shapes.get(keys)
    if shape is None:
        shape = Shape(kind, keys)
        if len(head.shapes) < _SHAPES_KEPT:
            head.shapes[keys] = shape
    return Frame(kind, fields, shape)


def _follows(block: bytes) -> Frame:
    """The answer to Command before Asterisk 14: headers, then raw output up to --END COMMAND--."""
    text = block.decode("utf-8", "replace").removesuffix(_FOLLOWS_END.decode())
    fields: dict[str, str] = {}
    lines = text.split("\r\n")
    while lines:
        key, colon, value = lines[0].partition(": ")
        if not colon or key not in {"Response", "Privilege", "ActionID", "Message"}:
            break
        fields[key] = value
        del lines[0]
    out = "\n".join(lines).strip("\n").split("\n")
    fields["Output"] = out[0]
    return Frame("", fields, repeated=tuple(("Output", line) for line in out[1:]))


def encode_action(name: str, fields: Iterable[tuple[str, str]], action_id: str) -> bytes:
    """One action as bytes.

    Raises ValueError where a key or value would write lines of its own (CR, LF, NUL) or is longer than Asterisk reads.
    """
    lines = []
    for key, value in (("Action", name), ("ActionID", action_id), *fields):
        line = f"{key}: {value}"
        if not key or ":" in key or any(c in line for c in "\r\n\0"):
            raise ValueError(f"AMI action {name!r}: {key!r} may not contain CR, LF or NUL")
        raw = line.encode()
        if len(raw) > MAX_LINE:
            raise ValueError(f"AMI action {name!r}: the line of {key!r} is {len(raw)} bytes, Asterisk reads {MAX_LINE}")
        lines.append(raw)
    return b"\r\n".join(lines) + _END
