"""Behind row level security each statement of the API still goes by its index: no row is read to be thrown away.

PostgreSQL puts the policy before whatever operator might tell of a row that it sees; what comes behind it is no longer
looked up but filtered.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from trunkline.calls.record import Direction, Status
from trunkline.crm.matching import select_leads_by_number
from trunkline.store import api_keys, conversations, keyset, leads, media, messages, queries, recordings, sessions
from trunkline.store.audit import AUDIT
from trunkline.store.kept_answers import Asked, select_kept
from trunkline.store.keyset import Sort, select_page
from trunkline.store.pool import Pool, open_pool
from trunkline.store.queries import CallFilter

ROWS = 3000
# A page gathers 30 runs, some of which begin beside a row of another account, or end behind the page.
MOST_READ_FOR_NOTHING = 60

_FILL = (
    """INSERT INTO call (account_id, external_id, direction, status, from_number, to_number, phone_number, started_at)
       SELECT account.id, account.name || n, (ARRAY['inbound', 'outbound', 'internal'])[1 + n % 3],
              (ARRAY['completed', 'missed'])[1 + n % 2], n % 50, n % 7, n % 50, now() - n * interval '1 s'
       FROM account, generate_series(1, $1::int) AS n""",
    """INSERT INTO call_leg (call_id, channel_id, account_id, position, endpoint, role, started_at)
       SELECT id, external_id, account_id, 0, 'x', 'agent', started_at FROM call WHERE $1 > 0""",
    "INSERT INTO call_recording (account_id, call_id, path, state) SELECT account_id, id, 'x', 'stored' FROM call"
    " WHERE $1 > 0",
    """INSERT INTO api_key (account_id, name, prefix, digest)
       SELECT account.id, 'x', 'x', sha256((account.name || n)::bytea)
       FROM account, generate_series(1, $1::int) AS n""",
    """INSERT INTO app_user (account_id, email)
       SELECT account.id, n || '@x' FROM account, generate_series(1, $1::int) AS n""",
    """INSERT INTO refresh_token (digest, account_id, user_id, family, expires_at)
       SELECT sha256(id::text::bytea), account_id, id, id, now() + interval '1 day' FROM app_user WHERE $1 > 0""",
    """INSERT INTO lead (account_id, name, phone_e164, email, external_id, created_at, updated_at)
       SELECT account.id, 'x', '+44' || n, n || '@x', n, now() - n * interval '1 s', now() - n * interval '1 s'
       FROM account, generate_series(1, $1::int) AS n""",
    """INSERT INTO lead_phone (account_id, lead_id, position, number, e164, lead_created_at)
       SELECT account_id, id, 1, phone_e164, phone_e164 || '0', created_at FROM lead WHERE $1 > 0""",
    "INSERT INTO lead_alias (account_id, folded_id, lead_id) SELECT account_id, gen_random_uuid(), id FROM lead"
    " WHERE $1 > 0",
    "INSERT INTO call_note (account_id, call_id, notes) SELECT account_id, id, 'x' FROM call WHERE $1 > 0",
    """INSERT INTO kept_answer (account_id, digest, fingerprint, status, body)
       SELECT account.id, sha256((account.name || n)::bytea), 'x', 201, 'x'
       FROM account, generate_series(1, $1::int) AS n""",
    """INSERT INTO audit (account_id, actor, action, subject)
       SELECT account.id, 'x', 'y', 'z' FROM account, generate_series(1, $1::int) AS n""",
    """INSERT INTO conversation (account_id, channel, contact, status, snoozed_until, unread_count, last_at)
       SELECT account.id, CASE WHEN n % 100 = 1 THEN 'whatsapp' ELSE 'telephony' END, n::text,
              CASE WHEN n % 50 = 0 THEN 'open' ELSE 'closed' END,
              CASE WHEN n % 500 = 0 THEN now() + interval '1 day' END, (n % 100 = 0)::int, now() - n * interval '1 s'
       FROM account, generate_series(1, $1::int) AS n""",
    """INSERT INTO message (account_id, conversation_id, direction, content, created_at)
       SELECT account_id, id, 'inbound', 'x', last_at FROM conversation WHERE $1 > 0""",
    """INSERT INTO media_file (account_id, message_id, key, kind)
       SELECT account_id, id, id::text, CASE WHEN content = 'x' THEN 'attachment' END FROM message WHERE $1 > 0""",
    """INSERT INTO media_file (account_id, key, kind)
       SELECT account.id, n::text, 'recording' FROM account, generate_series(1, $1::int) AS n""",
    """UPDATE call SET conversation_id = (
           SELECT id FROM conversation WHERE conversation.account_id = call.account_id
           AND contact = (1 + call.from_number::int)::text LIMIT 1)
       WHERE $1 > 0""",
)


class Explaining:
    """A connection whose statements are explained as they are run."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.read_for_nothing: dict[str, int] = {}

    async def _explain(self, statement: str, arguments: tuple[Any, ...]) -> None:
        for mode in ("force_custom_plan", "force_generic_plan"):
            await self._connection.execute(f"SET plan_cache_mode = {mode}")
            lines = await self._connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {statement}", *arguments)
            plan = "\n".join(line[0] for line in lines)
            removed = sum(map(int, re.findall(r"Rows Removed by (?:Filter|Join Filter): (\d+)", plan)))
            self.read_for_nothing[f"{mode}\n{plan}"] = removed

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        await self._explain(statement, arguments)
        return await self._connection.fetch(statement, *arguments)

    async def fetchrow(self, statement: str, *arguments: Any) -> Any:
        await self._explain(statement, arguments)
        return await self._connection.fetchrow(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        await self._explain(statement, arguments)
        return await self._connection.fetchval(statement, *arguments)


@pytest_asyncio.fixture
async def own(pool: Pool) -> UUID:
    """An account with so many of everything; another one has as many."""
    own = await pool.fetchval("INSERT INTO account (name) VALUES ('main') RETURNING id")
    await pool.execute("INSERT INTO account (name) VALUES ('other')")
    for statement in _FILL:
        await pool.execute(statement, ROWS)
    await pool.execute("VACUUM ANALYZE")
    return own


@pytest_asyncio.fixture
async def api(database_url: str, own: UUID) -> AsyncIterator[Explaining]:
    async with await open_pool(database_url, reading=True, account="main") as pool, pool.acquire() as connection:
        yield Explaining(connection)


async def one(pool: Pool, own: UUID, column: str, table: str) -> Any:
    return await pool.fetchval(f"SELECT {column} FROM {table} WHERE account_id = $1 ORDER BY random() LIMIT 1", own)


async def _call(api: Any, pool: Pool, own: UUID) -> None:
    assert await queries.select_call(api, own, await one(pool, own, "id", "call")) is not None


async def _no_call(api: Any, pool: Pool, own: UUID) -> None:
    assert await queries.select_call(api, own, uuid4()) is None


async def _recordings_of_call(api: Any, pool: Pool, own: UUID) -> None:
    call_id = await one(pool, own, "id", "call")
    assert await recordings.call_exists(api, own, call_id)
    assert len(await recordings.select_recordings_of_call(api, own, call_id)) == 1


async def _recording(api: Any, pool: Pool, own: UUID) -> None:
    recording_id = await one(pool, own, "id", "call_recording")
    assert await recordings.select_recording(api, own, recording_id) is not None
    assert await recordings.select_peaks(api, own, recording_id) is None


async def _unfinished(api: Any, pool: Pool, own: UUID) -> None:
    assert await recordings.select_unfinished(api, own, ["pending", "failed"], 200) == []


async def _key(api: Any, pool: Pool, own: UUID) -> None:
    assert await api_keys.select_key(api, own, await one(pool, own, "digest", "api_key")) is not None


async def _session(api: Any, pool: Pool, own: UUID) -> None:
    user_id = await one(pool, own, "user_id", "refresh_token")
    assert await sessions.select_session(api, own, user_id, user_id) is not None


async def _audit(api: Any, pool: Pool, own: UUID) -> None:
    listing = AUDIT
    first = await select_page(
        api, listing, ("audit.account_id = $1",), (own,), sort=listing.default, after=None, limit=50
    )
    assert len(first.rows) == 50
    second = await select_page(
        api, listing, ("audit.account_id = $1",), (own,), sort=listing.default, after=first.end, limit=50
    )
    assert len(second.rows) == 50


def _conversations(found: int, *conditions: str) -> Callable[[Any, Pool, UUID], Awaitable[None]]:
    async def ask(api: Any, pool: Pool, own: UUID) -> None:
        page = await keyset.select_page(
            api, conversations.CONVERSATIONS, ("conversation.account_id = $1", *conditions), (own,),
            sort=conversations.CONVERSATIONS.default, after=None, limit=50,
        )  # fmt: skip
        assert len(page.rows) == found

    return ask


async def _lead(api: Any, pool: Pool, own: UUID) -> None:
    assert await leads.select_lead(api, own, await one(pool, own, "id", "lead")) is not None
    assert await leads.select_survivor(api, own, await one(pool, own, "folded_id", "lead_alias")) is not None
    assert len(await leads.select_leads_by_external_id(api, own, ["17", "18", "nobody"])) == 2
    assert len(await select_leads_by_number(api, own, ["+4417", "+44180", "nobody"])) == 2


async def _kept(api: Any, pool: Pool, own: UUID) -> None:
    asked = Asked(await one(pool, own, "digest", "kept_answer"), b"x")
    assert await select_kept(api, own, asked) is not None


def _leads(
    condition: str | None, argument: object, found: int, sort: Sort = leads.LEADS.default
) -> Callable[[Any, Pool, UUID], Awaitable[None]]:
    async def ask(api: Any, pool: Pool, own: UUID) -> None:
        conditions = ["lead.account_id = $1"] + ([condition.format("$2")] if condition else [])
        arguments = [own] + ([argument] if condition else [])
        page = await select_page(api, leads.LEADS, conditions, arguments, sort=sort, after=None, limit=50)
        assert len(page.rows) == found
        if page.end is not None:
            page = await select_page(api, leads.LEADS, conditions, arguments, sort=sort, after=page.end, limit=50)
            assert len(page.rows) == 50

    return ask


async def _unread(api: Any, pool: Pool, own: UUID) -> None:
    assert (await conversations.count_unread(api, own, None)).all == ROWS // 100


async def _timeline(api: Any, pool: Pool, own: UUID) -> None:
    conversation_id = await pool.fetchval("SELECT conversation_id FROM call WHERE account_id = $1 LIMIT 1", own)
    items, end = await messages.select_timeline(api, own, conversation_id, None, 50)
    assert (len(items), end is not None) == (50, True)
    page = await keyset.select_page(
        api, messages.MESSAGES, ("message.account_id = $1", "message.conversation_id = $2"), (own, conversation_id),
        sort=messages.MESSAGES.default, after=None, limit=50,
    )  # fmt: skip
    assert [len(messages.message_of(row).media_files) for row in page.rows] == [1]


async def _media_files(api: Any, pool: Pool, own: UUID) -> None:
    page = await keyset.select_page(
        api, media.MEDIA_FILES, ("media_file.account_id = $1", media.OF_MESSAGES), (own,),
        sort=media.MEDIA_FILES.default, after=None, limit=50,
    )  # fmt: skip
    assert len(page.rows) == 50
    assert await media.select_media_file(api, own, page.rows[0]["id"]) is not None


def _page(narrow: CallFilter, found: int = 50) -> Callable[[Any, Pool, UUID], Awaitable[None]]:
    async def ask(api: Any, pool: Pool, own: UUID) -> None:
        page = await queries.select_calls(api, own, narrow, limit=50, legs=True)
        assert len(page.calls) == found

    return ask


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "ask",
    [
        _call, _no_call, _recordings_of_call, _recording, _unfinished, _key, _session, _audit,
        _conversations(50),
        _conversations(50, "conversation.status = 'open'"),
        _conversations(ROWS // 500, "conversation.snoozed_until IS NOT NULL"),
        _conversations(ROWS // 100, "conversation.unread_count > 0"),
        _conversations(ROWS // 100, "conversation.channel = 'whatsapp'"),
        _unread, _timeline, _media_files,
        _page(CallFilter()),
        _page(CallFilter(statuses=(Status.MISSED,))),
        _page(CallFilter(directions=(Direction.OUTBOUND,))),
        _page(CallFilter(statuses=(Status.BUSY,)), 0),
        _page(CallFilter(from_="7")),
        _page(CallFilter(number="7")),
        _page(CallFilter(number="nobody"), 0),
        _lead, _kept,
        _leads(None, None, 50),
        _leads(None, None, 50, Sort("updatedAt", False)),
        _leads(leads.BY_PHONE, "+4417", 1),
        _leads(leads.BY_PHONE, "+44170", 2),
        _leads(leads.BY_PHONE, "nobody", 0),
        _leads(leads.BY_EMAIL, ["17@x"], 1),
        _leads("lead.external_id = {}", "17", 1),
    ],
)  # fmt: skip
async def test_nothing_is_read_to_be_thrown_away(
    api: Explaining, pool: Pool, own: UUID, ask: Callable[[Any, Pool, UUID], Awaitable[None]]
) -> None:
    await ask(api, pool, own)
    assert api.read_for_nothing
    for plan, rows in api.read_for_nothing.items():
        assert rows <= MOST_READ_FOR_NOTHING, plan


@pytest.mark.asyncio
async def test_this_would_notice_it(api: Explaining, own: UUID) -> None:
    await api.fetch("SELECT id FROM call WHERE account_id = $1 AND id = coalesce((SELECT NULL::uuid), $2)", own, own)
    assert min(api.read_for_nothing.values()) >= ROWS
