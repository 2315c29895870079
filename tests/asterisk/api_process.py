"""The API as the admin runs it beside a daemon: `trunkline api`, in a process of its own, as a role of its own."""

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from daemon_process import Storage
from stage import until

from trunkline.embedded.launch import Child
from trunkline.store.row_security import API_ROLE

_READY_S = 20.0


@contextmanager
def role_of_the_api(url: str) -> Iterator[str]:
    """A URL of the same database for a role that is a member of trunkline_api and of nothing else."""
    name = f"api_{uuid4().hex}"

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' IN ROLE {API_ROLE}"))
    parts = urlsplit(url)
    yield urlunsplit(parts._replace(netloc=f"{name}:{name}@{parts.netloc.rpartition('@')[2]}"))
    asyncio.run(run(f"DROP ROLE {name}"))


class ApiProcess:
    """One process; its settings and log are in `directory`. more: further lines of its settings."""

    def __init__(self, url: str, directory: Path, *, port: int = 0, more: str = "", storage: Storage | None = None):
        directory.mkdir()
        self._directory = directory
        self._child: Child | None = None
        self.base = ""
        (directory / "url").write_text(url)
        (directory / "trunkline.toml").write_text(
            f'[database]\nurl_file = "url"\n[log]\nformat = "json"\nlevel = "debug"\n[http]\nport = {port}\n{more}'
            f"{storage.settings() if storage else ''}"
        )

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    def start(self) -> Self:
        """Start."""
        (self._directory / "log").unlink(missing_ok=True)
        words = [sys.executable, "-m", "trunkline", "api", "--config", str(self._directory / "trunkline.toml")]
        self._child = Child(words, output=self._directory / "log")
        return self

    def listening(self) -> Self:
        """Return once it does."""
        self.base = until(f"it listens; its log: {self._directory}/log", self._url, _READY_S)
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send(number)

    def ended(self, seconds: float) -> int | None:
        """Its exit status, once it has ended; None where it has not within that time."""
        assert self._child is not None
        self._child.wait(seconds)
        return self._child.returncode

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            self._child.wait()

    def told(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of that."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def _url(self) -> str:
        assert self._child is not None
        if self._child.returncode is not None:
            raise AssertionError(f"it ended with {self._child.returncode}:\n{self.log[-2000:]}")
        listening = self.told("http.listening") if (self._directory / "log").exists() else []
        return listening[0]["url"] if listening else ""
