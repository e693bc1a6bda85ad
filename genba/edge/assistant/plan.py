"""How one question will be answered: by whom, from what, with which prompt."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from genba.core.protocols import Array
from genba.core.talk import Vocabulary, Words
from genba.edge.assistant.guard import Ending, Guard, Watch
from genba.edge.assistant.seams import Answered, Block, Passage, Question, Source
from genba.edge.texts import content_of


class Plan:
    """How a question will be answered.

    Attributes:
        question: As it is asked, after the rails.
        messages: What goes to the language model, passages included.
        passages: What was found for it.
        block: Why it is not answered, if so.
        student: What the student says, if it answers.
    """

    def __init__(
        self,
        question: Question,
        watch: Watch,
        vocabulary: Vocabulary,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        block: Block | None = None,
        student: Answered | None = None,
    ) -> None:
        self.question = question
        self.messages: Words = question.messages
        self.passages: tuple[Passage, ...] = ()
        self.block = block
        self.student = student
        self._watch = watch
        self._vocabulary = vocabulary
        self._tools = tools

    @property
    def answer(self) -> str | None:
        """What is said without the language model; None where it has to write."""
        if self.block is not None:
            return self.block.say or self._watch.refusal
        return None if self.student is None else self.student.text

    @property
    def by(self) -> str:
        """Who answers: "model", "student", or "rail:NAME"."""
        if self.block is not None:
            return f"rail:{self.block.rail}"
        return "model" if self.student is None else "student"

    @property
    def sources(self) -> tuple[Source, ...]:
        """What was found for the question; which of it an answer rests on is known at its end."""
        return tuple(Source(passage=passage, support=0.0) for passage in self.passages)

    @cached_property
    def tokens(self) -> Array:
        """The prompt of the language model, int64 [N]."""
        prompt = self._vocabulary.prompt(self.messages, tools=self._tools)
        return np.asarray(prompt, dtype=np.int64)

    def fit(self, passages: Sequence[Passage], context: str, room: int) -> None:
        """Put passages before the question, as many as there is room for.

        Args:
            passages: Best first.
            context: What the model is told to do with them.
            room: Tokens that the prompt may have.
        """
        for count in range(len(passages), 0, -1):
            words = with_passages(self.question.messages, passages[:count], context)
            prompt = self._vocabulary.prompt(words, tools=self._tools)
            if len(prompt) <= room:
                self.messages, self.passages = words, tuple(passages[:count])
                return

    def guard(self) -> Guard:
        """Return what the answer goes through on its way out; one for each answer."""
        return Guard(self._watch)

    def finish(self, text: str) -> Ending:
        """Return what is said of a whole answer of the language model."""
        guard = self.guard()
        guard.feed(text)
        return guard.finish()

    def ending(self) -> Ending:
        """Return the end of an answer that needs no language model."""
        said = self.answer or ""
        return Ending(rest=said, answer=said, by=self.by, block=self.block)


def with_passages(messages: Words, passages: Sequence[Passage], context: str) -> Words:
    """Return a conversation whose last question has passages before it.

    They stand before the question and not in the system message, so that what stays the same from
    question to question is the beginning of the prompt, which engines need not compute again.

    Example:
        >>> sky = Passage(id="", document="", title="A", place="", text="Sky is blue.", score=1)
        >>> made = with_passages([{"role": "user", "content": "Why?"}], [sky], "Use:")
        >>> print(made[0]["content"])
        Use:
        [1] A
        Sky is blue.
        <BLANKLINE>
        Why?
    """
    last = max(
        (i for i, message in enumerate(messages) if message.get("role") == "user"),
        default=len(messages) - 1,
    )
    numbered = [
        f"[{number}] {' > '.join(filter(None, (p.title, p.place)))}\n{p.text}"
        for number, p in enumerate(passages, 1)
    ]
    content = "\n".join([context, *numbered, "", content_of(messages[last])])
    return [*messages[:last], {**messages[last], "content": content}, *messages[last + 1 :]]
