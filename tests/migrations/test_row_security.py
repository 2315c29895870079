"""Row level security: on every table of accounts, for whoever comes as the API, and no wall for the core."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from filled import fetch

from trunkline.calls.record import CallRecord, CallUpdate, Direction, Status
from trunkline.embedded.postgres import Postgres
from trunkline.store import migrate, tables
from trunkline.store.pool import NoRowSecurity, Pool, open_pool
from trunkline.store.queries import CallFilter, select_account, select_calls
from trunkline.store.row_security import API_ROLE, CORE_ROLE, FOR_ADMINISTRATOR
from trunkline.store.writer import CallWriter

OF_ACCOUNTS = sorted(
    name for name, table in tables.metadata.tables.items() if name == "account" or "account_id" in table.columns
)
# What a row needs beside its account; the rest has defaults.
ROWS = {
    "app_user": "(account_id, email) SELECT $1, 'a'",
    "lead": "(account_id) SELECT $1",
    "deal": "(account_id) SELECT $1",
    "campaign": "(account_id, name, channel) SELECT $1, 'a', 'whatsapp'",
    "booking": "(account_id, starts_at) SELECT $1, now()",
    "content_item": "(account_id) SELECT $1",
    "conversation": "(account_id, channel) SELECT $1, 'whatsapp'",
    "media_file": "(account_id, key) SELECT $1, 'a'",
    "call": "(account_id, direction, status, phone_number, started_at) SELECT $1, 'inbound', 'busy', '1', now()",
    "call_recording": "(account_id) SELECT $1",
    "recording_access": "(account_id, recording_id, action, actor) SELECT $1, gen_random_uuid(), 'audio', 'x'",
    "event": "(account_id, seq, type) SELECT $1, 1, 'call.ended'",
    "event_cursor": "(account_id) SELECT $1",
    "integration": "(account_id, channel, integration_id, external_id) SELECT $1, 'whatsapp', 'a', 'b'",
    "api_key": "(account_id, name, prefix, digest) SELECT $1, 'a', 'tl_', sha256($1::uuid::text::bytea)",
    "webhook": "(account_id, url, secret) SELECT $1, 'https://example.com', 'whsec_a'",
    "auth_secret": "(account_id, secret) SELECT $1, 'secret'",
    "kept_answer": "(account_id, digest, fingerprint, status, body) SELECT $1, 'a', 'b', 201, ''",
    "login_try": "(account_id, subject, made) SELECT $1, 'address:192.0.2.1', 1",
    "audit": "(account_id, actor, action, subject) SELECT $1, 'x', 'y', 'z'",
    # Those that hang on another table's row of the same account.
    "message": "(account_id, conversation_id, direction) SELECT $1, id, 'inbound' FROM conversation"
    " WHERE account_id = $1",
    "call_leg": "(account_id, call_id, channel_id, position, endpoint, role, started_at)"
    " SELECT $1, id, 'x', 0, 'x', 'agent', now() FROM call WHERE account_id = $1",
    "call_alias": "(account_id, call_id, integration_id, external_id)"
    " SELECT $1, call.id, integration.id, 'x' FROM call, integration"
    " WHERE call.account_id = $1 AND integration.account_id = $1",
    "recording_peaks": "(account_id, recording_id) SELECT $1, id FROM call_recording WHERE account_id = $1",
    "command": "(account_id, integration_id, idempotency_key, kind) SELECT $1, id, 'a', 'hangup' FROM integration"
    " WHERE account_id = $1",
    "webhook_delivery": "(account_id, webhook_id, message_id, type) SELECT $1, id, 'evt_a', 'call.ended' FROM webhook"
    " WHERE account_id = $1",
    "object_removal": "(account_id, bucket, key, due_at) SELECT $1, 'a', 'b', now()",
    "integration_secret": "(account_id, integration_id, name, sealed) SELECT $1, id, 'a', 'b' FROM integration"
    " WHERE account_id = $1",
    "integration_link": "(account_id, integration_id, up) SELECT $1, id, true FROM integration WHERE account_id = $1",
    "lead_phone": "(account_id, lead_id, position, number, lead_created_at) SELECT $1, id, 1, '1', now() FROM lead"
    " WHERE account_id = $1",
    "lead_alias": "(account_id, lead_id, folded_id) SELECT $1, id, gen_random_uuid() FROM lead WHERE account_id = $1",
    "call_note": "(account_id, call_id) SELECT $1, id FROM call WHERE account_id = $1",
    "pbx_state": "(account_id, integration_id) SELECT $1, id FROM integration WHERE account_id = $1",
    "queue": "(account_id, integration_id, name) SELECT $1, id, 'a' FROM integration WHERE account_id = $1",
    "queue_member": "(account_id, queue_id, interface, extension) SELECT $1, id, 'a', '1' FROM queue"
    " WHERE account_id = $1",
    "agent": "(account_id, integration_id, extension, status, status_since) SELECT $1, id, '1', 'available', now()"
    " FROM integration WHERE account_id = $1",
    "user_identity": "(account_id, user_id, issuer, subject)"
    " SELECT $1, id, 'https://id.example.com', 'a' FROM app_user WHERE account_id = $1",
    "refresh_token": "(account_id, digest, user_id, family, expires_at)"
    " SELECT $1, sha256(id::text::bytea), id, gen_random_uuid(), now() FROM app_user WHERE account_id = $1",
}


@pytest.fixture(scope="module")
def two_accounts(postgres: Postgres, migrated: str) -> Iterator[str]:
    """A database with a row of each of two accounts in every table."""
    url = postgres.create_database("two_accounts", template=migrated)

    async def fill() -> None:
        connection = await asyncpg.connect(url)
        for name in ("own", "foreign"):
            account_id = await connection.fetchval("INSERT INTO account (name) VALUES ($1) RETURNING id", name)
            for table, row in ROWS.items():
                await connection.execute(f"INSERT INTO {table} {row}", account_id)
        await connection.close()

    asyncio.run(fill())
    yield url
    postgres.drop_database("two_accounts")


@pytest_asyncio.fixture
async def api(two_accounts: str) -> AsyncIterator[Pool]:
    async with await open_pool(two_accounts, reading=True, account="own") as pool:
        yield pool


def test_every_table_of_accounts_is_behind_it(database_url: str) -> None:
    found = fetch(
        database_url,
        """SELECT c.relname, relrowsecurity AND relforcerowsecurity AS forced,
                  array(SELECT polname || ' ' || array_to_string(polroles::regrole[], ',') || ' ' || polcmd::text
                        || ' ' || (pg_get_expr(polqual, polrelid) = pg_get_expr(polwithcheck, polrelid))
                        FROM pg_policy WHERE polrelid = c.oid ORDER BY polname) AS policies
           FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public' AND relkind = 'r'""",
    )
    secured = {row["relname"]: row["policies"] for row in found if row["forced"]}
    assert sorted(secured) == OF_ACCOUNTS, "put it behind store/row_security.enable() in its migration"
    assert {tuple(policies) for policies in secured.values()} == {
        (f"api {API_ROLE} * true", f"core {CORE_ROLE} * true")
    }


