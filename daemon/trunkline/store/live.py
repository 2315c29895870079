"""The Calls that the database believes to be alive: what a tracker adopts when the daemon starts."""

from itertools import groupby
from operator import itemgetter
from typing import Final

from trunkline.calls.record import CallRecord
from trunkline.store.integration import PBX_INTEGRATION
from trunkline.store.pool import Pool
from trunkline.store.rows import CALL_COLUMNS, LEG_COLUMNS, record_of_row

_SELECT_LIVE_CALLS: Final = f"""
SELECT {", ".join(f"call.{column}" for column in CALL_COLUMNS)},
    ARRAY (SELECT external_id FROM call_alias WHERE call_alias.call_id = call.id ORDER BY created_at, external_id)
        AS aliases
FROM call
JOIN integration ON integration.id = call.integration_id
JOIN account ON account.id = integration.account_id
WHERE account.name = $1 AND integration.integration_id = $2 AND integration.external_id = $3
    AND call.ended_at IS NULL AND call.external_id IS NOT NULL
ORDER BY call.started_at, call.external_id
"""

_SELECT_LEGS: Final = f"""
SELECT call_id, {", ".join(LEG_COLUMNS)} FROM call_leg WHERE call_id = ANY ($1::uuid[]) ORDER BY call_id, position
"""


async def select_live_calls(pool: Pool, account_name: str, pbx: str) -> list[CallRecord]:
    """The Calls of a PBX (its systemname, or HOST:PORT) that have not ended, oldest first."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch(_SELECT_LIVE_CALLS, account_name, PBX_INTEGRATION, pbx)
        legs = await connection.fetch(_SELECT_LEGS, [row["id"] for row in rows])
    of_call = {call_id: list(some) for call_id, some in groupby(legs, key=itemgetter("call_id"))}
    return [record_of_row(row, legs=of_call.get(row["id"], ()), aliases=row["aliases"]) for row in rows]
