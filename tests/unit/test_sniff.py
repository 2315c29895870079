"""What a file is, and what it is called, whoever says otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.inbox.names import LONGEST, NAMELESS, clean_name
from trunkline.inbox.sniff import ACTIVE, HEAD, SHOWN, UNKNOWN, served_as, sniff


@pytest.mark.parametrize(
    ("head", "mime_type"),
    [
        (b"", UNKNOWN),
        (b"\x89PNG\r\n\x1a\n\x00", "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"GIF89a<script>", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"RIFF\x00\x00\x00\x00XXXX", UNKNOWN),
        (b"\x00\x00\x00\x20ftypisom", "video/mp4"),
        (b"\x00\x00\x00\x20ftypM4A \x00", "audio/mp4"),
        (b"\x00\x00\x00\x20ftypheic", "image/heic"),
        (b"OggS\x00\x02", "audio/ogg"),
        (b"\xff\xfb\x90\x00", "audio/mpeg"),
        (b"ID3\x04", "audio/mpeg"),
        (b"%PDF-1.7", "application/pdf"),
        (b"PK\x03\x04\x14\x00[Content_Types].xml...word/document.xml",
         "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (b"PK\x03\x04\x14\x00photos/a.jpg", "application/zip"),
        (b"hello, w\xc3\xb6rld\n", "text/plain"),
        (b"caf\xe9", UNKNOWN),
        (b"a\x00b", UNKNOWN),
        ("ö".encode() * HEAD, "text/plain"),
        (b"x" + "ö".encode() * HEAD, "text/plain"),  # the head cuts a character
        (b"<!DOCTYPE html>", "text/html"),
        (b"hi <ScRiPt src=//x>", "text/html"),
        (b"<!-- --><p>", "text/html"),
        (b"\xef\xbb\xbf<html>", "text/html"),
        ("\ufeff<html>".encode("utf-16-le"), "text/html"),
        (b"\x00<script>alert(1)</script>", "text/html"),
        (b"<?xml version='1.0'?><svg:svg xmlns:svg='x'>", "image/svg+xml"),
        (b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>", "application/xml"),
        (b"if a < b and c > d:", "text/plain"),
    ],
)  # fmt: skip
def test_what_it_is(head: bytes, mime_type: str) -> None:
    assert sniff(head) == mime_type


@given(st.binary(max_size=5000))
def test_whatever_it_is_no_browser_runs_it(content: bytes) -> None:
    found = sniff(content)
    assert served_as(found) == (UNKNOWN if found in ACTIVE else found)


@pytest.mark.parametrize(
    "declared",
    [
        None, "", "text/html", "TEXT/HTML", "text/html; charset=utf-8", "image/svg+xml", "application/xhtml+xml",
        "text/javascript", "application/javascript", "text/css", "text/xml", "x", "image/png\r\nX: y", "image/png x",
    ],
)  # fmt: skip
def test_what_the_old_schema_was_told_is_not_believed_either(declared: str | None) -> None:
    assert served_as(declared) == UNKNOWN


def test_what_is_shown_is_handed_out_as_it_is() -> None:
    assert {served_as(mime_type) for mime_type in SHOWN} == SHOWN


@given(st.text(max_size=400))
def test_a_name_is_one_line_that_can_be_a_files(given_name: str) -> None:
    name = clean_name(given_name)
    assert 1 <= len(name) <= LONGEST
    assert not set(name) & set("/\\\x00\r\n\u202e\u2066\u2028")
    assert name not in (".", "..")
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("", NAMELESS), (".", NAMELESS), ("a/..", NAMELESS), ("///", NAMELESS), ("\u200d", NAMELESS),
        ("a/b\\c.txt", "c.txt"), ("dir/", "dir"), ("e\u0301.txt", "é.txt"), ("\ud800x", "\ufffdx"),
        (".htaccess", "htaccess"), ("می‌خواهم.pdf", "می‌خواهم.pdf"), ("a\u00a0b", "a b"),
        ("x" * 300, "x" * 200), ("x" * 300 + "." + "y" * 50, "x" * 200),
    ],
)  # fmt: skip
def test_what_a_name_becomes(given_name: str, kept: str) -> None:
    assert clean_name(given_name) == kept
