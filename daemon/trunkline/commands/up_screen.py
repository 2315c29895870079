"""What `trunkline up` shows: progress, then each Call as it rings, is answered and ends, with its URL."""

import json
import time
import urllib.error
import urllib.request
from typing import TextIO
from urllib.parse import urlencode

import trio

from trunkline.calls.record import CallRecord, CallUpdate

_SHOWN = {  # what happened -> what it is called on the screen
    "call.ringing": "RINGING",
    "call.ring_cleared": "",  # the next line tells more
    "call.queued": "QUEUED",
    "call.answered": "ANSWERED",
    "call.held": "HELD",
    "call.resumed": "RESUMED",
    "call.transferred": "TRANSFERRED",
    "call.parked": "PARKED",
    "call.merged": "MERGED",
}
_ASK_TIMEOUT_S = 5.0
_POLL_S = 0.1
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # what is asked is on this machine


class Screen:
    """Lines with the seconds since the start."""

    def __init__(self, out: TextIO, since: float) -> None:
        """`since` (epoch seconds) is when the user pressed return."""
        self._out = out
        self._since = since
        self._urls: dict[tuple[str, str], str] = {}
        self._said: dict[tuple[str, str], str] = {}  # the last line of each call

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return max(0.0, time.time() - self._since)

    def say(self, text: str) -> None:
        """Print a line at once."""
        print(f"[{self.elapsed_s:5.1f} s] {text}", file=self._out, flush=True)

    async def show(self, update: CallUpdate, base_url: str) -> None:
        """Print what has happened to a call that is stored."""
        record = update.record
        for happened in update.happened:
            word = record.status.value if happened == "call.ended" else _SHOWN.get(happened, happened)
            if not word:
                continue
            line = f"  {word:<12}{_line(record, ended=happened == 'call.ended')}"
            if self._said.get(self._key(record)) != line:  # a queue rings the same phones over and over
                self._said[self._key(record)] = line
                self.say(line)
        new = update.happened and self._key(record) not in self._urls
        if new or "call.ended" in update.happened:
            self.say(f"  {'':<12}{await self._url(record, base_url)}")

    async def recording_url(self, base_url: str, patience_s: float) -> str | None:
        """Return where the first call's recording can be heard, as soon as it is stored; None if it is not by then."""
        first = next(iter(self._urls.values()), "")
        call_url = first.partition("?")[0]
        with trio.move_on_after(patience_s):
            while True:
                found = await trio.to_thread.run_sync(_ask_stored, call_url, abandon_on_cancel=True)
                if found is not None:
                    return f"{base_url}/api/v1/recordings/{found}/audio"
                await trio.sleep(_POLL_S)
        return None

    async def _url(self, record: CallRecord, base_url: str) -> str:
        """Return where to look at the call; the API says which id its row has."""
        key = self._key(record)
        if key not in self._urls:
            call_id = await trio.to_thread.run_sync(_ask_id, record, base_url, abandon_on_cancel=True)
            self._urls[key] = f"{base_url}/api/v1/calls" + (f"/{call_id}?pretty=1" if call_id else "?pretty=1")
        return self._urls[key]

    @staticmethod
    def _key(record: CallRecord) -> tuple[str, str]:
        return record.pbx, record.external_id


def _line(record: CallRecord, *, ended: bool) -> str:
    name = f" ({record.caller_name})" if record.caller_name else ""
    parts = [f"{record.direction.value.lower()} {record.from_ or '?'}{name} to {record.to or '?'}"]
    if record.answered_by:
        parts.append(f"answered by {record.answered_by}")
    elif record.rang:
        parts.append(f"rings {', '.join(record.rang)}")
    if ended:
        parts.append(f"{record.duration or 0} s, talked {record.talk_seconds or 0} s")
        if record.ended_by:
            parts.append(f"ended by {record.ended_by.value.lower()}")
        if record.end_reason:
            parts.append(record.end_reason.value.lower().replace("_", " "))
    return "; ".join(parts)


def _ask_id(record: CallRecord, base_url: str) -> str | None:
    """Ask the API which id a call has; None when it does not say."""
    query = urlencode({"number": record.from_, "limit": 20}) if record.from_ else "limit=20"
    try:
        with _OPENER.open(f"{base_url}/api/v1/calls?{query}", timeout=_ASK_TIMEOUT_S) as answer:
            calls = json.load(answer)["items"]
    except (OSError, ValueError, KeyError):
        return None
    return next((call["id"] for call in calls if call["externalId"] == record.external_id), None)


def _ask_stored(call_url: str) -> str | None:
    """Ask the API which recording of a call is stored; None when none is, or it does not say."""
    try:
        with _OPENER.open(f"{call_url}/recordings", timeout=_ASK_TIMEOUT_S) as answer:
            recordings = json.load(answer)["items"]
    except (OSError, ValueError, KeyError):
        return None
    return next((str(recording["id"]) for recording in recordings if recording["state"] == "STORED"), None)


def unready(base_url: str) -> str:
    """Ask the API what is not ready yet; "" when everything is."""
    try:
        with _OPENER.open(f"{base_url}/readyz", timeout=_ASK_TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as answer:
        checks = json.load(answer).get("checks", [])
        return "; ".join(check.get("detail", check["check"]) for check in checks if not check["ok"]) or str(answer)
    except OSError as error:
        return str(error)
