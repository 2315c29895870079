"""Many real calls at once, cheaply: each customer is a SIP dialog of its own and has a tone of its own.

Asterisk does for each what it does for any call of its trunk: the dialplan, MixMonitor, the bridge, RTP. Only phones
spare: one socket sends what all customers say, one takes what all agents hear and nobody reads it.
"""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from random import randrange
from typing import Any

from stage import until, wait_idle

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.demo import agent_phone, carrier_phone
from trunkline.embedded.phone import Call
from trunkline.embedded.rtp import FRAME, FRAME_S, Audio, head, loopback_only, tone

AGENT, DID = "1002", "0002"
_AT_ONCE = 16  # requests that wait for an answer: UDP loses what does not fit into a socket
_LOWEST_HZ, _STEP_HZ, _TONES = 300, 10, 300  # tones that a recording of half a second tells from each other
_ANSWER_S = 30.0  # that a busy machine has


def settings_for(calls: int) -> dict[str, Any]:
    """Settings of an Asterisk that so many calls may be up on, with two legs each: ports on an address of its own."""
    return {
        "ring_s": 60,
        "media_address": f"127.{randrange(1, 255)}.{randrange(255)}.{randrange(1, 255)}",
        "rtp_start": 12000,
        "rtp_end": 12000 + 6 * calls,
    }


class _Part(Audio):
    """One customer's voice, or one agent's ear."""

    def __init__(self, port: int, frequency: int) -> None:
        self.port = port
        self.frequency = frequency
        self.peer: tuple[str, int] | None = None
        self.up = False

    def send_to(self, address: tuple[str, int]) -> None:
        self.peer = loopback_only(address)

    def start(self) -> None:
        self.up = True

    def stop(self) -> None:
        self.up = False


class _Choir:
    """The voices, or the ears, of a phone's calls: one socket for all."""

    def __init__(self, ip: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ip, 0))
        self._parts: list[_Part] = []
        self._at = 0

    def part(self, ip: str, frequency: int) -> _Part:
        """The sound of the next call; what a Phone asks for."""
        part = _Part(self._socket.getsockname()[1], _LOWEST_HZ + _STEP_HZ * (len(self._parts) % _TONES))
        self._parts.append(part)
        return part

    def sing(self, seconds: float) -> None:
        """All who are up speak for so long; a machine that is late makes it longer, and no frame is left out."""
        parts = [part for part in self._parts if part.up]
        voices = {part: tone(part.frequency) for part in parts}
        due = time.monotonic()
        for _ in range(round(seconds / FRAME_S)):
            self._at += 1
            at = self._at * FRAME % 8000
            for part in parts:
                if part.peer is not None:
                    frame = head(0, self._at, self._at * FRAME, part.frequency) + voices[part][at : at + FRAME]
                    with suppress(OSError):
                        self._socket.sendto(frame, part.peer)
            due += FRAME_S
            time.sleep(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        self._socket.close()


class Crowd:
    """Customers that call one agent. `tones`: the frequency of each, by number."""

    def __init__(self, pbx: Asterisk) -> None:
        self._pbx = pbx
        self._up: dict[str, Call] = {}
        self._called = 0
        self.tones: dict[str, int] = {}
        with ExitStack() as opened:
            self._voices = _Choir(pbx.trunk_host)
            opened.callback(self._voices.close)
            ears = _Choir(pbx.host)
            opened.callback(ears.close)
            self._carrier = opened.enter_context(carrier_phone(pbx, self._voices.part))
            self._agent = opened.enter_context(agent_phone(pbx, AGENT, ears.part))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Every call ends, and the phones go."""
        self._pbx.cli("channel request hangup all")
        with self._opened:
            wait_idle(self._pbx, _ANSWER_S)

    def connect(self, count: int) -> list[str]:
        """So many more customers call, are answered together and are up at the same time: their numbers."""
        numbers = [f"1202555{self._called + n:04}" for n in range(count)]
        self._called += count
        calls: dict[str, Call] = {}
        desks: list[Call] = []
        for number in numbers:
            calls[number] = self._carrier.call(self._pbx.did(DID), caller=number, name="Crowd")
            self.tones[number] = calls[number].audio.frequency
            if len(calls) - len(desks) >= _AT_ONCE:
                desks.append(self._agent.wait_call(_ANSWER_S))
        while len(desks) < count:
            desks.append(self._agent.wait_call(_ANSWER_S))
        for place, desk in enumerate(desks):
            desk.answer()
            calls[desks[max(0, place - _AT_ONCE)].caller].wait_answer(_ANSWER_S)
        for call in calls.values():
            call.wait_answer(_ANSWER_S)
        self._up |= calls
        until("they are connected", lambda: self.connected() == len(self._up), _ANSWER_S)
        return numbers

    def talk(self, seconds: float) -> None:
        """Everyone who is up speaks for so long, each in its own tone."""
        self._voices.sing(seconds)

    def hangup(self, *numbers: str) -> None:
        """These customers hang up, or all of them; it is over on the PBX too where nobody else is up."""
        calls = [self._up.pop(number) for number in numbers or list(self._up)]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(Call.hangup, calls))
        if not self._up:
            wait_idle(self._pbx, _ANSWER_S)
        assert self._carrier.faults == self._agent.faults == []

    def connected(self) -> int:
        """Calls whose two legs are in a bridge, by Asterisk's own list: what is said from now on is recorded."""
        rows = (line.split() for line in self._pbx.cli("bridge show all").splitlines())
        return sum("2" in row[1:3] for row in rows)  # behind the bridge's id, and its name where there are names
