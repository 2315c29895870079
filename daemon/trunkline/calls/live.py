"""The live picture of one PBX and its primitives: find or make a channel, link, merge, connect, part, finish.

Every event may be the first to name its channel (one before it was lost), may come twice, and may come late: so
channels are made on first sight, facts are set once, and a channel that has hung up is remembered for a while and never
made again.
"""

from collections import deque
from collections.abc import Iterable

from trunkline.calls.model import RING, UP, Bridge, Call, Channel, RecordingState
from trunkline.calls.names import SUPERVISING, Trunks, age, endpoint_of, extension_of, known, unescape, withheld
from trunkline.calls.queues import Queues
from trunkline.calls.record import Quality, QueueOutcome, Role

Fields = dict[str, str]

_PREFIXES = (
    "",
    "Dest",
    "Transferer",
    "Transferee",
    "OrigTransferer",
    "SecondTransferer",
    "TransferTarget",
    "Parkee",
    "Retriever",
    "LocalOne",
    "LocalTwo",
    "Target",
)
_ID_KEYS = {p: (p + "Uniqueid", p + "Linkedid", p + "Channel") for p in _PREFIXES}
_GONE_FOR = 120.0  # s of the PBX's time for which a hung-up channel is remembered
_RECENT_FOR = 10.0  # s for which an ended Call can still be put right by an event that came late


def _is_customer(ch: Channel | None) -> bool:
    return ch is not None and ch.is_trunk and ch.came_in


def _strangers(one: Channel, other: Channel) -> bool:
    """Two customers in one conference room: each has a Call of his own, however long the room lives."""
    conference = (one.bridge is not None and one.bridge.conference) or (
        other.bridge is not None and other.bridge.conference
    )
    return bool(conference) and _are_customers(one.call, other.call)


def _are_customers(one: Call, other: Call) -> bool:
    return _is_customer(one.starter) and _is_customer(other.starter)


