"""`trunkline api` where something is wrong: what it refuses at the start, and what it waits for."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from trunkline import config, serving
from trunkline.cli import main
from trunkline.config_reading import ConfigError
from trunkline.embedded.postgres import Postgres

NOBODY = "postgresql://nobody@127.0.0.1:1/none"  # where nothing listens


def settings(url: str, port: int = 0, **environ: str) -> config.ApiSettings:
    """By the environment alone, as in a container."""
    return config.load_api(environ={"TRUNKLINE_DATABASE_URL": url, "TRUNKLINE_HTTP_PORT": str(port), **environ})


async def serve(wanted: config.ApiSettings) -> None:
    async with asyncio.timeout(20):
        await serving.serve_alone(wanted)


def test_it_needs_no_pbx_and_reads_none(tmp_path: Path) -> None:
    file = tmp_path / "trunkline.toml"
    file.write_text(
        '[[pbx]]\nhost = "pbx"\nsecret_file = "not/on/this/machine"\n[database]\nurl = "postgresql://h/d"\n'
    )
    assert config.load_api(str(file), {}).http.port == 8080
    with pytest.raises(ConfigError, match="secret_file"):
        config.load(str(file), {})


def test_it_lets_nobody_in_from_elsewhere_without_a_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"http\.host: '0\.0\.0\.0' can be reached from other machines"):
        settings(NOBODY, TRUNKLINE_HTTP_HOST="0.0.0.0")
    file = tmp_path / "trunkline.toml"
    file.write_text('[database]\nurl = "postgresql://h/d"\n[http]\nhost = "0.0.0.0"\n[auth]\nrequired = true\n')
    assert config.load_api(str(file), {}).http.host == "0.0.0.0"


def test_wrong_settings_are_told_all_at_once_and_show_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trunkline.toml"
    file.write_text('[database]\nurl = "mysql://u:canary@h/d"\n[http]\nprot = 1\n[recordings]\nbucket = "B"\n')
    assert main(["api", "--config", str(file)]) == 2
    told = capsys.readouterr().err
    assert "4 problems" in told
    assert "canary" not in told


@pytest.mark.asyncio
async def test_another_schema_is_refused(postgres: Postgres) -> None:
    name = f"older_{uuid4().hex}"
    url = postgres.create_database(name)
    with pytest.raises(serving.StartError, match=r"has no schema yet.*trunkline migrate"):
        await serve(settings(url))
    postgres.drop_database(name)


@pytest.mark.asyncio
async def test_a_role_that_may_not_be_the_apis_is_told_what_it_lacks(database_url: str) -> None:
    name = f"stranger_{uuid4().hex}"
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    scheme, _, rest = database_url.partition("://")
    try:
        with pytest.raises(serving.StartError, match=r"GRANT trunkline_api to the role of database\.url"):
            await serve(settings(f"{scheme}://{name}:{name}@{rest.rpartition('@')[2]}"))
    finally:
        await owner.execute(f"DROP ROLE {name}")
        await owner.close()


@pytest.mark.asyncio
async def test_a_taken_port_is_named(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(serving.StartError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*http\.port"):
            await serve(settings(database_url, port))


@pytest.fixture
def config_of_one_port(database_url: str, tmp_path: Path) -> Iterator[Path]:
    """Settings that let several processes listen on one port, which is free."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as held:
        file = tmp_path / "trunkline.toml"
        file.write_text(
            f'[database]\nurl = "{database_url}"\n[http]\nport = {held.getsockname()[1]}\nreuse_port = true\n'
            '[log]\nformat = "json"\n'
        )
        yield file


def test_several_share_a_port_where_that_is_wanted(config_of_one_port: Path) -> None:
    words = [sys.executable, "-m", "trunkline", "api", "--config", str(config_of_one_port)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    processes = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environ) for _ in range(2)]
    try:
        urls = set()
        for process in processes:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "http.listening" in line or '"error"' in line)
            urls.add(json.loads(line)["url"])
        assert len(urls) == 1
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        ended = [(process.communicate(timeout=20)[1], process.returncode) for process in processes]
    assert [status for _, status in ended] == [0, 0], ended


@pytest.mark.asyncio
async def test_a_database_that_is_away_is_waited_for() -> None:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving_it = asyncio.create_task(serving.serve_alone(settings(NOBODY), started.set_result))
    try:
        url = await asyncio.wait_for(started, 20)

        def ready() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read().decode()

        status, told = await asyncio.to_thread(ready)
        assert (status, json.loads(told)["checks"][0]["ok"]) == (503, False)
    finally:
        serving_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving_it


def test_an_issuer_is_opened_where_one_is_set(tmp_path: Path) -> None:
    file = tmp_path / "trunkline.toml"
    (tmp_path / "oidc").write_text("s3cret-canary\n")
    file.write_text(
        '[database]\nurl = "postgresql://h/d"\n[oidc]\nissuer = "https://id.example.com/realms/office"\n'
        'client_id = "trunkline"\nclient_secret_file = "oidc"\ndefault_role = "AGENT"\n'
        'redirect_url = "https://phones.example.com/api/v1/auth/oidc/callback"\n'
    )
    oidc = config.load_api(str(file), {}).oidc
    assert "canary" not in repr(oidc)
    opened = serving.open_issuer(oidc)
    assert opened is not None
    assert (opened.issuer, opened.default_role) == ("https://id.example.com/realms/office", "AGENT")
    assert serving.open_issuer(config.Oidc()) is None


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        ('client_id = "x"', ["oidc.issuer: is missing, so the others have no effect"]),
        ('issuer = "http://id.example.com"\nclient_id = "x"', ["oidc.issuer: is no https", "oidc.redirect_url: is no"]),
        ('issuer = "https://id"\nredirect_url = "https://h/cb"', ["oidc.client_id: is", "oidc.redirect_url: does"]),
        (f'issuer = "https://id?x=1"\nclient_id = "x"\nredirect_url = "https://h{config.CALLBACK}"', ["oidc.issuer"]),
        ('default_role = "ROOT"', ["oidc.default_role: 'ROOT' is not allowed here", "oidc.issuer: is missing"]),
    ],
)  # fmt: skip
def test_half_an_issuer_is_refused(tmp_path: Path, lines: str, problems: list[str]) -> None:
    file = tmp_path / "trunkline.toml"
    file.write_text(f'[database]\nurl = "postgresql://h/d"\n[oidc]\n{lines}\n')
    with pytest.raises(ConfigError) as refused:
        config.load_api(str(file), {})
    assert len(refused.value.problems) == len(problems), refused.value.problems
    for told, problem in zip(refused.value.problems, problems, strict=True):
        assert told.startswith(problem)
