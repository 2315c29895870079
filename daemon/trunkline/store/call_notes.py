"""What people say of calls: notes, tags, what came of it, whose it is. All but the last is beside the call's own row.

The writer of calls never writes here, but where a call is folded into another one, whose note it then becomes.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from trunkline.store.events import NewEvent
from trunkline.store.leads import giving_way
from trunkline.store.pool import Connection
from trunkline.store.queries import select_call
from trunkline.store.rows import Call
from trunkline.store.writer_sql import LEAD_CARD, SUMMARY

# KEY SHARE: it is not folded away meanwhile, and the writer goes on with it.
_LOCK_CALL: Final = """
SELECT id FROM call
WHERE account_id = $1
  AND id = (SELECT coalesce((SELECT call_id FROM call_alias WHERE account_id = $1 AND folded_id = $2 LIMIT 1), $2))
FOR KEY SHARE
"""
_INSERT: Final = "INSERT INTO call_note (account_id, call_id) VALUES ($1, $2) ON CONFLICT (call_id) DO NOTHING"
_LOCK: Final = "SELECT FROM call_note WHERE account_id = $1 AND call_id = $2 FOR UPDATE"
_UPDATE: Final = """
UPDATE call_note SET notes = $3, tags = $4, disposition = $5, lead_chosen = lead_chosen OR $6, updated_at = now()
WHERE account_id = $1 AND call_id = $2
"""
_SET_LEAD: Final = "UPDATE call SET lead_id = $3 WHERE account_id = $1 AND id = $2"
# One that was merged is the one that it was merged into; neither goes before the commit.
_SELECT_LEAD: Final = """
SELECT id FROM lead
WHERE account_id = $1
  AND id = (SELECT coalesce((SELECT lead_id FROM lead_alias WHERE account_id = $1 AND folded_id = $2), $2))
FOR KEY SHARE
"""
_EVENT: Final = f"""
SELECT call.lead_id, call.conversation_id, jsonb_build_object(
    'call', {SUMMARY} || (SELECT jsonb_build_object(
        'notes', note.notes, 'tags', note.tags, 'disposition', note.disposition)
        FROM call_note AS note WHERE note.call_id = call.id AND note.account_id = call.account_id),
    'lead', {LEAD_CARD})::text AS data
FROM call WHERE call.account_id = $1 AND call.id = $2
"""


async def lock_call(connection: Connection, account_id: UUID, call_id: UUID) -> Call | None:
    """A call, whose note is locked until the transaction's end; that of one it was folded into. None: there is none."""
    found: UUID | None = None
    for _ in range(2):  # one that was folded away just now is another one at the next look
        found = found or await connection.fetchval(_LOCK_CALL, account_id, call_id)
    if found is None:
        return None
    await connection.execute(_INSERT, account_id, found)
    await connection.fetch(_LOCK, account_id, found)
    return await select_call(connection, account_id, found)


async def select_chosen_lead(connection: Connection, account_id: UUID, lead_id: UUID) -> UUID | None:
    """The lead that a call is to be given; None: the account has none of this id."""
    found: UUID | None = await connection.fetchval(_SELECT_LEAD, account_id, lead_id)
    return found


async def update_note(
    connection: Connection,
    account_id: UUID,
    call_id: UUID,
    *,
    notes: str,
    tags: Sequence[str],
    disposition: str | None,
    lead: tuple[UUID | None] | None,
) -> NewEvent:
    """Change what is said of a call that is locked; the event that tells of it. lead: whose it is; None: as before."""
    await connection.execute(_UPDATE, account_id, call_id, notes, list(tags), disposition, lead is not None)
    if lead is not None:
        lead_id = lead[0]

        async def set_lead() -> None:
            await connection.execute(_SET_LEAD, account_id, call_id, lead_id)

        await giving_way(connection, set_lead)
    row = await connection.fetchrow(_EVENT, account_id, call_id)
    assert row is not None  # noqa: S101  # it is locked
    return NewEvent("call.updated", row["data"].encode(), call_id, row["lead_id"], row["conversation_id"])
