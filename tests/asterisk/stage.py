"""The stage of a scenario: a real Asterisk, real phones, the daemon's rows; and what a row must say, whole."""

import asyncio
import contextlib
import csv
import itertools
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import asyncpg

from trunkline.calls.names import SUPERVISING
from trunkline.calls.record import LIVE, CallRecord, Direction, Quality, Status
from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.demo import agent_phone, carrier_phone
from trunkline.embedded.phone import Call, Phone
from trunkline.store.rows import CALL_COLUMNS, LEG_COLUMNS, record_of_row

# of the PBX: short enough not to wait for, long enough for a busy machine's phones to answer in
TIMERS = {"ring_s": 3, "queue_s": 7, "queue_ring_s": 2, "queue_strategy": "linear", "park_s": 3}
DEADLINE_S = 8.0
_POLL_S = 0.05
# +1 202 555 01xx is set aside for fiction
_NUMBERS = (f"12025550{n}" for n in itertools.count(100))
_CEL_CHANNEL, _CEL_LINKEDID = 9, 15


def talk(seconds: float = 0.4) -> None:
    """What the script says: people talk (or wait, or read) for so long."""
    time.sleep(seconds)


def until(what: str, happens: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `happens` gives something true, and return it."""
    end = time.monotonic() + deadline_s
    while not (result := happens()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        time.sleep(_POLL_S)
    return result


class Tap:
    """The events that the daemon's own login gets, kept raw: a wrong row can be replayed from them."""

    def __init__(self, pbx: Asterisk, user: str = "events", secret: str = "") -> None:
        self.raw = bytearray()
        self._changed = threading.Condition()
        self._socket = socket.create_connection((pbx.host, pbx.ami_port), 5)
        self._socket.settimeout(None)
        self._ids = itertools.count(1)
        login = f"Username: {user}\r\nSecret: {secret or pbx.secrets.ami_events}\r\nEvents: on\r\n"
        threading.Thread(target=self._read, daemon=True).start()
        answer = self.ask("Login", login)
        if b"Success" not in answer:
            raise AssertionError(f"login refused: {answer!r}")

    def ask(self, action: str, fields: str = "") -> bytes:
        """The response to an action."""
        action_id = f"tap-{next(self._ids)}"
        mark = len(self.raw)
        self._socket.sendall(f"Action: {action}\r\nActionID: {action_id}\r\n{fields}\r\n".encode())
        return self.wait(rb"Response: [^\r]*\r\nActionID: " + action_id.encode() + rb"\r\n.*?(?<=\r\n)\r\n", mark)

    def wait(self, pattern: bytes, since: int = 0, deadline_s: float = DEADLINE_S) -> bytes:
        """The first match from `since` on, as soon as it is there."""
        compiled = re.compile(pattern, re.DOTALL)
        found: list[bytes] = []

        def there() -> bool:
            match = compiled.search(bytes(self.raw[since:]))
            found.extend([match[0]] if match else [])
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(there, deadline_s):
                raise AssertionError(f"no {pattern!r} from the PBX within {deadline_s:g} s")
        return found[0]

    def event(self, name: str, since: int, **fields: str) -> dict[str, str]:
        """The next such event after position `since` of `raw`."""

        def matching() -> dict[str, str] | None:
            return next((e for e in self.events(since, name) if all(e.get(k) == v for k, v in fields.items())), None)

        found: dict[str, str] = until(f"{name} {fields}", matching)
        return found

    def events(self, since: int, name: str) -> Iterable[dict[str, str]]:
        """Every whole event of that name after `since`."""
        for block in bytes(self.raw[since:]).decode("utf-8", "replace").split("\r\n\r\n")[:-1]:
            if block.startswith(f"Event: {name}\r\n"):
                yield {key: value for key, _, value in (line.partition(": ") for line in block.split("\r\n"))}

    def close(self) -> None:
        """Log off."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(65536):
                with self._changed:
                    self.raw += data
                    self._changed.notify_all()


class Rows:
    """The calls in the real PostgreSQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def where(self, condition: str, *values: object) -> list[CallRecord]:
        """The calls that fit, with legs and aliases."""
        return asyncio.run(self._select(condition, values))

    def ended(self, caller: str, deadline_s: float = DEADLINE_S) -> CallRecord:
        """The one call of that caller, once it has ended."""

        def one() -> CallRecord | None:
            records = self.where("from_number = $1", caller)
            return records[0] if len(records) == 1 and records[0].status not in LIVE else None

        try:
            found: CallRecord = until(f"one ended call from {caller}", one, deadline_s)
        except AssertionError:
            raise AssertionError(
                f"no single ended call from {caller}; rows: {self.where('from_number = $1', caller)}"
            ) from None
        return found

    def live(self, caller: str, *statuses: Status) -> CallRecord:
        """The call of that caller, as soon as it is in one of these states."""
        found: list[CallRecord] = until(
            f"a call from {caller} in {statuses}",
            lambda: [r for r in self.where("from_number = $1", caller) if r.status in statuses],
        )
        return found[0]

    async def _select(self, condition: str, values: Iterable[object]) -> list[CallRecord]:
        connection = await asyncpg.connect(self.url)
        try:
            columns = ", ".join(CALL_COLUMNS)
            rows = await connection.fetch(f"SELECT {columns} FROM call WHERE {condition} ORDER BY started_at", *values)
            records = []
            for row in rows:
                legs = await connection.fetch(
                    f"SELECT {', '.join(LEG_COLUMNS)} FROM call_leg WHERE call_id = $1 ORDER BY position", row["id"]
                )
                aliases = await connection.fetch("SELECT external_id FROM call_alias WHERE call_id = $1", row["id"])
                records.append(record_of_row(row, legs=legs, aliases=[alias["external_id"] for alias in aliases]))
            return records
        finally:
            await connection.close()


class Stage:
    """A test's view of the PBX: who calls whom. Made anew for each test; phones live as long as the PBX."""

    def __init__(self, pbx: Asterisk, tap: Tap, rows: Rows) -> None:
        self.pbx, self.tap, self.rows = pbx, tap, rows
        self._phones: dict[str, Phone] = {}
        self.caller, self.mark = "", 0
        self.api = ""  # the daemon's URL

    def begin(self) -> None:
        """A new test: a caller nobody has been before."""
        self.caller, self.mark = next(_NUMBERS), len(self.tap.raw)

    @property
    def carrier(self) -> Phone:
        """The outside world."""
        return self._phone("carrier", lambda: carrier_phone(self.pbx))

    def agent(self, number: str) -> Phone:
        """That agent's phone, registered."""
        return self._phone(number, lambda: agent_phone(self.pbx, number))

    def _phone(self, name: str, make: Callable[[], Phone]) -> Phone:
        if name not in self._phones:
            self._phones[name] = make()
        return self._phones[name]

    def dial(self, did: str, *, name: str = "Jane Doe", headers: tuple[str, ...] = ()) -> Call:
        """The customer calls us."""
        return self.carrier.call(self.pbx.did(did), caller=self.caller, name=name, headers=headers)

    def ring(self, did: str = "0002", agent: str = "1002") -> tuple[Call, Call]:
        """The customer calls an agent, whose phone rings: (customer's end, agent's end)."""
        phone = self.agent(agent)
        customer = self.dial(did)
        return customer, phone.wait_call()

    def connect(self, did: str = "0002", agent: str = "1002") -> tuple[Call, Call]:
        """As `ring`, and the agent answers."""
        customer, desk = self.ring(did, agent)
        desk.answer()
        customer.wait_answer()
        return customer, desk

    def idle(self) -> None:
        """Every call of the test is over, on the PBX too, and the PBX's own audit knows no call that has no row."""
        wait_idle(self.pbx)
        faults = [fault for phone in self._phones.values() for fault in phone.faults]
        assert faults == []

    def lost_calls(self) -> set[str]:
        """Linkedids that ended by Asterisk's own CEL and that no row knows."""
        linkedids = ended_linkedids(self.pbx)
        known: set[str] = set()
        for record in self.rows.where("true"):
            known |= {record.external_id, *record.aliases}
        return {one for one in linkedids - known if not one.startswith(SUPERVISING)}  # who listens is on no call

    def close(self) -> None:
        """The phones go."""
        for phone in self._phones.values():
            phone.close()


def wait_idle(pbx: Asterisk, deadline_s: float = DEADLINE_S) -> None:
    """Until no channel is left."""
    said = "\n0 active channels"
    until("no channel is left", lambda: said in "\n" + pbx.cli("core show channels count"), deadline_s)


def ended_linkedids(pbx: Asterisk) -> set[str]:
    """The calls that ended, by Asterisk's own CEL; a channel of ARI's that only listens is none."""
    return {
        row[_CEL_LINKEDID]
        for row in _csv(pbx.home / "log" / "cel-custom" / "cel.csv")
        if row[0] == "LINKEDID_END" and not row[_CEL_CHANNEL].startswith("Snoop/")
    }


def cdrs(pbx: Asterisk, linkedid: str) -> list[list[str]]:
    """Asterisk's own CDRs of a call."""
    return [row for row in _csv(pbx.home / "log" / "cdr-custom" / "cdr.csv") if row[18] == linkedid]


def _csv(path: Path) -> list[list[str]]:
    with path.open(newline="", errors="replace") as file:
        return [row for row in csv.reader(file) if row]


def check(record: CallRecord, **expected: Any) -> None:
    """The whole row: what is not named must be empty. `legs` are (party, role, dial status, end reason), in any order
    (phones that ring together have none)."""
    whole: dict[str, Any] = {
        "direction": Direction.INBOUND,
        "caller_name": "Jane Doe",
        "from_private": False,
        "end_reason": None,
        "answered_by": None,
        "last_party": None,
        "rang": [],
        "queue": None,
        "transfers": [],
        "holds": [],
        "parked": [],
        "conference": None,
        "participants": [],
        "digits": None,
        "diverted_from": None,
        "forwarded_from": None,
        "aliases": 0,
        "recordings": 0,
        "quality": Quality.OBSERVED,
    } | expected
    legs = Counter(
        (leg.party, str(leg.role), leg.dial_status, leg.end_reason and str(leg.end_reason)) for leg in record.legs
    )
    seen = {name: getattr(record, name) for name in whole if hasattr(record, name)} | {
        "aliases": len(record.aliases),
        "recordings": len(record.recordings),
        "transfers": [(str(t.kind), t.by, t.to, t.result) for t in record.transfers],
        "holds": [hold.by for hold in record.holds],
        "parked": [(p.by, p.retrieved_by, p.timed_out) for p in record.parked],
    }
    if "legs" in whole:
        seen["legs"], whole["legs"] = legs, Counter(whole["legs"])
    if isinstance(whole["rang"], set):
        seen["rang"] = set(record.rang) if len(set(record.rang)) == len(record.rang) else record.rang
    wrong = {name: f"{seen.get(name)!r}, not {value!r}" for name, value in whole.items() if seen.get(name) != value}
    if wrong:
        lines = "\n".join(f"  {name} is {what}" for name, what in wrong.items())
        raise AssertionError(f"the row of {record.external_id} is wrong:\n{lines}\nlegs: {dict(legs)}")
    check_times(record)


def check_times(record: CallRecord) -> None:
    """The times of a Call agree with each other, and with the clock."""
    assert record.ended_at is not None
    assert record.started_at <= (record.answered_at or record.started_at) <= record.ended_at
    assert record.duration == round((record.ended_at - record.started_at).total_seconds())
    assert abs(time.time() - record.ended_at.timestamp()) < 60
    if record.answered_at is None:
        assert not record.talk_seconds
    for leg in record.legs:
        assert leg.ended_at is not None, f"leg {leg.channel_id} has no end"
        assert record.started_at <= leg.started_at <= leg.ended_at <= record.ended_at
    for hold in record.holds:
        assert hold.ended_at is not None
