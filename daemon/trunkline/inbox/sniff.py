"""What a file is, by its first bytes; what its sender calls it is not asked.

A short list of what people send each other, each by the mark that its format demands. Whatever a browser would run
(HTML, SVG, XML) is told apart, so that it is never shown in a page of ours; what is not known is bytes.
"""

import re
from typing import Final

HEAD: Final = 4096  # bytes that are looked at
UNKNOWN: Final = "application/octet-stream"

_MARKS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"#!AMR\n", "audio/amr"),
    (b"ID3", "audio/mpeg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"7z\xbc\xaf'\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"{\\rtf", "application/rtf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS: Final = {  # of ISO base media files
    b"avif": "image/avif", b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif",
    b"M4A ": "audio/mp4", b"qt  ": "video/quicktime", b"3gp4": "video/3gpp", b"3gp5": "video/3gpp",
}  # fmt: skip
_OFFICE: Final = {
    b"word/": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    b"xl/": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    b"ppt/": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
# As browsers do it (mimesniff.spec.whatwg.org), and more: a tag or declaration anywhere in the head is enough.
_HTML: Final = re.compile(
    rb"<(?:!doctype\s+html|!--|html|head|body|title|script|style|iframe|object|embed|meta|link|base|form|table|div|img|"
    rb"svg|math|h[1-6]|font|br|a|p|b)[\s>/]",
    re.IGNORECASE,
)
_SVG: Final = re.compile(rb"<(?:[\w.-]+:)?svg[\s>]", re.IGNORECASE)
_XML: Final = re.compile(rb"\s*<\?xml", re.IGNORECASE)
_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))

# What may be shown where it is: formats that hold no script.
SHOWN: Final = frozenset(
    "image/png image/jpeg image/gif image/webp image/avif "
    "audio/ogg audio/flac audio/mpeg audio/wav audio/mp4 audio/amr video/webm video/mp4 text/plain".split()
)
# What a browser might run, whatever it is told: handed out as bytes.
ACTIVE: Final = frozenset({"text/html", "image/svg+xml", "application/xml"})


def sniff(head: bytes) -> str:
    """The MIME type of a file that begins so; `head` is its first HEAD bytes, or all of it."""
    head = head[:HEAD]
    for mark, found in _MARKS:
        if head.startswith(mark):
            return found
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return next((found for folder, found in _OFFICE.items() if folder in head), "application/zip")
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2:  # a frame of MPEG audio, layer III
        return "audio/mpeg"
    return _sniff_text(head)


def _sniff_text(head: bytes) -> str:
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            head = head[len(bom) :].decode(encoding, "replace").encode()
            break
    if _SVG.search(head):
        return "image/svg+xml"
    if _XML.match(head):
        return "application/xml"
    if _HTML.search(head):
        return "text/html"
    if not head or any(byte < 0x20 and byte not in b"\t\n\x0c\r" for byte in head):
        return UNKNOWN
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if len(head) < HEAD or len(head) - error.start > 3:  # it is no character that the head has cut
            return UNKNOWN
    return "text/plain"


def served_as(mime_type: str | None) -> str:
    """The type to hand a file out as: a browser must not run one, whoever has said what it is."""
    if mime_type is None or mime_type in ACTIVE or not re.fullmatch(r"[a-z]+/[a-zA-Z0-9.+-]+", mime_type):
        return UNKNOWN
    kind = mime_type.partition("/")[0]
    harmless = mime_type in SHOWN or (kind != "text" and "xml" not in mime_type and "script" not in mime_type)
    return mime_type if harmless else UNKNOWN
