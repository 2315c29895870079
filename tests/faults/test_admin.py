"""`trunkline admin` as a command: the first admin and the first key, and what it refuses."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from test_commands import settings_file

from trunkline.identity.keys import digest_of
from trunkline.identity.passwords import Passwords

PASSWORD = "canary battery staple"


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> str:
    return settings_file(tmp_path, database_url)


def admin(settings: str, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, "-m", "trunkline", "admin", "--config", settings, *words],
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")},
    )
    assert "Traceback" not in ran.stderr
    assert "canary" not in ran.stdout + ran.stderr
    return ran


def rows(url: str, statement: str) -> list[asyncpg.Record]:
    async def ask() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_the_first_admin(settings: str, database_url: str) -> None:
    words = ("create-user", "Ada@Example.com", "--role", "ADMIN", "--extension", "1001")
    ran = admin(settings, *words, typed=f"{PASSWORD}\n")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "ADMIN ada@example.com can log in" in ran.stdout
    [user] = rows(database_url, "SELECT app_user.*, account.name AS account FROM app_user, account")
    assert (user["email"], user["role"], user["extension"], user["account"]) == (
        "ada@example.com", "admin", "1001", "default",
    )  # fmt: skip
    assert asyncio.run(Passwords().verify(user["password_hash"], PASSWORD))
    again = admin(settings, *words, typed=f"{PASSWORD}\n")
    assert again.returncode == 2
    assert "set-password" in again.stderr
    changed = admin(settings, "set-password", "ada@example.com", typed="another canary word\n")
    assert changed.returncode == 0
    [user] = rows(database_url, "SELECT * FROM app_user")
    assert asyncio.run(Passwords().verify(user["password_hash"], "another canary word"))
    assert "ada@example.com  ADMIN  1001" in admin(settings, "list-users").stdout
    audit = rows(database_url, "SELECT actor, action FROM audit ORDER BY at")
    assert [row["action"] for row in audit] == ["user.created", "user.changed"]
    assert audit[0]["actor"].startswith("cli:")


def test_a_key_is_printed_once_and_can_be_revoked(settings: str, database_url: str) -> None:
    ran = admin(settings, "create-key", "crm", "--scopes", "calls:read", "recordings:read", "--days", "30")
    assert ran.returncode == 0
    key = ran.stdout.strip()  # nothing else: it can be piped into a file
    [row] = rows(database_url, "SELECT * FROM api_key")
    assert (row["digest"], row["scopes"]) == (digest_of(key), ["calls:read", "recordings:read"])
    listed = admin(settings, "list-keys").stdout
    assert key not in listed
    assert [word in listed for word in (key[:9], "good", "never", "crm", "calls:read recordings:read")] == [True] * 5
    assert admin(settings, "revoke-key", key[:9]).returncode == 0
    assert "revoked" in admin(settings, "list-keys").stdout
    assert admin(settings, "revoke-key", "tl_nothing").returncode == 2


@pytest.mark.parametrize(
    ("words", "typed", "says"),
    [
        (("create-user", "ada"), f"{PASSWORD}\n", "allowed: NAME@HOST"),
        (("create-user", "a@b", "--role", "OWNER"), "", "invalid choice"),
        (("create-user", "a@b"), "short\n", "allowed: 12 to 256"),
        (("create-user", "a@b"), "", "0 characters"),
        (("create-user", "a@b", "--password", PASSWORD), "", "unrecognized arguments"),
        (("set-password", "a@b"), f"{PASSWORD}\n", "no user a@b"),
        (("create-key", "crm"), "", "--scopes"),
        (("create-key", "crm", "--scopes", "calls:all"), "", "invalid choice"),
        (("create-key", " ", "--scopes", "admin"), "", "empty"),
        (("create-key", "crm", "--scopes", "admin", "--days", "0"), "", "1 to 36500"),
        ((), "", "ACTION"),
    ],
)
def test_what_is_asked_wrongly_is_told(settings: str, words: tuple[str, ...], typed: str, says: str) -> None:
    if "--password" in words:
        words = tuple(word if word != PASSWORD else "p" for word in words)
    ran = admin(settings, *words, typed=typed)
    assert ran.returncode == 2
    assert says in ran.stderr


def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    ran = admin(settings_file(tmp_path, "postgresql://u:canary@127.0.0.1:1/d"), "list-keys")
    assert ran.returncode == 1
    assert "check that PostgreSQL runs" in ran.stderr


def test_whoever_is_meant_is_found_among_more_than_a_list_shows(settings: str, database_url: str) -> None:
    ran = admin(settings, "create-key", "crm", "--scopes", "calls:read")
    rows(
        database_url,
        """WITH users AS (
               INSERT INTO app_user (account_id, email, role)
               SELECT id, 'u' || lpad(n::text, 4, '0') || '@example.com', 'agent'
               FROM account, generate_series(0, 1000) AS n
           )
           INSERT INTO api_key (account_id, name, prefix, digest, scopes)
           SELECT id, 'more', 'tl_' || n, sha256(n::text::bytea), '{calls:read}'
           FROM account, generate_series(1, 1000) AS n
           RETURNING 1""",
    )
    assert admin(settings, "set-password", "u1000@example.com", typed="a canary word\n").returncode == 0
    assert admin(settings, "revoke-key", ran.stdout.strip()[:9]).returncode == 0
    [row] = rows(database_url, "SELECT revoked_at FROM api_key WHERE name = 'crm'")
    assert row["revoked_at"] is not None
