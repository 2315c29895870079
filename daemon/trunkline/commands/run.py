"""`trunkline run`: the daemon, until SIGTERM or Ctrl-C."""

import argparse
import signal
import sys

import structlog
import trio

from trunkline import app, config, logs
from trunkline.commands.failures import leaves
from trunkline.config_reading import ConfigError

log = structlog.get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config and --migrate."""
    parser.add_argument("--config", metavar="FILE", help="settings (default: $TRUNKLINE_CONFIG, else trunkline.toml)")
    parser.add_argument("--migrate", action="store_true", help="first bring the database to this version's schema")


def main(arguments: argparse.Namespace) -> int:
    """Run; 0 when asked to stop, 1 when it cannot go on, 2 when the settings are wrong."""
    try:
        settings = config.load(arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    logs.configure(settings.log.level, settings.log.format)
    status = 0
    try:
        trio.run(until_signalled, settings, arguments.migrate)
    except* app.StartError as errors:
        status = 1
        for failure in leaves(errors):
            log.error("daemon.cannot_start", detail=str(failure))
    return status


async def until_signalled(settings: config.Settings, migrate: bool) -> None:
    """Run the daemon until SIGTERM or SIGINT; then let it write what it knows."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for number in signals:
                    log.info("daemon.stopping", signal=signal.Signals(number).name)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            await app.run(settings, migrate=migrate)
            nursery.cancel_scope.cancel()
