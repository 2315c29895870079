"""Queues and agents as the API shows them: how they are now, and how the queues did, by the visits in the Call rows.

What a figure means is defined in docs/metrics.md, version DEFINITIONS; a change there is one here, and a new version.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from trunkline.calls.queue_record import SHORT_S, TARGET_S, AgentStatus
from trunkline.store.pool import Pool
from trunkline.store.queue_sql import COUNTS
from trunkline.store.rows import Row

DEFINITIONS: Final = 1
STALE_S: Final = 10  # a PBX that no core has said to be seen for so long is not; the core says so every 3 s


class Figures(msgspec.Struct, rename="camel", frozen=True):
    """What became of the callers who came into a queue in a span of time."""

    offered: int = 0
    answered: int = 0
    abandoned: int = 0  # short ones not among them
    short_abandoned: int = 0
    timed_out: int = 0  # the queue gave them up, or had no agent left
    left: int = 0  # by a key, a transfer, or unseen
    waiting: int = 0  # still
    answered_within_target: int = 0
    service_level: float | None = None  # of 1; None: nobody to be answered
    asa_seconds: float | None = None  # the mean wait of the answered
    longest_wait_seconds: float | None = None  # of those who wait no more


class QueueSummary(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A queue. Where `connected` is false all of it but `today` is as it was at `as_of`."""

    id: UUID
    name: str
    pbx: str
    integration_id: UUID
    strategy: str | None
    connected: bool
    as_of: datetime | None
    waiting: int
    waiting_since: datetime | None  # of who has waited longest
    members: dict[str, int]  # how many in which state; PAUSED before all others
    today: Figures


