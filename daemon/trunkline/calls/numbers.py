"""E.164 forms of the numbers that a PBX shows: what leads are matched by.

A trunk may hand over `+442070001001`, `00442070001001`, `02070001001` or bare `442070001001`, as its carrier likes;
an extension, a withheld number and an attempt at an injection have no E.164 form, and that is `None`, never an error.
"""

import re
from functools import lru_cache

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, ValidationResult

# Up to here digits alone are an extension, a feature code or a short code, in whatever region.
_EXTENSION_DIGITS = 6
# A country code with any national number that is not an extension.
_BARE_INTERNATIONAL_DIGITS = 10
_LONGEST_E164 = len("+") + 15
# 15 digits of E.164, an international prefix, and the punctuation people put between.
_LONGEST_TEXT = 32

_NUMBER = re.compile(r"\+?[0-9][0-9 ().\-/]*", re.ASCII)
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
_PUNCTUATION = str.maketrans("", "", " ().-/")


def e164(number: str, region: str | None) -> str | None:
    """The E.164 form of a number as the PBX saw it; None for extensions, anonymous and what is no number.

    `region` is the ISO 3166 country of the trunk ("GB"): its national format and its international prefix (00, 011)
    are understood. Without one only a number with `+` has an E.164 form.
    """
    # Checked before the cache, so that a stranger's texts never fill it.
    if len(number) > _LONGEST_TEXT or _NUMBER.fullmatch(number) is None:
        return None
    return _e164(number.translate(_PUNCTUATION), region.upper() if region else None)


def e164_as_typed(text: str, region: str | None) -> str | None:
    """As `e164`, of a number as people write it: `tel:+44 (0)20 7000-1001`, with whatever spaces and dashes."""
    plain = " ".join(text.removeprefix("tel:").translate(_DASHES).split())
    if plain.startswith(("+", "00")):
        plain = plain.replace("(0)", "")  # the digit that is left out from abroad
    return e164(plain.replace("(", "").replace(")", ""), region)


@lru_cache(maxsize=16_384)
def _e164(digits: str, region: str | None) -> str | None:
    if digits.startswith("+"):
        return _formatted(_possible(digits, None))
    if region is None or len(digits) <= _EXTENSION_DIGITS:
        return None
    national = _possible(digits, region)
    if national is not None and phonenumbers.is_valid_number(national):
        return _formatted(national)
    # Carriers often leave the plus away. A number assigned somewhere beats one that merely has a possible length here.
    bare = None
    if len(digits) >= _BARE_INTERNATIONAL_DIGITS and not digits.startswith("0"):
        bare = _possible("+" + digits, None)
        if bare is not None and phonenumbers.is_valid_number(bare):
            return _formatted(bare)
    return _formatted(national) or _formatted(bare)


def _possible(digits: str, region: str | None) -> PhoneNumber | None:
    """The number when its country has such lengths; not only assigned ones, as new ranges come before the metadata."""
    try:
        number = phonenumbers.parse(digits, region)
    except NumberParseException:
        return None
    possible = phonenumbers.is_possible_number_with_reason(number) == ValidationResult.IS_POSSIBLE
    # More than one leading zero is nobody's number; Italy keeps one.
    return number if possible and (number.number_of_leading_zeros or 1) == 1 and number.national_number else None


def _formatted(number: PhoneNumber | None) -> str | None:
    if number is None:
        return None
    text = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return text if len(text) <= _LONGEST_E164 else None
