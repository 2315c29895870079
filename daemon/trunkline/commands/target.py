"""Which PBXs a command is about: those of the settings, or one given on the command line."""

import argparse
import ssl
import sys
from getpass import getpass
from pathlib import Path
from typing import NamedTuple

from trunkline import config
from trunkline.asterisk.ari import AriSettings, ari_settings
from trunkline.asterisk.dial import Address, LinkSettings
from trunkline.asterisk.session import Credentials


class Target(NamedTuple):
    """One PBX to talk to."""

    link: LinkSettings
    trunks: tuple[str, ...]
    ari: AriSettings | None = None  # None: it is not listened to


class NoTarget(Exception):
    """The PBX or its secret was not given; the text says how to."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, or --pbx with --user and --secret-file."""
    parser.add_argument("--config", metavar="FILE", help="settings (default: $TRUNKLINE_CONFIG, else trunkline.toml)")
    parser.add_argument("--pbx", metavar="HOST[:PORT]", help="this PBX instead of those of the settings")
    parser.add_argument("--user", default="events", help="its AMI user, with --pbx (default: %(default)s)")
    parser.add_argument("--secret-file", metavar="FILE", help="file with the user's secret (left out: asked for)")
    parser.add_argument("--tls", metavar="on|CA-FILE", help="AMI over TLS, with --pbx")


def targets(arguments: argparse.Namespace) -> list[Target]:
    """The PBXs meant. Raises ConfigError, NoTarget."""
    if arguments.pbx is None:
        settings = config.load(arguments.config)
        return [
            Target(
                LinkSettings(
                    pbx.systemname or pbx.host,
                    Address(pbx.host, pbx.ami_port, _context(pbx.tls)),
                    Credentials(pbx.username, pbx.secret.reveal()),
                    pbx.systemname,
                ),
                pbx.trunks,
                _ari(pbx),
            )
            for pbx in settings.pbx
            if pbx.enabled
        ]
    host, _, port = arguments.pbx.partition(":")
    if not host or (port and not port.isdecimal()):
        raise NoTarget(f"--pbx {arguments.pbx}: allowed: HOST or HOST:PORT")
    tls = arguments.tls or "off"
    address = Address(host, int(port) if port else 5038 if tls == "off" else 5039, _context(tls))
    trunks = tuple(getattr(arguments, "trunk", None) or ("PJSIP/trunk*",))
    credentials = Credentials(arguments.user, _secret(arguments, host))
    return [Target(LinkSettings(host, address, credentials), trunks)]


def _ari(pbx: config.Pbx) -> AriSettings | None:
    if not pbx.ari_url or pbx.ari_secret is None:
        return None
    ca_file = None if pbx.tls in ("off", "on") else pbx.tls
    return ari_settings(pbx.systemname or pbx.host, pbx.ari_url, pbx.ari_user, pbx.ari_secret.reveal(), ca_file)


def _context(tls: str) -> ssl.SSLContext | None:
    if tls == "off":
        return None
    try:
        return ssl.create_default_context(cafile=None if tls == "on" else tls)
    except (OSError, ssl.SSLError) as error:
        raise NoTarget(f"tls: {tls} cannot be used as a CA file: {error}") from error


def _secret(arguments: argparse.Namespace, host: str) -> str:
    if arguments.secret_file:
        try:
            return Path(arguments.secret_file).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise NoTarget(f"--secret-file {arguments.secret_file} cannot be read: {error}") from error
    if sys.stdin.isatty():
        return getpass(f"secret of the AMI user {arguments.user} on {host}: ")
    raise NoTarget(f"the secret of the AMI user {arguments.user} on {host} is needed: --secret-file FILE")
