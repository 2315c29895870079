"""Callers who write what they like: names, numbers, and AMI events in a SIP header."""

from urllib.parse import quote

import pytest
from stage import Stage, check, talk

from trunkline.calls.record import EndedBy, Status

# pjsip unescapes it, and Asterisk writes it raw: below 80 characters, as it cuts there
FORGED = quote("1\r\n\r\nEvent: Hangup\r\nUniqueid: forged\r\nCause: 16\r\nX: y", safe="")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("Zoë 李雷 Ünïcödé 🎉", "Zoë 李雷 Ünïcödé 🎉"),
        ("'; DROP TABLE call;--", "'; DROP TABLE call;--"),
        ("${SHELL(id)}", "${SHELL(id)}"),
        ("Event: Hangup", "Event: Hangup"),
        (r"back\\slash", r"back\\slash"),
        ("x" * 300, "x" * 79),
    ],
)
def test_a_name_is_stored_as_it_was_sent(stage: Stage, sent: str, stored: str) -> None:
    desk_phone = stage.agent("1002")
    customer = stage.dial("0002", name=sent)
    desk = desk_phone.wait_call()
    desk.answer()
    customer.wait_answer()
    customer.hangup()
    desk.wait_end()
    record = stage.rows.ended(stage.caller)
    assert record.caller_name == stored
    assert record.status is Status.COMPLETED


def test_an_event_forged_in_from_ends_no_call(stage: Stage) -> None:
    """The victim's call goes on, and both rows are right."""
    customer, desk = stage.connect("0003", "1003")
    victim = stage.rows.live(stage.caller, Status.IN_PROGRESS)
    attacker_desk = stage.agent("1002")
    attacker = stage.carrier.call(stage.pbx.did("0002"), caller=FORGED)
    other = attacker_desk.wait_call()
    other.answer()
    attacker.wait_answer()
    assert b"\r\n\r\nEvent: Hangup\r\nUniqueid: forged" in stage.tap.raw[stage.mark :]  # the attack is real
    talk()
    attacker.hangup()
    other.wait_end()
    assert stage.rows.live(stage.caller, Status.IN_PROGRESS).id == victim.id
    customer.hangup()
    desk.wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1003",
        rang=["1003"],
        recordings=1,
    )
    assert stage.rows.where("external_id = 'forged' OR channel_id = 'forged'") == []


@pytest.mark.parametrize("dialled", ["8001" + FORGED, "1002" + FORGED, "+1202555" + FORGED])
def test_only_digits_can_be_dialled(stage: Stage, dialled: str) -> None:
    """The dialplan's patterns have fixed lengths, so that nothing else than a number gets to be an extension."""
    call = stage.agent("1003").call(dialled)
    call.wait_end()
    assert call.status == 404
    assert b"\r\n\r\nEvent: Hangup\r\nUniqueid: forged" not in stage.tap.raw[stage.mark :]


def test_the_carrier_reaches_nothing_but_our_numbers(stage: Stage) -> None:
    for number in ("1002", "700", "*97", "12025550199", "2000"):
        call = stage.carrier.call(number, caller=stage.caller)
        call.wait_end()
        assert call.status == 404, number
    assert stage.rows.where("from_number = $1", stage.caller) == []
