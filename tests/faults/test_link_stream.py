"""A link that is up: what the stream may do to it, and what the consumer is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing
from ami_peer import Conversation, Notes, Peer, channel_lines, event, newchannel, packet, within
from structlog.testing import capture_logs

from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.event import Event
from trunkline.asterisk.link import MAX_BUFFERED, Link
from trunkline.asterisk.session import Reason

CLOCK = trio.testing.MockClock


@asynccontextmanager
async def linked(
    peer: Peer, notes: Notes | None = None, *, in_step: bool = True, **options: object
) -> AsyncIterator[tuple[Link, Notes]]:
    """A link to the peer; in_step: that has resynced."""
    notes = notes or Notes()
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        link = Link(peer.settings(), notes, backoff=Backoff(jitter=lambda: 0.0), **options)  # type: ignore[arg-type]
        nursery.start_soon(link.run)
        if in_step:
            with within(60):
                await notes.until(lambda: notes.snapshots)
        yield link, notes
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_login_then_lists_then_events() -> None:
    peer = Peer()
    peer.channels = [7]
    peer.variables = {"MIXMONITOR_FILENAME": "/rec/a.wav", "CDR(start)": "2026-11-22 11:32:25"}
    with within(10):
        async with linked(peer) as (link, notes):
            await peer.conversations[0].send(newchannel(8))
            await notes.until(lambda: notes.events)
            assert notes.order == ["connected", "resynced", "event"]
            assert link.up
            assert (link.connects, link.reconnects, link.resyncs) == (1, 0, 1)
    hello, (snapshot, buffered) = notes.hellos[0], notes.snapshots[0]
    assert (hello.systemname, hello.version, hello.uptime_s, hello.restarted) == ("pbx1", "22.10.1", 100, False)
    assert (list(snapshot.channels), buffered, snapshot.whole) == (["pbx1-1795347145.7"], [], True)
    assert snapshot.variables == {
        "pbx1-1795347145.7": {"MIXMONITOR_FILENAME": "/rec/a.wav", "CDR(start)": "2026-11-22 11:32:25"}
    }
    login = next(a for a in peer.conversations[0].actions if a["Action"] == "Login")
    assert "Secret" not in login
    assert "security" not in login["Events"]
    ids = [a["ActionID"] for a in peer.conversations[0].actions]
    assert len(set(ids)) == len(ids)
    assert {len(i) for i in ids} == {32}
    assert notes.endings[0][0] == "shutdown"
    assert not link.up


@pytest.mark.trio
async def test_events_during_the_lists_come_after_them_in_order(autojump_clock: CLOCK) -> None:
    peer, notes = Peer(), Notes()
    release = trio.Event()
    asked: list[tuple[Conversation, str]] = []

    def held_back(conversation: Conversation, fields: dict[str, str]) -> bytes:
        asked.append((conversation, fields["ActionID"]))
        return newchannel(1)

    peer.answers["CoreShowChannels"] = held_back

    async def finish() -> None:
        await peer.until(lambda: asked and peer.asked("ParkedCalls"))
        conversation, action_id = asked[0]
        await conversation.send(newchannel(2) + b"".join(peer.list_rows("CoreShowChannels", action_id))[:-100])
        await conversation.send(b"".join(peer.list_rows("CoreShowChannels", action_id))[-100:] + newchannel(3))
        release.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish)
        async with linked(peer, notes):
            await release.wait()
            await notes.until(lambda: len(notes.all_events) == 3)
    seen = [e.fields["Uniqueid"] for e in [*notes.snapshots[0][1], *notes.events]]
    assert seen == ["pbx1-1795347145.1", "pbx1-1795347145.2", "pbx1-1795347145.3"]
    assert [e.fields["Uniqueid"] for e in notes.snapshots[0][1]][:2] == seen[:2]


@pytest.mark.trio
async def test_a_requested_resync_buffers_and_asks_no_variable_twice(autojump_clock: CLOCK) -> None:
    peer = Peer()
    peer.channels = [7]
    async with linked(peer) as (link, notes):
        asked = peer.asked("Getvar")
        await peer.conversations[0].send(newchannel(8))
        await notes.until(lambda: notes.events)
        peer.channels = [7, 8, 9]
        link.request_resync("operator")
        link.request_resync("operator")
        with within(30):
            await notes.until(lambda: len(notes.snapshots) == 2)
        assert list(notes.snapshots[1][0].channels) == [f"pbx1-1795347145.{n}" for n in (7, 8, 9)]
        assert peer.asked("Getvar") == 2 * asked  # for channel 9 only: 7 was asked, 8 was seen from its beginning
        assert (link.resyncs, link.resync_requests) == (2, {"operator": 2})


@pytest.mark.trio
async def test_variables_that_were_not_told_are_asked_again(autojump_clock: CLOCK) -> None:
    peer = Peer()
    peer.channels = [7, 8]
    peer.variables = {"TL_DID": "442070001001"}
    told = peer.answer

    def deaf_once(conversation: Conversation, fields: dict[str, str]) -> bytes:
        deaf = fields["Channel"].endswith("8") and len(notes.snapshots) == 0
        return b"" if deaf else told(conversation, fields)

    notes = Notes()
    peer.answers["Getvar"] = deaf_once
    async with linked(peer, notes) as (link, _):
        with within(60):
            await notes.until(lambda: len(notes.snapshots) == 2)
        assert [sorted(s.variables) for s, _ in notes.snapshots] == [["pbx1-1795347145.7"], ["pbx1-1795347145.8"]]
        assert link.resync_requests == {"variables_unanswered": 1}


@pytest.mark.trio
async def test_resyncs_keep_a_growing_distance(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with linked(peer) as (link, notes):
        at = []
        for n in range(2, 8):
            link.request_resync("again")
            with within(400):
                await notes.until(lambda n=n: len(notes.snapshots) == n)
            at.append(trio.current_time())
        gaps = [round(b - a) for a, b in pairwise(at)]
    assert gaps == [10, 20, 40, 80, 160]


@pytest.mark.trio
async def test_a_thousand_channels_are_in_step_in_seconds() -> None:
    peer = Peer()
    peer.channels = list(range(1000))
    with within(20):
        async with linked(peer) as (link, notes):
            assert len(notes.snapshots[0][0].channels) == 1000
            assert peer.asked("Getvar") == 4000
            assert link.resync_s < 5


@pytest.mark.trio
async def test_lists_that_never_end_make_the_link_start_again(autojump_clock: CLOCK) -> None:
    peer = Peer()
    peer.answers["Status"] = lambda conversation, fields: b""
    async with linked(peer, in_step=False) as (link, notes):
        with within(60):
            await notes.until(lambda: notes.endings)
    assert notes.order[:2] == ["connected", "disconnected"]
    assert link.connect_failures == {Reason.RESYNC_FAILED: 1}


@pytest.mark.trio
async def test_lists_that_fail_on_a_live_link_lose_no_event(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with linked(peer) as (link, notes):
        sent: list[str] = []

        def late(conversation: Conversation, fields: dict[str, str]) -> bytes:
            sent.append(fields["ActionID"])
            return newchannel(5)

        peer.answers["Status"] = late
        link.request_resync("operator")
        with within(60):
            await notes.until(lambda: notes.events)
        del peer.answers["Status"]
        # What comes too late is no event, and no reason to suspect anybody.
        await peer.conversations[0].send(b"".join(peer.list_rows("Status", sent[0])) + newchannel(6))
        await notes.until(lambda: len(notes.all_events) == 2)
        assert link.refused == {}
        with within(60):
            await notes.until(lambda: len(notes.snapshots) == 2)
        assert (link.resyncs_failed, link.up) == (1, True)


@pytest.mark.trio
async def test_lists_that_the_login_may_not_ask_are_told_and_prove_nothing(autojump_clock: CLOCK) -> None:
    peer = Peer()

    def denied(_: Conversation, fields: dict[str, str]) -> bytes:
        return packet("Response: Error", f"ActionID: {fields['ActionID']}", "Message: Permission denied")

    peer.answers["CoreShowChannels"] = denied
    with capture_logs() as logs:
        async with linked(peer) as (link, notes):
            assert notes.snapshots[0][0].whole is False
            await trio.sleep(30)
            assert link.resyncs == 1
    assert [line["action"] for line in logs if line["event"] == "link.list_refused"] == ["CoreShowChannels"]


@pytest.mark.trio
async def test_half_frames_and_any_chunking() -> None:
    peer = Peer()
    with within(10):
        async with linked(peer) as (_, notes):
            for byte in newchannel(1) + newchannel(2):
                await peer.conversations[0].send(bytes([byte]))
            await notes.until(lambda: len(notes.events) == 2)


@pytest.mark.trio
async def test_ten_megabytes_without_an_end_are_counted_and_read_past() -> None:
    peer = Peer()
    with within(20):
        async with linked(peer) as (link, notes):
            await peer.conversations[0].send(b"Event: VarSet\r\nPrivilege: call,all\r\nValue: ")
            for _ in range(160):
                await peer.conversations[0].send(b"x" * 65536)
            await peer.conversations[0].send(b"\r\n\r\n" + newchannel(1))
            await notes.until(lambda: notes.events)
            assert link.bad == {"oversized": 1}
            assert link.up
            assert notes.endings == []


@pytest.mark.trio
async def test_the_end_in_mid_frame_brings_a_new_link_in_step(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with linked(peer) as (link, notes):
        await peer.conversations[0].send(newchannel(1) + newchannel(2)[:90])
        await notes.until(lambda: notes.events)
        await peer.conversations[0].cut()
        with within(30):
            await notes.until(lambda: len(notes.snapshots) == 2)
        assert notes.order == ["connected", "resynced", "event", "disconnected", "connected", "resynced"]
        assert notes.endings[0][0] == "closed"
        assert notes.hellos[1].restarted is False
        assert (link.reconnects, link.connects, link.connect_failures) == (1, 2, {Reason.CLOSED: 1})


@pytest.mark.trio
@pytest.mark.parametrize("busy", [False, True], ids=["idle link", "link that was busy"])
async def test_a_half_open_link_is_noticed_in_15_seconds(busy: bool, autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with linked(peer) as (link, notes):
        if busy:
            for n in range(30):
                await peer.conversations[0].send(newchannel(n))
                await trio.sleep(0.7)
        peer.mute = True
        last_heard = trio.current_time()
        with within(60):
            await notes.until(lambda: notes.endings)
        assert 6 < trio.current_time() - last_heard <= 15
        assert notes.endings[0][0] == "silent"
        assert not link.up
        peer.mute = False
        with within(60):
            await notes.until(lambda: len(notes.snapshots) == 2)


@pytest.mark.trio
async def test_a_silent_pbx_that_answers_pings_is_kept(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with linked(peer) as (link, notes):
        await trio.sleep(600)
        assert notes.endings == []
        assert link.connects == 1
        assert peer.asked("Ping") > 60


@pytest.mark.trio
@pytest.mark.parametrize(
    ("uptime_s", "started", "restarted"),
    [
        (3, ("2026-11-22", "14:55:00"), True),
        (160, ("2026-11-22", "14:40:18"), False),
        (161, ("2026-11-22", "15:40:18"), False),
        (3760, ("2026-11-22", "14:40:18"), False),
        (158, ("2026-11-22", "14:40:20"), True),
        (0, ("2026-11-22", "15:40:18"), True),
        (3, ("", ""), True),
        (160, ("", ""), False),
    ],
    ids=[
        "restart",
        "the same run",
        "daylight saving time",
        "the PBX's clock was put forward",
        "two boots in two seconds",
        "restart a quarter of an hour later, to the second",
        "restart, no CoreStatus",
        "the same run, no CoreStatus",
    ],
)
async def test_uptime_tells_a_restart(
    uptime_s: int, started: tuple[str, str], restarted: bool, autojump_clock: CLOCK
) -> None:
    peer = Peer()
    async with linked(peer) as (_, notes):
        await trio.sleep(60)
        peer.uptime_s, peer.started = uptime_s, started
        await peer.conversations[0].cut()
        with within(30):
            await notes.until(lambda: len(notes.snapshots) == 2)
        assert [hello.restarted for hello in notes.hellos] == [False, restarted]


@pytest.mark.trio
async def test_a_shutdown_is_told_as_one(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with linked(peer) as (_, notes):
        await peer.conversations[0].send(event("Shutdown", "Shutdown: Cleanly", "Restart: True"))
        await peer.conversations[0].cut()
        await notes.until(lambda: notes.endings)
        assert notes.endings[0][0] == "restarting"


FORGED = event("Newexten", *channel_lines(1)).replace(
    b"CallerIDNum: 15551234567", b"CallerIDNum: 1\r\n\r\nEvent: Hangup\r\nUniqueid: pbx1-1795347145.7\r\nCause: 16"
)


@pytest.mark.trio
async def test_a_forged_event_is_refused_counted_and_followed_by_a_resync(autojump_clock: CLOCK) -> None:
    peer = Peer()
    peer.channels = [7]
    with capture_logs() as logs:
        async with linked(peer) as (link, notes):
            for _ in range(20):
                await peer.conversations[0].send(FORGED)
            await peer.conversations[0].send(newchannel(9))
            with within(30):
                await notes.until(lambda: len(notes.snapshots) == 2)
            seen = [e.kind for e in [*notes.events, *notes.snapshots[1][1]]]
            assert "Hangup" not in seen
            assert sum(link.refused.values()) + link.mended >= 20
            assert link.resync_requests["forged_event"] >= 20
    assert 1 <= len([line for line in logs if line["event"] == "link.forged_event"]) <= 3


@pytest.mark.trio
async def test_a_forged_answer_or_row_is_nobodys(autojump_clock: CLOCK) -> None:
    peer = Peer()
    forged = packet("Response: Success", "ActionID: 1", "Ping: Pong", "Timestamp: 1.0")
    forged += packet("Event: CoreShowChannel", "ActionID: 1", *channel_lines(66))
    peer.answers["Status"] = lambda c, fields: forged + b"".join(peer.list_rows("Status", fields["ActionID"]))
    async with linked(peer) as (link, notes):
        assert notes.snapshots[0][0].channels == {}
        assert link.clock_offset_s > -1e9


@pytest.mark.trio
@pytest.mark.parametrize("stamped_later", [False, True])
async def test_a_pbx_without_timestampevents_is_told_and_followed(stamped_later: bool, autojump_clock: CLOCK) -> None:
    peer = Peer()
    with capture_logs() as logs:
        async with linked(peer, now=lambda: 1795347145.25) as (_, notes):
            bare = newchannel(1).replace(b"Timestamp: 1795347145.500000\r\n", b"")
            await peer.conversations[0].send(bare * 3)
            await notes.until(lambda: len(notes.events) == 3)
            assert notes.events[0].at == 1795347145.25
            if stamped_later:  # `manager reload` while we are connected
                await peer.conversations[0].send(newchannel(2) * 30)
                with within(30):
                    await notes.until(lambda: len(notes.events) > 3)
                assert notes.events[-1].at == 1795347145.5
    assert [line["event"] for line in logs].count("link.no_timestamps") == 1


def told(notes: Notes) -> list[str]:
    """The counters of the Uniqueids that the consumer was told of, as events or with a resync."""
    events = [*notes.events, *(e for _, buffered in notes.snapshots for e in buffered)]
    return [e.fields["Uniqueid"].rpartition(".")[2] for e in events if "Uniqueid" in e.fields]


@pytest.mark.trio
async def test_no_flood_of_fragments_talks_the_link_out_of_its_timestamps(autojump_clock: CLOCK) -> None:
    peer = Peer()
    with capture_logs() as logs:
        async with linked(peer) as (_, notes):
            send = peer.conversations[0].send
            await send(newchannel(1))
            await send(b"a\r\n\r\n" * 60)
            await send(packet("Event: Hangup", "Privilege: x", "Channel: y", "Uniqueid: u", "Linkedid: u") * 60)
            await send(newchannel(2).replace(b"Timestamp: 1795347145.500000\r\n", b""))
            await send(newchannel(3))
            with within(30):
                await notes.until(lambda: "3" in told(notes))
    seen = told(notes)
    assert "2" not in seen
    assert "link.no_timestamps" not in [line["event"] for line in logs]


@pytest.mark.trio
async def test_a_slow_consumer_is_no_reason_for_asterisk_to_drop_us() -> None:
    """The consumer takes its time: the kernel's buffer and the next reads take what Asterisk has to say meanwhile."""
    peer = Peer()

    class Slow(Notes):
        def event(self, event: Event) -> None:
            sum(range(2000))  # some 20 µs of work, synchronously
            super().event(event)

    with within(30):
        async with linked(peer, Slow()) as (link, notes):
            burst = b"".join(newchannel(n) for n in range(100))
            for _ in range(100):
                await peer.conversations[0].send(burst)
            await notes.until(lambda: len(notes.events) == 10_000)
            assert notes.endings == []
            assert link.events_read == {"Newchannel": 10_000}


