"""`GET /api/v1/queues`, `/agents`, `/analytics/queues`: how they are, as far as the PBX is seen, and how they did."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from trunkline.api.contract import QUERY
from trunkline.api.parameters import read_id, read_seconds, read_time
from trunkline.api.problem import Problem, bad_parameter
from trunkline.api.state import STATE, json_response
from trunkline.calls.queue_record import SHORT_S, TARGET_S
from trunkline.store.change import LONGEST_KEY
from trunkline.store.queues import (
    DEFINITIONS,
    Agent,
    QueueFigures,
    QueueSummary,
    Span,
    select_agents,
    select_figures,
    select_people,
    select_queues,
)

LONGEST: Final = timedelta(days=92)
MOST_SECONDS: Final = 3600

_encode: Final = msgspec.json.Encoder().encode
_T = TypeVar("_T", QueueSummary, Agent)


class QueueList(msgspec.Struct):
    """Queues by name."""

    items: list[QueueSummary]


class AgentList(msgspec.Struct):
    """Agents by extension."""

    items: list[Agent]


class QueueAnalytics(msgspec.Struct, rename="camel"):
    """Queues' figures over a span of time."""

    definitions: int  # the version of docs/metrics.md that they go by
    from_: datetime = msgspec.field(name="from")
    to: datetime
    target_seconds: int
    short_seconds: int
    items: list[QueueFigures]


async def list_queues(request: web.Request) -> web.Response:
    """Every queue: who waits, how many agents in which state, today's figures."""
    state = request.app[STATE]
    queues = await select_queues(state.pool, await state.account_id(), _today(request), pbx=_pbx(request))
    return json_response(request, _encode(QueueList(queues)))


async def get_queue(request: web.Request) -> web.Response:
    """A queue by id or name, with its callers and agents."""
    state = request.app[STATE]
    span, account_id, id_ = _today(request), await state.account_id(), read_id(request, "nameOrId")
    name = None if id_ is not None else _name(request, "nameOrId")
    found = await select_queues(state.pool, account_id, span, id=id_, name=name, pbx=_pbx(request))
    missing = Problem("queue_not_found", "No queue has this id or name. GET /api/v1/queues lists those there are.")
    queue = _only(found, missing)
    return json_response(request, _encode(await select_people(state.pool, queue)))


async def list_agents(request: web.Request) -> web.Response:
    """Every agent: a member of a queue, or one who was."""
    state = request.app[STATE]
    agents = await select_agents(state.pool, await state.account_id(), pbx=_pbx(request))
    return json_response(request, _encode(AgentList(agents)))


async def get_agent(request: web.Request) -> web.Response:
    """An agent by his extension."""
    state = request.app[STATE]
    account_id, extension = await state.account_id(), _name(request, "extension")
    found = await select_agents(state.pool, account_id, extension=extension, pbx=_pbx(request))
    missing = Problem("agent_not_found", "No agent has this extension. GET /api/v1/agents lists those there are.")
    agent = _only(found, missing)
    return json_response(request, _encode(agent))


async def get_queue_analytics(request: web.Request) -> web.Response:
    """The figures of each queue over the callers that came into it from `from` on and before `to`."""
    state = request.app[STATE]
    found = request[QUERY]
    since, until = read_time("from", found), read_time("to", found)
    if since is None:
        since = _midnight()
    if until is None:
        until = max(datetime.now(UTC), since + timedelta(microseconds=1))
    if until <= since:
        raise bad_parameter("to", "is not after from; callers that came from then on and before to are counted.")
    if until - since > LONGEST:
        raise bad_parameter("to", f"is more than {LONGEST.days} days after from; ask for less at a time.")
    target = read_seconds("target", found, TARGET_S, MOST_SECONDS)
    short = read_seconds("short", found, SHORT_S, MOST_SECONDS)
    figures = await select_figures(state.pool, await state.account_id(), Span(since, until, target, short))
    answer = QueueAnalytics(DEFINITIONS, since, until, target, short, list(figures.values()))
    return json_response(request, _encode(answer))


def _today(request: web.Request) -> Span:
    """From `since` on, midnight UTC unless told."""
    since, now = read_time("since", request[QUERY]), datetime.now(UTC)
    if since is not None and now - since > LONGEST:
        raise bad_parameter("since", f"is more than {LONGEST.days} days ago; GET /api/v1/analytics/queues has those.")
    return Span(since or _midnight(), now + timedelta(minutes=5))  # the PBX's clock may be ahead


def _midnight() -> datetime:
    return datetime.combine(datetime.now(UTC).date(), time(), UTC)


def _pbx(request: web.Request) -> str | None:
    values = request[QUERY].get("pbx")
    if not values:
        return None
    if len(values[0]) > LONGEST_KEY:
        raise bad_parameter("pbx", f"is {len(values[0])} characters long; allowed: 1 to {LONGEST_KEY}.")
    return values[0]


def _name(request: web.Request, part: str) -> str:
    """What stands in the path; U+FFFD for NUL, which nothing in the database holds."""
    return request.match_info[part].replace("\0", "\ufffd")


def _only(found: Sequence[_T], missing: Problem) -> _T:
    if not found:
        raise missing
    if len(found) > 1:
        pbxs = ", ".join(one.pbx for one in found)
        raise Problem("several_pbxs", f"Several PBXs have this one: say which with ?pbx=, of {pbxs}.")
    return found[0]
