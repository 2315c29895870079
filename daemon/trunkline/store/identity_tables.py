"""The tables of who may do what, beside `app_user`: keys, sessions, the secret that signs tokens, and the audit.

Of a key or a refresh token only the SHA-256 is stored: both are 32 random bytes, so there is nothing to be guessed.
"""

from typing import Final

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.dialects.postgresql import UUID

from trunkline.store.columns import (
    account_column,
    id_column,
    instant,
    json_object,
    metadata,
    now_column,
    reference,
    text_column,
    texts,
    word,
)

api_key: Final = Table(
    "api_key",
    metadata,
    id_column(),
    account_column(index=True),
    word("name"),
    word("prefix"),  # the first characters of the key, for people to know it by
    Column("digest", LargeBinary(), nullable=False),
    texts("scopes"),  # of identity.scopes.SCOPES
    reference("created_by", "app_user"),  # None: by another key, or on the command line; the audit says by whom
    now_column("created_at"),
    instant("last_used_at"),  # to the minute
    instant("expires_at"),  # None: never
    instant("revoked_at"),
    UniqueConstraint("digest"),
)

# One row for each token that was ever given out; a session is a family, of which the newest token is good.
refresh_token: Final = Table(
    "refresh_token",
    metadata,
    Column("digest", LargeBinary(), primary_key=True),
    account_column(),
    reference("user_id", "app_user", cascade=True, index=True, nullable=False),
    Column("family", UUID(), nullable=False, index=True),
    now_column("created_at"),
    instant("expires_at", nullable=False),
    instant("rotated_at"),  # when it was exchanged for the next one: seen again, it was stolen
    instant("revoked_at"),
    text_column("address"),  # of the client
)

# What signs access tokens where the settings name no secret.
auth_secret: Final = Table(
    "auth_secret",
    metadata,
    Column("account_id", UUID(), ForeignKey("account.id", ondelete="CASCADE"), primary_key=True),
    Column("secret", LargeBinary(), nullable=False),
    now_column("created_at"),
)

# Who changed what of all this. It outlives its subject, so there is no foreign key to that.
audit: Final = Table(
    "audit",
    metadata,
    id_column(),
    account_column(),
    # "user:ID", "api_key:ID", "key:" and the beginning of the digest of a key of the settings, "loopback", "cli:NAME",
    # "nobody" who has not logged in yet, or the part of the daemon that did it
    word("actor"),
    word("action"),
    word("subject"),  # "user:ID", "api_key:ID", "lead:ID"; "nobody": no user has the email that was tried
    now_column("at"),
    text_column("address"),  # of the client
    text_column("request_id"),
    text_column("detail"),
    Index("ix_audit_account_id_at_id", "account_id", "at", "id"),
)

# What was answered to a POST, for who sends it again: store/kept_answers.py.
kept_answer: Final = Table(
    "kept_answer",
    metadata,
    account_column(),
    Column("digest", LargeBinary(), nullable=False),  # of the Idempotency-Key
    Column("fingerprint", LargeBinary(), nullable=False),  # of the request: made with the key, which is not stored
    Column("status", Integer(), nullable=False),
    json_object("headers", nullable=False),
    Column("body", LargeBinary(), nullable=False),
    now_column("created_at"),
    PrimaryKeyConstraint("account_id", "digest"),
    Index("ix_kept_answer_account_id_created_at", "account_id", "created_at"),
)
