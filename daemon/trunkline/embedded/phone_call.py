"""One call of the built-in phone, from either side: dial, answer, hold, transfer, press keys, hang up."""

import queue
import re
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from trunkline.embedded.sip import Message, authorization, compose, token, uri_of

if TYPE_CHECKING:
    from trunkline.embedded.phone import Phone

REPLY_S: Final = 5.0  # that the PBX has for an answer
_ALLOW: Final = "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY, INFO, UPDATE"


class SipError(RuntimeError):
    """The PBX said no, or nothing."""


def final_answer(answers: "queue.Queue[Message]", what: str) -> Message:
    """The final answer. Raises SipError."""
    deadline = time.monotonic() + REPLY_S
    while True:
        try:
            message = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise SipError(f"{what}: the PBX did not answer within {REPLY_S:g} s") from None
        if message.status >= 200:
            return message


class Call:
    """One call of a phone, from either side. `status` and `reason` say how it ended, `by` (me, peer) who ended it."""

    def __init__(self, phone: "Phone", invite: Message | None = None) -> None:
        """A call that came in with `invite`, or one about to be dialled."""
        self.phone = phone
        self.audio = phone.voice(phone.ip, phone.frequency)
        self.ringing, self.up, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.transferred = threading.Event()
        self.status, self.reason, self.by = 0, "", ""
        self.tag, self._sequence, self._version = token(), 1, int(time.time())
        self._direction, self._held = "sendrecv", False
        self._invite = invite
        self._tried = False
        self._dialled = self._target = self._branch = ""
        self._invite_sequence = 0
        self._headers: tuple[str, ...] = ()
        if invite is None:
            self.call_id, self.remote_tag, self._local, self._remote = token(32), "", "", ""
        else:
            self.call_id, self.remote_tag = invite.get("call-id"), invite.tag("from")
            self._local, self._remote = f"{invite.get('to')};tag={self.tag}", invite.get("from")
            self._target = uri_of(invite.get("contact"))
            self._read_sdp(invite.body)
        phone.calls[self.call_id] = self

    @property
    def caller(self) -> str:
        """What an incoming call shows as its number."""
        found = re.search(r"sip:([^@>]*)@", self._invite.get("from")) if self._invite else None
        return found[1] if found else ""

    @property
    def caller_name(self) -> str:
        """What an incoming call shows as its name."""
        found = re.match(r'"?([^"<]*?)"? *<', self._invite.get("from")) if self._invite else None
        return found[1] if found else ""

    # ------------------------------------------------------------ calling
    def dial(self, number: str, caller: str, name: str, headers: tuple[str, ...]) -> None:
        """Send the INVITE."""
        self._dialled = self._target = f"sip:{number}@{self.phone.server[0]}:{self.phone.server[1]}"
        shown = f'"{name}" ' if name else ""
        self._local, self._remote = f"{shown}<sip:{caller}@{self.phone.ip}>;tag={self.tag}", f"<{self._dialled}>"
        self._headers = headers
        self._send_invite(())

    def cancel(self) -> None:
        """Give up while it rings."""
        self._request("CANCEL", sequence=self._invite_sequence, branch=self._branch, uri=self._dialled)

    def _send_invite(self, extra: tuple[str, ...]) -> None:
        self._branch, self._invite_sequence = "z9hG4bK" + token(), self._sequence + 1
        self.phone.expect(self._answered, self._branch)
        self._request("INVITE", extra=(*self._headers, *extra), body=self._sdp(), branch=self._branch)

    def _answered(self, response: Message) -> None:
        if response.method != "INVITE":  # the answer to a CANCEL has the same branch
            return
        if response.status < 200:
            self.remote_tag = response.tag("to") or self.remote_tag
            if response.status == 180:
                self.ringing.set()
            elif response.status == 183:
                self._read_sdp(response.body)
            return
        if response.status < 300:
            self.remote_tag, self._remote = response.tag("to"), response.get("to")
            self._target = uri_of(response.get("contact"))
            self._read_sdp(response.body)
            self._request("ACK", sequence=self._invite_sequence)
            if not self.up.is_set():
                self.audio.start()
                self.up.set()
            return
        dialling = not self.up.is_set()
        self._request(
            "ACK",
            sequence=self._invite_sequence,
            branch=self._branch,
            uri=self._dialled if dialling else "",
            remote=response.get("to"),
        )
        if response.status in (401, 407) and not self._tried:
            self._tried = True
            phone = self.phone
            self._send_invite((authorization(response, "INVITE", self._dialled, phone.user, phone.password),))
        elif dialling:
            self.status, self.reason = response.status, response.reason
            self._end("peer")

    # ------------------------------------------------------------ being called
    def ring(self) -> None:
        """180."""
        self._reply_invite("180 Ringing")
        self.ringing.set()

    def answer(self) -> None:
        """200."""
        self._reply_invite("200 OK", body=self._sdp())
        self.audio.start()
        self.up.set()

    def reject(self, status: str = "486 Busy Here") -> None:
        """Refuse it: 486 busy, 603 decline, 404 unknown, …"""
        self.status = int(status.split()[0])
        self._reply_invite(status)
        self._end("me")

    def forward(self, number: str) -> None:
        """302 to another number of the PBX."""
        self.status = 302
        server = f"{self.phone.server[0]}:{self.phone.server[1]}"
        self._reply_invite(
            "302 Moved Temporarily",
            (
                f"Contact: <sip:{number}@{server}>",
                f"Diversion: <sip:{self.phone.user}@{self.phone.ip}>;reason=unconditional",
            ),
        )
        self._end("me")

    def _reply_invite(self, status: str, extra: tuple[str, ...] = (), body: str = "") -> None:
        if self._invite is None:
            raise SipError("this call was dialled here; there is nothing to answer")
        self.phone.reply(self._invite, status, self.tag, extra, body)

    def requested(self, message: Message) -> None:
        """A request inside this call (the phone's reader calls this)."""
        match message.method:
            case "ACK":
                return
            case "CANCEL":
                self.phone.reply(message, "200 OK", self.tag)
                self.status, self.reason = 487, message.get("reason")
                self._reply_invite("487 Request Terminated")
                self._end("peer")
            case "BYE":
                self.phone.reply(message, "200 OK", self.tag)
                self.reason = message.get("reason")
                self._end("peer")
            case "INVITE" | "UPDATE":
                self._read_sdp(message.body)
                wants = message.method == "INVITE" or bool(message.body)
                direction = "recvonly" if self._held else self._direction
                self.phone.reply(message, "200 OK", self.tag, body=self._sdp(direction) if wants else "")
            case "NOTIFY":
                self.phone.reply(message, "200 OK", self.tag)
                found = re.search(r"SIP/2.0 (\d+)", message.body)
                if found and int(found[1]) >= 200:
                    self.transferred.set()
            case _:
                self.phone.reply(message, "200 OK", self.tag)

    # ------------------------------------------------------------ in the call
    def hangup(self) -> None:
        """BYE; nothing happens when it has ended."""
        if self.ended.is_set():
            return
        done: queue.Queue[Message] = queue.Queue()
        self._request("BYE", branch=self.phone.expect(done.put))
        self._end("me")
        final_answer(done, "BYE")

    def hold(self) -> None:
        """Re-INVITE, sendonly."""
        self._reinvite("sendonly")

    def unhold(self) -> None:
        """Re-INVITE, sendrecv."""
        self._reinvite("sendrecv")

    def _reinvite(self, direction: str) -> None:
        self._direction, done = direction, queue.Queue[Message]()
        self._branch, self._invite_sequence = "z9hG4bK" + token(), self._sequence + 1

        def answered(response: Message) -> None:
            self._answered(response)
            if response.status >= 200:
                done.put(response)

        self.phone.expect(answered, self._branch)
        self._request("INVITE", body=self._sdp(), branch=self._branch)
        response = final_answer(done, "re-INVITE")
        if response.status >= 300:
            raise SipError(f"re-INVITE {direction}: {response.start}")

    def transfer(self, number: str = "", *, to: "Call | None" = None) -> None:
        """REFER the other side to `number`, or (attended) to the party of our other call `to`. Raises SipError."""
        refer = f"sip:{number}@{self.phone.server[0]}:{self.phone.server[1]}"
        if to is not None:
            refer = f"{to._target.split('?')[0]}?Replaces={to.call_id}%3Bto-tag%3D{to.remote_tag}%3Bfrom-tag%3D{to.tag}"
        done: queue.Queue[Message] = queue.Queue()
        extra = (f"Refer-To: <{refer}>", f"Referred-By: <sip:{self.phone.user}@{self.phone.ip}>")
        self._request("REFER", extra=extra, branch=self.phone.expect(done.put))
        response = final_answer(done, "REFER")
        if response.status >= 300:
            raise SipError(f"REFER: {response.start}")

    def press(self, keys: str) -> None:
        """Keys, as RFC 4733 events."""
        self.audio.press(keys)

    def wait_ring(self, timeout_s: float = REPLY_S) -> Self:
        """Until it rings. Raises SipError."""
        return self._wait(self.ringing, "did not ring", timeout_s)

    def wait_answer(self, timeout_s: float = 10) -> Self:
        """Until it is answered. Raises SipError."""
        return self._wait(self.up, "was not answered", timeout_s)

    def wait_end(self, timeout_s: float = 10) -> Self:
        """Until it is over. Raises SipError."""
        return self._wait(self.ended, "did not end", timeout_s)

    def _wait(self, event: threading.Event, what: str, timeout_s: float) -> Self:
        if not event.wait(timeout_s):
            raise SipError(f"the call {what} within {timeout_s:g} s ({self.status} {self.reason})")
        if event is not self.ended and self.status >= 300:
            raise SipError(f"the call {what}: {self.status} {self.reason}")
        return self

    # ------------------------------------------------------------ pieces
    def _request(
        self,
        method: str,
        *,
        extra: tuple[str, ...] = (),
        body: str = "",
        sequence: int = 0,
        branch: str = "",
        uri: str = "",
        remote: str = "",
    ) -> None:
        if not sequence:
            self._sequence += 1
            sequence = self._sequence
        self.phone.send(
            compose(
                f"{method} {uri or self._target} SIP/2.0",
                [
                    f"Via: SIP/2.0/UDP {self.phone.ip}:{self.phone.port};branch={branch or 'z9hG4bK' + token()};rport",
                    "Max-Forwards: 70",
                    f"From: {self._local}",
                    f"To: {remote or self._remote}",
                    f"Call-ID: {self.call_id}",
                    f"CSeq: {sequence} {method}",
                    self.phone.contact,
                    _ALLOW,
                    *extra,
                    "Content-Type: application/sdp" if body else "",
                ],
                body,
            )
        )

    def _sdp(self, direction: str = "") -> str:
        self._version += 1
        lines = (
            "v=0",
            f"o=- {self._version} {self._version} IN IP4 {self.phone.ip}",
            "s=-",
            f"c=IN IP4 {self.phone.ip}",
            "t=0 0",
            f"m=audio {self.audio.port} RTP/AVP 0 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-16",
            "a=ptime:20",
            f"a={direction or self._direction}",
        )
        return "".join(f"{line}\r\n" for line in lines)

    def _read_sdp(self, body: str) -> None:
        host, port = re.search(r"c=IN IP4 (\S+)", body), re.search(r"m=audio (\d+)", body)
        if host and port:
            self.audio.send_to((host[1], int(port[1])))
            self._held = "a=sendonly" in body or "a=inactive" in body

    def _end(self, by: str) -> None:
        self.by = self.by or by
        self.audio.stop()
        self.ringing.set()  # whoever waits for it must not wait on
        if self.status == 0:
            self.status = 200 if self.up.is_set() else 487
        self.up.set()
        self.ended.set()
