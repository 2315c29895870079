"""Where webhooks may lead: no address that is not public, however it is written, resolved or rebound."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hooks import HERE, LOOPBACK, House
from hypothesis import given
from hypothesis import strategies as st
from receiver import Receiver

from trunkline.crm.webhooks.client import WebhookClient
from trunkline.crm.webhooks.destination import Destinations, Refused

OPEN = Destinations()
INSIDE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.1",
    "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2001:db8::1",
    "3fff::1", "5f00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::7f00:1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:a9fe:a9fe::1",
    "2002:808:808::1", "2001::7f00:1", "2001:0:53aa:64c:0:ffff:80ff:fffe", "2001:10::1", "::ffff:0:127.0.0.1",
    "nonsense", "",
]  # fmt: skip
OUTSIDE = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_inside(address: str) -> None:
    assert not OPEN.permits(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_outside(address: str) -> None:
    assert OPEN.permits(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_no_more_public_in_another_dress(address: IPv4Address) -> None:
    permitted = OPEN.permits(str(address))
    assert not permitted or (address.is_global and not address.is_multicast)
    assert OPEN.permits(f"::ffff:{address}") == permitted
    assert OPEN.permits(f"64:ff9b::{address}") == permitted
    for dress in (f"::{address}", f"64:ff9b:1::{address}", str(IPv6Address((0x2002 << 112) | (int(address) << 80)))):
        assert not OPEN.permits(dress)


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_that_is_permitted_is_public(address: IPv6Address) -> None:
    if OPEN.permits(str(address)):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_private


def test_a_network_that_is_allowed_is_and_no_other() -> None:
    allowing = Destinations(networks=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")))
    assert allowing.permits("10.1.2.3")
    assert allowing.permits("::ffff:10.1.2.3")
    assert allowing.permits("fd12::1")
    assert not allowing.permits("10.2.0.1")
    assert not allowing.permits("127.0.0.1")
    assert not allowing.permits("::1")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://crm.example.com/x", "http is not encrypted"),
        ("ftp://crm.example.com/x", "no URL of a web server"),
        ("file:///etc/passwd", "no URL of a web server"),
        ("gopher://crm.example.com:80/x", "no URL of a web server"),
        ("https:///x", "no URL"),
        ("crm.example.com", "no URL"),
        ("//crm.example.com", "no URL"),
        ("", "no URL"),
        ("https://user:password@crm.example.com/x", "a user or a password"),
        ("https://user@crm.example.com/x", "a user or a password"),
        ("https://@crm.example.com/x", "a user or a password"),
        ("https://crm.example.com:22/x", "port 22"),
        ("https://crm.example.com:25/x", "port 25"),
        ("https://crm.example.com:0/x", "port 0"),
        ("https://crm.example.com:5060/x", "port 5060"),
        ("https://crm.example.com:70000/x", "no URL"),
        ("https://crm.example.com/x#y", "fragment"),
        ("https://crm.example.com/x y", "space"),
        ("https://crm.example.com/\r\nX: y", "space, a control character"),
        ("https://crm.example.com\\@10.0.0.1/", "backslash"),
        ("https://crm.example.com/" + "x" * 2048, "longer than 2048"),
        ("https://[::1", "no URL"),
    ],
)
def test_urls_that_are_refused_say_why(url: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        OPEN.parse(url)
    assert says in str(refused.value)


@pytest.mark.parametrize("port", [80, 443, 1024, 3000, 8000, 8443, 65535])
def test_ports_of_web_servers(port: int) -> None:
    assert OPEN.parse(f"https://crm.example.com:{port}/x").port == port


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "[::1]", "[::ffff:7f00:1]",
     "[64:ff9b::7f00:1]", "localhost", "LOCALHOST", "0", "169.254.169.254", "[fe80::1]", "127。0。0。1", "①②⑦.⓪.⓪.①"],
)  # fmt: skip
async def test_no_spelling_of_an_inside_host_is_reached(receiver: Receiver, host: str) -> None:
    said = await WebhookClient(Destinations(allow_http=True)).post(f"http://{host}:{receiver.port}/", b"{}", {})
    assert said.refused, said
    assert said.status is None
    assert receiver.connections == 0


def resolver(*answers: Sequence[str]):
    """A name server that says something else each time; the last for ever."""
    left, asked = list(answers), []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve, asked


@pytest.mark.asyncio
async def test_a_name_that_is_rebound_after_the_check_reaches_nothing(receiver: Receiver) -> None:
    resolve, asked = resolver(["93.184.216.34"], ["127.0.0.1"])
    rebound = Destinations(allow_http=True, resolve=resolve)
    url = f"http://rebind.example.com:{receiver.port}/"
    await rebound.check(url)
    said = await WebhookClient(rebound).post(url, b"{}", {})
    assert said.refused
    assert said.error == "rebind.example.com does not lead to a public address"
    assert (asked, receiver.connections) == (["rebind.example.com"] * 2, 0)


@pytest.mark.asyncio
async def test_the_connection_is_to_the_very_address_that_was_checked(receiver: Receiver) -> None:
    resolve, asked = resolver(["127.0.0.1"], ["127.0.0.9"])
    pinned = Destinations(allow_http=True, networks=(ip_network("127.0.0.1/32"),), resolve=resolve)
    client = WebhookClient(pinned)
    url = f"http://pinned.example.com:{receiver.port}/"
    assert (await client.post(url, b"{}", {})).delivered
    assert asked == ["pinned.example.com"]  # once: what was checked was used
    assert (await client.post(url, b"{}", {})).refused  # and asked again for the next
    assert receiver.connections == 1


@pytest.mark.asyncio
async def test_one_inside_address_among_public_ones_is_one_too_many(receiver: Receiver) -> None:
    for mixed in (["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], ["::1", "2606:4700::1"], []):
        resolve, _ = resolver(mixed)
        with pytest.raises(Refused):
            await Destinations(resolve=resolve).check("https://mixed.example.com/")


@pytest.mark.asyncio
async def test_the_socket_has_the_last_word(receiver: Receiver) -> None:
    """Were the check before it passed by, as by an address that needs no resolver, no connection would be made."""
    destinations = Destinations(allow_http=True)
    said = await WebhookClient(destinations).post(f"http://127.0.0.1:{receiver.port}/", b"{}", {})
    assert (said.refused, said.error) == (True, "it does not lead to a public address")
    assert receiver.connections == 0


@pytest.mark.asyncio
async def test_a_delivery_to_a_rebound_name_is_refused_and_tried_again(house: House, receiver: Receiver) -> None:
    resolve, _ = resolver(["127.0.0.2"], ["10.0.0.1"], ["127.0.0.1"])
    destinations = Destinations(allow_http=True, networks=LOOPBACK, resolve=resolve)
    url = f"http://rebind.example.com:{receiver.port}/"
    await destinations.check(url)
    webhook_id, _ = await house.webhook(url, "call.ended")
    async with house.running(house.service(destinations)) as service:
        await house.call()
        await house.until("it is refused", lambda: service.deliverer.outcomes["refused"] == 1)
        assert receiver.connections == 0
        await house.until_states(webhook_id, "pending")
        await house.due_now()
        await house.until_states(webhook_id, "delivered")
    (row,) = await house.deliveries(webhook_id)
    assert "10.0.0.1" not in str(row)


@pytest.mark.asyncio
async def test_a_name_server_that_hangs_is_not_waited_for() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    hanging = Destinations(allow_http=True, networks=HERE.networks, resolve=never)
    said = await WebhookClient(hanging).post("http://slow.example.com/", b"{}", {}, deadline_s=0.2)
    assert said.error == "no whole answer within 0.2 s"


@pytest.mark.asyncio
async def test_a_name_that_leads_nowhere_is_told() -> None:
    with pytest.raises(Refused, match="leads nowhere"):
        await OPEN.check("https://no-such-name.invalid/")
