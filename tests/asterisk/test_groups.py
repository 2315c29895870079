"""Queue, ring group, IVR, conference: the caller meets more than one of us, or nobody."""

from stage import Stage, check, talk

from trunkline.calls.record import EndedBy, EndReason, Status


def test_the_second_agent_of_the_queue_answers(stage: Stage) -> None:
    first, second = stage.agent("1001"), stage.agent("1002")
    customer = stage.dial("0200").wait_answer()
    assert stage.rows.live(stage.caller, Status.QUEUED).queue == "support"
    first.wait_call().wait_end()
    desk = second.wait_call()
    desk.answer()
    stage.tap.event("AgentConnect", stage.mark)
    assert stage.rows.live(stage.caller, Status.IN_PROGRESS).answered_by == "1002"
    talk()
    customer.hangup()
    desk.wait_end()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang=["1001", "1002"],
        queue="support",
        recordings=1,
        legs=[
            (stage.caller, "CALLER", None, "HANGUP"),
            ("1001", "AGENT", "NOANSWER", "RING_TIMEOUT"),
            ("1002", "AGENT", "ANSWER", "HANGUP"),
        ],
    )
    assert record.queue_wait_seconds in {2, 3, 4}
    assert record.queue_position == 1


def test_the_caller_gives_up_in_the_queue(stage: Stage) -> None:
    first = stage.agent("1001")
    customer = stage.dial("0200").wait_answer()
    desk = first.wait_call()
    talk()
    customer.hangup()
    desk.wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.ABANDONED,
        end_reason=EndReason.CANCELED,
        ended_by=EndedBy.CALLER,
        rang=["1001"],
        queue="support",
    )


def test_the_queue_gives_up_on_the_caller(stage: Stage) -> None:
    first, second = stage.agent("1001"), stage.agent("1002")
    first.on_call = second.on_call = lambda call: call.reject("486 Busy Here")
    customer = stage.dial("0200").wait_answer()
    try:
        customer.wait_end(15)
    finally:
        first.on_call = second.on_call = None
        first.forget_calls()
        second.forget_calls()
    check(
        stage.rows.ended(stage.caller),
        status=Status.MISSED,
        end_reason=EndReason.QUEUE_TIMEOUT,
        ended_by=EndedBy.PBX,
        rang=["1001", "1002"],
        queue="support",
    )


def test_agents_come_and_go_by_feature_code(stage: Stage) -> None:
    phone = stage.agent("1004")
    for code, event, paused in (
        ("*50", "QueueMemberAdded", "0"),
        ("*52", "QueueMemberPause", "1"),
        ("*53", "QueueMemberPause", "0"),
        ("*51", "QueueMemberRemoved", "0"),
    ):
        phone.call(code).wait_end()
        stage.tap.event(event, stage.mark, Interface="PJSIP/1004", Paused=paused, Queue="support")


def test_a_group_rings_and_one_answers(stage: Stage) -> None:
    phones = [stage.agent(number) for number in ("1001", "1002", "1003")]
    customer = stage.dial("0300")
    calls = [phone.wait_call() for phone in phones]
    calls[1].answer()
    customer.wait_answer()
    for other in (calls[0], calls[2]):
        other.wait_end()
    talk()
    customer.hangup()
    calls[1].wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang={"1001", "1002", "1003"},
        recordings=1,
        legs=[
            (stage.caller, "CALLER", None, "HANGUP"),
            ("1001", "AGENT", "CANCEL", "ANSWERED_ELSEWHERE"),
            ("1003", "AGENT", "CANCEL", "ANSWERED_ELSEWHERE"),
            ("1002", "AGENT", "ANSWER", "HANGUP"),
        ],
    )


def test_a_choice_in_the_ivr_leads_to_the_queue(stage: Stage) -> None:
    first = stage.agent("1001")
    customer = stage.dial("0100").wait_answer()
    talk()
    customer.press("1")
    desk = first.wait_call()
    desk.answer()
    stage.tap.event("AgentConnect", stage.mark)
    talk()
    customer.press("77")  # said to a human: nobody's business
    talk()
    desk.hangup()
    customer.wait_end()
    check(
        stage.rows.ended(stage.caller),
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLEE,
        answered_by="1001",
        rang=["1001"],
        queue="support",
        digits="1",
        recordings=1,
    )


def test_the_caller_gives_up_in_the_ivr(stage: Stage) -> None:
    customer = stage.dial("0100").wait_answer()
    talk()
    customer.hangup()
    check(
        stage.rows.ended(stage.caller),
        status=Status.ABANDONED,
        end_reason=EndReason.CANCELED,
        ended_by=EndedBy.CALLER,
        legs=[(stage.caller, "CALLER", None, "HANGUP")],
    )


def test_a_conference_of_a_guest_and_two_of_us(stage: Stage) -> None:
    customer = stage.dial("0500").wait_answer()
    talk()
    customer.press(stage.pbx.secrets.conference_pin + "#")
    stage.tap.event("ConfbridgeJoin", stage.mark, CallerIDNum=stage.caller)
    first = stage.agent("1001").call("5000").wait_answer()
    stage.tap.event("ConfbridgeJoin", stage.mark, CallerIDNum="1001")
    second = stage.agent("1002").call("5000").wait_answer()
    stage.tap.event("ConfbridgeJoin", stage.mark, CallerIDNum="1002")
    talk()
    first.hangup()
    customer.hangup()
    second.hangup()
    record = stage.rows.ended(stage.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=record.ended_by,
        answered_by=record.answered_by,
        last_party=record.last_party,
        conference="company",
        participants=[stage.caller, "1001", "1002"],
        digits=None,  # the PIN is a secret
        aliases=len(record.aliases),
    )
    assert record.answered_by == "1001"
