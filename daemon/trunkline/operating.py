"""What each command does on one PBX: which channel it means, which actions that takes, and what came of them.

    row -> Operator.carry_out -> Control (AMI, the control login)
                 |  which channel?          ^
                 +--> Following (tracker) --+-- OriginateResponse, by the events login

A command means a Call; which of its channels, the tracker says, and nothing that a client sent. What may be called is
looked at here again, by this process's own settings: who can write rows cannot make calls that they do not allow.
"""

import fnmatch
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import structlog
import trio

from trunkline.asterisk import actions
from trunkline.asterisk.actions import Action
from trunkline.asterisk.control import Control, NotAnswered, NotSent
from trunkline.asterisk.event import Event, Frame
from trunkline.asterisk.session import new_action_id
from trunkline.calls.model import UP
from trunkline.calls.names import SUPERVISING
from trunkline.calls.standing import Standing, StandingLeg
from trunkline.following import Following
from trunkline.identity.destinations import DestinationRefused, Destinations
from trunkline.store.command_queue import Claimed, Outcome
from trunkline.store.commands import Arguments, Kind, dialled_id

RING_S: Final = 30
_RANG_OUT: Final = "3"  # OriginateResponse's Reason: AST_CONTROL_RINGING was the last that was heard
_LATE_S: Final = 5.0  # for the answer to an Originate, behind the time to ring
_SEEN_S: Final = 2.0  # for the tracker to see what an action did
T = TypeVar("T")

_HOLD, _HELD = "holds", "held"  # extensions of the hold context

log = structlog.get_logger(__name__)


class Plan(NamedTuple):
    """How a PBX is spoken to: which extensions are agents, what their phones are called, where numbers are dialled."""

    agents: tuple[str, ...] = ("[1-9][0-9][0-9][0-9]",)
    endpoint: str = "PJSIP/{extension}"
    context: str = "agents"
    dial: str = "{e164}"
    hold_context: str = "trunkline-hold"


class Failed(Exception):
    """A command that was not carried out, and never will be. code: of the API's problems."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(slots=True)
class _Job:
    """A command under way. before: of trio's clock, after which it is not begun; what belongs to it follows at once."""

    command: Claimed
    arguments: Arguments
    before: float
    begun: bool = False


