"""`trunkline migrate`: the database's schema, up, down, or only shown."""

import argparse
import sys

from trunkline.config import load_database
from trunkline.config_reading import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--config, and one of --to, --down, --show."""
    parser.add_argument("--config", metavar="FILE", help="settings; only [database] is read (default: trunkline.toml)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--to", metavar="REVISION", default="head", help="go up to it (default: the newest)")
    which.add_argument("--down", metavar="REVISION", help="go down to it; base drops every table")
    which.add_argument("--show", action="store_true", help="only say where the database is")


def main(arguments: argparse.Namespace) -> int:
    """Migrate, and say from where to where and what the backfills counted."""
    import asyncpg
    from alembic.util.exc import CommandError

    from trunkline.store import migrate
    from trunkline.store.faults import advice

    try:
        url = load_database(arguments.config).url.reveal()
        if arguments.show:
            print(
                f"the database is at {migrate.current(url) or 'no revision: it is empty'}; newest is {migrate.head()}"
            )
            return 0
        done = migrate.downgrade(url, arguments.down) if arguments.down else migrate.upgrade(url, arguments.to)
    except (ConfigError, CommandError, migrate.MigrationError) as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        print(f"the database cannot be migrated ({type(error).__name__}): {advice(error)}", file=sys.stderr)
        return 1
    if done.before == done.after:
        print(f"nothing to do: the database is at {done.after}")
    else:
        counted = "".join(f", {name.replace('_', ' ')}: {count}" for name, count in done.figures.items())
        print(f"the database went from {done.before or 'empty'} to {done.after or 'empty'}{counted}")
    return 0
