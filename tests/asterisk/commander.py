"""A client of the API that commands calls: real requests to a real daemon, which commands a real Asterisk."""

import json
import threading
import urllib.error
import urllib.request
from typing import Any, NamedTuple
from uuid import uuid4

from stage import Rows, until

from trunkline.calls.record import CallRecord, Status


class Answer(NamedTuple):
    """What the API said."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def code(self) -> str:
        return str(self.body.get("code"))


class Commander:
    """Sends commands; the calls are those in the daemon's own rows."""

    def __init__(self, base: str, rows: Rows) -> None:
        self.base, self.rows = base, rows

    def post(self, path: str, body: dict[str, Any] | None = None, *, key: str = "", **headers: str) -> Answer:
        """POST with an Idempotency-Key, a new one unless told."""
        sent = {"Content-Type": "application/json", "Idempotency-Key": key or uuid4().hex, **headers}
        request = urllib.request.Request(f"{self.base}/api/v1/{path}", json.dumps(body or {}).encode(), sent)
        return self._ask(request)

    def get(self, path: str) -> Answer:
        return self._ask(urllib.request.Request(f"{self.base}{path}"))

    def start(self, path: str, body: dict[str, Any] | None = None, **options: str) -> "Asking":
        """`post` in a thread: a phone has to be answered meanwhile."""
        return Asking(self, path, body, options)

    def live(self, caller: str, *statuses: Status) -> str:
        """The id of the call from there, once it is in one of these states."""
        return str(self.rows.live(caller, *(statuses or (Status.IN_PROGRESS,))).id)

    def call_of(self, answer: Answer) -> CallRecord:
        """The call that an answer names, once it has ended."""
        found: list[CallRecord] = until(
            f"the call {answer.body['externalId']} has ended",
            lambda: self.rows.where("external_id = $1 AND ended_at IS NOT NULL", answer.body["externalId"]),
        )
        return found[0]

    def _ask(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return Answer(answer.status, json.load(answer), dict(answer.headers))
        except urllib.error.HTTPError as refused:
            with refused:
                return Answer(refused.code, json.load(refused), dict(refused.headers))


class Asking:
    """A request under way."""

    def __init__(self, commander: Commander, path: str, body: dict[str, Any] | None, options: dict[str, str]) -> None:
        self._answer: Answer | Exception | None = None

        def ask() -> None:
            try:
                self._answer = commander.post(path, body, **options)
            except OSError as error:
                self._answer = error

        self._thread = threading.Thread(target=ask, daemon=True)
        self._thread.start()

    def answer(self) -> Answer:
        """What was answered. Raises what the request raised."""
        self._thread.join(15)
        assert self._answer is not None, "the API did not answer"
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer
