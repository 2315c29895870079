"""A recording's audio over HTTP: spans, conditions, HEAD, links; and when the storage or the client breaks off."""

import asyncio
import hashlib
import io
import json
import logging
import re
import threading
import time
import tracemalloc
import wave
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from house import House
from s3_proxy import HANG, PASS, REFUSE, S3Proxy, answer, truncate_get
from served import Serve, Served
from sounds import tone, wav
from structlog.testing import capture_logs

from trunkline.api import edge
from trunkline.embedded.s3 import S3Server
from trunkline.objects.s3 import CHUNK, ObjectStore

pytestmark = pytest.mark.asyncio

R = "/api/v1/recordings"
SIZE = 16_044  # of the tone of a second that most tests play
MB = 1 << 20


class Watched(ObjectStore):
    """A store that knows what is being read from it."""

    open = taken = 0

    def read(self, key: str, offset: int = 0, size: int = 0) -> Iterator[bytes]:
        self.open += 1
        try:
            for chunk in super().read(key, offset, size):
                assert len(chunk) <= CHUNK
                self.taken += len(chunk)
                yield chunk
        finally:
            self.open -= 1


@pytest_asyncio.fixture
async def api(serve: Serve) -> Served:
    return await serve()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3.port) as proxy:
        yield proxy


