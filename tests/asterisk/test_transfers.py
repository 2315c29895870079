"""A call that moves: transfers, pickup, parking."""

from stage import Stage, check, talk

from trunkline.calls.record import EndedBy, Status


def test_blind_transfer_by_refer(stage: Stage) -> None:
    target = stage.agent("1003")
    customer, desk = stage.connect()
    talk()
    desk.transfer("1003")
    other = target.wait_call()
    desk.transferred.wait(3)
    desk.hangup()
    other.answer()
    talk()
    customer.hangup()
    other.wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party="1003",
        rang=["1002", "1003"],
        transfers=[("BLIND", "1002", "1003", "ANSWERED")],
        recordings=1,
        legs=[
            (stage.caller, "CALLER", None, "HANGUP"),
            ("1002", "AGENT", "ANSWER", "TRANSFERRED"),
            ("1003", "TRANSFER_TARGET", "ANSWER", "HANGUP"),
        ],
    )


def test_attended_transfer_by_refer(stage: Stage) -> None:
    target = stage.agent("1003")
    customer, desk = stage.connect()
    desk.hold()
    consultation = stage.agent("1002").call("1003")
    other = target.wait_call()
    other.answer()
    consultation.wait_answer()
    talk()
    desk.transfer(to=consultation)
    stage.tap.event("AttendedTransfer", stage.mark)
    for mine in (desk, consultation):
        mine.hangup()
    talk()
    customer.hangup()
    other.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party="1003",
        rang=record.rang,
        transfers=[("ATTENDED", "1002", "1003", "ANSWERED")],
        holds=["1002"],
        aliases=1,  # the consultation was a call of its own until then
        recordings=1,
    )
    assert stage.rows.where("external_id = $1", record.aliases[0]) == []


def test_attended_transfer_by_feature_code(stage: Stage) -> None:
    target = stage.agent("1003")
    customer, desk = stage.connect()
    talk()
    desk.press("*2")
    talk(1.2)  # Asterisk plays a prompt, then collects
    desk.press("1003")
    other = target.wait_call()
    other.answer()
    talk(0.8)
    desk.hangup()
    stage.tap.event("AttendedTransfer", stage.mark)
    talk()
    customer.hangup()
    other.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party="1003",
        rang=record.rang,
        transfers=[("ATTENDED", "1002", "1003", "ANSWERED")],
        holds=[hold.by for hold in record.holds],
        recordings=1,
    )


def test_a_consultation_that_comes_to_nothing_is_no_transfer(stage: Stage) -> None:
    target = stage.agent("1003")
    customer, desk = stage.connect()
    desk.hold()
    consultation = stage.agent("1002").call("1003")
    other = target.wait_call()
    other.reject("486 Busy Here")
    consultation.wait_end()
    desk.unhold()
    customer.hangup()
    desk.wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang=["1002"],
        holds=["1002"],
        recordings=1,
    )


def test_directed_pickup(stage: Stage) -> None:
    customer, desk = stage.ring()
    picker = stage.agent("1003").call("**1002")
    customer.wait_answer()
    desk.wait_end()
    talk()
    picker.hangup()
    customer.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLEE,
        answered_by="1003",
        rang=["1002"],
        aliases=1,
        recordings=1,
    )
    assert {(leg.party, str(leg.role)) for leg in record.legs} == {
        (stage.caller, "CALLER"),
        ("1002", "AGENT"),
        ("1003", "PICKUP"),
    }


def test_group_pickup(stage: Stage) -> None:
    customer, desk = stage.ring()
    picker = stage.agent("1004").call("*8")
    customer.wait_answer()
    desk.wait_end()
    talk()
    customer.hangup()
    picker.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1004",
        rang=["1002"],
        aliases=1,
        recordings=1,
    )


def test_parked_and_fetched(stage: Stage) -> None:
    fetcher = stage.agent("1003")
    customer, desk = stage.connect()
    talk()
    desk.transfer("700")
    space = stage.tap.event("ParkedCall", stage.mark)["ParkingSpace"]
    desk.hangup()
    talk()
    fetched = fetcher.call(space).wait_answer()
    talk()
    customer.hangup()
    fetched.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party="1003",
        rang=["1002"],
        transfers=[(str(t.kind), t.by, t.to, t.result) for t in record.transfers],
        parked=[("1002", "1003", False)],
        aliases=1,
        recordings=1,
    )


def test_parked_and_nobody_comes(stage: Stage) -> None:
    parker = stage.agent("1002")
    customer, desk = stage.connect()
    talk()
    desk.transfer("700")
    stage.tap.event("ParkedCall", stage.mark)
    desk.hangup()
    back = parker.wait_call(8)  # the time is over: whoever parked it is rung
    back.answer()
    talk()
    customer.hangup()
    back.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party=record.last_party,
        rang=["1002"],
        transfers=[(str(t.kind), t.by, t.to, t.result) for t in record.transfers],
        parked=[("1002", None, True)],
        recordings=1,
    )
