"""Events as they happen: by long poll and WebSocket, resumable, for many, some of whom are slow or strangers."""

import asyncio
import json
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest
from aiohttp import WSMsgType
from people import SECRET, add_key
from served import Away, Serve, Served
from structlog.testing import capture_logs

from trunkline.api import feed as feed_module
from trunkline.api import live
from trunkline.api.feed import KEPT, PAGE, Feed
from trunkline.identity import known, tokens
from trunkline.identity.keys import make_key
from trunkline.identity.tokens import Claims
from trunkline.store.events import EventLine, select_event_lines
from trunkline.store.pool import Connection, Pool

pytestmark = pytest.mark.asyncio

KEY = "a-key-of-the-test"
_TELL = """
WITH cursor AS (
    INSERT INTO event_cursor AS held (account_id, last_seq) VALUES ($1, $2)
    ON CONFLICT (account_id) DO UPDATE SET last_seq = held.last_seq + $2 RETURNING last_seq
), written AS (
    INSERT INTO event (account_id, seq, type, data)
    SELECT $1, last_seq - $2 + n, $3, $4::jsonb FROM cursor, generate_series(1, $2) AS n
)
SELECT pg_notify('trunkline_event', $1::text || ' ' || last_seq::text) FROM cursor
"""


async def tell(
    pool: Pool,
    account_id: UUID,
    type_: str = "call.ringing",
    count: int = 1,
    *,
    rang: tuple[str, ...] = (),
    pad: int = 0,
) -> None:
    """So many events, in one transaction."""
    data = {"call": {"rang": rang, "direction": "INBOUND", "from": "15551234567", "to": "3000"}, "pad": "x" * pad}
    await pool.execute(_TELL, account_id, count, type_, json.dumps(data))


def seqs(page: dict[str, Any]) -> list[int]:
    return [event["seq"] for event in page["items"]]


async def test_pages_follow_each_other_to_the_end(api: Served, pool: Pool, account_id: UUID) -> None:
    assert await api.get("/api/v1/events") == (200, {"items": [], "nextAfter": 0})
    await tell(pool, account_id, count=250)
    seen: list[int] = []
    after = 0
    while True:
        status, page = await api.get(f"/api/v1/events?after={after}&limit=100")
        assert status == 200
        if not page["items"]:
            break
        seen += seqs(page)
        after = page["nextAfter"]
        assert after == seen[-1]
    assert seen == list(range(1, 251))
    _, page = await api.get("/api/v1/events?limit=1")
    (event,) = page["items"]
    assert sorted(event) == ["callId", "conversationId", "createdAt", "data", "leadId", "seq", "type"]


async def test_a_long_poll_is_answered_by_the_next_event(api: Served, pool: Pool, account_id: UUID) -> None:
    await tell(pool, account_id)
    waiting = [asyncio.create_task(api.get("/api/v1/events?after=1&wait=30")) for _ in range(20)]
    others = asyncio.create_task(api.get("/api/v1/events?after=1&wait=30&types=call.ended"))
    await tell(pool, account_id, "call.answered")
    async with asyncio.timeout(10):
        for status, page in await asyncio.gather(*waiting):
            assert (status, seqs(page), page["nextAfter"]) == (200, [2], 2)
        await tell(pool, account_id, "call.ended")
        assert seqs((await others)[1]) == [3]


async def test_types_and_extension_choose_and_the_cursor_goes_on_all_the_same(
    api: Served, pool: Pool, account_id: UUID
) -> None:
    await tell(pool, account_id, "call.ringing", rang=("1001",))
    await tell(pool, account_id, "call.ended", rang=("1001", "1002"))
    await tell(pool, account_id, "lead.created", 3)
    for query, expected in (
        ("", [1, 2, 3, 4, 5]),
        ("types=call.*", [1, 2]),
        ("types=call.ended,lead.created", [2, 3, 4, 5]),
        ("types=call.held", []),
        ("extension=1002", [2]),
        ("extension=1001&types=call.ringing", [1]),
        ("extension=100", []),
    ):
        _, page = await api.get(f"/api/v1/events?{query}")
        assert (seqs(page), page["nextAfter"]) == (expected, 5), query


