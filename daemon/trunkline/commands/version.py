"""`trunkline version`: what runs here, for a report."""

import argparse
import platform
from importlib.metadata import version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def main(arguments: argparse.Namespace) -> int:
    """Print the versions of trunkline and Python."""
    print(f"trunkline {version('trunkline')} (Python {platform.python_version()}, {platform.machine()})")
    return 0
