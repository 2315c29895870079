"""The rows of integrations, their secrets (sealed: inbox/secrets.py) and what the core says of its links to PBXs.

Those of PBXs are the core's: it makes them, and finds its calls by them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError

from trunkline.store.conversations import Channel
from trunkline.store.integration import PBX_INTEGRATION
from trunkline.store.keyset import Listing, Order, Sort
from trunkline.store.pool import Connection, Pool
from trunkline.store.writer_sql import INSERT_INTEGRATIONS


class Integration(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What is connected: a PBX, a WhatsApp number, a Telegram bot."""

    id: UUID
    channel: Channel
    integration_id: str  # which program is at the other end: asterisk, whatsapp, telegram
    external_id: str  # its own name for itself: a PBX's systemname, a phone number's id, a bot's name
    name: str
    status: Literal["ACTIVE", "DISABLED"]
    settings: dict[str, Any]
    has_secret: bool
    secrets: list[str]  # the names of those it has; none is ever shown
    created_at: datetime


class PbxLink(NamedTuple):
    """How the link to a PBX stands."""

    up: bool
    detail: str
    heard_at: datetime | None
    reported_at: datetime
    silent_s: float  # since the core has last said so


class Report(NamedTuple):
    """What the core says of a link."""

    pbx: str
    up: bool
    detail: str
    heard_at: datetime | None


_COLUMNS: Final = """id, upper(channel) AS channel, integration_id, external_id, name, upper(status) AS status,
    settings, ARRAY(SELECT secret.name FROM integration_secret AS secret
          WHERE secret.integration_id = integration.id ORDER BY secret.name) AS secrets, created_at"""