class Operator:
    """Carries commands out on one PBX. control: None where the settings hold no control login."""

    def __init__(
        self,
        following: Following,
        control: Control | None,
        plan: Plan,
        destinations: Destinations,
        is_up: Callable[[], bool],
    ) -> None:
        self._following = following
        self._control = control
        self._plan = plan
        self._destinations = destinations
        self._is_up = is_up
        self._agents = re.compile("|".join(fnmatch.translate(pattern) for pattern in plan.agents) or r"(?!)")
        self._originated: dict[str, Callable[[Event], None]] = {}  # by ActionID
        self._causes: dict[str, str] = {}  # of the hangup, by Uniqueid of what is being originated
        self._curious: set[trio.Event] = set()  # of who waits for something to happen
        self._tasks: dict[Kind, Callable[[_Job], Awaitable[dict[str, Any] | None]]] = {
            Kind.DIAL: self._dial,
            Kind.HANGUP: self._hangup,
            Kind.HOLD: self._hold,
            Kind.UNHOLD: self._unhold,
            Kind.TRANSFER: self._transfer,
            Kind.PARK: self._park,
            Kind.RECORD_PAUSE: self._record,
            Kind.RECORD_RESUME: self._record,
            Kind.SUPERVISE: self._supervise,
            Kind.AGENT_PAUSE: self._agent,
            Kind.AGENT_UNPAUSE: self._agent,
            Kind.AGENT_LOGIN: self._agent,
            Kind.AGENT_LOGOUT: self._agent,
        }

    @property
    def pbx(self) -> str:
        """What its PBX is called in the database; "" until it has said so."""
        return self._following.pbx

    def saw(self, event: Event) -> None:
        """Take note of an event of this PBX, before the tracker does."""
        if event.kind == "OriginateResponse":
            waiting = self._originated.pop(event.fields.get("ActionID", ""), None)
            if waiting is not None:
                waiting(event)
        elif event.kind in ("HangupRequest", "Hangup") and event.fields.get("Uniqueid") in self._causes:
            self._causes[event.fields["Uniqueid"]] = event.fields.get("Cause", "")
        while self._curious:
            self._curious.pop().set()

    async def carry_out(self, command: Claimed, before: float) -> Outcome:
        """Do it, once; what came of it. before: of trio's clock, after which it is not begun."""
        job = _Job(command, command.arguments or Arguments(), before)
        try:
            if command.arguments is None:
                raise Failed("bad_command", "the row holds no arguments of a command")
            if self._control is None:
                raise Failed(
                    "control_not_configured", "set control_secret of this [[pbx]]: nothing can be commanded without it"
                )
            if not self._is_up() or not self._following.ready:
                raise Failed("pbx_away", "the link to the PBX is down, so nobody knows how its calls are")
            result = await self._tasks[command.kind](job)
        except Failed as failed:
            return Outcome("failed", failed.code, failed.detail)
        except NotSent as error:
            if job.begun:
                return Outcome("unknown", "outcome_unknown", f"a part of it was done: {error}")
            return Outcome("failed", "pbx_away", str(error))
        except NotAnswered as error:
            return Outcome("unknown", "outcome_unknown", str(error))
        except ValueError as error:  # BadArgument among them
            return Outcome("failed", "bad_command", str(error))
        return Outcome("done", result=result)

    # ---- calls that begin

    async def _dial(self, job: _Job) -> dict[str, Any]:
        asked, plan = job.arguments, self._plan
        extension = self._agent_extension(asked.extension)
        number = self._number(asked)
        channel_id = dialled_id(job.command.id)
        action = actions.dial(channel_id, self._endpoint(extension), extension, plan.context, number, RING_S)
        await self._originate(job, action, channel_id)
        return {"answered": True}

    async def _supervise(self, job: _Job) -> dict[str, Any]:
        asked = job.arguments
        extension = self._agent_extension(asked.extension)
        standing = self._standing(job)
        spied = self._inside(standing, asked.to, talking=True)
        if spied.party == extension:
            raise Failed("which_leg", "nobody can supervise himself")
        channel_id = f"{SUPERVISING}{job.command.id.hex}"
        action = actions.supervise(
            channel_id, self._endpoint(extension), spied.uniqueid, extension, asked.mode or "", RING_S
        )
        await self._originate(job, action, channel_id)
        return {"mode": asked.mode, "extension": spied.party}

    async def _originate(self, job: _Job, action: Action, channel_id: str) -> None:
        """Ring somebody, and wait until he has answered. Raises Failed where he did not."""
        action_id, told = new_action_id(), trio.Event()
        answer: Event | None = None

        def answered(event: Event) -> None:
            nonlocal answer
            answer = event
            told.set()

        self._originated[action_id] = answered
        self._causes[channel_id] = ""
        try:
            await self._act(job, action, action_id)
            with trio.move_on_after(RING_S + _LATE_S):
                await told.wait()
            if answer is not None and answer.fields.get("Response") != "Success":
                raise await self._not_answered(answer.fields.get("Reason", ""), channel_id)
        finally:
            self._originated.pop(action_id, None)
            self._causes.pop(channel_id, None)
        # No answer, for the link was away when it came: then the channel itself tells.
        if answer is None and self._following.channel_state(channel_id) != UP:
            raise NotAnswered("the PBX rang the phone, and what came of it was not seen")

    async def _not_answered(self, reason: str, channel_id: str) -> Failed:
        """Why a phone was not answered: the reason only knows that it rang out, its channel's hangup the rest."""
        await self._seen(lambda: self._following.channel_state(channel_id) is None or self._causes[channel_id])
        cause = self._causes[channel_id]
        if reason == _RANG_OUT or cause == "19":
            return Failed("agent_no_answer", "the phone rang, and nobody answered")
        if cause in ("17", "21"):
            return Failed("agent_busy", "the phone is busy, or refused the call")
        if cause in ("16", "26", "127"):
            return Failed("call_over", "it was hung up before the phone was answered")
        return Failed("agent_unavailable", "the phone could not be rung: is it registered?")

    # ---- calls that are going on

    async def _hangup(self, job: _Job) -> dict[str, Any]:
        standing = self._standing(job)
        only = job.arguments.extension or (job.arguments.only if standing.conference else None)
        legs = [self._inside(standing, only)] if only is not None else list(standing.legs)
        # Our side first: it is what ends the Call, and not the customer, whom the row would else say to have hung up.
        ended, error = 0, None
        for leg in sorted(legs, key=lambda leg: leg.is_trunk):
            try:
                await self._act(job, actions.hangup(leg.uniqueid))
                ended += 1
            except Failed as failed:  # it may have gone with the one before
                error = failed
        if not ended and error is not None:
            raise error
        return {"channels": ended}

    async def _transfer(self, job: _Job) -> dict[str, Any] | None:
        asked, plan, mode = job.arguments, self._plan, job.arguments.mode
        standing = self._standing(job)
        if mode in ("ATTENDED_COMPLETE", "ATTENDED_CANCEL"):
            by = self._inside(standing, asked.extension or asked.only)
            if all(leg.peers or leg is by or not leg.up for leg in standing.legs):
                raise Failed("no_consultation", "nobody waits there for a consultation to end")
            end = actions.hangup if mode == "ATTENDED_COMPLETE" else actions.cancel_attended_transfer
            await self._act(job, end(by.uniqueid))
            return None
        number = self._number(asked)
        by = self._inside(standing, asked.extension or asked.only, talking=True)
        if mode == "ATTENDED":
            await self._act(job, actions.attended_transfer(by.uniqueid, plan.context, number))
            await self._consults(job, by)
        else:
            await self._act(job, actions.blind_transfer(by.uniqueid, plan.context, number))
        return None

    async def _consults(self, job: _Job, by: StandingLeg) -> None:
        """Atxfer presses the phone's keys, and says that it did. Where they are a feature the other side is held."""

        def begun() -> bool:
            now = self._following.standing(job.arguments.call or "")
            leg = None if now is None else now.leg(by.uniqueid)
            return leg is None or leg.holds or set(leg.peers).isdisjoint(by.peers)

        if not await self._seen(begun):
            raise Failed(
                "pbx_refused", "the PBX began no attended transfer: its Dial or Queue lets this side make none (t, T)"
            )

    async def _park(self, job: _Job) -> dict[str, Any]:
        standing = self._standing(job)
        by = self._inside(standing, job.arguments.extension or job.arguments.only, talking=True)
        parked = _only_peer(by)
        await self._act(job, actions.park(parked, by.uniqueid))

        def space() -> str | None:
            now = self._following.standing(job.arguments.call or "")
            return None if now is None else dict(now.spaces).get(parked)

        return {"space": await self._seen(space)}

    async def _seen(self, there: Callable[[], T]) -> T:
        """What that gives, as soon as the tracker has seen what makes it true; or what it gives _SEEN_S later."""
        with trio.move_on_after(_SEEN_S):
            while not (found := there()):
                happened = trio.Event()
                self._curious.add(happened)
                await happened.wait()
            return found
        return there()

    async def _hold(self, job: _Job) -> None:
        standing, context = self._standing(job), self._plan.hold_context
        by = self._inside(standing, job.arguments.extension or job.arguments.only, talking=True)
        held = _only_peer(by)
        await self._needs_context(job, context)
        await self._act(job, actions.set_hold(by.uniqueid, by.party or "0000"))
        try:
            await self._act(job, actions.redirect_both(by.uniqueid, _HOLD, held, _HELD, context))
        except Failed:
            await self._act(job, actions.set_hold(by.uniqueid, ""))
            raise

    async def _unhold(self, job: _Job) -> None:
        standing = self._standing(job)
        by = self._inside(standing, job.arguments.extension or job.arguments.only)
        others = [leg for leg in standing.legs if leg.waiting and leg is not by]
        if not by.waiting or len(others) != 1:
            raise Failed(
                "not_held", "this call is not on hold, or not by command: a phone's own hold ends at the phone"
            )
        await self._act(job, actions.bridge(by.uniqueid, others[0].uniqueid))
        await self._act(job, actions.set_hold(by.uniqueid, ""))

    async def _needs_context(self, job: _Job, context: str) -> None:
        """Where the dialplan lacks it, Redirect would hang both up: so it is asked first."""
        answer = await self._act(job, actions.dialplan_exists(context, _HELD))
        if answer.fields.get("Value") != "1":
            raise Failed(
                "hold_not_configured", f"the PBX's dialplan has no context {context}; dialplan/hold.conf is one"
            )

    async def _record(self, job: _Job) -> dict[str, Any]:
        standing, pause = self._standing(job), job.command.kind is Kind.RECORD_PAUSE
        if pause and standing.recorded_by_ari:  # who is told that it pauses says what must not be recorded
            raise Failed("recorded_by_ari", "an ARI application records this call too, and only that can pause it")
        if not standing.recorded:
            raise Failed("not_recorded", "nothing of this call is being recorded by MixMonitor")
        for channel in standing.recorded:
            try:
                await self._act(job, actions.mute_recording(channel, pause))
            except Failed as failed:
                if job.begun:
                    raise NotAnswered(f"a part of it was done: {failed.detail}") from failed
                raise
        return {"recordings": len(standing.recorded)}

    # ---- agents

    async def _agent(self, job: _Job) -> None:
        asked, kind = job.arguments, job.command.kind
        interface = self._endpoint(self._agent_extension(asked.extension))
        if kind in (Kind.AGENT_PAUSE, Kind.AGENT_UNPAUSE):
            action = actions.pause_member(interface, asked.queue, kind is Kind.AGENT_PAUSE, asked.reason)
        elif kind is Kind.AGENT_LOGIN:
            action = actions.add_member(interface, asked.queue or "", asked.penalty or 0)
        else:
            action = actions.remove_member(interface, asked.queue or "")
        await self._act(job, action)

    # ---- which, and how

    async def _act(self, job: _Job, action: Action, action_id: str = "") -> Frame:
        """One action, and its response. Raises Failed where the PBX refuses it, NotSent, NotAnswered."""
        assert self._control is not None  # noqa: S101  # carry_out has looked
        before = math.inf if job.begun else job.before
        answer = await self._control.act(action, before=before, action_id=action_id)
        if answer.fields.get("Response") != "Success":
            message = answer.fields.get("Message", "")
            log.info("command.refused", pbx=self.pbx, kind=job.command.kind.value, action=action.name, message=message)
            if "no such channel" in message.lower() or "not exist" in message.lower():
                raise Failed("channel_gone", f"the PBX does not know it any more: {message[:80]!r}")
            raise Failed("pbx_refused", f"the PBX refused {action.name}: {message[:80]!r}")
        job.begun = job.begun or action.name != "Getvar"
        return answer

    def _standing(self, job: _Job) -> Standing:
        """The Call that a command means. Raises Failed where it is over, or not the asker's."""
        standing = self._following.standing(job.arguments.call or "")
        if standing is None or not standing.legs:
            raise Failed("call_over", "this call is over")
        only = job.arguments.only
        if only is not None and all(leg.is_trunk or leg.party != only for leg in standing.legs):
            raise Failed("not_your_call", "your phone is not on this call")
        return standing

    def _inside(self, standing: Standing, extension: str | None, *, talking: bool = False) -> StandingLeg:
        """The leg of somebody inside: of that extension, or the only one that is up. Raises Failed."""
        inside = [leg for leg in standing.legs if not leg.is_trunk and leg.up]
        if extension is not None:
            inside = [leg for leg in inside if leg.party == extension]
            if not inside:
                raise Failed("channel_gone", "this extension is not on the call, or has not answered it")
        if talking:
            inside = [leg for leg in inside if leg.peers]
            if not inside:
                raise Failed("not_talking", "nobody inside talks to anybody on this call now")
        if len(inside) != 1:
            there = ", ".join(sorted(leg.party or "?" for leg in inside)) or "none"
            raise Failed("which_leg", f"say by `extension` whose phone is meant; there are: {there}")
        return inside[0]

    def _agent_extension(self, extension: str | None) -> str:
        found = actions.held_to("extension", extension or "")
        if not self._agents.match(found):
            raise Failed("agent_not_found", "this extension is none of the PBX's agents: see `agents` of its [[pbx]]")
        return found

    def _endpoint(self, extension: str) -> str:
        return actions.held_to("endpoint", self._plan.endpoint.format(extension=extension))

    def _number(self, asked: Arguments) -> str:
        """What the PBX dials to get there. Raises Failed."""
        try:
            to = self._destinations.check(asked.to or "")
        except DestinationRefused as refused:
            raise Failed("destination_refused", f"this {refused}") from refused
        if not to.outside:
            return self._agent_extension(to.number)
        return actions.held_to("number", self._plan.dial.format(e164=to.number, digits=to.number.removeprefix("+")))


def _only_peer(leg: StandingLeg) -> str:
    if len(leg.peers) != 1:
        raise Failed("not_talking", "this works where two talk; more do on this call")
    return leg.peers[0]
