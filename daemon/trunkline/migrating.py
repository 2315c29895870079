"""The schema brought up at the daemon's start, by another process: alembic and SQLAlchemy are 30 MB that would stay.

The daemon's side is `migrate()`; the other process is this module's `main()`, which is given the URL on stdin and tells
what it logs in JSON, a line each, on stdout.
"""

import json
import sys
from functools import partial
from subprocess import PIPE
from typing import Any, Final

import asyncpg
import structlog
import trio

_STOPPED: Final = "migration.stopped"  # for the caller, not for the log
_AWAY: Final = "migration.away"

log = structlog.get_logger(__name__)


class MigrationStopped(Exception):
    """The schema is not what it should be; the text says why and what to do."""


async def migrate(url: str) -> None:
    """Bring the database to this version's schema. Raises MigrationStopped, ConnectionError when it is away.

    Cancelled, it ends the other process; the next start goes on where that was.
    """
    # A session of its own: Ctrl-C is for us, who end it.
    command = [sys.executable, "-P", "-m", __name__]
    run = partial(trio.run_process, command, stdin=url.encode(), stdout=PIPE, check=False, start_new_session=True)
    failed: dict[str, str] = {}
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run)
        rest = b""
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _tell(line, failed)
    if _AWAY in failed:
        raise ConnectionError(failed[_AWAY])
    if process.returncode:
        raise MigrationStopped(failed.get(_STOPPED) or "the migration stopped: what it wrote itself is above")


def _tell(line: bytes, failed: dict[str, str]) -> None:
    try:
        told: dict[str, Any] = json.loads(line)
        event = told.pop("event")
    except (ValueError, TypeError, AttributeError, KeyError):  # of a library, or of what a site has Python begin with
        log.warning("migration.said", text=line.decode(errors="replace")[:500])
        return
    if event in (_STOPPED, _AWAY):
        failed[event] = told["detail"]
    else:
        getattr(log, told.pop("level"))(event, **told)


def main() -> int:
    """Migrate; 1 where it did not come to its end."""
    from trunkline.store.migrate import MigrationError, upgrade

    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
    )
    try:
        upgrade(sys.stdin.read())
    except MigrationError as error:
        log.error(_STOPPED, detail=str(error))
        return 1
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.error(_AWAY, detail=str(error) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
