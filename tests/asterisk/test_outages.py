"""The PBX restarts, dies, or goes out of sight, in mid-call."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from daemon_process import running_daemon
from stage import DEADLINE_S, TIMERS, Rows, Stage, Tap, check, talk, until
from wire import Wire

from trunkline.calls.record import LIVE, EndedBy, EndReason, Quality, Status
from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.postgres import Postgres


class Mortal(Stage):
    """A stage whose PBX, and whose wire to the daemon, may break."""

    wire: Wire
    url: str

    def ready(self) -> bool:
        """Does the daemon follow the PBX?"""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture
def mortal(dist: Path, postgres: Postgres, migrated: str, tmp_path: Path) -> Iterator[Mortal]:
    """A PBX and a daemon of the test's own, with a wire between them."""
    name = f"mortal_{uuid4().hex}"
    database = postgres.create_database(name, template=migrated)
    with Asterisk(dist, tmp_path / "pbx", **TIMERS) as pbx:
        tap = Tap(pbx)
        stage = Mortal(pbx, tap, Rows(database))
        stage.wire = Wire(pbx.host, pbx.ami_port)
        try:
            with running_daemon(pbx, database, tmp_path, ami_port=stage.wire.port) as daemon:
                stage.url = daemon.base
                stage.begin()
                yield stage
        finally:
            stage.wire.close()
            stage.close()
            tap.close()
    postgres.drop_database(name)


def test_a_restart_ends_the_call_and_the_next_one_is_another(mortal: Mortal) -> None:
    customer, desk = mortal.connect()
    mortal.rows.live(mortal.caller, Status.IN_PROGRESS)
    pid = mortal.pbx.pid
    mortal.pbx.restart_now()
    customer.wait_end()
    desk.wait_end()
    first = mortal.rows.ended(mortal.caller)
    check(
        first,
        status=Status.COMPLETED,
        end_reason=first.end_reason,
        ended_by=EndedBy.PBX,
        answered_by="1002",
        rang=["1002"],
        recordings=1,
        quality=first.quality,
    )
    mortal.pbx.wait_booted()
    assert mortal.pbx.pid == pid
    until("the daemon is back", mortal.ready, 20)
    mortal.begin()
    customer, desk = mortal.connect()  # Asterisk gives it the same channel names again
    talk()
    customer.hangup()
    desk.wait_end()
    second = mortal.rows.ended(mortal.caller)
    check(
        second,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        rang=["1002"],
        recordings=1,
    )
    assert [leg.endpoint for leg in first.legs] == [leg.endpoint for leg in second.legs]
    assert len(mortal.rows.where("true")) == 2


def test_a_pbx_that_dies_takes_its_calls_with_it(mortal: Mortal) -> None:
    mortal.connect()
    mortal.rows.live(mortal.caller, Status.IN_PROGRESS)
    mortal.pbx.kill()
    mortal.pbx.start()
    record = mortal.rows.ended(mortal.caller, 20)
    check(
        record,
        status=Status.COMPLETED,
        end_reason=EndReason.PBX_LOST,
        ended_by=EndedBy.PBX,
        answered_by="1002",
        rang=["1002"],
        recordings=1,
        quality=Quality.ESTIMATED,
    )
    assert len(mortal.rows.where("true")) == 1


def test_out_of_sight_is_not_the_end(mortal: Mortal) -> None:
    target = mortal.agent("1003")
    customer, desk = mortal.connect()
    seen = mortal.rows.live(mortal.caller, Status.IN_PROGRESS)
    mortal.wire.cut()
    # unseen: a transfer, that is answered
    desk.transfer("1003")
    other = target.wait_call()
    desk.hangup()
    other.answer()
    mortal.tap.event("DialEnd", mortal.mark, DestCallerIDNum="1003", DialStatus="ANSWER")
    until("the daemon has noticed", lambda: not mortal.ready())
    mortal.wire.mend()
    until("the daemon is back", mortal.ready, 20)
    assert mortal.rows.where("id = $1", seen.id)[0].status in LIVE
    customer.hangup()
    other.wait_end()
    record = mortal.rows.ended(mortal.caller)
    check(
        record,
        status=Status.COMPLETED,
        ended_by=EndedBy.CALLER,
        answered_by="1002",
        last_party="1003",
        rang=record.rang,
        transfers=[(str(t.kind), t.by, t.to, t.result) for t in record.transfers],
        recordings=1,
        quality=record.quality,
    )
    assert record.id == seen.id
    assert {leg.party for leg in record.legs} == {mortal.caller, "1002", "1003"}
    assert len(mortal.rows.where("true")) == 1


def test_ended_out_of_sight(mortal: Mortal) -> None:
    customer, desk = mortal.connect()
    mortal.rows.live(mortal.caller, Status.IN_PROGRESS)
    mortal.wire.cut()
    customer.hangup()
    desk.wait_end()
    until("the daemon has noticed", lambda: not mortal.ready())
    mortal.wire.mend()
    record = mortal.rows.ended(mortal.caller, 20 + DEADLINE_S)
    check(
        record,
        status=Status.COMPLETED,
        end_reason=record.end_reason,
        ended_by=record.ended_by,
        answered_by="1002",
        rang=["1002"],
        recordings=1,
        quality=Quality.ESTIMATED,
    )
