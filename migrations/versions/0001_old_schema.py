"""The schema of the CRM that trunkline grew from.

One number to a call, one file to a message, a key to a file, and nothing unique about an integration.
"""

from alembic import op

revision = "0001"
down_revision = None

ID = "id uuid NOT NULL DEFAULT gen_random_uuid()"
ACCOUNT = "account_id uuid NOT NULL"
CREATED = "created_at timestamptz NOT NULL DEFAULT now()"


def account_of(table: str) -> str:
    """Tie a row to its account, and let it go with it."""
    return f"CONSTRAINT fk_{table}_account_id FOREIGN KEY (account_id) REFERENCES account (id) ON DELETE CASCADE"


def set_null(table: str, column: str, target: str) -> str:
    """Tie a row to another one that may go."""
    return f"CONSTRAINT fk_{table}_{column} FOREIGN KEY ({column}) REFERENCES {target} (id) ON DELETE SET NULL"


CHANNEL = "CHECK (channel IN ('telephony', 'whatsapp', 'telegram'))"

TABLES = (
    f"""CREATE TABLE account (
        {ID}, name text NOT NULL, settings jsonb NOT NULL DEFAULT '{{}}', {CREATED},
        CONSTRAINT pk_account PRIMARY KEY (id),
        CONSTRAINT uq_account_name UNIQUE (name)
    )""",
    f"""CREATE TABLE app_user (
        {ID}, {ACCOUNT}, email text NOT NULL, name text NOT NULL DEFAULT '', role text NOT NULL DEFAULT 'agent',
        extension text, password_hash text, {CREATED},
        CONSTRAINT pk_app_user PRIMARY KEY (id),
        CONSTRAINT uq_app_user_account_id_email UNIQUE (account_id, email),
        CONSTRAINT ck_app_user_role CHECK (role IN ('admin', 'supervisor', 'agent')),
        {account_of("app_user")}
    )""",
    f"""CREATE TABLE integration (
        {ID}, {ACCOUNT}, channel text NOT NULL, name text NOT NULL DEFAULT '',
        settings jsonb NOT NULL DEFAULT '{{}}', {CREATED},
        CONSTRAINT pk_integration PRIMARY KEY (id),
        CONSTRAINT ck_integration_channel {CHANNEL},
        {account_of("integration")}
    )""",
    f"""CREATE TABLE lead (
        {ID}, {ACCOUNT}, name text NOT NULL DEFAULT '', phone text, email text, status text NOT NULL DEFAULT 'new',
        source text, metadata jsonb, {CREATED}, updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_lead PRIMARY KEY (id),
        CONSTRAINT ck_lead_status CHECK (status IN ('new', 'contacted', 'qualified', 'converted', 'lost')),
        {account_of("lead")}
    )""",
    "CREATE INDEX ix_lead_account_id_created_at_id ON lead (account_id, created_at, id)",
    f"""CREATE TABLE deal (
        {ID}, {ACCOUNT}, lead_id uuid, title text NOT NULL DEFAULT '', amount_cents bigint, currency text,
        status text NOT NULL DEFAULT 'open', {CREATED}, closed_at timestamptz,
        CONSTRAINT pk_deal PRIMARY KEY (id),
        CONSTRAINT ck_deal_status CHECK (status IN ('open', 'won', 'lost')),
        {account_of("deal")},
        {set_null("deal", "lead_id", "lead")}
    )""",
    "CREATE INDEX ix_deal_account_id ON deal (account_id)",
    "CREATE INDEX ix_deal_lead_id ON deal (lead_id)",
    f"""CREATE TABLE campaign (
        {ID}, {ACCOUNT}, name text NOT NULL, channel text NOT NULL, status text NOT NULL DEFAULT 'draft',
        settings jsonb NOT NULL DEFAULT '{{}}', starts_at timestamptz, ends_at timestamptz, {CREATED},
        CONSTRAINT pk_campaign PRIMARY KEY (id),
        CONSTRAINT ck_campaign_channel {CHANNEL},
        CONSTRAINT ck_campaign_status CHECK (status IN ('draft', 'running', 'paused', 'finished')),
        {account_of("campaign")}
    )""",
    "CREATE INDEX ix_campaign_account_id ON campaign (account_id)",
    f"""CREATE TABLE booking (
        {ID}, {ACCOUNT}, lead_id uuid, user_id uuid, title text NOT NULL DEFAULT '', starts_at timestamptz NOT NULL,
        ends_at timestamptz, status text NOT NULL DEFAULT 'booked', {CREATED},
        CONSTRAINT pk_booking PRIMARY KEY (id),
        CONSTRAINT ck_booking_status CHECK (status IN ('booked', 'confirmed', 'canceled', 'done')),
        {account_of("booking")},
        {set_null("booking", "lead_id", "lead")},
        {set_null("booking", "user_id", "app_user")}
    )""",
    "CREATE INDEX ix_booking_account_id ON booking (account_id)",
    "CREATE INDEX ix_booking_lead_id ON booking (lead_id)",
    "CREATE INDEX ix_booking_user_id ON booking (user_id)",
    f"""CREATE TABLE conversation (
        {ID}, {ACCOUNT}, lead_id uuid, channel text NOT NULL, status text NOT NULL DEFAULT 'open', {CREATED},
        CONSTRAINT pk_conversation PRIMARY KEY (id),
        CONSTRAINT ck_conversation_channel {CHANNEL},
        CONSTRAINT ck_conversation_status CHECK (status IN ('open', 'closed')),
        {account_of("conversation")},
        {set_null("conversation", "lead_id", "lead")}
    )""",
    "CREATE INDEX ix_conversation_account_id ON conversation (account_id)",
    "CREATE INDEX ix_conversation_lead_id ON conversation (lead_id)",
    f"""CREATE TABLE media_file (
        {ID}, {ACCOUNT}, key text NOT NULL,
        CONSTRAINT pk_media_file PRIMARY KEY (id),
        {account_of("media_file")}
    )""",
    "CREATE INDEX ix_media_file_account_id ON media_file (account_id)",
    f"""CREATE TABLE message (
        {ID}, {ACCOUNT}, conversation_id uuid NOT NULL, direction text NOT NULL, content text, media_file_id uuid,
        status text NOT NULL DEFAULT 'pending', {CREATED},
        CONSTRAINT pk_message PRIMARY KEY (id),
        CONSTRAINT ck_message_direction CHECK (direction IN ('inbound', 'outbound')),
        CONSTRAINT ck_message_status CHECK (status IN ('pending', 'sent', 'delivered', 'read', 'failed')),
        {account_of("message")},
        CONSTRAINT fk_message_conversation_id
            FOREIGN KEY (conversation_id) REFERENCES conversation (id) ON DELETE CASCADE,
        {set_null("message", "media_file_id", "media_file")}
    )""",
    "CREATE INDEX ix_message_account_id ON message (account_id)",
    "CREATE INDEX ix_message_conversation_id_created_at_id ON message (conversation_id, created_at, id)",
    "CREATE INDEX ix_message_media_file_id ON message (media_file_id)",
    f"""CREATE TABLE content_item (
        {ID}, {ACCOUNT}, campaign_id uuid, media_file_id uuid, title text NOT NULL DEFAULT '', body text, {CREATED},
        CONSTRAINT pk_content_item PRIMARY KEY (id),
        {account_of("content_item")},
        {set_null("content_item", "campaign_id", "campaign")},
        {set_null("content_item", "media_file_id", "media_file")}
    )""",
    "CREATE INDEX ix_content_item_account_id ON content_item (account_id)",
    "CREATE INDEX ix_content_item_campaign_id ON content_item (campaign_id)",
    f"""CREATE TABLE call_recording (
        {ID}, {ACCOUNT}, media_file_id uuid, duration_seconds integer, {CREATED},
        CONSTRAINT pk_call_recording PRIMARY KEY (id),
        {account_of("call_recording")},
        {set_null("call_recording", "media_file_id", "media_file")}
    )""",
    "CREATE INDEX ix_call_recording_account_id ON call_recording (account_id)",
    "CREATE INDEX ix_call_recording_media_file_id ON call_recording (media_file_id)",
    # metadata: what an integration knew of a call, in whatever shape; the backfill of the other side reads it.
    f"""CREATE TABLE call (
        {ID}, {ACCOUNT}, lead_id uuid, direction text NOT NULL, phone_number text NOT NULL, status text NOT NULL,
        duration integer, recording_id uuid, metadata jsonb, started_at timestamptz NOT NULL, ended_at timestamptz,
        CONSTRAINT pk_call PRIMARY KEY (id),
        CONSTRAINT ck_call_direction CHECK (direction IN ('inbound', 'outbound', 'internal')),
        CONSTRAINT ck_call_status CHECK (status IN ('ringing', 'queued', 'in_progress', 'completed', 'missed',
            'no_answer', 'abandoned', 'voicemail', 'busy', 'failed')),
        {account_of("call")},
        {set_null("call", "lead_id", "lead")},
        {set_null("call", "recording_id", "call_recording")}
    )""",
    "CREATE INDEX ix_call_account_id ON call (account_id)",
    "CREATE INDEX ix_call_lead_id ON call (lead_id)",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drop everything, what was kept of newer schemas included."""
    op.execute("DROP SCHEMA IF EXISTS kept CASCADE")
    op.execute(
        "DROP TABLE call, call_recording, content_item, message, media_file, conversation, booking, campaign, deal,"
        " lead, integration, app_user, account"
    )
