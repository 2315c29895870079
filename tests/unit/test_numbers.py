"""E.164 forms: what is a number, in whose format, and what is none."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.calls import numbers
from trunkline.calls.numbers import e164, e164_as_typed


@pytest.mark.parametrize(
    ("number", "region", "expected"),
    [
        ("+442070001001", None, "+442070001001"),
        ("+44 (20) 7000-1001", None, "+442070001001"),
        ("+15551234567", None, "+15551234567"),  # a range that is not assigned is still a number
        ("00442070001001", "GB", "+442070001001"),
        ("011442070001001", "US", "+442070001001"),
        ("02070001001", "GB", "+442070001001"),
        ("020 7000 1001", "gb", "+442070001001"),
        ("442070001001", "GB", "+442070001001"),  # a carrier without plus
        ("442070001001", "US", "+442070001001"),
        ("15551234567", "GB", "+15551234567"),
        ("15551234567", "US", "+15551234567"),
        ("2125551234", "US", "+12125551234"),
        ("030 901820", "DE", "+4930901820"),
        ("0612345678", "FR", "+33612345678"),
        ("+390669812345", None, "+390669812345"),  # Italy keeps its zero
    ],
)
def test_numbers_have_one_e164_form(number: str, region: str | None, expected: str) -> None:
    assert e164(number, region) == expected


@pytest.mark.parametrize("region", [None, "GB", "US", "DE"])
@pytest.mark.parametrize(
    "number",
    [
        "", "1001", "2000", "112", "999", "*8", "*97", "#1", "s", "h", "anonymous", "Anonymous", "<unknown>",
        "asterisk", "+", "++442070001001", "+44", "+1001", "+999123456789", "0", "000000000000000", "9" * 21,
        "sip:+442070001001@host", "1800FLOWERS", "+44207000100\r\nEvent: Hangup", "+442070001001\n",
        "+442070001001\x00", "٠٢٠٧٠٠٠١٠٠١", "４４２０７０００１００１", "+" + "4" * 5000, "\ud800",
        "+44 20 7000 1001 ext 5", "-1", "(020)", "unavailable",
    ],
)  # fmt: skip
def test_what_is_no_number_has_none(number: str, region: str | None) -> None:
    assert e164(number, region) is None


def test_without_a_region_only_plus_is_sure() -> None:
    assert e164("442070001001", None) is None
    assert e164("00442070001001", None) is None


def test_an_unknown_region_is_no_error() -> None:
    assert e164("02070001001", "XX") is None
    assert e164("+442070001001", "XX") == "+442070001001"


@given(
    st.text(max_size=40) | st.from_regex(r"\+?[0-9 ()./-]{0,33}", fullmatch=True),
    st.sampled_from([None, "GB", "US", "IT"]),
)
def test_any_text_gives_a_number_or_none_and_a_number_is_its_own_form(text: str, region: str | None) -> None:
    found = e164(text, region)
    assert found is None or re.fullmatch(r"\+[1-9][0-9]{1,14}", found)
    if found is not None:
        assert e164(found, region) == found


def test_strangers_cannot_fill_the_memory() -> None:
    numbers._e164.cache_clear()
    for n in range(1000):
        e164(f"forged-{n}", "GB")
        e164("+44" + str(n) * 40, "GB")
    assert numbers._e164.cache_info().currsize == 0
    assert numbers._e164.cache_info().maxsize is not None


@pytest.mark.parametrize(
    "text",
    [
        "+442070001001", "tel:+442070001001", "+44 (0)20 7000 1001", "(020) 7000-1001", "020\u20117000\u20131001",
        "020\u00a07000\u20091001", "00 44 (0)20 7000 1001", "0044 20 7000 1001", " 02070001001 ",
    ],
)  # fmt: skip
def test_as_people_write_it(text: str) -> None:
    assert e164_as_typed(text, "GB") == "+442070001001"


@pytest.mark.parametrize("text", ["", "(", "()", "1001", "tel:", "020 7000 1001 ext 5", "0x20", "(0)" * 20, "+" * 30])
def test_what_people_write_that_is_no_number(text: str) -> None:
    assert e164_as_typed(text, "GB") is None
