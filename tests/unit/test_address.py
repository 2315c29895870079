"""Whose request it is: a proxy that is trusted is believed, and nobody else, whatever he writes."""

from ipaddress import ip_network

import pytest

from trunkline.api.address import client_address, counted_as

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PROXY, CLIENT = "10.0.0.1", "198.51.100.7"


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        (PROXY, ["198.51.100.7"], CLIENT),
        (PROXY, ["198.51.100.7, 10.0.0.2"], CLIENT),  # two proxies behind each other
        (PROXY, ["198.51.100.7", "10.0.0.2"], CLIENT),  # who each wrote a header of his own
        (PROXY, ["1.1.1.1, 198.51.100.7"], CLIENT),  # what the client wrote himself stands at the left
        (PROXY, ["10.9.9.9, 198.51.100.7"], CLIENT),
        (PROXY, ["127.0.0.1, 198.51.100.7"], CLIENT),
        (PROXY, ["198.51.100.7:4711"], CLIENT),
        (PROXY, ["[2001:db8::7]:4711"], "2001:db8::7"),
        (PROXY, ["2001:DB8:0:0::7"], "2001:db8::7"),
        (PROXY, ["::ffff:198.51.100.7"], CLIENT),
        ("::ffff:10.0.0.1", ["198.51.100.7"], CLIENT),
        ("fd00::1", ["198.51.100.7"], CLIENT),
        (PROXY, [], PROXY),
        (PROXY, ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),  # all of it ours
        # Nobody trusts the peer, whatever it says.
        (CLIENT, ["1.1.1.1"], CLIENT),
        (CLIENT, ["10.0.0.1"], CLIENT),
        (None, ["1.1.1.1"], None),
        ("/run/socket", ["1.1.1.1"], "/run/socket"),
        # No address: it is the last one's that was said to be one.
        (PROXY, ["unknown"], PROXY),
        (PROXY, ["1.1.1.1, _hidden"], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, [","], PROXY),
        (PROXY, ["198.51.100.7, "], PROXY),
        (PROXY, ["1.1.1.1\n2.2.2.2"], PROXY),
        (PROXY, ["<script>"], PROXY),
        (PROXY, ["0x7f000001"], PROXY),
        (PROXY, ["127.1"], PROXY),
        (PROXY, ["1" * 5000], PROXY),
        (PROXY, ["１.１.１.１"], PROXY),
        (PROXY, ["9.9.9.9," * 5000 + " 198.51.100.7"], CLIENT),
        (PROXY, ["9.9.9.9, " + "10.0.0.2," * 40 + "10.0.0.3"], "10.0.0.2"),  # more proxies than there are
    ],
)
def test_the_client_is_the_first_stranger_from_the_right(peer: str | None, forwarded: list[str], found: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == found


def test_without_trusted_proxies_the_header_says_nothing() -> None:
    assert client_address(PROXY, ["198.51.100.7"], ()) == PROXY


def test_whoever_has_a_network_counts_as_one() -> None:
    assert counted_as("2001:db8:1:2:aaaa::1") == counted_as("2001:db8:1:2:bbbb::9") == "2001:db8:1:2::/64"
    assert counted_as("2001:db8:1:3::1") != counted_as("2001:db8:1:2::1")
    assert counted_as("198.51.100.7") == "198.51.100.7"
    assert counted_as("::ffff:198.51.100.7") == "198.51.100.7"
    assert counted_as(None) == ""
