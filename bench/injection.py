"""Promise 13: of a million hostile inputs none becomes a header of its own in an AMI action.

Every builder of asterisk/actions.py in turn, with arguments put together of what breaks things: line ends, separators
of dialplan and applications, regular expressions, digits that are none, long and empty texts. What is let through is
encoded as it would be sent and read back as Asterisk reads it.
"""

import argparse
import random
import time
from collections.abc import Callable

from trunkline.asterisk import actions
from trunkline.asterisk.actions import Action, BadArgument
from trunkline.asterisk.codec import encode_action
from trunkline.identity.destinations import DestinationRefused, Destinations
from verdict import Promises, headline

INPUTS = 1_000_000
SEED = 13
PIECES = (
    *("\r\n", "\n", "\r", "\0", "\r\n\r\n", "\x0b", "\x85", "\u2028", "Action: Originate", "Application: System"),
    *(",", ";", ":", "&", "|", "$", "(", ")", "{", "}", "[", "]", "/", "\\", '"', "'", "<", ">", "@", "=", " ", "\t"),
    *("/.*/", "${SHELL(id)}", "PJSIP/trunk", "%0d%0a", "\u0661\u0662", "\ud7ff", "é", "x" * 200, "-", "_", "."),
    *("1001", "+442071234567", "pbx-1795362354.12", "PJSIP/1001", "support", "LISTEN", "agents", "trunkline-hold", ""),
)
GOOD = PIECES[-9:-1]
BUILDERS: tuple[Callable[[list[str]], Action], ...] = (
    lambda a: actions.dial(a[0], a[1], a[2], a[3], a[4], 30),
    lambda a: actions.supervise(a[0], a[1], a[2], a[3], a[4], 30),
    lambda a: actions.hangup(a[0]),
    lambda a: actions.blind_transfer(a[0], a[1], a[2]),
    lambda a: actions.attended_transfer(a[0], a[1], a[2]),
    lambda a: actions.cancel_attended_transfer(a[0]),
    lambda a: actions.park(a[0], a[1]),
    lambda a: actions.redirect_both(a[0], a[1], a[2], a[3], a[4]),
    lambda a: actions.bridge(a[0], a[1]),
    lambda a: actions.set_hold(a[0], a[1]),
    lambda a: actions.dialplan_exists(a[0], a[1]),
    lambda a: actions.mute_recording(a[0], False),
    lambda a: actions.pause_member(a[0], a[1] or None, True, a[2] or None),
    lambda a: actions.add_member(a[0], a[1], 1),
    lambda a: actions.remove_member(a[0], a[1]),
)
KEYS = frozenset(
    "Action ActionID Channel Context Exten Priority Timeout CallerID ChannelId Async Application Data Cause "
    "TimeoutChannel ExtraChannel ExtraContext ExtraExten ExtraPriority Channel1 Channel2 Tone Variable Value Direction "
    "State Interface Paused Queue Reason Penalty".split()
)


def extra_headers(action: Action) -> int:
    """How many headers a reader finds beside those that the builder wrote; it ends lines at CR, at LF and at both."""
    raw = encode_action(action.name, action.fields, "id").removesuffix(b"\r\n\r\n")
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    keys = [line.partition(b":")[0].decode() for line in lines]
    return len(keys) - len(action.fields) - 2 + sum(key not in KEYS for key in keys) + raw.count(b"\0")


def main() -> int:
    """Print what became of them; 1 where one got through as more than it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    inputs = parser.parse_args().inputs
    headline(f"{inputs:,} hostile inputs to the builders of AMI actions, and to the rules of destinations")
    chance, extra, built, refused, sent_out = random.Random(SEED), 0, 0, 0, 0
    destinations = Destinations(["GB"], region="GB")
    began = time.perf_counter()
    for n in range(inputs):
        arguments = [
            chance.choice(GOOD) if chance.random() < 0.7 else "".join(chance.choices(PIECES, k=chance.randrange(1, 4)))
            for _ in range(5)
        ]
        try:
            action = BUILDERS[n % len(BUILDERS)](arguments)
        except BadArgument:
            refused += 1
        else:
            built += 1
            extra += extra_headers(action)
        if n % 10 == 0:
            try:
                number = destinations.check(arguments[4]).number
            except DestinationRefused:
                continue
            sent_out += not number.removeprefix("+").isascii() or not number.removeprefix("+").isdigit()
    print(f"{built:,} built, {refused:,} refused, in {time.perf_counter() - began:.0f} s")
    promises = Promises()
    promises.tell("0 extra headers in 1,000,000 fuzzed inputs", f"{extra} in {inputs:,}", kept=extra == 0 and built > 0)
    promises.tell("0 destinations that are more than digits", f"{sent_out} in {inputs // 10:,}", kept=sent_out == 0)
    return promises.status


if __name__ == "__main__":
    raise SystemExit(main())
