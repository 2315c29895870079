"""Names of files as strangers give them, made fit to be shown and to be a file's name again."""

import unicodedata
from typing import Final

LONGEST: Final = 200  # characters
NAMELESS: Final = "file"
_JOINERS: Final = frozenset("\u200c\u200d")  # Persian and emoji need them


def clean_name(given: str) -> str:
    """The last part of a path, without what cannot be seen or turns the reading round; never empty.

    A long one keeps its ending: that is what tells people, and their programs, what the file is.
    """
    last = given.replace("\\", "/").rstrip("/").rpartition("/")[2]
    seen = "".join(_visible(c) for c in unicodedata.normalize("NFC", last)).strip(" .\u200c\u200d")
    if len(seen) > LONGEST:
        stem, dot, ending = seen.rpartition(".")
        kept = dot + ending if dot and len(ending) <= 16 else ""
        seen = (stem if kept else seen)[: LONGEST - len(kept)] + kept
    return seen or NAMELESS


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cs":  # bytes that were no UTF-8
        return "\ufffd"
    if kind in ("Cc", "Cf", "Zl", "Zp") and character not in _JOINERS:
        return ""
    return " " if kind == "Zs" else character
