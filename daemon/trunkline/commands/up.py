"""`trunkline up` (`make run`): everything on this machine, and one call to look at.

PostgreSQL and Asterisk are children of this process and end with it, however it ends; the daemon runs inside it.
"""

import argparse
import fcntl
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from trunkline import app, config, logs
from trunkline.calls.record import CallUpdate
from trunkline.commands.failures import leaves
from trunkline.commands.up_pbx import CannotRun, EmbeddedPbx, OwnPbx, ReplayedPbx, UpPbx, short
from trunkline.commands.up_screen import Screen, unready
from trunkline.config_reading import ConfigError
from trunkline.embedded.asterisk import AsteriskError
from trunkline.embedded.phone import SipError
from trunkline.embedded.ports import NoPorts
from trunkline.embedded.postgres import Postgres, PostgresError
from trunkline.embedded.postgres_programs import NoPostgresError
from trunkline.embedded.s3 import S3Error, S3Server
from trunkline.serving import StartError

HTTP_PORT = 8080
BUCKET = "recordings"
STORED_S = 10.0  # how long the first call's recording is waited for
_READY_POLL_S = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which PBX, where files and ports are."""
    parser.add_argument(
        "--pbx",
        metavar="embedded|replay|HOST[:PORT]",
        default="embedded",
        help="embedded: an Asterisk of our own (default); replay: recorded calls; else the address of your PBX's AMI",
    )
    parser.add_argument("--user", default="events", help="AMI user on your PBX (default: %(default)s)")
    parser.add_argument("--secret-file", metavar="FILE", help="file with its secret (left out: asked for)")
    parser.add_argument("--trunk", action="append", metavar="PATTERN", help='your trunks (default: "PJSIP/trunk*")')
    parser.add_argument("--region", metavar="CC", help="country of numbers dialled without one, e.g. GB")
    parser.add_argument("--http-port", type=int, metavar="PORT", help=f"(default: {HTTP_PORT}, else any free one)")
    parser.add_argument("--directory", type=Path, default=Path(".trunkline"), help="for data (default: %(default)s)")
    parser.add_argument("--log", default="error", choices=("debug", "info", "warning", "error"), help="(%(default)s)")
    parser.add_argument("--once", action="store_true", help="stop after the first call has ended")


def main(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C; 0 then, 1 when something is missing."""
    logs.configure(arguments.log, "pretty")
    screen = Screen(sys.stdout, float(os.environ.get("TRUNKLINE_UP_SINCE") or time.time()))
    status = 0
    try:
        trio.run(_until_signalled, arguments, screen)
    except* (
        CannotRun, ConfigError, StartError, PostgresError, NoPostgresError, AsteriskError, NoPorts, SipError,
        S3Error,
    ) as errors:  # fmt: skip
        status = 1
        for failure in leaves(errors):
            screen.say(f"cannot go on: {failure}")
    screen.say("stopped, nothing left running")
    return status


async def _until_signalled(arguments: argparse.Namespace, screen: Screen) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for _ in signals:
                    screen.say("stopping ...")
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            await _Up(arguments, screen).run()
            nursery.cancel_scope.cancel()


