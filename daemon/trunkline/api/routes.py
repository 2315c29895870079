"""Every route there is: what it may be asked, what it answers, who handles it."""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from trunkline.api import calls, document, health, live, recordings
from trunkline.api.command_routes import COMMANDS
from trunkline.api.contract import Answer, Parameter, Route
from trunkline.api.docs_page import DOCS_ROUTES
from trunkline.api.identity_routes import IDENTITY_ROUTES
from trunkline.api.inbox_routes import INBOX
from trunkline.api.integration_routes import INTEGRATIONS
from trunkline.api.lead_routes import LEAD_ROUTES
from trunkline.api.media_routes import MEDIA_FILES
from trunkline.api.oidc_routes import OIDC_ROUTES
from trunkline.api.parameters import DEFAULT_EVENTS, DEFAULT_LIMIT, LONGEST_NUMBER, MAX_EVENTS, MAX_WAIT_S
from trunkline.api.queue_routes import QUEUE_ROUTES
from trunkline.api.webhook_routes import WEBHOOKS
from trunkline.calls.record import Direction, Status
from trunkline.store.queries import MAX_LIMIT
from trunkline.store.recordings import Recording
from trunkline.store.rows import Call

_Number = Annotated[str, Meta(min_length=1, max_length=LONGEST_NUMBER)]
_One = Literal["1"]

_PRETTY: Final = Parameter(name="pretty", about="1: indented, for human eyes.", type=Literal["0", "1"])
_LIST: Final = (
    Parameter(name="status", about="Calls in one of these states.", type=Status, many=True),
    Parameter(name="direction", about="Calls of these directions.", type=Direction, many=True),
    Parameter(name="from", about="The caller's number, as the PBX saw it or in E.164. A + is %2B.", type=_Number),
    Parameter(name="to", about="The called number, as the PBX saw it or in E.164.", type=_Number),
    Parameter(name="number", about="Either side's number; instead of from and to.", type=_Number),
    Parameter(name="since", about="Started at or after; a date alone is midnight UTC.", type=datetime),
    Parameter(name="until", about="Started before.", type=datetime),
    Parameter(
        name="limit",
        about=f"How many to a page, {DEFAULT_LIMIT} unless told.",
        type=Annotated[int, Meta(ge=1, le=MAX_LIMIT)],
    ),
    Parameter(name="cursor", about="nextCursor of the page before, with the same filters."),
    Parameter(name="include", about="legs: with the legs of each call.", type=Literal["legs"], many=True),
    _PRETTY,
)

_RECORDING: Final = ("recording_not_found",)
_STORAGE: Final = ("storage_not_configured", "storage_unavailable")

