"""Commands: what a client wants done on a PBX, asked for by a row and waited for; this process knows no PBX.

Each is done once for each Idempotency-Key, in time or never. Users who are agents command their own phone and the calls
it is on, and nothing else.
"""

import asyncio
import math
import re
from contextlib import suppress
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta

from trunkline.api.change import idempotency_key
from trunkline.api.contract import BODY
from trunkline.api.guard import CALLER
from trunkline.api.parameters import read_id
from trunkline.api.problem import Problem
from trunkline.api.sessions import by
from trunkline.api.state import STATE, State, json_response
from trunkline.calls.record import LIVE, CallRecord, encode
from trunkline.identity.destinations import LONGEST, DestinationRefused
from trunkline.identity.scopes import Role
from trunkline.store.audit import insert_audit
from trunkline.store.commands import (
    Arguments,
    Asked,
    Command,
    KeyReused,
    Kind,
    OverLimit,
    ask,
    select_asker,
    select_by_key,
    select_command,
    select_pbx_of_call,
    select_pbxs,
)
from trunkline.store.queries import select_call
from trunkline.store.users import select_user

WAIT_S: Final = 5.0  # for what becomes of it; above store.commands.BEGIN_WITHIN_S
_LOOK_S: Final = 1.0  # how late an end is seen whose NOTIFY was lost
_EXTENSION: Final = re.compile(r"[0-9]{2,6}", re.ASCII)

Extension = Annotated[str, Meta(pattern=r"^[0-9]{2,6}$", max_length=6)]
Number = Annotated[str, Meta(min_length=2, max_length=LONGEST)]
Queue = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.\-]{1,79}$", max_length=79)]
Reason = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.\-]([A-Za-z0-9_.\- ]{0,38}[A-Za-z0-9_.\-])?$", max_length=40)]


