"""Channels that come, ring, dial and go: Newchannel, Newstate, Rename, Dial*, OriginateResponse, the hangups."""

from trunkline.calls.live import Fields, Live
from trunkline.calls.model import BUSY, DOWN, RINGING, UP, Call, Channel, TransferState
from trunkline.calls.names import dialled_number, endpoint_of, is_outside_number, is_plumbing, known, withheld
from trunkline.calls.record import LegEnd, Role, TransferKind

_REFUSED = {"17": LegEnd.BUSY, "21": LegEnd.DECLINED}


def newchannel(live: Live, f: Fields, at: float) -> None:
    uniqueid = f["Uniqueid"]
    known_before = uniqueid in live.channels
    ch = live.make_out(f, at)
    if ch is None:
        return
    if known_before:  # a later event of it came first: only what it cannot know
        ch.started_at = min(ch.started_at, at)
        if ch is ch.call.starter:
            ch.call.started_at = min(ch.call.started_at, at)
            if f.get("Exten") not in {None, "", "s"} and ch.dialled_by is None:
                ch.call.asked_for = None  # it was taken from a later step
            live.learn(ch, f)
        return
    call = ch.call
    if ch is call.starter and ch.state == DOWN:
        ch.dialled_by = ch  # nobody here dialled it, and it did not call us: the PBX rings it
    if ch.plumbing and ch.state == DOWN and uniqueid == call.external_id:
        call.originated_local = ch.endpoint
    if not ch.plumbing:
        live.mark(call, "call.ringing" if ch is call.starter else None)


