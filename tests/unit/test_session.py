"""One AMI session, without a socket."""

import hashlib

import pytest

from trunkline.asterisk.event import Frame
from trunkline.asterisk.session import Credentials, LinkError, Reason, Session, State, clock, new_action_id


def sent(session: Session) -> list[dict[str, str]]:
    packets = session.take_outgoing().decode().split("\r\n\r\n")
    return [dict(line.split(": ", 1) for line in packet.split("\r\n")) for packet in packets if packet]


def response(action_id: str, **fields: str) -> Frame:
    return Frame("", {"Response": "Success", "ActionID": action_id, **fields})


BOOTED = Frame("FullyBooted", {"Event": "FullyBooted", "Privilege": "system,all", "Uptime": "90"})


def logged_in() -> Session:
    session = Session(Credentials("events", "s3cret"))
    session.greet("Asterisk Call Manager/11.0.0")
    (challenge,) = sent(session)
    session.receive(response(challenge["ActionID"], Challenge="188705023"))
    (login,) = sent(session)
    session.receive(response(login["ActionID"], Message="Authentication accepted"))
    assert session.state is State.BOOTING
    return session


def test_login_by_challenge_never_sends_the_secret() -> None:
    session = Session(Credentials("events", "s3cret"))
    session.greet("Asterisk Call Manager/11.0.0")
    (challenge,) = sent(session)
    assert (challenge["Action"], challenge["AuthType"]) == ("Challenge", "MD5")
    session.receive(response(challenge["ActionID"], Challenge="188705023"))
    raw = session.take_outgoing()
    assert b"s3cret" not in raw
    assert hashlib.md5(b"188705023s3cret", usedforsecurity=False).hexdigest().encode() in raw


def test_login_over_tls_sends_it() -> None:
    session = Session(Credentials("events", "s3cret"), plain=True)
    session.greet("Asterisk Call Manager/11.0.0")
    (login,) = sent(session)
    assert (login["Action"], login["Secret"]) == ("Login", "s3cret")


def test_the_secret_is_not_in_any_repr() -> None:
    assert "s3cret" not in repr(Credentials("events", "s3cret"))


def test_it_waits_for_fullybooted_and_learns_who_the_pbx_is() -> None:
    session = logged_in()
    assert sent(session) == []
    assert session.receive(BOOTED)
    asked = {packet["Action"]: packet["ActionID"] for packet in sent(session)}
    assert set(asked) == {"CoreSettings", "CoreStatus", "Ping"}
    session.receive(response(asked["CoreSettings"], AsteriskVersion="22.10.1", SystemName="pbx1"))
    session.receive(response(asked["CoreStatus"], CoreStartupDate="2026-11-22", CoreStartupTime="14:40:18"))
    assert not session.ready
    session.receive(response(asked["Ping"], Ping="Pong", Timestamp="1795347145.250000"))
    assert session.ready
    pbx = session.pbx
    assert (pbx.systemname, pbx.version, pbx.ami_version, pbx.uptime_s) == ("pbx1", "22.10.1", "11.0.0", 90)
    assert (pbx.started, pbx.clock) == ("2026-11-22 14:40:18", 1795347145.25)


def test_a_login_that_may_not_ask_is_ready_without_knowing() -> None:
    session = logged_in()
    session.receive(BOOTED)
    for packet in sent(session):
        session.receive(
            Frame("", {"Response": "Error", "ActionID": packet["ActionID"], "Message": "Permission denied"})
        )
    assert session.ready
    assert (session.pbx.systemname, session.pbx.started, session.pbx.clock) == ("", None, None)


def test_a_second_fullybooted_asks_nothing_again() -> None:
    session = logged_in()
    session.receive(BOOTED)
    session.take_outgoing()
    session.receive(BOOTED)
    assert sent(session) == []


def test_a_refusal_says_what_to_do() -> None:
    session = Session(Credentials("events", "wrong"), plain=True)
    session.greet("Asterisk Call Manager/11.0.0")
    (login,) = sent(session)
    refusal = {"Response": "Error", "ActionID": login["ActionID"], "Message": "Authentication failed"}
    with pytest.raises(LinkError, match=r"manager\.conf") as refused:
        session.receive(Frame("", refusal))
    assert refused.value.reason is Reason.LOGIN_REFUSED
    assert "wrong" not in str(refused.value)


def test_what_is_no_ami_gets_no_login() -> None:
    session = Session(Credentials("events", "s3cret"))
    with pytest.raises(LinkError) as refused:
        session.greet("SSH-2.0-OpenSSH_9.2")
    assert refused.value.reason is Reason.NOT_AMI
    assert session.take_outgoing() == b""


def test_an_answer_needs_an_actionid_that_nobody_can_guess() -> None:
    assert len({new_action_id() for _ in range(1000)}) == 1000
    session = logged_in()
    heard: list[Frame] = []
    action_id = session.ask("Ping", (), heard.append)
    assert not session.receive(response("1"))
    assert not session.receive(Frame("", {"Response": "Success"}))
    assert session.receive(response(action_id))
    assert not session.receive(response(action_id)), "an answer counts once"
    assert len(heard) == 1


def test_an_answer_that_was_given_up_is_nobodys() -> None:
    session = logged_in()
    action_id = session.ask("Ping", (), lambda frame: pytest.fail("too late"))
    session.forget(action_id)
    assert not session.receive(response(action_id))


@pytest.mark.parametrize("value", ["x\r\nAction: Command", "x\n", "x\0"])
def test_no_value_writes_a_line_of_its_own(value: str) -> None:
    session = logged_in()
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        session.ask("Getvar", [("Variable", value)], None)
    assert session.take_outgoing() == b""


@pytest.mark.parametrize("said", [{}, {"Timestamp": "soon"}])
def test_a_pong_without_a_time(said: dict[str, str]) -> None:
    assert clock(Frame("", said)) is None
