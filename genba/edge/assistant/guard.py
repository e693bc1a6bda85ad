"""What is said while it is written: let out by the rails, within a time budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from genba.edge.assistant.budget import Budget
from genba.edge.assistant.seams import Block, Gate, Passage, Question, Rails, Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How an answer ends."""

    rest: str  # what was not sent yet
    answer: str  # all that is said; where it was blocked, what is said instead
    by: str  # "model", "student", or "rail:NAME"
    sources: tuple[Source, ...] = ()
    block: Block | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """What a guard needs to know."""

    rails: Rails | None
    question: Question
    passages: Sequence[Passage]  # that the model was given; filled in while planning
    budget: Budget
    seconds: float  # for one look
    refusal: str
    cite: Callable[[str], tuple[Source, ...]]


class Guard:
    """Takes an answer piece by piece, and gives what of it may be said by now.

    Without rails everything passes at once. After a block nothing more passes: what was said
    before it stays said, the rest of the answer is not. Rails that are late or that fail block.

    Args:
        watch: Rails, and how long they may take.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._gate: Gate | None = None
        self._said = ""
        self.block: Block | None = None

    def feed(self, text: str) -> str:
        """Take the next piece of an answer and return what may be sent."""
        if self._watch.rails is None:
            return self._say(text)
        return self._through(lambda gate: gate.take(text)) if text else ""

    def finish(self) -> Ending:
        """Say that nothing more comes; return the rest and what there is to know of the answer."""
        rest = "" if self._watch.rails is None else self._through(lambda gate: gate.end())
        if self.block is not None:
            said = self.block.say or self._watch.refusal
            return Ending(
                rest="" if self._said else said,
                answer=said,
                by=f"rail:{self.block.rail}",
                block=self.block,
            )
        return Ending(
            rest=rest, answer=self._said, by="model", sources=self._watch.cite(self._said)
        )

    def _say(self, text: str) -> str:
        self._said += text
        return text

    def _through(self, look: Callable[[Gate], str]) -> str:
        """Let the gate of the rails look, and return what it lets out."""
        if self.block is not None:
            return ""
        found = self._watch.budget.run(lambda: self._looked(look), self._watch.seconds)
        text, block = ("", found) if isinstance(found, Block) else found
        self.block = block
        return "" if block is not None else self._say(text)

    def _looked(self, look: Callable[[Gate], str]) -> tuple[str, Block | None]:
        """Look, on a thread of the budget; a gate that was late is not looked through again."""
        watch = self._watch
        if self._gate is None:
            assert watch.rails is not None  # without rails nobody looks
            self._gate = watch.rails.guard(watch.question, [p.text for p in watch.passages])
        return look(self._gate), self._gate.block