class _Up:
    """The servers of one run, and what is made of them."""

    def __init__(self, arguments: argparse.Namespace, screen: Screen) -> None:
        self._arguments = arguments
        self._screen = screen
        self._directory: Path = arguments.directory.resolve()
        self._postgres = Postgres(self._directory / "postgres")
        self._pbx = self._chosen_pbx()
        self._s3 = S3Server(self._directory / "s3") if self._pbx.records else None
        self._database_url = ""
        self._section: dict[str, Any] = {}
        self._http_url = ""
        self._ready = trio.Event()
        self._ended = trio.Event()  # the first call
        self._updates, self._shown = trio.open_memory_channel[CallUpdate](math.inf)

    async def run(self) -> None:
        """Start everything, have a call made, and stay."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with _taken(self._directory):
                await self._run()
        except OSError as error:
            raise CannotRun(f"{error.strerror}: {error.filename or self._directory}") from error

    async def _run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as starting:
                    starting.start_soon(self._start_postgres)
                    starting.start_soon(self._start_pbx, nursery)
                    if self._s3 is not None:
                        starting.start_soon(self._start_s3, self._s3)
                settings = self._settings()
                nursery.start_soon(self._show)
                nursery.start_soon(
                    partial(app.run, settings, on_update=self._on_updates, ready=self._on_ready, migrate=True)
                )
                await self._ready.wait()
                self._screen.say(f"the daemon runs: {self._http_url}")
                await self._follow(nursery)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._stop_postgres)
                    nursery.start_soon(self._pbx.stop)
                    if self._s3 is not None:
                        nursery.start_soon(trio.to_thread.run_sync, self._s3.stop)

    def _chosen_pbx(self) -> UpPbx:
        chosen = self._arguments
        if chosen.pbx == "embedded":
            return EmbeddedPbx(self._directory, self._screen)
        if chosen.pbx == "replay":
            return ReplayedPbx(self._screen)
        return OwnPbx(chosen.pbx, chosen.user, chosen.secret_file, chosen.trunk, chosen.region, self._screen)

    async def _start_postgres(self) -> None:
        def start() -> str:
            self._postgres.start()
            return self._postgres.create_database("trunkline")

        self._screen.say("PostgreSQL: starting ...")
        self._database_url = await trio.to_thread.run_sync(start)
        self._screen.say(f"PostgreSQL is up: 127.0.0.1:{self._postgres.port}")

    def _database(self) -> str:
        """The database's URL for a shell, with the password where it is and not on the screen."""
        url = urlsplit(self._database_url)
        password = short(self._postgres.home / "password")
        return f'"postgresql://{url.username}:$(cat {password})@{url.hostname}:{url.port}{url.path}"'

    async def _stop_postgres(self) -> None:
        await trio.to_thread.run_sync(self._postgres.stop)

    async def _start_s3(self, s3: S3Server) -> None:
        def start() -> None:
            s3.start()
            s3.create_bucket(BUCKET)

        await trio.to_thread.run_sync(start)
        self._screen.say(f"object storage is up: {s3.endpoint}, bucket {BUCKET}")

    async def _start_pbx(self, nursery: trio.Nursery) -> None:
        self._section = await self._pbx.start(nursery)

    def _settings(self) -> config.Settings:
        raw = {
            "database": {"url": self._database_url},
            "pbx": [self._section],
            "http": {"port": _http_port(self._arguments.http_port)},
            "log": {"level": self._arguments.log},
            "spool": {"path": str(self._directory / "spool")},
            "webhooks": {"allow_http": True, "allow_networks": ["127.0.0.0/8", "::1/128"]},  # to try them out here
        }
        if self._s3 is not None:
            raw["recordings"] = {
                "endpoint": self._s3.endpoint,
                "bucket": BUCKET,
                "access_key": self._s3.access_key,
                "secret_key": self._s3.secret_key,
            }
        return config.check(raw, source="trunkline up", environ={})

    async def _follow(self, nursery: trio.Nursery) -> None:
        """Wait until the PBX is followed, have calls made, say where to look, and stay."""
        await self._wait_ready()
        await self._pbx.play(nursery)
        await self._ended.wait()
        say, url = self._screen.say, self._http_url
        say(f"the first call is a row, {self._screen.elapsed_s:.1f} s after the start")
        say(f"look: {url}/api/v1/calls?pretty=1  {url}/readyz?pretty=1  {url}/metrics")
        if self._s3 is not None:
            audio = await self._screen.recording_url(url, STORED_S)
            say(
                f"listen to it: {audio}"
                if audio
                else f"its recording is not stored yet: {url}/api/v1/recordings?pretty=1"
            )
        if not self._arguments.once:
            say(f"users and keys: TRUNKLINE_DATABASE_URL={self._database()} .venv/bin/trunkline admin --help")
            say("it goes on until Ctrl-C")
            await trio.sleep_forever()

    async def _wait_ready(self) -> None:
        told = ""
        since = trio.current_time()
        while detail := await trio.to_thread.run_sync(unready, self._http_url, abandon_on_cancel=True):
            waited_s = trio.current_time() - since
            if detail != told and waited_s > 1:
                self._screen.say(f"not ready yet: {detail}")
                told = detail
            if self._pbx.ready_s is not None and waited_s > self._pbx.ready_s:
                raise CannotRun(f"the PBX is not followed after {waited_s:.0f} s: {detail}")
            await trio.sleep(_READY_POLL_S)

    def _on_ready(self, url: str) -> None:
        self._http_url = url
        self._ready.set()

    def _on_updates(self, updates: Sequence[CallUpdate]) -> None:
        for update in updates:
            self._updates.send_nowait(update)

    async def _show(self) -> None:
        async for update in self._shown:
            await self._screen.show(update, self._http_url)
            if "call.ended" in update.happened:
                self._ended.set()


@contextmanager
def _taken(directory: Path) -> Iterator[None]:
    """Keep others out of the directory until the end, ours or the block's. Raises CannotRun where one is in it."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(
                f"another `make run` uses {directory}: stop it, or use another directory: "
                'make run ARGS="--directory .trunkline/second"'
            ) from None
        yield
    finally:
        os.close(lock)


def _http_port(asked: int | None) -> int:
    if asked is not None:
        return asked
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", HTTP_PORT))
        except OSError:
            return 0
    return HTTP_PORT
