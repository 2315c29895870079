"""The statements of the writer. Each takes a whole batch; none is run once per row.

Calls go in as the JSON that the API shows (`record.encode`), unpacked by PostgreSQL: one encoding of the batch on our
side, where the interpreter is the bottleneck, instead of forty arrays.
"""

from typing import Final

from trunkline.store.change import LONGEST_KEY

# Text in an index is cut where an index must end; all other text is kept whole.
_INDEXED: Final = f"left(r.{{}}, {LONGEST_KEY})"
_PLAIN: Final = "r.{}"
_LOWER: Final = "lower(r.{})"
_TEXTS: Final = "coalesce(r.{}, '{{}}')"
_LIST: Final = "coalesce(r.{}, '[]')"

# (column, key of the JSON, type, expression): what a write replaces.
_REPLACED: Final = (
    ("pbx", "pbx", "text", _PLAIN),
    ("channel_id", "channelId", "text", _PLAIN),
    ("direction", "direction", "text", _LOWER),
    ("status", "status", "text", _LOWER),
    ("from_number", "from", "text", _INDEXED),
    ("to_number", "to", "text", _INDEXED),
    ("phone_number", "phoneNumber", "text", _INDEXED),
    ("from_e164", "fromE164", "text", _INDEXED),
    ("to_e164", "toE164", "text", _INDEXED),
    ("from_private", "fromPrivate", "boolean", _PLAIN),
    ("caller_name", "callerName", "text", _PLAIN),
    ("started_at", "startedAt", "timestamptz", _PLAIN),
    ("answered_at", "answeredAt", "timestamptz", _PLAIN),
    ("ended_at", "endedAt", "timestamptz", _PLAIN),
    ("duration", "duration", "integer", _PLAIN),
    ("wait_seconds", "waitSeconds", "integer", _PLAIN),
    ("talk_seconds", "talkSeconds", "integer", _PLAIN),
    ("hold_seconds", "holdSeconds", "integer", _PLAIN),
    ("end_reason", "endReason", "text", _LOWER),
    ("ended_by", "endedBy", "text", _LOWER),
    ("answered_by", "answeredBy", "text", _PLAIN),
    ("last_party", "lastParty", "text", _PLAIN),
    ("rang", "rang", "text[]", _TEXTS),
    ("queue", "queue", "text", _PLAIN),
    ("queue_wait_seconds", "queueWaitSeconds", "integer", _PLAIN),
    ("queue_position", "queuePosition", "integer", _PLAIN),
    ("transfers", "transfers", "jsonb", _LIST),
    ("holds", "holds", "jsonb", _LIST),
    ("parked", "parked", "jsonb", _LIST),
    ("conference", "conference", "text", _PLAIN),
    ("participants", "participants", "text[]", _TEXTS),
    ("digits", "digits", "text", _PLAIN),
    ("diverted_from", "divertedFrom", "text", _PLAIN),
    ("forwarded_from", "forwardedFrom", "text", _PLAIN),
    ("recordings", "recordings", "jsonb", _LIST),
    ("queue_visits", "queueVisits", "jsonb", _LIST),
    ("quality", "quality", "text", _LOWER),
    ("revision", "revision", "integer", _PLAIN),
)
_LEG: Final = (
    ("endpoint", "endpoint", "text", "r.{}"),
    ("party", "party", "text", "r.{}"),
    ("role", "role", "text", "lower(r.{})"),
    ("started_at", "startedAt", "timestamptz", "r.{}"),
    ("answered_at", "answeredAt", "timestamptz", "r.{}"),
    ("ended_at", "endedAt", "timestamptz", "r.{}"),
    ("dial_status", "dialStatus", "text", "r.{}"),
    ("hangup_cause", "hangupCause", "integer", "r.{}"),
    ("end_reason", "endReason", "text", "lower(r.{})"),
)


def _names(columns: tuple[tuple[str, str, str, str], ...]) -> str:
    return ", ".join(name for name, _, _, _ in columns)


