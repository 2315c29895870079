"""One Asterisk, database and daemon and a few phones for all scenarios; those that restart the PBX make their own."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from crowd import Crowd, settings_for
from daemon_process import Storage, running_daemon
from stage import TIMERS, Rows, Stage, Tap
from stored import Stored
from vault import Vault

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.postgres import Postgres
from trunkline.embedded.provision import provision
from trunkline.embedded.s3 import S3Server

CROWD = 200  # calls at once, at most


@pytest.fixture(scope="session")
def dist() -> Path:
    """A runnable Asterisk; installed below .trunkline/ the first time."""
    return provision()


@pytest.fixture(scope="session")
def pbx(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk]:
    with Asterisk(dist, tmp_path_factory.mktemp("pbx"), **TIMERS) as pbx:
        yield pbx


@pytest.fixture(scope="session")
def rows(postgres: Postgres, migrated: str) -> Iterator[Rows]:
    name = f"pbx_{uuid4().hex}"
    yield Rows(postgres.create_database(name, template=migrated))
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def tap(pbx: Asterisk) -> Iterator[Tap]:
    tap = Tap(pbx)
    yield tap
    tap.close()


@pytest.fixture(scope="session")
def shared_stage(pbx: Asterisk, tap: Tap, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(pbx, tap, rows)
    with running_daemon(pbx, rows.url, tmp_path_factory.mktemp("daemon")) as daemon:
        stage.api = daemon.base
        yield stage
    stage.close()


@pytest.fixture
def stage(shared_stage: Stage, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """The stage, clean at the beginning and at the end; a failed scenario leaves what the daemon heard."""
    shared_stage.begin()
    failed = request.session.testsfailed
    yield shared_stage
    with contextlib.ExitStack() as after:
        if request.session.testsfailed > failed:
            (tmp_path / "ami.raw").write_bytes(shared_stage.tap.raw[shared_stage.mark :])
            sys.stderr.write(f"what the PBX said is in {tmp_path}/ami.raw (trunkline replay)\n")
        else:
            after.callback(no_call_is_lost, shared_stage)
        shared_stage.idle()


@pytest.fixture(scope="module")
def storing(
    pbx: Asterisk, postgres: Postgres, migrated: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rows, str]]:
    """A second daemon on the same PBX, with a database of its own; it takes the files away once they are stored."""
    name = f"stored_{uuid4().hex}"
    rows = Rows(postgres.create_database(name, template=migrated))
    with running_daemon(pbx, rows.url, tmp_path_factory.mktemp("storing"), storage=Storage(s3)) as daemon:
        yield rows, daemon.base
    postgres.drop_database(name)


@pytest.fixture
def stored(stage: Stage, storing: tuple[Rows, str]) -> Stored:
    return Stored(stage, *storing)


@pytest.fixture(scope="session")
def crowded_pbx(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asterisk]:
    """A PBX with room for many calls; one daemon at a time stores its recordings."""
    with Asterisk(dist, tmp_path_factory.mktemp("crowded"), **settings_for(CROWD)) as pbx:
        yield pbx


@pytest.fixture(scope="module")
def crowd(crowded_pbx: Asterisk) -> Iterator[Crowd]:
    crowd = Crowd(crowded_pbx)
    yield crowd
    crowd.close()


@pytest.fixture(scope="module")
def vault(
    crowded_pbx: Asterisk, module_database: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vault]:
    """Of the crowd's recordings; the spool is empty at the beginning, whatever a module that failed has left."""
    vault = Vault(crowded_pbx, module_database, s3, f"vault-{uuid4().hex}/", tmp_path_factory.mktemp("vault"))
    for left in vault.spool():
        left.unlink()
    yield vault
    print(vault.figures)  # noqa: T201
    vault.close()


def no_call_is_lost(stage: Stage) -> None:
    """Asterisk's own CEL is the oracle: each call that it saw end is a row."""
    end = time.monotonic() + 5
    while (lost := stage.lost_calls()) and time.monotonic() < end:
        time.sleep(0.05)
    assert lost == set()
