"""Where may be called by command: extensions always, the outside only where the settings name it.

What is not named is refused, and what costs more than a call is refused although it is named, unless that is allowed
too: a stolen API key must not become a telephone bill. A country is named by its ISO code, because the code that is
dialled for it may be shared: +1 is the United States, and also islands whose numbers cost dollars a minute.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberType

LONGEST: Final = 32  # characters, of what a client sends
_EXTENSION: Final = re.compile(r"[0-9]{2,6}", re.ASCII)
_NUMBER: Final = re.compile(r"\+?\(?[0-9][0-9 ().\-/]{0,30}", re.ASCII)
_PUNCTUATION: Final = str.maketrans("", "", " ().-/")
RULE: Final = re.compile(r"[A-Z]{2}|\+[1-9][0-9]{0,14}", re.ASCII)
_DEAR: Final = frozenset(
    {PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.PERSONAL_NUMBER, PhoneNumberType.UAN}
)
_UNKNOWN: Final = PhoneNumberType.UNKNOWN  # in no range that is known: nobody can say what it costs
_NO_COUNTRY: Final = "001"  # satellites, international networks


class Destination(NamedTuple):
    """Where a call may go: an extension, or a number in E.164."""

    number: str
    outside: bool


class DestinationRefused(Exception):
    """A call may not go there; the text says why and which setting says so, and holds no number."""


class Destinations:
    """The rules of an account. allowed, denied: ISO countries ("GB") or beginnings of E.164 numbers ("+4420")."""

    def __init__(
        self,
        allowed: Sequence[str] = (),
        denied: Sequence[str] = (),
        *,
        premium: bool = False,
        region: str | None = None,
    ) -> None:
        self._allowed = tuple(allowed)
        self._denied = tuple(denied)
        self._premium = premium
        self._region = region

    def check(self, to: str) -> Destination:
        """Where that leads, if it may be called. Raises DestinationRefused."""
        if len(to) > LONGEST:
            raise DestinationRefused(f"is longer than {LONGEST} characters")
        if _EXTENSION.fullmatch(to):
            return Destination(to, False)
        if not _NUMBER.fullmatch(to):
            raise DestinationRefused("is neither an extension (2 to 6 digits) nor a telephone number, best in E.164")
        if not to.startswith("+") and self._region is None:
            raise DestinationRefused(
                "is no number in E.164 (+442071234567), and no other is understood "
                "without account.region, or that of the PBXs"
            )
        try:
            number = phonenumbers.parse(to.translate(_PUNCTUATION), self._region)
        except NumberParseException:
            raise DestinationRefused("is no telephone number") from None
        if not phonenumbers.is_possible_number(number):
            raise DestinationRefused("is no telephone number: its country has none of this length")
        return self._outside(number)

    def _outside(self, number: phonenumbers.PhoneNumber) -> Destination:
        text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        country = phonenumbers.region_code_for_number(number) or ""  # "": of a country, but in no range that is known
        if not self._allowed:
            raise DestinationRefused(
                "leads outside, and no destination is allowed yet: "
                'set commands.destinations, such as ["GB", "+3531"], in the configuration'
            )
        if not any(_fits(rule, text, country) for rule in self._allowed):
            raise DestinationRefused("leads where commands.destinations does not; an admin can add the country to it")
        if any(_fits(rule, text, country) for rule in self._denied):
            raise DestinationRefused("leads where commands.denied forbids to call")
        kind = phonenumbers.number_type(number)
        if not self._premium and kind == _UNKNOWN:
            raise DestinationRefused(
                "is in no range of numbers that is known, so it may cost more than a call; "
                "commands.premium = true would allow it"
            )
        if not self._premium and (country == _NO_COUNTRY or kind in _DEAR):
            raise DestinationRefused(
                "is a number that costs more than a call (premium, shared cost, personal, satellite); "
                "commands.premium = true would allow those"
            )
        return Destination(text, True)


def _fits(rule: str, number: str, country: str) -> bool:
    return number.startswith(rule) if rule.startswith("+") else rule == country
