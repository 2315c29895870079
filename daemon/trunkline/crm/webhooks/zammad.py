"""The shape of Zammad's generic CTI push: newCall, answer and hangup of a call, each once.

Source: https://docs.zammad.org/en/latest/api/generic-cti/index.html . Zammad refuses a second newCall of the same
callId, and an answer or hangup of one that it was told nothing of; so `once` says what is told of which call.
"""

from typing import Any, Final

from trunkline.calls.record import Direction
from trunkline.store.events import StoredEvent

NEW_CALL: Final = "newCall"
ANSWER: Final = "answer"
HANGUP: Final = "hangup"

_EVENTS: Final = {"call.ringing": NEW_CALL, "call.answered": ANSWER, "call.ended": HANGUP, "call.merged": HANGUP}
_DIRECTIONS: Final = {Direction.INBOUND.value: "in", Direction.OUTBOUND.value: "out"}

# Of a call that nobody answered, by its endReason, else by its status.
_CAUSES: Final = {
    "CANCELED": "cancel",
    "RING_TIMEOUT": "noAnswer",
    "QUEUE_TIMEOUT": "noAnswer",
    "AGENT_NO_ANSWER": "noAnswer",
    "DECLINED": "noAnswer",
    "NO_ANSWER": "noAnswer",
    "MISSED": "cancel",
    "ABANDONED": "cancel",
    "VOICEMAIL": "noAnswer",
    "BUSY": "busy",
    "CONGESTION": "congestion",
    "FAILED": "congestion",
    "PBX_LOST": "congestion",
    "UNAVAILABLE": "notFound",
    "UNALLOCATED": "notFound",
}


def once(type_: str, direction: str | None, call_id: str | None, merged_id: str | None) -> str | None:
    """What is told of which call, as "newCall ID"; None: Zammad has no word for it, nor for calls within the house."""
    event = _EVENTS.get(type_)
    subject = merged_id if type_ == "call.merged" else call_id
    return None if event is None or subject is None or direction not in _DIRECTIONS else f"{event} {subject}"


def needs(name: str) -> str | None:
    """What has to be told before: the newCall of an answer or a hangup."""
    event, _, subject = name.partition(" ")
    return None if event == NEW_CALL else f"{NEW_CALL} {subject}"


def told(event: StoredEvent) -> dict[str, Any]:
    """An event that `once` has a name for, in Zammad's words."""
    call = event.data.get("call") or {}
    name = _EVENTS[event.type]
    merged = event.type == "call.merged"
    body: dict[str, Any] = {
        "event": name,
        "from": _number(call, "from"),
        "to": _number(call, "to"),
        "direction": _DIRECTIONS.get(call.get("direction", ""), "in"),
        "callId": str(event.data.get("mergedId") if merged else event.call_id),
    }
    if name == NEW_CALL and call.get("queue"):
        body["queue"] = call["queue"]
    if name != NEW_CALL and call.get("answeredBy") and not merged:
        body["answeringNumber"] = call["answeredBy"]
    if name == HANGUP:
        body["cause"] = "forwarded" if merged else _cause(call)
    return body


def test(id_: object) -> list[dict[str, Any]]:
    """A call that begins and is over, so that nothing rings on in Zammad's caller log."""
    call = {"from": "anonymous", "to": "trunkline", "direction": "in", "callId": f"test-{id_}"}
    return [{"event": NEW_CALL, **call}, {"event": HANGUP, **call, "cause": "cancel"}]


def _number(call: dict[str, Any], side: str) -> str:
    """E.164 without its plus, as Zammad writes numbers; else what the PBX saw."""
    if side == "from" and call.get("fromPrivate"):
        return "anonymous"
    return str(call.get(f"{side}E164") or call.get(side) or "anonymous").removeprefix("+")


def _cause(call: dict[str, Any]) -> str:
    if call.get("answeredAt"):
        return "normalClearing"
    return _CAUSES.get(call.get("endReason") or "") or _CAUSES.get(call.get("status") or "", "normalClearing")
