"""The daemon as a whole, against a scripted AMI and a real PostgreSQL, when one of them is not as it should be."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
import trio
from ami_peer import Peer, channel_lines, event, newchannel, within

from trunkline import app, config
from trunkline.aio import open_asyncio_thread
from trunkline.calls import tracker
from trunkline.calls.record import CallUpdate
from trunkline.embedded.postgres import Postgres
from trunkline.store.migrate import upgrade


class Ran:
    """One run of the daemon."""

    def __init__(self) -> None:
        self.updates: list[CallUpdate] = []
        self.url = ""
        self.ready = trio.Event()
        self._news = trio.Event()

    def on_update(self, updates: Sequence[CallUpdate]) -> None:
        self.updates += updates
        self._news.set()
        self._news = trio.Event()

    def on_ready(self, url: str) -> None:
        self.url = url
        self.ready.set()

    async def happened(self, what: str) -> CallUpdate:
        """Wait for the first update in which it happened."""
        while True:
            for update in self.updates:
                if what in update.happened:
                    return update
            await self._news.wait()


def settings(peer: Peer, url: str, spool: Path, **sections: Any) -> config.Settings:
    raw = {
        "database": {"url": url},
        "pbx": [{"host": "127.0.0.1", "port": peer.port, "username": peer.username, "secret": peer.secret}],
        "http": {"port": 0},
        "spool": {"path": str(spool)},
    }
    return config.check({**raw, **sections})


@asynccontextmanager
async def pbx() -> AsyncIterator[Peer]:
    peer = Peer()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        yield peer
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(wanted: config.Settings, **how: Any) -> AsyncIterator[Ran]:
    ran = Ran()

    async def run() -> None:
        await app.run(wanted, on_update=ran.on_update, ready=ran.on_ready, **how)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await ran.ready.wait()
        yield ran
        nursery.cancel_scope.cancel()


async def until_followed(peer: Peer, sessions: int = 1) -> None:
    """Until the link has asked all its lists in this session."""
    await peer.until(lambda: peer.asked("ParkedCalls") >= sessions)


async def calls_in(url: str) -> list[dict[str, Any]]:
    async def select() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(url)
        try:
            return [dict(row) for row in await connection.fetch("SELECT * FROM call ORDER BY started_at, id")]
        finally:
            await connection.close()

    async with open_asyncio_thread() as aio:
        return await aio.call(select)


async def stored(url: str, *, of: int = 1) -> list[dict[str, Any]]:
    """The calls, as soon as there are so many."""
    while len(calls := await calls_in(url)) < of:  # noqa: ASYNC110  # PostgreSQL tells nobody; the test has a deadline
        await trio.sleep(0.05)
    return calls


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


async def until_counted(ran: Ran, sample: str) -> None:
    """Until the metrics have it."""
    while sample not in await trio.to_thread.run_sync(get, f"{ran.url}/metrics"):  # noqa: ASYNC110
        await trio.sleep(0.02)


async def until_ended(url: str, external_id: str, *, of: int) -> None:
    """Until there are so many calls, and this one has ended."""
    while True:
        calls = await calls_in(url)
        if len(calls) == of and any(call["ended_at"] for call in calls if call["external_id"] == external_id):
            return
        await trio.sleep(0.05)


async def integrations_in(url: str) -> list[str]:
    """What the PBXs are called."""

    async def select() -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch("SELECT external_id FROM integration ORDER BY external_id")
            return [row["external_id"] for row in rows]
        finally:
            await connection.close()

    async with open_asyncio_thread() as aio:
        return await aio.call(select)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """A server that may be stopped and started again; not running yet."""
    server = Postgres(tmp_path / "postgres", durable=False)
    yield server
    server.remove()  # as root its data may be elsewhere


def signal_all(server: Postgres, number: signal.Signals) -> None:
    """Signal the server and each of its backends, which are in sessions of their own."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in (server.pid, *map(int, children)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def hangup(number: int) -> bytes:
    return event("Hangup", *channel_lines(number, "Cause: 16", "Cause-txt: Normal Clearing"))


@pytest.mark.trio
async def test_an_event_on_the_wire_becomes_a_row(database_url: str, tmp_path: Path) -> None:
    with within(20):
        async with pbx() as peer, running(settings(peer, database_url, tmp_path)) as ran:
            await until_followed(peer)
            await peer.conversations[0].send(newchannel(1))
            await ran.happened("call.ringing")
            (call,) = await calls_in(database_url)
            assert (call["status"], call["from_number"], call["pbx"]) == ("ringing", "15551234567", "pbx1")
            await peer.conversations[0].send(hangup(1))
            await ran.happened("call.ended")
            (call,) = await calls_in(database_url)
            assert call["ended_at"] is not None


