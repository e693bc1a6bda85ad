"""Personal data in texts, English and Japanese: found by patterns, confirmed by check digits.

A pattern alone takes order numbers for telephones and versions for addresses. So what has a check
digit must have the right one, what has none must be written as such things are written, and bare
digits need a word beside them that says what they are. Names and postal addresses have neither
form nor check digit and are not looked for.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from genba.edge.checksums import is_card, is_corporate_number, is_iban, is_my_number

#: What is looked for; where two claim the same letters, the first of these has them.
KINDS: Final = (*("key", "email", "iban", "card", "my_number", "corporate_number", "ip", "phone"),)

#: Wide forms of letters and digits, and the many dashes, as plain ones; lengths stay.
_PLAIN: Final = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | dict.fromkeys(
    (0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2015, 0x2212, 0x30FC, 0xFF70), 0x2D
) | dict.fromkeys((0x00A0, 0x202F, 0x2007, 0x3000), 0x20)  # fmt: skip
#: What every kind has: an @ or its spelling, four digits in a short stretch, or a telling word.
_SOME: Final = re.compile(
    r"@|[\[({]\s*at\s*[\])}]|\d[^\n\d]{0,3}\d[^\n\d]{0,3}\d[^\n\d]{0,3}\d|[0-9a-f]::?[0-9a-f]"
    r"|[_\-]key|secret|token|passw|pwd|bearer|private key|[ps]k[_\-]|gh[opsur]_|xox|akia|asia|aiza"
    r"|eyj|npm_|glpat|hf_|パスワ[ー-]ド",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text that is personal: `text[start:end]`."""

    kind: str  # of KINDS
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Rule:
    """A pattern, what must hold besides, and words that must, or must not, stand before it."""

    kind: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] | None = None
    near: re.Pattern[str] | None = None
    apart: re.Pattern[str] | None = None
    after: re.Pattern[str] | None = None  # behind it, in place of `near`


def _digits(check: Callable[[str], bool]) -> Callable[[str], bool]:
    def checked(text: str) -> bool:
        return check(re.sub(r"\D", "", text))

    return checked


def _iban(text: str) -> bool:
    return is_iban(re.sub(r"[ \-]", "", text).upper())


