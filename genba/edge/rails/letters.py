"""Text as the letters and digits that a reader sees, whatever it was dressed up as."""

import unicodedata
from functools import lru_cache
from typing import Final

#: Letters that look like Latin ones (after Unicode TS 39, those of its table that matter here).
_ALIKE: Final = str.maketrans(
    "АВСЕНІЈКМОРЅТХУаԁеһсіјкмоԛрѕԝхуѵΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγεηικνορτυχ",
    "abcehijkmopstxyadehcijkmoqpswxyvabezhikmnoptyxayenikvoptyx",
)
_SMALL_CAPITALS: Final = str.maketrans("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz")
#: First code points of alphabets that have no decomposition: circled, boxed, flags.
_ALPHABETS: Final = (0x1F150, 0x1F170, 0x1F1E6)
_LETTERS: Final = 26
_TAGS: Final = range(0xE0020, 0xE007F)  # invisible copies of ASCII


@lru_cache(maxsize=16_384)
def fold(character: str) -> str:
    """Return the letters and digits of one character; "" for everything else.

    Example:
        >>> [fold(c) for c in "Äк１ - ﬁ"]
        ['a', 'k', '1', '', '', '', 'fi']
    """
    point = ord(character)
    if point in _TAGS:
        return fold(chr(point - 0xE0000))
    for first in _ALPHABETS:
        if first <= point < first + _LETTERS:
            return chr(ord("a") + point - first)
    plain = unicodedata.normalize("NFKD", character).translate(_ALIKE).translate(_SMALL_CAPITALS)
    return "".join(c for c in plain.casefold() if c.isalnum())


def letters(text: str) -> str:
    """Return the letters and digits of a text, nothing between them.

    Example:
        >>> letters("P a s s-W o r d!")
        'password'
    """
    return "".join(map(fold, text))


def plain(text: str) -> str:
    """Return a text with its compatibility forms, look-alikes and invisible characters undone.

    Spaces and punctuation stay, so it can still be read.

    Example:
        >>> plain("Ｉｇｎоｒe\u200b this")
        'ignore this'
    """
    return "".join(_plain(c) for c in text)


@lru_cache(maxsize=16_384)
def _plain(character: str) -> str:
    if character.isascii():
        return character.lower() if character.isprintable() else " "
    kind = unicodedata.category(character)
    if kind in ("Cf", "Cc", "Co", "Cn", "Mn") and ord(character) not in _TAGS:
        return ""  # nothing that is seen
    if kind[0] in "LN" and not _japanese(character):
        return fold(character)
    return unicodedata.normalize("NFKC", character).lower()


def _japanese(character: str) -> bool:
    """Whether a decomposition would take the marks from kana (が is not か)."""
    return "\u3040" <= character <= "\u30ff" or "\uff66" <= character <= "\uff9f"