async def test_what_is_far_behind_comes_from_the_table_and_meets_what_is_kept(
    api: Served, pool: Pool, account_id: UUID
) -> None:
    await tell(pool, account_id, count=PAGE)
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=0") as socket:
        for _ in range(3):
            await tell(pool, account_id, count=KEPT)
        seen = []
        async with asyncio.timeout(60):
            while len(seen) < PAGE + 3 * KEPT:
                told = await socket.receive_json()
                if told["type"] not in ("hello", "heartbeat"):
                    seen.append(told["seq"])
    assert seen == list(range(1, PAGE + 3 * KEPT + 1))


async def test_a_socket_is_told_what_happens_from_now_on(api: Served, pool: Pool, account_id: UUID) -> None:
    await tell(pool, account_id, count=3)
    assert seqs((await api.get("/api/v1/events?after=0&wait=5"))[1]) == [1, 2, 3]
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?types=call.*") as socket:
        hello = await socket.receive_json()
        assert (hello["type"], hello["seq"]) == ("hello", 3)
        await tell(pool, account_id, "lead.created")
        await tell(pool, account_id, "call.answered")
        assert (await socket.receive_json())["seq"] == 5


async def test_a_socket_that_comes_back_misses_nothing_and_sees_nothing_twice(
    api: Served, pool: Pool, account_id: UUID
) -> None:
    seen: list[int] = []
    telling = asyncio.create_task(_tell_on(pool, account_id, 60))
    async with asyncio.timeout(30):
        while len(seen) < 60:
            async with api.client.ws_connect(f"{api.url}/api/v1/ws?after={seen[-1] if seen else 0}") as socket:
                for _ in range(7):  # and then it is gone, whatever is under way
                    told = await socket.receive_json()
                    if told["type"] == "call.ringing":
                        seen.append(told["seq"])
                    if len(seen) == 60:
                        break
    await telling
    assert seen == list(range(1, 61))


async def _tell_on(pool: Pool, account_id: UUID, count: int) -> None:
    for _ in range(count // 3):
        await tell(pool, account_id, count=3)


@pytest.mark.parametrize("path", ["/api/v1/events?after=4", "/api/v1/events?after=4&wait=5"])
async def test_a_cursor_of_another_database_is_refused(api: Served, pool: Pool, account_id: UUID, path: str) -> None:
    await tell(pool, account_id, count=3)
    status, problem = await api.get(path)
    assert (status, problem["code"]) == (409, "cursor_ahead")
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=4") as socket:
        assert (await socket.receive_json())["type"] == "hello"
        message = await socket.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, live.CLOSE_AHEAD, "cursor_ahead")


async def test_another_accounts_events_are_not_seen(api: Served, pool: Pool, account_id: UUID) -> None:
    other = await pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=0") as socket:
        assert (await socket.receive_json())["type"] == "hello"
        await tell(pool, other, "call.ringing", 5)
        await tell(pool, account_id, "call.ended")
        told = await socket.receive_json()
        assert (told["seq"], told["type"]) == (1, "call.ended")
    assert seqs((await api.get("/api/v1/events"))[1]) == [1]


@pytest.mark.parametrize("how", ["header", "subprotocol", "message"])
async def test_a_key_lets_a_socket_in(serve: Serve, pool: Pool, account_id: UUID, how: str) -> None:
    api = await serve(pool, keys=[KEY])
    headers = {"X-API-Key": KEY} if how == "header" else {}
    protocols = (live.PROTOCOL, f"bearer.{KEY}") if how == "subprotocol" else (live.PROTOCOL,)
    async with api.client.ws_connect(f"{api.url}/api/v1/ws", headers=headers, protocols=protocols) as socket:
        if how == "message":
            await socket.send_json({"type": "auth", "key": KEY})
        assert (await socket.receive_json())["type"] == "hello"
        assert socket.protocol == live.PROTOCOL