_EVENTS: Final = (
    Parameter(
        name="after",
        about="The seq of the last event that was seen.",
        type=Annotated[int, Meta(ge=0, le=2**63 - 1)],
    ),
    Parameter(
        name="types",
        about="Only these: call.ended, or call.* for all of calls.",
        type=Annotated[str, Meta(pattern=r"^[a-z_]{1,32}\.([a-z_]{1,32}|\*)$")],
        many=True,
    ),
    Parameter(
        name="extension", about="Only what concerns this extension: it rings, rang, or has answered.", type=_Number
    ),
)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET",
        path="/api/v1/calls",
        handler=calls.list_calls,
        about="The calls, newest first.",
        tag="calls",
        sparse=True,
        parameters=_LIST,
        answers=(Answer(about="A page.", type=calls.CallPage),),
        problems=("bad_cursor",),
    ),
    Route(
        method="GET",
        path="/api/v1/calls/{id}",
        handler=calls.get_call,
        versioned=True,
        about="A call with its legs, transfers, holds and recordings; one that was merged into another is that other.",
        tag="calls",
        sparse=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="The call.", type=Call),),
        problems=("call_not_found",),
    ),
    Route(
        method="PATCH",
        path="/api/v1/calls/{id}",
        handler=calls.change_call,
        about="Say what a call was about, what came of it, and whose it is; what is left out stays.",
        tag="calls",
        versioned=True,
        parameters=(_PRETTY,),
        body=calls.CallChange,
        answers=(Answer(about="The call as it is now.", type=Call),),
        problems=("call_not_found", "lead_unknown"),
    ),
    Route(
        method="GET",
        path="/api/v1/calls/{id}/recordings",
        handler=recordings.list_of_call,
        about="The recordings of a call, in order of time.",
        tag="recordings",
        parameters=(_PRETTY,),
        answers=(Answer(about="Its recordings.", type=recordings.RecordingList),),
        problems=("call_not_found",),
    ),
    Route(
        method="GET",
        path="/api/v1/recordings",
        handler=recordings.list_recordings,
        about="The recordings that are not stored, and why; the newest first, 200 at most.",
        tag="recordings",
        parameters=(
            Parameter(
                name="state",
                about="Those in one of these states.",
                type=Literal["EMPTY", "FAILED", "PENDING", "UNMATCHED"],
                many=True,
            ),
            _PRETTY,
        ),
        answers=(Answer(about="The recordings.", type=recordings.RecordingList),),
    ),
    Route(
        method="GET",
        path="/api/v1/recordings/{id}",
        handler=recordings.get_recording,
        about="What is known of a recording.",
        tag="recordings",
        parameters=(_PRETTY,),
        answers=(Answer(about="The recording.", type=Recording),),
        problems=_RECORDING,
    ),
    Route(
        method="DELETE",
        path="/api/v1/recordings/{id}",
        handler=recordings.erase,
        about="Erase a recording: it cannot be heard from now on, and is gone once the storage has removed it.",
        tag="recordings",
        parameters=(_PRETTY,),
        answers=(Answer(about="Its erasure is ordered.", status=202),),
        problems=(*_RECORDING, *_STORAGE, "legal_hold"),
    ),
    Route(
        method="GET",
        path="/api/v1/recordings/{id}/audio",
        handler=recordings.get_audio,
        queues=False,
        about="A recording's sound, whole or a span of it.",
        tag="recordings",
        parameters=(
            Parameter(name="redirect", about="1: lead to a URL of the object storage, good for 60 s.", type=_One),
            Parameter(name="download", about="1: as a file, not to be played in the page.", type=_One),
        ),
        answers=(
            Answer(about="The whole of it.", content_type="audio/*"),
            Answer(about="The span that Range asked for.", status=206, content_type="audio/*"),
            Answer(about="Where it is.", status=302),
            Answer(about="It is what the client has (If-None-Match).", status=304),
        ),
        problems=(*_RECORDING, *_STORAGE, "no_audio", "object_missing", "range_refused", "recording_erased"),
    ),
    Route(
        method="GET",
        path="/api/v1/recordings/{id}/peaks",
        handler=recordings.get_peaks,
        queues=False,
        about="A recording's waveform, in audiowaveform's JSON, as peaks.js takes it.",
        tag="recordings",
        parameters=(_PRETTY,),
        answers=(Answer(about="The waveform.", type=dict[str, msgspec.Raw]),),
        problems=(*_RECORDING, *_STORAGE, "no_audio", "no_peaks", "object_missing", "recording_erased"),
    ),
    Route(
        method="PUT",
        path="/api/v1/recordings/{id}/hold",
        handler=recordings.put_hold,
        about="Put a recording under legal hold: nothing deletes it.",
        tag="recordings",
        parameters=(_PRETTY,),
        answers=(Answer(about="It is held.", status=204),),
        problems=(*_RECORDING, "recording_erased"),
    ),
    Route(
        method="DELETE",
        path="/api/v1/recordings/{id}/hold",
        handler=recordings.delete_hold,
        about="End a recording's legal hold.",
        tag="recordings",
        parameters=(_PRETTY,),
        answers=(Answer(about="It is held no more.", status=204),),
        problems=(*_RECORDING, "recording_erased"),
    ),
    *LEAD_ROUTES,
    *COMMANDS,
    *IDENTITY_ROUTES,
    *OIDC_ROUTES,
    *WEBHOOKS,
    *MEDIA_FILES,
    *INBOX,
    *INTEGRATIONS,
    *QUEUE_ROUTES,
    Route(
        method="GET",
        path="/api/v1/events",
        handler=live.list_events,
        queues=False,
        about="What has happened, in order, from the first event on or behind `after`; with `wait` as soon as it does.",
        tag="events",
        parameters=(
            *_EVENTS,
            Parameter(
                name="limit",
                about=f"How many at most, {DEFAULT_EVENTS} unless told.",
                type=Annotated[int, Meta(ge=1, le=MAX_EVENTS)],
            ),
            Parameter(
                name="wait",
                about="How many seconds to wait for the first; 0 unless told.",
                type=Annotated[int, Meta(ge=0, le=MAX_WAIT_S)],
            ),
            _PRETTY,
        ),
        answers=(Answer(about="Events; none where there are none yet.", type=live.EventPage),),
        problems=("cursor_ahead",),
    ),
    Route(
        method="GET",
        path="/api/v1/ws",
        handler=live.open_socket,
        queues=False,
        about="The same over a WebSocket, from now on or behind `after`. See docs/api.md.",
        tag="events",
        open=True,  # the key may come as a subprotocol or in the first message
        parameters=_EVENTS,
        answers=(Answer(about="A WebSocket.", status=101),),
        problems=("no_websocket", "origin_not_allowed"),
    ),
    Route(
        method="GET",
        path="/healthz",
        handler=health.healthz,
        queues=False,
        about="Is the process alive? It says nothing of PostgreSQL or a PBX.",
        tag="daemon",
        open=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="It is.", type=health.Health),),
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=health.readyz,
        queues=False,
        about="Is everything there: database, migrations, every PBX? Without a key neither PBXs nor reasons are named.",
        tag="daemon",
        open=True,
        parameters=(_PRETTY,),
        answers=(
            Answer(about="It is.", type=health.Readiness),
            Answer(about="Something is missing.", status=503, type=health.Readiness),
        ),
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=health.metrics,
        queues=False,
        about="For Prometheus, as text or OpenMetrics.",
        tag="daemon",
        scope="metrics:read",
        answers=(Answer(about="The metrics.", content_type="text/plain"),),
    ),
    Route(
        method="GET",
        path="/api/openapi.json",
        handler=document.openapi,
        queues=False,
        about="This document.",
        tag="daemon",
        open=True,
        parameters=(_PRETTY,),
        answers=(Answer(about="OpenAPI 3.1.", type=dict[str, msgspec.Raw]),),
    ),
    *DOCS_ROUTES,
    Route(
        method="GET",
        path="/",
        handler=document.index,
        queues=False,
        about="The routes, with links.",
        open=True,
        answers=(Answer(about="HTML.", content_type="text/html"),),
    ),
)

OPEN: Final = frozenset(route.path for route in ROUTES if route.open)
