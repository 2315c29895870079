"""The routes of commands, declared; routes.py has the others."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

from aiohttp import web

from trunkline.api import commands
from trunkline.api.change import Repeats
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.store.commands import Command

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_ANY: Final = (
    "idempotency_key_missing",
    "not_yours",
    "no_pbx",
    "pbx_away",
    "pbx_refused",
    "command_expired",
    "control_not_configured",
    "outcome_unknown",
)
_CALL: Final = ("call_not_found", "call_over", "channel_gone")
_OUTSIDE: Final = ("agent_not_found", "destination_refused", "call_limit")
_RINGS: Final = ("agent_no_answer", "agent_busy", "agent_unavailable", "call_over")


def _route(
    path: str,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    about: str,
    body: Any,
    *problems: str,
    scope: str = "calls:control",
    status: int = 200,
) -> Route:
    return Route(
        method="POST",
        path=path,
        handler=handler,
        about=about,
        tag="commands",
        scope=scope,
        repeats=Repeats.HANDLED,
        queues=False,  # it waits for the PBX, not for the database
        parameters=(_PRETTY,),
        body=body,
        answers=(
            Answer(about="The PBX has done it.", status=status, type=Command),
            Answer(
                about="The PBX is at it; `Location` says where it will stand what came of it.", status=202, type=Command
            ),
        ),
        problems=(*_ANY, *problems),
    )


_OF: Final = "/api/v1/calls/{id}"
_AGENT: Final = "/api/v1/agents/{ext}"

COMMANDS: Final = (
    _route(
        "/api/v1/calls",
        commands.dial,
        "Click to dial: ring an extension, and dial a number when it answers.",
        commands.NewCall,
        *_OUTSIDE,
        *_RINGS,
        status=201,
    ),
    _route(f"{_OF}/hangup", commands.hangup, "Hang up a call.", commands.OfCall, *_CALL, "which_leg"),
    _route(
        f"{_OF}/hold",
        commands.hold,
        "Put the other side on hold, with music.",
        commands.OfCall,
        *_CALL,
        "which_leg",
        "not_talking",
        "hold_not_configured",
    ),
    _route(f"{_OF}/unhold", commands.unhold, "End a hold.", commands.OfCall, *_CALL, "which_leg", "not_held"),
    _route(
        f"{_OF}/transfer",
        commands.transfer,
        "Transfer the other side, blind or after a consultation.",
        commands.CallTransfer,
        *_CALL,
        *_OUTSIDE,
        "which_leg",
        "not_talking",
        "no_consultation",
    ),
    _route(
        f"{_OF}/park",
        commands.park,
        "Park the other side; the result says in which space.",
        commands.OfCall,
        *_CALL,
        "which_leg",
        "not_talking",
    ),
    _route(
        f"{_OF}/record/pause",
        commands.pause_recording,
        "Put silence into the recording from now on.",
        commands.OfCall,
        *_CALL,
        "not_recorded",
        "recorded_by_ari",
    ),
    _route(
        f"{_OF}/record/resume",
        commands.resume_recording,
        "Record again.",
        commands.OfCall,
        *_CALL,
        "not_recorded",
    ),
    _route(
        f"{_OF}/supervise",
        commands.supervise,
        "Listen to a call, whisper to its agent, or barge in.",
        commands.Supervision,
        *_CALL,
        *_RINGS,
        "agent_not_found",
        "which_leg",
        "not_talking",
        scope="calls:supervise",
    ),
    *(
        _route(f"{_AGENT}/{word}", handler, about, body, "agent_not_found", scope="agents:control")
        for word, handler, about, body in (
            ("pause", commands.pause_agent, "Give an agent a break from a queue, or from all.", commands.AgentBreak),
            ("unpause", commands.unpause_agent, "End an agent's break.", commands.AgentBreak),
            ("login", commands.log_agent_in, "Let an agent take a queue's calls.", commands.AgentQueue),
            ("logout", commands.log_agent_out, "Let an agent take a queue's calls no more.", commands.AgentQueue),
        )
    ),
    Route(
        method="GET",
        path="/api/v1/commands/{id}",
        handler=commands.get_command,
        about="A command, and what became of it; kept for 30 days.",
        tag="commands",
        scope="calls:control",
        parameters=(_PRETTY,),
        answers=(Answer(about="The command.", type=Command),),
        problems=("command_not_found", "not_yours"),
    ),
)
