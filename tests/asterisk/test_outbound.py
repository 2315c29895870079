"""Calls that begin with one of us: to colleagues, to the outside, and by click to dial."""

from datetime import UTC, datetime

from stage import Stage, Tap, check, talk, until

from trunkline.calls.record import LIVE, CallRecord, Direction, EndedBy, EndReason, Status

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def newest(stage: Stage, to: str, since: datetime = LONG_AGO) -> CallRecord:
    """The ended call to a number that only this test has dialled since then."""
    found: list[CallRecord] = until(
        f"an ended call to {to}",
        lambda: [
            record
            for record in stage.rows.where("to_number = $1 AND started_at >= $2", to, since)
            if record.status not in LIVE
        ],
    )
    assert len(found) == 1
    return found[0]


def test_a_colleague(stage: Stage) -> None:
    began = datetime.now(UTC)
    callee = stage.agent("1004")
    call = stage.agent("1003").call("1004")
    desk = callee.wait_call()
    desk.answer()
    call.wait_answer()
    talk()
    desk.hangup()
    call.wait_end()
    record = newest(stage, "1004", began)
    check(
        record,
        direction=Direction.INTERNAL,
        status=Status.COMPLETED,
        caller_name="Carol Cole",
        ended_by=EndedBy.CALLEE,
        answered_by="1004",
        rang=["1004"],
        legs=[("1003", "CALLER", None, "HANGUP"), ("1004", "AGENT", "ANSWER", "HANGUP")],
    )
    assert (record.from_, record.to) == ("1003", "1004")
    assert record.conversation_id is None
    assert record.from_e164 is None


def test_a_mailbox_pin_is_not_kept(stage: Stage) -> None:
    call = stage.agent("1001").call("*97").wait_answer()
    talk()
    call.press(stage.pbx.secrets.pins["1001"] + "#")
    talk()
    call.hangup()
    record = newest(stage, "*97")
    assert record.digits is None
    assert (record.direction, record.from_) == (Direction.INTERNAL, "1001")


def test_out_by_the_trunk(stage: Stage) -> None:
    call = stage.agent("1003").call(stage.caller)
    outside = stage.carrier.wait_call()
    assert outside.caller == stage.pbx.did("0003")  # the agent's own number, not the extension
    outside.answer()
    call.wait_answer()
    talk()
    call.hangup()
    outside.wait_end()
    record = newest(stage, stage.caller)
    check(
        record,
        direction=Direction.OUTBOUND,
        status=Status.COMPLETED,
        caller_name="Carol Cole",
        ended_by=EndedBy.CALLER,
        answered_by=stage.caller,
        rang=record.rang,
    )
    assert (record.from_, record.phone_number) == ("1003", stage.caller)
    assert record.to_e164 == f"+{stage.caller}"


def test_out_with_a_plus_and_busy(stage: Stage) -> None:
    call = stage.agent("1003").call(f"+{stage.caller}")
    stage.carrier.wait_call().reject("486 Busy Here")
    call.wait_end()
    record = newest(stage, f"+{stage.caller}")
    check(
        record,
        direction=Direction.OUTBOUND,
        status=Status.BUSY,
        caller_name="Carol Cole",
        end_reason=EndReason.BUSY,
        ended_by=record.ended_by,
        rang=record.rang,
    )


def test_out_and_nobody_answers(stage: Stage) -> None:
    call = stage.agent("1003").call(stage.caller)
    outside = stage.carrier.wait_call()
    call.wait_ring()
    call.cancel()
    outside.wait_end()
    record = newest(stage, stage.caller)
    check(
        record,
        direction=Direction.OUTBOUND,
        status=Status.NO_ANSWER,
        caller_name="Carol Cole",
        end_reason=EndReason.CANCELED,
        ended_by=EndedBy.CALLER,
        rang=record.rang,
    )


def test_click_to_dial(stage: Stage) -> None:
    desk_phone = stage.agent("1003")
    control = Tap(stage.pbx, "control", stage.pbx.secrets.ami_control)
    try:
        answer = control.ask(
            "Originate",
            "Channel: PJSIP/1003\r\nContext: agents\r\nPriority: 1\r\nAsync: true\r\nTimeout: 5000\r\n"
            f"Exten: {stage.caller}\r\nChannelId: click-{stage.caller}\r\nCallerID: {stage.caller}\r\n",
        )
        assert b"Success" in answer
        desk = desk_phone.wait_call()
        desk.answer()
        outside = stage.carrier.wait_call()
        outside.answer()
        talk()
        outside.hangup()
        desk.wait_end()
    finally:
        control.close()
    record = newest(stage, stage.caller)
    check(
        record,
        direction=Direction.OUTBOUND,
        status=Status.COMPLETED,
        caller_name=record.caller_name,
        ended_by=EndedBy.CALLEE,
        answered_by=stage.caller,
        rang=record.rang,
    )
    assert record.from_ == "1003"
    assert record.external_id == f"click-{stage.caller}"