def _keys(columns: tuple[tuple[str, str, str, str], ...]) -> str:
    return ", ".join(f'"{key}" {kind}' for _, key, kind, _ in columns)


def _values(columns: tuple[tuple[str, str, str, str], ...]) -> str:
    return ", ".join(expression.format(f'"{key}"') for _, key, _, expression in columns)


def _set(columns: tuple[tuple[str, str, str, str], ...]) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name, _, _, _ in columns)


def _quoted(columns: tuple[tuple[str, str, str, str], ...]) -> str:
    return ", ".join(f'"{key}"' for _, key, _, _ in columns)


def _of(row: str, columns: tuple[tuple[str, str, str, str], ...]) -> str:
    return ", ".join(f"{row}.{name}" for name, _, _, _ in columns)


INSERT_ACCOUNT: Final = "INSERT INTO account (name) VALUES ($1) ON CONFLICT (name) DO NOTHING"

INSERT_INTEGRATIONS: Final = """
INSERT INTO integration (account_id, channel, integration_id, external_id, name)
SELECT account.id, 'telephony', $2, pbx.name, pbx.name
FROM account, unnest($3::text[]) AS pbx (name)
WHERE account.name = $1
ORDER BY pbx.name
ON CONFLICT (account_id, integration_id, external_id) DO NOTHING
"""

# The lock makes two writers of one PBX take turns, so what is read after it is what the write will meet.
LOCK_INTEGRATIONS: Final = """
SELECT integration.id, integration.account_id, integration.external_id AS pbx
FROM integration JOIN account ON account.id = integration.account_id
WHERE account.name = $1 AND integration.integration_id = $2 AND integration.external_id = ANY ($3::text[])
ORDER BY integration.id
FOR NO KEY UPDATE OF integration
"""

# LATERAL with LIMIT is one lookup a key, whatever the planner believes of the sizes of the tables: a join that was
# planned when they were small reads all of them when they are not. So it is below.
SELECT_STORED: Final = """
SELECT wanted.integration_id, wanted.external_id, alias.call_id AS folded_into, held.*
FROM unnest($1::uuid[], $2::text[]) AS wanted (integration_id, external_id)
LEFT JOIN LATERAL (
    SELECT id, revision, recording_id, direction, from_number, to_number, from_private, from_e164, to_e164
    FROM call
    WHERE call.external_id = wanted.external_id AND call.integration_id = wanted.integration_id
    LIMIT 1
) AS held ON true
LEFT JOIN LATERAL (
    SELECT call_id
    FROM call_alias
    WHERE call_alias.external_id = wanted.external_id AND call_alias.integration_id = wanted.integration_id
    LIMIT 1
) AS alias ON true
WHERE held.id IS NOT NULL OR alias.call_id IS NOT NULL
"""

# $1 the records, $2 call ids, $3 integration ids, $4 lead ids, $5 conversation ids, $6 the account.
# Links are only ever filled in: what is there, a human may have set.
UPSERT_CALLS: Final = f"""
INSERT INTO call AS held (
    id, account_id, integration_id, external_id, lead_id, conversation_id, metadata, {_names(_REPLACED)}
)
SELECT r.id, $6, r.integration_id, r."externalId", r.lead_id, r.conversation_id, nullif(r.metadata, 'null'),
    {_values(_REPLACED)}
FROM ROWS FROM (
    json_to_recordset($1::json) AS ("externalId" text, "metadata" jsonb, {_keys(_REPLACED)}),
    unnest($2::uuid[]), unnest($3::uuid[]), unnest($4::uuid[]), unnest($5::uuid[])
) AS r ("externalId", metadata, {_quoted(_REPLACED)}, id, integration_id, lead_id, conversation_id)
ON CONFLICT (external_id, integration_id) WHERE external_id IS NOT NULL DO UPDATE SET
    lead_id = coalesce(held.lead_id, excluded.lead_id),
    conversation_id = coalesce(held.conversation_id, excluded.conversation_id),
    metadata = coalesce(held.metadata || excluded.metadata, excluded.metadata, held.metadata),
    {_set(_REPLACED)}
WHERE held.revision < excluded.revision
RETURNING held.id
"""