def test_the_rows_of_this_test_are_of_every_table() -> None:
    assert sorted(ROWS) == [table for table in OF_ACCOUNTS if table != "account"]


@pytest.mark.asyncio
@pytest.mark.parametrize("table", OF_ACCOUNTS)
async def test_a_query_that_forgets_the_account_sees_its_own(api: Pool, two_accounts: str, table: str) -> None:
    key = "id" if table == "account" else "account_id"
    own = await select_account(api, "own")
    assert [row[0] for row in await api.fetch(f"SELECT DISTINCT {key} FROM {table}")] == [own]
    async with await open_pool(two_accounts) as everything:
        assert await everything.fetchval(f"SELECT count(DISTINCT {key}) FROM {table}") == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("table", sorted(ROWS))
async def test_nothing_is_written_into_another_account(api: Pool, two_accounts: str, table: str) -> None:
    async with await open_pool(two_accounts) as everything:
        foreign = await select_account(everything, "foreign")
        before = await everything.fetch(f"SELECT to_jsonb(t) FROM {table} AS t WHERE account_id = $1", foreign)
        if " FROM " not in ROWS[table]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await api.execute(f"INSERT INTO {table} {ROWS[table]}", foreign)
        for statement in (f"UPDATE {table} SET account_id = $1", f"UPDATE {table} SET account_id = account_id"):
            arguments = [foreign] if "$1" in statement else []
            transaction = api.acquire()
            async with transaction as connection:
                scope = connection.transaction()
                await scope.start()
                try:
                    await connection.execute(statement, *arguments)
                    assert not arguments, "a row was moved to another account"
                except asyncpg.InsufficientPrivilegeError:
                    pass
                finally:
                    await scope.rollback()
        async with api.acquire() as connection:
            scope = connection.transaction()
            await scope.start()
            try:
                status = await connection.execute(f"DELETE FROM {table}")
                assert status == "DELETE 1"  # its own
            except asyncpg.InsufficientPrivilegeError:
                pass  # not even that
            finally:
                await scope.rollback()
        after = await everything.fetch(f"SELECT to_jsonb(t) FROM {table} AS t WHERE account_id = $1", foreign)
    assert after == before