class Live:
    """Channels, bridges and Calls of one PBX as the events so far say."""

    def __init__(self, trunks: Trunks) -> None:
        self.trunks = trunks
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}
        self.locals: dict[str, Channel] = {}  # the first half seen of each Local pair
        self.calls: dict[str, Call] = {}  # by every Linkedid it has, aliases included
        self.dirty: dict[str, Call] = {}  # by external id
        self.recent: deque[Call] = deque()
        self.put_away: list[Call] = []  # ended long ago, but not yet taken
        self.gone: dict[str, float] = {}  # Uniqueid -> when it hung up
        self.ari: dict[str, RecordingState] = {}  # recordings that ARI told of, by path, the oldest first
        self.untied: dict[str, RecordingState] = {}  # those of them whose channel or bridge nobody has told of yet
        self.queues = Queues()
        self.agents_phones = self.queues.devices  # the same dict: most channels are none of theirs
        self.now = 0.0
        self.misnamed = 0  # events not believed: their channel's name is not that of the Uniqueid they carry

    # ---- finding and making

    def channel(self, f: Fields, at: float, prefix: str = "") -> Channel | None:
        """The channel that an event's fields name, made if it is new.

        None if they name none, one that has hung up, or one by the name of another.
        """
        uniqueid_key, linkedid_key, name_key = _ID_KEYS[prefix]
        try:  # nearly always: a channel that is known, by its name, with its Linkedid
            ch = self.channels[f[uniqueid_key]]
            if f[name_key] == ch.name and f[linkedid_key] == ch.linkedid:
                return ch
        except KeyError:
            pass
        return self.make_out(f, at, prefix)

    def make_out(self, f: Fields, at: float, prefix: str = "") -> Channel | None:
        """The same; quicker only where the channel is new."""
        uniqueid_key, linkedid_key, name_key = _ID_KEYS[prefix]
        uniqueid, linkedid, name = f.get(uniqueid_key), f.get(linkedid_key), f.get(name_key)
        if uniqueid is None:
            return self._by_name(name)
        found = self.channels.get(uniqueid)
        if found is None:
            if uniqueid in self.gone or not linkedid or name is None:
                return None
            found = self.make_channel(uniqueid, name, linkedid, at)
            self.learn(found, f, prefix)
        elif name is not None and name != found.name:
            # A caller can put another channel's ids behind his dialled number; the name in front of it is Asterisk's.
            self.misnamed += 1
            return None
        if linkedid is not None and linkedid != found.linkedid:
            found.linkedid = linkedid
            other = self.calls.get(linkedid)
            in_room = found.bridge is not None and found.bridge.conference is not None
            strangers = in_room and other is not None and _are_customers(found.call, other)
            if other is not None and other is not found.call and not strangers:
                self.merge(found.call, other, at)
        return found

    def _by_name(self, name: str | None) -> Channel | None:
        """For what is left of an event that a caller broke up: rare, so a walk will do."""
        if name is None:
            return None
        return next((ch for ch in self.channels.values() if ch.name == name), None)

    def channel_named(self, name: str) -> str | None:
        """The party of a channel by its name, whether it is still there or not."""
        ch = self._by_name(name)
        return ch.party if ch is not None else extension_of(endpoint_of(name), None)

    def make_channel(self, uniqueid: str, name: str, linkedid: str, at: float) -> Channel:
        call = self.calls.get(linkedid)
        if call is None:
            call = Call(linkedid, at)
            self.calls[linkedid] = call
        ch = Channel(uniqueid, name, linkedid, call, at, False)
        ch.plumbing = ch.plumbing or uniqueid.startswith(SUPERVISING)
        ch.is_trunk = not ch.plumbing and ch.endpoint in self.trunks
        self.channels[uniqueid] = ch
        call.channels[uniqueid] = ch
        if name.startswith("Local/"):
            self._pair(ch)
        if not ch.plumbing:
            call.legs[uniqueid] = ch
            if call.starter is None or uniqueid == call.external_id:
                self.set_starter(call, ch)
            if ch.endpoint in self.agents_phones:
                self.queues.phone(ch, at)
        return ch

    def _pair(self, ch: Channel) -> None:
        """The halves of a Local channel are called NAME;1 and NAME;2."""
        base, _, half = ch.name.rpartition(";")
        other = self.locals.get(base)
        if other is None or other is ch or other.name.endswith(";" + half):
            self.locals[base] = ch
        else:
            ch.local_peer, other.local_peer = other, ch

    def learn(self, ch: Channel, f: Fields, prefix: str = "") -> None:
        """Take from a channel's first fields what later ones may no longer say."""
        ch.state = f.get(prefix + "ChannelState", ch.state)
        # Up when first seen, and the first of its Linkedid: its Newchannel was lost, and nobody here had dialled it.
        ch.came_in = ch.came_in or ch.state == RING or (ch.state == UP and ch.uniqueid == ch.linkedid)
        if ch.state == UP and ch.answered_at is None:
            ch.answered_at = ch.started_at
        ch.number = f.get(prefix + "CallerIDNum")
        ch.exten = f.get(prefix + "Exten")
        call = ch.call
        if ch is call.starter:
            self.set_starter(call, ch)
            if call.name is None:
                name = known(f.get(prefix + "CallerIDName"))
                call.name = unescape(name) if name is not None else None
            if call.asked_for is None and ch.exten not in {None, "", "s", "h", "i", "t"} and ch.dialled_by is None:
                call.asked_for = ch.exten

    def set_starter(self, call: Call, ch: Channel) -> None:
        """Who started the Call, and so whose number is its `from`."""
        if call.starter is not ch:
            call.starter = ch
            call.who = call.name = call.asked_for = None
        if call.lead is None or call.answered_at is None:
            call.lead = ch
        if ch.role is None or ch.role is Role.AGENT:
            ch.role = Role.CALLER
        if call.who is None:
            if not ch.is_trunk:
                call.who = ch.party
            elif ch.number is not None:
                call.private = withheld(ch.number)
                call.who = "anonymous" if call.private else ch.number

    def bridge(self, uniqueid: str) -> Bridge:
        bridge = self.bridges.get(uniqueid)
        if bridge is None:
            bridge = self.bridges[uniqueid] = Bridge(uniqueid)
        return bridge

    # ---- changing

    def mark(self, call: Call, happened: str | None = None) -> None:
        """This Call has changed: hand it out again."""
        call.revision += 1
        if happened is not None and happened not in call.happened:
            call.happened.append(happened)
        self.dirty[call.external_id] = call

    def picks_up(self, ch: Channel, at: float) -> None:
        """A channel is answered, by a human or by the PBX."""
        ch.answered_at = at
        if ch.rings:
            self.rings_no_more(ch)
        if ch.endpoint in self.agents_phones:
            self.queues.phone(ch, at)

    def rings_no_more(self, ch: Channel) -> None:
        """A phone that rang does not any more: it was answered, or will not be."""
        ch.rings = False
        self.mark(ch.call, "call.ring_cleared")

    def merge(self, a: Call, b: Call, at: float) -> Call:
        """Two groups of channels are one Call: the younger is folded into the older."""
        if a is b:
            return a
        if age(b.external_id, b.started_at) < age(a.external_id, a.started_at):
            a, b = b, a
        for linkedid in (b.external_id, *b.aliases):
            self.calls[linkedid] = a
            if b.legs:
                a.aliases.append(linkedid)
        for ch in b.legs.values():
            if ch.role is Role.CALLER:
                ch.role = None
            ch.call = a
        for ch in b.channels.values():
            ch.call = a
        a.legs.update(b.legs)
        a.channels.update(b.channels)
        a.transfers += b.transfers
        a.holds += b.holds
        a.parked += b.parked
        a.recordings += b.recordings
        a.visits = sorted(a.visits + b.visits, key=lambda visit: visit.joined_at)
        a.rang += [r for r in b.rang if r not in a.rang]
        a.participants += [p for p in b.participants if p not in a.participants]
        if a.queue is None and b.queue is not None:
            a.queue, a.queue_position, a.queue_outcome = b.queue, b.queue_position, b.queue_outcome
            a.queue_joined_at, a.queue_ended_at = b.queue_joined_at, b.queue_ended_at
        a.conference = a.conference or b.conference
        a.voicemail = a.voicemail or b.voicemail
        a.digits = a.digits or b.digits
        a.forwarded_from = a.forwarded_from or b.forwarded_from
        a.diverted_from = a.diverted_from or b.diverted_from
        a.quality = max(a.quality, b.quality, key=list(Quality).index)
        a.ended_at = None
        if a.starter is None or (_is_customer(b.starter) and not _is_customer(a.starter)):
            # the elder had nothing but plumbing, or people inside: a Call is the customer's
            if a.starter is not None and a.starter.role is Role.CALLER:
                a.starter.role = Role.AGENT
            a.starter, a.lead, a.who, a.name, a.asked_for = b.starter, b.lead, b.who, b.name, b.asked_for
            a.private, a.talks, a.last_peer = b.private, b.talks, b.last_peer
            a.answered_at, a.answered_by = b.answered_at, b.answered_by
            if a.starter is not None:
                a.starter.role = Role.CALLER
        self.dirty.pop(b.external_id, None)
        if b in self.recent:
            self.recent.remove(b)
        told = bool(b.legs)
        if told:
            a.revision += b.revision
            self.mark(a, "call.merged")
        b.fall_apart()
        return a

    # ---- who hears whom

    def humans_with(self, ch: Channel) -> list[Channel]:
        """The real channels that this one talks to, through bridges and Local pairs."""
        bridge = ch.bridge
        if bridge is None or bridge.holding or len(bridge.members) < 2:
            return []
        if len(bridge.members) == 2:
            one, two = bridge.members.values()
            other = two if one is ch else one
            if not other.plumbing:
                return [other]
        seen = {ch.uniqueid}
        todo = [ch]
        found: list[Channel] = []
        while todo:
            inside = todo.pop().bridge
            if inside is None or inside.holding:
                continue
            for member in inside.members.values():
                if member.uniqueid in seen:
                    continue
                seen.add(member.uniqueid)
                if not member.plumbing:
                    found.append(member)
                elif member.local_peer is not None and member.local_peer.uniqueid not in seen:
                    seen.add(member.local_peer.uniqueid)
                    todo.append(member.local_peer)
        return found

    def reconnected(self, ch: Channel, at: float) -> None:
        """Somebody came into, or left, the bridges around this channel: see who talks to whom now."""
        around = [ch] if not ch.plumbing else []
        around += self.humans_with(ch)
        if ch.plumbing and ch.local_peer is not None:
            around += [c for c in self.humans_with(ch.local_peer) if c not in around]
        for other in around[1:]:
            if other.call is not around[0].call and not _strangers(around[0], other):
                self.merge(around[0].call, other.call, at)
        if len(around) > 1:
            for human in around:
                if human.connected_at is None:
                    human.connected_at = at
        self.see_leads((*around, ch), at)

    def see_leads(self, channels: Iterable[Channel], at: float) -> None:
        """See to the leads of these channels' Calls, each once."""
        seen: list[Call] = []
        for ch in channels:
            call = ch.call
            if call not in seen:
                seen.append(call)
                self.see_lead(call, at)

    def see_lead(self, call: Call, at: float) -> None:
        """Keep answer, talks and last party of a Call up to date with whom its lead talks to."""
        if call.answered_at is None and call.starter is not None:
            call.lead = call.starter
        lead = call.lead
        if lead is None:
            return
        peers = self.humans_with(lead)
        talking = bool(call.talks) and call.talks[-1][1] < 0
        if not peers:
            if talking:
                call.talks[-1][1] = at
                self.mark(call)
            return
        if not talking:
            if call.talks and call.talks[-1][1] == at:
                call.talks[-1][1] = -1.0
            else:
                call.talks.append([at, -1.0])
        if call.answered_at is None:
            self._answered(call, lead, peers, at)
            lead = call.lead or lead
            peers = self.humans_with(lead)
        peer = peers[-1].party
        if peer is not None and peer != call.last_peer:
            call.last_peer = peer
            self.mark(call)
        for transfer in call.transfers:
            if transfer.to is None and peer is not None and peer != transfer.by:
                transfer.to = peer
        if not talking:
            call.hung_up_by = call.first_left = None
            for transfer in call.transfers:
                if transfer.result is None and transfer.by != peer:
                    transfer.result = "ANSWERED"
            self.mark(call)

    def _answered(self, call: Call, lead: Channel, peers: list[Channel], at: float) -> None:
        call.answered_at = at
        call.answered_by = peers[0].party
        call.dial_status = None
        if not lead.is_trunk:
            outside = next((p for p in peers if p.is_trunk), None)
            if outside is not None:
                call.lead = outside
        self.mark(call, "call.answered")

    def enter(self, ch: Channel, bridge: Bridge, at: float) -> None:
        before = ch.bridge
        if before is bridge:
            return
        if before is not None:
            before.members.pop(ch.uniqueid, None)
            if not before.members:
                self.bridges.pop(before.uniqueid, None)
        ch.bridge = bridge
        bridge.members[ch.uniqueid] = ch
        ch.pulled_at = None
        if not bridge.holding:
            ch.was_bridged = True
        if before is not None or len(bridge.members) > 1:  # else there is nobody to talk to
            self.reconnected(ch, at)

    def leave(self, ch: Channel, at: float) -> list[Channel]:
        """Take a channel out of its bridge; the humans it talked to until now."""
        bridge = ch.bridge
        if bridge is None:
            return []
        peers = self.humans_with(ch)
        bridge.members.pop(ch.uniqueid, None)
        ch.bridge = None
        ch.left = bridge.uniqueid
        self.see_leads((ch, *peers), at)
        if ch.plumbing:
            self.see_leads(bridge.members.values(), at)
        if not bridge.members:
            self.bridges.pop(bridge.uniqueid, None)
        return peers

    # ---- ending

    def hang_up(self, ch: Channel, at: float) -> None:
        """A channel is gone; with the last one its Call ends."""
        self.leave(ch, at)
        ch.ended_at = at
        del self.channels[ch.uniqueid]
        self.gone[ch.uniqueid] = at
        if ch.plumbing:
            self.locals.pop(ch.name.rpartition(";")[0], None)
        if ch.local_peer is not None:
            ch.local_peer.local_peer = None
            ch.local_peer = None
        if ch.partner is not None:
            if ch.partner.partner is ch:
                ch.partner.partner = None
            ch.partner = None
        call = ch.call
        call.channels.pop(ch.uniqueid, None)
        if ch.rings:
            self.rings_no_more(ch)
        if call.queue is not None:
            self.queues.leave(ch.uniqueid)
            for visit in call.visits:
                if visit.uniqueid == ch.uniqueid:
                    visit.over(at, QueueOutcome.LEFT if call.lost else QueueOutcome.ABANDONED)
        if ch.endpoint in self.agents_phones:
            self.queues.phone_free(ch, at)
        for hold in call.holds:
            if hold.uniqueid == ch.uniqueid and hold.ended_at is None:
                hold.ended_at = at
        for recording in call.recordings:
            if recording.uniqueid == ch.uniqueid and recording.ended_at is None and recording.ends_with_its_channel:
                recording.ended_at = at
        if not call.channels:
            self.finish(call, at)
            return
        if (call.hung_up_by is ch or call.first_left is ch) and call.talks and call.talks[-1][1] < 0:
            call.hung_up_by = call.first_left = None  # the others talk on
        if ch is call.lead:
            rest = [leg for leg in call.legs.values() if leg.ended_at is None]
            call.lead = next((leg for leg in rest if leg.connected_at is not None), rest[0] if rest else ch)
            self.see_lead(call, at)
        if not ch.plumbing:
            self.mark(call)

    def finish(self, call: Call, at: float) -> None:
        call.ended_at = at
        if call.talks and call.talks[-1][1] < 0:
            call.talks[-1][1] = at
        for linkedid in (call.external_id, *call.aliases):
            self.calls.pop(linkedid, None)
        if call.legs:
            self.recent.append(call)
            self.mark(call, "call.ended")

    def forget(self, at: float) -> None:
        """Let go of what nobody can name any more."""
        self.now = at
        while self.recent and (self.recent[0].ended_at or 0.0) < at - _RECENT_FOR:
            call = self.recent.popleft()
            if self.dirty.get(call.external_id) is call:
                self.put_away.append(call)  # once it has been taken
            else:
                call.fall_apart()
        old: list[str] = []
        for uniqueid, ended_at in self.gone.items():
            if ended_at >= at - _GONE_FOR or len(old) == 64:
                break
            old.append(uniqueid)
        for uniqueid in old:
            del self.gone[uniqueid]
