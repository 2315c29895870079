"""Lists of a resource, declared: which order, how many, from where on, and the page as JSON.

A new list is a `store.keyset.Listing` and its filters; `sort`, `limit` and `cursor` are read here for all of them.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from aiohttp import web
from msgspec import Meta

from trunkline.api import cursor
from trunkline.api.contract import QUERY, Parameter
from trunkline.api.parameters import DEFAULT_LIMIT, read_limit, shortened
from trunkline.api.problem import bad_parameter
from trunkline.api.state import STATE, json_response
from trunkline.store.keyset import MAX_PAGE, Listing, Sort, select_page

_encode: Final = msgspec.json.Encoder().encode


class Narrowed(NamedTuple):
    """What a list is narrowed to.

    conditions: SQL with the arguments' numbers, from $2 on; $1 is the account. asked: what the client asked, for the
    cursor to be held to.
    """

    conditions: tuple[str, ...] = ()
    arguments: tuple[object, ...] = ()
    asked: object = None


def listing_parameters(listing: Listing) -> tuple[Parameter, ...]:
    """The query parameters that a list has beside its filters."""
    names = [sign + name for name in listing.orders for sign in ("", "-")]
    default = ("-" if listing.default.descending else "") + listing.default.name
    sorts: Any = Literal.__getitem__(tuple(names))
    return (
        Parameter(name="sort", about=f"The order; - before it: downwards. {default} unless told.", type=sorts),
        Parameter(
            name="limit",
            about=f"How many to a page, {DEFAULT_LIMIT} unless told.",
            type=Annotated[int, Meta(ge=1, le=MAX_PAGE)],
        ),
        Parameter(name="cursor", about="nextCursor of the page before, with the same filters and the same sort."),
    )


async def list_page(
    request: web.Request, listing: Listing, narrowed: Narrowed, item: Callable[[Any], object]
) -> web.Response:
    """The page that a request asks for: {"items": [...], "nextCursor": text or null}. item: the resource of a row.

    Raises Problem.
    """
    state, asked = request.app[STATE], request[QUERY]
    account_id = await state.account_id()
    sort = read_sort(asked, listing)
    narrow = (listing.table, sort.name, sort.descending, narrowed.asked)
    after = None
    if "cursor" in asked:
        after = cursor.read_place(account_id, narrow, asked["cursor"][0], listing.orders[sort.name].kind)
    page = await select_page(
        state.pool,
        listing,
        (f"{listing.table}.account_id = $1", *narrowed.conditions),
        (account_id, *narrowed.arguments),
        sort=sort,
        after=after,
        limit=read_limit(asked, DEFAULT_LIMIT, MAX_PAGE),
    )
    following = None if page.end is None else cursor.write_place(account_id, narrow, page.end)
    return json_response(request, _encode({"items": [item(row) for row in page.rows], "nextCursor": following}))


def read_sort(found: dict[str, list[str]], listing: Listing) -> Sort:
    """The order that is asked for. Raises Problem."""
    if "sort" not in found:
        return listing.default
    text = found["sort"][0]
    name = text.removeprefix("-")
    if name not in listing.orders:
        allowed = [sign + name for name in listing.orders for sign in ("", "-")]
        detail = f"{shortened(text)!r} is not allowed; allowed: {', '.join(allowed)}."
        raise bad_parameter("sort", detail, allowed=allowed)
    return Sort(name, text != name)
