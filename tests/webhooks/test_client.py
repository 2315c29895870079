"""Receivers that mean no good, and certificates that are none: each is an answer, in time, and little is read."""

import asyncio
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from hooks import HERE, House
from receiver import Receiver, answer, close, drip, drip_head, garbage, gigantic, hang

from trunkline.crm.webhooks.client import KEPT, WebhookClient
from trunkline.crm.webhooks.destination import Destinations
from trunkline.crm.webhooks.message import headers_of, new_secret

pytestmark = pytest.mark.asyncio

SHORT_S = 0.5


async def post(receiver: Receiver, url: str | None = None, client: WebhookClient | None = None, **options: float):
    return await (client or WebhookClient(HERE)).post(url or receiver.url, b"{}", {"webhook-id": "evt_1"}, **options)


async def test_what_a_receiver_says_is_told(receiver: Receiver) -> None:
    receiver.behaves = answer(202, b"thanks\x00\x1b[2J\xff")
    said = await post(receiver)
    assert (said.status, said.error, said.delivered) == (202, None, True)
    assert said.beginning == "thanks\ufffd\ufffd[2J\ufffd"
    receiver.behaves = answer(500, "ü".encode() * 5000)
    said = await post(receiver)
    assert (said.status, said.error, said.delivered) == (500, "it answered 500", False)
    assert said.beginning == "ü" * KEPT


@pytest.mark.parametrize("behaves", [hang, drip, drip_head], ids=["hang", "drip", "drip_head"])
async def test_who_takes_for_ever_is_left(receiver: Receiver, behaves) -> None:
    receiver.behaves = behaves
    said = await post(receiver, deadline_s=SHORT_S)
    assert (said.delivered, said.error) == (False, f"no whole answer within {SHORT_S:g} s")


@pytest.mark.parametrize(
    ("behaves", "error"),
    [
        (close, "it closed the connection before it had answered"),
        (garbage, "its answer is no HTTP"),
        (answer(200, b"short", Content_Length="500"), "its answer broke off"),
        (answer(204, Content_Length="-1"), "its answer is no HTTP"),
        (answer(200, X="y" * 100_000), "its answer is no HTTP"),
    ],
    ids=["close", "garbage", "short", "length", "header"],
)
async def test_who_breaks_off_or_speaks_no_http_has_not_taken_it(receiver: Receiver, behaves, error: str) -> None:
    receiver.behaves = behaves
    said = await post(receiver)
    assert (said.delivered, said.error) == (False, error)


async def test_of_a_gigantic_answer_little_is_read(receiver: Receiver) -> None:
    receiver.behaves = gigantic(receiver)
    said = await post(receiver)
    assert said.delivered
    await receiver.close()
    assert receiver.sent < 16 << 20  # what the kernel's buffers took; the answer would be 1 TB


async def test_a_redirect_is_not_followed(house: House, receiver: Receiver) -> None:
    inside = await house.receiver()
    for status in (301, 302, 303, 307, 308):
        receiver.behaves = answer(status, Location=inside.url)
        said = await post(receiver)
        assert (said.delivered, said.error) == (False, f"it answered {status}, which is not followed")
    assert inside.connections == 0


async def test_a_compressed_answer_is_not_unpacked(receiver: Receiver) -> None:
    receiver.behaves = answer(200, b"\x1f\x8b\x08\x00garbage", Content_Encoding="gzip")
    said = await post(receiver)
    assert said.delivered
    assert receiver.received[0].headers["accept-encoding"] == "identity"


async def test_no_proxy_of_the_environment_is_asked(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await house.receiver()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert (await post(receiver)).delivered
    assert proxy.connections == 0


async def test_nobody_there(receiver: Receiver) -> None:
    await receiver.close()
    said = await post(receiver, receiver.url)
    assert not said.delivered
    assert said.error is not None
    assert "cannot be connected to" in said.error
    assert "secret" not in said.error


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of hooks.example.com that nobody signed but itself, and its key."""
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hooks.example.com",
         "-addext", "subjectAltName=DNS:hooks.example.com", "-out", paths[0], "-keyout", paths[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


@pytest_asyncio.fixture
async def secure(house: House, certificate: tuple[Path, Path]) -> Receiver:
    receiver = Receiver()
    receiver.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    receiver.tls.load_cert_chain(*certificate)
    receiver.tls.sni_callback = lambda socket, name, context: receiver.names.append(name)
    house.receivers.append(receiver)
    return await receiver.start()


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


async def test_tls_is_checked_by_the_name_of_the_url(secure: Receiver, certificate: tuple[Path, Path]) -> None:
    named = Destinations(networks=HERE.networks, resolve=loopback)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    url = f"https://hooks.example.com:{secure.port}/x"
    said = await post(secure, url, WebhookClient(named, tls=trusting))
    assert said.delivered, said
    assert secure.names == ["hooks.example.com"]
    assert secure.received[0].headers["host"] == f"hooks.example.com:{secure.port}"
    for wrong in (
        await post(secure, url, WebhookClient(named)),
        await post(secure, f"https://other.example.com:{secure.port}/x", WebhookClient(named, tls=trusting)),
    ):
        assert not wrong.delivered
        assert wrong.error is not None
        assert wrong.error.startswith("its certificate is not good: ")
    assert len(secure.received) == 1


async def test_https_to_a_server_without_tls(receiver: Receiver) -> None:
    said = await post(receiver, receiver.url.replace("http:", "https:"), deadline_s=SHORT_S)
    assert not said.delivered
    assert receiver.received == []


async def test_headers_are_those_of_the_library() -> None:
    secrets = [new_secret(), new_secret()]
    made = headers_of("evt_1", b'{"a":"\xc3\xbc"}', secrets, datetime(2026, 1, 2, 3, 4, 5, 678, UTC))
    assert made["webhook-timestamp"] == "1767323045"
    assert [one.partition(",")[0] for one in made["webhook-signature"].split(" ")] == ["v1", "v1"]
    assert len({*secrets}) == 2


async def test_many_at_once_do_not_wait_for_each_other(house: House, receiver: Receiver) -> None:
    hanging = await house.receiver()
    hanging.behaves = hang
    waiting = [asyncio.create_task(post(hanging)) for _ in range(50)]
    await hanging.got(50)
    assert (await post(receiver)).delivered
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
