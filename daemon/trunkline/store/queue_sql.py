"""The statements of queue_writer.py. Each takes all that has changed; a row that is as it was is not written."""

from typing import Final

SELECT_CONNECTED: Final = "SELECT connected FROM pbx_state WHERE integration_id = $1"

# Of a PBX that is not seen, `as_of` stays at when it last was.
UPSERT_STATE: Final = """
INSERT INTO pbx_state AS held (integration_id, account_id, connected) VALUES ($1, $2, $3)
ON CONFLICT (integration_id) DO UPDATE SET
    connected = excluded.connected, as_of = CASE WHEN excluded.connected THEN now() ELSE held.as_of END
"""

_REMOVED: Final = """RETURNING jsonb_build_object('queue', jsonb_build_object('id', queue.id, 'name', queue.name,
    'pbx', (SELECT external_id FROM integration WHERE integration.id = queue.integration_id))) AS data"""
DELETE_QUEUES: Final = f"DELETE FROM queue WHERE integration_id = $1 AND name = ANY ($2::text[]) {_REMOVED}"
DELETE_OTHER_QUEUES: Final = f"DELETE FROM queue WHERE integration_id = $1 AND name <> ALL ($2::text[]) {_REMOVED}"

_OF_THE_PBX: Final = "queue.id = member.queue_id AND queue.integration_id = $1"
DELETE_MEMBERS: Final = f"""
DELETE FROM queue_member AS member USING queue
WHERE {_OF_THE_PBX} AND (queue.name, member.interface) IN (SELECT * FROM unnest($2::text[], $3::text[]))
RETURNING member.queue_id, member.extension
"""
DELETE_OTHER_MEMBERS: Final = f"""
DELETE FROM queue_member AS member USING queue
WHERE {_OF_THE_PBX} AND (queue.name, member.interface) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))
RETURNING member.queue_id, member.extension
"""
LOG_OUT_OTHERS: Final = """
UPDATE agent SET status = 'logged_out', status_since = now(), paused = false, logged_in_since = NULL
WHERE integration_id = $1 AND extension <> ALL ($2::text[]) AND status <> 'logged_out'
RETURNING extension
"""

UPSERT_QUEUES: Final = """
INSERT INTO queue AS held (account_id, integration_id, name, strategy, waiting)
SELECT $1, $2, r.name, r.strategy, r.waiting
FROM json_to_recordset($3::json) AS r (name text, strategy text, waiting jsonb)
ORDER BY r.name
ON CONFLICT (integration_id, name) DO UPDATE SET
    strategy = coalesce(excluded.strategy, held.strategy), waiting = excluded.waiting, changed_at = now()
WHERE (held.strategy, held.waiting)
    IS DISTINCT FROM (coalesce(excluded.strategy, held.strategy), excluded.waiting)
RETURNING held.id
"""

_MEMBER: Final = (
    "extension", "name", "membership", "penalty", "paused", "paused_reason", "paused_since", "in_call", "calls_taken",
    "last_call_at", "logged_in_since",
)  # fmt: skip


def _of(row: str) -> str:
    return ", ".join(f"{row}.{column}" for column in _MEMBER)


UPSERT_MEMBERS: Final = f"""
INSERT INTO queue_member AS held (account_id, queue_id, interface, {", ".join(_MEMBER)})
SELECT $1, queue.id, r.interface, r.extension, r.name, r.membership, r.penalty, r.paused, r."pausedReason",
    r."pausedSince", r."inCall", r."callsTaken", r."lastCallAt", r."loggedInSince"
FROM json_to_recordset($3::json) AS r (
    queue text, interface text, extension text, name text, membership text, penalty integer, paused boolean,
    "pausedReason" text, "pausedSince" timestamptz, "inCall" boolean, "callsTaken" integer, "lastCallAt" timestamptz,
    "loggedInSince" timestamptz)
JOIN queue ON queue.integration_id = $2 AND queue.name = r.queue
ORDER BY queue.id, r.interface
ON CONFLICT (queue_id, interface) DO UPDATE SET {", ".join(f"{column} = excluded.{column}" for column in _MEMBER)}
WHERE ({_of("held")}) IS DISTINCT FROM ({_of("excluded")})
RETURNING held.queue_id, held.extension
"""


