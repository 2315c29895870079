"""Calls from outside to one agent."""

from datetime import timedelta

from stage import Stage, cdrs, check, talk

from trunkline.calls.record import Direction, EndedBy, EndReason, Status


def test_answered_and_the_caller_hangs_up(stage: Stage) -> None:
    customer, desk = stage.ring()
    customer.wait_ring()
    talk(1.2)
    desk.answer()
    customer.wait_answer()
    talk(1.5)
    customer.hangup()
    desk.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang=["1002"],
        recordings=1,
        legs=[(stage.caller, "CALLER", None, "HANGUP"), ("1002", "AGENT", "ANSWER", "HANGUP")],
    )
    assert (record.from_, record.to, record.phone_number) == (stage.caller, stage.pbx.did("0002"), stage.caller)
    assert (record.from_e164, record.to_e164) == (f"+{stage.caller}", f"+{stage.pbx.did('0002')}")
    assert record.pbx == stage.pbx.systemname
    assert record.channel_id == record.external_id
    assert record.external_id.startswith(f"{stage.pbx.systemname}-")
    assert record.answered_at is not None
    assert timedelta(seconds=1.1) < record.answered_at - record.started_at < timedelta(seconds=3)
    assert (record.wait_seconds, record.talk_seconds) in {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert not record.hold_seconds
    # one CDR, that says the same
    (cdr,) = cdrs(stage.pbx, record.external_id)
    assert (cdr[1], cdr[13]) == (stage.caller, "ANSWERED")


def test_answered_and_the_agent_hangs_up(stage: Stage) -> None:
    customer, desk = stage.connect()
    talk()
    desk.hangup()
    customer.wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLEE,
        answered_by="1002",
        rang=["1002"],
        recordings=1,
    )


def test_nobody_answers(stage: Stage) -> None:
    customer, desk = stage.ring()
    desk.wait_end()
    customer.wait_end()
    assert customer.status == 480
    check(
        stage.rows.ended(stage.caller),
        status=Status.MISSED,
        end_reason=EndReason.RING_TIMEOUT,
        ended_by=EndedBy.PBX,
        rang=["1002"],
        legs=[(stage.caller, "CALLER", None, "RING_TIMEOUT"), ("1002", "AGENT", "NOANSWER", "RING_TIMEOUT")],
    )


def test_busy(stage: Stage) -> None:
    customer, desk = stage.ring()
    desk.reject("486 Busy Here")
    customer.wait_end()
    assert customer.status == 486
    record = stage.rows.ended(stage.caller)
    check(record, status=Status.BUSY, end_reason=EndReason.BUSY, ended_by=record.ended_by, rang=["1002"])
    assert record.ended_by in {EndedBy.CALLEE, EndedBy.PBX}


def test_declined(stage: Stage) -> None:
    customer, desk = stage.ring()
    desk.reject("603 Decline")
    customer.wait_end()
    record = stage.rows.ended(stage.caller)
    check(record, status=Status.MISSED, end_reason=EndReason.DECLINED, ended_by=record.ended_by, rang=["1002"])
    assert record.ended_by in {EndedBy.CALLEE, EndedBy.PBX}


def test_the_caller_gives_up(stage: Stage) -> None:
    customer, desk = stage.ring()
    customer.wait_ring()
    customer.cancel()
    desk.wait_end()
    customer.wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.MISSED,
        end_reason=EndReason.CANCELED,
        ended_by=EndedBy.CALLER,
        rang=["1002"],
        legs=[(stage.caller, "CALLER", None, "CANCELED"), ("1002", "AGENT", "CANCEL", "CANCELED")],
    )


def test_the_agents_phone_is_not_there(stage: Stage) -> None:
    customer = stage.dial("0006")
    customer.wait_end()
    assert customer.status == 480
    check(
        stage.rows.ended(stage.caller),
        status=Status.MISSED,
        end_reason=EndReason.UNAVAILABLE,
        ended_by=EndedBy.PBX,
        legs=[(stage.caller, "CALLER", None, "UNAVAILABLE")],
    )


def test_an_unknown_number_is_no_call(stage: Stage) -> None:
    customer = stage.dial("9999")
    customer.wait_end()
    assert customer.status == 404
    assert stage.rows.where("from_number = $1", stage.caller) == []


def test_voicemail(stage: Stage) -> None:
    customer, desk = stage.ring("0001", "1001")
    desk.wait_end()
    customer.wait_answer()
    talk(3.5)  # the greeting, then a message
    customer.hangup()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.VOICEMAIL,
        end_reason=record.end_reason,
        ended_by=EndedBy.CALLER,
        rang=["1001"],
        recordings=len(record.recordings),
    )
    assert record.answered_at is None


def test_forwarded_by_the_agents_phone(stage: Stage) -> None:
    desk_from = stage.agent("1004")
    desk_to = stage.agent("1003")
    customer = stage.dial("0004")
    desk_from.wait_call().forward("1003")
    other = desk_to.wait_call()
    other.answer()
    customer.wait_answer()
    talk()
    customer.hangup()
    other.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1003",
        rang=record.rang,
        forwarded_from="1004",
        recordings=1,
    )
    assert "1003" in record.rang


def test_a_withheld_number_that_was_diverted_to_us(stage: Stage) -> None:
    desk_phone = stage.agent("1002")
    customer = stage.carrier.call(
        stage.pbx.did("0002"),
        caller="anonymous",
        headers=("Privacy: id", f"Diversion: <sip:{stage.caller}@127.0.0.2>;reason=no-answer"),
    )
    desk = desk_phone.wait_call()
    desk.answer()
    customer.wait_answer()
    talk()
    customer.hangup()
    desk.wait_end()
    record = stage.rows.ended("anonymous")
    check(
        record,
        status=Status.COMPLETED,
        caller_name=record.caller_name,
        from_private=True,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang=["1002"],
        diverted_from=stage.caller,
        recordings=1,
    )
    assert record.from_e164 is None
    assert record.lead_id is None
    assert record.direction is Direction.INBOUND


def test_held_twice(stage: Stage) -> None:
    customer, desk = stage.connect()
    for side in (desk, customer):
        side.hold()
        talk(1.1)
        side.unhold()
        talk(0.2)
    customer.hangup()
    desk.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang=["1002"],
        holds=["1002", stage.caller],
        recordings=1,
    )
    assert record.hold_seconds in {2, 3}
