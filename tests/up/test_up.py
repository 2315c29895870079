"""`trunkline up` as a user runs it: a process, a terminal's worth of text, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trunkline.embedded.postgres import Postgres

LIMIT_S = 90.0


@contextmanager
def up(directory: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "trunkline", "up", "--directory", str(directory), "--http-port", "0", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What it has printed, up to the line that holds these words."""
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if words in line:
            return shown
    raise AssertionError(f"it ended without saying {words!r}:\n{shown}")


def processes_of(directory: Path) -> list[str]:
    """Command lines of live processes that name the directory, or work in what `up` keeps for it elsewhere."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in command:
                found.append(command)
    return found


def children_of(pid: int) -> set[int]:
    """Every descendant, by the kernel's own lists."""
    found: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, thread.read_text().split()):
            found |= {child, *children_of(child)}
    return found


def gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 20
    while left := {pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and not _zombie(pid)}:
        if time.monotonic() > deadline:
            raise AssertionError(f"still there: {[Path(f'/proc/{pid}/cmdline').read_bytes() for pid in left]}")
        time.sleep(0.02)
    return True


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kept over the tests of this file: a second start is what most starts are."""
    directory = tmp_path_factory.mktemp("up")
    yield directory
    Postgres(directory / "postgres").remove()  # as root its data may be elsewhere


def test_a_real_call_is_shown_and_can_be_looked_at(directory: Path) -> None:
    with up(directory) as process:
        shown = read_until(process, "it goes on until Ctrl-C")
        assert re.search(r"RINGING +inbound 12025550123 \(Jane Doe\) to \d+0001", shown), shown
        assert re.search(r"ANSWERED +.*answered by 1001", shown), shown
        assert re.search(r"COMPLETED +.*talked [123] s; ended by caller", shown), shown
        url = re.search(r"http://127\.0\.0\.1:\d+/api/v1/calls/[0-9a-f-]{36}\?pretty=1", shown)
        assert url is not None, shown
        with urllib.request.urlopen(url[0], timeout=10) as answer:
            call = json.load(answer)
        assert (call["status"], call["answeredBy"], call["endedBy"]) == ("COMPLETED", "1001", "CALLER")
        elapsed = re.search(r"the first call is a row, ([\d.]+) s", shown)
        assert elapsed is not None
        assert float(elapsed[1]) < LIMIT_S
        audio = re.search(r"listen to it: (http://127\.0\.0\.1:\d+/api/v1/recordings/[0-9a-f-]{36}/audio)", shown)
        assert audio is not None, shown
        with urllib.request.urlopen(audio[1], timeout=10) as answer:
            assert answer.headers["Content-Type"] == "audio/wav"
            sound = answer.read()
        assert 1 < (len(sound) - 44) / 16000 < 4  # s of 8 kHz 16 bit
        assert sound[44:].strip(b"\0") != b""
        children = children_of(process.pid)
        assert len(children) >= 3
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert gone(children)
    assert processes_of(directory) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_however_it_ends_nothing_is_left(directory: Path, number: signal.Signals) -> None:
    with up(directory) as process:
        read_until(process, "the phone of agent 1001 rings")
        children = children_of(process.pid)
        assert len(children) >= 2
        process.send_signal(number)
        process.wait(20)
        assert gone(children)


def test_recorded_calls_are_played_where_there_is_no_asterisk(directory: Path) -> None:
    with up(directory, "--pbx", "replay", "--once") as process:
        shown = read_until(process, "the first call is a row")
        assert re.search(r"RINGING +inbound", shown), shown
        assert re.search(r"COMPLETED +inbound .*ended by caller", shown), shown
        assert process.wait(20) == 0


def test_a_pbx_that_does_not_answer_is_named_with_what_to_do(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "ami").write_text("s3cret")
    words = ["--pbx", "127.0.0.1:1", "--user", "events", "--secret-file", str(tmp_path / "ami")]
    with up(directory, *words) as process:
        shown = read_until(process, "not ready yet")
        assert "127.0.0.1:1" in shown
        assert "manager.conf" in shown
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_a_pbx_needs_its_secret(directory: Path) -> None:
    with up(directory, "--pbx", "127.0.0.1") as process:
        shown = read_until(process, "cannot go on")
        assert "--secret-file" in shown
        assert process.wait(20) == 1


def test_a_second_one_on_the_same_directory_is_refused(directory: Path) -> None:
    with up(directory) as first:
        read_until(first, "the daemon runs")
        with up(directory) as second:
            assert second.stdout is not None
            lines = second.stdout.read().splitlines()
            assert second.wait(30) == 1
            assert len(lines) == 2, lines  # no log of anything: nothing was started
            assert f"another `make run` uses {directory}:" in lines[0]
            assert "--directory" in lines[0]
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
