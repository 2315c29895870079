"""Media files: what comes in is what goes out, and what breaks off leaves nothing."""

import asyncio
import hashlib
import json
import os
from typing import Any
from uuid import uuid4

import pytest
from desk import FILES, PNG, Desk, ask, form, upload
from patience import until
from s3_proxy import HANG, REFUSE, S3Proxy, answer, corrupt_put, cut_request
from served import Serve, Served

from trunkline.api import multipart
from trunkline.api.multipart import MOST_FILES

pytestmark = pytest.mark.asyncio


async def test_a_file_lives(api: Served, desk: Desk) -> None:
    (file,) = await upload(api, ("Zoë's photo.jpg", PNG))
    assert file == {
        "id": file["id"], "name": "Zoë's photo.jpg", "mimeType": "image/png", "size": len(PNG),
        "sha256": hashlib.sha256(PNG).hexdigest(), "messageId": None, "url": f"{FILES}/{file['id']}/content",
        "uploadedAt": file["uploadedAt"],
    }  # fmt: skip
    path = f"{FILES}/{file['id']}"
    assert await ask(api, "GET", path) == (200, file)
    assert await ask(api, "GET", FILES) == (200, {"items": [file], "nextCursor": None})
    response, body = await api.raw(file["url"])
    assert (response.status, body, response.headers["Content-Type"]) == (200, PNG, "image/png")
    assert response.headers["Content-Disposition"] == (
        "inline; filename=\"Zoe_s photo.jpg\"; filename*=UTF-8''Zo%C3%AB%27s%20photo.jpg"
    )
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"].startswith("sandbox;")
    etag = response.headers["ETag"]
    for method in ("GET", "HEAD"):
        response, body = await api.raw(file["url"], method=method, headers={"Range": "bytes=4-9"})
        assert (response.status, body) == (206, PNG[4:10] if method == "GET" else b"")
        assert response.headers["Content-Range"] == f"bytes 4-9/{len(PNG)}"
        response, body = await api.raw(file["url"], method=method, headers={"If-None-Match": etag})
        assert (response.status, body) == (304, b"")
    assert (await ask(api, "GET", file["url"], headers={"Range": "bytes=-5"}))[1]["code"] == "range_refused"
    assert len(desk.objects()) == 1
    assert await desk.due() == [], "it has its row, so nothing is to be removed"
    assert await ask(api, "DELETE", path) == (204, None)
    for gone in (path, file["url"]):
        assert (await ask(api, "GET", gone))[1]["code"] == "media_file_not_found"
    assert len(desk.objects()) == 1, "the object follows"
    assert await desk.remover.sweep() == 1
    await desk.nothing_left()


async def test_several_files_keep_their_order_and_a_long_one_comes_in_parts(
    through: Served, desk: Desk, proxy: S3Proxy
) -> None:
    long = os.urandom(11_000_000)
    files = await upload(through, ("a.bin", long), ("b.txt", b"hello"), ("c", b""))
    assert [file["name"] for file in files] == ["a.bin", "b.txt", "c"]
    assert [file["size"] for file in files] == [len(long), 5, 0]
    assert [file["mimeType"] for file in files][1:] == ["text/plain", "application/octet-stream"]
    assert proxy.count("PUT") == 3 + 2
    for file, content in zip(files, (long, b"hello", b""), strict=True):
        response, body = await through.raw(file["url"])
        assert (response.status, body) == (200, content)
    assert len(desk.objects()) == 3


@pytest.mark.parametrize(
    ("name", "content", "mime_type", "served"),
    [
        ("photo.png", b"<html><script>alert(1)</script>", "text/html", "application/octet-stream"),
        ("photo.png", b"\n\n  <SVG onload='x'>", "image/svg+xml", "application/octet-stream"),
        ("a.xml", b"<?xml version='1.0'?><a/>", "application/xml", "application/octet-stream"),
        ("a.pdf", b"%PDF-1.7 ...", "application/pdf", "application/pdf"),
        ("run.exe", b"MZ\x90\x00\x03", "application/octet-stream", "application/octet-stream"),
    ],
)
async def test_what_a_browser_might_run_is_handed_out_as_a_file(
    api: Served, name: str, content: bytes, mime_type: str, served: str
) -> None:
    (file,) = await upload(api, (name, content))
    assert file["mimeType"] == mime_type
    response, body = await api.raw(file["url"])
    assert (body, response.headers["Content-Type"]) == (content, served)
    assert response.headers["Content-Disposition"].startswith("attachment;")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]


