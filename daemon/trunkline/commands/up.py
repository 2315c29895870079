"""`trunkline up` (`make run`): everything on this machine, and one call to look at.

PostgreSQL and Asterisk are children of this process and end with it, however it ends; the daemon runs inside it.
"""

import argparse
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from getpass import getpass
from pathlib import Path
from typing import Any

import trio

from trunkline import app, config, logs
from trunkline.calls.record import CallUpdate
from trunkline.commands.failures import leaves
from trunkline.commands.up_screen import Screen, unready
from trunkline.config_reading import ConfigError
from trunkline.embedded.asterisk import Asterisk, AsteriskError
from trunkline.embedded.demo import play_demo_call
from trunkline.embedded.phone import SipError
from trunkline.embedded.ports import NoPorts
from trunkline.embedded.postgres import Postgres, PostgresError
from trunkline.embedded.postgres_programs import NoPostgresError
from trunkline.embedded.provision import ProvisionError, provision

HTTP_PORT = 8080
READY_S = 20.0
_READY_POLL_S = 0.05


class CannotRun(Exception):
    """Something that `up` needs is missing; the text says what and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which PBX, where files and ports are."""
    parser.add_argument(
        "--pbx",
        metavar="embedded|HOST[:PORT]",
        default="embedded",
        help="embedded: an Asterisk of our own (default); else the address of your PBX's AMI",
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
        CannotRun, ConfigError, app.StartError, PostgresError, NoPostgresError, AsteriskError, NoPorts, SipError
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
        self._asterisk: Asterisk | None = None
        self._database_url = ""
        self._http_url = ""
        self._ready = trio.Event()
        self._ended = trio.Event()  # the first call
        self._updates, self._shown = trio.open_memory_channel[CallUpdate](math.inf)

    async def run(self) -> None:
        """Start everything, play the call, and stay."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            own = await self._own_pbx()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._start_postgres)
                if own is None:
                    nursery.start_soon(self._start_asterisk)
            settings = self._settings(own)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._show)
                nursery.start_soon(
                    partial(app.run, settings, on_update=self._on_updates, ready=self._on_ready, migrate=True)
                )
                await self._ready.wait()
                self._screen.say(f"the daemon runs: {self._http_url}")
                await self._call_in()
                if not self._arguments.once:
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()
        except OSError as error:
            raise CannotRun(f"{error.strerror}: {error.filename or self._directory}") from error
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_in_thread, self._postgres.stop)
                    if self._asterisk is not None:
                        nursery.start_soon(_in_thread, self._asterisk.stop)

    async def _own_pbx(self) -> dict[str, Any] | None:
        """Return the [[pbx]] of the user's own PBX; None for the embedded one."""
        arguments = self._arguments
        if arguments.pbx == "embedded":
            return None
        host, _, port = arguments.pbx.partition(":")
        own: dict[str, Any] = {"host": host, "username": arguments.user}
        if port:
            own["port"] = int(port) if port.isdecimal() else port
        if arguments.trunk:
            own["trunks"] = arguments.trunk
        if arguments.region:
            own["region"] = arguments.region
        if arguments.secret_file:
            own["secret_file"] = arguments.secret_file
        elif sys.stdin.isatty():
            own["secret"] = await trio.to_thread.run_sync(
                getpass, f"secret of the AMI user {arguments.user} on {host}: "
            )
        else:
            raise CannotRun(f"the secret of the AMI user {arguments.user} on {host} is needed: --secret-file FILE")
        return own

    async def _start_postgres(self) -> None:
        def start() -> str:
            self._postgres.start()
            return self._postgres.create_database("trunkline")

        self._screen.say("PostgreSQL: starting ...")
        self._database_url = await trio.to_thread.run_sync(start)
        self._screen.say(f"PostgreSQL is up: 127.0.0.1:{self._postgres.port}")

    async def _start_asterisk(self) -> None:
        def start() -> None:
            try:
                dist = provision(say=self._screen.say)
            except ProvisionError as error:  # its last line says what to do; those before it were on the screen
                raise CannotRun(str(error).splitlines()[-1].strip()) from error
            self._screen.say("Asterisk: starting ...")
            self._asterisk = asterisk = Asterisk(dist, self._directory / "pbx")
            asterisk.start()
            self._screen.say(f"Asterisk is up: AMI 127.0.0.1:{asterisk.ami_port}, SIP 127.0.0.1:{asterisk.sip_port}")

        await trio.to_thread.run_sync(start)

    def _settings(self, own: dict[str, Any] | None) -> config.Settings:
        asterisk = self._asterisk
        if own is None and asterisk is not None:
            own = {
                "host": asterisk.host,
                "port": asterisk.ami_port,
                "username": "events",
                "secret": asterisk.secrets.ami_events,
                "systemname": asterisk.systemname,
                "region": "GB",
            }
        raw = {
            "database": {"url": self._database_url},
            "pbx": [own],
            "http": {"port": _http_port(self._arguments.http_port)},
            "log": {"level": self._arguments.log},
            "spool": {"path": str(self._directory / "spool")},
        }
        return config.check(raw, source="trunkline up", environ={})

    async def _call_in(self) -> None:
        """Wait for the PBX to be followed; on ours, let a customer call."""
        await self._wait_ready()
        say, asterisk = self._screen.say, self._asterisk
        if asterisk is None:
            say("calls of your PBX show here; Ctrl-C stops")
            if self._arguments.once:
                await self._ended.wait()
            return
        hang_up = threading.Event()

        async def watch() -> None:
            try:
                await trio.sleep_forever()
            finally:
                hang_up.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.to_thread.run_sync(partial(play_demo_call, asterisk, say, stop=hang_up))
            nursery.cancel_scope.cancel()
        await self._ended.wait()
        say(f"the first call is a row, {self._screen.elapsed_s:.1f} s after the start")
        say(f"calls: {self._http_url}/api/v1/calls?pretty=1   ready: {self._http_url}/readyz?pretty=1   "
            f"metrics: {self._http_url}/metrics")  # fmt: skip
        say(
            f"call yourself: a softphone as 1002 at {asterisk.host}:{asterisk.sip_port}, "
            f"password in {_short(asterisk.home / 'etc/secrets.json')}; Ctrl-C stops everything"
        )

    async def _wait_ready(self) -> None:
        told = ""
        since = trio.current_time()
        while detail := await trio.to_thread.run_sync(unready, self._http_url, abandon_on_cancel=True):
            if detail != told and trio.current_time() - since > 1:
                self._screen.say(f"not ready yet: {detail}")
                told = detail
            if self._asterisk is not None and trio.current_time() - since > READY_S:
                raise CannotRun(f"the embedded PBX is not followed after {READY_S:g} s: {detail}")
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


async def _in_thread(stop: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(stop)


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


def _short(path: Path) -> str:
    """The path from here, where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