@pytest.mark.asyncio
async def test_nobody_mends_what_an_audit_says(api: Pool) -> None:
    for table in ("audit", "recording_access"):
        for statement in (f"UPDATE {table} SET actor = 'x'", f"DELETE FROM {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await api.execute(statement)


@pytest.mark.asyncio
async def test_an_account_that_is_not_there_sees_nothing_until_it_is(database_url: str) -> None:
    async with (
        await open_pool(database_url) as everything,
        await open_pool(database_url, reading=True, account="späte Firma", max_size=1) as api,
    ):
        other = await everything.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
        await everything.execute(f"INSERT INTO lead {ROWS['lead']}", other)
        count = "SELECT (SELECT count(*) FROM account) + (SELECT count(*) FROM lead)"
        assert await api.fetchval(count) == 0
        assert await api.fetchval("SELECT current_user") == API_ROLE
        late = await everything.fetchval("INSERT INTO account (name) VALUES ('späte Firma') RETURNING id")
        await everything.execute(f"INSERT INTO lead {ROWS['lead']}", late)
        assert await api.fetchval(count) == 2


@pytest.mark.asyncio
async def test_without_the_role_nothing_is_read(postgres: Postgres, database_url: str) -> None:
    name = f"plain_{uuid4().hex[:8]}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    async with await open_pool(as_role(database_url, name), reading=True, account="own") as api:
        with pytest.raises(NoRowSecurity, match="cannot be taken"):
            await api.fetchval("SELECT 1")


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:x@{parts.hostname}:{parts.port}").geturl()


def update() -> CallUpdate:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    record = CallRecord(
        pbx="pbx1", external_id="pbx1-1.1", channel_id="pbx1-1.1", direction=Direction.INBOUND,
        status=Status.COMPLETED, from_="1", to="2", phone_number="1", started_at=at, ended_at=at,
    )  # fmt: skip
    return CallUpdate(record, ("call.ended",))


async def write_and_read(url: str) -> tuple[int, int]:
    """What the core writes and what the API reads, each as the daemon connects."""
    async with await open_pool(url) as core, await open_pool(url, reading=True, account="own") as api:
        for name in ("own", "foreign"):
            result = await CallWriter(core, name).write([update()])
            assert result.written == 1, result
        account_id: UUID | None = await select_account(api, "own")
        assert account_id is not None
        page = await select_calls(api, account_id, CallFilter(), limit=10)
        return await core.fetchval("SELECT count(*) FROM call"), len(page.calls)


def owner(server: Postgres, rights: str) -> str:
    """Make a role that is no superuser, and a database of its own; its URL."""
    name = f"owner_{uuid4().hex[:8]}"
    server.execute(f"CREATE ROLE {name} LOGIN NOSUPERUSER {rights} PASSWORD 'x'")
    url = server.create_database(name)
    server.execute(f"ALTER DATABASE {name} OWNER TO {name}")
    server.execute(f"ALTER SCHEMA public OWNER TO {name}", database=name)
    return as_role(url, name)


@pytest.fixture
def fresh() -> Iterator[Postgres]:
    """A server on which nobody has made the two roles yet."""
    with Postgres(durable=False) as server:
        yield server


def test_an_owner_who_may_make_roles_needs_nobody(fresh: Postgres) -> None:
    url = owner(fresh, "CREATEROLE")
    migrate.upgrade(url)
    assert asyncio.run(write_and_read(url)) == (2, 1)
    migrate.downgrade(url, "0006")
    assert fetch(url, "SELECT count(*) FROM call")[0][0] == 2
    migrate.upgrade(url)
    assert asyncio.run(seen_by_core(url)) == 2


async def seen_by_core(url: str) -> int:
    async with await open_pool(url) as core:
        return await core.fetchval("SELECT count(*) FROM call")


def test_an_owner_who_may_not_is_told_what_an_administrator_has_to_do(fresh: Postgres) -> None:
    url = owner(fresh, "NOCREATEROLE")
    name = urlsplit(url).username
    with pytest.raises(migrate.MigrationError) as told:
        migrate.upgrade(url)
    statements = [line.strip() for line in str(told.value).splitlines() if line.endswith(";")]
    assert statements == [
        f"CREATE ROLE {CORE_ROLE} NOLOGIN;",
        f"CREATE ROLE {API_ROLE} NOLOGIN;",
        f"GRANT {CORE_ROLE}, {API_ROLE} TO {name};",
    ]
    for statement in statements:
        fresh.execute(statement)
    migrate.upgrade(url)
    assert asyncio.run(write_and_read(url)) == (2, 1)


def test_who_is_in_neither_role_sees_nothing_not_even_as_the_owner(fresh: Postgres) -> None:
    url = owner(fresh, "NOCREATEROLE")
    name = urlsplit(url).username
    for line in FOR_ADMINISTRATOR.splitlines():
        if line.endswith(";"):
            fresh.execute(line % {"me": name})
    migrate.upgrade(url)
    asyncio.run(write_and_read(url))
    fresh.execute(f"REVOKE {CORE_ROLE} FROM {name}")
    assert asyncio.run(seen_by_core(url)) == 0
