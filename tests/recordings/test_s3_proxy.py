"""Every fault of the S3 proxy, before a real server."""

import socket
from base64 import b64encode
from collections.abc import Iterator
from hashlib import md5, sha256
from io import BytesIO
from urllib.parse import urlsplit

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error
from s3_proxy import HANG, REFUSE, S3Proxy, answer, corrupt_get, corrupt_put, cut_request, delay, truncate_get
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from trunkline.embedded.s3 import S3Server

BODY = bytes(range(256)) * 1000


def _md5(body: bytes) -> str:
    return md5(body, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        server.create_bucket("recordings")
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    pool = urllib3.PoolManager(retries=False, timeout=10)
    yield pool
    pool.clear()


@pytest.fixture
def direct(server: S3Server, http: urllib3.PoolManager) -> "Objects":
    return Objects(server, server.endpoint, http)


@pytest.fixture
def objects(server: S3Server, proxy: S3Proxy, http: urllib3.PoolManager, direct: "Objects") -> "Objects":
    """The bucket by way of the proxy; "there" is in it."""
    direct.put("there")
    return Objects(server, proxy.endpoint, http)


class Objects:
    def __init__(self, server: S3Server, endpoint: str, http: urllib3.PoolManager) -> None:
        keys = (server.access_key, server.secret_key)
        host = urlsplit(endpoint).netloc
        self.client = Minio(host, *keys, secure=False, region=server.region, http_client=http)

    def put(self, name: str, **headers: str) -> str:
        """Return the ETag."""
        return self.client.put_object("recordings", name, BytesIO(BODY), len(BODY), metadata={**headers}).etag or ""

    def get(self, name: str, **part: int) -> bytes:
        answer = self.client.get_object("recordings", name, **part)
        try:
            return answer.read()
        finally:
            answer.close()

    def names(self) -> set[str]:
        return {found.object_name or "" for found in self.client.list_objects("recordings")}


def test_passes_everything_on_over_connections_that_stay(proxy: S3Proxy, objects: Objects) -> None:
    objects.put("passed")
    assert objects.get("passed") == BODY
    assert objects.get("passed", offset=10, length=5) == BODY[10:15]
    assert "passed" in objects.names()
    objects.client.stat_object("recordings", "passed")
    objects.client.remove_object("recordings", "passed")
    assert "passed" not in objects.names()
    assert proxy.counts == {("PUT", "pass"): 1, ("GET", "pass"): 4, ("HEAD", "pass"): 1, ("DELETE", "pass"): 1}


def test_a_refused_connection_is_closed_without_an_answer(proxy: S3Proxy, objects: Objects) -> None:
    proxy.fail_next(1, REFUSE)
    with pytest.raises(HTTPError):
        objects.get("there")
    assert objects.get("there") == BODY
    assert proxy.counts == {("", "refuse"): 1, ("GET", "pass"): 1}


def test_a_connection_that_stays_is_refused_at_its_next_request(proxy: S3Proxy, objects: Objects) -> None:
    objects.client.stat_object("recordings", "there")
    proxy.fault = REFUSE
    with pytest.raises(HTTPError):
        objects.client.stat_object("recordings", "there")
    assert proxy.counts == {("HEAD", "pass"): 1, ("HEAD", "refuse"): 1}


def test_a_put_is_cut_within_its_body(proxy: S3Proxy, objects: Objects, direct: Objects) -> None:
    proxy.fail_next(1, cut_request(1000))
    with pytest.raises(ProtocolError):
        objects.put("cut")
    assert "cut" not in direct.names()
    assert proxy.count("PUT", "cut") == 1


def test_a_late_answer_comes_late(proxy: S3Proxy, objects: Objects) -> None:
    proxy.fail_next(1, delay(0.05))
    assert objects.get("there") == BODY
    assert proxy.count("GET", "delay") == 1


def test_what_a_client_has_given_up_is_done_all_the_same(
    proxy: S3Proxy, server: S3Server, direct: Objects, objects: Objects
) -> None:
    proxy.fail_next(1, delay(60), method="PUT")
    hasty = urllib3.PoolManager(retries=False, timeout=1)
    with pytest.raises(ReadTimeoutError):
        Objects(server, proxy.endpoint, hasty).put("late")
    hasty.clear()
    assert direct.get("late") == BODY


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown")])
def test_answers_in_the_servers_place(
    proxy: S3Proxy, objects: Objects, direct: Objects, status: int, code: str
) -> None:
    proxy.fail_next(1, answer(status), method="PUT")
    with pytest.raises(S3Error) as refused:
        objects.put("answered")
    assert (refused.value.code, refused.value.response.status) == (code, status)
    assert "answered" not in direct.names()
    assert objects.get("there") == BODY


def test_a_get_ends_before_its_length(proxy: S3Proxy, objects: Objects) -> None:
    proxy.fail_next(1, truncate_get(1000))
    with pytest.raises(ProtocolError, match="1000 bytes read"):
        objects.get("there")
    assert objects.get("there") == BODY


def test_a_get_is_corrupted_at_the_same_length(proxy: S3Proxy, objects: Objects) -> None:
    proxy.fail_next(1, corrupt_get(100_000))
    got = objects.get("there")
    assert [at for at, (is_, was) in enumerate(zip(got, BODY, strict=True)) if is_ != was] == [100_000]


def test_a_corrupted_put_is_stored_and_its_etag_tells(proxy: S3Proxy, objects: Objects, direct: Objects) -> None:
    proxy.fail_next(1, corrupt_put(100_000))
    etag = objects.put("corrupt")
    got = direct.get("corrupt")
    assert [at for at, (is_, was) in enumerate(zip(got, BODY, strict=True)) if is_ != was] == [100_000]
    assert etag == _md5(got) != _md5(BODY)


def test_a_corrupted_put_with_a_checksum_is_refused(proxy: S3Proxy, objects: Objects, direct: Objects) -> None:
    checksum = {"x-amz-checksum-sha256": b64encode(sha256(BODY).digest()).decode()}
    objects.put("checked", **checksum)
    proxy.fail_next(1, corrupt_put())
    with pytest.raises(S3Error) as refused:
        objects.put("corrupt with a checksum", **checksum)
    assert (refused.value.code, refused.value.response.status) == ("BadDigest", 400)
    assert "corrupt with a checksum" not in direct.names()


def test_a_hanging_request_is_never_answered(proxy: S3Proxy, server: S3Server, objects: Objects) -> None:
    proxy.fail_next(1, HANG)
    hasty = urllib3.PoolManager(retries=False, timeout=0.1)
    with pytest.raises(ReadTimeoutError):
        Objects(server, proxy.endpoint, hasty).get("there")
    hasty.clear()
    assert objects.get("there") == BODY


def test_plans_are_met_by_method_and_path_in_order(proxy: S3Proxy, objects: Objects) -> None:
    proxy.fail_next(1, answer(503), method="PUT", path="/recordings/planned")
    proxy.fail_next(1, answer(500), path="planned")
    objects.put("other")
    for status in (503, 500):
        with pytest.raises(S3Error) as refused:
            objects.put("planned")
        assert refused.value.response.status == status
    objects.put("planned")
    assert proxy.counts == {("PUT", "pass"): 2, ("PUT", "answer 503"): 1, ("PUT", "answer 500"): 1}
    assert proxy.count("PUT") == 4


def test_a_fault_of_get_leaves_others_alone(proxy: S3Proxy, objects: Objects) -> None:
    proxy.fault = truncate_get(0)
    objects.put("whole")
    with pytest.raises(ProtocolError):
        objects.get("whole")
    assert proxy.counts == {("PUT", "pass"): 1, ("GET", "truncate"): 1}


def test_a_server_that_is_away_is_a_connection_that_ends(server: S3Server, http: urllib3.PoolManager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    with S3Proxy(nobody) as proxy, pytest.raises(ProtocolError):
        Objects(server, proxy.endpoint, http).get("there")


def test_close_ends_whoever_waits(server: S3Server) -> None:
    proxy = S3Proxy(server.port)
    proxy.fault = HANG
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while not proxy.count("GET", "hang"):
            pass
        proxy.close()
        assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