# $1 the legs, $2 their call ids, $3 their channel ids, $4 their positions, $5 the account. No leg comes twice.
UPSERT_LEGS: Final = f"""
INSERT INTO call_leg AS held (call_id, channel_id, position, account_id, {_names(_LEG)})
SELECT r.call_id, r.channel_id, r.position, $5, {_values(_LEG)}
FROM ROWS FROM (
    json_to_recordset($1::json) AS ({_keys(_LEG)}), unnest($2::uuid[]), unnest($3::text[]), unnest($4::integer[])
) AS r ({_quoted(_LEG)}, call_id, channel_id, position)
ON CONFLICT (call_id, channel_id) DO UPDATE SET position = excluded.position, {_set(_LEG)}
WHERE (held.position, {_of("held", _LEG)}) IS DISTINCT FROM (excluded.position, {_of("excluded", _LEG)})
"""

# A row's legs are exactly its record's legs. $1 the calls; $2, $3 the legs that stay. The last condition is a hashed
# subplan; as a join it could be planned as the product of both sides.
DELETE_LEGS: Final = """
DELETE FROM call_leg
WHERE call_id = ANY ($1::uuid[]) AND (call_id, channel_id) NOT IN (SELECT * FROM unnest($2::uuid[], $3::text[]))
"""

UPSERT_ALIASES: Final = """
INSERT INTO call_alias AS held (integration_id, external_id, account_id, call_id)
SELECT DISTINCT ON (1, 2) alias.integration_id, alias.external_id, $1::uuid, alias.call_id
FROM unnest($2::uuid[], $3::text[], $4::uuid[]) AS alias (integration_id, external_id, call_id)
ORDER BY 1, 2
ON CONFLICT (integration_id, external_id) DO UPDATE SET call_id = excluded.call_id
WHERE held.call_id <> excluded.call_id
"""

# $1 the ids that went, $2 their external ids, $3 the Calls they went into. Who was told an id still finds the Call.
SET_FOLDED: Final = """
UPDATE call_alias AS alias SET folded_id = fold.old_id
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS fold (old_id, external_id, into_id)
WHERE alias.call_id = fold.into_id AND alias.external_id = fold.external_id
"""

