"""What the declared tables are made of: the metadata with its naming rules, and a function for each kind of column."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Integer, MetaData, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def stored(words: type[StrEnum]) -> tuple[str, ...]:
    """Return an enum's values as the database holds them: lowercase, in the enum's order."""
    return tuple(word.value.lower() for word in words)


def one_of(column: str, words: Iterable[str]) -> CheckConstraint:
    """Return the CHECK that holds a column to a closed set of words; NULL passes."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def id_column() -> Column[Any]:
    """Return the key `id`, a uuid that the database makes where none is given."""
    return Column("id", UUID(), primary_key=True, server_default=text("gen_random_uuid()"))


def account_column(*, index: bool = False) -> Column[Any]:
    """Return `account_id`; the row goes with its account."""
    return Column("account_id", UUID(), ForeignKey("account.id", ondelete="CASCADE"), nullable=False, index=index)


def reference(
    name: str, target: str, *, cascade: bool = False, index: bool = False, nullable: bool = True
) -> Column[Any]:
    """Return a reference to a row of `target`: NULL when that goes, or gone with it when `cascade`."""
    rule = "CASCADE" if cascade else "SET NULL"
    return Column(name, UUID(), ForeignKey(f"{target}.id", ondelete=rule), nullable=nullable, index=index)


def text_column(name: str, *, nullable: bool = True, default: str | None = None) -> Column[Any]:
    """Return a text column."""
    return Column(name, Text(), nullable=nullable, server_default=None if default is None else text(f"'{default}'"))


def word(name: str, default: str | None = None) -> Column[Any]:
    """Return a text column that is never NULL."""
    return text_column(name, nullable=False, default=default)


def instant(name: str, *, nullable: bool = True) -> Column[Any]:
    """Return a column of a moment in time."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def now_column(name: str) -> Column[Any]:
    """Return a column of a moment: that of the insertion where none is given."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def count(name: str) -> Column[Any]:
    """Return a column of a whole number that may not be known."""
    return Column(name, Integer(), nullable=True)


def json_list(name: str) -> Column[Any]:
    """Return a column of a JSON array, empty where none is given."""
    return Column(name, JSONB(), nullable=False, server_default=text("'[]'::jsonb"))


def texts(name: str) -> Column[Any]:
    """Return a column of an array of texts, empty where none is given."""
    return Column(name, ARRAY(Text()), nullable=False, server_default=text("'{}'::text[]"))


def json_object(name: str, *, nullable: bool = True) -> Column[Any]:
    """Return a column of JSON, `{}` where none is given unless `nullable`."""
    return Column(name, JSONB(), nullable=nullable, server_default=None if nullable else text("'{}'::jsonb"))