INTEGRATIONS: Final = Listing(
    select=f"SELECT {_COLUMNS} FROM integration",
    table="integration",
    orders={"createdAt": Order("created_at", "timestamptz")},
    default=Sort("createdAt", descending=False),
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM integration WHERE account_id = $1 AND id = $2"
_INSERT: Final = """
INSERT INTO integration (account_id, channel, integration_id, external_id, name, settings)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id
"""
_UPDATE: Final = """
UPDATE integration SET external_id = $3, name = $4, status = $5, settings = $6 WHERE account_id = $1 AND id = $2
"""
_HAS_LIVE_CALLS: Final = "SELECT EXISTS (SELECT FROM call WHERE integration_id = $1 AND ended_at IS NULL)"
_IS_FOLLOWED: Final = """
SELECT EXISTS (
    SELECT FROM integration_link WHERE integration_id = $1 AND reported_at > now() - $2::float * interval '1 s'
)
"""
_STORE_SEALED: Final = """
INSERT INTO integration_secret (integration_id, name, account_id, sealed) VALUES ($1, $2, $3, $4)
ON CONFLICT (integration_id, name) DO UPDATE SET sealed = excluded.sealed, updated_at = now()
"""
_DELETE_SEALED: Final = "DELETE FROM integration_secret WHERE account_id = $1 AND integration_id = $2 AND name = $3"
_SELECT_SEALED: Final = "SELECT name, sealed FROM integration_secret WHERE account_id = $1 AND integration_id = $2"
_SELECT_LINK: Final = """
SELECT up, detail, heard_at, reported_at, extract(epoch FROM now() - reported_at)::float AS silent_s
FROM integration_link WHERE account_id = $1 AND integration_id = $2
"""
_REPORT: Final = """
INSERT INTO integration_link (integration_id, account_id, up, detail, heard_at, reported_at)
SELECT integration.id, integration.account_id, said.up, said.detail, said.heard_at, now()
FROM account
JOIN integration ON integration.account_id = account.id AND integration.integration_id = $2
JOIN unnest($3::text[], $4::boolean[], $5::text[], $6::timestamptz[]) AS said (pbx, up, detail, heard_at)
    ON said.pbx = integration.external_id
WHERE account.name = $1
ORDER BY integration.id
ON CONFLICT (integration_id) DO UPDATE SET
    up = excluded.up, detail = excluded.detail, reported_at = excluded.reported_at,
    heard_at = coalesce(excluded.heard_at, integration_link.heard_at)
"""

_encode: Final = msgspec.json.Encoder().encode


async def select_integration(database: Connection | Pool, account_id: UUID, integration_id: UUID) -> Integration | None:
    """An integration of an account."""
    row = await database.fetchrow(_SELECT, account_id, integration_id)
    return None if row is None else integration_of(row)


async def lock_integration(connection: Connection, account_id: UUID, integration_id: UUID) -> Integration | None:
    """An integration of an account, which nobody else changes until the commit; neither does its PBX get new calls."""
    row = await connection.fetchrow(f"{_SELECT} FOR UPDATE", account_id, integration_id)
    return None if row is None else integration_of(row)


async def insert_integration(
    connection: Connection, account_id: UUID, channel: str, program: str, external_id: str, name: str, settings: Any
) -> UUID | None:
    """Add an integration; None where the account has it already."""
    try:
        async with connection.transaction():
            added: UUID = await connection.fetchval(
                _INSERT, account_id, channel.lower(), program, external_id, name, _encode(settings).decode()
            )
            return added
    except UniqueViolationError:
        return None


async def update_integration(connection: Connection, account_id: UUID, changed: Integration) -> bool:
    """Store an integration that is locked as it is to be; False where the account has such a one already."""
    values = (changed.external_id, changed.name, changed.status.lower(), _encode(changed.settings).decode())
    try:
        async with connection.transaction():
            await connection.execute(_UPDATE, account_id, changed.id, *values)
    except UniqueViolationError:
        return False
    return True


async def delete_integration(
    connection: Connection, account_id: UUID, integration_id: UUID, *, followed_s: float
) -> Literal["live_calls", "followed"] | None:
    """Delete an integration that is locked; else what is against it: a core spoke of it in the last followed_s seconds.

    Its queues would go with it, and a core that runs tells only of what changes: they stayed away until its next start.
    """
    if await connection.fetchval(_HAS_LIVE_CALLS, integration_id):
        return "live_calls"
    if await connection.fetchval(_IS_FOLLOWED, integration_id, followed_s):
        return "followed"
    await connection.execute("DELETE FROM integration WHERE account_id = $1 AND id = $2", account_id, integration_id)
    return None


async def set_secrets(
    connection: Connection, account_id: UUID, integration_id: UUID, sealed: Mapping[str, bytes | None]
) -> None:
    """Store secrets by name; None removes one."""
    for name, value in sealed.items():
        if value is None:
            await connection.execute(_DELETE_SEALED, account_id, integration_id, name)
        else:
            await connection.execute(_STORE_SEALED, integration_id, name, account_id, value)


async def select_secrets(database: Connection | Pool, account_id: UUID, integration_id: UUID) -> dict[str, bytes]:
    """The secrets of an integration, sealed."""
    rows = await database.fetch(_SELECT_SEALED, account_id, integration_id)
    return {row["name"]: row["sealed"] for row in rows}


async def select_link(database: Connection | Pool, account_id: UUID, integration_id: UUID) -> PbxLink | None:
    """How the link to a PBX stood when the core last said so; None: it never has."""
    row: Any = await database.fetchrow(_SELECT_LINK, account_id, integration_id)
    return None if row is None else PbxLink(*row)


async def report_links(pool: Pool, account: str, reports: Sequence[Report]) -> None:
    """Say how the links to PBXs stand. Makes the integration of a PBX that never had a call."""
    if not reports:
        return
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(INSERT_INTEGRATIONS, account, PBX_INTEGRATION, [one.pbx for one in reports])
        await connection.execute(_REPORT, account, PBX_INTEGRATION, *map(list, zip(*reports, strict=True)))


def integration_of(row: Any) -> Integration:
    """The integration of a row."""
    told = {**row, "settings": msgspec.json.decode(row["settings"]), "has_secret": bool(row["secrets"])}
    return Integration(**{name: told[name] for name in Integration.__struct_fields__})
