"""`trunkline record FOLDER`: a PBX's AMI stream for a report."""

import argparse
import signal
import sys
from functools import partial
from pathlib import Path

import trio

from trunkline.asterisk.anonymise import Anonymiser
from trunkline.asterisk.record import Recording
from trunkline.asterisk.session import LinkError
from trunkline.commands import target
from trunkline.commands.failures import leaves
from trunkline.config_reading import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, from which PBX, how much, and whether it may show numbers."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to; made if it is not there")
    target.add_arguments(parser)
    parser.add_argument("--anonymise", action="store_true", help="other numbers and names for those of people")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--calls", type=int, metavar="N", help="stop when N calls have begun and ended")


def main(arguments: argparse.Namespace) -> int:
    """Record until Ctrl-C or the limit; 0 then, 1 when the PBX or the folder cannot be used, 2 when asked wrongly."""
    status = 0
    try:
        meant = target.targets(arguments)
        if len(meant) > 1:
            print("the settings name several PBXs: say which one by --pbx HOST", file=sys.stderr)
            return 2
    except (ConfigError, target.NoTarget) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        trio.run(partial(_record, arguments, meant[0]))
    except* (LinkError, OSError) as errors:
        status = 1
        for failure in leaves(errors):
            print(f"cannot record: {failure}", file=sys.stderr)
    return status


async def _record(arguments: argparse.Namespace, meant: target.Target) -> None:
    anonymiser = Anonymiser() if arguments.anonymise else None
    recording = Recording(arguments.folder, meant.link, anonymiser=anonymiser, calls=arguments.calls, say=_say)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            if arguments.seconds is not None:
                nursery.cancel_scope.deadline = trio.current_time() + arguments.seconds
            await recording.run()
            nursery.cancel_scope.cancel()
    _say(f"{recording.kinds.total()} events, {recording.ended} calls; see them by: trunkline replay {arguments.folder}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
