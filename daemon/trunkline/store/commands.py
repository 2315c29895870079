"""Commands as the API sees them: asked once for each key, within the account's limits, and waited for.

A row is the whole of it: the API writes it and says so (NOTIFY on ASKED), the core that owns the PBX takes it
(command_queue.py), carries it out and says what became of it (DONE). Neither knows the other. What is not begun by
`not_after`, by the database's clock, is never begun.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from trunkline.store.audit import By
from trunkline.store.integration import PBX_INTEGRATION
from trunkline.store.pool import Connection, Pool

ASKED: Final = "trunkline_command"  # payload: the account's id
DONE: Final = "trunkline_command_done"  # payload: "ACCOUNT_ID COMMAND_ID"
BEGIN_WITHIN_S: Final = 4.0
KEY_KEPT: Final = "24 hours"
_LOCK: Final = 0x636D64  # of the advisory locks, "cmd": an account's commands are asked one after the other


class Kind(StrEnum):
    """What can be commanded; lowercase in the database."""

    DIAL = "DIAL"
    HANGUP = "HANGUP"
    HOLD = "HOLD"
    UNHOLD = "UNHOLD"
    TRANSFER = "TRANSFER"
    PARK = "PARK"
    RECORD_PAUSE = "RECORD_PAUSE"
    RECORD_RESUME = "RECORD_RESUME"
    SUPERVISE = "SUPERVISE"
    AGENT_PAUSE = "AGENT_PAUSE"
    AGENT_UNPAUSE = "AGENT_UNPAUSE"
    AGENT_LOGIN = "AGENT_LOGIN"
    AGENT_LOGOUT = "AGENT_LOGOUT"


class Arguments(msgspec.Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What a command is about; each kind reads its own. Whatever it holds, it comes from a client."""

    call: str | None = None  # the Call's externalId
    extension: str | None = None  # whose phone: of the caller, of the party that transfers, of the agent
    to: str | None = None  # an extension or an E.164 number
    outside: bool = False  # `to` leads to the outside, and costs money
    only: str | None = None  # an agent's own extension: the Call has to be his
    mode: str | None = None
    queue: str | None = None
    reason: str | None = None
    penalty: int | None = None


class Limits(NamedTuple):
    """How many calls to the outside an account may order."""

    per_second: float = 1.0
    at_once: int = 10
    per_day: int = 500


class Asked(NamedTuple):
    """A command that a client asks for. request_hash: of all that makes it this one, its asker included."""

    integration_id: UUID
    kind: Kind
    arguments: Arguments
    call_id: UUID | None
    key: str
    request_hash: bytes