# The statements of a fold: $1 the Calls that go, $2 the Calls that they are folded into.
# A recording that both Calls know is kept once: the one that is further.
DELETE_TWIN_RECORDINGS: Final = """
DELETE FROM call_recording AS held USING call_recording AS moved
WHERE moved.call_id = ANY ($1::uuid[]) AND moved.state <> 'pending' AND held.state = 'pending'
    AND held.call_id = ($2::uuid[])[array_position($1::uuid[], moved.call_id)] AND held.path = moved.path
"""
MOVE_RECORDINGS: Final = """
UPDATE call_recording AS moved SET call_id = ($2::uuid[])[array_position($1::uuid[], moved.call_id)]
WHERE moved.call_id = ANY ($1::uuid[]) AND (
    SELECT held.id FROM call_recording AS held
    WHERE held.call_id = ($2::uuid[])[array_position($1::uuid[], moved.call_id)] AND held.path = moved.path
) IS NULL
"""
MOVE_ALIASES: Final = """
UPDATE call_alias SET call_id = ($2::uuid[])[array_position($1::uuid[], call_id)] WHERE call_id = ANY ($1::uuid[])
"""
MOVE_LINKS: Final = """
UPDATE call AS kept SET
    lead_id = coalesce(kept.lead_id, CASE WHEN NOT EXISTS (
        SELECT FROM call_note WHERE call_note.call_id = kept.id AND call_note.lead_chosen
    ) THEN old.lead_id END),
    conversation_id = coalesce(kept.conversation_id, old.conversation_id),
    recording_id = coalesce(kept.recording_id, old.recording_id),
    metadata = coalesce(old.metadata || kept.metadata, kept.metadata, old.metadata)
FROM unnest($1::uuid[], $2::uuid[]) AS fold (old_id, into_id)
CROSS JOIN LATERAL (SELECT * FROM call WHERE call.id = fold.old_id LIMIT 1) AS old
WHERE kept.id = fold.into_id AND kept.id = ANY ($2::uuid[])
"""
# Who is writing a note on a Call that goes has finished, or finds the other Call.
LOCK_FOLDED: Final = "SELECT id FROM call WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE"
MOVE_NOTES: Final = """
INSERT INTO call_note AS held (call_id, account_id, notes, tags, disposition, lead_chosen)
SELECT fold.into_id, note.account_id, coalesce(string_agg(DISTINCT nullif(note.notes, ''), E'\\n\\n'), ''),
    coalesce(array_agg(DISTINCT tag.name) FILTER (WHERE tag.name IS NOT NULL), '{}'), max(note.disposition),
    bool_or(note.lead_chosen)
FROM unnest($1::uuid[], $2::uuid[]) AS fold (old_id, into_id)
CROSS JOIN LATERAL (SELECT * FROM call_note WHERE call_note.call_id = fold.old_id LIMIT 1) AS note
LEFT JOIN LATERAL unnest(note.tags) AS tag (name) ON true
GROUP BY fold.into_id, note.account_id
ON CONFLICT (call_id) DO UPDATE SET
    notes = concat_ws(E'\\n\\n', nullif(held.notes, ''), nullif(excluded.notes, '')),
    tags = held.tags || ARRAY(SELECT name FROM unnest(excluded.tags) AS tag (name) WHERE name <> ALL (held.tags)),
    disposition = coalesce(held.disposition, excluded.disposition),
    lead_chosen = held.lead_chosen OR excluded.lead_chosen
"""
DELETE_FOLDED_RECORDINGS: Final = "DELETE FROM call_recording WHERE call_id = ANY ($1::uuid[]) AND state = 'pending'"
DELETE_FOLDED_CALLS: Final = "DELETE FROM call WHERE id = ANY ($1::uuid[])"

# An end that is known stays, also where an older picture of the file comes again.
UPSERT_RECORDINGS: Final = """
INSERT INTO call_recording AS held (account_id, call_id, channel_id, path, kind, started_at, ended_at, paused_spans)
SELECT DISTINCT ON (file.call_id, file.path) $1::uuid, file.*
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::jsonb[])
    AS file (call_id, channel_id, path, kind, started_at, ended_at, paused_spans)
ORDER BY file.call_id, file.path, file.ended_at NULLS LAST
ON CONFLICT (call_id, path) DO UPDATE SET
    ended_at = coalesce(excluded.ended_at, held.ended_at), paused_spans = excluded.paused_spans
WHERE held.ended_at IS DISTINCT FROM coalesce(excluded.ended_at, held.ended_at)
    OR held.paused_spans <> excluded.paused_spans
RETURNING held.id, held.ended_at, held.state
"""
SET_RECORDING: Final = """
UPDATE call SET recording_id = (
    SELECT id FROM call_recording AS file WHERE file.call_id = call.id ORDER BY started_at, path LIMIT 1
)
WHERE id = ANY ($1::uuid[]) AND recording_id IS NULL
"""


