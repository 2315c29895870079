"""Up, down and up again over filled tables: what the fields become, and that nothing is lost."""

import re
from typing import Any

import pytest
from filled import CALLS, contents, execute, fetch
from meanwhile import interrupted

from trunkline.store import migrate

# What only the new schema can hold, made of the rows that are there.
LIVED_IN = (
    """INSERT INTO integration (account_id, channel, integration_id, external_id)
       SELECT id, 'telephony', 'asterisk', 'pbx-new' FROM account""",
    """UPDATE call SET integration_id = integration.id, external_id = 'pbx-' || call.id, channel_id = 'pbx-1.2',
           metadata = jsonb_build_object('seen', call.metadata), pbx = 'pbx-new', caller_name = 'Ünal "x"',
           from_number = 'rewritten', answered_at = started_at, rang = '{1001,"a,b"}', participants = ARRAY['x', ''],
           transfers = '[{"kind": "BLIND", "to": null}]', end_reason = 'ring_timeout', ended_by = 'pbx',
           quality = 'estimated', revision = 42, from_private = true, created_at = started_at + interval '1 second'
       FROM integration
       WHERE integration.account_id = call.account_id AND integration.external_id = 'pbx-new'
         AND call.id::text < '8'""",
    """UPDATE call SET conversation_id = (SELECT id FROM conversation WHERE conversation.account_id = call.account_id
           ORDER BY id LIMIT 1) WHERE id::text > 'a'""",
    """INSERT INTO call_leg (call_id, channel_id, account_id, position, endpoint, role, started_at, end_reason)
       SELECT id, id || '.' || n, account_id, n, 'PJSIP/1001', 'agent', started_at, 'answered_elsewhere'
       FROM call, generate_series(0, 2) AS n WHERE id::text < '4'""",
    """INSERT INTO call_alias (integration_id, external_id, account_id, call_id)
       SELECT integration_id, 'alias-' || id, account_id, id FROM call WHERE id::text < '2'""",
    """INSERT INTO event (account_id, seq, type, call_id, data)
       SELECT account_id, row_number() OVER (PARTITION BY account_id ORDER BY id), 'call.ended', id, '{"a": 1}'
       FROM call""",
    "INSERT INTO event_cursor SELECT account_id, max(seq) FROM event GROUP BY account_id",
    """INSERT INTO command (account_id, integration_id, idempotency_key, kind, arguments, state, result)
       SELECT account_id, id, id::text, 'hangup', '{"x": []}', 'done', '{"ok": true}' FROM integration""",
    """INSERT INTO command (account_id, integration_id, kind, arguments, state, code, detail, call_id, request_hash,
           actor, address, request_id, not_after, claimed_by, lease_until, claimed_at)
       SELECT account_id, integration_id, 'dial', '{"to": "1001"}', 'unknown', 'core_lost', 'x', id, 'hash', 'user:x',
           '192.0.2.1', 'r', now(), id, now(), now()
       FROM call WHERE integration_id IS NOT NULL""",
    """INSERT INTO media_file (account_id, message_id, position, name, url, bucket, key, mime_type, size, metadata)
       SELECT account_id, id, n, 'file ' || n, 'https://x/' || n, 'b', 'k/' || id || n, 'image/png',
              9876543210, '{"w": 1}'
       FROM message, generate_series(1, 3) AS n WHERE id::text < '3'""",
    # Files set aside from their message, and a copy that others came to use.
    "UPDATE media_file SET message_id = NULL WHERE id::text > 'f'",
    "UPDATE media_file SET position = 7, name = 'renamed' WHERE id::text BETWEEN 'd' AND 'e'",
    """INSERT INTO content_item (account_id, media_file_id, title)
       SELECT media_file.account_id, id, 'reused' FROM media_file JOIN kept.media_clone USING (id) LIMIT 20""",
    """UPDATE message SET external_id = 'wamid.' || id, metadata = '{"m": 1}', sent_at = created_at,
           delivered_at = created_at, read_at = NULL,
           integration_id = (SELECT id FROM integration WHERE integration.account_id = message.account_id
                             ORDER BY id LIMIT 1)""",
    """UPDATE conversation SET contact_name = 'Zoë', closed_at = now(), last_at = now(), integration_id = (
           SELECT id FROM integration WHERE integration.account_id = conversation.account_id ORDER BY id LIMIT 1)
       WHERE id::text < '8'""",
    """UPDATE conversation SET snoozed_until = now(), unread_count = 3 WHERE id::text > '8'""",
    "UPDATE message SET direction = 'internal' WHERE id::text < '4'",
    """UPDATE media_file SET kind = 'recording'
       WHERE id::text < '4' AND message_id IS NULL AND bucket IS NULL
         AND id NOT IN (SELECT id FROM kept.media_clone)""",
    """INSERT INTO object_removal (account_id, bucket, key, due_at, tries)
       SELECT account_id, 'b', key, now(), 2 FROM media_file LIMIT 9""",
    """INSERT INTO integration_secret (integration_id, name, account_id, sealed)
       SELECT id, 'token', account_id, 'sealed' FROM integration""",
    """INSERT INTO integration_link (integration_id, account_id, up, detail, heard_at)
       SELECT id, account_id, false, 'x', now() FROM integration""",
    """UPDATE call_recording SET path = '/spool/' || id || '.wav', channel_id = 'c', kind = 'voicemail',
           paused_spans = '[{"startedAt": "x"}]', started_at = now(), legal_hold = true, erased_at = now(),
           object_key = 'k/' || id,
           integration_id = (SELECT id FROM integration WHERE integration.account_id = call_recording.account_id
                             ORDER BY id LIMIT 1)
       WHERE id::text < '8'""",
    """INSERT INTO recording_peaks (recording_id, account_id, data)
       SELECT id, account_id, '{"data": [1]}' FROM call_recording WHERE id::text < '4'""",
    """INSERT INTO recording_access (account_id, recording_id, action, actor, detail)
       SELECT account_id, id, 'audio', 'loopback', 'bytes=0-' FROM call_recording""",
    """INSERT INTO webhook (
           account_id, url, profile, event_types, enabled, disabled_reason, secret, old_secret, last_seq)
       SELECT id, 'https://crm.example.com/' || id, 'zammad', '{call.ended}', false, 'GONE', 'whsec_x', 'whsec_y', 7
       FROM account""",
    """INSERT INTO webhook_delivery (account_id, webhook_id, event_seq, message_id, type, once, state, attempts, tries)
       SELECT account_id, id, n, 'evt_' || n, 'call.ended', 'hangup ' || n, 'failed', 10, '[{"statusCode": 500}]'
       FROM webhook, generate_series(1, 3) AS n""",
    "UPDATE call SET queue_visits = '[{\"queue\": \"support\"}]' WHERE id::text < '8'",
    "INSERT INTO pbx_state (account_id, integration_id, connected) SELECT account_id, id, true FROM integration",
    """INSERT INTO queue (account_id, integration_id, name, waiting)
       SELECT account_id, id, 'support', '[{"position": 1}]' FROM integration""",
    """INSERT INTO queue_member (account_id, queue_id, interface, extension)
       SELECT account_id, id, 'PJSIP/1001', '1001' FROM queue""",
    """INSERT INTO agent (account_id, integration_id, extension, status, status_since)
       SELECT account_id, id, '1001', 'on_hold', now() FROM integration""",
    "UPDATE lead SET phone_e164 = '+4930123456' WHERE id::text < '3'",
    "UPDATE integration SET status = 'disabled' WHERE id::text < '8'",
    """INSERT INTO app_user (account_id, email, role, password_hash, failed_logins, locked_until, token_generation,
           disabled_at)
       SELECT id, 'viewer@example.com', 'viewer', '$argon2id$', 3, now(), 7, now() FROM account""",
    """INSERT INTO api_key (account_id, name, prefix, digest, scopes, created_by, expires_at, revoked_at)
       SELECT account_id, 'crm', 'tl_abc', sha256(id::text::bytea), '{calls:read,admin}', id, now(), now()
       FROM app_user""",
    """INSERT INTO refresh_token (digest, account_id, user_id, family, expires_at, rotated_at, address)
       SELECT sha256(id::text::bytea), account_id, id, gen_random_uuid(), now(), now(), '192.0.2.1' FROM app_user""",
    "INSERT INTO auth_secret (account_id, secret) SELECT id, 'secret' FROM account",
    """INSERT INTO user_identity (account_id, user_id, issuer, subject, last_login_at)
       SELECT account_id, id, 'https://id.example.com', id, now() FROM app_user""",
    """INSERT INTO login_try (account_id, subject, made, locked_until)
       SELECT id, 'address:192.0.2.1', 50, now() FROM account""",
    "UPDATE lead SET external_id = 'crm-' || id WHERE id::text < '8'",
    """INSERT INTO lead_phone (account_id, lead_id, position, number, e164, lead_created_at)
       SELECT account_id, id, n, '030 ' || n, '+4930' || n, created_at FROM lead, generate_series(1, 2) AS n
       WHERE id::text < '8'""",
    "INSERT INTO lead_alias (account_id, lead_id, folded_id) SELECT account_id, id, gen_random_uuid() FROM lead",
    """INSERT INTO call_note (account_id, call_id, notes, tags, disposition, lead_chosen)
       SELECT account_id, id, 'Ünal "x"', '{a,"b,c"}', 'sold', true FROM call WHERE id::text < '4'""",
    """INSERT INTO kept_answer (account_id, digest, fingerprint, status, headers, body)
       SELECT id, 'd', 'f', 201, '{"ETag": "x"}', '{}' FROM account""",
    """INSERT INTO audit (account_id, actor, action, subject, detail)
       SELECT account_id, 'cli:root', 'user.created', 'user:' || id, 'x' FROM app_user""",
)


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in fetch(url, statement)]


