"""One real call on the embedded PBX, for `trunkline up`: a customer calls, an agent answers, they talk and hang up."""

import contextlib
import threading
from collections.abc import Callable

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.phone import Phone, Voice
from trunkline.embedded.rtp import Audio

CALLER = "12025550123"
CALLER_NAME = "Jane Doe"
AGENT = "1001"


def carrier_phone(pbx: Asterisk, voice: Voice = Audio) -> Phone:
    """The other end of the trunk: calls from it are calls from outside."""
    server = (pbx.host, pbx.sip_port)
    return Phone("carrier", server, ip=pbx.trunk_host, port=pbx.trunk_port, frequency=350, voice=voice)


def agent_phone(pbx: Asterisk, number: str, voice: Voice = Audio) -> Phone:
    """An agent's phone, registered."""
    phone = Phone(
        number,
        (pbx.host, pbx.sip_port),
        ip=f"127.0.0.{10 + int(number) % 100}",
        password=pbx.secrets.passwords[number],
        frequency=400 + 100 * (int(number) % 10),
        voice=voice,
    )
    try:
        return phone.register()
    except BaseException:
        phone.close()
        raise


def play_demo_call(
    pbx: Asterisk,
    say: Callable[[str], None],
    *,
    ring_s: float = 1.0,
    talk_s: float = 2.0,
    stop: threading.Event | None = None,
) -> None:
    """Play the call, about `ring_s` + `talk_s` seconds; `stop` cuts it short. Blocks. Raises SipError."""
    pause = stop or threading.Event()
    with contextlib.ExitStack() as phones:
        agent = phones.enter_context(agent_phone(pbx, AGENT))
        carrier = phones.enter_context(carrier_phone(pbx))
        did = pbx.did("0001")
        say(f"{CALLER_NAME} ({CALLER}) calls {did}")
        customer = carrier.call(did, caller=CALLER, name=CALLER_NAME)
        desk = agent.wait_call()
        say(f"the phone of agent {AGENT} rings")
        pause.wait(ring_s)
        desk.answer()
        customer.wait_answer()
        say(f"agent {AGENT} answers")
        pause.wait(talk_s)
        customer.hangup()
        desk.wait_end()
        say(f"{CALLER_NAME} hangs up")
        agent.unregister()  # or the next call would ring a phone that is gone
