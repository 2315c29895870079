"""Bridges, Local pairs and what joins channels: Bridge*, Local*, transfers, pickup, parking, conference."""

from trunkline.calls.live import Fields, Live
from trunkline.calls.model import Bridge, Call, Channel, ParkState, TransferState
from trunkline.calls.names import known
from trunkline.calls.record import LegEnd, Role, TransferKind

_HOLDING = frozenset({"parking", "holding"})
_SAME_MOMENT = 2.0  # s within which two events tell of one transfer


def _described(live: Live, f: Fields) -> Bridge:
    bridge = live.bridges.get(f["BridgeUniqueid"]) or live.bridge(f["BridgeUniqueid"])
    if f.get("BridgeType") in _HOLDING or f.get("BridgeCreator") == "BridgeWait":  # whose type is "base"
        bridge.holding = True
    return bridge


def bridge_enter(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    bridge = _described(live, f)
    swapped = live.channels.get(f.get("SwapUniqueid", ""))
    consulted = swapped is not None and not swapped.plumbing and swapped.call is not ch.call
    if swapped is not None and swapped.bridge is bridge:
        live.leave(swapped, at)
        bridge = live.bridge(bridge.uniqueid)
    if consulted and swapped is not None and not ch.plumbing:
        # he who consulted makes room for the caller: an attended transfer, whether or not its event comes
        _attended(live, ch, swapped.party, next((m.party for m in bridge.members.values()), None), at, tentative=True)
    if bridge.conference is not None and not ch.plumbing:
        _joins(live, ch, bridge)
    if bridge.holding and f.get("BridgeType") == "parking" and not parked_now(ch):
        ch.call.parked.append(ParkState(ch.uniqueid, None, "", at))
    live.enter(ch, bridge, at)
    partner = ch.partner
    if partner is not None and partner.plumbing and partner.bridge is None and partner.left != bridge.uniqueid:
        live.enter(partner, bridge, at)  # the Local half it answered; if its own BridgeEnter is lost, all behind it is
    _whom_the_bridge_counts(live, ch, bridge, f, at)


def _whom_the_bridge_counts(live: Live, ch: Channel, bridge: Bridge, f: Fields, at: float) -> None:
    """A bridge of two in which we know only one: the other's BridgeEnter was lost."""
    if f.get("BridgeNumChannels") == "2" and len(bridge.members) == 1 and not bridge.holding:
        other = _partner(ch)
        if other is not None:
            live.enter(other, bridge, at)


def _partner(ch: Channel) -> Channel | None:
    """Who must be in a bridge with it, if somebody is: whom it answered, or the only other one there is."""
    if ch.partner is not None and ch.partner.bridge is None:
        return ch.partner
    others = [
        leg
        for leg in ch.call.legs.values()
        if leg is not ch and leg.bridge is None and leg.ended_at is None and leg.answered_at is not None
    ]
    return others[0] if len(others) == 1 and ch.partner is None else None


def bridge_leave(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    bridge = live.bridges.get(f["BridgeUniqueid"])
    if bridge is None:
        return
    if ch.bridge is None and bridge.members and ch.left != bridge.uniqueid:
        # its BridgeEnter was lost: it has been here since the other of the two answered
        other = ch.partner
        live.enter(ch, bridge, max(ch.answered_at or 0.0, (other.answered_at or 0.0) if other else 0.0) or at)
    if ch.bridge is not bridge:
        return
    if f.get("BridgeNumChannels") == "1" and len(bridge.members) == 1 and not bridge.holding:
        other = _partner(ch)  # whose BridgeEnter was lost, and who is still in there
        if other is not None:
            live.enter(other, bridge, max(ch.answered_at or 0.0, other.answered_at or 0.0) or at)
    peers = live.leave(ch, at)
    call = ch.call
    if ch.plumbing or not peers:
        return
    if ch.requested_hangup is None and ch.soft_hangup_at is None and all(p.requested_hangup is None for p in peers):
        for pulled in (ch, *peers):
            pulled.pulled_at = at
    if call.first_left is None and ch.soft_hangup_at is None and not any(t.result is None for t in call.transfers):
        call.first_left = ch


def bridge_merge(live: Live, f: Fields, at: float) -> None:
    """Everybody of one bridge goes on in another. The channels' own BridgeLeave and BridgeEnter follow, mostly."""
    source = live.bridges.get(f["FromBridgeUniqueid"])
    if source is None or source.holding:
        return
    target = live.bridge(f["ToBridgeUniqueid"])
    for ch in list(source.members.values()):
        if ch.requested_hangup is None:
            live.enter(ch, target, at)


def local_bridge(live: Live, f: Fields, at: float) -> None:
    one = live.channel(f, at, "LocalOne")
    two = live.channel(f, at, "LocalTwo")
    if one is None or two is None:
        return
    if one.call is not two.call:
        live.merge(one.call, two.call, at)
    one.local_peer, two.local_peer = two, one
    live.reconnected(one, at)


def pickup(live: Live, f: Fields, at: float) -> None:
    picker = live.channel(f, at)
    target = live.channel(f, at, "Target")
    if picker is None or target is None:
        return
    target.end_reason = LegEnd.PICKED_UP
    call = live.merge(picker.call, target.call, at)
    picker.role = Role.PICKUP
    live.mark(call)


# ---- transfers


def blind_transfer(live: Live, f: Fields, at: float) -> None:
    if f.get("Result") != "Success":
        return
    by = live.channel(f, at, "Transferer")
    transferee = live.channel(f, at, "Transferee")
    who = transferee or by
    if who is None:
        return
    call = who.call
    if any(t.kind is TransferKind.BLIND and t.at == at for t in call.transfers):
        return
    parked = parked_now(who)
    if parked is not None and at - parked.at < _SAME_MOMENT:
        return  # the REFER to the parking extension is no transfer to anybody
    transfer = TransferState(TransferKind.BLIND, by.party if by else None, f.get("Extension"), at, who.uniqueid)
    call.transfers.append(transfer)
    call.first_left = None
    if by is not None:
        _transferred(call, by, transferee)
    live.mark(call, "call.transferred")


def _transferred(call: Call, by: Channel, transferee: Channel | None) -> None:
    """He who transfers is out; if the Call was watched from his side, it goes on from the other's."""
    by.end_reason = LegEnd.TRANSFERRED
    if by is call.lead and transferee is not None:
        call.lead = transferee
    if call.hung_up_by is by:
        call.hung_up_by = None


def attended_transfer(live: Live, f: Fields, at: float) -> None:
    if f.get("Result") != "Success":
        return
    first = live.channel(f, at, "OrigTransferer")
    second = live.channel(f, at, "SecondTransferer")
    transferee = live.channel(f, at, "Transferee")
    target = live.channel(f, at, "TransferTarget")
    who = transferee or target
    if who is None:
        return
    consulted = second.call.asked_for if second is not None and second.call is not who.call else None
    for other in (first, second, target):
        if other is not None and other.call is not who.call:
            live.merge(who.call, other.call, at)
    by = (first or second).party if first or second else known(f.get("OrigTransfererCallerIDNum"))  # type: ignore[union-attr]
    human = _human_behind(live, target) if target is not None else None
    if human is None:
        human = next((h for h in live.humans_with(who) if h is not first and h is not second), None)
    to = human.party if human is not None else consulted or known(f.get("TransferTargetCallerIDNum"))
    if human is not None:
        human.role = Role.TRANSFER_TARGET
    _attended(live, who, by, to, at, tentative=False)
    for ch in (first, second):
        if ch is not None:
            _transferred(who.call, ch, who)
    bridge = live.bridges.get(f.get("DestBridgeUniqueid", ""))
    if transferee is not None and transferee.bridge is None and bridge is not None:
        live.enter(transferee, bridge, at)  # its BridgeEnter was lost
    live.see_lead(who.call, at)


def _human_behind(live: Live, ch: Channel) -> Channel | None:
    """The channel itself, or for a Local half whoever is at the other end of it."""
    if not ch.plumbing:
        return ch
    far = live.humans_with(ch.local_peer) if ch.local_peer is not None else []
    return far[0] if far else None


def _attended(live: Live, who: Channel, by: str | None, to: str | None, at: float, *, tentative: bool) -> None:
    call = who.call
    for transfer in call.transfers:
        if transfer.kind is TransferKind.ATTENDED and abs(transfer.at - at) < _SAME_MOMENT:
            if not tentative:
                transfer.by, transfer.to = by or transfer.by, to or transfer.to
                live.mark(call)
            return
    transfer = TransferState(TransferKind.ATTENDED, by, to, at, who.uniqueid)
    if tentative or any(peer.party != by for peer in live.humans_with(who)):
        transfer.result = "ANSWERED"
    call.transfers.append(transfer)
    live.mark(call, "call.transferred")


# ---- parking


def parked_now(ch: Channel) -> ParkState | None:
    for parked in reversed(ch.call.parked):
        if parked.uniqueid == ch.uniqueid and parked.retrieved_by is None and not parked.timed_out:
            return parked
    return None


def parked_call(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at, "Parkee")
    if ch is None:
        return
    call = ch.call
    call.first_left = None
    space = f["ParkingSpace"]
    by = known(f.get("ParkerDialString"))
    parker = by.rpartition("/")[2] if by is not None else None
    parked = parked_now(ch)
    if parked is not None:
        if parked.space == space:
            return
        parked.space, parked.by = space, parker
    else:
        call.parked.append(ParkState(ch.uniqueid, parker, space, at))
    for transfer in call.transfers:  # the REFER to the parking extension was no transfer to anybody
        if transfer.transferee == ch.uniqueid and transfer.result is None and at - transfer.at < _SAME_MOMENT:
            call.transfers.remove(transfer)
            break
    live.mark(call, "call.parked")


def unparked_call(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at, "Parkee")
    retriever = live.channel(f, at, "Retriever")
    if ch is None:
        return
    parked = parked_now(ch)
    if retriever is not None:
        if retriever.call is not ch.call:
            live.merge(ch.call, retriever.call, at)
        retriever.role = Role.PICKUP
        if parked is None:
            parked = ParkState(ch.uniqueid, None, f["ParkingSpace"], at)
            if not any(p.uniqueid == ch.uniqueid and p.retrieved_by for p in ch.call.parked):
                ch.call.parked.append(parked)
        parked.retrieved_by = retriever.party
        ch.partner, retriever.partner = retriever, ch
    live.mark(ch.call)


def parked_call_timeout(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at, "Parkee")
    if ch is None:
        return
    parked = parked_now(ch)
    if parked is not None:
        parked.timed_out = True
        live.mark(ch.call)


# ---- conference


def conference_start(live: Live, f: Fields, at: float) -> None:
    _described(live, f).conference = f["Conference"]


def conference_join(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    bridge = _described(live, f)
    bridge.conference = f["Conference"]
    if not ch.plumbing:
        _joins(live, ch, live.bridge(f["BridgeUniqueid"]))
    if ch.bridge is not bridge:
        live.enter(ch, bridge, at)


def _joins(live: Live, ch: Channel, bridge: Bridge) -> None:
    call = ch.call
    call.conference = bridge.conference or call.conference
    party = call.who if ch is call.starter else ch.party
    others = {m.call.external_id: m.call for m in bridge.members.values() if not m.plumbing and m.call is not call}
    if party is not None and party not in call.participants:
        call.participants.append(party)
        if ch.role is None:
            ch.role = Role.PARTICIPANT
        live.mark(call)
    for other in others.values():  # another customer's Call in the same room: each knows all who were there
        added = [p for p in call.participants if p not in other.participants]
        call.participants += [p for p in other.participants if p not in call.participants]
        if added:
            other.participants += added
            live.mark(other)


def conference_leave(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is not None and not ch.plumbing:
        bridge = live.bridge(f["BridgeUniqueid"])
        bridge.conference = f["Conference"]
        _joins(live, ch, bridge)