@pytest.fixture
def head_url(filled_url: str) -> str:
    """The filled database at the head, with what only the head can hold."""
    migrate.upgrade(filled_url)
    execute(filled_url, *LIVED_IN)
    return filled_url


def test_the_sides_of_a_call(filled_url):
    before = rows(filled_url, "SELECT id, direction, phone_number, metadata, started_at FROM call")
    figures = migrate.upgrade(filled_url).figures
    after = {
        row[0]: row[1:]
        for row in rows(
            filled_url, "SELECT id, from_number, to_number, from_e164, to_e164, phone_number, created_at FROM call"
        )
    }
    assert len(after) == len(before) == CALLS
    half = 0
    for id_, direction, phone, metadata, started_at in before:
        from_, to, from_e164, to_e164, phone_number, created_at = after[id_]
        customer, other = (from_, to) if direction == "inbound" else (to, from_)
        keys = ("to", "toNumber", "did") if direction == "inbound" else ("from", "fromNumber", "caller")
        said = [metadata.get(key) for key in keys] if isinstance(metadata, dict) else []
        known = [str(value) for value in said if isinstance(value, str | int) and value != ""]
        assert (customer, phone_number, created_at) == (phone, phone, started_at)
        assert other == (known[0] if known else "")
        half += other == ""
        for number, e164 in ((from_, from_e164), (to, to_e164)):
            bare = re.sub(r"[\s().\-/]", "", number)
            assert e164 == (bare if re.fullmatch(r"\+[1-9][0-9]{6,14}", bare) else None)
    # Where neither side has anything, there is no other side either.
    assert figures["calls_without_other_side"] == half > 500


