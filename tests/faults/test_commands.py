"""`trunkline run` and `trunkline migrate` as commands: what they print and return when something is wrong."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from trunkline.cli import main
from trunkline.embedded.postgres import Postgres
from trunkline.store.revision import HEAD


@pytest.fixture
def empty_url(postgres: Postgres) -> Iterator[str]:
    """A database without any table."""
    name = f"empty_{uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


def settings_file(directory: Path, url: str, more: str = "") -> str:
    file = directory / "trunkline.toml"
    pbx = '[[pbx]]\nhost = "127.0.0.1"\nport = 1\nsecret = "s3cret-canary"\n[http]\nport = 0\n'
    file.write_text(f'[database]\nurl = "{url}"\n{pbx}{more}')
    return str(file)


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trunkline", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")},
    )


def run_until_the_link_is_down(*words: str) -> tuple[str, str]:
    """Run the daemon, and stop it; what it logged, and what was mapped into its memory."""
    with subprocess.Popen(
        [sys.executable, "-m", "trunkline", "run", *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        shown = ""
        for line in process.stderr:
            shown += line
            if "link.down" in line:
                break
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGTERM)
        shown += process.stderr.read()
        assert process.wait(20) == 0
    return shown, mapped


def test_run_refuses_wrong_settings_and_shows_no_secret(tmp_path: Path) -> None:
    ran = run_command("run", "--config", settings_file(tmp_path, "mysql://u:canary@h/d", "prot = 3\n"))
    assert ran.returncode == 2
    assert "2 problems" in ran.stderr
    assert "http.prot: there is no such key; did you mean port?" in ran.stderr
    assert "canary" not in ran.stdout + ran.stderr


def test_run_refuses_an_older_schema_and_says_what_to_do(tmp_path: Path, empty_url: str) -> None:
    ran = run_command("run", "--config", settings_file(tmp_path, empty_url))
    assert ran.returncode == 1
    assert "run `trunkline migrate`" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "canary" not in ran.stdout + ran.stderr


def test_run_says_why_neither_pbx_nor_database_is_there_and_stops_when_asked(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and never listening: nobody else can have it, and it refuses
        url = f"postgresql://u:canary@127.0.0.1:{closed.getsockname()[1]}/d"
        shown, _ = run_until_the_link_is_down("--config", settings_file(tmp_path, url))
    assert "database.away" in shown
    assert "check that PostgreSQL runs" in shown
    assert "is Asterisk running" in shown
    assert "daemon.stopped" in shown
    assert "canary" not in shown
    assert "Traceback" not in shown


def test_run_holds_neither_what_migrates_nor_an_s3_client_that_nothing_was_asked_of(
    tmp_path: Path, empty_url: str
) -> None:
    (tmp_path / "monitor").mkdir()
    keys = f'access_key = "a"\nsecret_key = "{uuid4().hex}"\n'
    file = tmp_path / "trunkline.toml"
    settings_file(tmp_path, empty_url, f'[recordings]\nendpoint = "http://127.0.0.1:1"\n{keys}')
    file.write_text(file.read_text().replace("[http]", 'recordings = "monitor"\n[http]'))
    shown, mapped = run_until_the_link_is_down("--migrate", "--config", str(file))
    assert f"after={HEAD}" in shown  # of database.migrated
    assert "pydantic_core" in mapped  # pgqueuer's: what is loaded is seen here
    assert "/sqlalchemy/" not in mapped
    assert "/Crypto/" not in mapped  # minio's


def test_run_migrates_no_schema_of_a_newer_version(tmp_path: Path, empty_url: str) -> None:
    file = settings_file(tmp_path, empty_url)
    assert main(["migrate", "--config", file]) == 0
    asyncio.run(set_revision(empty_url, "9999"))
    ran = run_command("run", "--migrate", "--config", file)
    assert ran.returncode == 1
    assert "made by a newer version" in ran.stderr
    assert "Traceback" not in ran.stderr


async def set_revision(url: str, revision: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE alembic_version SET version_num = $1", revision)
    await connection.close()


def test_migrate_goes_up_down_and_says_where_it_is(
    tmp_path: Path, empty_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = settings_file(tmp_path, empty_url)
    assert main(["migrate", "--config", file, "--show"]) == 0
    assert "no revision: it is empty" in capsys.readouterr().out
    assert main(["migrate", "--config", file]) == 0
    assert f"from empty to {HEAD}" in capsys.readouterr().out
    assert main(["migrate", "--config", file]) == 0
    assert f"nothing to do: the database is at {HEAD}" in capsys.readouterr().out
    assert main(["migrate", "--config", file, "--down", "0001"]) == 0
    assert f"from {HEAD} to 0001" in capsys.readouterr().out


def test_migrate_says_what_to_do_about_a_database_that_is_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://u:canary@127.0.0.1:{closed.getsockname()[1]}/d"
        assert main(["migrate", "--config", settings_file(tmp_path, url)]) == 1
    shown = capsys.readouterr().err
    assert "check that PostgreSQL runs" in shown
    assert "canary" not in shown


def test_migrate_refuses_an_unknown_revision(
    tmp_path: Path, empty_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--config", settings_file(tmp_path, empty_url), "--to", "9999"]) == 2
    assert "9999" in capsys.readouterr().err
