"""The storage breaks in many ways while real calls are recorded: nothing is lost, nothing is there twice."""

from functools import partial
from pathlib import Path

from crowd import Crowd
from daemon_process import Storage, running_daemon
from s3_proxy import S3Proxy, answer, corrupt_put, cut_request, delay, truncate_get
from stage import until
from vault import Vault

from trunkline.embedded.s3 import S3Server

WAVE = 4  # calls
_MET_S = 30.0
# A fault, of which requests, and how many of them in a row; the uploader waits longer after each of the storage's.
FAULTS = [
    (cut_request(3_000), "PUT", 2),
    (delay(1), "PUT", 2),
    (answer(500), "PUT", 1),
    (corrupt_put(3_000), "PUT", 2),
    (answer(503), "GET", 1),
    (delay(1), "GET", 2),
    (truncate_get(3_000), "GET", 1),
]


def test_calls_go_on_while_the_storage_breaks(crowd: Crowd, vault: Vault, s3: S3Server, tmp_path: Path) -> None:
    with S3Proxy(s3.port) as proxy:
        storage = Storage(s3, proxy.endpoint, vault.prefix)
        with running_daemon(vault.pbx, vault.url, tmp_path, storage=storage, strict=False):
            talking = crowd.connect(WAVE)
            for fault, method, times in FAULTS:
                proxy.fail_next(times, fault, method=method)
                crowd.talk(0.6)
                vault.keep()
                over, talking = talking, crowd.connect(WAVE)  # the next ones are recorded while those go up
                crowd.hangup(*over)
                met = partial(proxy.count, method, fault.kind)
                until(f"it meets {fault}", lambda met=met, times=times: met() == times, _MET_S)
            crowd.talk(0.6)
            vault.keep()
            crowd.hangup()
            vault.settle(crowd.tones)
        faults = proxy.count() - proxy.count(kind="pass")
    assert faults == sum(times for _, _, times in FAULTS)
    vault.figures.more["faults"] = faults
