"""Backfill: the new fields of the rows that are there, in batches, from what the old fields say.

- call: the customer's side of from/to by the direction, the other side from metadata or '' and counted.
- media_file: name is the last segment of the key without a leading uuid; message_id is the message that had the file.
  A file that several messages shared stays with the oldest; each other one gets a copy of its row.
"""

from alembic import op

from trunkline.store.online import Online, online, report

revision = "0003"
down_revision = "0002"


def e164(column: str) -> str:
    """Return the SQL of a number's E.164 form; NULL where it does not say its country itself."""
    bare = rf"regexp_replace({column}, '[\s().\-/]', '', 'g')"
    return rf"CASE WHEN {bare} ~ '^\+[1-9][0-9]{{6,14}}$' THEN {bare} END"


def said(*keys: str) -> str:
    """Return the SQL of the first of these keys under which metadata, whatever it is, has a number; else ''."""
    of_key = (
        f"CASE WHEN jsonb_typeof(metadata -> '{key}') IN ('string', 'number') THEN nullif(metadata ->> '{key}', '') END"
        for key in keys
    )
    return f"coalesce({', '.join(of_key)}, '')"


FROM = f"CASE direction WHEN 'inbound' THEN phone_number ELSE {said('from', 'fromNumber', 'from_number', 'caller')} END"
TO = f"CASE direction WHEN 'inbound' THEN {said('to', 'toNumber', 'to_number', 'did', 'callee')} ELSE phone_number END"

CALLS = f"""
todo AS (
    SELECT id, {FROM} AS from_number, {TO} AS to_number FROM page
    WHERE from_number IS NULL OR to_number IS NULL OR created_at IS NULL
),
done AS (
    UPDATE call SET
        from_number = todo.from_number, from_e164 = {e164("todo.from_number")},
        to_number = todo.to_number, to_e164 = {e164("todo.to_number")},
        created_at = coalesce(call.created_at, call.started_at)
    FROM todo WHERE call.id = todo.id
    RETURNING CASE call.direction WHEN 'inbound' THEN call.to_number ELSE call.from_number END = '' AS half
)
"""

UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
SEGMENT = "regexp_replace(rtrim(media_file.key, '/'), '^.*/', '')"
# A segment that is a uuid, or one with an extension, is the only name there is.
NAME = f"regexp_replace({SEGMENT}, '^{UUID}[-_ ]*(?=[^-_ .])', '')"

MEDIA_FILES = f"""
done AS (
    UPDATE media_file SET
        name = {NAME},
        uploaded_at = coalesce(
            media_file.uploaded_at,
            (SELECT min(message.created_at) FROM message WHERE message.media_file_id = media_file.id),
            (SELECT min(call_recording.created_at) FROM call_recording
             WHERE call_recording.media_file_id = media_file.id),
            now())
    FROM page
    WHERE media_file.id = page.id AND (media_file.name IS NULL OR media_file.uploaded_at IS NULL)
    RETURNING 1
)
"""

MESSAGES = """
todo AS (
    SELECT page.id, page.account_id, page.media_file_id,
           media_file.message_id IS NULL AND NOT EXISTS (
               SELECT FROM message AS earlier
               WHERE earlier.media_file_id = page.media_file_id
                 AND (earlier.created_at, earlier.id) < (page.created_at, page.id)
           ) AS keeps
    FROM page JOIN media_file ON media_file.id = page.media_file_id
    WHERE NOT EXISTS (SELECT FROM media_file AS linked WHERE linked.message_id = page.id)
),
linked AS (
    UPDATE media_file SET message_id = todo.id, position = 0
    FROM todo WHERE media_file.id = todo.media_file_id AND todo.keeps
    RETURNING 1
),
cloned AS (
    INSERT INTO media_file (account_id, message_id, position, name, url, bucket, key, mime_type, size, metadata,
                            uploaded_at)
    SELECT todo.account_id, todo.id, 0, original.name, original.url, original.bucket, original.key, original.mime_type,
           original.size, original.metadata, original.uploaded_at
    FROM todo JOIN media_file AS original ON original.id = todo.media_file_id
    WHERE NOT todo.keeps
    RETURNING id, message_id
),
noted AS (
    INSERT INTO kept.media_clone (id, original_id)
    SELECT cloned.id, todo.media_file_id FROM cloned JOIN todo ON todo.id = cloned.message_id
)
"""