# Whose status is as it was has had it since then, whatever a core that has just begun believes.
UPSERT_AGENTS: Final = """
INSERT INTO agent AS held (account_id, integration_id, extension, name, status, status_since, paused, logged_in_since)
SELECT $1, $2, r.extension, r.name, lower(r.status), r."statusSince", r.paused, r."loggedInSince"
FROM json_to_recordset($3::json) AS r (
    extension text, name text, status text, "statusSince" timestamptz, paused boolean, "loggedInSince" timestamptz)
ORDER BY r.extension
ON CONFLICT (integration_id, extension) DO UPDATE SET
    name = coalesce(nullif(excluded.name, ''), held.name), status = excluded.status,
    status_since = CASE WHEN held.status = excluded.status THEN held.status_since ELSE excluded.status_since END,
    paused = excluded.paused, logged_in_since = excluded.logged_in_since
WHERE (held.name, held.status, held.paused, held.logged_in_since) IS DISTINCT FROM (
    coalesce(nullif(excluded.name, ''), held.name), excluded.status, excluded.paused, excluded.logged_in_since)
RETURNING held.extension
"""

# How many of a queue's members are in which state; those that pause are counted as PAUSED, whatever their phones do.
COUNTS: Final = """(
    SELECT coalesce(jsonb_object_agg(counted.status, counted.n), '{}')
    FROM (
        SELECT CASE WHEN member.paused THEN 'PAUSED' ELSE upper(agent.status) END AS status, count(*) AS n
        FROM queue_member AS member
        JOIN agent ON agent.integration_id = queue.integration_id AND agent.extension = member.extension
        WHERE member.queue_id = queue.id
        GROUP BY 1
    ) AS counted
)"""

SELECT_QUEUES_TOLD: Final = f"""
SELECT jsonb_build_object('queue', jsonb_build_object(
    'id', queue.id, 'name', queue.name, 'pbx', integration.external_id, 'strategy', queue.strategy,
    'waiting', jsonb_array_length(queue.waiting), 'waitingSince', (
        SELECT min(caller->>'since') FROM jsonb_array_elements(queue.waiting) AS caller),
    'members', {COUNTS})) AS data
FROM queue JOIN integration ON integration.id = queue.integration_id
WHERE queue.id = ANY ($1::uuid[])
ORDER BY queue.name
"""

_SINCE: Final = """to_char(agent.status_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

SELECT_AGENTS_TOLD: Final = f"""
SELECT jsonb_build_object('agent', jsonb_build_object(
    'id', agent.id, 'extension', agent.extension, 'name', agent.name, 'pbx', integration.external_id,
    'status', upper(agent.status), 'statusSince', {_SINCE}, 'paused', agent.paused,
    'queues', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('name', queue.name, 'paused', member.paused,
            'pausedReason', member.paused_reason) ORDER BY queue.name), '[]')
        FROM queue_member AS member JOIN queue ON queue.id = member.queue_id
        WHERE member.account_id = agent.account_id AND member.extension = agent.extension
            AND queue.integration_id = agent.integration_id))) AS data
FROM agent JOIN integration ON integration.id = agent.integration_id
WHERE agent.integration_id = $1 AND agent.extension = ANY ($2::text[])
ORDER BY agent.extension
"""

# $1 the account, $2 how many events, $3 their types, $4 their data. As in writer_sql.INSERT_EVENTS, the commit is next.
INSERT_EVENTS: Final = """
WITH cursor AS (
    INSERT INTO event_cursor AS held (account_id, last_seq) VALUES ($1, $2)
    ON CONFLICT (account_id) DO UPDATE SET last_seq = held.last_seq + excluded.last_seq
    RETURNING last_seq
), written AS (
    INSERT INTO event (account_id, seq, type, data)
    SELECT $1, cursor.last_seq - $2 + told.n, told.type, told.data::jsonb
    FROM cursor CROSS JOIN unnest($3::text[], $4::text[]) WITH ORDINALITY AS told (type, data, n)
)
SELECT pg_notify('trunkline_event', $1::text || ' ' || last_seq::text) FROM cursor
"""
