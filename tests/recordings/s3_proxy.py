"""An HTTP/1.1 proxy before an S3 server that breaks single requests: cut, refused, late, wrong, never answered."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from typing import Final, NamedTuple, Self

_PIECE: Final = 64 * 1024
_CODES: Final = {500: "InternalError", 503: "SlowDown"}


class Fault(NamedTuple):
    """What is done to a request; `kind` is what it is counted as."""

    kind: str
    amount: float = 0


PASS: Final = Fault("pass")
REFUSE: Final = Fault("refuse")  # closed on accept; on a connection that is there already, when its next request begins
HANG: Final = Fault("hang")  # taken, never answered; ends with the client, drop() or close()


def cut_request(after: int) -> Fault:
    """Close both ends once `after` bytes of the request's body have gone up."""
    return Fault("cut", after)


def delay(seconds: float) -> Fault:
    """Pass the request on at once and its answer only after `seconds`: the server has done what the client gave up."""
    return Fault("delay", seconds)


def answer(status: int) -> Fault:
    """Take the whole request, answer `status` as S3 would; the server hears nothing of it."""
    return Fault(f"answer {status}", status)


def truncate_get(keep: int) -> Fault:
    """End a GET's answer after `keep` bytes of its body, whose Content-Length says more."""
    return Fault("truncate", keep)


def corrupt_put(at: int = 0) -> Fault:
    """Flip the byte `at` of a PUT's body on its way up; the answer is the server's own.

    SeaweedFS stores it, though minio-py signs the SHA-256 of the payload: it checks only Content-MD5, x-amz-checksum-*.
    """
    return Fault("corrupt PUT", at)


def corrupt_get(at: int = 0) -> Fault:
    """Flip the byte `at` of a GET's body on its way down; the length stays."""
    return Fault("corrupt GET", at)


_ONLY: Final = {"truncate": "GET", "corrupt GET": "GET", "corrupt PUT": "PUT"}  # other methods pass


@dataclass
class _Planned:
    left: int
    fault: Fault
    method: str
    path: str

    def meets(self, method: str, path: str) -> bool:
        return self.method in ("", method) and self.path in path


@dataclass(frozen=True)
class _Head:
    """The first line and the headers of a request or an answer."""

    lines: tuple[bytes, ...]

    @property
    def method(self) -> str:
        return self.lines[0].split()[0].decode("latin-1")

    @property
    def target(self) -> str:
        """The path of a request, the status of an answer."""
        return self.lines[0].split()[1].decode("latin-1")

    def header(self, name: bytes) -> str:
        found = (line.partition(b":")[2] for line in self.lines[1:] if line.partition(b":")[0].strip().lower() == name)
        return next(found, b"").strip().decode("latin-1").lower()

    @property
    def length(self) -> int:
        return int(self.header(b"content-length") or 0)

    def encode(self, *more: bytes) -> bytes:
        kept = (line for line in self.lines if not line.lower().startswith(b"connection:"))
        return b"\r\n".join([*kept, *more, b"", b""])