class _Form(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    pass


class NewCall(_Form):
    """A call to be made: the phone of `extension` rings first, then `to` is dialled."""

    to: Number  # an extension, or a number, best in E.164
    extension: Extension | None = None  # left out: the caller's own
    pbx: Annotated[str, Meta(max_length=255)] | None = None  # its systemname; needed only where there are several


class OfCall(_Form):
    """What is to be done with a call. extension: whose phone is meant, where several are on it."""

    extension: Extension | None = None


class CallTransfer(_Form):
    """A transfer. BLIND sends the other side away; ATTENDED lets `extension` talk to `to` first, then completes."""

    kind: Literal["BLIND", "ATTENDED", "ATTENDED_COMPLETE", "ATTENDED_CANCEL"] = "BLIND"
    to: Number | None = None  # needed for BLIND and ATTENDED
    extension: Extension | None = None


class Supervision(_Form):
    """Listening in: nobody hears `extension` (LISTEN), the agent does (WHISPER), both do (BARGE)."""

    mode: Literal["LISTEN", "WHISPER", "BARGE"] = "LISTEN"
    extension: Extension | None = None  # the supervisor's phone; left out: the caller's own
    agent: Extension | None = None  # whose side is joined, where several are on the call


class AgentBreak(_Form):
    """A break from one queue, or from all."""

    queue: Queue | None = None
    reason: Reason | None = None
    pbx: Annotated[str, Meta(max_length=255)] | None = None


class AgentQueue(_Form):
    """A queue to log in to, or out of."""

    queue: Queue
    penalty: Annotated[int, Meta(ge=0, le=1000)] = 0
    pbx: Annotated[str, Meta(max_length=255)] | None = None


class _Acting(NamedTuple):
    """Who asks: his own extension, and whether he is held to it."""

    extension: str | None
    held: bool


async def dial(request: web.Request) -> web.Response:
    """Ring an agent's phone, then dial."""
    form: NewCall = request[BODY]  # type: ignore[assignment]  # the route's body
    return await _command(request, form, Kind.DIAL, status=201)


async def hangup(request: web.Request) -> web.Response:
    """Hang up a call, or one phone on it."""
    return await _command(request, _of_call(request), Kind.HANGUP)


async def hold(request: web.Request) -> web.Response:
    """Let the other side hear music."""
    return await _command(request, _of_call(request), Kind.HOLD)


async def unhold(request: web.Request) -> web.Response:
    """Let the two talk again."""
    return await _command(request, _of_call(request), Kind.UNHOLD)


async def transfer(request: web.Request) -> web.Response:
    """Transfer the other side."""
    form: CallTransfer = request[BODY]  # type: ignore[assignment]  # the route's body
    return await _command(request, form, Kind.TRANSFER)


async def park(request: web.Request) -> web.Response:
    """Park the other side."""
    return await _command(request, _of_call(request), Kind.PARK)


async def pause_recording(request: web.Request) -> web.Response:
    """Put silence into the recording."""
    return await _command(request, request[BODY], Kind.RECORD_PAUSE)


async def resume_recording(request: web.Request) -> web.Response:
    """Record again."""
    return await _command(request, request[BODY], Kind.RECORD_RESUME)


async def supervise(request: web.Request) -> web.Response:
    """Let a supervisor hear a call."""
    form: Supervision = request[BODY]  # type: ignore[assignment]  # the route's body
    return await _command(request, form, Kind.SUPERVISE)


async def pause_agent(request: web.Request) -> web.Response:
    """Give an agent a break."""
    return await _command(request, request[BODY], Kind.AGENT_PAUSE)


async def unpause_agent(request: web.Request) -> web.Response:
    """End an agent's break."""
    return await _command(request, request[BODY], Kind.AGENT_UNPAUSE)


async def log_agent_in(request: web.Request) -> web.Response:
    """Let an agent take a queue's calls."""
    return await _command(request, request[BODY], Kind.AGENT_LOGIN)


async def log_agent_out(request: web.Request) -> web.Response:
    """Let an agent take a queue's calls no more."""
    return await _command(request, request[BODY], Kind.AGENT_LOGOUT)


async def get_command(request: web.Request) -> web.Response:
    """A command, and what became of it."""
    state, command_id = request.app[STATE], read_id(request)
    account_id = await state.account_id()
    command = None if command_id is None else await select_command(state.pool, account_id, command_id)
    if command is None:
        raise _unknown_command()
    acting = await _acting(request, state, account_id)
    if acting.held and await select_asker(state.pool, account_id, command.id) != request[CALLER].actor:
        raise _unknown_command()
    return json_response(request, encode(command))


async def _command(request: web.Request, form: Any, kind: Kind, *, status: int = 200) -> web.Response:
    """Ask for it, wait for what becomes of it, and say so. Raises Problem."""
    state = request.app[STATE]
    account_id = await state.account_id()
    call = await _call_of(request, state, account_id)
    agent = _agent_of(request)
    key = _key(request)
    digest = _digest(request, form)
    asker = by(request)
    command: Command | KeyReused | OverLimit | None = await select_by_key(state.pool, account_id, key, digest)
    if command is None:
        if call is not None and call.status not in LIVE:
            raise Problem("call_over", "This call is over.")
        try:
            acting = await _acting(request, state, account_id)
            arguments = _arguments(state, form, kind, call, agent, acting)
        except Problem as refused:
            await _audit_refusal(request, account_id, kind, call, refused.code)
            raise
        pbx = await _pbx(state, account_id, call, getattr(form, "pbx", None))
        asked = Asked(pbx, kind, arguments, None if call is None else UUID(call.id), key, digest)
        command = await ask(state.pool, account_id, asked, asker, state.commands.limits)
    if isinstance(command, KeyReused):
        raise Problem(
            "idempotency_key_reused",
            "This Idempotency-Key came before with another request; send a new one with each new request.",
        )
    if isinstance(command, OverLimit):
        await _audit_refusal(request, account_id, kind, call, "call_limit")
        raise _over_limit(command)
    command = await _ended(state, account_id, command)
    if command.state in ("FAILED", "UNKNOWN"):
        raise _problem(command)
    done = command.over
    response = json_response(request, encode(command), status=status if done else 202)
    response.headers["Location"] = f"/api/v1/commands/{command.id}"
    return response


async def _audit_refusal(
    request: web.Request, account_id: UUID, kind: Kind, call: CallRecord | None, code: str
) -> None:
    """Who tries what he may not is in the audit too; what is merely written wrong is not."""
    if code in ("destination_refused", "call_limit", "not_yours"):
        subject = f"agent:{request.match_info['ext']}" if "ext" in request.match_info else "call:new"
        subject = subject if call is None else f"call:{call.id}"
        pool = request.app[STATE].pool
        await insert_audit(pool, account_id, by(request), f"command.{kind.lower()}", subject, f"refused: {code}")


async def _ended(state: State, account_id: UUID, command: Command) -> Command:
    """The command as soon as it is over, or as it is WAIT_S later."""
    if command.over:
        return command
    loop = asyncio.get_running_loop()
    until = loop.time() + WAIT_S
    with state.answers.of(command.id) as news:
        while True:
            news.clear()
            found = await select_command(state.pool, account_id, command.id)
            command = found or command
            left_s = until - loop.time()
            if command.over or left_s <= 0 or state.feed.stopping:
                return command
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await news.wait()


def _of_call(request: web.Request) -> OfCall:
    form = request[BODY]
    assert isinstance(form, OfCall)  # noqa: S101  # the route's body
    return form


async def _call_of(request: web.Request, state: State, account_id: UUID) -> CallRecord | None:
    """The call of the path; None where the path has none. Raises Problem."""
    if "id" not in request.match_info:
        return None
    call_id = read_id(request)
    call = None if call_id is None else await select_call(state.pool, account_id, call_id)
    if call is None:
        raise Problem("call_not_found", "No call has this id. GET /api/v1/calls lists the calls there are.")
    return call


def _agent_of(request: web.Request) -> str | None:
    """The extension of the path; None where the path has none. Raises Problem."""
    extension = request.match_info.get("ext")
    if extension is not None and not _EXTENSION.fullmatch(extension):
        raise _unknown_agent("No agent has this extension: it has 2 to 6 digits.")
    return extension


def _key(request: web.Request) -> str:
    """The request's Idempotency-Key. Raises Problem."""
    given = idempotency_key(request)
    if given is None:
        raise Problem(
            "idempotency_key_missing",
            "This needs the header Idempotency-Key: 1 to 255 visible ASCII characters, such as a UUID. Send the same "
            "one when you try again, so that it is done once.",
        )
    return given


def _digest(request: web.Request, form: Any) -> bytes:
    """What makes a request this one: who asks, for what."""
    told = (request[CALLER].actor, request.method, request.path, encode(form).decode())
    return sha256(encode(told)).digest()


async def _acting(request: web.Request, state: State, account_id: UUID) -> _Acting:
    """Who asks. Raises Problem where he is an agent without an extension."""
    caller = request[CALLER]
    user = None if caller.user_id is None else await select_user(state.pool, account_id, caller.user_id)
    if user is None:
        return _Acting(None, False)
    held = user.role == Role.AGENT
    if held and not (user.extension and _EXTENSION.fullmatch(user.extension)):
        raise _not_yours("You are an agent without an extension, so there is nothing you could command.")
    return _Acting(user.extension if user.extension and _EXTENSION.fullmatch(user.extension) else None, held)


def _arguments(
    state: State, form: Any, kind: Kind, call: CallRecord | None, agent: str | None, acting: _Acting
) -> Arguments:
    """What the core is told. Raises Problem where the asker may not ask for it."""
    only = acting.extension if acting.held else None
    arguments = Arguments(call=call.external_id if call is not None else None, only=only)
    match form:
        case NewCall():
            arguments.extension = _whose(form.extension, acting)
            arguments.to, arguments.outside = _destination(state, form.to)
        case Supervision():
            arguments.extension = _whose(form.extension, acting)
            arguments.to, arguments.mode = form.agent, form.mode
        case CallTransfer():
            arguments.extension = form.extension
            arguments.mode = form.kind
            if form.kind in ("BLIND", "ATTENDED"):
                if form.to is None:
                    raise Problem("bad_body", "to: is missing; say where the call is to go.")
                arguments.to, arguments.outside = _destination(state, form.to)
            elif form.to is not None:
                raise Problem("bad_body", "to: is only for kind BLIND and ATTENDED.")
        case OfCall():
            arguments.extension = form.extension
        case AgentBreak():
            arguments.extension, arguments.queue, arguments.reason = agent, form.queue, form.reason
        case AgentQueue():
            arguments.extension, arguments.queue = agent, form.queue
            arguments.penalty = form.penalty if kind is Kind.AGENT_LOGIN else None
    if only is not None:
        if arguments.extension not in (None, only):
            raise _not_yours("You are an agent: you may command your own extension only.")
        if call is not None and all(leg.party != only for leg in call.legs):
            raise _not_yours("Your phone is not on this call.")
    return arguments


def _whose(extension: str | None, acting: _Acting) -> str:
    """Whose phone rings. Raises Problem where nobody says."""
    found = extension or acting.extension
    if found is None:
        raise Problem("bad_body", "extension: is missing; say whose phone is to ring.")
    return found


def _destination(state: State, to: str) -> tuple[str, bool]:
    try:
        return state.commands.destinations.check(to)
    except DestinationRefused as refused:
        raise _refused_destination(f"to: {refused}.") from refused


async def _pbx(state: State, account_id: UUID, call: CallRecord | None, name: str | None) -> UUID:
    """The PBX that is to do it. Raises Problem."""
    if call is not None:
        found = None if call.id is None else await select_pbx_of_call(state.pool, account_id, UUID(call.id))
        if found is None:
            raise Problem("no_pbx", "This call is on no PBX that could be told anything.")
        return found
    pbxs = await select_pbxs(state.pool, account_id)
    if not pbxs:
        raise Problem("no_pbx", "No PBX of the account is known yet; `trunkline run` makes it known.")
    if name is None and len(pbxs) == 1:
        return next(iter(pbxs.values()))
    if name is None or name not in pbxs:
        raise Problem("bad_body", "pbx: say which one.", allowed=sorted(pbxs))
    return pbxs[name]


def _over_limit(over: OverLimit) -> Problem:
    return Problem(
        "call_limit",
        f"The account has ordered as many calls to the outside as commands.{over.what} allows. "
        "Wait as long as Retry-After says.",
        headers={"Retry-After": str(max(1, math.ceil(over.wait_s)))},
        limit=over.what,
    )


def _problem(command: Command) -> Problem:
    """What is answered for a command that did not go well."""
    detail = f"{command.detail or 'It was not done'}."
    detail = detail[0].upper() + detail[1:]
    told: dict[str, Any] = {"commandId": str(command.id)}
    later = {"Retry-After": "5"}
    match command.code:
        case "pbx_away":
            return Problem("pbx_away", f"{detail} Nothing was done, nor will be: try again.", headers=later, **told)
        case "command_expired":
            expired = "No daemon that owns the PBX took it in time. It will not be done: try again."
            return Problem("command_expired", expired, headers=later, **told)
        case "control_not_configured":
            return Problem("control_not_configured", detail, **told)
        case "call_over":
            return Problem("call_over", detail, **told)
        case "channel_gone":
            return Problem("channel_gone", detail, **told)
        case "not_talking":
            return Problem("not_talking", detail, **told)
        case "no_consultation":
            return Problem("no_consultation", detail, **told)
        case "which_leg":
            return Problem("which_leg", detail, **told)
        case "not_held":
            return Problem("not_held", detail, **told)
        case "not_recorded":
            return Problem("not_recorded", detail, **told)
        case "recorded_by_ari":
            return Problem("recorded_by_ari", detail, **told)
        case "hold_not_configured":
            return Problem("hold_not_configured", detail, **told)
        case "agent_no_answer":
            return Problem("agent_no_answer", detail, **told)
        case "agent_busy":
            return Problem("agent_busy", detail, **told)
        case "agent_unavailable":
            return Problem("agent_unavailable", detail, **told)
        case "pbx_refused":
            return Problem("pbx_refused", detail, **told)
        case "not_your_call":
            return _not_yours(detail, **told)
        case "agent_not_found":
            return _unknown_agent(detail, **told)
        case "destination_refused":
            return _refused_destination(detail, **told)
        case _:
            unknown = f"{detail} Whether the PBX did it nobody can say: look at the call before you ask for it again."
            return Problem("outcome_unknown", unknown, **told)


def _not_yours(detail: str, **more: Any) -> Problem:
    return Problem("not_yours", detail, **more)


def _unknown_agent(detail: str, **more: Any) -> Problem:
    return Problem("agent_not_found", detail, **more)


def _refused_destination(detail: str, **more: Any) -> Problem:
    return Problem("destination_refused", detail, **more)


def _unknown_command() -> Problem:
    return Problem("command_not_found", "No command has this id; they are kept for 30 days.")
