"""What an assistant is put together from: rails, a student, a library of documents; optional all.

Each is opened from the files of a package by a class of the catalog (kind "part") with
``open(files, settings, embed)``, and is called on several threads at the same time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, Self

from genba.core.protocols import Array
from genba.core.talk import Words
from genba.edge.texts import question_of

Embed = Callable[[Sequence[str]], Array]  # texts -> float32 [N, D], each of length 1


class Question:
    """What somebody asks: the conversation, its last words, and who may see what.

    Args:
        messages: With the system message that goes to the model, if there is one.
        access: Tags of the caller; a document with tags is for those who have one of them.
        embed: Makes the embedding; None where the package has no encoder.
        plain: An answer in words will do; false where tools or a schema are asked for.
    """

    def __init__(
        self,
        messages: Words,
        *,
        access: frozenset[str] = frozenset(),
        embed: Embed | None = None,
        plain: bool = True,
    ) -> None:
        self.messages = tuple(messages)
        self.access = access
        self.plain = plain
        self._embed = embed

    @cached_property
    def text(self) -> str:
        """The last message of the user as text; "" where there is none."""
        return question_of(self.messages)

    @cached_property
    def first(self) -> bool:
        """Whether this is the first question of the conversation."""
        return [m.get("role") for m in self.messages].count("user") <= 1

    @cached_property
    def embedding(self) -> Array | None:
        """What the question looks like, float32 [D]; made once, whoever needs it."""
        return None if self._embed is None else self._embed([self.text])[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Why something is not said or not answered."""

    rail: str  # its name: "size", "personal", "attack", ...
    say: str = ""  # what the caller is told; "" for the words of the package
    why: str = ""  # for the record, without what must not be repeated


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruled:
    """What rails make of a question."""

    block: Block | None = None
    messages: Words | None = None  # what goes on in place of the question's messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """A stretch of text that is replaced."""

    start: int
    end: int
    put: str
    rail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What rails make of a text that is about to be said."""

    block: Block | None = None
    masks: tuple[Mask, ...] = ()  # in order, not overlapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An answer of the student."""

    text: str
    confidence: float  # 0..1
    origin: str = ""  # which approved answer it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A piece of a document that may answer a question."""

    id: str  # digest of document and text
    document: str  # its name
    title: str  # of the document
    place: str  # where in it: headings, page
    text: str
    score: float  # how near to the question, on the scale of the library
    updated_ms: int | None = None  # when the document changed last


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A passage that an answer rests on."""

    passage: Passage
    support: float  # 0..1: how much of the answer it says

    def to_json(self) -> dict[str, Any]:
        """Return what is sent and captured."""
        kept = self.passage
        return {
            "passage": kept.id,
            "document": kept.document,
            "title": kept.title,
            "place": kept.place,
            "score": round(kept.score, 4),
            "support": round(self.support, 4),
            **({"updated_ms": kept.updated_ms} if kept.updated_ms is not None else {}),
        }


class Gate(Protocol):
    """What one answer goes through on its way out."""

    block: Block | None  # why nothing more goes out; None while all is well

    def take(self, text: str) -> str:
        """Take the next piece and return what may be sent now, with what is masked replaced."""
        ...

    def end(self) -> str:
        """Say that nothing more comes; return the rest."""
        ...


class Rails(Protocol):
    """What an assistant may be asked, what it may read and what it may say."""

    @classmethod
    def open(
        cls, files: Mapping[str, bytes], settings: Mapping[str, Any], embed: Embed | None
    ) -> Self:
        """Open what a package has.

        Args:
            files: Of the package.
            settings: `rails` of assistant.json.
            embed: Of the package's encoder, if it has one.
        """
        ...

    def before(self, question: Question) -> Ruled:
        """Judge a question before anybody answers it."""
        ...

    def passage(self, text: str) -> Block | None:
        """Judge what a document says before the language model reads it."""
        ...

    def guard(self, question: Question, known: Iterable[str] = ()) -> Gate:
        """Return what the answer to a question goes through.

        Args:
            question: What it answers.
            known: Texts whose personal data may be repeated: the passages the model was given.
        """
        ...


class Student(Protocol):
    """A small model that answers what it can answer as well as the large one."""

    @classmethod
    def open(
        cls, files: Mapping[str, bytes], settings: Mapping[str, Any], embed: Embed | None
    ) -> Self:
        """Open what a package has; see `Rails.open`."""
        ...

    def answer(self, question: Question) -> Answered | None:
        """Answer, or leave it to the language model."""
        ...


class Library(Protocol):
    """Documents that are searched."""

    @classmethod
    def open(
        cls, files: Mapping[str, bytes], settings: Mapping[str, Any], embed: Embed | None
    ) -> Self:
        """Open what a package has; see `Rails.open`."""
        ...

    def search(self, question: Question) -> tuple[Passage, ...]:
        """Return what may answer a question and its caller may see, best first; may be nothing."""
        ...

    def cite(self, answer: str, passages: Sequence[Passage]) -> tuple[Source, ...]:
        """Return which of the passages an answer rests on, most of it first."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Who helps a language model to answer; what is None is not there."""

    rails: Rails | None = None
    student: Student | None = None
    library: Library | None = None
    embed: Embed | None = field(default=None, repr=False)
