"""`GET /api/v1/audit`: who changed users and keys, who logged in."""

from datetime import datetime
from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta

from trunkline.api.contract import QUERY, Parameter
from trunkline.api.listing import Narrowed, list_page
from trunkline.api.parameters import read_time
from trunkline.api.problem import bad_parameter
from trunkline.store.audit import AUDIT, AuditEntry

_LONGEST: Final = 200
_Text = Annotated[str, Meta(min_length=1, max_length=_LONGEST)]

AUDIT_FILTERS: Final = (
    Parameter(name="actor", about="What this one did: user:ID, api_key:ID, cli:NAME, loopback, nobody.", type=_Text),
    Parameter(name="action", about="Only this: user.created, login.tried, session.opened, …", type=_Text),
    Parameter(name="subject", about="What was done to this: user:ID, api_key:ID.", type=_Text),
    Parameter(name="since", about="Done at or after; a date alone is midnight UTC.", type=datetime),
    Parameter(name="until", about="Done before.", type=datetime),
)


async def list_audit(request: web.Request) -> web.Response:
    """Who changed what, the newest first."""
    asked = request[QUERY]
    conditions: list[str] = []
    arguments: list[object] = []
    for name in ("actor", "action", "subject"):
        if name in asked:
            text = asked[name][0]
            if len(text) > _LONGEST:
                raise bad_parameter(name, f"is longer than {_LONGEST} characters.")
            arguments.append(text)
            conditions.append(f"audit.{name} = ${len(arguments) + 1}")
    since, until = read_time("since", asked), read_time("until", asked)
    if since and until and since >= until:
        raise bad_parameter("until", "is not after since; what was done from since on and before until is listed.")
    for at, way in ((since, ">="), (until, "<")):
        if at is not None:
            arguments.append(at)
            conditions.append(f"audit.at {way} ${len(arguments) + 1}::timestamptz")
    narrowed = Narrowed(tuple(conditions), tuple(arguments), [str(one) for one in (*conditions, *arguments)])
    return await list_page(request, AUDIT, narrowed, lambda row: AuditEntry(**row))
