"""AMI on the wire: bytes in, frames out; actions in, bytes out. Pure, bounded, indifferent to how the bytes are cut.

A frame is header lines and an empty line, CRLF throughout. Asterisk does not escape CR LF in caller-controlled values
(FINDINGS: event forging), so an empty line may stand *inside* a value: a block that does not begin as Asterisk begins
one belongs to the frame before it, and is kept there (`Frame.irregular`) for the guard to judge.
Source: Asterisk main/manager.c (astman_append, __manager_event_sessions_va).
"""

from collections.abc import Iterable, Mapping

from trunkline.asterisk.event import Frame

MAX_LINE = 1024  # bytes of an action's line; Asterisk answers "line too long" above
_END = b"\r\n\r\n"
_KINDS_COUNTED = 256  # an outsider can invent kinds: beyond so many they are counted together
_FOLLOWS = b"Response: Follows\r\n"
_FOLLOWS_END = b"--END COMMAND--"
_UNWANTED: tuple[bytes, tuple[bytes, ...]] = (b"", ())  # nothing starts with one of no beginnings

Wanted = Mapping[str, tuple[str, tuple[str, ...]] | None]
"""Event kinds to decode: None for every one of the kind, or (header, beginnings of its value that count)."""


class Decoder:
    """Bytes of one AMI session into frames; a new session needs a new Decoder.

    wanted: what to decode, None for all. Other kinds are counted in `skipped` and cost a tenth of a decoded one.
    max_frame: bytes; a longer frame is thrown away and counted in `bad`, reading goes on behind it.
    """

    def __init__(self, *, wanted: Wanted | None = None, max_frame: int = 1 << 20) -> None:
        self.banner: str | None = None  # "Asterisk Call Manager/11.0.0", or whatever else the peer says first
        self.skipped: dict[str, int] = {}
        self.bad: dict[str, int] = {}
        self.decoded = 0
        self._wanted: dict[bytes, tuple[bytes, tuple[bytes, ...]] | None] | None = None
        if wanted is not None:
            self._wanted = {
                kind.encode(): rule and (f"\r\n{rule[0]}: ".encode(), tuple(v.encode() for v in rule[1]))
                for kind, rule in wanted.items()
            }
        self._max = max_frame
        self._tail: list[bytes] = []  # what has come of a frame whose end has not
        self._tail_len = 0
        self._discarding = False
        self._begun = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by these bytes, in order.

        A frame is handed out as soon as its empty line is here, with the blocks behind it that belong to it as far as they
        have come; what comes of them later is a frame of its own with an empty kind and no Response, which nothing believes.
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
        if _END not in seam + data:
            self._keep(data)
            return []
        if self._tail:
            data = b"".join(self._tail) + data
        blocks = data.split(_END)
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
            self._count(self.bad, "oversized")
            self._discarding = True
            self._tail = [data[-3:]]
            self._tail_len = len(self._tail[0])

    def _frames(self, blocks: list[bytes]) -> list[Frame]:
        frames: list[Frame] = []
        wanted, skipped = self._wanted, self.skipped
        belongs = False  # does a block without a head belong to the last frame of `frames`?
        for block in blocks:
            if block.startswith(b"Event: "):
                end = block.find(b"\r\n", 7)
                if block[end : end + 13] == b"\r\nPrivilege: " or _is_list_row(block, end):
                    if wanted is not None:
                        name = block[7:end]
                        rule = wanted.get(name, _UNWANTED)
                        if rule is not None and not block.startswith(rule[1], block.find(rule[0]) + len(rule[0])):
                            belongs = False
                            kind = name.decode("utf-8", "replace")
                            if kind in skipped:
                                skipped[kind] += 1
                            else:
                                self._count(skipped, kind)
                            continue
                    if len(block) > self._max:
                        self._count(self.bad, "oversized")
                        continue
                    frames.append(self._decode(block))
                    belongs = True
                    continue
            elif block.startswith(b"Response: "):
                frames.append(_follows(block) if block.startswith(_FOLLOWS) else self._decode(block))
                belongs = True
                continue
            self._count(self.bad, "headless")
            if belongs and len(block) <= self._max:
                last = frames[-1]
                whole = last.irregular or "\r\n".join(f"{k}: {v}" for k, v in last.fields.items())
                frames[-1] = last._replace(irregular=whole + "\r\n\r\n" + block.decode("utf-8", "replace"))
        return frames

    def _decode(self, block: bytes) -> Frame:
        self.decoded += 1
        try:
            text = block.decode()
        except UnicodeDecodeError:
            text = block.decode("utf-8", "replace")
        lines = text.split("\r\n")
        try:
            fields = dict([line.split(": ", 1) for line in lines])
        except ValueError:
            return _decode_irregular(text, lines)
        if len(fields) != len(lines):
            return _decode_irregular(text, lines)
        return Frame(fields.get("Event", ""), fields)

    @staticmethod
    def _count(counts: dict[str, int], what: str) -> None:
        if what not in counts and len(counts) >= _KINDS_COUNTED:
            what = "other"
        counts[what] = counts.get(what, 0) + 1


def _is_list_row(block: bytes, end: int) -> bool:
    """A row of a list action has no Privilege (but Status); it has an ActionID, first or last."""
    return block[end : end + 12] == b"\r\nActionID: " or b"\r\nActionID: " in block[-160:]


def _decode_irregular(text: str, lines: list[str]) -> Frame:
    fields: dict[str, str] = {}
    repeated: list[tuple[str, str]] = []
    for line in lines:
        key, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not colon:
            continue
        if key in fields:
            repeated.append((key, value))
        else:
            fields[key] = value
    return Frame(fields.get("Event", ""), fields, tuple(repeated), text)


def _follows(block: bytes) -> Frame:
    """The answer to Command before Asterisk 14: headers, then raw output up to --END COMMAND--."""
    text = block.decode("utf-8", "replace").removesuffix(_FOLLOWS_END.decode())
    fields: dict[str, str] = {}
    lines = text.split("\r\n")
    output = 0
    for output, line in enumerate(lines):
        key, colon, value = line.partition(": ")
        if not colon or key not in {"Response", "Privilege", "ActionID", "Message"}:
            break
        fields[key] = value
    out = "\n".join(lines[output:]).strip("\n").split("\n")
    fields["Output"] = out[0]
    return Frame("", fields, tuple(("Output", line) for line in out[1:]))


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
