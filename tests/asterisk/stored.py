"""What a daemon with object storage has made of the calls, as its API tells and serves it."""

import io
import json
import urllib.request
import wave
from typing import Any

from stage import Rows, Stage, until

from trunkline.calls.record import CallRecord

CUSTOMER_HZ = 350  # the tones of the built-in phones: embedded/demo.py


class Stored:
    """One daemon with object storage, seen from a test."""

    def __init__(self, stage: Stage, rows: Rows, base: str) -> None:
        self.stage, self.rows, self.base = stage, rows, base

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.base + path, timeout=10) as answer:
            body = answer.read()
            return json.loads(body) if "json" in answer.headers["Content-Type"] else body

    def recordings(self, state: str, count: int = 1) -> list[dict[str, Any]]:
        """The recordings of the test's call, once so many are in that state."""
        record = self.rows.ended(self.stage.caller)

        def found() -> list[dict[str, Any]]:
            return [one for one in self.recordings_of(record) if one["state"] == state]

        return until(f"{count} recordings are {state}", lambda: (some := found()) and len(some) == count and some, 20)

    def recordings_of(self, record: CallRecord) -> list[dict[str, Any]]:
        return self.get(f"/api/v1/calls/{record.id}/recordings")["items"]

    def sound(self, recording: dict[str, Any]) -> bytes:
        return self.get(f"/api/v1/recordings/{recording['id']}/audio")


def length(sound: bytes) -> float:
    with wave.open(io.BytesIO(sound)) as read:
        return read.getnframes() / read.getframerate()
