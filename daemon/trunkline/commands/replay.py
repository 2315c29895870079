"""`trunkline replay`: recorded AMI streams in, Calls out, one JSON line each capture."""

import argparse
import sys

import msgspec

from trunkline.calls.record import CallRecord
from trunkline.replay import CaptureError, replay_all


class _Line(msgspec.Struct):
    capture: str
    calls: list[CallRecord]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to replay, and what only the admin knows of the PBX."""
    parser.add_argument(
        "captures",
        metavar="CAPTURE",
        nargs="+",
        help="a folder with ami.raw (and ami2.raw, … for the sessions after it), or one such file",
    )
    parser.add_argument(
        "--trunk",
        metavar="PATTERN",
        action="append",
        help="endpoints that face a carrier, as a shell pattern; may be given more than once (default: PJSIP/trunk*)",
    )
    parser.add_argument("--region", metavar="CC", help="country of the trunk for E.164 numbers, as GB (default: none)")


def main(arguments: argparse.Namespace) -> int:
    """Print {"capture": …, "calls": […]} for each, the calls as the API has them; 1 where a capture cannot be read."""
    encode = msgspec.json.Encoder().encode
    out = sys.stdout.buffer
    trunks = arguments.trunk or ["PJSIP/trunk*"]
    try:
        for name, calls in replay_all(arguments.captures, trunks=trunks, region=arguments.region):
            out.write(encode(_Line(name, calls)) + b"\n")
            out.flush()
    except CaptureError as error:
        print(f"trunkline replay: {error}", file=sys.stderr)
        return 1
    return 0
