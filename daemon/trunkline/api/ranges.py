"""Range requests (RFC 9110, 14): one span of bytes, from a first one on; anything else is refused, not guessed."""

import re
from typing import Final, NamedTuple

from trunkline.api.problem import Problem

_SPAN: Final = re.compile(r"bytes=(\d{1,20})-(\d{0,20})", re.ASCII | re.IGNORECASE)  # 20 digits: 2**64 - 1


class Span(NamedTuple):
    """Bytes of a body; `last` is one of them."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1


def read_range(header: str | None, size: int) -> Span | None:
    """What a Range header asks of a body of `size` bytes; None: all of it. Raises Problem (416)."""
    if header is None:
        return None
    found = _SPAN.fullmatch(header.strip().replace(" ", ""))
    if found is None:
        raise _refused("allowed is one span with a first byte: bytes=0-, bytes=0-65535; no suffix, no list", size)
    first = int(found[1])
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if first >= size:
        raise _refused(f"it begins behind the end, there are {size} bytes", size)
    if last < first:
        raise _refused("it ends before it begins", size)
    return Span(first, last)


def _refused(why: str, size: int) -> Problem:
    headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
    return Problem("range_refused", f"The Range header cannot be used: {why}.", headers=headers)