class Command(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A command, and what became of it.

    state: PENDING, CLAIMED (the PBX is at it), DONE, FAILED, or UNKNOWN: whether the PBX did it nobody can say.
    """

    id: UUID
    kind: Kind
    state: Literal["PENDING", "CLAIMED", "DONE", "FAILED", "UNKNOWN"]
    call_id: UUID | None  # of a dialled call once it is a row
    external_id: str | None  # the Call's, which it will have from its first event on
    code: str | None  # why it failed, or is not known
    detail: str | None
    result: dict[str, Any] | None
    created_at: datetime
    claimed_at: datetime | None
    finished_at: datetime | None
    not_after: datetime  # it is not begun later

    @property
    def over(self) -> bool:
        """Whether it will stay as it is."""
        return self.state not in ("PENDING", "CLAIMED")


class KeyReused(NamedTuple):
    """The key came before, with another request."""


class OverLimit(NamedTuple):
    """The account has ordered as many calls as it may. what: the limit's name."""

    what: Literal["per_second", "at_once", "per_day"]
    wait_s: float


def dialled_id(command_id: UUID) -> str:
    """The Uniqueid, and so the Call's externalId, that the channel of a dialled call gets."""
    return f"trunkline-{command_id.hex}"


_EXTERNAL_ID: Final = """
    CASE WHEN command.kind = 'dial' THEN 'trunkline-' || replace(command.id::text, '-', '')
        ELSE command.arguments ->> 'call' END"""

# The Call of a dialled one is found by the id that its channel was given; that of one which was folded, by its alias.
_CALL_ID: Final = f"""
    coalesce(command.call_id, (
        SELECT call.id FROM call
        WHERE call.integration_id = command.integration_id AND call.external_id = {_EXTERNAL_ID}
    ), (
        SELECT call_alias.call_id FROM call_alias
        WHERE call_alias.integration_id = command.integration_id AND call_alias.external_id = {_EXTERNAL_ID}
    ))"""

_COLUMNS: Final = f"""
    command.id, upper(command.kind) AS kind, upper(command.state) AS state, command.code, command.detail,
    command.result, command.created_at, command.claimed_at, command.finished_at, command.not_after,
    {_CALL_ID} AS call_id, {_EXTERNAL_ID} AS external_id
"""

_SELECT: Final = f"SELECT {_COLUMNS} FROM command WHERE account_id = $1 AND id = $2"

_SELECT_ASKER: Final = "SELECT actor FROM command WHERE account_id = $1 AND id = $2"

# What was surely never begun has used up no key: the client was told to try again.
_FREE_KEY: Final = f"""
UPDATE command SET idempotency_key = NULL
WHERE account_id = $1 AND idempotency_key = $2
    AND (created_at < now() - interval '{KEY_KEPT}'
        OR state = 'failed' AND code IN ('pbx_away', 'command_expired', 'control_not_configured'))
"""

_SELECT_BY_KEY: Final = f"""
SELECT request_hash, {_COLUMNS} FROM command WHERE account_id = $1 AND idempotency_key = $2
"""

# Of those that lead outside: in the last second (or as many as the rate makes of one), now, and in the last day.
# A Call that was transferred outside twice leads there once; one whose transfer failed does not.
_COUNT: Final = f"""
SELECT count(*) FILTER (WHERE created_at > now() - make_interval(secs => $2)) AS lately,
    extract(epoch FROM min(created_at) FILTER (WHERE created_at > now() - make_interval(secs => $2)))::float8
        + $2 - extract(epoch FROM now())::float8 AS lately_wait_s,
    count(*) AS today,
    extract(epoch FROM min(created_at))::float8 + 86400 - extract(epoch FROM now())::float8 AS today_wait_s,
    count(*) FILTER (WHERE state IN ('pending', 'claimed')) + count(DISTINCT (kind, live.id)) FILTER (
        WHERE live.id IS NOT NULL) AS live
FROM command LEFT JOIN LATERAL (
    SELECT call.id FROM call
    WHERE call.account_id = command.account_id AND call.ended_at IS NULL AND call.id = {_CALL_ID}
) AS live ON state IN ('done', 'unknown') OR state = 'failed' AND kind = 'dial'
WHERE account_id = $1 AND created_at > now() - interval '1 day' AND arguments ->> 'outside' = 'true'
    AND (state <> 'failed' OR code NOT IN ('pbx_away', 'command_expired', 'control_not_configured'))
"""

_INSERT: Final = f"""
INSERT INTO command (account_id, integration_id, kind, arguments, call_id, idempotency_key, request_hash, actor,
    address, request_id, not_after)
VALUES ($1, $2, lower($3), $4::jsonb, $5, $6, $7, $8, $9, $10, clock_timestamp() + interval '{BEGIN_WITHIN_S} s')
RETURNING {_COLUMNS}, pg_notify('{ASKED}', $1::uuid::text)
"""


def ending(update: str) -> str:
    """The statement that ends commands by `update`, tells the audit of each, once, and those who wait."""
    return f"""
WITH ended AS ({update} RETURNING *), audited AS (
    INSERT INTO audit (account_id, actor, action, subject, address, request_id, detail)
    SELECT account_id, actor, 'command.' || kind, 'command:' || id, address, request_id,
        state || coalesce(': ' || code, '')
    FROM ended
)
SELECT count(pg_notify('{DONE}', account_id || ' ' || id)) FROM ended
"""


def expiring(which: str) -> str:
    """The statement that ends those of `which` that nobody took in time, or whose core is lost. Whoever comes first."""
    return ending(f"""
    UPDATE command SET finished_at = clock_timestamp(),
        state = CASE state WHEN 'pending' THEN 'failed' ELSE 'unknown' END,
        code = CASE state WHEN 'pending' THEN 'command_expired' ELSE 'core_lost' END
    WHERE {which}
        AND (state = 'pending' AND not_after <= clock_timestamp()
            OR state = 'claimed' AND lease_until <= clock_timestamp())
""")


_EXPIRE: Final = expiring("account_id = $1 AND id = $2")

_SELECT_PBXS: Final = """
SELECT id, external_id FROM integration WHERE account_id = $1 AND integration_id = $2 AND status = 'active'
ORDER BY external_id LIMIT 1000
"""

_SELECT_PBX_OF_CALL: Final = "SELECT integration_id FROM call WHERE account_id = $1 AND id = $2"


async def select_pbxs(database: Connection | Pool, account_id: UUID) -> dict[str, UUID]:
    """The account's PBXs: their names, and their rows of `integration`."""
    rows = await database.fetch(_SELECT_PBXS, account_id, PBX_INTEGRATION)
    return {row["external_id"]: row["id"] for row in rows}


async def select_pbx_of_call(database: Connection | Pool, account_id: UUID, call_id: UUID) -> UUID | None:
    """Which PBX a call is on; None: on none of ours."""
    found: UUID | None = await database.fetchval(_SELECT_PBX_OF_CALL, account_id, call_id)
    return found


async def select_by_key(
    database: Connection | Pool, account_id: UUID, key: str, request_hash: bytes
) -> Command | KeyReused | None:
    """The command that this key was sent with; None: it may be sent."""
    await database.execute(_FREE_KEY, account_id, key)
    row: Any = await database.fetchrow(_SELECT_BY_KEY, account_id, key)
    if row is None:
        return None
    return _command(row) if row["request_hash"] == request_hash else KeyReused()


async def ask(pool: Pool, account_id: UUID, asked: Asked, by: By, limits: Limits) -> Command | KeyReused | OverLimit:
    """Have a command carried out; the one that is there already where its key came before with the same request."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK, str(account_id))
        if (known := await select_by_key(connection, account_id, asked.key, asked.request_hash)) is not None:
            return known
        if asked.arguments.outside and (over := await _over_limit(connection, account_id, limits)) is not None:
            return over
        row: Any = await connection.fetchrow(
            _INSERT,
            account_id,
            asked.integration_id,
            asked.kind,
            msgspec.json.encode(asked.arguments).decode(),
            asked.call_id,
            asked.key,
            asked.request_hash,
            by.actor,
            by.address,
            by.request_id,
        )
        return _command(row)


async def _over_limit(connection: Connection, account_id: UUID, limits: Limits) -> OverLimit | None:
    window_s = max(1.0, 1.0 / limits.per_second)
    row: Any = await connection.fetchrow(_COUNT, account_id, window_s)
    if row["today"] >= limits.per_day:
        return OverLimit("per_day", row["today_wait_s"] or 1.0)
    if row["live"] >= limits.at_once:
        return OverLimit("at_once", 5.0)
    if row["lately"] >= max(1.0, limits.per_second):
        return OverLimit("per_second", row["lately_wait_s"])
    return None


async def select_command(database: Connection | Pool, account_id: UUID, command_id: UUID) -> Command | None:
    """A command as it is now; one whose time is over, with nobody to say so, is over. None: the account has no such."""
    await database.execute(_EXPIRE, account_id, command_id)
    row: Any = await database.fetchrow(_SELECT, account_id, command_id)
    return None if row is None else _command(row)


async def select_asker(database: Connection | Pool, account_id: UUID, command_id: UUID) -> str | None:
    """Who asked for a command, as the audit has it; None: the account has no such."""
    found: str | None = await database.fetchval(_SELECT_ASKER, account_id, command_id)
    return found


def _command(row: Any) -> Command:
    found = {name: row[name] for name in Command.__struct_fields__}
    if found["result"] is not None:
        found["result"] = msgspec.json.decode(found["result"])
    return Command(**{**found, "kind": Kind(found["kind"])})
