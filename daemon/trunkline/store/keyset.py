"""Lists that are paged by keyset: a page begins behind the last item of the one before, whatever came meanwhile.

A `Listing` says what is selected and by which columns it may be ordered; the statement of a page is made of it and of
conditions that are ours, with every value as an argument.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from trunkline.store.pool import Connection, Pool

MAX_PAGE: Final = 200


class Order(NamedTuple):
    """A column to order by: never NULL, and with `id` behind it in an index. kind: timestamptz or text."""

    column: str
    kind: str


class Place(NamedTuple):
    """The place of an item in its order."""

    value: datetime | str
    id: UUID


class Sort(NamedTuple):
    """An order of a listing, by its name there."""

    name: str
    descending: bool


class Listing(NamedTuple):
    """What can be listed.

    select: a SELECT with its FROM, whose columns hold `id` and those of the orders; table: whose they are, for where
    several tables have them. default: the order where none is asked for.
    """

    select: str
    table: str
    orders: Mapping[str, Order]
    default: Sort


class Rows(NamedTuple):
    """A page; end: the place that the next one begins behind, None where this is the last."""

    rows: list[Any]
    end: Place | None


async def select_page(
    database: Connection | Pool,
    listing: Listing,
    conditions: Sequence[str],
    arguments: Sequence[object],
    *,
    sort: Sort,
    after: Place | None,
    limit: int,
) -> Rows:
    """A page of a listing. conditions: SQL with the numbers of the arguments; the first has to name the account."""
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"limit {limit}: 1 to {MAX_PAGE} items to a page")
    order, table = listing.orders[sort.name], listing.table
    way, before = ("DESC", "<") if sort.descending else ("ASC", ">")
    narrowed, values = list(conditions), list(arguments)
    if after is not None:
        values += after
        places = f"(${len(values) - 1}::{order.kind}, ${len(values)}::uuid)"
        narrowed.append(f"({table}.{order.column}, {table}.id) {before} {places}")
    # A LIMIT that is written out is planned for; one that is an argument is taken for a tenth of the table.
    at_most = next(rows for rows in (26, 51, 101, MAX_PAGE + 1) if rows > limit)
    rows: list[Any] = await database.fetch(
        f"{listing.select} WHERE {' AND '.join(narrowed)}"
        f" ORDER BY {table}.{order.column} {way}, {table}.id {way} LIMIT {at_most}",
        *values,
    )
    if len(rows) <= limit:
        return Rows(rows, None)
    last = rows[limit - 1]
    return Rows(rows[:limit], Place(last[order.column], last["id"]))
