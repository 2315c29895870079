"""A small SIP phone: UDP on loopback, blocking calls, a tone as voice. It plays the carrier and the agents.

    bob = Phone("1002", (pbx.host, pbx.sip_port), ip="127.0.0.12", password=...).register()
    out = carrier.call(pbx.did("0002"), caller="12025550123", name="Jane Doe")
    call = bob.wait_call(); call.answer(); out.wait_answer(); call.hold(); call.unhold(); out.hangup(); call.wait_end()

No retransmission: loopback does not lose packets. Nothing is ever sent outside 127.0.0.0/8.
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from trunkline.embedded.phone_call import REPLY_S, Call, SipError, final_answer
from trunkline.embedded.rtp import Audio, loopback_only
from trunkline.embedded.sip import BadMessage, Message, authorization, compose, token

__all__ = ["Call", "Phone", "SipError"]

Answerer = Callable[[Call], None]
Voice = Callable[[str, int], Audio]
_BUFFER: Final = 1 << 20  # bytes: what many calls say at once; nothing is sent again


class Phone:
    """One phone with any number of lines. Its reader is a thread; close() ends it."""

    def __init__(
        self,
        user: str,
        server: tuple[str, int],
        *,
        ip: str,
        port: int = 0,
        password: str = "",
        frequency: int = 440,
        on_call: Answerer | None = None,
        voice: Voice = Audio,
    ) -> None:
        """A phone on `ip`. `on_call` is what to do with an incoming call, in a thread; default: let it ring.

        `voice` makes a call's sound, of the ip and the frequency.
        """
        self.user, self.password, self.server, self.ip = user, password, loopback_only(server), ip
        self.frequency, self.on_call, self.voice = frequency, on_call, voice
        loopback_only((ip, port))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((ip, port))
        self.port: int = self._socket.getsockname()[1]
        self.calls: dict[str, Call] = {}
        self.faults: list[str] = []  # messages that could not be read; a test looks at them
        self._incoming: queue.Queue[Call] = queue.Queue()
        self._waiting: dict[str, Callable[[Message], None]] = {}
        self._closing = False
        self._registration, self._registrations = token(), 0
        self._reader = threading.Thread(target=self._read, name=f"phone {user}", daemon=True)
        self._reader.start()

    @property
    def contact(self) -> str:
        """Our Contact header."""
        return f"Contact: <sip:{self.user}@{self.ip}:{self.port}>"

    def register(self, expires_s: int = 3600) -> Self:
        """Register, by digest. Raises SipError."""
        uri = f"sip:{self.server[0]}:{self.server[1]}"
        answers: queue.Queue[Message] = queue.Queue()
        tag, credentials = token(), ""
        for _ in range(2):
            self._registrations += 1
            branch = self.expect(answers.put)
            self.send(
                compose(
                    f"REGISTER {uri} SIP/2.0",
                    [
                        f"Via: SIP/2.0/UDP {self.ip}:{self.port};branch={branch};rport",
                        f"From: <sip:{self.user}@{self.server[0]}>;tag={tag}",
                        f"To: <sip:{self.user}@{self.server[0]}>",
                        f"Call-ID: {self._registration}",
                        f"CSeq: {self._registrations} REGISTER",
                        f"{self.contact};expires={expires_s}",
                        "Max-Forwards: 70",
                        credentials,
                    ],
                )
            )
            answer = final_answer(answers, f"REGISTER {self.user}")
            if answer.status == 200:
                return self
            if answer.status != 401 or credentials:
                raise SipError(f"REGISTER {self.user}: {answer.start}")
            credentials = authorization(answer, "REGISTER", uri, self.user, self.password)
        raise SipError(f"REGISTER {self.user}: the password is refused")

    def unregister(self) -> None:
        """Forget our contact."""
        self.register(0)

    def call(self, number: str, *, caller: str = "", name: str = "", headers: tuple[str, ...] = ()) -> Call:
        """Dial; returns at once."""
        call = Call(self)
        call.dial(number, caller or self.user, name, headers)
        return call

    def wait_call(self, timeout_s: float = REPLY_S) -> Call:
        """The next incoming call, in the order they came. Raises SipError."""
        try:
            return self._incoming.get(timeout=timeout_s)
        except queue.Empty:
            raise SipError(f"no call came to {self.user} within {timeout_s:g} s") from None

    def forget_calls(self) -> None:
        """Drop incoming calls that nobody waited for."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._incoming.get_nowait()

    def close(self) -> None:
        """End everything; calls still up are simply forgotten."""
        if self._closing:
            return
        self._closing = True
        for call in list(self.calls.values()):
            call.audio.stop()
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", (self.ip, self.port))  # wakes the reader
        self._reader.join(REPLY_S)
        self._socket.close()

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def send(self, data: bytes) -> None:
        """To the PBX, whatever a Contact says: its address is the only one this phone knows."""
        if not self._closing:
            self._socket.sendto(data, self.server)

    def expect(self, answer: Callable[[Message], None], branch: str = "") -> str:
        """Have `answer` called with every response of a transaction; returns its branch."""
        branch = branch or "z9hG4bK" + token()
        self._waiting[branch] = answer
        return branch

    def reply(self, request: Message, status: str, tag: str = "", extra: tuple[str, ...] = (), body: str = "") -> None:
        """Answer a request with e.g. "180 Ringing"."""
        to = request.get("to") + (f";tag={tag}" if tag and not request.tag("to") else "")
        self.send(
            compose(
                f"SIP/2.0 {status}",
                [
                    *(f"Via: {via}" for via in request.headers.get("via", [])),
                    f"From: {request.get('from')}",
                    f"To: {to}",
                    f"Call-ID: {request.get('call-id')}",
                    f"CSeq: {request.get('cseq')}",
                    "" if any(line.startswith("Contact:") for line in extra) else self.contact,
                    *extra,
                    "Content-Type: application/sdp" if body else "",
                ],
                body,
            )
        )

    def _read(self) -> None:
        while not self._closing:
            try:
                data = self._socket.recv(65535)
            except OSError:
                return
            if len(data) < 10:  # a keepalive
                continue
            try:
                self._dispatch(Message(data))
            except (BadMessage, SipError, OSError, RuntimeError) as fault:
                self.faults.append(repr(fault))  # one bad message must not make the phone deaf

    def _dispatch(self, message: Message) -> None:
        if message.status:
            if answer := self._waiting.get(message.branch):
                answer(message)
            return
        call = self.calls.get(message.get("call-id"))
        if message.method == "INVITE" and not message.tag("to"):
            if call is not None:
                return  # sent again
            call = Call(self, message)
            self.reply(message, "100 Trying")
            if self.on_call is None:
                call.ring()
            else:
                threading.Thread(target=self.on_call, args=(call,), name=f"phone {self.user} call", daemon=True).start()
            self._incoming.put(call)
        elif call is not None:
            call.requested(message)
        elif message.method != "ACK":
            gone = message.method in ("BYE", "CANCEL", "INVITE")
            self.reply(message, "481 Call Does Not Exist" if gone else "200 OK")
