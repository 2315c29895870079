"""Where may be called by command: what nobody named is refused, and what costs more than a call."""

import pytest

from trunkline.identity.destinations import Destination, DestinationRefused, Destinations

BRITISH = Destinations(["GB", "+1202"], ["+4420794"], region="GB")


@pytest.mark.parametrize("to", ["1001", "10", "123456"])
def test_an_extension_is_no_call_to_the_outside(to: str) -> None:
    assert Destinations().check(to) == Destination(to, False)


@pytest.mark.parametrize(
    "to", ["+442071234567", "020 7123 4567", "(020) 7123-4567", "0044 20 7123 4567", "+44 (20) 7123.4567"]
)
def test_a_number_is_dialled_in_e164_however_it_is_written(to: str) -> None:
    assert BRITISH.check(to) == Destination("+442071234567", True)


def test_what_begins_as_a_rule_says_may_be_called() -> None:
    assert BRITISH.check("+12025550123") == Destination("+12025550123", True)


def test_nothing_outside_may_be_called_until_somebody_says_what() -> None:
    with pytest.raises(DestinationRefused, match=r"set commands\.destinations"):
        Destinations(region="GB").check("02071234567")


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("+33142685300", "commands.destinations does not"),  # another country
        ("+442079460000", "commands.denied"),
        ("+449098790000", "costs more"),  # premium
        ("+448719990000", "costs more"),  # shared cost
        ("+447012345678", "costs more"),  # personal numbers, that forward to wherever they are paid for
        ("+18765550123", "commands.destinations does not"),  # Jamaica is +1 too
        ("0", "no telephone number"),
        ("1234567890123456789012345678901234567890", "longer"),
        ("+44", "no telephone number"),
        ("+", "neither"),
        ("", "neither"),
        ("1001@trunk", "neither"),
        ("+442071234567,1", "neither"),
        ("+44207123\r\nAction: x", "neither"),
        ("٠٢٠٧١٢٣٤٥٦٧", "neither"),  # digits, but no telephone's
        ("+442071234567;ext=1", "neither"),
        ("tel:+442071234567", "neither"),
        ("+4420712345671234567", "no telephone number"),
    ],
)
def test_what_is_refused_and_why(to: str, why: str) -> None:
    with pytest.raises(DestinationRefused, match=why) as refused:
        BRITISH.check(to)
    assert to == "" or len(to) < 3 or to not in str(refused.value)  # the text may be logged


def test_a_country_is_not_the_code_that_it_shares() -> None:
    american = Destinations(["US"])
    assert american.check("+12124567890").outside
    with pytest.raises(DestinationRefused):
        american.check("+18092345678")  # the Dominican Republic
    assert Destinations(["+1"]).check("+18092345678").outside  # who names +1 gets all of it


def test_a_satellite_costs_more_although_its_beginning_is_named() -> None:
    with pytest.raises(DestinationRefused, match="costs more"):
        Destinations(["+881"]).check("+881612345678")
    assert Destinations(["+881"], premium=True).check("+881612345678").outside


@pytest.mark.parametrize(
    ("rule", "to"), [("+44", "+44912345678"), ("+44", "+4498123456"), ("+1", "+17005551234"), ("+4491", "+44912345678")]
)
def test_what_is_in_no_known_range_may_cost_more_although_its_beginning_is_named(rule: str, to: str) -> None:
    with pytest.raises(DestinationRefused, match="no range of numbers that is known"):
        Destinations([rule]).check(to)
    assert Destinations([rule], premium=True).check(to) == Destination(to, True)


def test_without_a_region_only_e164_is_understood() -> None:
    with pytest.raises(DestinationRefused, match=r"E\.164"):
        Destinations(["GB"]).check("02071234567")