def test_the_names_of_files(empty_url):
    uuid = "0b5f3c1e-1111-4222-8333-944445555666"
    names = {
        f"{uuid}-holiday photo.jpg": "holiday photo.jpg",
        f"in/2024/{uuid.upper()}_invoice.pdf": "invoice.pdf",
        f"in/{uuid}invoice.pdf": "invoice.pdf",
        f"in/{uuid}.ogg": f"{uuid}.ogg",  # the uuid is the only name it has
        uuid: uuid,
        f"{uuid}-": f"{uuid}-",
        f"{uuid}-{uuid}-twice": f"{uuid}-twice",
        "a/b/plain.txt": "plain.txt",
        "a/b/": "b",
        "": "",
        "///": "",
        f"x-{uuid}-y": f"x-{uuid}-y",
        "☃/☃ ü.jpg": "☃ ü.jpg",
    }
    migrate.upgrade(empty_url, "0001")
    execute(empty_url, "INSERT INTO account (name) VALUES ('a')")
    for key in names:
        execute(empty_url, f"INSERT INTO media_file (account_id, key) SELECT id, '{key}' FROM account")
    migrate.upgrade(empty_url)
    assert dict(rows(empty_url, "SELECT key, name FROM media_file")) == names


def test_every_message_has_the_file_that_it_had(filled_url):
    had = dict(rows(filled_url, "SELECT message.id, key FROM message JOIN media_file f ON f.id = media_file_id"))
    oldest = dict(
        rows(
            filled_url,
            "SELECT DISTINCT ON (media_file_id) media_file_id, id FROM message WHERE media_file_id IS NOT NULL"
            " ORDER BY media_file_id, created_at, id",
        )
    )
    files = {row[0] for row in rows(filled_url, "SELECT id FROM media_file")}
    figures = migrate.upgrade(filled_url).figures
    found = rows(filled_url, "SELECT id, message_id, key, position FROM media_file")
    linked = [row for row in found if row[1] is not None]
    assert {message: key for _, message, key, _ in linked} == had
    assert len(linked) == len(had)
    assert {row[3] for row in linked} == {0}
    assert {id_: message for id_, message, _, _ in linked if id_ in files} == oldest
    clones = [row for row in found if row[0] not in files]
    assert figures["media_files_cloned"] == len(clones) == len(had) - len(oldest) > 500
    assert {row[0] for row in found} >= files


