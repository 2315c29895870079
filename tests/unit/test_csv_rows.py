"""CSV in any chunking: what a writer of CSV wrote comes back, what is broken costs its record, nothing costs memory."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.crm.csv_rows import LONGEST_RECORD, CsvReader, Record, Unreadable


def read(data: bytes, sizes: list[int] | None = None) -> list[Record]:
    reader, found, at, n = CsvReader(), [], 0, 0
    while sizes and at < len(data):
        size = sizes[n % len(sizes)]
        found += reader.feed(data[at : at + size])
        at, n = at + size, n + 1
    return found + list(reader.feed(data[at:], end=True))


FIELD = st.text(st.one_of(st.sampled_from('",;\t\r\n =@é😀'), st.characters(codec="utf-8")), max_size=8).map(
    lambda text: "".join(c for c in text if c in "\t\r\n" or (ord(c) > 31 and ord(c) != 127))
)


@given(
    rows=st.lists(st.lists(FIELD, min_size=2, max_size=4), max_size=6),
    delimiter=st.sampled_from(",;\t"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    bom=st.sampled_from(["", "\ufeff"]),
)
def test_what_was_written_is_read(
    rows: list[list[str]], delimiter: str, line_end: str, sizes: list[int], bom: str
) -> None:
    header = ["a", "b", "c"]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    found = read((bom + out.getvalue()).encode(), sizes)
    assert [record.fields for record in found] == [header, *rows]
    assert all(record.fault is None for record in found)


@given(data=st.binary(max_size=60), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_the_chunking_changes_nothing(data: bytes, sizes: list[int]) -> None:
    def outcome(sizes: list[int] | None) -> object:
        try:
            return read(b"a,b\n" + data, sizes)
        except Unreadable:
            return "unreadable"

    assert outcome(sizes) == outcome(None)


def test_a_broken_record_costs_itself_and_is_told_with_its_line() -> None:
    data = b'name,phone\r\n"two\r\nlines",1\n5" pipe,2\n"x"y,3\n\nnul\x00,4\nfine,"5 "" 5"\n"never closed,6\n'
    assert read(data) == [
        Record(1, ["name", "phone"]),
        Record(2, ["two\r\nlines", "1"]),
        Record(4, [], "a quote stands in a field that is not quoted"),
        Record(5, [], "something stands behind a closing quote"),
        Record(7, [], "column 1: holds a control character"),
        Record(8, ["fine", '5 " 5']),
        Record(9, [], "a quote is not closed"),
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a,b\nx,\xff\n", "line 2: this is not UTF-8"),
        ("a,b\nÄ,b\n".encode("latin-1"), "line 2: this is not UTF-8"),
        (b"a,b\nx,\xc3", "line 2: this is not UTF-8"),
        ("a,b\n".encode("utf-16"), "UTF-16"),
        ("a,b\n".encode("utf-16-le"), "UTF-16"),
        (b'a,b\n"' + b"x" * (LONGEST_RECORD + 9), "line 2: its record is longer"),
        (b"a" * (LONGEST_RECORD + 9), "line 1: its record is longer"),
    ],
)
@pytest.mark.parametrize("sizes", [None, [1000]])
def test_what_cannot_be_read_says_where(data: bytes, said: str, sizes: list[int] | None) -> None:
    with pytest.raises(Unreadable, match=said):
        # What never ends is not waited for.
        list(CsvReader().feed(data)) if said.endswith("longer") else read(data, sizes)


def test_no_more_is_kept_than_a_record() -> None:
    reader = CsvReader()
    for _ in range(1000):
        assert len(list(reader.feed(b"name,phone\n" * 100))) == 100
        assert len(reader._text) == 0
