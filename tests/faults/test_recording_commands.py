"""Pausing what is recorded: which recordings a command reaches, and what is said where it does not reach them all."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import trio
import trio.testing
from ami_peer import Conversation, Peer, packet, within

from trunkline.asterisk.ari_events import AriRecording, RecordingIs
from trunkline.asterisk.control import Control
from trunkline.asterisk.event import Event
from trunkline.asterisk.link import Hello
from trunkline.following import Following
from trunkline.identity.destinations import Destinations
from trunkline.operating import Operator, Plan
from trunkline.store.command_queue import Claimed, Outcome
from trunkline.store.commands import Arguments, Kind

CLOCK = trio.testing.MockClock
T0 = 1_795_000_000.0
A, B = "pbx1-1.0", "pbx1-1.1"
CHANNELS = {
    A: {"Channel": "PJSIP/trunk-1", "ChannelState": "6", "CallerIDNum": "15551234567", "Exten": "442070001001"},
    B: {"Channel": "PJSIP/1001-1", "ChannelState": "6", "CallerIDNum": "1001", "Exten": "s"},
}


class Talk:
    """Two who talk on a PBX whose control login is the scripted AMI."""

    def __init__(self, control: Control, peer: Peer) -> None:
        self.peer = peer
        self.following = Following("main", trunks=["PJSIP/trunk*"], region=None, wake=lambda: None)
        self.following.connected(Hello("pbx1", "22.10.1", 100, restarted=False))
        self.following.adopt("pbx1", [])
        self._operator = Operator(self.following, control, Plan(), Destinations(), lambda: True)
        for uniqueid in CHANNELS:
            self.tell("Newchannel", uniqueid)
        for uniqueid in CHANNELS:
            self.tell("BridgeEnter", uniqueid, BridgeUniqueid="b")

    def tell(self, kind: str, uniqueid: str, **fields: str) -> None:
        ids = {"Uniqueid": uniqueid, "Linkedid": A}
        self.following.event(Event(kind, T0, CHANNELS[uniqueid] | ids | fields))

    def mixmonitor(self, uniqueid: str) -> None:
        self.tell("VarSet", uniqueid, Variable="MIXMONITOR_FILENAME", Value=f"/rec/{uniqueid}.wav")
        self.tell("MixMonitorStart", uniqueid)

    def ari(self, state: RecordingIs = RecordingIs.STARTED) -> None:
        self.following.recorded(AriRecording(state, "x", "wav", f"channel:{B}", T0 + 1, None))

    async def command(self, kind: Kind = Kind.RECORD_PAUSE) -> Outcome:
        claimed = Claimed(uuid4(), "pbx1", kind, Arguments(call=A), time.monotonic(), 4.0, 60.0)
        with within(60):
            return await self._operator.carry_out(claimed, trio.current_time() + 4.0)

    def muted(self) -> list[str]:
        actions = [fields for conversation in self.peer.conversations for fields in conversation.actions]
        return [fields["Channel"] for fields in actions if fields["Action"] == "MixMonitorMute"]


@asynccontextmanager
async def talking() -> AsyncIterator[Talk]:
    peer = Peer()
    peer.fully_booted = False
    peer.answers["MixMonitorMute"] = lambda _, fields: packet("Response: Success", f"ActionID: {fields['ActionID']}")
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.run)
        control = Control(peer.settings())
        nursery.start_soon(control.run)
        with within(60):
            await control.wait_up()
        yield Talk(control, peer)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_every_mixmonitor_is_paused_and_resumed(autojump_clock: CLOCK) -> None:
    async with talking() as talk:
        assert (await talk.command()).code == "not_recorded"
        talk.mixmonitor(A)
        talk.mixmonitor(B)
        assert await talk.command() == Outcome("done", result={"recordings": 2})
        assert await talk.command(Kind.RECORD_RESUME) == Outcome("done", result={"recordings": 2})
        assert talk.muted() == [A, B, A, B]


@pytest.mark.trio
@pytest.mark.parametrize("mixed", [(), (B,), (A,)])
async def test_what_ari_records_is_not_said_to_be_paused(autojump_clock: CLOCK, mixed: tuple[str, ...]) -> None:
    async with talking() as talk:
        for uniqueid in mixed:
            talk.mixmonitor(uniqueid)
        talk.ari()
        refused = await talk.command()
        assert (refused.state, refused.code) == ("failed", "recorded_by_ari")
        assert talk.muted() == []
        talk.ari(RecordingIs.FINISHED)
        assert (await talk.command()).code == (None if mixed else "not_recorded")
        assert talk.muted() == list(mixed)


@pytest.mark.trio
async def test_mixmonitor_is_resumed_although_ari_records_too(autojump_clock: CLOCK) -> None:
    async with talking() as talk:
        talk.ari()
        assert (await talk.command(Kind.RECORD_RESUME)).code == "not_recorded"
        talk.mixmonitor(A)
        assert await talk.command(Kind.RECORD_RESUME) == Outcome("done", result={"recordings": 1})
        assert talk.muted() == [A]


@pytest.mark.trio
@pytest.mark.parametrize(("refused", "state"), [(A, "failed"), (B, "unknown")])
async def test_who_was_paused_in_part_is_not_told_that_nothing_was(
    autojump_clock: CLOCK, refused: str, state: str
) -> None:
    def answer(_: Conversation, fields: dict[str, str]) -> bytes:
        said = "Error" if fields["Channel"] == refused else "Success"
        return packet(f"Response: {said}", f"ActionID: {fields['ActionID']}", "Message: Cannot set mute flag")

    async with talking() as talk:
        talk.peer.answers["MixMonitorMute"] = answer
        talk.mixmonitor(A)
        talk.mixmonitor(B)
        outcome = await talk.command()
        assert outcome.state == state
        assert "Cannot set mute flag" in (outcome.detail or "")
