"""How a migration changes a big table under running readers and writers.

Every statement is a transaction of its own and may be given again: a migration that was interrupted is simply run once
more. A lock that stops others is waited for at most LOCK_TIMEOUT_S, then let go and asked for again, because whoever
waits for it makes all that come later wait too.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from alembic.operations import Operations
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

LOCK_TIMEOUT_S: Final = 1
_TRIES: Final = 120
_PAUSE_S: Final = 0.25
_TRY_AGAIN: Final = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_WHOLE_TABLE: Final = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan")
_FIRST: Final = UUID(int=0)


class Online:
    """One connection in autocommit, inside a migration."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ddl(self, *statements: str) -> None:
        """Run quick changes of the catalog, each again and again until it gets its lock."""
        for statement in statements:
            self._patient(statement)

    def index(self, name: str, definition: str) -> None:
        """Build an index without stopping writers; `definition` is what follows its name, `unique` included in it."""
        valid = self._scalar("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", name)
        if valid:
            return
        if valid is False:  # an interrupted build leaves it behind, invalid and in the way
            self._run(f"DROP INDEX CONCURRENTLY {name}")
        unique, rest = (
            ("UNIQUE ", definition.removeprefix("UNIQUE ")) if definition.startswith("UNIQUE ") else ("", definition)
        )
        self._run("SET lock_timeout = 0")  # it waits for old transactions, but nobody waits for it
        self._run(f"CREATE {unique}INDEX CONCURRENTLY {name} ON {rest}")

    def drop_index(self, name: str) -> None:
        """Drop an index that others may be using."""
        self._run("SET lock_timeout = 0")
        self._run(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")

    def foresee(self, table: str, name: str, definition: str) -> None:
        """Add a constraint that holds for new rows only."""
        if self._constraint(table, name) is None:
            self.ddl(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID")

    def constrain(self, table: str, name: str, definition: str) -> None:
        """Add a constraint for new rows, then check the old ones while others go on reading and writing."""
        self.foresee(table, name, definition)
        self.validate(table, name)

    def validate(self, table: str, name: str) -> None:
        """Check the old rows against a constraint that so far held for new ones only."""
        if self._constraint(table, name) is False:
            self._run("SET lock_timeout = 0")
            self._run(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")

    def not_null(self, table: str, *columns: str) -> None:
        """Forbid NULL without the scan under an exclusive lock that SET NOT NULL alone would need."""
        for column in columns:
            self.constrain(table, f"nn_{table}_{column}", f"CHECK ({column} IS NOT NULL)")
            self.ddl(
                f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL",
                f"ALTER TABLE {table} DROP CONSTRAINT nn_{table}_{column}",
            )

    def batches(self, table: str, body: str, *, counts: Mapping[str, str], size: int = 1000) -> Counter[str]:
        """Run `body`, CTEs over the CTE `page` of `size` rows of `table`, for one page after the other.

        Return the sums of `counts`: scalar expressions over these CTEs, by name.
        """
        figures = ", ".join(f"({expression}) AS {name}" for name, expression in counts.items())
        statement = (
            f"WITH page AS (SELECT * FROM {table} WHERE id > $1 ORDER BY id LIMIT {size}), {body} "
            f"SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last, {figures}"
        )
        # A page is met by key. The planner, which sees a table without statistics or a page of guessed size, may rather
        # read the whole table for each page.
        for way in _WHOLE_TABLE:
            self._run(f"SET {way} = off")
        total: Counter[str] = Counter()
        last: UUID | None = _FIRST
        while last is not None:
            row = self._patient(statement, last)
            last = row.last
            total.update({name: getattr(row, name) for name in counts})
        for way in _WHOLE_TABLE:
            self._run(f"RESET {way}")
        return total

    def exists(self, relation: str) -> bool:
        """Say whether there is a table of this name."""
        return self._scalar("SELECT to_regclass($1) IS NOT NULL", relation) is True

    def has_constraint(self, table: str, name: str) -> bool:
        """Say whether a table has a constraint of this name, checked or not."""
        return self._constraint(table, name) is not None

    def _constraint(self, table: str, name: str) -> bool | None:
        found: bool | None = self._scalar(
            "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass($1) AND conname = $2", table, name
        )
        return found

    def _patient(self, statement: str, *values: Any) -> Any:
        self._run(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
        for attempt in range(_TRIES):
            try:
                return self._run(statement, *values)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _TRY_AGAIN or attempt == _TRIES - 1:
                    raise
                time.sleep(_PAUSE_S)
        return None

    def _run(self, statement: str, *values: Any) -> Any:
        result = self._connection.exec_driver_sql(statement, values or None)
        return result.one() if result.returns_rows else None

    def _scalar(self, statement: str, *values: Any) -> Any:
        return self._connection.exec_driver_sql(statement, values).scalar()


@contextmanager
def online(op: Operations) -> Iterator[Online]:
    """Leave the migration's transaction for the length of the block."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        # A limit meant for the program's queries would cut the build of an index short.
        connection.exec_driver_sql("SET statement_timeout = 0")
        yield Online(connection)
        connection.exec_driver_sql("RESET statement_timeout")
        connection.exec_driver_sql("RESET lock_timeout")


def put_away(
    op: Operations, table: str, kept: str, columns: Collection[str], indexes: Collection[str], tables: Collection[str]
) -> None:
    """On the way down: `tables` into the schema `kept`, what is in `columns` of `table` into its table `kept`."""
    op.execute("CREATE SCHEMA IF NOT EXISTS kept")
    for whole in tables:
        op.execute(f"ALTER TABLE {whole} SET SCHEMA kept")
    op.execute(f"CREATE TABLE kept.{kept} AS SELECT id, {', '.join(columns)} FROM {table}")
    op.execute(
        f"ALTER TABLE kept.{kept} ADD PRIMARY KEY (id), ADD FOREIGN KEY (id) REFERENCES {table} (id) ON DELETE CASCADE"
    )
    for name in indexes:
        op.execute(f"DROP INDEX {name}")
    op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN {column}' for column in columns)}")


def bring_back(live: Online, table: str, kept: str, columns: Collection[str]) -> int | None:
    """On the way up: what put_away() kept of `columns`; how many rows that were. None: nothing was kept."""
    if not live.exists(f"kept.{kept}"):
        return None
    values = ", ".join(f"{column} = page.{column}" for column in columns)
    body = f"done AS (UPDATE {table} SET {values} FROM page WHERE {table}.id = page.id RETURNING 1)"
    back = live.batches(f"kept.{kept}", body, counts={"n": "SELECT count(*) FROM done"})
    live.ddl(f"DROP TABLE kept.{kept}")
    return back["n"]


def make_tables(live: Online, tables: Mapping[str, str], indexes: Mapping[str, str]) -> None:
    """On the way up: make tables, or take those that put_away() kept; and their indexes."""
    for table, definition in tables.items():
        if live.exists(f"kept.{table}"):
            live.ddl(f"ALTER TABLE kept.{table} SET SCHEMA public")
        else:
            live.ddl(f"CREATE TABLE IF NOT EXISTS {table} {definition}")
    for name, definition in indexes.items():
        live.index(name, definition)


def report(op: Operations, figures: Mapping[str, int]) -> None:
    """Hand figures of a backfill to whoever asked for the migration."""
    config = op.get_context().config
    if config is not None:
        config.attributes.setdefault("figures", Counter()).update(figures)
