"""The command line: helps that teach, wrong words refused, and nothing imported that the command does not need."""

import subprocess
import sys

import pytest

from trunkline.cli import COMMANDS, main


def test_without_a_word_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert "see it work" in shown
    for name, command in COMMANDS.items():
        assert f"    {name} " in shown
        assert command.summary.split()[0] in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: trunkline {name}")
    summary = COMMANDS[name].summary
    assert summary[1:] in " ".join(shown.split())


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rnu"])
    assert ended.value.code == 2
    assert "'rnu'" in capsys.readouterr().err


def test_version_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("trunkline 0.")


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["replay", "--help"], {"aiohttp", "sqlalchemy", "asyncpg", "uvloop", "trio", "prometheus_client"}),
        (["doctor", "--help"], {"aiohttp", "sqlalchemy", "asyncpg"}),
        (["version"], {"aiohttp", "sqlalchemy", "asyncpg", "trio", "msgspec", "structlog"}),
    ],
)
def test_a_command_imports_only_what_it_needs(words: list[str], unwanted: set[str]) -> None:
    program = (
        "import sys; from trunkline.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert set(ran.stderr.split()) & unwanted == set()


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "trunkline", "version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.close()
        assert ran.stderr.read() == b""
        assert ran.wait(60) == 1
