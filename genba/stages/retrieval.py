"""Search in a line's documents, and how good it is, measured on its own."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from genba.core.codec import decode
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.values import Measure
from genba.edge.assistant import ASSISTANT_FILE
from genba.edge.assistant.settings import read_settings
from genba.edge.passages import ENCODER_FILE, PASSAGES_FILE, VECTORS_FILE, Passages, headed
from genba.learn.retrieval import DEPTH, measured, rank_of
from genba.runs.progress import Progress
from genba.stages.documents import newest, questions_of
from genba.store.home import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A question, and where the documents answer it."""

    question: str
    document: str  # its name within its source
    place: str = ""  # headings of a passage, or the last of them; "" for the whole document
    contains: str = ""  # what the passage says; "" for anything

    def fits(self, document: str, place: str, text: str) -> bool:
        """Say whether a passage is meant."""
        here = not self.place or place == self.place or place.endswith(f" > {self.place}")
        return document == self.document and here and self.contains.lower() in text.lower()


def library_of(store: Store, line: Line, package: str | None) -> Passages:
    """Open the documents of a package, or those that were read last.

    Args:
        store: Where they are.
        line: Whose.
        package: Id of a package; None: what was read last.

    Raises:
        Problem: G654 when there are none.
    """
    named, settings = {}, {}
    if package is not None:
        manifest = store.ledger.get("package", package) or {}
        named = {name: str(f["digest"]) for name, f in manifest.get("files", {}).items()}
    if PASSAGES_FILE not in named and (record := newest(store, line.name)):
        named = {**named, **{name: str(digest) for name, digest in record.body["files"].items()}}
    if PASSAGES_FILE not in named:
        raise _nothing(line.name)
    wanted = (PASSAGES_FILE, VECTORS_FILE, ENCODER_FILE)
    files = {name: store.blobs.read(named[name]) for name in wanted}
    if ASSISTANT_FILE in named:
        settings = dict(read_settings(store.blobs.read(named[ASSISTANT_FILE]), line.name).library)
    embed = resolve("part", "encoder")(files[ENCODER_FILE]).embed
    library: Passages = resolve("part", "library").open(files, settings, embed)
    return library


def questions(path: Path) -> list[Wanted]:
    """Read questions with their answers' places, JSON Lines.

    Raises:
        Problem: G657 naming the line that is none.
    """
    found: list[Wanted] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, 0, str(error)) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(decode(Wanted, json.loads(line)))
            except (ValueError, Problem) as error:
                raise _unreadable(path, number, str(error)) from error
    if not found:
        raise _unreadable(path, 0, "It holds no question.")
    return found


def gated(store: Store, line: Line, progress: Progress) -> dict[str, Measure]:
    """Measure the search in a line's documents with the questions that the line names.

    Args:
        store: Where the documents are.
        line: With the option `questions`; nothing is measured without it.
        progress: Who is told.

    Raises:
        Problem: G654 when the line has no documents, G657 for questions that are none.
    """
    path = questions_of(line)
    if path is None:
        return {}
    progress.step("measuring the search in documents")
    library = library_of(store, line, None)
    tags = {tag for document in library.shelf.documents for tag in document.access}
    return measure(library, questions(path), tags)[0]


def measure(
    library: Passages, wanted: Sequence[Wanted], access: Collection[str] = ()
) -> tuple[dict[str, Measure], list[tuple[Wanted, int | None]]]:
    """Ask every question and look how far in front what is wanted comes.

    Returns:
        Measures, and each question with the place of its answer.

    Raises:
        Problem: G657 for a question whose answer is in no passage: that says nothing of the search.
    """
    found: list[tuple[Wanted, int | None]] = []
    for one in wanted:
        right = frozenset(_ids(library, one))
        if not right:
            raise _unanswerable(one)
        results = library.find(one.question, access, most=DEPTH)
        found.append((one, rank_of([r.id for r in results], right)))
    return measured([rank for _, rank in found]), found


def _ids(library: Passages, one: Wanted) -> list[str]:
    documents = library.shelf.documents
    return [
        entry.id
        for entry in library.shelf.passages
        if one.fits(
            documents[entry.document].name,
            entry.place or documents[entry.document].title,
            headed(documents[entry.document].title, entry.place, entry.text),
        )
    ]


def _nothing(line: str) -> Problem:
    return Problem(
        "G654",
        f"The line {line} has no documents that were read.",
        where=line,
        tries=[
            f"genba documents add {line} files:manuals",
            f"genba documents refresh {line}",
            "genba explain G654",
        ],
    )


def _unreadable(path: Path, line: int, why: str) -> Problem:
    return Problem(
        "G657",
        f"{path.name} holds no questions with the places of their answers.",
        where=f"{path}:{line}" if line else str(path),
        why=why,
        tries=[
            'echo \'{"question": "What is a stale socket?", "document": "FAQ.html"}\'',
            "genba explain G657",
        ],
    )


def _unanswerable(one: Wanted) -> Problem:
    return Problem(
        "G657",
        f"No passage is the answer to {one.question!r}.",
        where=" > ".join(filter(None, (one.document, one.place))),
        why="There is no such document, or nothing of it has that place and text.",
        tries=["genba documents list LINE", "genba explain G657"],
    )
