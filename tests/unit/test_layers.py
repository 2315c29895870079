"""The import contracts of pyproject.toml bite: each is broken once, in a copy of the tree, and lint-imports says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = "Rooms import only from rooms below; a new room is placed here"
PURE = "What events mean is pure: no I/O, no clock, no chance, no log"
LINK = "The link is trio's"
EDGE = "Store and edge are asyncio's"
API = "The API knows only PostgreSQL, never a PBX"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "daemon", tmp_path / "daemon", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _lint(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", "pyproject.toml"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "daemon"), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_tree_as_it_is_keeps_every_contract(tree: Path) -> None:
    ran = _lint(tree)
    assert ran.returncode == 0, ran.stdout
    assert "5 kept, 0 broken" in ran.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("asterisk/link.py", "import trunkline.calls.record", ROOMS),
        ("calls/record.py", "import trunkline.store", ROOMS),
        ("store/tables.py", "import trunkline.crm", ROOMS),
        ("store/tables.py", "import trunkline.metrics", ROOMS),
        ("crm/__init__.py", "import trunkline.inbox", ROOMS),
        ("inbox/__init__.py", "import trunkline.api", ROOMS),
        ("api/__init__.py", "import trunkline.app", ROOMS),
        ("api/__init__.py", "import trunkline.config", ROOMS),
        ("store/tables.py", "import trunkline.aio", ROOMS),
        ("app.py", "import trunkline.commands", ROOMS),
        ("asterisk/link.py", "import trunkline.embedded", ROOMS),
        ("newroom/__init__.py", "", ROOMS),
        ("calls/record.py", "import time", PURE),
        ("calls/record.py", "import random", PURE),
        ("calls/__init__.py", "import structlog", PURE),
        ("asterisk/codec.py", "import logging", PURE),
        ("asterisk/guard.py", "import trio", PURE),
        ("asterisk/ari_events.py", "import websockets.trio.client, socket", PURE),
        ("asterisk/lists.py", "import socket", PURE),
        ("asterisk/event.py", "from trunkline.asterisk import link", PURE),
        ("asterisk/link.py", "import asyncio", LINK),
        ("store/tables.py", "import trio", EDGE),
        ("api/__init__.py", "from trunkline.asterisk.event import Event", API),
    ],
)
def test_a_broken_contract_is_found(tree: Path, module: str, line: str, contract: str) -> None:
    file = tree / "daemon/trunkline" / module
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as source:
        source.write(f"\n{line}\n")
    ran = _lint(tree)
    assert ran.returncode != 0, ran.stdout
    if module.startswith("newroom"):
        assert "newroom" in ran.stdout
    else:
        assert f"{contract} BROKEN" in ran.stdout


def test_the_clock_is_not_read_by_way_of_datetime(tree: Path) -> None:
    for module in ("calls/record.py", "store/change.py"):
        with (tree / "daemon/trunkline" / module).open("a") as source:
            source.write("\n_NOW = datetime.now(UTC)\n")
    ran = subprocess.run(
        [str(Path(sys.executable).with_name("ruff")), "check", "--no-cache", "--select", "TID251", "daemon"],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert "calls/record.py" in ran.stdout
    assert "store/change.py" not in ran.stdout
