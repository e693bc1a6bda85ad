"""A language model with what stands around it: asked like an engine, answers like an assistant."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final, Self, TypeVar

from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.resolve import resolve
from genba.core.talk import Ask, Said, Scored, Talks, Ticket, Vocabulary, Words
from genba.edge.assistant.batch import MOST, Batch
from genba.edge.assistant.budget import Budget
from genba.edge.assistant.guard import Watch
from genba.edge.assistant.plan import Plan
from genba.edge.assistant.seams import (
    Answered,
    Block,
    Embed,
    Parts,
    Passage,
    Question,
    Ruled,
    Source,
)
from genba.edge.assistant.settings import AssistantSettings, read_settings
from genba.edge.package import LoadedPackage

ASSISTANT_FILE: Final = "assistant.json"
ENCODER_FILE: Final = "encoder.onnx"
#: Which file of a package makes which part of an assistant.
_PARTS: Final = {"student": "student.safetensors", "library": "passages.json"}

T = TypeVar("T")

_log = logging.getLogger("genba.assistant")


class Assistant:
    """Answers with rails, a student, documents and a language model, whichever there are.

    A question goes through the rails for questions; then the student may answer it; then what the
    documents say about it goes before the question, and the language model writes; and what it
    writes goes through the rails for answers.

    It is a `Talks` as well, which asks the language model alone.

    Args:
        engine: The language model.
        settings: Of `assistant.json`.
        parts: Who helps it.
    """

    name: ClassVar[str] = "assistant"

    def __init__(
        self, engine: Talks, settings: AssistantSettings | None = None, parts: Parts | None = None
    ) -> None:
        self.talks = engine
        self.settings = settings or AssistantSettings()
        self.parts = parts or Parts()
        self._budget = Budget()

    @classmethod
    def open(cls, package: LoadedPackage, engine: Talks) -> Self:
        """Put an engine together with what else is in its package.

        Raises:
            Problem: G650 for an assistant.json that cannot be read, G901 when a library is missing
                that a part needs; whatever the parts raise for files that are not theirs.
        """
        files = package.files
        settings = read_settings(files[ASSISTANT_FILE], package.id)
        embed: Embed | None = None
        if ENCODER_FILE in files:
            embed = resolve("part", "encoder")(files[ENCODER_FILE]).embed
        opened: dict[str, Any] = {}
        if settings.rails is not None:
            opened["rails"] = resolve("part", "rails").open(files, settings.rails, embed)
        for part, file in _PARTS.items():
            if file in files:
                own: JsonObject = getattr(settings, part)
                opened[part] = resolve("part", part).open(files, own, embed)
        return cls(engine, settings, Parts(embed=embed, **opened))

    # As a language model.

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the language model."""
        return self.talks.vocabulary

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.talks.context

    @property
    def slots(self) -> int:
        """Questions that are answered at the same time."""
        return self.talks.slots

    def ask(self, ask: Ask, said: Said) -> Ticket:
        """Ask the language model alone; see `Talks.ask`."""
        return self.talks.ask(ask, said)

    def score(self, tokens: Array, *, likeliest: int = 0, since: int = 1) -> Scored:
        """Ask how likely tokens are; see `Talks.score`."""
        return self.talks.score(tokens, likeliest=likeliest, since=since)

    def stats(self) -> Mapping[str, float]:
        """Return the counts of the language model."""
        return self.talks.stats()

    def close(self) -> None:
        """Free what the language model holds."""
        self._budget.close()
        self.talks.close()

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:  # noqa: ARG003  # of the seam
        """Return nothing: what is measured is the engine inside."""
        return ()

    @classmethod
    def version(cls) -> str:
        """Return the form of packages it reads."""
        return "1"

    # As an assistant.

    def plan(
        self,
        messages: Words,
        *,
        access: Collection[str] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        plain: bool = True,
        most: int = MOST,
    ) -> Plan:
        """Find out how a question is to be answered. May be called on any thread; takes a while.

        Args:
            messages: The conversation; the system message of the package is put in front where
                it has none.
            access: Tags of the caller, which decide which documents answer.
            tools: That the model may call; then only the model answers.
            plain: An answer in words will do; false where a schema is asked for.
            most: New tokens that will be asked for, to know how much room passages have.
        """
        asked = Question(
            self._with_system(messages),
            access=frozenset(access),
            embed=self.parts.embed,
            plain=plain and not tools,
        )
        question, block = self._ruled(asked)
        found: list[Passage] = []
        watch = Watch(
            rails=self.parts.rails,
            question=question,
            passages=found,
            budget=self._budget,
            seconds=self.settings.output_ms / 1_000,
            refusal=self.settings.refusal,
            cite=lambda answer: self._cited(answer, found),
        )
        make = partial(Plan, question, watch, self.vocabulary, tools=tools)
        if block is not None:
            return make(block=block)
        student = self._student(question)
        plan = make(student=student)
        if student is not None:
            said = plan.finish(student.text)  # through the rails, as any answer
            return make(student=replace(student, text=said.answer), block=said.block)
        if question.text:
            room = self.context - most
            plan.fit(self._searched(question), self.settings.context, room)
            found.extend(plan.passages)
        return plan

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer a batch of texts; see `Talks.run`.

        An answer that is `given` is scored by the language model, and nobody else is asked.

        Returns:
            Besides what the engine returns `by` (object [N]: who answered, UTF-8 bytes) and
            `sources` (object [N]: JSON list of cited passages). Where the language model was not
            needed, `tokens` are 0 and `log_probability` is the logarithm of the student's
            confidence, or 0 for a rail.
        """
        batch = Batch(tensors)
        plans = {row: self.plan(words, most=most) for row, words, most in batch.questions()}
        writing = {row: plan for row, plan in plans.items() if plan.answer is None}
        asked = batch.scored() | writing.keys()
        if asked:
            batch.fill(sorted(asked), writing, self.talks.run)
        for row, plan in plans.items():
            if row in writing:
                batch.end(row, plan.finish(batch.answer(row)))
            else:
                batch.end(row, plan.ending())
                batch.count(row, plan)
        return batch.outputs

    def _with_system(self, messages: Words) -> Words:
        system = self.settings.system
        if not system or any(m.get("role") in ("system", "developer") for m in messages):
            return messages
        return [{"role": "system", "content": system}, *messages]

    def _ruled(self, question: Question) -> tuple[Question, Block | None]:
        """Return the question as it goes on, and why it does not."""
        rails = self.parts.rails
        if rails is None:
            return question, None
        found = self._budget.run(lambda: rails.before(question), self.settings.input_ms / 1_000)
        ruled = found if isinstance(found, Ruled) else Ruled(block=found)
        if ruled.block is not None or ruled.messages is None:
            return question, ruled.block
        return (
            Question(
                ruled.messages,
                access=question.access,
                embed=self.parts.embed,
                plain=question.plain,
            ),
            None,
        )

    def _student(self, question: Question) -> Answered | None:
        """Ask the student; one that fails leaves the question to the language model."""
        if self.parts.student is None or not question.plain:
            return None
        return _tried("student", partial(self.parts.student.answer, question), None)

    def _searched(self, question: Question) -> tuple[Passage, ...]:
        """Search the documents; where that fails, the language model answers without."""
        library, rails = self.parts.library, self.parts.rails
        if library is None:
            return ()
        nothing: tuple[Passage, ...] = ()
        found = _tried("library", partial(library.search, question), nothing)
        if rails is None or not found:
            return found
        judged = self._budget.run(
            lambda: tuple(p for p in found if rails.passage(p.text) is None),
            self.settings.input_ms / 1_000,
        )
        return () if isinstance(judged, Block) else judged

    def _cited(self, answer: str, passages: Sequence[Passage]) -> tuple[Source, ...]:
        if self.parts.library is None or not passages:
            return ()
        return _tried("library", partial(self.parts.library.cite, answer, passages), ())


def _tried(part: str, call: Callable[[], T], otherwise: T) -> T:
    try:
        return call()
    except Exception:  # noqa: BLE001  # whatever it is, the language model can answer without
        _log.exception("the %s failed; the language model answers without it", part)
        return otherwise
