"""The AMI codec: whatever the chunks, the same frames; whatever the bytes, bounded and never raising."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from trunkline.asterisk.codec import MAX_LINE, Decoder, encode_action
from trunkline.asterisk.event import Frame
from trunkline.calls.needs import FIELDS, NEEDED

HANGUP = (
    b"Event: Hangup\r\nPrivilege: call,all\r\nTimestamp: 1795347138.135151\r\nSystemName: pbx1\r\n"
    b"Channel: PJSIP/trunk-00000000\r\nAccountCode: \r\nUniqueid: pbx1-1795347136.0\r\nCause: 16\r\n\r\n"
)
VARSET = b"Event: VarSet\r\nPrivilege: dialplan,all\r\nChannel: PJSIP/1001-1\r\nVariable: %b\r\nValue: %b\r\n\r\n"


def decode(data: bytes, **options: object) -> list[Frame]:
    return Decoder(**options).feed(data)


def in_chunks(data: bytes, cuts: list[int], **options: object) -> list[Frame]:
    decoder = Decoder(**options)
    frames = []
    edges = [0, *sorted({c % (len(data) + 1) for c in cuts}), len(data)]
    for a, b in itertools.pairwise(edges):
        frames += decoder.feed(data[a:b])
    return frames


def test_an_event_is_its_fields_in_order():
    (frame,) = decode(HANGUP)
    assert frame.kind == "Hangup"
    assert list(frame.fields)[:4] == ["Event", "Privilege", "Timestamp", "SystemName"]
    assert frame.fields["AccountCode"] == ""
    assert frame.fields["Cause"] == "16"
    assert frame.repeated == ()


def test_the_banner_is_no_frame():
    decoder = Decoder()
    assert decoder.feed(b"Asterisk Call Manager/11.0.0\r\n" + HANGUP)[0].kind == "Hangup"
    assert decoder.banner == "Asterisk Call Manager/11.0.0"


@pytest.mark.parametrize("peer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\xff\xfe" * 200])
def test_another_protocol_shows_in_the_banner(peer: bytes):
    decoder = Decoder()
    decoder.feed(peer)
    assert decoder.banner is not None
    assert not decoder.banner.startswith("Asterisk Call Manager")


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)
events = st.lists(texts, min_size=1, max_size=4).map(
    lambda values: (
        b"Event: Thing\r\nPrivilege: call,all\r\n"
        + b"".join(f"Key{i}: {v}\r\n".encode() for i, v in enumerate(values))
        + b"\r\n"
    )
)


@settings(max_examples=200, deadline=None)
@given(st.lists(events | st.just(HANGUP), min_size=1, max_size=6), st.lists(st.integers(0, 5000), max_size=12))
def test_any_chunking_gives_the_same_frames(blocks: list[bytes], cuts: list[int]):
    data = b"".join(blocks)
    assert _same(data, cuts)


def _same(data: bytes, cuts: list[int]) -> bool:
    """Frames but for their Shape objects, which are a decoder's own."""
    whole, cut = in_chunks(data, []), in_chunks(data, cuts)
    return [replace(f, shape=None) for f in whole] == [replace(f, shape=None) for f in cut]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_no_bytes_raise(noise: bytes, cuts: list[int]):
    data = HANGUP + noise + b"\r\n\r\n" + HANGUP
    frames = in_chunks(data, cuts, wanted=NEEDED, fields=FIELDS)
    assert frames[0].kind == "Hangup"


def test_byte_by_byte_is_the_same():
    data = (HANGUP + VARSET % (b"A", b"\xc3\xa9")) * 3
    assert _same(data, list(range(len(data))))


def test_repeated_keys_are_kept_and_the_first_wins():
    (frame,) = decode(b"Event: X\r\nPrivilege: a\r\nChanVariable: A=1\r\nChanVariable: B=2\r\n\r\n")
    assert frame.fields["ChanVariable"] == "A=1"
    assert frame.repeated == (("ChanVariable", "B=2"),)
    assert frame.shape is None


def test_values_may_contain_what_separates():
    for value in ("a: b", "a: b: c", ":", ": ", "x:y", "Event: Hangup", "Uniqueid: 1"):
        data = VARSET % (b"A", value.encode())
        decoder = Decoder()
        decoder.feed(VARSET % (b"A", b"plain"))  # so that the kind's shape is known
        (frame,) = decoder.feed(data)
        assert frame.fields["Value"] == value


def test_invalid_utf8_and_nul_are_text_like_any_other():
    (frame,) = decode(VARSET % (b"A", b"bad \xff\xfe end\x00x"))
    assert frame.fields["Value"] == "bad �� end\x00x"


def test_command_output_of_old_and_new_asterisks():
    (new,) = decode(
        b"Response: Success\r\nActionID: 1\r\nMessage: Command output follows\r\nOutput: a\r\nOutput: b\r\n\r\n"
    )
    (old,) = decode(
        b"Response: Follows\r\nPrivilege: Command\r\nActionID: 1\r\nOutput line: one\ntwo\n--END COMMAND--\r\n\r\n"
    )
    assert [new.fields["Output"], *(v for _, v in new.repeated)] == ["a", "b"]
    assert [old.fields["Output"], *(v for _, v in old.repeated)] == ["Output line: one", "two"]
    assert old.fields["ActionID"] == "1"