class S3Proxy:
    """Listens on a free port of 127.0.0.1 and passes every request on in a connection of its own. Thread-safe."""

    def __init__(self, upstream_port: int) -> None:
        self.fault = PASS  # for every request that nothing was planned for; set it at any time
        # Requests by (method, kind of fault), counted before anything is done. A refused connection's method is "".
        self.counts: Counter[tuple[str, str]] = Counter()
        self._upstream_port = upstream_port
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="s3 proxy")
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail_next(self, n: int, fault: Fault, *, method: str = "", path: str = "") -> None:
        """Plan `fault` for the next `n` requests of `method` whose target has `path` in it; plans are met in order.

        REFUSE knows neither method nor path. It counts only when nothing was planned before it and is unmet.
        """
        if fault == REFUSE and (method or path):
            raise ValueError("a connection is refused before its request is known: no method, no path")
        with self._lock:
            self._planned.append(_Planned(n, fault, method, path))

    def count(self, method: str = "", kind: str = "") -> int:
        """How many requests there were of `method` ("" any) with a fault of `kind` ("" any, PASS too)."""
        with self._lock:
            return sum(n for (m, k), n in self.counts.items() if method in ("", m) and kind in ("", k))

    def drop(self) -> None:
        """Close all connections, whatever they wait for; new ones are taken."""
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything and wait for the threads."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.drop()
        while self._threads:
            self._threads.pop().join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses():
                near.close()
                continue
            with self._lock:
                self._open.add(near)
            self._threads = {thread for thread in self._threads if thread.is_alive()}
            thread = threading.Thread(target=self._serve, args=(near,), name="s3 proxy connection")
            self._threads.add(thread)
            thread.start()

    def _refuses(self) -> bool:
        with self._lock:
            if (self._planned[0].fault if self._planned else self.fault) != REFUSE:
                return False
            return self._take("", "") == REFUSE

    def _take(self, method: str, path: str) -> Fault:
        for planned in self._planned:
            if planned.meets(method, path):
                planned.left -= 1
                fault = planned.fault
                self._planned = [one for one in self._planned if one.left > 0]
                break
        else:
            fault = self.fault
        if _ONLY.get(fault.kind, method) != method:
            fault = PASS
        self.counts[method, fault.kind] += 1
        return fault

    def _serve(self, near: socket.socket) -> None:
        try:
            with suppress(OSError), near, near.makefile("rb") as requests:
                while head := _read_head(requests):
                    with self._lock:
                        fault = self._take(head.method, head.target)
                    if not self._handle(head, requests, near, fault):
                        return
        finally:
            with self._lock:
                self._open.discard(near)

    def _handle(self, head: _Head, requests: BufferedReader, near: socket.socket, fault: Fault) -> bool:
        """Say whether the connection may carry another request."""
        if fault == REFUSE:
            return False
        if fault == HANG:
            while requests.read1(_PIECE):
                pass
            return False
        if fault.kind.startswith("answer"):
            for _ in _pieces(requests, head.length):
                pass
            near.sendall(_error(int(fault.amount), with_body=head.method != "HEAD"))
            return True
        with socket.create_connection(("127.0.0.1", self._upstream_port)) as far:
            with self._lock:
                self._open.add(far)
            try:
                return self._send_up(head, requests, far, fault) and self._send_down(head, far, near, fault)
            finally:
                with self._lock:
                    self._open.discard(far)

    def _send_up(self, head: _Head, requests: BufferedReader, far: socket.socket, fault: Fault) -> bool:
        cut = fault.kind == "cut"
        length = min(head.length, int(fault.amount)) if cut else head.length
        far.sendall(head.encode(b"Connection: close"))
        for piece in _pieces(requests, length, flip=int(fault.amount) if fault.kind == "corrupt PUT" else None):
            with suppress(OSError):  # the server may answer, and close, before it has read all
                far.sendall(piece)
        return not cut

    def _send_down(self, asked: _Head, far: socket.socket, near: socket.socket, fault: Fault) -> bool:
        with far.makefile("rb") as answers:
            head = _read_head(answers)
            if fault.kind == "delay":
                self._closing.wait(fault.amount)
            if head is None or self._closing.is_set():
                return False
            near.sendall(head.encode())
            if asked.method == "HEAD" or head.target in ("204", "304"):
                return True
            if not head.header(b"content-length"):
                while piece := answers.read1(_PIECE):
                    near.sendall(piece)
                return head.header(b"transfer-encoding") == "chunked"
            truncated = fault.kind == "truncate"
            length = min(head.length, int(fault.amount)) if truncated else head.length
            for piece in _pieces(answers, length, flip=int(fault.amount) if fault.kind == "corrupt GET" else None):
                near.sendall(piece)
            return not truncated


def _read_head(source: BufferedReader) -> _Head | None:
    lines: list[bytes] = []
    while line := source.readline():
        if line == b"\r\n":
            return _Head(tuple(lines))
        lines.append(line.rstrip(b"\r\n"))
    return None


def _pieces(source: BufferedReader, length: int, *, flip: int | None = None) -> Iterator[bytes]:
    """Yield `length` bytes of a body as they come. Raises ConnectionError when it ends before."""
    done = 0
    while done < length:
        piece = source.read1(min(_PIECE, length - done))
        if not piece:
            raise ConnectionError(f"the body ended after {done} of {length} bytes")
        if flip is not None and 0 <= flip - done < len(piece):
            changed = bytearray(piece)
            changed[flip - done] ^= 0xFF
            piece = bytes(changed)
        done += len(piece)
        yield piece


def _error(status: int, *, with_body: bool) -> bytes:
    code = _CODES.get(status, "InternalError")
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (body if with_body else b"")
