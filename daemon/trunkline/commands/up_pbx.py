"""The PBXs that `trunkline up` can follow: an Asterisk of our own, recorded calls, or the user's."""

import os
import sys
import threading
from functools import partial
from getpass import getpass
from pathlib import Path
from typing import Any, Protocol

import trio

from trunkline.commands.up_screen import Screen
from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.demo import play_demo_call
from trunkline.embedded.provision import ProvisionError, checkout, provision
from trunkline.embedded.replay_pbx import ReplayPbx, loadable

_PLAYED_FIRST = "a_inbound_caller_hangs_up"


class CannotRun(Exception):
    """Something that `up` needs is missing; the text says what and what to do."""


class UpPbx(Protocol):
    """What `up` does with a PBX: `start`, `play` once the daemon follows it, `stop` in the end, whatever happened."""

    records: bool  # are its recordings on this machine, and ours to store?
    ready_s: float | None  # how long the daemon may take to follow it; None: as long as it likes

    async def start(self, nursery: trio.Nursery) -> dict[str, Any]:
        """Start it; return its [[pbx]] section."""

    async def play(self, nursery: trio.Nursery) -> None:
        """Have calls made."""

    async def stop(self) -> None:
        """Leave nothing running."""


class EmbeddedPbx:
    """An Asterisk from Debian's packages, with two phones that call each other."""

    records = True
    ready_s: float | None = 20.0

    def __init__(self, directory: Path, screen: Screen) -> None:
        self._directory = directory
        self._screen = screen
        self._asterisk: Asterisk | None = None

    async def start(self, nursery: trio.Nursery) -> dict[str, Any]:
        """Install and start Asterisk. Raises CannotRun, AsteriskError."""
        asterisk = await trio.to_thread.run_sync(self._start)
        return {
            "host": asterisk.host,
            "port": asterisk.ami_port,
            "username": "events",
            "secret": asterisk.secrets.ami_events,
            "control_secret": asterisk.secrets.ami_control,
            "agents": ["10[0-9][0-9]"],
            "systemname": asterisk.systemname,
            "region": "GB",
            "recordings": str(asterisk.recordings),
            "voicemail": str(asterisk.mailboxes),
            "ari_url": f"http://{asterisk.host}:{asterisk.http_port}",
            "ari_secret": asterisk.secrets.ari_recordings,
            "ari_recordings": str(asterisk.ari_recordings),
        }

    def _start(self) -> Asterisk:
        try:
            dist = provision(say=self._screen.say)
        except ProvisionError as error:  # its last line says what to do; those before it were on the screen
            raise CannotRun(str(error).splitlines()[-1].strip()) from error
        self._screen.say("Asterisk: starting ...")
        self._asterisk = asterisk = Asterisk(dist, self._directory / "pbx")
        asterisk.start()
        self._screen.say(f"Asterisk is up: AMI {asterisk.host}:{asterisk.ami_port}, SIP port {asterisk.sip_port}")
        return asterisk

    async def play(self, nursery: trio.Nursery) -> None:
        """Let a customer call an agent. Raises SipError."""
        asterisk = self._asterisk
        if asterisk is None:
            raise CannotRun("Asterisk was not started")
        hang_up = threading.Event()

        async def watch() -> None:
            try:
                await trio.sleep_forever()
            finally:
                hang_up.set()

        async with trio.open_nursery() as call:
            call.start_soon(watch)
            await trio.to_thread.run_sync(partial(play_demo_call, asterisk, self._screen.say, stop=hang_up))
            call.cancel_scope.cancel()
        self._screen.say(
            f"call yourself: a softphone as 1002 at {asterisk.host}:{asterisk.sip_port}, "
            f"password in {short(asterisk.home / 'etc/secrets.json')}"
        )
        secret = _kept_secret(asterisk)
        self._screen.say(
            f"examine this PBX: .venv/bin/trunkline doctor --pbx {asterisk.host}:{asterisk.ami_port} "
            f"--secret-file {short(secret)}"
        )

    async def stop(self) -> None:
        """Stop Asterisk."""
        if self._asterisk is not None:
            await trio.to_thread.run_sync(self._asterisk.stop)


class ReplayedPbx:
    """Recorded calls of a real Asterisk, one after another."""

    records = False
    ready_s: float | None = 20.0

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._pbx: ReplayPbx | None = None

    async def start(self, nursery: trio.Nursery) -> dict[str, Any]:
        """Serve the captures of this checkout. Raises CannotRun."""
        pbx = await trio.to_thread.run_sync(_load)
        self._pbx = await nursery.start(pbx.run)
        self._screen.say(f"a replay of {len(pbx.captures)} recordings is up: AMI {pbx.host}:{pbx.port}")
        return {
            "host": pbx.host,
            "port": pbx.port,
            "username": pbx.username,
            "secret": pbx.secret,
            "systemname": pbx.systemname,
            "region": "GB",
        }

    async def play(self, nursery: trio.Nursery) -> None:
        """Begin to play, for ever."""
        if self._pbx is not None:
            self._screen.say("recorded calls are played, again and again")
            nursery.start_soon(partial(self._pbx.play, times=None))

    async def stop(self) -> None:
        """It ends with the nursery."""


class OwnPbx:
    """The user's PBX, only read."""

    records = False
    ready_s: float | None = None

    def __init__(
        self,
        address: str,
        user: str,
        secret_file: str | None,
        trunks: list[str] | None,
        region: str | None,
        screen: Screen,
    ) -> None:
        self._address = address
        self._user = user
        self._secret_file = secret_file
        self._screen = screen
        self._more = {"trunks": trunks, "region": region}

    async def start(self, nursery: trio.Nursery) -> dict[str, Any]:
        """Ask for the secret where no file has it. Raises CannotRun."""
        host, _, port = self._address.partition(":")
        section: dict[str, Any] = {"host": host, "username": self._user}
        if port:
            section["port"] = int(port) if port.isdecimal() else port  # settings say what is allowed
        section |= {key: value for key, value in self._more.items() if value}
        if self._secret_file:
            section["secret_file"] = self._secret_file
        elif sys.stdin.isatty():
            asked = f"secret of the AMI user {self._user} on {host}: "
            section["secret"] = await trio.to_thread.run_sync(getpass, asked, abandon_on_cancel=True)
        else:
            raise CannotRun(f"the secret of the AMI user {self._user} on {host} is needed: --secret-file FILE")
        return section

    async def play(self, nursery: trio.Nursery) -> None:
        """Calls come by themselves."""
        self._screen.say("calls of your PBX show here as they happen")

    async def stop(self) -> None:
        """It is not ours to stop."""


def _load() -> ReplayPbx:
    try:
        folder = checkout() / "tests" / "replay" / "captures"
    except ProvisionError as error:
        raise CannotRun(str(error)) from error
    captures = sorted(filter(loadable, folder.iterdir()), key=lambda found: (found.name != _PLAYED_FIRST, found.name))
    if not captures:
        raise CannotRun(f"there are no recordings in {folder}")
    return ReplayPbx(captures)


def short(path: Path) -> str:
    """The path from here, where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _kept_secret(asterisk: Asterisk) -> Path:
    """A file (mode 0600) with the secret of the AMI user `events`, for `trunkline doctor` and `record`."""
    path = asterisk.home / "etc/events.secret"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(asterisk.secrets.ami_events + "\n")
    return path