@pytest.mark.parametrize(
    "first", [b'{"type":"auth","key":"wrong"}', b'{"key":"%s"}' % KEY.encode(), b"[]", b"\xff", b"{" * 5000, None]
)
async def test_without_a_key_a_socket_is_told_nothing(
    serve: Serve, pool: Pool, account_id: UUID, first: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await serve(pool, keys=[KEY])
    await tell(pool, account_id)
    if first is None:
        monkeypatch.setattr(live, "AUTH_S", 0.05)
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=0") as socket:
        if first is not None:
            await socket.send_frame(first, WSMsgType.TEXT if first != b"\xff" else WSMsgType.BINARY)
        message = await socket.receive()
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        assert message.data in (live.CLOSE_NO_KEY, None, 1009)


async def test_a_page_of_another_site_is_not_let_in(serve: Serve, pool: Pool, account_id: UUID) -> None:
    api = await serve(pool, origins=["https://crm.example.com"])
    for origin in ("https://crm.example.com", api.url):
        async with api.client.ws_connect(f"{api.url}/api/v1/ws", headers={"Origin": origin}) as socket:
            assert (await socket.receive_json())["type"] == "hello"
    for origin in ("https://evil.example.com", "null", "https://crm.example.com.evil.example.com"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await api.client.ws_connect(f"{api.url}/api/v1/ws", headers={"Origin": origin})


async def test_plain_http_is_told_what_the_route_takes(api: Served) -> None:
    status, problem = await api.get("/api/v1/ws")
    assert (status, problem["code"]) == (426, "no_websocket")


class _Heard:
    """A log that says when a socket was called slow."""

    def __init__(self) -> None:
        self.slow = asyncio.Event()

    def info(self, event: str, **told: object) -> None:
        assert event == "api.socket_slow"
        self.slow.set()


async def test_who_does_not_read_is_cut_and_nobody_waits_for_it(
    api: Served, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SLOW_S", 0.5)
    host, port = api.url.removeprefix("http://").split(":")
    slow_reader, slow = await asyncio.open_connection(host, int(port), limit=1024)
    slow.write(
        f"GET /api/v1/ws?after=0 HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await slow_reader.readline()
    log = _Heard()
    monkeypatch.setattr(live, "log", log)
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=0") as quick, asyncio.timeout(30):
        seen = []
        for n in range(1, 41):
            await tell(pool, account_id, count=10, pad=100_000)
            while len(seen) < 10 * n:  # it reads while it is told: with all of it at once it would be slow too
                told = await quick.receive_json()
                if told["type"] == "call.ringing":
                    seen.append(told["seq"])
        assert seen == list(range(1, 401))
        await log.slow.wait()
    with suppress(ConnectionError):  # after what was on its way comes the end, whichever way it is told
        while await slow_reader.read(1 << 20):
            pass
    slow.close()


async def test_many_sockets_cost_one_read_of_each_event(api: Served, pool: Pool, account_id: UUID) -> None:
    feed = _feed(api)
    sockets = [await api.client.ws_connect(f"{api.url}/api/v1/ws") for _ in range(50)]
    for socket in sockets:
        assert (await socket.receive_json())["type"] == "hello"
    before = feed.reads
    for _ in range(10):
        await tell(pool, account_id)
    async with asyncio.timeout(10):
        for socket in sockets:
            assert [(await socket.receive_json())["seq"] for _ in range(10)] == list(range(1, 11))
    assert feed.reads - before <= 50  # for each the news and the look that finds no more; not one a socket
    for socket in sockets:
        await socket.close()


async def test_the_feed_goes_on_when_its_connection_is_cut(api: Served, pool: Pool, account_id: UUID) -> None:
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=0") as socket:
        assert (await socket.receive_json())["type"] == "hello"
        await tell(pool, account_id)
        assert (await socket.receive_json())["seq"] == 1
        cut = await pool.fetchval(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        assert cut >= 1
        async with asyncio.timeout(20):
            await tell(pool, account_id)
            assert (await socket.receive_json())["seq"] == 2


async def test_a_stop_sends_sockets_and_long_polls_home(serve: Serve, pool: Pool, account_id: UUID) -> None:
    api = await serve(pool)
    polling = asyncio.create_task(api.get("/api/v1/events?wait=30"))
    async with api.client.ws_connect(f"{api.url}/api/v1/ws") as socket:
        assert (await socket.receive_json())["type"] == "hello"
        _feed(api).stop()
        async with asyncio.timeout(5):
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
            assert await polling == (200, {"items": [], "nextAfter": 0})


def _feed(api: Served) -> Feed:
    return api.state.feed


async def test_a_key_that_may_not_read_events_hears_none_and_a_revoked_one_no_more(
    serve: Serve, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await serve(pool, keys=[KEY])
    monkeypatch.setattr(live, "RECHECK_S", 0.0)
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(known, "KNOWN_FOR_S", 0.0)
    _, deaf = await add_key(pool, account_id, ["calls:read"])
    async with api.client.ws_connect(f"{api.url}/api/v1/ws", headers={"X-API-Key": deaf}) as socket:
        message = await socket.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, live.CLOSE_NO_KEY)
    key_id, key = await add_key(pool, account_id, ["events:read"])
    async with api.client.ws_connect(f"{api.url}/api/v1/ws", headers={"X-API-Key": key}) as socket:
        assert (await socket.receive_json())["type"] == "hello"
        await tell(pool, account_id)
        await pool.execute("UPDATE api_key SET revoked_at = now() WHERE id = $1", key_id)
        async with asyncio.timeout(10):
            while (message := await socket.receive()).type is WSMsgType.TEXT:
                pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, live.CLOSE_NO_KEY)


async def _first(api: Served, **options: Any) -> aiohttp.WSMessage:
    """What a socket is told first: nothing but a close where it is not let in."""
    async with api.client.ws_connect(f"{api.url}/api/v1/ws", **options) as socket, asyncio.timeout(10):
        return await socket.receive()


async def test_who_cannot_be_looked_up_is_not_let_in(serve: Serve, pool: Pool, account_id: UUID, away: Away) -> None:
    api = await serve(pool, keys=[KEY], secret=SECRET)
    _, unscoped = await add_key(pool, account_id, ["calls:read"])
    _, scoped = await add_key(pool, account_id, ["events:read"])
    stranger = tokens.issue(SECRET, account_id, Claims(uuid4(), uuid4(), 0))
    await tell(pool, account_id, count=3)
    headers = {"X-API-Key": KEY}
    assert seqs((await api.get("/api/v1/events?after=0&wait=5", headers=headers))[1]) == [1, 2, 3]
    async with away():
        for key in (make_key().text, unscoped, scoped, stranger):
            for how in ({"protocols": (live.PROTOCOL, f"bearer.{key}")}, {"headers": {"X-API-Key": key}}):
                message = await _first(api, **how)
                assert (message.type, message.data) == (WSMsgType.CLOSE, 1013), key
        assert json.loads((await _first(api, headers=headers)).data)["type"] == "hello"  # that one is in the settings
    for key, close in ((unscoped, live.CLOSE_NO_KEY), (stranger, live.CLOSE_NO_KEY)):
        message = await _first(api, headers={"X-API-Key": key})
        assert (message.type, message.data) == (WSMsgType.CLOSE, close)
    assert json.loads((await _first(api, headers={"X-API-Key": scoped})).data)["type"] == "hello"


async def test_a_socket_outlives_a_database_that_is_away(
    serve: Serve, pool: Pool, account_id: UUID, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HEARTBEAT_S", 0.1), ("RECHECK_S", 0.0), ("AGAIN_S", 0.05)):
        monkeypatch.setattr(live, name, value)
    monkeypatch.setattr(known, "KNOWN_FOR_S", 0.0)
    await tell(pool, account_id, count=3)
    _, key = await add_key(pool, account_id, ["events:read"])
    api = await serve(pool, keys=[KEY])
    async with asyncio.timeout(30):
        assert await _feed(api).news(-1, 10)
        proven = await api.client.ws_connect(f"{api.url}/api/v1/ws?after=3", headers={"X-API-Key": key})
        assert (await proven.receive_json())["type"] == "hello"
        with capture_logs() as logs:
            async with away():
                url = f"{api.url}/api/v1/ws?after=0"  # which is not in memory
                async with api.client.ws_connect(url, headers={"X-API-Key": KEY}) as leaves:
                    for type_ in ("hello", "heartbeat"):
                        assert (await leaves.receive_json())["type"] == type_
                behind = await api.client.ws_connect(url, headers={"X-API-Key": KEY})
                for type_ in ("hello", "heartbeat", "heartbeat"):
                    assert await behind.receive_json() | {"heartbeatSeconds": 0} == {
                        "type": type_, "seq": 0, "heartbeatSeconds": 0
                    }  # fmt: skip
            await tell(pool, account_id)
            for socket, expected in ((behind, [1, 2, 3, 4]), (proven, [4])):
                seen = []
                while len(seen) < len(expected):
                    told = await socket.receive_json()
                    seen += [told["seq"]] if told["type"] == "call.ringing" else []
                assert seen == expected
                await socket.close()
    # Who leaves leaves quietly: no answer is made for a connection that takes none.
    assert not [entry for entry in logs if entry["event"].startswith(("http.", "api.socket"))]


async def test_a_socket_is_closed_by_what_should_not_happen(
    api: Served, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(after: int, *, fresh: bool = False) -> list[Any]:
        raise ValueError

    monkeypatch.setattr(_feed(api), "read", broken)
    with capture_logs() as logs:
        async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=0") as socket, asyncio.timeout(10):
            assert (await socket.receive_json())["type"] == "hello"
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1011)
    assert [entry["event"] for entry in logs] == ["api.socket_failed"]


async def test_from_now_on_is_never_from_the_first_event(
    serve: Serve, pool: Pool, account_id: UUID, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.1)
    await tell(pool, account_id, count=3)
    headers = {"X-API-Key": KEY}
    async with away():
        api = await serve(pool, keys=[KEY])
        message = await _first(api, headers=headers)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1013)
    assert await _feed(api).news(-1, 10)
    assert json.loads((await _first(api, headers=headers)).data)["seq"] == 3


async def test_an_event_that_is_odd_is_told_as_it_is(api: Served, pool: Pool, account_id: UUID) -> None:
    odd = {"call": {"rang": [1001], "from": 5}}
    await pool.execute(_TELL, account_id, 1, "call.ringing", json.dumps(odd))
    await tell(pool, account_id, "call.ended")
    async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=0") as socket, asyncio.timeout(10):
        assert [(await socket.receive_json()).get("data") for _ in range(2)] == [None, odd]
        assert (await socket.receive_json())["type"] == "call.ended"
    status, page = await api.get("/api/v1/events")
    assert (status, seqs(page)) == (200, [1, 2])


@pytest.mark.parametrize(
    ("cause", "said"),
    [(ValueError("the cause"), "api.feed_failed"), (asyncpg.InterfaceError("the cause"), "api.feed_away")],
)
async def test_the_feed_goes_on_after_whatever_fails_and_says_why(
    api: Served, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch, cause: Exception, said: str
) -> None:
    failed = asyncio.Event()

    async def fails_once(connection: Connection, *arguments: Any) -> list[EventLine]:
        if failed.is_set() or isinstance(connection, asyncpg.Pool):
            return await select_event_lines(connection, *arguments)
        failed.set()
        connection.terminate()  # by whom the connection is taken away from the feed, too
        raise cause

    monkeypatch.setattr(feed_module, "_AGAIN_S", 0.05)
    async with asyncio.timeout(15):
        async with api.client.ws_connect(f"{api.url}/api/v1/ws") as socket:
            assert (await socket.receive_json())["type"] == "hello"
            with capture_logs() as logs:
                monkeypatch.setattr(feed_module, "select_event_lines", fails_once)
                await tell(pool, account_id)
                assert (await socket.receive_json())["seq"] == 1
    assert failed.is_set()
    (entry,) = logs
    assert entry["event"] == said
    assert said == "api.feed_failed" or "the cause" in entry["error"]


async def test_a_database_that_was_restored_meanwhile_is_followed_from_where_it_is(
    api: Served, pool: Pool, account_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_AGAIN_S", 0.05)
    feed = _feed(api)
    async with asyncio.timeout(20):
        assert await feed.news(-1, 10)
        await tell(pool, account_id, count=10)
        while feed.last != 10:
            await pool.fetchval("SELECT 1")
        await pool.execute("DELETE FROM event WHERE seq > 4")
        await pool.execute("UPDATE event_cursor SET last_seq = 4")
        await pool.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
        while feed.last != 4:
            await pool.fetchval("SELECT 1")
        await tell(pool, account_id, "call.answered")
        async with api.client.ws_connect(f"{api.url}/api/v1/ws?after=4") as socket:
            assert (await socket.receive_json())["type"] == "hello"
            told = await socket.receive_json()
            assert (told["seq"], told["type"]) == (5, "call.answered")