LEADS = f"""
done AS (
    UPDATE lead SET phone_e164 = {e164("lead.phone")} FROM page
    WHERE lead.id = page.id AND lead.phone_e164 IS NULL AND {e164("lead.phone")} IS NOT NULL
    RETURNING 1
)
"""

# Of several open conversations with one customer the newest is the one; the others stay as they are, without a contact.
CONVERSATIONS = """
todo AS (
    SELECT page.id, lead.phone_e164 AS contact
    FROM page JOIN lead ON lead.id = page.lead_id AND lead.account_id = page.account_id
    WHERE page.last_at IS NULL AND page.contact IS NULL AND page.channel IN ('telephony', 'whatsapp')
      AND lead.phone_e164 IS NOT NULL
      AND (page.status = 'closed' OR NOT EXISTS (
          SELECT FROM lead AS same JOIN conversation AS other ON other.lead_id = same.id
          WHERE same.account_id = page.account_id AND same.phone_e164 = lead.phone_e164
            AND other.account_id = page.account_id AND other.channel = page.channel AND other.status = 'open'
            AND other.id <> page.id
            AND (other.contact IS NOT NULL OR (other.created_at, other.id) > (page.created_at, page.id))
      ) AND NOT EXISTS (
          SELECT FROM conversation AS other
          WHERE other.account_id = page.account_id AND other.channel = page.channel AND other.status = 'open'
            AND other.contact = lead.phone_e164
      ))
),
done AS (
    UPDATE conversation SET contact = todo.contact FROM todo WHERE conversation.id = todo.id RETURNING 1
)
"""
# After the contacts: last_at says that a conversation is done.
CONVERSATION_AGES = """
done AS (
    UPDATE conversation SET last_at = coalesce(
        (SELECT max(message.created_at) FROM message WHERE message.conversation_id = conversation.id),
        conversation.created_at)
    FROM page WHERE conversation.id = page.id AND conversation.last_at IS NULL
    RETURNING 1
)
"""

RECORDINGS = """
done AS (
    UPDATE call_recording SET
        call_id = found.id,
        state = CASE WHEN call_recording.media_file_id IS NULL THEN 'failed'
                     WHEN found.id IS NULL THEN 'unmatched' ELSE 'stored' END,
        reason = CASE WHEN call_recording.media_file_id IS NULL THEN 'the old schema had no file for it' END
    FROM page LEFT JOIN LATERAL (
        SELECT call.id FROM call WHERE call.recording_id = page.id ORDER BY call.started_at, call.id LIMIT 1
    ) AS found ON true
    WHERE call_recording.id = page.id AND page.state IS NULL
    RETURNING 1
)
"""

INTEGRATIONS = """
WITH named AS (
    SELECT id, CASE channel WHEN 'telephony' THEN 'asterisk' ELSE channel END AS integration_id,
           CASE WHEN jsonb_typeof(settings -> 'externalId') = 'string' THEN nullif(settings ->> 'externalId', '') END
               AS external_id
    FROM integration WHERE integration_id IS NULL OR external_id IS NULL
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY integration_id, external_id ORDER BY id) AS place FROM named
)
UPDATE integration SET
    integration_id = ranked.integration_id,
    external_id = CASE WHEN ranked.place = 1 AND NOT EXISTS (
        SELECT FROM integration AS other
        WHERE other.integration_id = ranked.integration_id AND other.external_id = ranked.external_id
    ) THEN coalesce(ranked.external_id, ranked.id::text) ELSE ranked.id::text END
FROM ranked WHERE integration.id = ranked.id
"""

DONE = "SELECT count(*) FROM done"