def test_a_frame_without_an_end_is_bounded_and_reading_goes_on():
    decoder = Decoder(max_frame=1 << 20)
    decoder.feed(HANGUP)
    held = 0
    for _ in range(160):
        assert decoder.feed(b"x" * (1 << 16)) == []
        held = max(held, sum(map(len, decoder._tail)))
    assert held <= (1 << 20) + (1 << 16)
    assert [f.kind for f in decoder.feed(b"\r\n\r\n" + HANGUP)] == ["Hangup"]
    assert decoder.bad["oversized"] == 1


def test_unwanted_kinds_are_counted_not_decoded():
    decoder = Decoder(wanted={"Hangup": None, "VarSet": ("Variable", ("TL_",))})
    frames = decoder.feed(
        HANGUP + VARSET % (b"X", b"1") + VARSET % (b"TL_A", b"1") + HANGUP.replace(b"Hangup", b"Nope")
    )
    assert [f.kind for f in frames] == ["Hangup", "VarSet"]
    assert decoder.skipped == {"VarSet": 1, "Nope": 1}
    assert decoder.decoded == 2


def test_invented_kinds_do_not_fill_the_memory():
    decoder = Decoder(wanted={"Hangup": None})
    for i in range(5000):
        decoder.feed(b"Event: Kind%d\r\nPrivilege: x%d\r\n\r\n" % (i, i))
        decoder.feed(b"Event: Hangup\r\nPrivilege: x%d\r\n\r\n" % i)
    assert len(decoder._heads) <= 1024
    assert len(decoder.skipped) <= 1024
    assert sum(decoder.skipped.values()) == 5000


def test_a_block_without_a_head_belongs_to_the_frame_before_it():
    broken = HANGUP.replace(b"Channel:", b"CallerIDNum: 1\r\n\r\nEvent: Hangup\r\nUniqueid: forged\r\nChannel:")
    (frame,) = decode(broken)
    assert frame.shape is None
    assert "Uniqueid: forged" in frame.irregular
    assert "Uniqueid" not in frame.fields


def test_what_a_caller_broke_off_an_unwanted_row_belongs_to_nothing():
    decoder = Decoder(wanted=NEEDED, fields=FIELDS)
    row = b"Event: CoreShowChannel\r\nActionID: 1\r\nCallerIDNum: 1\r\n\r\nUniqueid: forged\r\n\r\n"
    assert decoder.feed(row) == []
    (frame,) = decoder.feed(HANGUP + row)
    assert frame.irregular == ""
    assert decoder.bad == {"headless": 2}


def test_only_asked_fields_are_kept_but_all_are_proved():
    decoder = Decoder(fields=frozenset({"Uniqueid"}))
    for _ in range(2):
        (frame,) = decoder.feed(HANGUP)
        assert frame.fields == {"Uniqueid": "pbx1-1795347136.0"}
        assert frame.shape is not None
        assert frame.shape.keys[-1] == "Cause"


def test_an_action_is_lines_and_an_end():
    data = encode_action("Getvar", [("Channel", "PJSIP/1-1"), ("Variable", "X")], "id1")
    assert data == b"Action: Getvar\r\nActionID: id1\r\nChannel: PJSIP/1-1\r\nVariable: X\r\n\r\n"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20), st.text(max_size=40), st.text(max_size=20))
def test_no_value_writes_a_header_of_its_own(key: str, value: str, action_id: str):
    try:
        data = encode_action("Originate", [(key, value)], action_id)
    except ValueError:
        return
    assert len(re.split(rb"\r\n|\r|\n|\0", data)) == 5


def test_a_line_longer_than_asterisk_reads_is_refused():
    with pytest.raises(ValueError, match=str(MAX_LINE)):
        encode_action("Setvar", [("Value", "x" * MAX_LINE)], "1")


def test_an_empty_line_too_many_costs_no_event():
    assert [f.kind for f in decode(b"Event: FullyBooted\r\nPrivilege: system,all\r\n\r\n\r\n" + HANGUP)] == [
        "FullyBooted",
        "Hangup",
    ]


@pytest.mark.parametrize("line_ends", [3, 4, 5])
def test_line_ends_too_many_cost_no_event_however_they_are_cut(line_ends: int):
    data = HANGUP.removesuffix(b"\r\n\r\n") + b"\r\n" * line_ends + HANGUP
    for cut in range(len(HANGUP) - 4, len(HANGUP) + 8):
        frames = in_chunks(HANGUP + data, [len(HANGUP) + cut])
        assert [f.kind for f in frames if f.kind] == ["Hangup"] * 3
        if line_ends == 3:
            assert all(f.shape is not None for f in frames)


def test_every_packet_is_counted_once():
    for name in ("a_inbound_caller_hangs_up", "q_callerid_forged_event", "r_status_in_calls"):
        data = (Path(__file__).parents[1] / "replay" / "captures" / name / "ami.raw").read_bytes()
        decoder = Decoder(wanted=NEEDED, fields=FIELDS)
        for i in range(0, len(data), 1000):
            decoder.feed(data[i : i + 1000])
        assert decoder.decoded + sum(decoder.skipped.values()) + decoder.bad.get("headless", 0) == data.count(
            b"\r\n\r\n"
        )
