"""`trunkline run`: the daemon, until SIGTERM or Ctrl-C."""

import argparse
import signal
from functools import partial

import structlog
import trio

from trunkline import app, config
from trunkline.commands.configured import add_config, with_settings
from trunkline.commands.failures import leaves
from trunkline.serving import StartError

log = structlog.get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config and --migrate."""
    add_config(parser)
    parser.add_argument("--migrate", action="store_true", help="first bring the database to this version's schema")


def main(arguments: argparse.Namespace) -> int:
    """Run; 0 when asked to stop, 1 when it cannot go on, 2 when the settings are wrong."""
    return with_settings(arguments, partial(_run, migrate=arguments.migrate))


def _run(settings: config.Settings, *, migrate: bool) -> int:
    status = 0
    try:
        trio.run(until_signalled, settings, migrate)
    except* StartError as errors:
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