class Caller(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Who waits."""

    call_id: UUID | None  # None: its row is not there yet
    channel_id: str
    position: int
    since: datetime
    from_: str | None = msgspec.field(name="from", default=None)
    caller_name: str | None = None


class Member(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """An agent's place in a queue."""

    interface: str
    extension: str
    name: str
    membership: str
    penalty: int
    paused: bool
    paused_reason: str | None
    paused_since: datetime | None
    in_call: bool
    calls_taken: int
    last_call_at: datetime | None
    logged_in_since: datetime | None
    status: AgentStatus
    status_since: datetime | None
    call_id: UUID | None


class Queue(QueueSummary, rename="camel", frozen=True, kw_only=True):
    """A queue with its people."""

    callers: list[Caller]
    agents: list[Member]


class AgentQueue(msgspec.Struct, rename="camel", frozen=True):
    """A queue of an agent."""

    name: str
    paused: bool
    paused_reason: str | None
    penalty: int
    calls_taken: int
    last_call_at: datetime | None


class Agent(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """An agent. Where `connected` is false he is as he was at `as_of`."""

    id: UUID
    extension: str
    name: str
    pbx: str
    integration_id: UUID
    connected: bool
    as_of: datetime | None
    status: AgentStatus
    status_since: datetime
    paused: bool  # in all of his queues
    logged_in_since: datetime | None
    queues: list[AgentQueue]
    call_id: UUID | None  # that he is on, or that rings at his phone


class QueueFigures(msgspec.Struct, rename="camel", frozen=True):
    """A queue's figures over a span of time."""

    queue: str
    pbx: str
    figures: Figures


class Span(msgspec.Struct, frozen=True):
    """From when to before when callers came, and what the figures are held against, in seconds."""

    since: datetime
    until: datetime
    target_s: float = TARGET_S
    short_s: float = SHORT_S


_STATE: Final = f"""coalesce(state.connected AND state.as_of > now() - interval '{STALE_S} s', false) AS connected,
    state.as_of"""
_SELECT_QUEUES: Final = f"""
SELECT queue.id, queue.name, queue.integration_id, integration.external_id AS pbx, queue.strategy, queue.waiting,
    {COUNTS} AS members, {_STATE}
FROM queue
JOIN integration ON integration.id = queue.integration_id
LEFT JOIN pbx_state AS state ON state.integration_id = queue.integration_id
WHERE queue.account_id = $1 AND ($2::uuid IS NULL OR queue.id = $2) AND ($3::text IS NULL OR queue.name = $3)
    AND ($4::text IS NULL OR integration.external_id = $4)
ORDER BY queue.name, integration.external_id
"""
_SELECT_MEMBERS: Final = """
SELECT member.interface, member.extension, member.name, member.membership, member.penalty, member.paused,
    member.paused_reason, member.paused_since, member.in_call, member.calls_taken, member.last_call_at,
    member.logged_in_since, agent.status, agent.status_since
FROM queue_member AS member
LEFT JOIN agent ON agent.integration_id = $2 AND agent.extension = member.extension
WHERE member.queue_id = $1
ORDER BY member.penalty, member.extension, member.interface
"""
_SELECT_CALLERS: Final = """
SELECT wanted.external_id, call.id, call.from_number, call.caller_name
FROM unnest($2::text[]) AS wanted (external_id)
CROSS JOIN LATERAL (
    SELECT id, from_number, caller_name FROM call
    WHERE call.integration_id = $1 AND call.external_id = wanted.external_id
    UNION ALL
    SELECT call.id, from_number, caller_name FROM call_alias JOIN call ON call.id = call_alias.call_id
    WHERE call_alias.integration_id = $1 AND call_alias.external_id = wanted.external_id
    LIMIT 1
) AS call
"""
_SELECT_AGENTS: Final = f"""
SELECT agent.id, agent.extension, agent.name, agent.integration_id, integration.external_id AS pbx, agent.status,
    agent.status_since, agent.paused, agent.logged_in_since, {_STATE}, (
        SELECT coalesce(jsonb_agg(jsonb_build_object('name', queue.name, 'paused', member.paused, 'pausedReason',
            member.paused_reason, 'penalty', member.penalty, 'callsTaken', member.calls_taken, 'lastCallAt',
            member.last_call_at) ORDER BY queue.name), '[]')
        FROM queue_member AS member JOIN queue ON queue.id = member.queue_id
        WHERE member.account_id = agent.account_id AND member.extension = agent.extension
            AND queue.integration_id = agent.integration_id
    ) AS queues
FROM agent
JOIN integration ON integration.id = agent.integration_id
LEFT JOIN pbx_state AS state ON state.integration_id = agent.integration_id
WHERE agent.account_id = $1 AND ($2::text IS NULL OR agent.extension = $2)
    AND ($3::text IS NULL OR integration.external_id = $3)
ORDER BY agent.extension, integration.external_id
"""
# Whose phones the live calls are at; of several calls at one phone that which it has answered, the newest.
_SELECT_ON_CALLS: Final = """
SELECT DISTINCT ON (leg.party) leg.party, call.id
FROM call JOIN call_leg AS leg ON leg.call_id = call.id
WHERE call.integration_id = $1 AND call.ended_at IS NULL AND leg.ended_at IS NULL AND leg.party IS NOT NULL
ORDER BY leg.party, leg.answered_at IS NULL, leg.started_at DESC
"""
# $2 from, $3 until, $4 the target, $5 what is short. A Call may have begun a while before it came into a queue.
_SELECT_FIGURES: Final = """
SELECT call.integration_id, call.pbx, visit.queue,
    count(*) AS offered,
    count(*) FILTER (WHERE outcome = 'ANSWERED') AS answered,
    count(*) FILTER (WHERE outcome = 'ABANDONED' AND waited.s >= $5) AS abandoned,
    count(*) FILTER (WHERE outcome = 'ABANDONED' AND waited.s < $5) AS short_abandoned,
    count(*) FILTER (WHERE outcome IN ('TIMEOUT', 'EMPTY')) AS timed_out,
    count(*) FILTER (WHERE outcome = 'LEFT' OR (outcome IS NULL AND call.ended_at IS NOT NULL)) AS left,
    count(*) FILTER (WHERE outcome IS NULL AND call.ended_at IS NULL) AS waiting,
    count(*) FILTER (WHERE outcome = 'ANSWERED' AND waited.s <= $4) AS answered_within_target,
    avg(waited.s) FILTER (WHERE outcome = 'ANSWERED') AS asa_seconds,
    max(waited.s) AS longest_wait_seconds
FROM call
CROSS JOIN LATERAL jsonb_to_recordset(call.queue_visits)
    AS visit (queue text, "joinedAt" timestamptz, "leftAt" timestamptz, outcome text)
CROSS JOIN LATERAL (SELECT extract(epoch FROM visit."leftAt" - visit."joinedAt")::float8 AS s) AS waited
WHERE call.account_id = $1 AND call.queue IS NOT NULL
    AND call.started_at >= $2::timestamptz - interval '1 day' AND call.started_at < $3
    AND visit."joinedAt" >= $2 AND visit."joinedAt" < $3
GROUP BY call.integration_id, call.pbx, visit.queue
ORDER BY visit.queue, call.pbx
"""

_COUNTED: Final = (
    "offered", "answered", "abandoned", "short_abandoned", "timed_out", "left", "waiting", "answered_within_target",
)  # fmt: skip


async def select_figures(pool: Pool, account_id: UUID, span: Span) -> dict[tuple[UUID | None, str], QueueFigures]:
    """The figures of every queue that somebody came into, by integration and name, in order of the name."""
    rows = await pool.fetch(_SELECT_FIGURES, account_id, span.since, span.until, span.target_s, span.short_s)
    return {
        (row["integration_id"], row["queue"]): QueueFigures(row["queue"], row["pbx"], _figures(row)) for row in rows
    }


def _figures(row: Row) -> Figures:
    counts: dict[str, int] = {name: row[name] for name in _COUNTED}
    expected = counts["offered"] - counts["short_abandoned"] - counts["waiting"]
    level = round(counts["answered_within_target"] / expected, 4) if expected else None
    return Figures(
        **counts,
        service_level=level,
        asa_seconds=_seconds(row["asa_seconds"]),
        longest_wait_seconds=_seconds(row["longest_wait_seconds"]),
    )


def _seconds(value: object) -> float | None:
    return round(value, 3) if isinstance(value, float) else None


class _Waiting(msgspec.Struct, rename="camel"):
    channel_id: str
    external_id: str
    position: int
    since: datetime


_read_waiting: Final = msgspec.json.Decoder(list[_Waiting]).decode
_read_counts: Final = msgspec.json.Decoder(dict[str, int]).decode
_read_queues: Final = msgspec.json.Decoder(list[AgentQueue]).decode


async def select_queues(
    pool: Pool,
    account_id: UUID,
    span: Span,
    *,
    id: UUID | None = None,
    name: str | None = None,
    pbx: str | None = None,
) -> list[QueueSummary]:
    """The queues, by name; some of them only where told. span: of `today`."""
    rows = await pool.fetch(_SELECT_QUEUES, account_id, id, name, pbx)
    if not rows:
        return []
    figures = await select_figures(pool, account_id, span)
    none = Figures()
    queues = []
    for row in rows:
        waiting = _read_waiting(row["waiting"])
        found = figures.get((row["integration_id"], row["name"]))
        queues.append(
            QueueSummary(
                id=row["id"],
                name=row["name"],
                pbx=row["pbx"],
                integration_id=row["integration_id"],
                strategy=row["strategy"],
                connected=row["connected"],
                as_of=row["as_of"],
                waiting=len(waiting),
                waiting_since=min((caller.since for caller in waiting), default=None),
                members=_read_counts(row["members"]),
                today=none if found is None else found.figures,
            )
        )
    return queues


async def select_people(pool: Pool, queue: QueueSummary) -> Queue:
    """A queue with who waits in it and who serves it."""
    waiting = _read_waiting(await pool.fetchval("SELECT waiting FROM queue WHERE id = $1", queue.id) or "[]")
    wanted = [caller.external_id for caller in waiting]
    calls = {row["external_id"]: row for row in await pool.fetch(_SELECT_CALLERS, queue.integration_id, wanted)}
    callers = []
    for one in waiting:
        call = calls.get(one.external_id)
        callers.append(
            Caller(
                call_id=None if call is None else call["id"],
                channel_id=one.channel_id,
                position=one.position,
                since=one.since,
                from_=None if call is None else call["from_number"],
                caller_name=None if call is None else call["caller_name"],
            )
        )
    on_calls = await _on_calls(pool, [queue.integration_id] if queue.connected else [])
    agents = [
        Member(
            **{**row, "status": _status(row["status"])},
            call_id=on_calls.get((queue.integration_id, row["extension"])),
        )
        for row in await pool.fetch(_SELECT_MEMBERS, queue.id, queue.integration_id)
    ]
    return Queue(
        **{field: getattr(queue, field) for field in QueueSummary.__struct_fields__}, callers=callers, agents=agents
    )


async def select_agents(
    pool: Pool, account_id: UUID, *, extension: str | None = None, pbx: str | None = None
) -> list[Agent]:
    """The agents, by extension; some of them only where told."""
    rows = await pool.fetch(_SELECT_AGENTS, account_id, extension, pbx)
    on_calls = await _on_calls(pool, sorted({row["integration_id"] for row in rows if row["connected"]}))
    return [
        Agent(
            **{**row, "status": _status(row["status"]), "queues": _read_queues(row["queues"])},
            call_id=on_calls.get((row["integration_id"], row["extension"])),
        )
        for row in rows
    ]


async def _on_calls(pool: Pool, integration_ids: Sequence[UUID]) -> dict[tuple[UUID, str], UUID]:
    """Who is on which call, by PBX and extension."""
    found = {}
    for integration_id in integration_ids:
        for row in await pool.fetch(_SELECT_ON_CALLS, integration_id):
            found[integration_id, row["party"]] = row["id"]
    return found


def _status(word: str | None) -> AgentStatus:
    return AgentStatus.UNKNOWN if word is None else AgentStatus(word.upper())