def _time(column: str) -> str:
    return f"""to_char(call.{column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


# Whose phones ring now: an agent's screen pops up by it, and goes when the next event has it no more.
_RINGING: Final = """(
    SELECT coalesce(jsonb_agg(leg.party ORDER BY leg.position), '[]') FROM call_leg AS leg
    WHERE leg.call_id = call.id AND leg.answered_at IS NULL AND leg.ended_at IS NULL AND leg.party = ANY (call.rang)
)"""

# Who was offered the call and is not any more, and how that came: what the last of his phones did.
_CLEARED: Final = """(
    SELECT coalesce(
        jsonb_agg(jsonb_build_object('extension', last.party, 'reason', last.reason) ORDER BY last.party), '[]')
    FROM (
        SELECT DISTINCT ON (leg.party) leg.party, leg.answered_at IS NULL AND leg.ended_at IS NULL AS rings,
            CASE WHEN leg.answered_at IS NOT NULL THEN 'ANSWERED' ELSE upper(leg.end_reason) END AS reason
        FROM call_leg AS leg
        WHERE leg.call_id = call.id AND leg.party = ANY (call.rang)
        ORDER BY leg.party, leg.answered_at IS NULL AND leg.ended_at IS NULL DESC, leg.position DESC
    ) AS last
    WHERE NOT last.rings
)"""

# A Call in an event: who, how it stands, and what a screen pop needs; its lists are to be had from the API.
SUMMARY: Final = f"""jsonb_build_object(
    'id', call.id, 'integrationId', call.integration_id, 'leadId', call.lead_id,
    'conversationId', call.conversation_id, 'pbx', call.pbx, 'externalId', call.external_id,
    'channelId', call.channel_id, 'direction', upper(call.direction), 'status', upper(call.status),
    'from', call.from_number, 'to', call.to_number, 'phoneNumber', call.phone_number,
    'fromE164', call.from_e164, 'toE164', call.to_e164, 'fromPrivate', call.from_private,
    'callerName', call.caller_name, 'startedAt', {_time("started_at")}, 'answeredAt', {_time("answered_at")},
    'endedAt', {_time("ended_at")}, 'duration', call.duration, 'endReason', upper(call.end_reason),
    'endedBy', upper(call.ended_by), 'answeredBy', call.answered_by, 'lastParty', call.last_party,
    'rang', call.rang, 'ringing', {_RINGING}, 'queue', call.queue, 'recordingId', call.recording_id,
    'revision', call.revision
)"""

# The customer's card, for the screen pop; null where nobody is known by the number.
LEAD_CARD: Final = """(
    SELECT jsonb_build_object(
        'id', lead.id, 'name', lead.name, 'phone', lead.phone, 'email', lead.email, 'status', upper(lead.status))
    FROM lead WHERE lead.id = call.lead_id LIMIT 1
)"""

# $1 the account, $2 how many events; then in order, one or several at a time: $3 call ids, $4 the number of the first
# event from 0, $5 types, parted by spaces, $6 what to add to the data. The row lock on the cursor is held until the
# commit, which is next: numbers become visible in order and without a gap.
INSERT_EVENTS: Final = f"""
WITH cursor AS (
    INSERT INTO event_cursor AS held (account_id, last_seq) VALUES ($1, $2)
    ON CONFLICT (account_id) DO UPDATE SET last_seq = held.last_seq + excluded.last_seq
    RETURNING last_seq
), told AS MATERIALIZED (
    SELECT told.first, told.types, call.id, call.lead_id, call.conversation_id,
        jsonb_build_object('call', {SUMMARY}, 'lead', {LEAD_CARD}) || coalesce(told.more::jsonb, '{{}}')
            || CASE WHEN 'call.ring_cleared' = ANY (string_to_array(told.types, ' '))
                THEN jsonb_build_object('cleared', {_CLEARED}) ELSE '{{}}' END AS data
    FROM unnest($3::uuid[], $4::integer[], $5::text[], $6::text[]) AS told (call_id, first, types, more)
    CROSS JOIN LATERAL (SELECT * FROM call WHERE call.id = told.call_id LIMIT 1) AS call
), written AS (
    INSERT INTO event (account_id, seq, type, call_id, lead_id, conversation_id, data)
    SELECT $1, cursor.last_seq - $2 + told.first + happening.n, happening.type, told.id, told.lead_id,
        told.conversation_id, told.data
    FROM cursor CROSS JOIN told
    CROSS JOIN LATERAL string_to_table(told.types, ' ') WITH ORDINALITY AS happening (type, n)
)
SELECT pg_notify('trunkline_event', $1::text || ' ' || last_seq::text) FROM cursor
"""
