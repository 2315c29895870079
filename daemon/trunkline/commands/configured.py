"""What commands that need all settings share: --config, the log as it is set up, and status 2 for what is wrong."""

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

from trunkline import config, logs
from trunkline.config_reading import ConfigError

S = TypeVar("S", bound=config.ApiSettings)


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config."""
    parser.add_argument("--config", metavar="FILE", help="settings (default: $TRUNKLINE_CONFIG, else trunkline.toml)")


def with_settings(
    arguments: argparse.Namespace,
    work: Callable[[S], int],
    load: Callable[[str | None], S] = config.load,  # type: ignore[assignment]  # mypy: no default for a TypeVar
) -> int:
    """What `work` returns; 2 when the settings are wrong, in themselves or for `work`, which raises ConfigError."""
    try:
        settings = load(arguments.config)
        logs.configure(settings.log.level, settings.log.format)
        return work(settings)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
