"""Recordings that may be shown to others."""

from pathlib import Path

import pytest

from trunkline.asterisk.anonymise import Anonymiser

CAPTURES = Path(__file__).parents[1] / "replay" / "captures"


def anonymised(*lines: str) -> list[str]:
    return Anonymiser(b"k" * 32).block("\r\n".join(lines)).split("\r\n")


def test_the_same_number_is_the_same_wherever_it_stands() -> None:
    caller, data, file, local = (
        line.partition(": ")[2]
        for line in anonymised(
            "CallerIDNum: 15551234567",
            "AppData: PJSIP/15551234567@trunk,20",
            "Value: /rec/20-15551234567_in.wav",
            "Channel: Local/15551234567@agents-00000001;2",
        )
    )
    assert caller.startswith("1555")
    assert caller != "15551234567"
    assert len(caller) == 11
    assert data == f"PJSIP/{caller}@trunk,20"
    assert file == f"/rec/20-{caller}_in.wav"
    assert local == f"Local/{caller}@agents-00000001;2"


def test_one_subscriber_written_in_three_ways_stays_one() -> None:
    plus, zeros, national = anonymised("A: +442070021001", "A: 00442070021001", "A: 02070021001")
    assert plus.startswith("A: +44207")
    assert plus[-7:] == zeros[-7:] == national[-7:]


@pytest.mark.parametrize(
    "line",
    [
        "Uniqueid: pbx1-1795347642.0",
        "Timestamp: 1795347642.140330",
        "Channel: PJSIP/1001-00000000",
        "Channel: PJSIP/trunk-12345678",
        "BridgeUniqueid: 12345678-5d20-4866-a8ee-123456789012",
        "Exten: 1001",
        "Value: /spool/pbx1-1795347642.0_a.wav",
        "CallerIDName: <unknown>",
        "CallerIDName: ",
        "Value: 127.0.0.1",
        "ActionID: 0123456789",
    ],
)
def test_what_is_nobodys_stays(line: str) -> None:
    assert anonymised(line) == [line]


def test_names_keep_their_shape_and_are_found_again() -> None:
    name, value, quoted = anonymised(
        "CallerIDName: Jane O\\'Doe", "Value: for Jane O\\'Doe", 'CallerID: "Max Power" <15551234567>'
    )
    made = name.partition(": ")[2]
    assert "Jane" not in made
    assert made[4:7:2] == " \\"
    assert value == f"Value: for {made}"
    assert "Max" not in quoted
    assert "1234567" not in quoted


def test_typed_digits_and_addresses_go() -> None:
    digit, address = anonymised("Digit: 7", "RemoteAddress: IPV4/UDP/203.0.113.9/5060")
    assert digit == "Digit: 0"
    assert "203.0.113.9" not in address
    assert "198.51.100." in address


def test_two_recordings_have_nothing_in_common() -> None:
    assert Anonymiser().block("A: 15551234567") != Anonymiser().block("A: 15551234567")


def test_two_numbers_never_become_one() -> None:
    anonymiser = Anonymiser()
    numbers = [f"200{n:04}" for n in range(3000)]
    assert len({anonymiser.block(f"A: {number}") for number in numbers}) == 3000


def test_whole_captures_lose_every_person_and_keep_their_frames() -> None:
    for folder in ("l_recording", "e_queue_second_agent", "q_callerid_forged_event", "m_forward_302"):
        raw = (CAPTURES / folder / "ami.raw").read_bytes().decode("utf-8", "surrogateescape")
        made = Anonymiser().block(raw)
        for person in ("15551234567", "Jane Doe", "Alice Able", "442070021001"):
            assert person not in made, folder
        assert [line.partition(":")[0] for line in made.split("\r\n")] == [
            line.partition(":")[0] for line in raw.split("\r\n")
        ]
