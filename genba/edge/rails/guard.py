"""What an answer must pass before it goes out, piece by piece; in doubt nothing more goes out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba.edge.assistant.seams import Block, Mask
from genba.edge.personal import Span, find
from genba.edge.rails.automaton import Beginnings, Substrings, starts_word
from genba.edge.rails.canary import Secret
from genba.edge.rails.leak import LeakWatch
from genba.edge.rails.letters import fold, letters
from genba.edge.rails.policy import Policy
from genba.edge.rails.schema import fits

#: Characters before a piece that may decide where personal data begin in it.
_CONTEXT: Final = 64
#: The longest personal datum: an e-mail address (RFC 5321) or a key.
_LONGEST: Final = 256
_BETWEEN: Final = frozenset(" \u3000\u00a0-()./‐‑–")
_IN_WORDS: Final = frozenset("._%+-@:")
_GROUP: Final = 4  # capitals in a row in a group of an IBAN


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What the guards of a package look for; made once for the same instructions."""

    policy: Policy
    secrets: Sequence[Secret]
    beats: Substrings | None
    never: Beginnings
    schema: Mapping[str, Any] | None = None


class Guard:
    """Lets one answer out.

    Args:
        watched: What to look for.
        known: Texts whose personal data may be repeated: what was asked, cited, instructed.

    Attributes:
        block: Why nothing more goes out; None while all is well.
        masks: What was replaced so far, by place in the answer as it was written.
    """

    def __init__(self, watched: Watched, known: Iterable[str] = ()) -> None:
        self._watched = watched
        self._known = [letters(text) for text in (*watched.policy.known, *known)]
        self._leak = LeakWatch(watched.secrets, watched.beats)
        self._begun = ""
        self._begun_at: list[int] = []
        self._sent = ""  # the newest of what is out, as context
        self._pending = ""
        self._first = 0  # place in the stream where the pending text begins
        self.block: Block | None = None
        self.masks: list[Mask] = []

    def take(self, text: str) -> str:
        """Read on; returns what may be sent now, "" while it must be held back."""
        return self._closed_in_doubt(text, last=False)

    def end(self) -> str:
        """Say that the answer is over; returns the rest of it, "" where it may not go out."""
        return self._closed_in_doubt("", last=True)

    def _closed_in_doubt(self, text: str, *, last: bool) -> str:
        if self.block:
            return ""
        try:
            return self._pass(text, last=last)
        except Exception as error:  # noqa: BLE001  # whatever broke, the answer stays in
            return self._close("error", f"A rail raised {type(error).__name__}.")

    def _pass(self, text: str, *, last: bool) -> str:
        self._leak.take(text)
        if last:
            self._leak.end()
        if self._leak.reason:
            return self._close("leak", self._leak.reason)
        if not self._phrases(text):
            return self._close("topic", "The answer says what the line never says.")
        self._pending += text
        if self._first + len(self._pending) > self._watched.policy.characters_out:
            return self._close("size", "The answer is longer than the line allows.")
        schema = self._watched.schema
        if schema is not None and last and not fits(self._pending, schema):
            return self._close("schema", "The answer is not the JSON that the line promises.")
        return self._release(self._free(last=last), last=last)

    def _close(self, rail: str, why: str) -> str:
        self._pending = ""
        self.block = Block(rail=rail, why=why)
        return ""

    def _phrases(self, text: str) -> bool:
        """Follow phrases that must not be completed; False once one is."""
        before = self._sent + self._pending
        whole, skip = before + text, self._first - len(self._sent)
        for n, character in enumerate(text, start=len(before)):
            for letter in fold(character):
                self._begun_at.append(skip + n)
                self._begun, ends = self._watched.never.step(self._begun, letter)
                if any(starts_word(whole, self._begun_at[-size] - skip) for size in ends):
                    return False
        keep = len(self._begun)
        self._begun_at = self._begun_at[-keep:] if keep else []
        return True

    def _free(self, *, last: bool) -> int:
        """Return how many of the pending characters may go out as far as words and secrets go."""
        if last:
            return len(self._pending)
        if self._watched.schema is not None:
            return 0
        places = [self._leak.safe - self._first, len(self._pending)]
        if self._begun_at:
            places.append(self._begun_at[0] - self._first)
        return max(0, min(places))

    def _release(self, free: int, *, last: bool) -> str:
        """Send what is free; personal data in it as the policy says."""
        if self._watched.policy.personal_out == "allow" or not free:
            return self._send(free, self._pending[:free])
        text = self._sent + self._pending
        skip = len(self._sent)
        free = free if last else max(0, min(free, unfinished(text) - skip))
        spans = [
            s for s in find(text) if s.end > skip and not self._is_known(text[s.start : s.end])
        ]
        for span in spans:
            if span.start - skip < free < span.end - skip:
                free = max(0, span.start - skip)
        due = [Span(s.kind, max(s.start, skip), s.end) for s in spans if s.end - skip <= free]
        if due and self._watched.policy.personal_out == "block":
            return self._close("personal", f"The answer holds personal data: {due[0].kind}.")
        for one in due:
            start, end = (self._first - skip + at for at in (one.start, one.end))
            self.masks.append(Mask(start=start, end=end, put=f"[{one.kind}]", rail="personal"))
        return self._send(free, masked(text[: skip + free], due)[skip:])

    def _send(self, free: int, out: str) -> str:
        gone = self._pending[:free]
        self._pending = self._pending[free:]
        self._first += free
        self._sent = (self._sent + gone)[-_CONTEXT:]
        return out

    def _is_known(self, value: str) -> bool:
        plain = letters(value)
        return any(plain in text for text in self._known)


def masked(text: str, spans: Sequence[Span]) -> str:
    """Return a text in which spans are replaced by what they are.

    Example:
        >>> masked("write to a@b.jp", [Span("email", 9, 15)])
        'write to [email]'
    """
    for span in sorted(spans, key=lambda s: s.start, reverse=True):
        text = f"{text[: span.start]}[{span.kind}]{text[span.end :]}"
    return text


def unfinished(text: str) -> int:
    """Return where the last stretch begins that may still become personal data.

    Example:
        >>> said = "Call us at 0836 33"
        >>> said[unfinished(said):]
        '0836 33'
        >>> unfinished("It is open. ")
        12
    """
    lowest = max(0, len(text) - _LONGEST)
    at = _word(text, len(text), lowest)
    while at > lowest:
        gap = _gap(text, at, lowest)
        start = _word(text, gap, lowest)
        word = text[start:gap]
        if start == gap or not (any(c.isdigit() for c in word) or _group(word)):
            break
        at = start
    return at


def _word(text: str, end: int, lowest: int) -> int:
    """Return where a word of the signs that addresses, numbers and keys are made of begins."""
    at = end
    while at > lowest and (_of_code(text[at - 1])):
        at -= 1
    return at


def _of_code(character: str) -> bool:
    plain = character.isascii() and character.isalnum()
    return plain or character.isdigit() or character in _IN_WORDS


def _gap(text: str, end: int, lowest: int) -> int:
    at = end
    while at > lowest and end - at < _GROUP and text[at - 1] in _BETWEEN:
        at -= 1
    return at


def _group(word: str) -> bool:
    return len(word) <= _GROUP and word.isupper()
