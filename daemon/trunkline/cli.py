"""The command line. Only the module of the command asked for is imported: a replay is mostly start-up."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """Where a command lives, its line in --help, and how its own --help goes on."""

    module: str
    summary: str
    epilog: str = ""


COMMANDS = {
    "run": Command(
        "trunkline.commands.run",
        "follow the PBXs of trunkline.toml and serve the API (the daemon)",
        "examples:\n"
        "  trunkline run --config /etc/trunkline/trunkline.toml\n"
        "  TRUNKLINE_DATABASE_URL=postgresql://... trunkline run --migrate\n\n"
        "stops on SIGTERM or Ctrl-C, after writing what it knows; SIGKILL is safe too.",
    ),
    "api": Command(
        "trunkline.commands.api",
        "serve the API alone, beside a `run` elsewhere; several at once, on any machine",
        "It reads the same trunkline.toml as `run`, but for [[pbx]] and [spool], which may be left out: it needs\n"
        "PostgreSQL and, for recordings, the object storage. Its role in database.url may be one that is a member\n"
        "of trunkline_api only; docs/operations.md has the two statements that make it.\n\n"
        "examples:\n"
        "  trunkline api --config /etc/trunkline/api.toml\n"
        "  TRUNKLINE_DATABASE_URL=postgresql://... TRUNKLINE_HTTP_PORT=8081 trunkline api\n\n"
        "stops on SIGTERM or Ctrl-C, within 5 s: WebSockets are told to come back, requests are answered.",
    ),
    "spool": Command(
        "trunkline.commands.spool",
        "store the recordings of a PBX from its own machine, where `run` is on another one",
        "It reads the same trunkline.toml as `run`: [database], [recordings], and of each [[pbx]] with `recordings`\n"
        "or `voicemail` its systemname and those directories. It needs PostgreSQL and the object storage, no AMI.\n\n"
        "examples:\n"
        "  trunkline spool --config /etc/trunkline/trunkline.toml\n"
        "  trunkline spool --once            look once, store what is there, and stop\n\n"
        "stops on SIGTERM or Ctrl-C; SIGKILL is safe too.",
    ),
    "up": Command(
        "trunkline.commands.up",
        "try it: PostgreSQL, Asterisk, the daemon and two phones, all on this machine",
        "examples:\n"
        "  trunkline up                                      everything embedded, below .trunkline/\n"
        "  trunkline up --pbx replay                         recorded calls instead of an Asterisk\n"
        "  trunkline up --pbx 192.0.2.10 --user events --secret-file ami.secret\n"
        "                                                    your own PBX, read only\n\n"
        "Ctrl-C stops all of it.",
    ),
    "replay": Command(
        "trunkline.commands.replay",
        "print the calls in recorded AMI streams, one JSON line each; no database needed",
        "example:\n  trunkline replay tests/replay/captures/a_inbound_caller_hangs_up",
    ),
    "record": Command(
        "trunkline.commands.record",
        "record a PBX's AMI stream for a report, numbers anonymised on request",
    ),
    "doctor": Command(
        "trunkline.commands.doctor",
        "check a PBX before going live, and say what to do about what is missing",
    ),
    "migrate": Command(
        "trunkline.commands.migrate",
        "bring the database to this version's schema, or back",
        "examples:\n"
        "  trunkline migrate                to the newest schema\n"
        "  trunkline migrate --show         where it is now\n"
        "  trunkline migrate --down 0001    back, keeping what the older schema cannot hold",
    ),
    "admin": Command(
        "trunkline.commands.admin",
        "make, list and revoke users and API keys",
        "The first admin is made here; afterwards users and keys can also be made over the API.\n\n"
        "examples:\n"
        "  trunkline admin create-user ada@example.com --role ADMIN --extension 1001\n"
        "                                                    asks for the password; or: ... < password.txt\n"
        "  trunkline admin create-key crm --scopes calls:read recordings:read\n"
        "                                                    prints the key, this once\n"
        "  trunkline admin list-keys\n"
        "  trunkline admin revoke-key tl_Ab3dEf\n\n"
        "`trunkline admin ACTION --help` says more: `create-key --help` lists the scopes.",
    ),
    "version": Command("trunkline.commands.version", "print the version"),
}

_OVERVIEW = """\
trunkline turns what an Asterisk PBX does into Call rows in PostgreSQL, live, with an HTTP API and metrics.

  trunkline up        see it work, in a minute, without a PBX or a database of your own
  trunkline doctor    then ask what your PBX lacks for it
  trunkline run       then run it: copy trunkline.example.toml to trunkline.toml
"""


def parser_for(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser that knows every command's name, and the arguments of the one that `argv` asks for."""
    parser = argparse.ArgumentParser(
        prog="trunkline",
        description=_OVERVIEW,
        epilog="trunkline COMMAND --help says more about a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if argv and argv[0] == name:
            module = importlib.import_module(command.module)
            module.add_arguments(sub)
            sub.set_defaults(main=module.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 well, 1 it failed, 2 it was asked wrongly, 130 on Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        parser_for(words).print_help()
        return 2
    if words == ["--version"]:
        words = ["version"]
    try:
        arguments = parser_for(words).parse_args(words)
        status: int = arguments.main(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `trunkline replay ... | head`: nobody reads on, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