def body_of(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


A_FILE = b'form-data; name="file"; filename="a"'


def part(told: bytes = A_FILE, *more: bytes, content: bytes = b"hello") -> bytes:
    return b"\r\n".join([b"Content-Disposition: " + told, *more, b"", content])


FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b"{}", 415, "not_multipart"),
        ("multipart/mixed; boundary=x", body_of(part()), 415, "not_multipart"),
        ("multipart/form-data", body_of(part()), 422, "bad_upload"),
        ("multipart/form-data; boundary=" + "x" * 71, b"", 422, "bad_upload"),
        (FORM, b"", 422, "bad_upload"),
        (FORM, b"--x--\r\n", 422, "bad_upload"),
        (FORM, b"no boundary\r\n" * 5000, 422, "bad_upload"),
        (FORM, b"a" * 1_000_000, 422, "bad_upload"),  # a line without an end
        (FORM, body_of(part(), end=b""), 422, "bad_upload"),  # ends in the middle
        (FORM, body_of(part(b'form-data; name="other"; filename="a"')), 422, "bad_upload"),
        (FORM, body_of(part(b'form-data; name="file"')), 422, "bad_upload"),
        (FORM, body_of(b"\r\nhello"), 422, "bad_upload"),
        (FORM, body_of(part(), part(b'form-data; name="file"')), 422, "bad_upload"),
        (FORM, body_of(part(b"form-data; name=\xff\xfe; filename=\x00")), 422, "bad_upload"),
        (FORM, body_of(part(A_FILE, b"X: " + b"y" * 5000)), 422, "bad_upload"),
        (FORM, body_of(part(A_FILE, *[b"X: y"] * 20)), 422, "bad_upload"),
        (FORM, body_of(part(A_FILE, b"Content-Transfer-Encoding: base64")), 422, "bad_upload"),
        (FORM, body_of(part(A_FILE, b"Content-Type: multipart/mixed; boundary=y")), 422, "bad_upload"),
        (FORM, body_of(part(A_FILE, b"Content-Type: multipart/mixed")), 422, "bad_upload"),
        (FORM, body_of(*[part()] * (MOST_FILES + 1)), 422, "bad_upload"),
        (FORM, body_of(part(content=b"x" * 20_001)), 413, "body_too_large"),
        (FORM, body_of(*[part(content=b"x" * 19_000)] * 4), 413, "body_too_large"),
    ],
)  # fmt: skip
async def test_a_hostile_form_is_refused_and_leaves_nothing(
    serve: Serve, desk: Desk, content_type: str, body: bytes, status: int, code: str
) -> None:
    api = await serve(file=20_000, request=60_000 if status == 413 else 10_000_000)

    async def chunked() -> Any:  # no length is said
        yield body

    for data in (body, chunked()):
        response, said = await api.raw(FILES, method="POST", data=data, headers={"Content-Type": content_type})
        assert (response.status, json.loads(said)["code"]) == (status, code), said
    await desk.nothing_left()


async def test_names_are_what_people_see(api: Served) -> None:
    names = {
        "../../etc/passwd": "passwd",
        "C:\\Users\\ada\\a.png": "a.png",
        "..": "file",
        "\u202egpj.exe": "gpj.exe",
        "a\u0085b\u2028c.txt": "abc.txt",
        "x" * 500 + ".jpeg": "x" * 195 + ".jpeg",
        "семейное фото 🧑‍🚀.jpg": "семейное фото 🧑‍🚀.jpg",
    }
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\nhello\r\n--x--\r\n'
    for given, kept in names.items():
        body = head % given.replace("\\", "\\\\").encode()
        response, said = await api.raw(FILES, method="POST", data=body, headers={"Content-Type": FORM})
        assert response.status == 201, (given, said)
        (file,) = json.loads(said)["items"]
        assert file["name"] == kept
        response, _ = await api.raw(file["url"])
        assert response.headers["Content-Disposition"].isascii()


