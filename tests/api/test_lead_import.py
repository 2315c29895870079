"""Leads of a CSV file: hostile, long, sent twice."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
from served import Serve, Served

from trunkline.api.lead_import import LONGEST_FILE, MOST_ERRORS
from trunkline.store.pool import Pool

pytestmark = pytest.mark.asyncio

LINE_END = "Expected `str` matching regex '^[^\\\\x00-\\\\x1f\\\\x7f]*$' - at `$.name`"
IMPORT = "/api/v1/leads/import"


@pytest.fixture
def database_url(emptied_database: str) -> str:
    return emptied_database


@pytest_asyncio.fixture
async def api(serve: Serve, pool: Pool, account_id: UUID) -> AsyncIterator[Served]:
    yield await serve(pool, region="GB")


async def send(api: Served, data: Any, query: str = "", type_: str = "text/csv") -> tuple[int, Any]:
    if isinstance(data, str):
        data = data.encode()
    headers = {"Content-Type": type_}
    response, raw = await api.raw(f"{IMPORT}{query}", method="POST", data=data, headers=headers)
    return response.status, msgspec.json.decode(raw)


async def leads(pool: Pool) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in await pool.fetch(
            """SELECT name, phone_e164, email, status, external_id,
                      ARRAY(SELECT e164 FROM lead_phone WHERE lead_id = lead.id ORDER BY position)
               FROM lead ORDER BY external_id, name, phone"""
        )
    ]


FILE = """\ufeffFull Name;Phone;E-Mail;Mobile;Status;External ID;Shoe size
Ada Lovelace;020 7000 1001;Ada@Example.com;+44 20 7000 1002;qualified;a;36
"Zoë ""Z"";
of York";;zoe@example.com;;;b;
=cmd|'/c calc'!A1;+442070001003;;;;c;
"""


async def test_each_row_becomes_a_lead_and_a_second_time_none(api: Served, pool: Pool) -> None:
    report = {
        "dryRun": False, "rows": 3, "created": 2, "updated": 0, "skipped": 0, "failed": 1,
        "errors": [{"line": 3, "message": LINE_END}],
        "ignoredColumns": ["Shoe size"],
    }  # fmt: skip
    dry = {**report, "dryRun": True}
    assert await send(api, FILE, "?dryRun=1") == (200, dry)
    assert await leads(pool) == []
    assert await send(api, FILE) == (200, report)
    expected = [
        ("Ada Lovelace", "+442070001001", "ada@example.com", "qualified", "a", ["+442070001002"]),
        ("=cmd|'/c calc'!A1", "+442070001003", None, "new", "c", []),  # as it was written: JSON is no spreadsheet
    ]
    assert await leads(pool) == expected
    again = {**report, "created": 0, "skipped": 2}
    assert await send(api, FILE) == (200, again)
    assert await send(api, FILE, "?dryRun=1") == (200, {**again, "dryRun": True})
    assert await leads(pool) == expected
    rows = await pool.fetch("SELECT type, data FROM event ORDER BY seq")
    assert [row["type"] for row in rows] == ["lead.created"] * 2
    assert {msgspec.json.decode(row["data"])["lead"]["externalId"] for row in rows} == {"a", "c"}


async def test_what_is_there_is_updated_by_what_the_row_has(api: Served, pool: Pool) -> None:
    await send(api, "name,phone,email,externalId\nAda,02070001001,ada@example.com,a\nZoë,02070001002,,b\n")
    file = "name,phone,externalId,status\nA. Lovelace,02070009999,a,LOST\n,02070001002,,\nNew,,,\nNew 2,02070009999,,\n"
    status, report = await send(api, file, "?onDuplicate=update")
    assert (status, report["created"], report["updated"], report["skipped"]) == (200, 1, 3, 0)
    assert await leads(pool) == [
        ("New 2", "+442070001001", "ada@example.com", "lost", "a", ["+442070009999"]),
        ("Zoë", "+442070001002", None, "new", "b", []),
        ("New", None, None, "new", None, []),
    ]
    types = [row["type"] for row in await pool.fetch("SELECT type FROM event ORDER BY seq")]
    assert types == ["lead.created"] * 3 + ["lead.updated"] * 2, "a row that changes nothing is not told"


@pytest.mark.parametrize("on_duplicate", ["skip", "update"])
async def test_a_number_that_two_share_makes_them_one_only_where_the_crm_does_not_tell_them_apart(
    api: Served, pool: Pool, on_duplicate: str
) -> None:
    """A household, a switchboard: with externalIds of their own they are two, in one file as in two."""
    query = f"?onDuplicate={on_duplicate}"
    file = "name,phone,externalId\nAda,02070001001,a\nBob,02070001001,b\n"
    for created in (2, 0):
        status, report = await send(api, file, query)
        assert (status, report["created"], report["failed"]) == (200, created, 0)
    assert (await send(api, "name,phone,externalId\nCyd,02070001001,c\n", query))[1]["created"] == 1
    shared = "+442070001001"
    assert [lead[:2] + lead[4:5] for lead in await leads(pool)] == [
        ("Ada", shared, "a"), ("Bob", shared, "b"), ("Cyd", shared, "c"),
    ]  # fmt: skip
    assert (await send(api, "phone\n02070001001\n", query))[1]["created"] == 0, "one without may be any of them"


async def test_a_lead_of_two_numbers_becomes_one_of_two_people_of_a_file(api: Served, pool: Pool) -> None:
    await send(api, "phone,mobile\n02070001001,02070001002\n")
    file = "name,phone,externalId\nAda,02070001001,a\nBob,02070001002,b\n"
    status, report = await send(api, file, "?onDuplicate=update")
    assert (status, report["created"], report["updated"]) == (200, 1, 1)
    assert [(lead[0], lead[4]) for lead in await leads(pool)] == [("Ada", "a"), ("Bob", "b")]


async def test_columns_are_named_where_they_are_called_otherwise(api: Served, pool: Pool) -> None:
    file = "Kunde,Rufnummer,name\nAda,02070001001,ignored\n"
    status, report = await send(api, file, "?map=name:Kunde&map=phone:Rufnummer")
    assert (status, report["created"], report["ignoredColumns"]) == (200, 1, ["name"])
    assert (await leads(pool))[0][:2] == ("Ada", "+442070001001")
    status, problem = await send(api, file, "?map=name:Nobody")
    assert (status, problem["code"]) == (400, "bad_csv")
    assert "Nobody" in problem["detail"]
    for query in ("?map=name", "?map=shoe:Kunde", "?map=:Kunde", "?dryRun=yes", "?onDuplicate=x"):
        assert (await send(api, file, query))[1]["code"] == "bad_parameter"


async def test_a_row_that_is_none_is_told_with_its_line(api: Served, pool: Pool) -> None:
    file = (
        'name,email,status,phone\n'
        'a,b,c\n'
        '\n'
        'x,,sold,\n'
        '5" pipe,,,\n'
        'too,many,,,fields\n'
        ',,,\n'
        f'{"n" * 201},,,\n'
        'ok,,,\n'
        '"multi",ok@example.com,"lost",1\n'
        'nul\0,,,\n'
        '"open,,,\n'
    )  # fmt: skip
    status, report = await send(api, file)
    assert status == 200
    assert [error["line"] for error in report["errors"]] == [2, 4, 5, 6, 7, 8, 11, 12]
    assert (report["rows"], report["created"], report["failed"]) == (10, 2, 8)
    assert "`$.email`" in report["errors"][0]["message"]
    assert "`$.status`" in report["errors"][1]["message"]


@pytest.mark.parametrize(
    ("file", "status", "code", "said"),
    [
        (b"", 400, "bad_csv", "empty"),
        (b"\xef\xbb\xbf", 400, "bad_csv", "empty"),
        (b"shoe,size\n1,2\n", 400, "bad_csv", "map=FIELD:HEADER"),
        (b"name,name\n1,2\n", 400, "bad_csv", "two columns"),
        ("name\nä\n".encode("latin-1"), 400, "bad_csv", "line 2: this is not UTF-8"),
        ("name\nä\n".encode("utf-16"), 400, "bad_csv", "UTF-16"),
        (b'name\n"' + b"x" * 70_000, 400, "bad_csv", "longer"),
        (b"name\nfine\n\xff\n", 422, "import_stopped", "line 3"),
        (b"name\n" + b"fine\n" * 100_001, 422, "import_stopped", "line 100002: a file may have 100000 rows"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:20],
)
async def test_what_cannot_be_read_is_refused_and_says_what_was_taken(
    api: Served, pool: Pool, file: bytes, status: int, code: str, said: str
) -> None:
    query = "?dryRun=1" if len(file) > 300_000 else ""
    found, problem = await send(api, file, query)
    assert (found, problem["code"]) == (status, code)
    assert said in problem["detail"]
    if status == 422:
        assert problem["report"]["created"] == problem["report"]["rows"] == min(100_000, file.count(b"fine"))
    assert await pool.fetchval("SELECT count(*) FROM lead") == (1 if status == 422 and not query else 0)


async def test_what_is_no_csv_is_not_read(api: Served) -> None:
    for type_ in ("application/json", "text/csv; charset=latin-1", "application/octet-stream"):
        status, problem = await send(api, "name\nx\n", type_=type_)
        assert (status, problem["code"]) == (415, "not_csv")
    response, _ = await api.raw(
        IMPORT, method="POST", data=b"x", headers={"Content-Type": "text/csv", "Content-Encoding": "gzip"}
    )
    assert response.status in (400, 415)
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {IMPORT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    writer.write(f"{head}Content-Length: {LONGEST_FILE + 1}\r\n\r\n".encode())
    assert b" 413 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    writer.close()
    await writer.wait_closed()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(LONGEST_FILE // 2**20 + 1):
            yield b"\n" * 2**20

    status, problem = await send(api, endless())
    assert (status, problem["code"]) == (400, "bad_csv"), "sent without its length, it is counted"
    assert str(LONGEST_FILE) in problem["detail"]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_so_many_rows_are_held_in_little_memory(api: Served, pool: Pool) -> None:
    """50,000 rows of 8 MB, some broken, some twice: a batch of them is held, and what a report holds."""
    rows, before, most = 50_000, resident_bytes(), 0

    async def file() -> AsyncIterator[bytes]:
        nonlocal most
        yield b"name,source,externalId\n"
        for first in range(0, rows, 100):
            most = max(most, resident_bytes())
            yield b"".join(
                (f"{'x' * 201},,\n" if n % 4 == 0 else f"N{n},{'s' * 190},{n - n % 2}\n").encode()
                for n in range(first, first + 100)
            )

    status, report = await send(api, file(), "?dryRun=1")
    assert status == 200
    assert (report["rows"], report["failed"]) == (rows, rows / 4)
    assert (report["created"], report["skipped"]) == (rows / 2, rows / 4)
    assert len(report["errors"]) == MOST_ERRORS
    assert most - before < 40 * 2**20


async def test_two_files_at_once_make_each_lead_once(api: Served, pool: Pool) -> None:
    file = "name,externalId\n" + "".join(f"{n},{n}\n" for n in range(500))
    reports = await asyncio.gather(*(send(api, file) for _ in range(3)))
    assert [status for status, _ in reports] == [200] * 3
    assert sum(report["created"] for _, report in reports) == 500
    assert sum(report["skipped"] for _, report in reports) == 1000
    assert await pool.fetchval("SELECT count(*) FROM lead") == 500
