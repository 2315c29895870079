"""kill -9 of the daemon at each step of the upload of real calls' recordings: the next daemon finishes, once.

The steps are held up from outside: by the storage (a proxy that keeps a request, or its answer) or by the database
(triggers that wait for a lock which the test has), so that what is killed is `trunkline run` and nothing else.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import asyncpg
import pytest
from crowd import Crowd
from daemon_process import Daemon, Storage, running_daemon
from s3_proxy import HANG, Fault, S3Proxy, delay
from stage import until
from vault import Vault

from trunkline.embedded.s3 import S3Server

CALLS, AT_ONCE = 6, 4  # of which as many are on their way together
_HELD_S = 30.0
# A step's trigger waits where the test holds the advisory lock of its number.
_GATES = """
CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::int);
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER gate_claim BEFORE UPDATE OF object_key ON call_recording
    FOR EACH ROW EXECUTE FUNCTION wait_for_test(1);
CREATE TRIGGER gate_commit BEFORE INSERT ON media_file
    FOR EACH ROW EXECUTE FUNCTION wait_for_test(2);
CREATE CONSTRAINT TRIGGER gate_committing AFTER INSERT ON media_file DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait_for_test(3);
CREATE TRIGGER gate_done BEFORE DELETE ON jobs.pgqueuer
    FOR EACH ROW EXECUTE FUNCTION wait_for_test(4);
"""
_CLAIM, _COMMIT, _COMMITTING, _DONE = range(1, 5)
_WAITING = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class _Left(NamedTuple):
    """What a kill leaves, once the database has seen that its client is gone."""

    stored: int  # recordings, by their rows
    objects: int
    files: int  # in the spool
    jobs: int


class _Scene:
    """One daemon after the other, and what can hold them up."""

    def __init__(self, vault: Vault, crowd: Crowd, proxy: S3Proxy, daemon: Daemon) -> None:
        self.vault, self.crowd, self.proxy, self.daemon = vault, crowd, proxy, daemon
        self._before = 0  # objects of the tests before

    @contextlib.contextmanager
    def gate(self, number: int) -> Iterator[None]:
        """Whoever comes to that trigger waits meanwhile."""
        with asyncio.Runner() as runner:
            holder = runner.run(asyncpg.connect(self.vault.url))
            try:
                runner.run(holder.execute("SELECT pg_advisory_lock($1)", number))
                yield
            finally:
                runner.run(holder.close())

    def waiting(self) -> int:
        """How many wait for a lock in the database: at a gate, or behind one that does."""
        return int(self.vault.fetch(f"SELECT count(*) {_WAITING}")[0][0])

    def record(self) -> None:
        """Real calls, up together, recorded and over."""
        self._before = len(self.vault.objects())
        if not self.daemon.running:  # a test before has failed
            self.daemon.start()
        self.crowd.connect(CALLS)
        self.crowd.talk(0.6)
        self.vault.keep()
        self.crowd.hangup()

    def killed_when(self, what: str, reached: Callable[[], Any]) -> None:
        """SIGKILL as soon as it is so."""
        try:
            until(what, reached, _HELD_S)
        except AssertionError as late:
            there = [tuple(row) for row in self.vault.fetch(f"SELECT wait_event, query {_WAITING}")]
            raise AssertionError(f"{late}: {there}, {self.vault.told()}, asked {self.proxy.counts}") from None
        self.daemon.kill()
        self.proxy.drop()
        self.vault.figures.more["kills"] += 1

    def objects(self) -> int:
        """Those of this test."""
        return len(self.vault.objects()) - self._before

    def left(self) -> _Left:
        until("the database has seen that its client is gone", lambda: self.vault.backends() == 0)
        vault = self.vault
        return _Left(vault.states()["stored"] - self._before, self.objects(), len(vault.spool()), vault.jobs())

    def finish(self) -> None:
        """The next daemon, to which the jobs of the dead look as they do once their heartbeat has run out."""
        self.vault.execute("UPDATE jobs.pgqueuer SET heartbeat = now() - interval '1 hour' WHERE status = 'picked'")
        self.daemon.start()
        self.vault.settle(self.crowd.tones)


@pytest.fixture(scope="module")
def scene(vault: Vault, crowd: Crowd, s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Scene]:
    """The daemon that finished after one kill is the next to be killed."""
    vault.execute(_GATES)
    with S3Proxy(s3.port) as proxy:
        storage = Storage(s3, proxy.endpoint, vault.prefix)
        with running_daemon(vault.pbx, vault.url, tmp_path_factory.mktemp("killed"), storage=storage) as daemon:
            yield _Scene(vault, crowd, proxy, daemon)


@pytest.mark.parametrize(
    ("step", "objects"),
    [(_CLAIM, 0), (_COMMIT, CALLS), (_COMMITTING, CALLS)],
    ids=["claim", "commit", "committing"],
)
def test_killed_while_the_database_takes_its_time(scene: _Scene, step: int, objects: int) -> None:
    with scene.gate(step):
        scene.record()

        def held() -> bool:
            return scene.waiting() > 0 and scene.objects() == objects and scene.vault.jobs() == CALLS

        scene.killed_when("somebody is at the gate", held)
    left = scene.left()
    assert left == _Left(stored=left.stored, objects=objects, files=CALLS, jobs=CALLS)
    # What was asked to commit is committed for the dead too: the first of them, and who came with it.
    assert left.stored in (range(1, CALLS + 1) if step == _COMMITTING else {0})
    scene.finish()


@pytest.mark.parametrize(
    ("fault", "method", "objects"),
    [(HANG, "PUT", 0), (delay(_HELD_S), "PUT", AT_ONCE), (HANG, "GET", AT_ONCE)],
    ids=["put", "put and not answered", "read back"],
)
def test_killed_while_the_storage_takes_its_time(scene: _Scene, fault: Fault, method: str, objects: int) -> None:
    scene.proxy.fail_next(AT_ONCE, fault, method=method)
    scene.record()

    def held() -> bool:
        return scene.proxy.count(method, fault.kind) == AT_ONCE and scene.objects() == objects

    scene.killed_when("all that run wait for the storage", held)
    assert scene.left() == _Left(stored=0, objects=objects, files=CALLS, jobs=CALLS)
    scene.finish()


def test_killed_when_all_is_done_and_the_jobs_do_not_know_it(scene: _Scene) -> None:
    with scene.gate(_DONE):
        scene.record()
        scene.killed_when("the files are removed", lambda: scene.waiting() and not scene.vault.spool())
        # It was asked to remove the jobs, and would do it for the dead too.
        scene.vault.execute(f"SELECT pg_terminate_backend(pid) {_WAITING}")
        until("nobody asks any more", lambda: scene.waiting() == 0)
    assert scene.left() == _Left(stored=CALLS, objects=CALLS, files=0, jobs=CALLS)
    scene.finish()
