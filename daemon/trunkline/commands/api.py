"""`trunkline api`: the API without a PBX, until SIGTERM or Ctrl-C; as many as wanted, on any machine."""

import argparse
import asyncio

import structlog
import uvloop

from trunkline import config, serving
from trunkline.commands.configured import add_config, with_settings

log = structlog.get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config."""
    add_config(parser)


def main(arguments: argparse.Namespace) -> int:
    """Serve; 0 when asked to stop, 1 when it cannot go on, 2 when the settings are wrong."""
    return with_settings(arguments, _serve, config.load_api)


def _serve(settings: config.ApiSettings) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serving.serve_alone(settings))
    except serving.StartError as error:
        log.error("api.cannot_start", detail=str(error))
        return 1
    return 0
