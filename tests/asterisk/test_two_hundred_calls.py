"""Two hundred real calls at once, all recorded: each has its own recording in the storage, and none has two."""

from pathlib import Path

from crowd import Crowd
from daemon_process import Storage, running_daemon
from stage import until
from vault import Vault

from trunkline.embedded.asterisk import Asterisk
from trunkline.embedded.s3 import S3Server

COUNT = 200


def test_two_hundred_calls_at_once_lose_no_recording_and_double_none(
    crowded_pbx: Asterisk, crowd: Crowd, vault: Vault, s3: S3Server, tmp_path: Path
) -> None:
    with running_daemon(crowded_pbx, vault.url, tmp_path, storage=Storage(s3, prefix=vault.prefix)):
        crowd.connect(COUNT)
        vault.figures.more["up at once"] = crowd.connected()
        assert vault.figures.more["up at once"] == COUNT

        def live() -> int:
            return int(vault.fetch("SELECT count(*) FROM call WHERE status = 'in_progress'")[0][0])

        until("the daemon knows them all as answered", lambda: live() == COUNT, 30)
        crowd.talk(1)
        vault.keep()
        assert len(vault.written) == COUNT
        crowd.hangup()
        vault.settle(crowd.tones)
    ended = vault.fetch("SELECT status, ended_by, count(*) FROM call GROUP BY status, ended_by")
    assert [tuple(row) for row in ended] == [("completed", "caller", COUNT)]