async def test_a_gigabyte_that_is_only_said_is_refused_at_once(api: Served, desk: Desk) -> None:
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {FILES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 1000000000\r\n\r\n"
    writer.write(head.encode() + b"--x\r\n")
    answered = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    assert b" 413 " in answered
    await desk.nothing_left()


async def begin(api: Served, length: int, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that says a length and has sent so much."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    head = f"POST {FILES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode() + b"--x\r\n" + part(content=sent))
    await writer.drain()
    return reader, writer


async def test_a_client_that_goes_away_leaves_nothing(api: Served, desk: Desk) -> None:
    _, writer = await begin(api, 12_000_000, os.urandom(6_000_000))
    await until("the first part is in the storage", desk.objects, desk.files, 10)
    writer.transport.abort()

    async def hastened() -> bool:
        return await desk.pool.fetchval("SELECT bool_and(due_at < now() + interval '5 min') FROM object_removal")

    await until("its removal is due", hastened, desk.due, 10)
    await desk.nothing_left()


async def test_a_client_that_is_silent_is_let_go(api: Served, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "SILENT_S", 0.3)
    reader, writer = await begin(api, 100_000, b"hello")
    answered = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert b" 408 " in answered
    assert b"upload_broke_off" in await reader.read(1000)
    writer.close()
    await desk.nothing_left()


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        *((fault, size) for fault in (answer(500), cut_request(100), corrupt_put(40)) for size in (2_000, 6_000_000)),
        (REFUSE, 2_000),
        (HANG, 2_000),
        (answer(503), 2_000),
    ],
    ids=str,
)
async def test_a_storage_that_fails_is_told_and_nothing_is_left(
    through: Served, desk: Desk, proxy: S3Proxy, fault: Any, size: int
) -> None:
    proxy.fault = fault
    content = bytes(range(256)) * (size // 256)
    response, body = await through.raw(FILES, method="POST", data=form(("a.bin", content), ("b.bin", content)))
    assert (response.status, json.loads(body)["code"]) == (503, "storage_unavailable")
    assert response.headers["Retry-After"]
    await desk.nothing_left()


async def test_the_second_file_fails_and_the_first_goes_too(through: Served, desk: Desk, proxy: S3Proxy) -> None:
    proxy.fail_next(1, answer(500), method="PUT", path="no such path")  # met by none
    response, body = await through.raw(FILES, method="POST", data=form(("a", b"one"), ("b", b"x" * 30_000_000)))
    assert (response.status, json.loads(body)["code"]) == (413, "body_too_large")
    assert len(desk.objects()) >= 1
    await desk.nothing_left()


async def test_an_object_whose_daemon_was_killed_is_removed_once_it_is_overdue(api: Served, desk: Desk) -> None:
    await upload(api, ("a", PNG))
    file = (await desk.files())[0]
    # As it stands between the put and the commit.
    await desk.pool.execute("DELETE FROM media_file")
    await desk.pool.execute(
        "INSERT INTO object_removal (account_id, bucket, key, due_at) VALUES ($1, $2, $3, now() + interval '1 hour')",
        desk.account_id, file["bucket"], file["key"],
    )  # fmt: skip
    assert await desk.remover.sweep() == 0, "it may still be at it"
    assert desk.objects() == [file["key"]]
    await desk.nothing_left()


async def test_an_object_that_another_file_shares_stays(api: Served, desk: Desk) -> None:
    (file,) = await upload(api, ("a", PNG))
    clone = await desk.pool.fetchval(  # as 0003 made them
        "INSERT INTO media_file (account_id, name, key, size) SELECT account_id, name, key, size FROM media_file"
        " RETURNING id"
    )
    assert (await ask(api, "DELETE", f"{FILES}/{file['id']}"))[0] == 204
    assert await desk.swept() == 0
    assert (await api.raw(f"{FILES}/{clone}/content"))[1] == PNG
    assert (await ask(api, "DELETE", f"{FILES}/{clone}"))[0] == 204
    assert await desk.swept() == 1
    await desk.nothing_left()


async def test_a_storage_that_is_away_is_asked_again_for_what_is_to_go(
    through: Served, desk: Desk, proxy: S3Proxy
) -> None:
    (file,) = await upload(through, ("a", PNG))
    assert (await ask(through, "DELETE", f"{FILES}/{file['id']}"))[0] == 204
    desk.remover._store = through.state.objects
    proxy.fault = REFUSE
    assert await desk.remover.sweep() == 0
    assert len(await desk.due()) == 1
    proxy.fault = answer(200)._replace(kind="pass")
    assert await desk.swept() == 1
    await desk.nothing_left()


async def test_a_recordings_file_is_had_from_the_recording_only(api: Served, desk: Desk) -> None:
    (file,) = await upload(api, ("a.wav", PNG))
    await desk.pool.execute("UPDATE media_file SET kind = 'recording'")
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        status, problem = await ask(api, method, f"{FILES}/{file['id']}{path}")
        assert (status, problem["code"]) == (404, "media_file_not_found")
    assert (await ask(api, "GET", FILES))[1]["items"] == []
    assert await desk.due() == []


async def test_anothers_file_is_as_one_that_is_not(api: Served, serve: Serve, desk: Desk) -> None:
    (file,) = await upload(api, ("a", PNG))
    await desk.pool.execute("INSERT INTO account (name) VALUES ('other')")
    other = await serve(account="other")
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answers = []
        for id_ in (file["id"], uuid4(), "1"):
            answers.append(await ask(other, method, f"{FILES}/{id_}{path}", headers={"X-Request-ID": "same"}))
        assert answers == [answers[0]] * 3
        assert answers[0][1]["code"] == "media_file_not_found"
    assert (await api.raw(file["url"]))[1] == PNG


async def test_the_list_page_by_page(api: Served, desk: Desk) -> None:
    for n in range(3):
        await upload(api, (f"{n}a", b"x"), (f"{n}b", b"x"))  # two of one moment
    walked, query = [], ""
    while True:
        status, page = await ask(api, "GET", f"{FILES}?limit=2{query}")
        assert (status, len(page["items"])) == (200, 2)
        walked += [file["name"] for file in page["items"]]
        if page["nextCursor"] is None:
            break
        query = f"&cursor={page['nextCursor']}"
    assert [name[0] for name in walked] == ["2", "2", "1", "1", "0", "0"]
    assert len(set(walked)) == 6
    assert (await ask(api, "GET", f"{FILES}?cursor=x"))[1]["code"] == "bad_cursor"


async def test_under_a_key_the_same_files_are_taken_once(api: Served, desk: Desk) -> None:
    headers = {"Idempotency-Key": "one"}
    answers = []
    for files in ([("a", PNG), ("b", b"x")], [("a", PNG), ("b", b"x")], [("a", PNG), ("b", b"y")]):
        response, body = await api.raw(FILES, method="POST", data=form(*files), headers=headers)
        answers.append((response.status, response.headers.get("Idempotency-Replayed"), json.loads(body)))
    assert [(status, replayed) for status, replayed, _ in answers] == [(201, None), (201, "true"), (422, None)]
    assert answers[0][2] == answers[1][2]
    assert answers[2][2]["code"] == "idempotency_key_reused"
    assert len(await desk.files()) == 2
    assert await desk.swept() == 4, "what was sent again is removed"
    assert len(desk.objects()) == 2


async def test_without_a_storage_it_says_so(serve: Serve) -> None:
    api = await serve(objects=None)
    response, body = await api.raw(FILES, method="POST", data=form(("a", b"x")))
    assert (response.status, json.loads(body)["code"]) == (503, "storage_not_configured")
