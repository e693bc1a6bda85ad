"""Documents of a package: searched by meaning and by words, seen by who may see them.

Two files make them: `passages.json` (documents, passages, who may see what) and
`passages.safetensors` (what each passage looks like to the encoder of the package).

A passage is scored by the cosine of its angle to the question plus a weighted share of the
question's words that it has. Both are comparable from question to question, so that a bound on
their sum keeps passages out that have nothing to do with it; ranks, as reciprocal rank fusion
takes, say nothing of that. All vectors are compared, which for the passages of an assistant is
quicker than any index: 0.03 ms for 1,000 and 5 ms for 100,000 on one core, and misses none.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from genba.core.codec import decode
from genba.core.digest import digest_bytes
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.assistant.seams import Embed, Passage, Question, Source
from genba.edge.keywords import Keywords
from genba.edge.tensors import read_tensors

PASSAGES_FILE: Final = "passages.json"
VECTORS_FILE: Final = "passages.safetensors"
ENCODER_FILE: Final = "encoder.onnx"
FORMAT: Final = 1
MOST_PASSAGES: Final = 200_000
_LOOKED_AT: Final = 100  # passages that keywords may raise
_SPARE: Final = 4  # times as many as wanted are looked at, as some say the same
_THE_SAME: Final = 0.95  # cosine: two passages say the same
_MS: Final = 1_000

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document, as it was when it was read."""

    name: str  # within its source
    title: str
    source: str  # as it was added: files:…, package:…
    digest: str  # sha256 of the file
    access: tuple[str, ...] = ()  # tags; none: for everybody
    changed_ms: int | None = None
    until_ms: int | None = None  # from then on it is not found any more
    licence: str = "not stated"
    attribution: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A passage of a document."""

    id: str
    document: int  # which of the documents
    place: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """What `passages.json` holds."""

    format: int
    encoder: str  # sha256 of the encoder that made the vectors
    language: str  # ISO 639-1
    documents: tuple[Document, ...]
    passages: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LibrarySettings:
    """`library` of assistant.json."""

    most: int = 3  # passages that the language model is given
    least: float = 0.45  # score of a passage that is given
    gap: float = 0.15  # by which a passage that is given is behind the best one at most
    keywords: float = 0.3  # weight of words beside meaning
    support: float = 0.5  # of an answer's words that a passage has which it cites


class Passages:
    """Documents that are searched; may be asked on several threads.

    Args:
        shelf: Documents and passages.
        vectors: float [passages, D], each of length 1.
        embed: The encoder that made them.
        settings: How to search.
        clock: Seconds since 1970 UTC, for documents that end.
    """

    def __init__(
        self,
        shelf: Shelf,
        vectors: Array,
        embed: Embed,
        settings: LibrarySettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.shelf = shelf
        self.settings = settings or LibrarySettings()
        self._vectors: Floats = np.ascontiguousarray(vectors, dtype=np.float32)
        self._embed = embed
        self._clock = clock
        documents = shelf.documents
        of = [entry.document for entry in shelf.passages]
        self._access = list(dict.fromkeys(frozenset(d.access) for d in documents))
        group = [self._access.index(frozenset(d.access)) for d in documents]
        self._group = np.array([group[d] for d in of], dtype=np.int64)
        endless = np.iinfo(np.int64).max
        until = [endless if d.until_ms is None else d.until_ms for d in documents]
        self._until = np.array([until[d] for d in of], dtype=np.int64)
        texts = [headed(documents[e.document].title, e.place, e.text) for e in shelf.passages]
        self._keywords = Keywords(texts, self._group.tolist(), shelf.language)

    @classmethod
    def open(
        cls, files: Mapping[str, bytes], settings: Mapping[str, Any], embed: Embed | None
    ) -> Self:
        """Open the documents of a package.

        Raises:
            Problem: G653 when the files do not belong together or are damaged.
        """
        shelf = read_shelf(files[PASSAGES_FILE])
        if embed is None or VECTORS_FILE not in files:
            raise _damaged(f"The package has no {'encoder' if embed is None else VECTORS_FILE}.")
        if digest_bytes(files.get(ENCODER_FILE, b"")) != shelf.encoder:
            raise _damaged("They were made with another encoder than the one of the package.")
        vectors = read_tensors(files[VECTORS_FILE]).get("embedding")
        if vectors is None or vectors.ndim != 2 or len(vectors) != len(shelf.passages):
            raise _damaged("There is not one vector for each passage.")
        if not np.isfinite(vectors).all():
            raise _damaged("Some of its numbers are not finite.")
        return cls(shelf, vectors, embed, decode(LibrarySettings, settings, where="library"))

    def search(self, question: Question) -> tuple[Passage, ...]:
        """Return what may answer a question and its caller may see, best first; may be nothing."""
        if not question.text.strip():
            return ()
        return self.given(self.find(question.text, question.access, vector=question.embedding))

    def given(self, found: Sequence[Passage]) -> tuple[Passage, ...]:
        """Return which of the nearest passages are given to the language model.

        A bound on the score keeps out what has nothing to do with the question; one on the distance
        to the best keeps prompts short. On the helpdesk's questions the second one left out 23 % of
        the passages, and the answer for 1 % of the questions.
        """
        asked, kept = self.settings, found[: self.settings.most]
        least = max([asked.least, *(passage.score - asked.gap for passage in kept[:1])])
        return tuple(passage for passage in kept if passage.score >= least)

    def find(
        self,
        text: str,
        access: Collection[str] = (),
        *,
        most: int | None = None,
        vector: Array | None = None,
    ) -> list[Passage]:
        """Return the nearest passages, however far they are.

        Args:
            text: What is looked for.
            access: Tags of who looks.
            most: How many; None: as the settings say.
            vector: Of the text, where it is known.
        """
        if not self.shelf.passages:
            return []
        most = self.settings.most if most is None else most
        looks = self._embed([text])[0] if vector is None else vector
        groups = self._open_to(access)
        words = self._keywords.coverage(text, groups, _LOOKED_AT)
        score = self._vectors @ np.asarray(looks, dtype=np.float32)
        score += self.settings.keywords * words
        open_ = np.zeros(len(self._access), dtype=np.bool_)
        open_[groups] = True
        seen = open_[self._group] & (self._until > self._clock() * _MS)
        score = np.where(seen, score, -np.inf)
        near = _largest(score, most * _SPARE)
        near = near[np.isfinite(score[near])]
        return [self._passage(int(n), float(score[n])) for n in self._apart(near)[:most]]

    def cite(self, answer: str, passages: Sequence[Passage]) -> tuple[Source, ...]:
        """Return which of the passages an answer rests on, most of it first.

        A passage is cited when it has most of what the answer says, by words weighted by how rare
        they are, or when the answer names it by its number.
        """
        rarity = self._keywords.rarity(answer)
        whole = sum(rarity.values())
        found: list[Source] = []
        for number, passage in enumerate(passages, 1):
            words = self._keywords.words(headed(passage.title, passage.place, passage.text))
            said = sum(weight for word, weight in rarity.items() if word in words)
            support = said / whole if whole else 0.0
            if support >= self.settings.support or f"[{number}]" in answer:
                found.append(Source(passage=passage, support=support))
        return tuple(sorted(found, key=lambda source: -source.support))

    def _open_to(self, access: Collection[str]) -> list[int]:
        """Return the groups of documents that somebody with these tags may see."""
        tags = frozenset(access)
        return [n for n, needed in enumerate(self._access) if not needed or needed & tags]

    def _apart(self, near: Array) -> list[int]:
        """Leave out what another passage says as well; of two, the one that changed later stays."""
        kept: list[int] = []
        for n in map(int, near):
            same = next(
                (k for k in kept if float(self._vectors[k] @ self._vectors[n]) >= _THE_SAME), None
            )
            if same is None:
                kept.append(n)
            elif self._changed(n) > self._changed(same):
                kept[kept.index(same)] = n
        return kept

    def _changed(self, passage: int) -> int:
        return self.shelf.documents[self.shelf.passages[passage].document].changed_ms or 0

    def _passage(self, number: int, score: float) -> Passage:
        entry = self.shelf.passages[number]
        document = self.shelf.documents[entry.document]
        return Passage(
            id=entry.id,
            document=document.name,
            title=document.title or document.name,
            place=entry.place,
            text=entry.text,
            score=score,
            updated_ms=document.changed_ms,
        )


def _largest(values: Floats, count: int) -> Array:
    """Return where the largest values are, largest first."""
    if count < len(values):
        some = np.argpartition(-values, count)[:count]
        return some[np.argsort(-values[some], kind="stable")]
    return np.argsort(-values, kind="stable")


def headed(title: str, place: str, text: str) -> str:
    r"""Return a passage as it is embedded and searched: below its headings.

    Example:
        >>> headed("Pump P3", "Oil", "Two litres.")
        'Pump P3\nOil\nTwo litres.'
    """
    return "\n".join(filter(None, (title, place, text)))


def read_shelf(data: bytes) -> Shelf:
    """Read `passages.json`.

    Raises:
        Problem: G653 when it is damaged or of a form that this version does not know.
    """
    try:
        shelf = decode(Shelf, json.loads(data), where=PASSAGES_FILE)
    except (ValueError, Problem) as error:
        raise _damaged(str(error)) from error
    if shelf.format != FORMAT:
        raise _damaged(f"They have format {shelf.format}; this version reads format {FORMAT}.")
    count = len(shelf.documents)
    if len(shelf.passages) > MOST_PASSAGES:
        raise _damaged(f"There are more than {MOST_PASSAGES:,} passages.")
    if any(not 0 <= entry.document < count for entry in shelf.passages):
        raise _damaged("A passage is of no document.")
    return shelf


def _damaged(why: str) -> Problem:
    return Problem(
        "G653",
        "The documents of the package cannot be used.",
        where=PASSAGES_FILE,
        why=why,
        tries=["genba documents refresh LINE", "genba explain G653"],
    )