def _public(text: str) -> bool:
    """Say whether an address is somebody's; those of laboratories and examples are nobody's."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _mail(text: str) -> bool:
    return text.rpartition(".")[2].lower() not in _FILES


def _number(text: str) -> bool:
    """Say whether a number may be called: 7 to 15 digits (ITU-T E.164), not all the same."""
    digits = re.sub(r"\D", "", text)
    return 7 <= len(digits) <= 15 and len(set(digits)) > 2 and not _DATE.fullmatch(text)


def _secret(text: str) -> bool:
    """Say whether what is called a secret is one, and not a stand-in for it."""
    return len(set(text)) > 5 and not _STAND_IN.search(text) and bool(re.search(r"\d", text))


_FILES: Final = frozenset(("png", "jpg", "jpeg", "gif", "svg", "webp", "py", "js", "css", "html"))
_STAND_IN: Final = re.compile(
    r"your|example|changeme|placeholder|xxx|\*\*\*|\.\.\.|<|>|\{|\}|\$|\(|environ|getenv", re.I
)
_DATE: Final = re.compile(
    r"(?:19|20)\d\d([-. /]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0[1-9]|[12]\d|3[01])([-. /])(?:0[1-9]|[12]\d|3[01])\2(?:19|20)\d\d"
    r"|(?:19|20)\d\d[- ](?:19|20)\d\d",
    re.ASCII,
)
_BEHIND: Final = 30  # characters
_BEFORE: Final = 40  # characters in which a telling word must stand
_TELL: Final = re.compile(  # and nothing between it and the number but what is usual there
    r"(?:phones?|\b(?:my|our) number|\btel|mobile|\bcell|\bcall|\bring|\bfax|whatsapp|\bsms|\btext"
    r"|\bdial|\breach|電話|携帯|ファックス|連絡先|お問い?合わせ)"
    r"(?:[\W\d_]|\b(?:me|us|him|her|them|at|on|under|is|was|no|nr|num|number|my|our|the|are|now|to"
    r"|please|or|and|via|by|ext|home|work|desk|office|line|them|back)\b|番号|先|は|を|へ|に|が|の|で|す)*$",
    re.IGNORECASE,
)
_TOLD: Final = re.compile(
    r"\W{0,3}(?:is|was|works as)?\W{0,2}(?:my|our|her|his|their|the)?\W?(?:\w+ )?"
    r"(?:phone|mobile|cell|tel\b|telephone|fax)|\W{0,3}(?:が|は)?(?:私の)?(?:電話|携帯)",
    re.IGNORECASE,
)
_MINE: Final = re.compile(r"my ?number|individual number|マイナンバ|個人番号", re.IGNORECASE)
_FIRM: Final = re.compile(
    r"corporate number|法人番号|登録番号|invoice registration|インボイス", re.IGNORECASE
)
_VERSION: Final = re.compile(
    r"(?:version|バ-ジョン|release|firmware|section|clause|chapter|build|\bv|\br|§)\W*$",
    re.IGNORECASE,
)
_NO: Final = r"(?<![\w.\-/@#$€£¥+])"  # nothing before that makes it a part of something else
_END: Final = r"(?: ?(?:x|ext\.? ?)\d{1,6})?(?![\w\-/]|\.\d|,\d{3})"  # with an extension


def _rule(
    kind: str, pattern: str, holds: Callable[[str], bool] | None = None, **words: re.Pattern[str]
) -> _Rule:
    """Return a rule; letters and digits in it are those of ASCII, so kanji may stand next to it."""
    return _Rule(kind, re.compile(pattern, re.ASCII), holds, **words)


_RULES: Final = (
    _rule(
        "key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----|[\s\S]*)"
        r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
        r"|\bgh[opsur]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{50,}"
        r"|\bAIza[0-9A-Za-z_\-]{35}"
        r"|\bxox[abeprs]-[0-9A-Za-z\-]{10,}"
        r"|\b[sr]k_(?:live|test)_[0-9A-Za-z]{16,}"
        r"|\bsk-(?:[a-z]+-){0,3}(?=[A-Za-z\-]*\d)[A-Za-z0-9_\-]{20,}"
        r"|\bSG\.[\w\-]{16,}\.[\w\-]{16,}"
        r"|\b(?:npm|hf)_[A-Za-z0-9]{30,}|\bglpat-[\w\-]{20,}"
        r"|\bgk_[0-9a-hjkmnp-tv-z]{8}_[A-Za-z0-9_\-]{43}"
        r"|\beyJ[\w\-]{10,}\.eyJ[\w\-]{10,}\.[\w\-]{10,}",
    ),
    _rule(
        "key",
        r"(?i)(?:(?:api|access|secret|private|auth)[_\- ]?(?:key|token)|client[_\- ]secret"
        r"|\bsecret|\btoken|password|passwd|\bpwd|パスワ[ー-]ド|\bbearer)"
        r"(?:['\"]?\s*(?:[:=]|\bis\b|は)\s*|\s+(?=[A-Za-z0-9_\-.]{20}))['\"]?"
        r"(?P<it>[!#-&(-+\--:<-~]{8,})",
        _secret,
    ),
    _rule(
        "email",
        r"(?<![\w.+\-])[A-Za-z0-9][\w.+\-']{0,63}(?:@|\s?[\[({]\s?at\s?[\])}]\s?)"
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?(?:\.|\s?[\[({]\s?dot\s?[\])}]\s?)){1,8}"
        r"[A-Za-z]{2,24}(?![A-Za-z0-9])",
        _mail,
    ),
    _rule(
        "iban",
        r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]{4}){2,7}(?:[ \-]?[A-Z0-9]{1,3})?"
        r"(?![A-Za-z0-9])",
        _iban,
    ),
    _rule("card", r"(?<![\d.])(?:\d[ \-]?){11,18}\d(?![\d\-]|\.\d)", _digits(is_card)),
    _rule("my_number", rf"{_NO}\d{{4}}([ \-])\d{{4}}\1\d{{4}}{_END}", _digits(is_my_number)),
    _rule("my_number", r"(?<![\d.])\d{12}(?![\d.])", _digits(is_my_number), near=_MINE),
    _rule("corporate_number", r"(?<![A-Za-z0-9])T\d{13}(?!\d)", _digits(is_corporate_number)),
    _rule(
        "corporate_number",
        r"(?<![\d.])\d(?:-?\d{4}){3}(?!\d)",
        _digits(is_corporate_number),
        near=_FIRM,
    ),
    _rule(
        "ip",
        r"(?<![\w.\-])(?:\d{1,3}\.){3}\d{1,3}(?![\w\-]|\.\d)"
        r"|(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}|:)"
        r"(?::[0-9A-Fa-f]{1,4}){0,6}(?![\w:])",
        _public,
        apart=_VERSION,
    ),
    # +81 90-1234-5678, +1 (555) 010-9999
    _rule(
        "phone",
        rf"(?<![\w.\-])(?:\+|00)\d{{1,3}}(?:[ .\-]?(?:\(\d{{1,4}}\)|\d{{1,4}})){{2,6}}{_END}",
        _number,
    ),
    # 03-1234-5678, 0120-123-456, (03) 1234-5678, 070-123 45 67, 020 7946 0958
    _rule(
        "phone",
        rf"{_NO}(?:\(0\d{{1,4}}\) ?|0\d{{1,4}}[ \-])\d{{1,4}}[ \-]\d{{2,4}}"
        rf"(?:[ \-]\d{{2,4}}){{0,3}}{_END}"
        rf"|{_NO}\(0\d{{1,4}}\) ?\d{{5,8}}{_END}|{_NO}0\d{{4}} \d{{6}}{_END}"
        rf"|{_NO}0\d{{1,4}}\(\d{{1,4}}\)\d{{4}}{_END}",
        _number,
    ),
    # (555) 010-9999, 555-010-9999, 555.010.9999
    _rule(
        "phone",
        rf"{_NO}(?:(?:1|001)[ .\-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.\-])\d{{3}}[ .\-]\d{{4}}{_END}",
        _number,
    ),
    _rule("phone", r"(?<![\d.\-])0[789]0\d{8}(?![\d\-])", _number),
    _rule("phone", r"(?<![\d.\-])\d{7,12}(?![\d\-])", _number, near=_TELL, after=_TOLD),
    _rule(
        "phone",
        r"(?<![\d.\-])\d{2,5}(?:[ \-]\d{2,8}){1,4}(?![\d\-])",
        _number,
        near=_TELL,
        after=_TOLD,
    ),
)


def find(text: str) -> list[Span]:
    """Return what is personal in a text, in order, none overlapping another.

    Example:
        >>> find("Mail ann@shop.co.jp or call 03-1234-5678.")
        [Span(kind='email', start=5, end=19), Span(kind='phone', start=28, end=40)]
        >>> find("Version 1.2.3.4 of 2026-01-31 costs 50,000-150,000 yen.")
        []
    """
    plain = text.translate(_PLAIN)
    if not _SOME.search(plain):
        return []
    found: list[Span] = []
    for rule in _RULES:
        for match in rule.pattern.finditer(plain):
            start, end = match.span("it") if "it" in rule.pattern.groupindex else match.span()
            if rule.holds is not None and not rule.holds(plain[start:end]):
                continue
            before = plain[max(0, start - _BEFORE) : start]
            if rule.near is not None and not rule.near.search(before):
                behind = plain[end : end + _BEHIND]
                if rule.after is None or not rule.after.match(behind):
                    continue
            if rule.apart is not None and rule.apart.search(before):
                continue
            if all(end <= other.start or start >= other.end for other in found):
                found.append(Span(rule.kind, start, end))
    return sorted(found, key=lambda span: span.start)


def mask(text: str) -> str:
    """Return a text with what is personal in it replaced by what it was.

    Example:
        >>> mask("My card is 4111 1111 1111 1111, my mail ann@example.org.")
        'My card is [card], my mail [email].'
    """
    return masked(text, find(text))


def masked(text: str, spans: list[Span]) -> str:
    """Return a text with spans replaced by their kinds; spans are in order."""
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], f"[{span.kind}]"]
        at = span.end
    return "".join([*parts, text[at:]])