@pytest.fixture
def watched(house: House, s3: S3Server, proxy: S3Proxy) -> Iterator[Watched]:
    """The house's bucket by way of the proxy."""
    store = Watched(proxy.endpoint, house.store.bucket, s3.access_key, s3.secret_key, silent_s=5)
    yield store
    store.close()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing but debugging is said by any library."""
    with caplog.at_level(logging.INFO):
        yield
    assert warnings(caplog.get_records("call")) == []


def warnings(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


async def big(house: House, size: int) -> tuple[dict[str, Any], bytes]:
    """A recording of so many bytes, no two pages of which are alike."""
    row = await house.stored()
    block = bytes(range(251)) * 4
    data = b"".join(n.to_bytes(4, "big") + block for n in range(size // (len(block) + 4) + 1))[:size]
    await asyncio.to_thread(house.store.put, row["key"], io.BytesIO(data), size, mime_type="audio/wav", metadata={})
    await house.pool.execute(
        "UPDATE media_file SET size = $2, metadata = jsonb_build_object('sha256', $3::text) WHERE id = $1",
        row["media_file_id"], size, hashlib.sha256(data).hexdigest(),
    )  # fmt: skip
    return row, data


async def test_whole_it_is_what_was_recorded_and_a_browser_can_play_it(house: House, api: Served) -> None:
    row = await house.stored()
    response, body = await api.raw(f"{R}/{row['id']}/audio")
    assert (response.status, len(body)) == (200, SIZE)
    assert body == wav(tone(440, 1)) == house.content(row["key"])
    with wave.open(io.BytesIO(body)) as opened:
        assert opened.getnframes() == 8000
    assert response.headers["Content-Type"] == "audio/wav"
    assert response.headers["Content-Length"] == str(SIZE)
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == "inline; filename=\"one.wav\"; filename*=UTF-8''one.wav"
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["media-src"] == "'self'", "the page a browser makes around the audio loads it once more"
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
    assert "private" in response.headers["Cache-Control"], "no proxy keeps what people said"
    assert not {"Transfer-Encoding", "Content-Encoding"} & set(response.headers)
    response, _ = await api.raw(f"{R}/{row['id']}/audio?download=1")
    assert response.headers["Content-Disposition"] == "attachment; filename=\"one.wav\"; filename*=UTF-8''one.wav"


async def test_a_span_is_those_bytes(house: House, api: Served) -> None:
    row = await house.stored()
    for asked, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=0-1", 0, 1),  # Safari's first
        ("bytes=0-", 0, SIZE - 1),  # Chrome's and Firefox's first
        ("bytes=44-999", 44, 999),
        ("bytes=16000-", 16_000, SIZE - 1),
        ("bytes=16043-", SIZE - 1, SIZE - 1),
        ("bytes=16043-16043", SIZE - 1, SIZE - 1),
        ("bytes=16040-16044", 16_040, SIZE - 1),
        ("bytes=100-9223372036854775807", 100, SIZE - 1),  # Java's Long.MAX_VALUE
        ("bytes=100-18446744073709551615", 100, SIZE - 1),
        ("BYTES=5-6", 5, 6),  # units are read in any case: RFC 9110, 14.1
        (" bytes=007-008 ", 7, 8),
    ):
        response, body = await api.raw(f"{R}/{row['id']}/audio", headers={"Range": asked})
        assert response.status == 206, asked
        assert body == wav(tone(440, 1))[first : last + 1]
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert response.headers["Content-Length"] == str(last - first + 1)
        assert response.headers["Content-Type"] == "audio/wav"
        assert response.headers["ETag"]


async def test_another_range_is_refused_and_says_how_long_it_is(house: House, api: Served) -> None:
    row = await house.stored()
    for asked in (
        "bytes=16044-", "bytes=16044-16050", "bytes=99999999999-", "bytes=9-8", "bytes=-500", "bytes=-0", "bytes=-",
        "bytes=0-1,4-5", "bytes=0-1,", "bytes=", "bytes", "0-5", "bytes=a-b", "bytes=0x1-5", "bytes=+1-5",
        "bytes=1.0-5", "bytes=1--5", "bytes=0-5;", "bytes=\u0661-\u0665", "", "bytes=" + "9" * 4000 + "-",
    ):  # fmt: skip
        response, body = await api.raw(f"{R}/{row['id']}/audio", headers={"Range": asked})
        assert (response.status, response.content_type) == (416, "application/problem+json"), asked
        assert response.headers["Content-Range"] == f"bytes */{SIZE}"
        problem = json.loads(body)
        assert (problem["code"], problem["status"]) == ("range_refused", 416)
        assert "Content-Disposition" not in response.headers


async def test_a_player_that_seeks_puts_the_recording_together_again(house: House, api: Served) -> None:
    row = await house.stored()
    got = bytearray()
    while len(got) < SIZE:
        response, body = await api.raw(
            f"{R}/{row['id']}/audio", headers={"Range": f"bytes={len(got)}-{len(got) + 4999}"}
        )
        assert response.status == 206
        got += body
    assert bytes(got) == wav(tone(440, 1))


async def test_head_says_how_long_it_is_and_reads_nothing(
    house: House, serve: Serve, watched: Watched, proxy: S3Proxy
) -> None:
    row = await house.stored()
    api = await serve(objects=watched)
    path = f"{R}/{row['id']}/audio"
    for headers, status in (({}, 200), ({"Range": "bytes=10-19"}, 206), ({"Range": "bytes=-1"}, 416)):
        head, body = await api.raw(path, method="HEAD", headers=headers)
        assert (head.status, body, watched.taken, proxy.count()) == (status, b"", 0, 0)
        get, _ = await api.raw(path, headers=headers)
        assert get.status == status
        for name in ("Content-Length", "Content-Range", "Content-Type", "ETag", "Accept-Ranges", "Content-Disposition"):
            assert head.headers.get(name) == get.headers.get(name), name
        watched.taken = 0
        proxy.counts.clear()
    # A storage that is away does not matter to it.
    proxy.fault = REFUSE
    assert (await api.raw(path, method="HEAD"))[0].status == 200


async def test_who_has_it_already_is_told_so(house: House, serve: Serve, watched: Watched, proxy: S3Proxy) -> None:
    row = await house.stored()
    api = await serve(objects=watched)
    path = f"{R}/{row['id']}/audio"
    tag = (await api.raw(path, method="HEAD"))[0].headers["ETag"]
    for condition in (tag, f"W/{tag}", "*", f'"other", {tag}', f'"other",W/{tag}'):
        for more in ({}, {"Range": "bytes=0-5"}, {"Range": "nonsense"}):
            response, body = await api.raw(path, headers={"If-None-Match": condition, **more})
            assert (response.status, body, response.headers["ETag"]) == (304, b"", tag)
    assert proxy.count() == 0
    for condition in ('"other"', tag.strip('"'), '""', tag.upper()):
        response, body = await api.raw(path, headers={"If-None-Match": condition})
        assert (response.status, len(body)) == (200, SIZE), condition


async def test_a_span_is_given_only_of_the_recording_it_was_asked_of(house: House, api: Served) -> None:
    row = await house.stored()
    path = f"{R}/{row['id']}/audio"
    tag = (await api.raw(path, method="HEAD"))[0].headers["ETag"]
    response, body = await api.raw(path, headers={"Range": "bytes=5-9", "If-Range": tag})
    assert (response.status, len(body)) == (206, 5)
    for other in ('"other"', f"W/{tag}", tag.strip('"'), "Wed, 21 Oct 2015 07:28:00 GMT", ""):
        for span in ("bytes=5-9", "bytes=99999999-", "nonsense"):
            response, body = await api.raw(path, headers={"Range": span, "If-Range": other})
            assert (response.status, len(body)) == (200, SIZE), (other, span)
            assert "Content-Range" not in response.headers
    response, body = await api.raw(path, headers={"If-Range": tag})
    assert response.status == 200


async def test_a_link_works_without_a_key_for_a_minute_at_most(house: House, serve: Serve) -> None:
    row = await house.stored()
    api = await serve(keys=["canary-key-0123456789"])
    response, body = await api.raw(
        f"{R}/{row['id']}/audio?redirect=1", headers={"X-API-Key": "canary-key-0123456789"}, allow_redirects=False
    )
    assert (response.status, body) == (302, b"")
    assert response.headers["Cache-Control"] == "no-store", "a link that is kept is a link that has died"
    url = response.headers["Location"]
    query = parse_qs(urlsplit(url).query)
    assert 1 <= int(query["X-Amz-Expires"][0]) <= 60
    signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - signed).total_seconds()) < 30
    assert house.store._client._provider.retrieve().secret_key not in url
    assert "canary" not in url
    async with aiohttp.ClientSession() as stranger:
        async with stranger.get(url) as got:
            assert (got.status, await got.read()) == (200, wav(tone(440, 1)))
            assert got.headers["Content-Type"] == "audio/wav"
            assert got.headers["Content-Disposition"].startswith("inline")
        async with stranger.get(url, headers={"Range": "bytes=0-9"}) as got:
            assert (got.status, await got.read()) == (206, wav(tone(440, 1))[:10])
        async with stranger.get(url.replace(str(row["id"]), "0" * 36)) as got:
            assert got.status in (403, 404)
        async with stranger.put(url, data=b"x") as got:
            assert got.status == 403
        async with stranger.get(url.replace("X-Amz-Expires=", "X-Amz-Expires=9")) as got:
            assert got.status == 403
    assert len(house.content(row["key"])) == SIZE


async def test_a_link_to_download_is_one_to_download(house: House, api: Served) -> None:
    row = await house.stored()
    response, body = await api.raw(f"{R}/{row['id']}/audio?redirect=1&download=1")
    assert (response.status, len(body)) == (200, SIZE)
    assert response.headers["Content-Disposition"].startswith("attachment")


async def test_no_name_breaks_a_header(house: House, api: Served) -> None:
    row = await house.stored()
    path = f"{R}/{row['id']}"
    told_wrong = []
    for name in (
        'a"b".wav', "a\r\nSet-Cookie: x=1\r\n\r\n.wav", "Zoë Ünï 录音.wav", "a;b=c.wav", "a%0d%0aX: 1.wav",
        "../../etc/x", "\u202egpj.wav", "a\\b.wav", "", "'", "x" * 255, "🙂.wav", "\x7f\x01.wav",
    ):  # fmt: skip
        await house.pool.execute("UPDATE media_file SET name = $1", name)
        for query in ("", "?download=1"):
            response, body = await api.raw(f"{path}/audio{query}")
            assert (response.status, len(body)) == (200, SIZE)
            assert not {"Set-Cookie", "X"} & set(response.headers)
            (told,) = response.headers.getall("Content-Disposition")
            kind, _, encoded = told.partition("; filename*=UTF-8''")
            assert re.fullmatch(r'(inline|attachment); filename="[ -!#-:<-\[\]-~]*"', kind), kind
            assert encoded.isascii()
            assert not set(encoded) & set("\"\\/;'\r\n ")
        response, body = await api.raw(f"{path}/audio?redirect=1", allow_redirects=False)
        told = parse_qs(urlsplit(response.headers["Location"]).query)["response-content-disposition"][0]
        assert not set(told) & set("\\/\r\n")
        assert told.count('"') in (0, 2)
        if not told.isascii():
            told_wrong.append(told)
        async with api.client.get(response.headers["Location"]) as got:
            assert (got.status, len(await got.read())) == (200, SIZE)
        assert (await api.get(path))[1]["name"] == name, "as data it is what it is"
    assert told_wrong == [], "AWS refuses a header that is not ISO 8859-1, and browsers guess at one that is"


async def test_a_storage_that_is_away_is_told_as_such(
    house: House, serve: Serve, watched: Watched, proxy: S3Proxy
) -> None:
    row = await house.stored()
    api = await serve(objects=watched)
    for fault in (REFUSE, answer(500), answer(503), answer(403), truncate_get(0)):
        proxy.fault = fault
        for headers in ({}, {"Range": "bytes=0-9"}):
            with capture_logs() as logs:
                response, body = await api.raw(f"{R}/{row['id']}/audio", headers=headers)
            problem = json.loads(body)
            assert (response.status, problem["code"]) == (503, "storage_unavailable"), fault
            assert response.content_type == "application/problem+json"
            assert int(response.headers["Retry-After"]) > 0
            assert not {"Content-Range", "ETag", "Content-Disposition"} & set(response.headers)
            assert [log["event"] for log in logs] == ["http.storage_away"]
            for secret in (row["key"], house.prefix, proxy.endpoint, str(proxy.port)):
                assert secret not in body.decode()
        proxy.fault = PASS
        assert (await api.raw(f"{R}/{row['id']}/audio"))[1] == wav(tone(440, 1)), "it is back at once"
    await house.until("nothing is being read", lambda: watched.open == 0)


async def test_a_storage_that_hangs_is_given_up_in_time(
    house: House, serve: Serve, watched: Watched, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "HANDLER_TIMEOUT_S", 0.3)
    row = await house.stored()
    api = await serve(objects=watched)
    proxy.fault = HANG
    with capture_logs() as logs:
        status, problem = await api.get(f"{R}/{row['id']}/audio")
    assert (status, problem["code"]) == (503, "too_slow")
    assert [log["event"] for log in logs] == ["http.too_slow"]
    proxy.drop()
    await house.until("the thread that hung has let go", lambda: watched.open == 0)


async def test_an_object_that_is_not_there_is_no_storage_that_is_away(house: House, api: Served) -> None:
    row = await house.stored()
    house.store.remove(row["key"])
    response, body = await api.raw(f"{R}/{row['id']}/audio")
    problem = json.loads(body)
    assert (response.status, problem["code"]) == (404, "object_missing")
    assert "Retry-After" not in response.headers, "to try again is of no use"


async def test_a_storage_that_breaks_off_is_seen_as_a_broken_transfer(
    house: House, serve: Serve, watched: Watched, proxy: S3Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    row, data = await big(house, MB)
    api = await serve(objects=watched)
    got = bytearray()

    async def listen(headers: dict[str, str], size: int) -> None:
        patience = aiohttp.ClientTimeout(sock_read=5)
        async with api.client.get(f"{api.url}{R}/{row['id']}/audio", headers=headers, timeout=patience) as response:
            assert response.headers["Content-Length"] == str(size)
            async for chunk in response.content.iter_any():
                got.extend(chunk)

    for keep in (CHUNK, CHUNK + 1, 3 * CHUNK + 77):
        for headers, start in (({}, 0), ({"Range": "bytes=1000-"}, 1000)):
            proxy.fail_next(1, truncate_get(keep), method="GET")
            got.clear()
            with capture_logs() as logs, pytest.raises(aiohttp.ClientPayloadError):
                await listen(headers, MB - start)
            assert data[start:].startswith(bytes(got)), "what came is right as far as it goes"
            assert len(got) <= keep
            assert [log["event"] for log in logs] == ["http.broke_off"], "it is told once, and as what it is"
    assert warnings(caplog.records) == [], "nobody has to read a traceback for it"
    # The player asks for the rest.
    got.clear()
    await listen({"Range": "bytes=300000-"}, MB - 300_000)
    assert got == data[300_000:]
    await house.until("nothing is being read", lambda: watched.open == 0)


async def test_an_object_that_is_shorter_than_its_row_says_is_no_whole_answer(house: House, api: Served) -> None:
    """Somebody has put another one there; a client that waits for bytes which never come would wait for ever."""
    for size in (MB, 100):
        row, _ = await big(house, size)
        await house.pool.execute("UPDATE media_file SET size = $1 WHERE id = $2", size + 10, row["media_file_id"])
        with pytest.raises(aiohttp.ClientPayloadError):
            await api.raw(f"{R}/{row['id']}/audio", timeout=aiohttp.ClientTimeout(sock_read=5))


@pytest.mark.usefixtures("quiet")
async def test_clients_that_go_away_leave_nothing_behind(
    house: House, serve: Serve, watched: Watched, proxy: S3Proxy
) -> None:
    row, data = await big(house, 16 * MB)
    api = await serve(objects=watched)
    await api.raw("/healthz")
    tasks = asyncio.all_tasks()
    target = urlsplit(api.url)
    request = f"GET {R}/{row['id']}/audio HTTP/1.1\r\nHost: {target.netloc}\r\n\r\n".encode()

    async def go_away(n: int) -> None:
        reader, writer = await asyncio.open_connection(target.hostname, target.port, limit=1 << 16)
        writer.write(request)
        if n % 4:  # the others do not even wait for the answer
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readexactly(1 << 16)
        if n % 2:
            writer.transport.abort()
        else:
            writer.close()

    with capture_logs() as logs:
        await asyncio.gather(*(go_away(n) for n in range(20)))
        await house.until("no object is read any more", lambda: watched.open == 0)
        await house.until("no connection to S3 is open", lambda: not proxy._open)
        await house.until("no thread is left", lambda: not _threads())
        await house.until("no task is left", lambda: asyncio.all_tasks() <= tasks)
    assert logs == []
    assert (await api.raw(f"{R}/{row['id']}/audio"))[1] == data
    written = await house.pool.fetchval("SELECT count(*) FROM recording_access WHERE action = 'audio'")
    assert 16 <= written <= 21, "heard in part is heard"


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("blocking ")]


@pytest.mark.usefixtures("quiet")
async def test_a_slow_client_is_waited_for_and_nothing_is_read_ahead_of_it(
    house: House, serve: Serve, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "HANDLER_TIMEOUT_S", 0.3)
    row, data = await big(house, 60 * MB)
    api = await serve(objects=watched)
    taken = -1
    async with api.client.get(f"{api.url}{R}/{row['id']}/audio") as response:
        assert await response.content.readexactly(1000) == data[:1000]
        began = time.monotonic()
        # It takes nothing more: the daemon stops reading when the sockets between are full.
        while watched.taken > taken or time.monotonic() - began < 3 * edge.HANDLER_TIMEOUT_S:
            taken = watched.taken
            await asyncio.sleep(0.2)
        assert taken < 20 * MB
        assert (watched.open, _threads()) == (1, []), "no thread waits for a client"
        digest = hashlib.sha256(data[:1000])
        async for chunk in response.content.iter_any():
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(data).digest()


async def test_a_long_recording_is_never_whole_in_memory(house: House, api: Served) -> None:
    row, data = await big(house, 60 * MB)
    right = hashlib.sha256(data).digest()
    del data
    digest = hashlib.sha256()
    tracemalloc.start()
    try:
        async with api.client.get(f"{api.url}{R}/{row['id']}/audio") as response:
            async for chunk in response.content.iter_any():
                digest.update(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert digest.digest() == right
    assert peak < 8 * MB, "of both ends: the client is in this process too"


@pytest.mark.usefixtures("quiet")
async def test_many_listen_at_once_and_each_hears_its_own(house: House, serve: Serve, watched: Watched) -> None:
    row, data = await big(house, 2 * MB)
    api = await serve(objects=watched)

    async def listen(n: int) -> None:
        headers = {"Range": f"bytes={n * 1000}-"} if n % 2 else {}
        response, body = await api.raw(f"{R}/{row['id']}/audio", headers=headers)
        assert response.status == (206 if n % 2 else 200)
        assert body == (data[n * 1000 :] if n % 2 else data)

    await asyncio.gather(*(listen(n) for n in range(20)))
    await house.until("nothing is being read", lambda: watched.open == 0)
    assert await house.pool.fetchval("SELECT count(*) FROM recording_access") == 20


async def test_several_requests_over_one_connection_are_kept_apart(house: House, api: Served) -> None:
    row = await house.stored()
    target = urlsplit(api.url)
    line = f"Host: {target.netloc}\r\n\r\n"
    path = f"{R}/{row['id']}/audio HTTP/1.1\r\n"
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    writer.write(f"HEAD {path}{line}GET {path}Range: bytes=0-3\r\n{line}HEAD {path}{line}".encode())
    writer.write(f"GET {path}Range: bytes=8-11\r\nConnection: close\r\n{line}".encode())
    answers = (await asyncio.wait_for(reader.read(), 10)).split(b"HTTP/1.1 ")
    writer.close()
    await writer.wait_closed()
    assert [(answer[:3], answer.partition(b"\r\n\r\n")[2]) for answer in answers[1:]] == [
        (b"200", b""),
        (b"206", b"RIFF"),
        (b"200", b""),
        (b"206", b"WAVE"),
    ]
