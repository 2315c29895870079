"""Somebody who uses ARI: an application of its own, that has channels and bridges recorded under the names it likes."""

import base64
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from stage import DEADLINE_S
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from trunkline.embedded.asterisk import Asterisk


class AriUser:
    """An application that is connected, and what it may ask; the user `recordings` may only read."""

    def __init__(self, pbx: Asterisk, application: str = "dictation", user: str = "trunkline") -> None:
        self.application = application
        self.events: list[dict[str, Any]] = []
        self._base = f"http://{pbx.host}:{pbx.http_port}/ari"
        secrets = {"trunkline": pbx.secrets.ari, "recordings": pbx.secrets.ari_recordings}
        self._key = "Basic " + base64.b64encode(f"{user}:{secrets[user]}".encode()).decode()
        self._heard = threading.Condition()
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(
            connect(
                f"ws://{pbx.host}:{pbx.http_port}/ari/events?app={application}&subscribeAll=true",
                additional_headers={"Authorization": self._key},
                proxy=None,
                compression=None,
            )
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stack.close()
        self._thread.join()

    def ask(self, method: str, path: str, **query: str) -> Any:
        """What ARI answers, None where that is nothing. Raises HTTPError."""
        url = f"{self._base}/{path}" + ("?" + urllib.parse.urlencode(query) if query else "")
        request = urllib.request.Request(url, method=method, headers={"Authorization": self._key})
        with urllib.request.urlopen(request, timeout=5) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def status(self, method: str, path: str, **query: str) -> int:
        """The status with which it is answered."""
        try:
            self.ask(method, path, **query)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200

    def event(self, kind: str, matches: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        """The first such event, as soon as it is there."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found.extend(event for event in self.events if event["type"] == kind and matches(event))
            return bool(found)

        with self._heard:
            if not self._heard.wait_for(there, DEADLINE_S):
                raise AssertionError(f"no {kind} within {DEADLINE_S:g} s")
        return found[0]

    def record(self, target: str, name: str, **more: str) -> None:
        """Have `channels/ID` or `bridges/ID` recorded; back when it is."""
        self.ask("POST", f"{target}/record", name=name, format="wav", **more)
        self.event("RecordingStarted", lambda event: event["recording"]["name"] == name)

    def snoop(self, channel: str) -> str:
        """A channel that hears both sides of another; its id."""
        made = self.ask("POST", f"channels/{channel}/snoop", app=self.application, spy="both")
        self.event("StasisStart", lambda event: event["channel"]["id"] == made["id"])
        return str(made["id"])

    def ring(self, endpoint: str) -> str:
        """Have a phone called, for us; the channel's id."""
        made = self.ask("POST", "channels", endpoint=endpoint, app=self.application, callerId="dictation")
        return str(made["id"])

    def _listen(self) -> None:
        with suppress(ConnectionClosed):
            for message in self._socket:
                with self._heard:
                    self.events.append(json.loads(message))
                    self._heard.notify_all()
