"""One answer on its way: from the tokens that an engine writes to text that may be said."""

import codecs
import json
from collections.abc import Sequence
from typing import Any, Final, Protocol

from genba.core.protocols import Array
from genba.core.talk import Ask, Finish, Piece, Scored, Ticket, Vocabulary
from genba.serve.lanes.speech import Heard, Told, Wish, Written

_STOPPED: Final = "stop"


class Guard(Protocol):
    """Lets an answer pass as far as rails have seen it; see `genba.edge.assistant.Guard`."""

    block: Any

    def feed(self, text: str) -> str:
        """Take text and return what may be said now."""
        ...

    def finish(self) -> Any:
        """Return the end: `rest`, `answer`, `by`, `sources`, `block`."""
        ...


class Stops:
    """Finds the texts that end an answer; holds back what may be the beginning of one.

    Example:
        >>> stops = Stops(("END",))
        >>> stops.feed("one E"), stops.feed("N two"), stops.feed(" END three"), stops.found
        ('one ', 'EN two', ' ', True)
    """

    __slots__ = ("_held", "_texts", "found")

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Take text and return what comes before a stop for certain."""
        if not self._texts:
            return text
        if self.found:
            return ""
        text = self._held + text
        places = [at for stop in self._texts if (at := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = max(_overlap(text, stop) for stop in self._texts)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """Return what was held back: no stop came."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how much of the end of a text a stop could begin with."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)


class Voice:
    """One answer that is being written.

    Args:
        row: Which answer of its request.
        wish: What is wanted.
        vocabulary: Of the language model.
        guard: What the answer passes through; None where nothing stands around the model.
    """

    __slots__ = (
        "_decoder", "_guard", "_stops", "_vocabulary", "ask", "finish", "logs", "over", "prompt",
        "row", "said", "scored", "started", "ticket", "tokens", "wish", "written",
    )  # fmt: skip

    def __init__(
        self, row: int, wish: Wish, vocabulary: Vocabulary, guard: Guard | None = None
    ) -> None:
        self.row = row
        self.wish = wish
        self.ask: Ask | None = None
        self.ticket: Ticket | None = None
        self.started = 0.0
        self.finish: Finish = ""  # why it is over, once it is
        self.over = False  # whoever waited for it has been told
        self.prompt: Sequence[int] = ()
        self.scored: Scored | None = None
        self.tokens: list[Written] = []
        self.written = 0  # tokens, those of a stop and the end included
        self.logs = 0.0  # sum over these
        self.said: list[str] = []
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._guard = guard
        self._stops = Stops(wish.stop)

    def take(self, pieces: Sequence[Piece]) -> Heard:
        """Take pieces of an engine and return what may be said now.

        `finish` is set afterwards if the answer is over; nothing may be taken then.
        """
        text, tokens = "", []
        for piece in pieces:
            text += self._decoder.decode(self._vocabulary.bytes_of(piece.tokens))
            tokens += self._written(piece)
            self.finish = piece.finish
            if piece.finish:
                break
        if self.finish:
            text += self._decoder.decode(b"", final=True)
        said = self._stops.feed(text)
        if self._stops.found:
            self.finish = _STOPPED
        elif self.finish:
            said += self._stops.rest()
        if self._guard is not None:
            said = self._guard.feed(said)
            if self._guard.block is not None:
                self.finish = _STOPPED
        if said:
            self.said.append(said)
        self.tokens += tokens
        return Heard(text=said, tokens=tuple(tokens))

    def end(self) -> tuple[Heard, Told]:
        """Return what was still held back, and the whole answer."""
        rest, text = "", "".join(self.said)
        by, sources, blocked = "model", "[]", False
        if self._guard is not None:
            ending = self._guard.finish()
            rest, text, by = ending.rest, ending.answer, ending.by
            sources, blocked = written_sources(ending.sources), ending.block is not None
        told = Told(
            text=text,
            finish=self.finish,
            blocked=blocked,
            by=by,
            sources=sources,
            prompt=self.prompt,
            tokens=self.tokens,
            scored=self.scored,
            log_probability=self.logs / self.written if self.written else 0.0,
            counted=(len(self.prompt), self.written),
        )
        return Heard(text=rest), told

    def cancel(self) -> None:
        """Have nothing more written."""
        if self.ticket is not None:
            self.ticket.cancel()

    def _written(self, piece: Piece) -> list[Written]:
        """Count the tokens of a piece; return those that stand for text."""
        self.written += len(piece.tokens)
        self.logs += sum(piece.log_probability)
        ends = {*self._vocabulary.end, *self.wish.end}
        best = piece.likeliest or ((),) * len(piece.tokens)
        return [
            (token, log, others)
            for token, log, others in zip(piece.tokens, piece.log_probability, best, strict=True)
            if token not in ends
        ]


def written_sources(sources: Sequence[Any]) -> str:
    """Return the sources of an answer as JSON."""
    if not sources:
        return "[]"
    return json.dumps([source.to_json() for source in sources], ensure_ascii=False)


def as_list(tokens: Array | Sequence[int]) -> list[int]:
    """Return tokens as a list of integers."""
    found: list[int] = tokens.tolist() if hasattr(tokens, "tolist") else list(tokens)
    return found
