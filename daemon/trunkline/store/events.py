"""The events table as its readers see it: one sequence an account, in the order of the commits, without a gap.

A reader keeps the `seq` of the last event it has handled and asks for what is after it; it never misses one and never
sees one twice, also while several writers commit. NOTIFY on CHANNEL ("ACCOUNT_ID LAST_SEQ") says when to ask.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from trunkline.store.pool import Connection, Pool

CHANNEL: Final = "trunkline_event"

_SELECT_EVENTS: Final = """
SELECT seq, type, call_id, lead_id, conversation_id, data, created_at
FROM event
WHERE account_id = $1 AND seq > $2
ORDER BY seq
LIMIT $3
"""


class StoredEvent(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One event. `data` holds the Call as it was then ("call"), and for call.merged also mergedId, mergedExternalId."""

    seq: int
    type: str
    call_id: UUID | None
    lead_id: UUID | None
    conversation_id: UUID | None
    data: dict[str, Any]
    created_at: datetime


async def select_events(database: Connection | Pool, account_id: UUID, after: int, limit: int) -> list[StoredEvent]:
    """At most `limit` events of an account with a seq above `after` (0: from the first), in order."""
    rows = await database.fetch(_SELECT_EVENTS, account_id, after, limit)
    return [StoredEvent(**{**row, "data": msgspec.json.decode(row["data"])}) for row in rows]
