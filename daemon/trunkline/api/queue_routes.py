"""The routes of queues and agents, declared; routes.py has the others."""

from datetime import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta

from trunkline.api import queues
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.queues import MOST_SECONDS
from trunkline.calls.queue_record import SHORT_S, TARGET_S
from trunkline.store.change import LONGEST_KEY
from trunkline.store.queues import Agent, Queue

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_PBX: Final = Parameter(
    name="pbx",
    about="Of this PBX only, by its systemname.",
    type=Annotated[str, Meta(min_length=1, max_length=LONGEST_KEY)],
)
_SINCE: Final = Parameter(
    name="since", about="When today began; midnight UTC unless told, at most 92 days ago.", type=datetime
)
_Seconds = Annotated[int, Meta(ge=0, le=MOST_SECONDS)]

QUEUE_ROUTES: Final = (
    Route(
        method="GET",
        path="/api/v1/queues",
        handler=queues.list_queues,
        about="The queues: how many wait, how many agents are in which state, today's figures.",
        tag="queues",
        parameters=(_PBX, _SINCE, _PRETTY),
        answers=(Answer(about="All of them, by name.", type=queues.QueueList),),
    ),
    Route(
        method="GET",
        path="/api/v1/queues/{nameOrId}",
        handler=queues.get_queue,
        about="A queue by its id or name, with who waits in it and who serves it.",
        tag="queues",
        parameters=(_PBX, _SINCE, _PRETTY),
        answers=(Answer(about="The queue.", type=Queue),),
        problems=("queue_not_found", "several_pbxs"),
    ),
    Route(
        method="GET",
        path="/api/v1/agents",
        handler=queues.list_agents,
        about="The agents: members of queues, and those who were.",
        tag="agents",
        parameters=(_PBX, _PRETTY),
        answers=(Answer(about="All of them, by extension.", type=queues.AgentList),),
    ),
    Route(
        method="GET",
        path="/api/v1/agents/{extension}",
        handler=queues.get_agent,
        about="An agent: how he is, since when, in which queues, on which call.",
        tag="agents",
        parameters=(_PBX, _PRETTY),
        answers=(Answer(about="The agent.", type=Agent),),
        problems=("agent_not_found", "several_pbxs"),
    ),
    Route(
        method="GET",
        path="/api/v1/analytics/queues",
        handler=queues.get_queue_analytics,
        about="How the queues did: of the callers who came in a span of time. docs/metrics.md defines each figure.",
        tag="analytics",
        parameters=(
            Parameter(name="from", about="Callers that came at or after; midnight UTC unless told.", type=datetime),
            Parameter(name="to", about="Callers that came before; now unless told.", type=datetime),
            Parameter(name="target", about=f"Seconds in which to be answered, {TARGET_S} unless told.", type=_Seconds),
            Parameter(
                name="short",
                about=f"Who gives up in less seconds does not count; {SHORT_S} unless told.",
                type=_Seconds,
            ),
            _PRETTY,
        ),
        answers=(Answer(about="The figures, by queue.", type=queues.QueueAnalytics),),
    ),
)
