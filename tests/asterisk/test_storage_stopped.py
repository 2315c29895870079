"""The storage is stopped for a whole minute while real calls are recorded; then it is there again, and has them all."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd import Crowd
from daemon_process import Daemon, Storage, running_daemon
from s3_proxy import S3Proxy
from stage import until
from vault import Vault

from trunkline.embedded.s3 import S3Server

AWAY_S = 60.0
AT_ONCE = 4  # uploads
BEFORE, ACROSS, MEANWHILE = 4, 12, 8  # calls that end before, go on while, and begin after the storage stops


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """One that only this module stops."""
    with S3Server() as server:
        server.create_bucket("recordings")
        yield server


def test_a_minute_without_storage_costs_nothing(crowd: Crowd, vault: Vault, s3: S3Server, tmp_path: Path) -> None:
    with S3Proxy(s3.port) as proxy:
        storage = Storage(s3, proxy.endpoint, vault.prefix)
        with running_daemon(vault.pbx, vault.url, tmp_path, storage=storage, strict=False) as daemon:
            _a_minute(crowd, vault, s3, proxy, daemon)


def _a_minute(crowd: Crowd, vault: Vault, s3: S3Server, proxy: S3Proxy, daemon: Daemon) -> None:
    _call(crowd, vault, BEFORE)
    vault.settle(crowd.tones)
    crowd.connect(ACROSS)
    asked = proxy.counts.copy()
    s3.kill()
    begin = time.monotonic()
    _speak(crowd, vault)
    until("the storage is asked in vain", lambda: _told(daemon)["recordings.store_away"])
    _call(crowd, vault, MEANWHILE)
    until("a minute is over", lambda: time.monotonic() - begin >= AWAY_S, 2 * AWAY_S)
    assert vault.states() == {"stored": BEFORE, "pending": ACROSS + MEANWHILE}
    reasons = [row["reason"] or "" for row in vault.rows() if row["state"] == "pending"]
    assert all(reason.startswith("object storage: ") for reason in reasons), reasons
    assert len(vault.spool()) == ACROSS + MEANWHILE
    asked = proxy.counts - asked
    s3.start()
    vault.settle(crowd.tones)
    told = _told(daemon)
    assert (told["recordings.store_away"], told["recordings.store_back"]) == (1, 1)
    assert 4 <= asked["HEAD", "pass"] <= 6  # probes: after 1, 3, 7, 15, 31 and 63 s, or later
    assert asked["PUT", "pass"] <= AT_ONCE  # those that found out
    assert sum(asked.values()) == asked["HEAD", "pass"] + asked["PUT", "pass"]
    vault.figures.more |= {"asked while it was away": asked.total()}


def _call(crowd: Crowd, vault: Vault, count: int) -> None:
    crowd.connect(count)
    _speak(crowd, vault)


def _speak(crowd: Crowd, vault: Vault) -> None:
    """Those who are up do, and hang up."""
    crowd.talk(0.6)
    vault.keep()
    crowd.hangup()


def _told(daemon: Daemon) -> Counter[str]:
    """How often the log says each thing about recordings."""
    lines = (json.loads(line)["event"] for line in daemon.log.splitlines() if line.startswith("{"))
    return Counter(event for event in lines if event.startswith("record"))