def backfill(live: Online) -> dict[str, int]:
    """Fill in what is not filled in yet; may be run again for rows that came since."""
    figures = {"leads": live.batches("lead", LEADS, counts={"n": DONE})["n"]}
    live.ddl(INTEGRATIONS)
    calls = live.batches("call", CALLS, counts={"n": DONE, "half": "SELECT count(*) FROM done WHERE half"})
    figures |= {"calls": calls["n"], "calls_without_other_side": calls["half"]}
    figures["media_files"] = live.batches("media_file", MEDIA_FILES, counts={"n": DONE})["n"]
    messages = live.batches(
        "message", MESSAGES, counts={"n": "SELECT count(*) FROM linked", "clones": "SELECT count(*) FROM cloned"}
    )
    figures |= {"messages_with_file": messages["n"], "media_files_cloned": messages["clones"]}
    figures["conversations"] = live.batches("conversation", CONVERSATIONS, counts={"n": DONE})["n"]
    live.batches("conversation", CONVERSATION_AGES, counts={"n": DONE})
    figures["recordings"] = live.batches("call_recording", RECORDINGS, counts={"n": DONE})["n"]
    return figures


CLONE = "id, account_id, message_id, position, name, url, bucket, key, mime_type, size, metadata, uploaded_at"


def upgrade() -> None:
    """Bring back the copies that a way down took out, then fill in."""
    with online(op) as live:
        live.ddl(
            "CREATE SCHEMA IF NOT EXISTS kept",
            "CREATE TABLE IF NOT EXISTS kept.media_clone ("
            "id uuid PRIMARY KEY REFERENCES media_file (id) ON DELETE CASCADE, original_id uuid NOT NULL)",
        )
        if live.exists("kept.media_file_cloned"):
            live.ddl(
                f"""WITH back AS (
                    SELECT cloned.* FROM kept.media_file_cloned AS cloned
                    JOIN message ON message.id = cloned.message_id
                     AND message.media_file_id IS NOT DISTINCT FROM cloned.was_media_file_id
                ), made AS (
                    INSERT INTO media_file ({CLONE}) SELECT {CLONE} FROM back ON CONFLICT (id) DO NOTHING
                )
                INSERT INTO kept.media_clone (id, original_id) SELECT id, original_id FROM back
                ON CONFLICT (id) DO NOTHING""",
                "DROP TABLE kept.media_file_cloned",
            )
        live.index("ix_call_recording", "call (recording_id) WHERE recording_id IS NOT NULL")
        report(op, backfill(live))


def downgrade() -> None:
    """Take out the copies of shared files: the old schema shares. What was filled in stays until its column goes."""
    op.execute(
        """CREATE TABLE kept.media_file_cloned AS
        SELECT media_file.*, media_clone.original_id,
               CASE WHEN message.media_file_id = media_file.id THEN media_clone.original_id
                    ELSE message.media_file_id END AS was_media_file_id
        FROM kept.media_clone
        JOIN media_file ON media_file.id = media_clone.id
        JOIN media_file AS original ON original.id = media_clone.original_id
        JOIN message ON message.id = media_file.message_id
        WHERE NOT EXISTS (SELECT FROM call_recording WHERE call_recording.media_file_id = media_file.id)
          AND NOT EXISTS (SELECT FROM content_item WHERE content_item.media_file_id = media_file.id)"""
    )
    op.execute(
        "ALTER TABLE kept.media_file_cloned ADD PRIMARY KEY (id),"
        " ADD FOREIGN KEY (message_id) REFERENCES message (id) ON DELETE CASCADE"
    )
    op.execute(
        "UPDATE message SET media_file_id = cloned.original_id FROM kept.media_file_cloned AS cloned"
        " WHERE message.media_file_id = cloned.id"
    )
    op.execute("DELETE FROM media_file USING kept.media_file_cloned AS cloned WHERE media_file.id = cloned.id")
    op.execute("DROP TABLE kept.media_clone")
    op.execute("DROP INDEX ix_call_recording")
