"""Users, sessions and keys for the tests, made in the database: no password is hashed for them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from trunkline.identity import tokens
from trunkline.identity.keys import make_key, make_refresh_token
from trunkline.identity.tokens import Claims
from trunkline.store.audit import By
from trunkline.store.pool import Pool

SECRET = b"a-secret-of-the-tests-with-32-bytes-or-more"
BY = By("cli:test")
CANARY = "canary"  # in whatever the foreign account has


class Belongings(NamedTuple):
    """What an account has, by the word that stands before its id in a path."""

    account_id: UUID
    of: dict[str, Any]


async def add_account(pool: Pool, name: str, word: str) -> Belongings:
    """An account with one of everything, whose texts hold that word."""
    account_id = await pool.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", name)
    call_id = await pool.fetchval(
        """INSERT INTO call (account_id, pbx, external_id, direction, status, from_number, to_number, phone_number,
               started_at)
           VALUES ($1, $2, $2 || '-1', 'inbound', 'completed', $2, '1001', $2, now()) RETURNING id""",
        account_id,
        word,
    )
    recording_id = await pool.fetchval(
        "INSERT INTO call_recording (account_id, call_id, path) VALUES ($1, $2, $3) RETURNING id",
        account_id,
        call_id,
        f"/spool/{word}.wav",
    )
    user_id = await add_user(pool, account_id, "AGENT", email=f"{word}@example.com")
    key_id, _ = await add_key(pool, account_id, ["calls:read"], name=word)
    identity_id = await pool.fetchval(
        """INSERT INTO user_identity (account_id, user_id, issuer, subject)
           VALUES ($1, $2, 'https://id', $3) RETURNING id""",
        account_id,
        user_id,
        word,
    )
    await pool.execute(
        "INSERT INTO audit (account_id, actor, action, subject, detail) VALUES ($1, 'cli:x', 'user.created', $2, $2)",
        account_id,
        word,
    )
    webhook_id = await pool.fetchval(
        """INSERT INTO webhook (account_id, url, description, secret)
           VALUES ($1, 'https://192.0.2.1/', $2, $3) RETURNING id""",
        account_id,
        word,
        f"whsec_{'a' * 32}",
    )
    lead_id = await pool.fetchval(
        """INSERT INTO lead (account_id, name, phone, phone_e164, email, external_id)
           VALUES ($1, $2, '+442070001001', '+442070001001', $2 || '@example.com', $2) RETURNING id""",
        account_id,
        word,
    )
    await pool.execute(
        "INSERT INTO lead_phone SELECT id, 1, account_id, $2, '+442070001002', created_at FROM lead WHERE id = $1",
        lead_id,
        word,
    )
    await pool.execute(
        "INSERT INTO call_note (account_id, call_id, notes) VALUES ($1, $2, $3)", account_id, call_id, word
    )
    delivery_id = await pool.fetchval(
        """INSERT INTO webhook_delivery (account_id, webhook_id, event_seq, message_id, type, state)
           VALUES ($1, $2, 1, $3, 'call.ended', 'failed') RETURNING id""",
        account_id,
        webhook_id,
        f"evt_{word}",
    )
    media_file_id = await pool.fetchval(
        "INSERT INTO media_file (account_id, name, key, size) VALUES ($1, $2, $2, 1) RETURNING id", account_id, word
    )
    conversation_id = await pool.fetchval(
        """INSERT INTO conversation (account_id, channel, contact, contact_name)
           VALUES ($1, 'telephony', $2, $2) RETURNING id""",
        account_id,
        word,
    )
    await pool.execute(
        "INSERT INTO message (account_id, conversation_id, direction, content) VALUES ($1, $2, 'inbound', $3)",
        account_id,
        conversation_id,
        word,
    )
    integration_id = await pool.fetchval(
        """INSERT INTO integration (account_id, channel, integration_id, external_id, name)
           VALUES ($1, 'whatsapp', 'whatsapp', $2, $2) RETURNING id""",
        account_id,
        word,
    )
    await pool.execute(
        "INSERT INTO integration_secret (integration_id, account_id, name, sealed) VALUES ($1, $2, 'token', 'x')",
        integration_id,
        account_id,
    )
    command_id = await pool.fetchval(
        """WITH pbx AS (INSERT INTO integration (account_id, channel, integration_id, external_id)
               VALUES ($1, 'telephony', 'asterisk', $2) RETURNING id)
           INSERT INTO command (account_id, integration_id, idempotency_key, kind, arguments, actor, not_after)
           SELECT $1, id, $2, 'dial', jsonb_build_object('to', $2::text), 'cli:x', now() + interval '1 hour' FROM pbx
           RETURNING id""",
        account_id,
        word,
    )
    queue_id = await pool.fetchval(
        """INSERT INTO queue (account_id, integration_id, name) SELECT $1, id, $2 FROM integration
           WHERE account_id = $1 AND external_id = $2 RETURNING id""",
        account_id,
        word,
    )
    extension = "1001" if word != CANARY else str(uuid4())  # it is nobody's: those of another are not known
    await pool.execute(
        """INSERT INTO agent (account_id, integration_id, extension, name, status, status_since)
           SELECT $1, integration_id, $2, $3, 'available', now() FROM queue WHERE id = $4""",
        account_id,
        extension,
        word,
        queue_id,
    )
    return Belongings(
        account_id,
        {
            "queues": queue_id,
            "calls": call_id,
            "leads": lead_id,
            "recordings": recording_id,
            "users": user_id,
            "api-keys": key_id,
            "identities": identity_id,
            "webhooks": webhook_id,
            "deliveries": delivery_id,
            "media-files": media_file_id,
            "conversations": conversation_id,
            "integrations": integration_id,
            "commands": command_id,
            "agents": extension,
        },
    )


async def add_user(pool: Pool, account_id: UUID, role: str, *, email: str | None = None, **columns: Any) -> UUID:
    """A user; columns: further ones of app_user."""
    names = "".join(f", {name}" for name in columns)
    places = "".join(f", ${n}" for n in range(4, 4 + len(columns)))
    return await pool.fetchval(
        f"INSERT INTO app_user (account_id, email, role{names}) VALUES ($1, $2, lower($3){places}) RETURNING id",
        account_id,
        email or f"{uuid4().hex}@example.com",
        role,
        *columns.values(),
    )


async def add_key(
    pool: Pool, account_id: UUID, scopes: Sequence[str], *, name: str = "key", **columns: Any
) -> tuple[UUID, str]:
    """A key's id and itself; columns: further ones of api_key."""
    made = make_key()
    names = "".join(f", {column}" for column in columns)
    places = "".join(f", ${n}" for n in range(6, 6 + len(columns)))
    key_id = await pool.fetchval(
        f"""INSERT INTO api_key (account_id, name, prefix, digest, scopes{names})
            VALUES ($1, $2, $3, $4, $5{places}) RETURNING id""",
        account_id,
        name,
        made.prefix,
        made.digest,
        list(scopes),
        *columns.values(),
    )
    return key_id, made.text


async def log_in(
    pool: Pool,
    account_id: UUID,
    user_id: UUID,
    *,
    secret: bytes = SECRET,
    generation: int = 0,
    age_s: float = 0.0,
) -> str:
    """An access token of a session that is open in the database; age_s: how long ago it was given."""
    _, digest = make_refresh_token()
    family = uuid4()
    await pool.execute(
        """INSERT INTO refresh_token (digest, account_id, user_id, family, expires_at)
           VALUES ($1, $2, $3, $4, now() + interval '1 day')""",
        digest,
        account_id,
        user_id,
        family,
    )
    now = datetime.now(UTC) - timedelta(seconds=age_s)
    return tokens.issue(secret, account_id, Claims(user_id, family, generation), now=now)


def bearer(text: str) -> dict[str, str]:
    """The header."""
    return {"Authorization": f"Bearer {text}"}
