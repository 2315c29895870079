"""Sound for the built-in phone: a tone and key presses as RTP (PCMU, RFC 4733); recordings need something in them."""

import contextlib
import functools
import math
import secrets
import socket
import struct
import threading
import time
from collections import deque
from typing import Final

FRAME: Final = 160  # samples
FRAME_S: Final = 0.02
_KEYS: Final = "0123456789*#ABCD"
_PRESS: Final = 6  # frames that a key is held


class NotLoopback(RuntimeError):
    """Something wanted this phone to send to the world."""


def loopback_only(address: tuple[str, int]) -> tuple[str, int]:
    """The address, if it is in 127.0.0.0/8. Raises NotLoopback."""
    parts = address[0].split(".")
    if len(parts) != 4 or parts[0] != "127" or not all(part.isdigit() for part in parts):
        raise NotLoopback(f"refusing to send to {address[0]}: the built-in phone speaks on 127.0.0.0/8 only")
    return address


class Audio:
    """One side of a call's sound. A thread sends 50 packets a second from start() to stop()."""

    def __init__(self, ip: str, frequency: int) -> None:
        """Bind a port on `ip`; the tone has `frequency` Hz."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ip, 0))
        self._socket.setblocking(False)
        self._tone = tone(frequency)
        self._peer: tuple[str, int] | None = None
        self._keys: deque[str] = deque()
        self._pressed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.port: int = self._socket.getsockname()[1]
        self.received = 0  # packets
        self.silent = False

    def send_to(self, address: tuple[str, int]) -> None:
        """Where the sound goes from now on. Raises NotLoopback."""
        self._peer = loopback_only(address)

    def start(self) -> None:
        """Begin, once."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name="phone audio", daemon=True)
            self._thread.start()

    def press(self, keys: str, timeout_s: float = 10) -> None:
        """Send keys as telephone-events, and return when they are out. Raises TimeoutError."""
        with self._pressed:
            self._keys.extend(keys)
            if not self._pressed.wait_for(lambda: not self._keys or self._stop.is_set(), timeout_s):
                raise TimeoutError("the keys were not sent: is the call up?")

    def stop(self) -> None:
        """End, and free the port."""
        self._stop.set()
        with self._pressed:
            self._pressed.notify_all()
        if self._thread is None:
            self._socket.close()

    def _run(self) -> None:
        sequence, stamp, source = secrets.randbits(15), secrets.randbits(30), secrets.randbits(32)
        due = time.monotonic()
        key, held, since, pause = "", 0, 0, 0
        with contextlib.closing(self._socket):
            while not self._stop.is_set():
                self._drain()
                if not key and self._keys and pause == 0 and self._peer is not None:
                    key, held, since = self._keys[0], 0, stamp
                packets: list[bytes] = []
                if key:
                    held += 1
                    last = held > _PRESS
                    event = struct.pack("!BBH", _KEYS.index(key), 10 | (0x80 if last else 0), FRAME * held)
                    for _ in range(3 if last else 1):  # the end is sent three times: RFC 4733 2.5.1.4
                        marker = 0x80 if held == 1 else 0
                        packets.append(head(101 | marker, sequence, since, source) + event)
                        sequence += 1
                    if last:
                        key, pause = "", _PRESS
                        with self._pressed:
                            self._keys.popleft()
                            self._pressed.notify_all()
                elif not self.silent:
                    at = stamp % 8000
                    packets.append(head(0, sequence, stamp, source) + self._tone[at : at + FRAME])
                    sequence += 1
                pause = max(0, pause - 1)
                if self._peer is not None:
                    with contextlib.suppress(OSError):  # the far end may be gone already
                        for packet in packets:
                            self._socket.sendto(packet, self._peer)
                stamp = (stamp + FRAME) & 0xFFFFFFFF
                due += FRAME_S
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(2048):
                self.received += 1


def head(kind: int, sequence: int, stamp: int, source: int) -> bytes:
    """The header of an RTP packet."""
    return struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, stamp & 0xFFFFFFFF, source)


@functools.cache
def tone(frequency: int) -> bytes:
    """PCMU: a second of the tone and a frame more, so that any slice of a frame is there."""
    second = bytes(_ulaw(int(8000 * math.sin(2 * math.pi * frequency * i / 8000))) for i in range(8000))
    return second + second[:FRAME]


def _ulaw(sample: int) -> int:
    sign, sample = (0x80, -sample) if sample < 0 else (0, sample)
    sample = min(sample, 32635) + 132
    exponent = max(0, sample.bit_length() - 8)
    return ~(sign | (exponent << 4) | ((sample >> (exponent + 3)) & 15)) & 0xFF
