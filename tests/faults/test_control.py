"""The control login: each action is sent once, to a PBX that answers, in time; and never again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from ami_peer import Peer, packet, within
from proxy import Proxy

from trunkline.asterisk.actions import Action, hangup
from trunkline.asterisk.backoff import Backoff
from trunkline.asterisk.control import ANSWER_S, Control, NotAnswered, NotSent

CLOCK = trio.testing.MockClock
HANGUP = hangup("pbx1-1.2")


@asynccontextmanager
async def controlled(peer: Peer) -> AsyncIterator[tuple[Control, Proxy]]:
    peer.fully_booted = False  # with no events there is no FullyBooted
    peer.answers["Hangup"] = lambda conversation, fields: packet(
        "Response: Success", f"ActionID: {fields['ActionID']}", "Message: Channel Hungup"
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        proxy = Proxy("127.0.0.1", peer.port)
        await nursery.start(proxy.run)
        control = Control(peer.settings(port=proxy.port), backoff=Backoff(jitter=lambda: 0.0))
        nursery.start_soon(control.run)
        with within(60):
            await control.wait_up()
        yield control, proxy
        nursery.cancel_scope.cancel()


def soon() -> float:
    return trio.current_time() + 4.0


@pytest.mark.trio
async def test_it_hears_no_events_and_is_answered(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with controlled(peer) as (control, _):
        (login,) = [fields for fields in peer.conversations[0].actions if fields["Action"] == "Login"]
        assert login["Events"] == "off"
        assert (await control.act(HANGUP, before=soon())).fields["Response"] == "Success"
        assert control.sent == {"Hangup": 1}
        (sent,) = [fields for fields in peer.conversations[0].actions if fields["Action"] == "Hangup"]
        assert len(sent["ActionID"]) == 32
        await control.act(HANGUP, before=soon(), action_id="mine")
        assert peer.conversations[0].actions[-1]["ActionID"] == "mine"


@pytest.mark.trio
async def test_what_is_not_answered_is_not_sent_again(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with controlled(peer) as (control, _):
        peer.answers["Hangup"] = lambda conversation, fields: b""
        began = trio.current_time()
        with pytest.raises(NotAnswered):
            await control.act(HANGUP, before=soon())
        assert trio.current_time() - began == pytest.approx(ANSWER_S, abs=0.5)
        with within(60):
            await peer.until(lambda: len(peer.conversations) == 2)  # the connection was given up
            await control.wait_up()
        await trio.sleep(30)
        assert peer.asked("Hangup") == 1
        assert control.unanswered == 1


@pytest.mark.trio
async def test_a_connection_that_breaks_over_it(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with controlled(peer) as (control, proxy):
        peer.answers["Hangup"] = lambda conversation, fields: b""
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                await peer.until(lambda: peer.asked("Hangup"))
                await proxy.cut()

            nursery.start_soon(cut)
            with within(ANSWER_S / 2), pytest.raises(NotAnswered):  # as soon as it is known
                await control.act(HANGUP, before=soon())
        with within(60):
            await peer.until(lambda: len(peer.conversations) == 2)
            await control.wait_up()
        assert peer.asked("Hangup") == 1


@pytest.mark.trio
async def test_a_pbx_that_does_not_answer_a_ping_is_told_nothing(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with controlled(peer) as (control, proxy):
        proxy.freeze()
        with within(3), pytest.raises(NotSent, match="does not answer"):
            await control.act(HANGUP, before=soon())
        proxy.thaw()
        await trio.sleep(30)
        assert peer.asked("Hangup") == 0
        assert peer.asked("Ping") >= 2


@pytest.mark.trio
async def test_what_comes_too_late_is_not_sent(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with controlled(peer) as (control, proxy):
        proxy.delay_s = 0.5  # the answer to the Ping comes, and then its time is over
        with pytest.raises(NotSent, match="time was over"):
            await control.act(HANGUP, before=trio.current_time() + 0.9)
        await trio.sleep(30)
        assert peer.asked("Hangup") == 0


@pytest.mark.trio
async def test_while_it_is_not_logged_in_nothing_is_kept_for_later(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with controlled(peer) as (control, proxy):
        peer.mute = True
        await proxy.cut()
        with within(60):
            await peer.until(lambda: len(peer.conversations) == 2)
        assert not control.up
        with pytest.raises(NotSent, match="closed the connection"):
            await control.act(HANGUP, before=soon())
        peer.mute = False
        control.nudge()
        with within(120):
            await control.wait_up()
        await trio.sleep(5)
        assert peer.asked("Hangup") == 0


@pytest.mark.trio
async def test_an_action_with_a_line_of_its_own_is_not_sent(autojump_clock: CLOCK) -> None:
    peer = Peer()
    async with controlled(peer) as (control, _):
        with pytest.raises(ValueError, match="may not contain CR"):
            await control.act(Action("Hangup", (("Channel", "x\r\nAction: Originate"),)), before=soon())
        assert peer.asked("Originate") == peer.asked("Hangup") == 0


@pytest.mark.trio
async def test_who_waits_for_it_is_told_also_when_a_session_fails_first(autojump_clock: CLOCK) -> None:
    peer = Peer()
    peer.fully_booted = False
    right, peer.secret = peer.secret, "another"
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        control = Control(peer.settings(secret=right), backoff=Backoff(jitter=lambda: 0.0))
        nursery.start_soon(control.run)

        async def mend() -> None:
            await peer.until(lambda: peer.asked("Login"))
            peer.secret = right

        nursery.start_soon(mend)
        with within(600):
            await control.wait_up()
        assert control.up
        assert len(peer.conversations) == 2
        nursery.cancel_scope.cancel()