def dial(url: str, to: str) -> str:
    """What is said to somebody who wants that called; all that may be called is France."""
    body = json.dumps({"extension": "1001", "to": to}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": to.replace(" ", "")}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return str(answer.read())
    except urllib.error.HTTPError as refused:
        return str(json.load(refused)["detail"])


@pytest.mark.trio
async def test_what_is_to_be_called_is_read_in_the_accounts_country_and_the_control_login_is_measured(
    database_url: str, tmp_path: Path
) -> None:
    with within(60):
        async with pbx() as peer:
            told = {"host": "127.0.0.1", "port": peer.port, "username": peer.username, "secret": peer.secret}
            control = {"control_username": peer.username, "control_secret": peer.secret}
            sections = {"account": {"region": "GB"}, "commands": {"destinations": ["FR"]}, "pbx": [told | control]}
            async with running(settings(peer, database_url, tmp_path, **sections)) as ran:
                await until_followed(peer)
                said = await trio.to_thread.run_sync(dial, f"{ran.url}/api/v1/calls", "020 7123 4567")
                assert "leads where commands.destinations does not" in said
                name = f'pbx="127.0.0.1:{peer.port}"'
                await until_counted(ran, f"trunkline_control_link_up{{{name}}} 1.0")
                await until_counted(ran, f"trunkline_control_unanswered_total{{{name}}} 0.0")


async def members_in(url: str) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM queue_member"))
        finally:
            await connection.close()

    async with open_asyncio_thread() as aio:
        return await aio.call(count)


@pytest.mark.trio
async def test_queues_are_written_although_calls_have_not_been_since_they_changed(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of calls is at work for ever: what wakes it then has to wake that of queues all the same."""

    async def stuck(self: object) -> list[CallUpdate]:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(app, "BEAT_S", 3600.0)  # only a change is written
    with within(30):
        async with pbx() as peer, running(settings(peer, database_url, tmp_path)) as ran:
            await until_followed(peer)
            await peer.conversations[0].send(newchannel(1))
            await ran.happened("call.ringing")
            with monkeypatch.context() as patched:
                patched.setattr(app._Daemon, "_write", stuck)
                for number in (1, 2):
                    member = [
                        "Queue: support", f"MemberName: Alice {number}", f"Interface: PJSIP/100{number}",
                        f"StateInterface: PJSIP/100{number}", "Membership: dynamic", "Penalty: 0", "CallsTaken: 0",
                        "LastCall: 0", "LastPause: 0", "LoginTime: 0", "InCall: 0", "Status: 1", "Paused: 0",
                        "PausedReason: ", "Ringinuse: 0", "Wrapuptime: 0",
                    ]  # fmt: skip
                    await peer.conversations[0].send(event("QueueMemberAdded", *member))
                    while await members_in(database_url) < number:  # noqa: ASYNC110  # PostgreSQL tells nobody
                        await trio.sleep(0.05)


@pytest.mark.trio
async def test_two_pbxs_without_a_systemname_stay_two(database_url: str, tmp_path: Path) -> None:
    with within(20):
        async with pbx() as one, pbx() as other:
            sections = []
            for peer in (one, other):
                peer.systemname = ""
                sections.append({"host": "127.0.0.1", "port": peer.port, "secret": peer.secret})
            async with running(settings(one, database_url, tmp_path, pbx=sections)) as ran:
                for peer in (one, other):
                    await until_followed(peer)
                    await peer.conversations[0].send(newchannel(1, systemname=None))  # the same Uniqueid
                calls = await stored(database_url, of=2)
            names = sorted(f"127.0.0.1:{peer.port}" for peer in (one, other))
            assert sorted(call["pbx"] for call in calls) == names
            assert {call["external_id"] for call in calls} == {ran.updates[0].record.external_id}
            assert await integrations_in(database_url) == names


@pytest.mark.trio
async def test_an_older_schema_is_refused_and_migrate_mends_it(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database(f"older_{tmp_path.name}")
    try:
        with within(60):
            async with pbx() as peer:
                with pytest.raises(app.StartError, match=r"has no schema yet.*trunkline migrate"):
                    await app.run(settings(peer, url, tmp_path))
                await trio.to_thread.run_sync(upgrade, url, "0004")
                with pytest.raises(app.StartError, match=r"is at migration 0004.*run `trunkline migrate`"):
                    await app.run(settings(peer, url, tmp_path))
                async with running(settings(peer, url, tmp_path), migrate=True):
                    await until_followed(peer)
    finally:
        postgres.drop_database(f"older_{tmp_path.name}")


@pytest.mark.trio
async def test_a_taken_port_is_named(database_url: str, tmp_path: Path) -> None:
    with within(20), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with pbx() as peer:
            with pytest.RaisesGroup(
                pytest.RaisesExc(app.StartError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*http\.port")
            ):
                await app.run(settings(peer, database_url, tmp_path, http={"port": port}))


@pytest.mark.trio
async def test_a_spool_that_cannot_be_written_is_named(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with within(20):
        async with pbx() as peer:
            with pytest.raises(app.StartError, match=r"spool\.path"):
                await app.run(settings(peer, database_url, tmp_path / "file" / "spool"))


@pytest.mark.trio
async def test_a_database_url_that_asyncpg_refuses_is_named(tmp_path: Path) -> None:
    with within(20):
        async with pbx() as peer:
            with pytest.raises(app.StartError, match=r"database\.url cannot be used.*sslmode"):
                await app.run(settings(peer, "postgresql://u:canary@127.0.0.1/d?sslmode=maybe", tmp_path))


@pytest.mark.trio
async def test_the_api_serves_before_the_first_call(database_url: str, tmp_path: Path) -> None:
    with within(20):
        async with pbx() as peer, running(settings(peer, database_url, tmp_path)) as ran:
            await until_followed(peer)
            answer = await trio.to_thread.run_sync(get, f"{ran.url}/api/v1/calls")
            assert json.loads(answer) == {"items": [], "nextCursor": None}


@pytest.mark.trio
async def test_it_says_how_its_links_stand_and_wakes_conversations(database_url: str, tmp_path: Path) -> None:
    async def asked(statement: str) -> Any:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    said = "SELECT (up, heard_at > now() - interval '1 minute')::text FROM integration_link"
    woken = "SELECT count(*) FROM event WHERE type = 'conversation.woken'"
    with within(20):
        async with open_asyncio_thread() as aio, pbx() as peer:
            await aio.call(asked, "INSERT INTO account (name) VALUES ('default')")
            await aio.call(
                asked,
                "INSERT INTO conversation (account_id, channel, snoozed_until)"
                " SELECT id, 'telephony', now() FROM account",
            )
            async with running(settings(peer, database_url, tmp_path, account={"name": "default"})):
                while await aio.call(asked, said) != "(t,t)":  # noqa: ASYNC110  # it is in a database
                    await trio.sleep(0.05)
                while not await aio.call(asked, woken):  # noqa: ASYNC110
                    await trio.sleep(0.05)


@pytest.mark.trio
async def test_a_database_that_is_down_at_the_start_loses_no_call(server: Postgres, tmp_path: Path) -> None:
    with within(60):
        await trio.to_thread.run_sync(server.start)
        try:
            url = await trio.to_thread.run_sync(server.create_database, "trunkline")
            await trio.to_thread.run_sync(upgrade, url)
            await trio.to_thread.run_sync(server.stop)
            with structlog.testing.capture_logs() as log:
                async with pbx() as peer, running(settings(peer, url, tmp_path / "spool")) as ran:
                    await until_followed(peer)
                    await peer.conversations[0].send(newchannel(1) + hangup(1))
                    await ran.happened("call.ended")  # in the spool by now
                    away = [line for line in log if line["event"] == "database.away"]
                    assert len(away) == 1
                    assert away[0]["todo"]
                    await trio.to_thread.run_sync(server.start)
                    calls = await stored(url)
            assert len(calls) == 1
            assert calls[0]["ended_at"] is not None
        finally:
            await trio.to_thread.run_sync(server.remove)


@pytest.mark.trio
async def test_a_call_outlives_the_daemon(database_url: str, tmp_path: Path) -> None:
    with within(30):
        async with pbx() as peer:
            async with running(settings(peer, database_url, tmp_path)) as ran:
                await until_followed(peer)
                await peer.conversations[0].send(newchannel(1) + newchannel(2))
                await ran.happened("call.ringing")
            before = await calls_in(database_url)
            assert [call["ended_at"] for call in before] == [None, None]
            peer.channels = [2]  # the first one ended while nobody looked
            async with running(settings(peer, database_url, tmp_path)) as ran:
                ended = await ran.happened("call.ended")
                assert ended.record.end_reason == "PBX_LOST"
                await until_followed(peer, 2)
                ran.updates.clear()
                await peer.conversations[1].send(hangup(2))
                await ran.happened("call.ended")
            after = await calls_in(database_url)
    assert [call["id"] for call in after] == [call["id"] for call in before]
    assert all(call["ended_at"] for call in after)
    assert all(new["revision"] > old["revision"] for new, old in zip(after, before, strict=True))


@pytest.mark.trio
async def test_a_call_outlives_the_daemon_and_the_database(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "ADOPT_S", 0.1)
    with within(60):
        await trio.to_thread.run_sync(server.start)
        try:
            url = await trio.to_thread.run_sync(server.create_database, "trunkline")
            await trio.to_thread.run_sync(upgrade, url)
            async with pbx() as peer:
                async with running(settings(peer, url, tmp_path / "spool")) as ran:
                    await until_followed(peer)
                    await peer.conversations[0].send(newchannel(1))
                    await ran.happened("call.ringing")
                (before,) = await calls_in(url)
                await trio.to_thread.run_sync(server.stop)
                peer.channels = [1]
                async with running(settings(peer, url, tmp_path / "spool")) as ran:
                    await ran.happened("call.ringing")  # by the lists: nobody could say what was before
                    await trio.to_thread.run_sync(server.start)
                    await peer.until(lambda: peer.asked("ParkedCalls") == 3)  # adopted, and asked again
                    await peer.conversations[1].send(hangup(1))
                    await ran.happened("call.ended")
                    (after,) = await calls_in(url)
        finally:
            await trio.to_thread.run_sync(server.remove)
    assert after["id"] == before["id"]
    assert after["ended_at"] is not None


@pytest.mark.trio
async def test_a_database_that_hangs_does_not_keep_the_daemon_from_stopping(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "STOP_S", 0.5)
    with within(60):
        await trio.to_thread.run_sync(server.start)
        try:
            url = await trio.to_thread.run_sync(server.create_database, "trunkline")
            await trio.to_thread.run_sync(upgrade, url)
            async with pbx() as peer:
                async with running(settings(peer, url, tmp_path / "spool")) as ran:
                    await until_followed(peer)
                    await peer.conversations[0].send(newchannel(1))
                    await ran.happened("call.ringing")
                    signal_all(server, signal.SIGSTOP)
                    await peer.conversations[0].send(hangup(1) + newchannel(2))
                    await until_counted(ran, 'kind="Hangup"')
                    stopping = trio.current_time()
                assert trio.current_time() - stopping < 3
                signal_all(server, signal.SIGCONT)
                peer.channels = [2]
                async with running(settings(peer, url, tmp_path / "spool")):
                    await until_followed(peer, 2)
                    await until_ended(url, "pbx1-1795347145.1", of=2)
        finally:
            signal_all(server, signal.SIGCONT)
            await trio.to_thread.run_sync(server.stop)


@pytest.mark.trio
async def test_calls_of_a_pbx_that_restarted_end(database_url: str, tmp_path: Path) -> None:
    with within(30):
        async with pbx() as peer, running(settings(peer, database_url, tmp_path)) as ran:
            await until_followed(peer)
            await peer.conversations[0].send(newchannel(1))
            await ran.happened("call.ringing")
            peer.uptime_s, peer.started = 0, ("2026-11-22", "15:00:00")
            await peer.conversations[0].cut()
            ended = await ran.happened("call.ended")
    assert ended.record.end_reason == "PBX_LOST"


@pytest.mark.trio
async def test_a_fault_of_the_tracker_costs_a_resync_and_not_the_daemon(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    with within(30), structlog.testing.capture_logs() as log:
        async with pbx() as peer, running(settings(peer, database_url, tmp_path)) as ran:
            await until_followed(peer)
            monkeypatch.setitem(tracker._HANDLERS, "Newchannel", fault)
            peer.channels = [1]
            await peer.conversations[0].send(newchannel(1))
            await ran.happened("call.ringing")  # by the lists
    assert [line["kind"] for line in log if line["event"] == "tracker.fault"] == ["Newchannel"]
    assert len(await calls_in(database_url)) == 1
