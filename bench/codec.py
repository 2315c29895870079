"""decode + guard + track of all captures on one core, beside panoramisk merely parsing the same bytes."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable

from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from streams import SYSTEMNAME, afresh, captures
from trunkline.asterisk.codec import Decoder
from trunkline.asterisk.event import Event
from trunkline.asterisk.guard import Guard
from trunkline.calls.needs import FIELDS, NEEDED
from trunkline.calls.tracker import Tracker
from trunkline.garbage import settle
from verdict import Promises, headline

CHUNK = 1 << 16
TIMES_OVER = 6  # all captures, one session: what a session learns at its start is a small part of it


def chunks(data: bytes) -> list[bytes]:
    return [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]


def decode(data: list[bytes]) -> None:
    decoder = Decoder(wanted=NEEDED, fields=FIELDS)
    for chunk in data:
        decoder.feed(chunk)


def track(data: list[bytes]) -> None:
    decoder = Decoder(wanted=NEEDED, fields=FIELDS)
    guard = Guard(SYSTEMNAME)
    decoder.trust(guard)
    tracker = Tracker(SYSTEMNAME)
    for chunk in data:
        for frame in decoder.feed(chunk):
            event = frame if type(frame) is Event else guard.check(frame, 0.0)
            if event is not None:
                tracker.handle(event)


class ParsesOnly(AMIProtocol):
    """panoramisk's reader without its dispatch: what it parses goes nowhere."""

    def handle_message(self, message: Message) -> None:
        pass


def panoramisk(data: list[bytes]) -> None:
    protocol = ParsesOnly()
    protocol.connection_made(None)
    for chunk in data:
        protocol.data_received(chunk)


def seconds(run: Callable[[list[bytes]], None], data: list[bytes]) -> float:
    """CPU time of one run, so that other work on the machine counts little."""
    gc.collect()
    start = time.process_time()
    run(data)
    return time.process_time() - start


def main() -> int:
    """Print the figures; 1 where decode + guard + track is under six times panoramisk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    stream = b"".join(afresh(data, time_over) for time_over in range(TIMES_OVER) for data in captures())
    events = stream.count(b"\r\n\r\n")
    data = chunks(stream)
    headline(f"decode + guard + track of {events:,} AMI packets on one core, beside panoramisk parsing them")
    settle()  # as the daemon does once it has started, and for the peer alike
    runs = (panoramisk, decode, track)
    took = [[seconds(run, data) for run in runs] for _ in range(arguments.rounds)]  # in turn: one machine, one minute
    peer, only, ours = (events / statistics.median(row[i] for row in took) for i in range(3))
    only_ratio, ratio = (statistics.median(row[0] / row[i] for row in took) for i in (1, 2))
    print(
        f"{events} AMI packets, {len(stream) / 1e6:.1f} MB, {arguments.rounds} rounds in turn; "
        "median CPU time of one core"
    )
    print(f"panoramisk parses            {peer:10,.0f} events/s")
    print(f"trunkline decodes            {only:10,.0f} events/s  {only_ratio:5.1f} x")
    print(f"decodes + guards + tracks    {ours:10,.0f} events/s  {ratio:5.1f} x")
    promises = Promises()
    promises.tell("at least 6 x panoramisk, aiming at 10", f"{ratio:.1f} x", kept=ratio >= 6)
    return promises.status


if __name__ == "__main__":
    raise SystemExit(main())