def newstate(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None:
        return
    state = f.get("ChannelState", ch.state)
    ch.state = state
    if state == RINGING:
        rings(live, ch, at)
    elif state == UP and ch.answered_at is None:
        live.picks_up(ch, at)
        live.mark(ch.call)


def rings(live: Live, ch: Channel, at: float) -> None:
    """Somebody's phone is offered the Call."""
    if ch.rang_at is None:
        ch.rang_at = at
        call = ch.call
        if not ch.plumbing and not ch.is_trunk and ch is not call.starter:
            party = ch.party
            if party is not None:
                ch.rings = ch.answered_at is None
                if party not in call.rang:
                    call.rang.append(party)
        if not ch.plumbing:
            live.mark(call, "call.ringing")


def new_callerid(live: Live, f: Fields, at: float) -> None:
    ch = live.channel(f, at)
    if ch is None or ch is not ch.call.starter or not ch.is_trunk or ch.call.answered_at is not None:
        return
    call = ch.call
    if "Prohibited" in f.get("CID-CallingPres", "") and not call.private:
        call.private = True
        call.who = "anonymous"
        live.mark(call)
    elif withheld(ch.number) and not withheld(f.get("CallerIDNum")) and not call.private:
        ch.number = f["CallerIDNum"]
        call.who = ch.number
        live.mark(call)


def rename(live: Live, f: Fields, at: float) -> None:
    ch = live.channels.get(f["Uniqueid"])
    new = f.get("Newname", "")
    if ch is not None and new and f.get("Channel") == ch.name:
        ch.name = new
        if "<" not in new and not is_plumbing(new):
            ch.endpoint = endpoint_of(new)


def dial_begin(live: Live, f: Fields, at: float) -> None:
    source = live.channel(f, at)
    dest = live.channel(f, at, "Dest")
    if dest is None:
        return
    if dest.is_trunk and dest.dialled_number is None and "DialString" in f:
        dest.dialled_number = dialled_number(f["DialString"])
    call = dest.call
    if source is None:
        if dest is call.starter and dest.dialled_by is None:
            dest.dialled_by = dest
            call.who = None
            live.set_starter(call, dest)
        rings(live, dest, at)
        return
    if source.call is not call:
        call = live.merge(source.call, call, at)
    if dest.dialled_by is None or dest.dialled_by is dest:
        dest.dialled_by = source
        if dest is call.starter and not source.plumbing:
            live.set_starter(call, source)  # the source's own first events were lost
            live.learn(source, f)
        if dest.role is None or (dest.role is Role.CALLER and dest is not call.starter):
            dest.role = _role(call, source, dest)
        starter = call.starter
        if call.asked_for is None and dest.is_trunk and starter is not None and starter.dialled_by is starter:
            call.asked_for = dest.dialled_number
        redirected(live, source, f.get("Exten"), at)
    rings(live, dest, at)


def _role(call: Call, source: Channel, dest: Channel) -> Role:
    if source.pulled_at is not None or (
        call.transfers and any(t.transferee == source.uniqueid and t.result is None for t in call.transfers)
    ):
        return Role.TRANSFER_TARGET
    if call.answered_at is not None and source is not call.lead:
        return Role.CONSULT
    if dest.is_trunk and call.starter is not None and not call.starter.is_trunk:
        return Role.PARTICIPANT
    return Role.AGENT


def redirected(live: Live, ch: Channel, exten: str | None, at: float) -> None:
    """A channel that was taken out of a talk begins anew in the dialplan: a redirect, if nothing else explains it."""
    call = ch.call
    if ch.pulled_at is None or exten is None:
        return
    ch.pulled_at = None
    if any(t.transferee == ch.uniqueid and (t.result is None or at - t.at < 1.0) for t in call.transfers):
        return
    call.first_left = None
    if any(t.to == exten and abs(at - t.at) < 1.0 for t in call.transfers):
        return  # both parties of a talk were redirected
    by = live.channel_named(ch.blind_by) if ch.blind_by is not None else None
    kind = TransferKind.REDIRECT if ch.blind_by is None else TransferKind.BLIND  # whose event was lost
    call.transfers.append(TransferState(kind, by, exten, at, ch.uniqueid))
    live.mark(call, "call.transferred")


def dial_end(live: Live, f: Fields, at: float) -> None:
    source = live.channel(f, at)
    dest = live.channel(f, at, "Dest")
    if dest is None:
        return
    status = f["DialStatus"]
    if source is not None and dest.dialled_by is None and status != "ANSWER":
        dial_begin(live, f, at)  # whose own event was lost
    if source is not None and source.call is not dest.call:
        live.merge(source.call, dest.call, at)  # a pickup: the picker answers somebody else's ringing
        if status == "ANSWER" and not dest.plumbing:
            dest.role = Role.PICKUP
    call = dest.call
    forward = known(f.get("Forward"))
    if dest.dial_status is None:  # app_queue ends one attempt twice: the first counts
        dest.dial_status = status
        if status == "ANSWER":
            if dest.answered_at is None:
                live.picks_up(dest, at)
            shown = known(f.get("DestCallerIDNum"))
            if dest.is_trunk and dest.dialled_number is None and shown is not None and is_outside_number(shown):
                dest.dialled_number = shown  # its DialBegin was lost
            if source is not None:
                source.partner, dest.partner = dest, source
                redirected(live, source, f.get("Exten"), at)  # where its DialBegin was lost
        elif forward is not None:
            dest.end_reason = LegEnd.FORWARDED
            if not dest.plumbing and call.forwarded_from is None:
                call.forwarded_from = dest.party
        elif not dest.plumbing:
            call.dial_status = status
        elif status == "NOANSWER":
            rang_out_behind(dest)
        live.mark(call)


def rang_out_behind(local: Channel) -> None:
    """The time for a Local channel is up, and with it that of the phones behind it; app_dial calls those cancelled."""
    for leg in local.call.legs.values():
        if leg.dialled_by is local.local_peer and leg.dialled_by is not None and leg.answered_at is None:
            leg.dial_status = "NOANSWER"


def originate_response(live: Live, f: Fields, at: float) -> None:
    """The answer to an Originate, ours or another's. A failed one names no channel, only the endpoint."""
    ch = live.channels.get(f["Uniqueid"])
    call = ch.call if ch is not None else None
    if call is None and f["Response"] == "Failure":
        candidates = [*live.calls.values(), *live.recent]
        call = next((c for c in candidates if _is_originated(c, f["Channel"])), None)
    if call is None or call.click_to_dial:
        return
    call.click_to_dial = True
    if f["Response"] == "Failure" and call.starter is not None:
        call.starter.soft_hangup_at = at
    exten = known(f.get("Exten"))
    if call.asked_for is None and exten not in {None, "s"}:
        call.asked_for = exten
    live.mark(call)


def _is_originated(call: Call, endpoint: str) -> bool:
    ch = call.starter
    if call.click_to_dial or ch is None:
        return False
    if call.originated_local is not None:
        return call.originated_local == endpoint.removesuffix("/n")
    return ch.dialled_by is ch and ch.endpoint == endpoint


def _is_up(live: Live, ch: Channel, f: Fields, at: float) -> None:
    """A channel that is up has been answered, though its Newstate was lost."""
    if f.get("ChannelState") == UP and ch.answered_at is None:
        live.picks_up(ch, at)


def hangup_request(live: Live, f: Fields, at: float) -> None:
    """A party hung up, or its phone refused."""
    ch = live.channel(f, at)
    if ch is None or ch.requested_hangup is not None:
        return
    ch.requested_hangup = at
    _is_up(live, ch, f, at)
    if ch.plumbing or f.get("ChannelState", ch.state) == BUSY:
        return
    call = ch.call
    refused = _REFUSED.get(f.get("Cause", ""))
    if refused is not None and ch.answered_at is None and ch is not call.starter:
        ch.end_reason = ch.end_reason or refused
        return
    if (
        call.hung_up_by is None
        and (ch.soft_hangup_at is None or at <= ch.soft_hangup_at)
        and (ch is call.lead or ch is call.starter or ch in live.humans_with(call.lead or ch))
    ):
        if ch is call.starter and call.answered_at is not None and ch is not call.lead and ch.bridge is None:
            return  # the one who started it left a Call that goes on without him
        call.hung_up_by = ch
        call.gave_up_waiting = call.queue_joined_at is not None and call.queue_ended_at is None
        call.gave_up_ringing = any(
            leg.ended_at is None and leg.dial_status is None and leg.dialled_by is not None
            for leg in call.legs.values()
            if leg is not ch
        )


def soft_hangup_request(live: Live, f: Fields, at: float) -> None:
    """The PBX hangs up. Cause is a bit of channel.h's AST_SOFTHANGUP_*: 4 is the shutdown."""
    ch = live.channel(f, at)
    if ch is None or ch.plumbing:
        return
    if ch.soft_hangup_at is None:
        ch.soft_hangup_at = at
    if f.get("Cause") == "4":
        ch.call.pbx_ended = True


def hangup(live: Live, f: Fields, at: float) -> None:
    uniqueid = f["Uniqueid"]
    if uniqueid in live.gone:
        return
    ch = live.channel(f, at)
    if ch is None:
        return
    cause = f.get("Cause", "")
    ch.cause = int(cause) if cause.isdigit() else None
    _is_up(live, ch, f, at)
    if cause == "23" and not ch.plumbing and ch.answered_at is None and ch.end_reason is None:
        ch.end_reason = LegEnd.FORWARDED
        ch.call.forwarded_from = ch.call.forwarded_from or ch.party
    live.hang_up(ch, at)
    live.forget(at)


def shutdown(live: Live, f: Fields, at: float) -> None:
    """Asterisk says goodbye: it has just hung up every channel itself."""
    for call in live.recent:
        if call.ended_at is not None and call.ended_at > at - 5.0 and call.hung_up_by is None and not call.pbx_ended:
            call.pbx_ended = True
            live.mark(call)
