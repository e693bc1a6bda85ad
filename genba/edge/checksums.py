"""Check digits: how a number that means something is told from any other."""

from typing import Final

#: Length of an IBAN by country (SWIFT IBAN registry, release 99).
_IBAN_LENGTHS: Final = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FO", "FI", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "XK", "LT", "LU", "MN"), 20),
    **dict.fromkeys(("HR", "LV", "LI", "CH"), 21),
    **dict.fromkeys(("BH", "BG", "CR", "GE", "DE", "IE", "ME", "RS", "GB", "VA"), 22),
    **dict.fromkeys(("TL", "GI", "IQ", "IL", "OM", "SO", "AE"), 23),
    **dict.fromkeys(("AD", "CZ", "MD", "PK", "RO", "SA", "SK", "ES", "SE", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MR", "MC", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "SV", "GT", "HU", "LB", "NI", "PL"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}
#: Issuers of cards: first and last prefix (ISO/IEC 7812-1), and how many digits a card has.
_CARDS: Final = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", (14,)),
    ("36", "36", (14,)),
    ("38", "39", (14,)),
    ("6011", "6011", (16, 19)),
    ("644", "659", (16, 19)),
    ("3528", "3589", (16, 19)),
    ("62", "62", (16, 17, 18, 19)),
    ("1800", "1800", (15,)),
    ("2131", "2131", (15,)),
    *((p, p, tuple(range(12, 20))) for p in ("5018", "5020", "5038", "5893", "6304", "6759")),
    ("6761", "6763", tuple(range(12, 20))),
)


def luhn(digits: str) -> bool:
    """Say whether the last digit is right by Luhn's formula (ISO/IEC 7812-1, annex B).

    Example:
        >>> luhn("4111111111111111"), luhn("4111111111111112")
        (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """Say whether digits are the number of a payment card: issuer, length and check digit."""
    for first, last, lengths in _CARDS:
        if len(digits) in lengths and first <= digits[: len(first)] <= last:
            return luhn(digits) and len(set(digits)) > 1
    return False


def is_iban(text: str) -> bool:
    """Say whether letters and digits are an IBAN: country, length, remainder 1 by 97 (ISO 13616).

    Example:
        >>> is_iban("GB82WEST12345698765432"), is_iban("GB82WEST12345698765433")
        (True, False)
    """
    if len(text) != _IBAN_LENGTHS.get(text[:2]):
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def is_my_number(digits: str) -> bool:
    """Say whether 12 digits are an individual number of Japan.

    Check digit as in the ministerial ordinance on My Number (2014, number 85, article 5): weights
    2 to 7 and again 2 to 6 from the right, by 11.

    Example:
        >>> is_my_number("123456789018"), is_my_number("123456789012")
        (True, False)
    """
    if len(digits) != 12 or len(set(digits)) == 1:
        return False
    total = sum(int(d) * (2 + at % 6) for at, d in enumerate(reversed(digits[:-1])))
    rest = total % 11
    return int(digits[-1]) == (0 if rest <= 1 else 11 - rest)


def is_corporate_number(digits: str) -> bool:
    """Say whether 13 digits are a corporate number of Japan.

    Check digit as in the ordinance on corporate numbers (Ministry of Finance, 2014, number 70,
    article 2): weights 1 and 2 in turn from the right, by 9; the check digit comes first.

    Example:
        >>> is_corporate_number("7000012050002"), is_corporate_number("1000012050002")
        (True, False)
    """
    if len(digits) != 13:
        return False
    total = sum(int(d) * (1 + at % 2) for at, d in enumerate(reversed(digits[1:])))
    return int(digits[0]) == 9 - total % 9