@pytest.mark.trio
async def test_a_flood_during_the_lists_is_bounded() -> None:
    peer = Peer()
    flood = b"".join(newchannel(n) for n in range(500))
    peer.answers["Status"] = lambda c, f: flood * (MAX_BUFFERED // 500 + 1) if len(peer.conversations) == 1 else b""
    with within(30):
        async with linked(peer, in_step=False) as (_, notes):
            await notes.until(lambda: notes.endings)
    assert notes.endings[0][0] == "resync_failed"


@pytest.mark.trio
async def test_lag_leaves_the_clocks_difference_out() -> None:
    now = 1_000_000.0
    peer = Peer()
    with within(10):
        async with linked(peer, now=lambda: now) as (link, notes):
            assert link.clock_offset_s == peer.clock - now
            await peer.conversations[0].send(newchannel(1, at=peer.clock - 0.75))
            await notes.until(lambda: notes.events)
            assert link.lag_s == pytest.approx(0.75, abs=1e-5)
            assert link.last_event_at == peer.clock - 0.75


@pytest.mark.trio
async def test_lag_does_not_grow_while_nothing_comes_that_is_followed() -> None:
    now = 1_000_000.0
    peer = Peer()
    with within(10):
        async with linked(peer, now=lambda: now, wanted={"Newchannel": None}) as (link, notes):
            await peer.conversations[0].send(newchannel(1, at=peer.clock - 0.75))
            await notes.until(lambda: notes.events)
            now += 17.0
            await peer.conversations[0].send(event("VarSet", *channel_lines(1, "Variable: X", "Value: y")))
            while not link.skipped:  # noqa: ASYNC110  # it was read; nobody is told
                await trio.sleep(0.005)
            assert link.lag_s == pytest.approx(0.75, abs=1e-5)


@pytest.mark.trio
async def test_a_late_pong_is_not_taken_for_a_wrong_clock() -> None:
    now = 1_000_000.0
    peer, notes = Peer(), Notes()
    peer.clock = now + 0.25
    told = peer.answer

    def late(conversation: Conversation, fields: dict[str, str]) -> bytes:
        nonlocal now
        if notes.snapshots:
            now += 30.0
        return told(conversation, fields)

    peer.answers["Ping"] = late
    with within(10):
        async with linked(peer, notes, now=lambda: now) as (link, _):
            assert link.clock_offset_s == 0.25
            link.request_resync("operator")
            await notes.until(lambda: len(notes.snapshots) == 2)
            assert link.clock_offset_s == 0.25
