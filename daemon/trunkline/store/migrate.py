"""The database's schema, up and down the revisions in `migrations/`.

These functions start an event loop of their own: call them from a thread that runs none.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

_PACKAGE: Final = Path(__file__).resolve().parent.parent
# In a wheel the revisions are inside the package, in a clone two above it.
_PLACES: Final = (_PACKAGE / "migrations", _PACKAGE.parent.parent / "migrations")
_LOCK: Final = 0x7472756E6B6C696E  # "trunklin", as a bigint
_LOCK_PAUSE_S: Final = 0.1

log = structlog.get_logger(__name__)


class MigrationError(Exception):
    """The schema could not be brought to the wanted revision."""


class Migrated(NamedTuple):
    """What a migration did."""

    before: str | None  # None: the database was empty
    after: str | None
    figures: dict[str, int]  # what the backfills counted, e.g. calls whose other side is not known


def upgrade(url: str, revision: str = "head") -> Migrated:
    """Bring the database at `url` up to `revision`; nothing happens when it is there. Waits while another does it.

    Raises MigrationError where the database is of a newer program or a migration stopped (it may be run again), and
    what asyncpg raises when the database cannot be reached.
    """
    return asyncio.run(_migrate(url, lambda config: command.upgrade(config, revision)))


def downgrade(url: str, revision: str) -> Migrated:
    """Bring the database at `url` down to `revision`; "base" drops everything.

    What the older schema cannot hold is kept in the schema `kept` and comes back on the way up.
    """
    return asyncio.run(_migrate(url, lambda config: command.downgrade(config, revision)))


def current(url: str) -> str | None:
    """Return the revision that the database at `url` is at; None for an empty one."""
    return asyncio.run(_current(url))


def head() -> str:
    """Return the newest revision that this program knows."""
    found = _scripts(_config()).get_current_head()
    if found is None:
        raise MigrationError(f"there are no revisions in {_config().get_main_option('script_location')}")
    return found


def _config() -> Config:
    for place in _PLACES:
        if (place / "env.py").is_file():
            config = Config()
            config.set_main_option("script_location", str(place).replace("%", "%%"))
            config.set_main_option("path_separator", "os")
            return config
    raise MigrationError(f"the migrations are in none of {', '.join(map(str, _PLACES))}: install the package again")


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)


def _engine(url: str) -> AsyncEngine:
    # asyncpg reads the URL, here as everywhere else: SQLAlchemy's reading of its query part is another one.
    return create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool)


async def _current(url: str) -> str | None:
    engine = _engine(url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_revision)
    finally:
        await engine.dispose()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _first(error: BaseException) -> BaseException:
    """Return what went wrong in the database, where leaving the transactions around it went wrong after it."""
    while error.__context__ is not None and isinstance(error.__context__, SQLAlchemyError):
        error = error.__context__
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


async def _migrate(url: str, work: Callable[[Config], None]) -> Migrated:
    config = _config()
    figures: Counter[str] = Counter()
    config.attributes["figures"] = figures
    engine = _engine(url)

    def run(connection: Connection) -> Migrated:
        before = _revision(connection)
        if before is not None and before not in {script.revision for script in _scripts(config).walk_revisions()}:
            raise MigrationError(
                f"the database is at revision {before}, which this program does not know: "
                "it was made by a newer version; run that one, or go down with it first"
            )
        connection.rollback()
        config.attributes["connection"] = connection
        work(config)
        return Migrated(before, _revision(connection), dict(figures))

    try:
        async with _alone(url), engine.connect() as connection:
            done = await connection.run_sync(run)
    except SQLAlchemyError as error:
        raise MigrationError(
            f"the migration stopped: {_first(error)}: mend that and run it again, it goes on where it was"
        ) from error
    finally:
        await engine.dispose()
    if done.before != done.after:
        log.info("database.migrated", before=done.before, after=done.after, **done.figures)
    return done


@asynccontextmanager
async def _alone(url: str) -> AsyncIterator[None]:
    """Hold the lock that lets one program at a time migrate this database."""
    connection = await asyncpg.connect(url)
    try:
        # Asked for again and again: a statement that waited inside the server would hold a snapshot, for whose end
        # CREATE INDEX CONCURRENTLY of the one that migrates would wait in turn.
        waiting = False
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            if not waiting:
                log.info("database.migration_awaited", reason="another program is migrating this database")
                waiting = True
            await asyncio.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        await connection.close()
