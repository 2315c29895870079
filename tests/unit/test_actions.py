"""What a client wrote never becomes more of an AMI action than the argument that it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.asterisk import actions
from trunkline.asterisk.actions import Action, BadArgument
from trunkline.asterisk.codec import encode_action

HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\r\n\0 ,;:&|$(){}[]/\\\"'<>@=+*#\u2028\u0661"),
        st.sampled_from("0123456789aZ.-_"),
        st.characters(codec="utf-8"),
    ),
    max_size=40,
)
GOOD = st.sampled_from(["1001", "+442071234567", "pbx-1795362354.12", "PJSIP/1001", "support", "LISTEN", ""])
TEXT = HOSTILE | GOOD | st.builds(lambda a, b, c: a + b + c, GOOD, HOSTILE, GOOD)

BUILDERS = {
    "dial": lambda a, b, c, d, e: actions.dial(a, b, c, d, e, 30),
    "supervise": lambda a, b, c, d, e: actions.supervise(a, b, c, d, e, 30),
    "hangup": lambda a, b, c, d, e: actions.hangup(a),
    "blind_transfer": lambda a, b, c, d, e: actions.blind_transfer(a, b, c),
    "attended_transfer": lambda a, b, c, d, e: actions.attended_transfer(a, b, c),
    "cancel_attended_transfer": lambda a, b, c, d, e: actions.cancel_attended_transfer(a),
    "park": lambda a, b, c, d, e: actions.park(a, b),
    "redirect_both": lambda a, b, c, d, e: actions.redirect_both(a, b, c, d, e),
    "bridge": lambda a, b, c, d, e: actions.bridge(a, b),
    "set_hold": lambda a, b, c, d, e: actions.set_hold(a, b),
    "dialplan_exists": lambda a, b, c, d, e: actions.dialplan_exists(a, b),
    "mute_recording": lambda a, b, c, d, e: actions.mute_recording(a, True),
    "pause_member": lambda a, b, c, d, e: actions.pause_member(a, b or None, True, c or None),
    "add_member": lambda a, b, c, d, e: actions.add_member(a, b, 0),
    "remove_member": lambda a, b, c, d, e: actions.remove_member(a, b),
}
GOOD_ARGUMENTS = {
    "dial": ("tl-1", "PJSIP/1001", "1001", "agents", "+442071234567"),
    "supervise": ("tl-1", "PJSIP/1001", "pbx-1.2", "1001", "BARGE"),
    "hangup": ("pbx-1.2", "", "", "", ""),
    "blind_transfer": ("pbx-1.2", "agents", "1003", "", ""),
    "attended_transfer": ("pbx-1.2", "agents", "1003", "", ""),
    "cancel_attended_transfer": ("pbx-1.2", "", "", "", ""),
    "park": ("pbx-1.2", "pbx-1.3", "", "", ""),
    "redirect_both": ("pbx-1.2", "holds", "pbx-1.3", "held", "trunkline-hold"),
    "bridge": ("pbx-1.2", "pbx-1.3", "", "", ""),
    "set_hold": ("pbx-1.2", "1001", "", "", ""),
    "dialplan_exists": ("trunkline-hold", "held", "", "", ""),
    "mute_recording": ("pbx-1.2", "", "", "", ""),
    "pause_member": ("PJSIP/1001", "support", "lunch break", "", ""),
    "add_member": ("PJSIP/1001", "support", "", "", ""),
    "remove_member": ("PJSIP/1001", "support", "", "", ""),
}


def headers_of(action: Action) -> list[str]:
    """The keys that a reader of the bytes finds, as Asterisk does: CR LF or LF ends a line, an empty one the action."""
    raw = encode_action(action.name, action.fields, "id")
    assert raw.endswith(b"\r\n\r\n")
    assert b"\0" not in raw
    lines = raw[:-4].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return [line.partition(b":")[0].decode() for line in lines]


@pytest.mark.parametrize("name", sorted(BUILDERS))
@given(st.data())
def test_no_argument_adds_a_header(name: str, data: st.DataObject) -> None:
    given_ = [data.draw(TEXT) for _ in range(5)]
    spoilt = data.draw(st.integers(0, 4))
    arguments = [*GOOD_ARGUMENTS[name]]
    arguments[spoilt] = given_[spoilt]
    for tried in (arguments, given_):
        try:
            action = BUILDERS[name](*tried)
        except BadArgument:
            continue
        expected = BUILDERS[name](*GOOD_ARGUMENTS[name])
        keys = headers_of(action)
        assert set(keys) <= {"Action", "ActionID", *(key for key, _ in expected.fields)}
        assert len(keys) == len(set(keys)) == len(action.fields) + 2


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_what_is_meant_gets_through(name: str) -> None:
    action = BUILDERS[name](*GOOD_ARGUMENTS[name])
    assert headers_of(action) == ["Action", "ActionID", *(key for key, _ in action.fields)]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("channel id", "/PJSIP/.*"),  # Hangup takes a regular expression
        ("channel id", "pbx-1.2\n"),
        ("channel id", ""),
        ("endpoint", "PJSIP/1001&PJSIP/trunk"),  # Dial's way to ring two
        ("endpoint", "PJSIP/1001,30,G(x^y^1)"),
        ("endpoint", "Local/1001@agents/n"),
        ("number", "1001@trunk"),
        ("number", "${SHELL(id)}"),
        ("number", "0049 30 123"),
        ("number", "٣٤٥"),  # digits, but no telephone's
        ("context", "agents,s,1"),
        ("queue", "support,1"),
        ("reason", "a\r\nAction: x"),
    ],
)
def test_what_has_not_the_form_is_refused_and_not_repeated(form: actions.Form, text: str) -> None:
    with pytest.raises(BadArgument) as refused:
        actions.held_to(form, text)
    assert text == "" or text not in str(refused.value)  # that may stand in a log


def test_a_supervisor_hears_the_channel_that_is_meant_and_no_other() -> None:
    fields = dict(actions.supervise("trunkline-spy-1", "PJSIP/1004", "pbx-1.2", "1004", "WHISPER", 30).fields)
    assert (fields["Application"], fields["Data"]) == ("ChanSpy", "pbx-1.2,quEw")
    with pytest.raises(BadArgument):
        actions.supervise("trunkline-spy-1", "PJSIP/1004", "pbx-1.2", "1004", "LISTEN,g(x)", 30)


def test_a_time_to_ring_has_bounds() -> None:
    with pytest.raises(BadArgument):
        actions.dial("tl-1", "PJSIP/1001", "1001", "agents", "1002", 0)
