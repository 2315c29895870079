"""Callers matched to leads: by any of their numbers, exactly and in E.164, within the account."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from trunkline.store.pool import Connection

# The oldest lead wins where several share a number (a household, a lead typed twice): the answer is the same for every
# call, whatever is edited meanwhile, and a duplicate that somebody adds never takes the calls over.
_SELECT_LEADS: Final = """
SELECT wanted.number, (
    SELECT found.id FROM (
        (SELECT lead.id, lead.created_at FROM lead
         WHERE lead.account_id = $1 AND lead.phone_e164 = wanted.number
         ORDER BY lead.created_at, lead.id LIMIT 1)
        UNION ALL
        (SELECT further.lead_id, further.lead_created_at FROM lead_phone AS further
         WHERE further.account_id = $1 AND further.e164 = wanted.number
         ORDER BY further.lead_created_at, further.lead_id LIMIT 1)
    ) AS found
    ORDER BY found.created_at, found.id
    LIMIT 1
) AS lead_id
FROM unnest($2::text[]) AS wanted (number)
"""


async def select_leads_by_number(connection: Connection, account_id: UUID, numbers: Sequence[str]) -> dict[str, UUID]:
    """The lead of each number in E.164 that has one."""
    rows = await connection.fetch(_SELECT_LEADS, account_id, numbers)
    return {row["number"]: row["lead_id"] for row in rows if row["lead_id"] is not None}