def test_one_open_conversation_with_a_customer(filled_url):
    migrate.upgrade(filled_url)
    found = rows(
        filled_url,
        """SELECT conversation.account_id, channel, lead.phone_e164,
                  count(*) FILTER (WHERE contact IS NOT NULL AND conversation.status = 'open'),
                  count(*) FILTER (WHERE conversation.status = 'open'),
                  count(*) FILTER (WHERE contact IS NULL AND conversation.status = 'closed'),
                  count(*) FILTER (WHERE contact <> lead.phone_e164)
           FROM conversation JOIN lead ON lead.id = lead_id
           WHERE lead.phone_e164 IS NOT NULL AND channel <> 'telegram' GROUP BY 1, 2, 3""",
    )
    assert any(open_ > 1 for *_, open_, _, _ in found)
    for _, _, _, known, open_, closed_without, other in found:
        assert (known, closed_without, other) == (min(open_, 1), 0, 0)


def test_recordings_know_their_call_and_integrations_are_unique(filled_url):
    migrate.upgrade(filled_url)
    wrong = """SELECT FROM call_recording r WHERE
        (call_id IS NOT NULL AND NOT EXISTS (SELECT FROM call WHERE call.id = r.call_id AND recording_id = r.id))
        OR (call_id IS NULL AND EXISTS (SELECT FROM call WHERE recording_id = r.id))
        OR state IS DISTINCT FROM CASE WHEN media_file_id IS NULL THEN 'failed' WHEN call_id IS NULL THEN 'unmatched'
                                       ELSE 'stored' END"""
    assert rows(filled_url, wrong) == []
    assert len(rows(filled_url, "SELECT DISTINCT state FROM call_recording")) == 3
    names = rows(filled_url, "SELECT external_id FROM integration WHERE external_id = 'pbx1'")
    assert 1 <= len(names) <= 2


def test_down_gives_back_the_old_rows(filled_url):
    before = contents(filled_url)
    migrate.upgrade(filled_url)
    migrate.downgrade(filled_url, "0001")
    assert contents(filled_url) == before


def test_down_and_up_again_gives_back_everything(head_url):
    before = contents(head_url)
    assert all(before.values()), "a table is empty: fill it"
    for revision in ("0006", "0004", "0003", "0002", "0001"):
        migrate.downgrade(head_url, revision)
        migrate.upgrade(head_url)
        after = contents(head_url)
        for table, found in before.items():
            assert after[table] == found, f"{table} after {revision}"


def test_an_interrupted_way_up_gives_back_everything(head_url):
    before = contents(head_url)
    migrate.downgrade(head_url, "0001")
    for reached in (
        "SELECT FROM pg_attribute WHERE attrelid = 'message'::regclass AND attname = 'read_at'",
        "SELECT FROM pg_class WHERE relname = 'ix_call_recording'",
        "SELECT FROM pg_attribute WHERE attrelid = 'call'::regclass AND attname = 'revision'",
    ):
        assert isinstance(interrupted(head_url, reached), migrate.MigrationError)
    migrate.upgrade(head_url)
    assert contents(head_url) == before


def test_what_the_old_program_does_in_between_is_respected(head_url):
    migrate.downgrade(head_url, "0001")
    execute(
        head_url,
        "UPDATE call SET phone_number = '+15550001111', direction = 'inbound' WHERE id::text < '1'",
        "DELETE FROM call WHERE id::text BETWEEN '1' AND '2'",
        "DELETE FROM message WHERE id::text BETWEEN '1' AND '2'",
        "DELETE FROM conversation WHERE id::text < '1'",
        "DELETE FROM integration WHERE id::text > 'd'",
        "DELETE FROM media_file WHERE id::text < '2'",
        "UPDATE message SET media_file_id = NULL WHERE id::text > 'e'",
        """INSERT INTO message (account_id, conversation_id, direction, media_file_id)
           SELECT account_id, conversation_id, 'inbound', media_file_id FROM message
           WHERE media_file_id IS NOT NULL LIMIT 50""",
    )
    old = dict(rows(head_url, "SELECT m.id, f.key FROM message m JOIN media_file f ON f.id = m.media_file_id"))
    calls = rows(head_url, "SELECT id, phone_number FROM call ORDER BY id")
    migrate.upgrade(head_url)
    assert rows(head_url, "SELECT id, phone_number FROM call ORDER BY id") == calls
    assert rows(head_url, "SELECT DISTINCT from_number, from_e164 FROM call WHERE id::text < '1'") == [
        ("+15550001111", "+15550001111")
    ]
    first = rows(
        head_url,
        "SELECT DISTINCT ON (message_id) message_id, key FROM media_file WHERE message_id IS NOT NULL"
        " ORDER BY message_id, position, id",
    )
    assert dict(first) == old
    assert rows(head_url, "SELECT FROM call_leg WHERE NOT EXISTS (SELECT FROM call WHERE call.id = call_id)") == []


def test_a_database_of_a_newer_program_is_refused(database_url):
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(migrate.MigrationError, match="9999, which this program does not know"):
        migrate.upgrade(database_url)
