"""Migrations that run while the test does something else, or that something happens to."""

import threading
import time
from collections.abc import Callable
from typing import Any

from filled import execute, fetch

from trunkline.store import migrate


def until(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to this"


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def interrupted(url: str, reached: str) -> Any:
    """Cut every connection to the database as soon as `reached` gives a row; return what the upgrade came to."""
    migration, outcome = in_background(lambda: migrate.upgrade(url))
    until(lambda: fetch(url, reached))
    execute(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    migration.join()
    return outcome[0]
