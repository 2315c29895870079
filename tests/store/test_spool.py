"""The spool's file: one row a Call, in order, whole after a kill."""

import stat
from pathlib import Path

import pytest
from calls import answered, ended, record, ringing

from trunkline.calls.record import CallUpdate, Status
from trunkline.store.change import Change, change_of
from trunkline.store.spool import FILE, Spool, SpoolError


def put(spool: Spool, *updates: CallUpdate) -> None:
    spool.put([change_of(update) for update in updates])


def told(change: Change) -> list[str]:
    return [happening.type for happening in change.happened]


def test_a_call_is_one_row_with_its_newest_state_and_all_its_happenings(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, ringing("a"), ringing("b"))
    put(spool, ended("b"))
    put(spool, answered("b"), answered("a"))
    assert spool.depth == 2
    a, b = spool.take(10)
    assert (a.change.record, told(a.change)) == (answered("a").record, ["call.ringing", "call.answered"])
    assert (b.change.record, told(b.change)) == (ended("b").record, ["call.ringing", "call.answered", "call.ended"])
    spool.close()


def test_calls_are_taken_in_the_order_of_their_first_change(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, *(ringing(name) for name in "cab"))
    put(spool, *(ended(name) for name in "abc"))
    assert [one.change.record.external_id for one in spool.take(2)] == ["c", "a"]
    spool.close()


def test_a_call_that_changed_while_it_was_written_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, ringing("a"), ringing("b"))
    taken = spool.take(10)
    put(spool, ended("b"))
    spool.done(taken)
    assert (spool.depth, [one.change.record.status for one in spool.take(10)]) == (1, [Status.COMPLETED])
    spool.done(spool.take(10))
    assert (spool.depth, spool.take(10)) == (0, [])
    spool.close()


def test_it_is_all_there_when_it_is_opened_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, ringing("a"), ended("b"))
    spool.refuse(change_of(ringing("x")), "too odd")
    spool.close()
    spool = Spool(tmp_path)
    assert (spool.depth, spool.refused, spool.refusals()) == (2, 1, [("x", "too odd")])
    assert [r.external_id for r in spool.live("pbx1")] == ["a"]
    assert spool.live("pbx2") == []
    spool.close()


def test_a_late_ringing_does_not_bring_an_ended_call_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, ended("a"))
    put(spool, ringing("a"))
    assert spool.live("pbx1") == []
    spool.close()


def test_what_has_no_json_is_kept_as_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, ringing("a"), ringing("b", metadata={"x": object()}), ringing("c"))
    assert (spool.depth, [name for name, _ in spool.refusals()]) == (2, ["b"])
    spool.close()


def test_what_is_no_record_any_more_is_set_aside_and_holds_up_nobody(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, *(ringing(name, direction="SIDEWAYS") for name in "ab"), ringing("c"))
    assert [r.external_id for r in spool.live("pbx1")] == ["c"]
    assert [one.change.record.external_id for one in spool.take(1)] == ["c"]
    assert (spool.depth, [name for name, _ in spool.refusals()]) == (1, ["a", "b"])
    assert "direction" in spool.refusals()[0][1]
    spool.close()


def test_hostile_text_goes_in_and_comes_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, ringing("a\x00'; DROP TABLE change; --\ud800", queue="\x00" * 100_000))
    (one,) = spool.take(1)
    assert one.change.record.external_id == "a\ufffd'; DROP TABLE change; --\ufffd"
    assert one.change.record.queue == "\ufffd" * 100_000
    spool.close()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "made")
    put(spool, ringing("a"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "made").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    spool.close()


def test_two_daemons_cannot_share_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(SpoolError, match="no other daemon"):
        Spool(tmp_path)
    spool.close()


def test_a_file_that_is_none_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    with pytest.raises(SpoolError, match=FILE):
        Spool(tmp_path)


def test_a_spool_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool._file.execute("PRAGMA user_version = 99")
    spool.close()
    with pytest.raises(SpoolError, match="newer trunkline"):
        Spool(tmp_path)


def test_a_drained_file_gives_the_disk_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    put(spool, *(CallUpdate(record(str(n), queue="x" * 1000)) for n in range(1000)))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 1_000_000
    spool.done(spool.take(1000))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 100_000
    spool.close()
