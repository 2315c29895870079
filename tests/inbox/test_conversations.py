"""Conversations: opened and woken by calls, changed by people; each thing that happens is told once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from calls import A, B, answered, ended, ringing
from desk import PNG, Desk, ask, upload
from people import SECRET, add_user, bearer, log_in
from served import Serve, Served

from trunkline.calls.record import Direction, Status
from trunkline.crm.matching import select_leads_by_number
from trunkline.inbox.snooze import Waker
from trunkline.inbox.telephony import mark_missed, upsert_conversations
from trunkline.store.writer import CallWriter

pytestmark = pytest.mark.asyncio

PATH = "/api/v1/conversations"


@pytest_asyncio.fixture
async def writer(desk: Desk) -> CallWriter:
    return CallWriter(
        desk.pool, "main", leads=select_leads_by_number, conversations=upsert_conversations, missed=mark_missed
    )


async def only(api: Served, query: str = "") -> dict[str, Any]:
    """The one conversation that is listed."""
    status, page = await ask(api, "GET", PATH + query)
    assert (status, len(page["items"])) == (200, 1), page
    return page["items"][0]


async def change(api: Served, id_: str, **fields: Any) -> dict[str, Any]:
    """Change a conversation, as it is taken."""
    status, changed = await ask(api, "PATCH", f"{PATH}/{id_}", fields)
    assert status == 200, changed
    return changed


async def add(desk: Desk, contact: str | None = None, **columns: Any) -> UUID:
    """A conversation; columns: further ones."""
    columns = {"account_id": desk.account_id, "channel": "telephony", "contact": contact, **columns}
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    return await desk.pool.fetchval(
        f"INSERT INTO conversation ({', '.join(columns)}) VALUES ({places}) RETURNING id", *columns.values()
    )


def soon(hours: float = 1) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


async def test_a_call_opens_one_and_what_is_done_with_it_is_told(api: Served, desk: Desk, writer: CallWriter) -> None:
    await writer.write([ringing(A)])
    made = await only(api)
    assert made == {
        "id": made["id"], "channel": "TELEPHONY", "contact": "+15551234567", "contactName": "Jane", "leadId": None,
        "integrationId": made["integrationId"], "status": "OPEN", "assignedUserId": None, "snoozedUntil": None,
        "unreadCount": 0, "createdAt": made["createdAt"], "lastAt": made["lastAt"], "closedAt": None,
    }  # fmt: skip
    assert await ask(api, "GET", f"{PATH}/{made['id']}") == (200, made)
    user = await add_user(desk.pool, desk.account_id, "AGENT")
    until = soon()
    await change(api, made["id"], assignedUserId=str(user))
    await change(api, made["id"], snoozedUntil=until)
    assert (await only(api, "?status=SNOOZED"))["snoozedUntil"] is not None
    await change(api, made["id"], snoozedUntil=None)
    await change(api, made["id"], contactName="Jane Doe")
    closed = await change(api, made["id"], status="CLOSED")
    assert closed["closedAt"] is not None
    again = await change(api, made["id"], status="OPEN", assignedUserId=None)
    assert (again["status"], again["closedAt"], again["assignedUserId"]) == ("OPEN", None, None)
    await change(api, made["id"], contactName="Jane Doe")  # as it is already
    told = await desk.events()
    assert [type_ for type_, _ in told] == [
        "conversation.created", "call.ringing", "conversation.assigned", "conversation.snoozed", "conversation.woken",
        "conversation.updated", "conversation.closed", "conversation.reopened", "conversation.assigned",
    ]  # fmt: skip
    assert told[0][1]["conversation"] == made
    assert told[-1][1]["conversation"] == again
    rows = await desk.pool.fetch("SELECT conversation_id FROM event")
    assert {str(row[0]) for row in rows} == {made["id"]}


async def test_a_call_that_nobody_took_leaves_it_unread_once(api: Served, desk: Desk, writer: CallWriter) -> None:
    missed = {"status": Status.MISSED, "answered_at": None}
    await writer.write([ringing(A)])
    await writer.write([ended(A, **missed)])
    await writer.write([ended(A, **missed)])  # again, as after a crash
    await writer.write([ringing(B), ended(B, **missed)])
    taken = {"status": Status.COMPLETED}
    await writer.write([answered("c"), ended("c", **taken), ringing("d", direction=Direction.OUTBOUND)])
    found = await only(api, "?unread=1")
    assert found["unreadCount"] == 2
    assert await ask(api, "GET", "/api/v1/inbox/unread") == (200, {"all": 1, "mine": 0, "unassigned": 1})
    read = await change(api, found["id"], unreadCount=0)
    assert read["unreadCount"] == 0
    assert (await ask(api, "GET", f"{PATH}?unread=1"))[1]["items"] == []
    told = [
        (type_, data["conversation"]["unreadCount"])
        for type_, data in await desk.events()
        if type_ in ("conversation.unread", "conversation.read")
    ]
    assert told == [("conversation.unread", 1), ("conversation.unread", 2), ("conversation.read", 0)]


async def test_two_missed_calls_of_one_batch_count_twice_and_are_told_once(
    api: Served, desk: Desk, writer: CallWriter
) -> None:
    missed = {"status": Status.ABANDONED, "answered_at": None}
    await writer.write([ended(A, **missed), ended(B, **missed)])
    assert (await only(api))["unreadCount"] == 2
    assert [type_ for type_, _ in await desk.events()][:2] == ["conversation.created", "conversation.unread"]


async def test_a_snoozed_one_is_woken_by_its_customer_and_not_by_us(
    api: Served, desk: Desk, writer: CallWriter
) -> None:
    await writer.write([ringing(A)])
    made = await only(api)
    await change(api, made["id"], snoozedUntil=soon())
    out = {"direction": Direction.OUTBOUND, "from_": "1001", "to": "15551234567", "to_e164": "+15551234567"}
    await writer.write([ringing("out", **out)])
    assert (await only(api))["status"] == "SNOOZED"
    await writer.write([ringing(B)])
    woken = await only(api)
    assert (woken["status"], woken["snoozedUntil"]) == ("OPEN", None)
    assert [type_ for type_, _ in await desk.events()].count("conversation.woken") == 1


async def test_a_snoozed_one_comes_back_in_time_whoever_of_several_looks(api: Served, desk: Desk) -> None:
    ids = [await add(desk, f"+1555{n}", snoozed_until=datetime.now(UTC) - timedelta(seconds=n)) for n in range(5)]
    later = await add(desk, "+1999", snoozed_until=datetime.now(UTC) + timedelta(hours=1))
    counts = await asyncio.gather(*(Waker(desk.pool).sweep() for _ in range(3)))
    assert sum(counts) == 5
    told = await desk.events()
    assert sorted(data["conversation"]["id"] for _, data in told) == sorted(map(str, ids))
    assert {(type_, data["conversation"]["status"]) for type_, data in told} == {("conversation.woken", "OPEN")}
    assert (await ask(api, "GET", f"{PATH}/{later}"))[1]["status"] == "SNOOZED"


async def test_a_closed_one_is_not_reopened_beside_an_open_one(api: Served, desk: Desk, writer: CallWriter) -> None:
    await writer.write([ringing(A)])
    first = await only(api)
    await change(api, first["id"], status="CLOSED")
    await writer.write([ringing(B)])
    assert (await only(api, "?status=OPEN"))["id"] != first["id"]
    before = await desk.events()
    status, problem = await ask(api, "PATCH", f"{PATH}/{first['id']}", {"status": "OPEN", "contactName": "X"})
    assert (status, problem["code"]) == (409, "conversation_open_already")
    assert await desk.events() == before
    assert (await ask(api, "GET", f"{PATH}/{first['id']}"))[1]["contactName"] == "Jane"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"assignedUserId": str(uuid4())}, 422, "bad_body"),
        ({"assignedUserId": "me"}, 422, "bad_body"),
        ({"leadId": str(uuid4())}, 422, "bad_body"),
        ({"snoozedUntil": "2020-01-01T00:00:00Z"}, 422, "bad_body"),
        ({"snoozedUntil": "2999-01-01T00:00:00Z"}, 422, "bad_body"),
        ({"snoozedUntil": "2027-01-01T00:00:00"}, 422, "bad_body"),
        ({"status": "SNOOZED"}, 422, "bad_body"),
        ({"status": None}, 422, "bad_body"),
        ({"unreadCount": 1}, 422, "bad_body"),
        ({"contactName": "a\nb"}, 422, "bad_body"),
        ({"contactName": ""}, 422, "bad_body"),
        ({"contact": "+1"}, 422, "bad_body"),
        ({"status": "CLOSED", "snoozedUntil": "SOON"}, 409, "conversation_closed"),
    ],
)
async def test_what_cannot_be_is_refused(api: Served, desk: Desk, body: dict[str, Any], status: int, code: str) -> None:
    id_ = await add(desk, "+1555")
    before = (await ask(api, "GET", f"{PATH}/{id_}"))[1]
    asked = {name: soon() if value == "SOON" else value for name, value in body.items()}
    found, problem = await ask(api, "PATCH", f"{PATH}/{id_}", asked)
    assert (found, problem["code"]) == (status, code)
    assert (await ask(api, "GET", f"{PATH}/{id_}"))[1] == before
    assert await desk.events() == []


async def test_messages_are_read_when_somebody_says_so(api: Served, desk: Desk) -> None:
    id_ = await add(desk, "+1555", channel="whatsapp", unread_count=1)
    await desk.pool.execute(
        "INSERT INTO message (account_id, conversation_id, direction, status, content) VALUES"
        " ($1, $2, 'inbound', 'delivered', 'hello'), ($1, $2, 'outbound', 'sent', 'hi')",
        desk.account_id,
        id_,
    )
    path = f"{PATH}/{id_}"

    async def read() -> list[tuple[str, str, bool]]:
        page = (await ask(api, "GET", f"{path}/messages"))[1]
        return sorted((one["direction"], one["status"], one["readAt"] is not None) for one in page["items"])

    unread = [("INBOUND", "DELIVERED", False), ("OUTBOUND", "SENT", False)]
    assert await read() == unread
    await change(api, str(id_), contactName="Ada")
    assert await read() == unread
    await change(api, str(id_), unreadCount=0)
    assert await read() == [("INBOUND", "READ", True), ("OUTBOUND", "SENT", False)]


async def test_users_and_leads_of_another_account_are_nobody(api: Served, desk: Desk) -> None:
    id_ = await add(desk, "+1555")
    other = await desk.pool.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
    user = await add_user(desk.pool, other, "AGENT")
    disabled = await add_user(desk.pool, desk.account_id, "AGENT", disabled_at=datetime.now(UTC))
    lead = await desk.pool.fetchval("INSERT INTO lead (account_id) VALUES ($1) RETURNING id", other)
    for body in ({"assignedUserId": str(user)}, {"assignedUserId": str(disabled)}, {"leadId": str(lead)}):
        assert (await ask(api, "PATCH", f"{PATH}/{id_}", body))[1]["code"] == "bad_body"


async def test_who_changes_what_somebody_has_changed_is_told(api: Served, desk: Desk) -> None:
    id_ = await add(desk, "+1555")
    response, _ = await api.raw(f"{PATH}/{id_}")
    etag = {"If-Match": response.headers["ETag"]}
    await desk.pool.execute("UPDATE conversation SET last_at = now(), unread_count = 7")  # a call came in
    assert (await ask(api, "PATCH", f"{PATH}/{id_}", {"contactName": "A"}, headers=etag))[0] == 200
    status, problem = await ask(api, "PATCH", f"{PATH}/{id_}", {"contactName": "B"}, headers=etag)
    assert (status, problem["code"]) == (412, "precondition_failed")
    assert (await only(api))["contactName"] == "A"


async def test_the_list_is_narrowed_and_paged(serve: Serve, desk: Desk) -> None:
    api = await serve(keys=["a-key-of-the-test"], secret=SECRET)
    key = bearer("a-key-of-the-test")
    user = await add_user(desk.pool, desk.account_id, "AGENT")
    token = bearer(await log_in(desk.pool, desk.account_id, user))
    at = datetime.now(UTC)
    ids = {}
    for n, (name, columns) in enumerate(
        {
            "open": {},
            "mine": {"assigned_user_id": user, "unread_count": 1},
            "asleep": {"snoozed_until": at + timedelta(hours=1)},
            "closed": {"status": "closed"},
            "whatsapp": {"channel": "whatsapp", "unread_count": 2},
        }.items()
    ):
        ids[str(await add(desk, f"+1555{n}", last_at=at - timedelta(minutes=n // 2), **columns))] = name

    async def listed(query: str, headers: dict[str, str] = key) -> list[str]:
        walked, cursor = [], ""
        while True:
            status, page = await ask(api, "GET", f"{PATH}?limit=2{query}{cursor}", headers=headers)
            assert status == 200, page
            walked += [ids[item["id"]] for item in page["items"]]
            if page["nextCursor"] is None:
                return walked
            cursor = f"&cursor={page['nextCursor']}"

    everything = await listed("")
    assert sorted(everything) == sorted(ids.values())
    assert everything[4] == "whatsapp", "the newest activity is first"
    assert await listed("&sort=lastAt") == everything[::-1]
    assert set(await listed("&status=OPEN")) == {"open", "mine", "whatsapp"}
    assert await listed("&status=snoozed") == ["asleep"]
    assert set(await listed("&status=OPEN,SNOOZED")) == {"open", "mine", "whatsapp", "asleep"}
    assert set(await listed("&status=CLOSED,SNOOZED")) == {"closed", "asleep"}
    assert await listed("&channel=WHATSAPP") == ["whatsapp"]
    assert await listed("&channel=WHATSAPP,TELEGRAM&unread=1") == ["whatsapp"]
    assert await listed("&unread=1") == ["mine", "whatsapp"]
    assert await listed("&assignee=me", token) == ["mine"]
    assert await listed(f"&assignee={user}&unread=1&status=OPEN&channel=TELEPHONY") == ["mine"]
    assert set(await listed("&assignee=none")) == {"open", "asleep", "closed", "whatsapp"}
    assert await listed(f"&leadId={uuid4()}") == []
    assert (await ask(api, "GET", "/api/v1/inbox/unread", headers=token))[1] == {"all": 2, "mine": 1, "unassigned": 1}
    for query in ("assignee=me", "assignee=x", "status=GONE", "channel=FAX", "unread=0", "leadId=1", "sort=id"):
        assert (await ask(api, "GET", f"{PATH}?{query}", headers=key))[1]["code"] == "bad_parameter", query
    _, page = await ask(api, "GET", f"{PATH}?limit=1&status=OPEN", headers=key)
    status, problem = await ask(api, "GET", f"{PATH}?cursor={page['nextCursor']}&status=CLOSED", headers=key)
    assert (status, problem["code"]) == (400, "bad_cursor")


async def test_notes_and_calls_are_one_timeline(api: Served, desk: Desk, writer: CallWriter) -> None:
    await writer.write([ringing(A), ended(B)])
    conversation = await only(api)
    path = f"{PATH}/{conversation['id']}"
    one, two = await upload(api, ("a.png", PNG), ("b.txt", b"b"))
    await desk.pool.execute("UPDATE conversation SET last_at = now() - interval '1 day'")
    status, note = await ask(
        api, "POST", f"{path}/messages",
        {"content": "He sounded unhappy.", "mediaFileIds": [two["id"], one["id"]], "direction": "INTERNAL"},
    )  # fmt: skip
    assert status == 201
    assert note == {
        "id": note["id"], "conversationId": conversation["id"], "direction": "INTERNAL", "author": "loopback",
        "content": "He sounded unhappy.", "mediaFileIds": [two["id"], one["id"]], "status": "SENT", "externalId": None,
        "mediaFiles": [{**two, "messageId": note["id"]}, {**one, "messageId": note["id"]}],
        "sentAt": note["sentAt"], "deliveredAt": None, "readAt": None, "createdAt": note["createdAt"],
    }  # fmt: skip
    assert (await desk.events())[-1] == ("message.created", {"message": note})
    assert (await only(api))["lastAt"] > note["createdAt"][:10], "something happened in it"
    assert await ask(api, "GET", f"{path}/messages") == (200, {"items": [note], "nextCursor": None})
    walked, cursor = [], ""
    while True:
        _, page = await ask(api, "GET", f"{path}/timeline?limit=1{cursor}")
        walked += page["items"]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert [item["type"] for item in walked] == ["MESSAGE", "CALL", "CALL"]
    assert walked[0]["message"] == note
    assert {item["call"]["status"] for item in walked[1:]} >= {"RINGING"}
    assert walked[1]["call"]["from"] == "15551234567"
    assert (await ask(api, "DELETE", f"/api/v1/media-files/{one['id']}"))[0] == 204
    assert (await ask(api, "GET", f"{path}/messages"))[1]["items"][0]["mediaFileIds"] == [two["id"]]


async def test_a_message_that_nobody_would_send_is_refused_and_not_stored(api: Served, desk: Desk) -> None:
    for channel in ("telephony", "whatsapp", "telegram"):
        id_ = await add(desk, "+1555", channel=channel)
        status, problem = await ask(api, "POST", f"{PATH}/{id_}/messages", {"content": "hello"})
        assert (status, problem["code"], problem["channel"]) == (409, "channel_cannot_send", channel.upper())
    assert await desk.pool.fetchval("SELECT count(*) FROM message") == 0
    assert await desk.events() == []


async def test_a_file_is_one_messages_only(api: Served, serve: Serve, desk: Desk) -> None:
    id_ = await add(desk, "+1555")
    path = f"{PATH}/{id_}/messages"
    (file,) = await upload(api, ("a", PNG))
    await desk.pool.execute("INSERT INTO account (name) VALUES ('other')")
    (theirs,) = await upload(await serve(account="other"), ("a", PNG))
    note = {"direction": "INTERNAL", "mediaFileIds": [file["id"]]}
    answers = await asyncio.gather(*(ask(api, "POST", path, note) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [201, 422, 422, 422]
    for body in (
        note, {**note, "mediaFileIds": [theirs["id"]]}, {**note, "mediaFileIds": [str(uuid4())]},
        {"direction": "INTERNAL"}, {"direction": "INTERNAL", "content": "  "}, {"direction": "INBOUND", "content": "x"},
        {"direction": "INTERNAL", "content": "x", "mediaFileIds": [file["id"]] * 2},
        {"direction": "INTERNAL", "content": "x" * 10_001}, {"direction": "INTERNAL", "content": "a\x00b"},
    ):  # fmt: skip
        status, problem = await ask(api, "POST", path, body)
        assert (status, problem["code"]) == (422, "bad_body"), body
    assert await desk.pool.fetchval("SELECT count(*) FROM message") == 1


async def test_a_note_is_written_once_under_a_key(api: Served, desk: Desk) -> None:
    id_ = await add(desk, "+1555")
    note, headers = {"direction": "INTERNAL", "content": "once"}, {"Idempotency-Key": "k"}
    first = await ask(api, "POST", f"{PATH}/{id_}/messages", note, headers=headers)
    assert await ask(api, "POST", f"{PATH}/{id_}/messages", note, headers=headers) == first
    assert [type_ for type_, _ in await desk.events()] == ["message.created"]


async def test_anothers_conversation_is_as_one_that_is_not(serve: Serve, desk: Desk) -> None:
    id_ = await add(desk, "+1555")
    await desk.pool.execute("INSERT INTO account (name) VALUES ('other')")
    other = await serve(account="other")
    note = {"direction": "INTERNAL", "content": "x"}
    for method, path, body in (
        ("GET", "", None), ("PATCH", "", {"status": "CLOSED"}), ("GET", "/timeline", None), ("GET", "/messages", None),
        ("POST", "/messages", note),
    ):  # fmt: skip
        answers = [
            await ask(other, method, f"{PATH}/{one}{path}", body, headers={"X-Request-ID": "same"})
            for one in (id_, uuid4(), "1")
        ]
        assert answers == [answers[0]] * 3
        assert (answers[0][0], answers[0][1]["code"]) == (404, "conversation_not_found")
    assert (await ask(other, "GET", PATH))[1]["items"] == []
