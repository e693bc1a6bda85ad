"""How often a search in documents finds the passage that answers."""

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.machine import stamp
from genba.core.codec import encode
from genba.core.digest import digest_bytes
from genba.core.line import Data
from genba.core.values import Measure
from genba.data.documents.held import Held
from genba.data.documents.index import files_of
from genba.data.documents.reading import Read, read_all
from genba.data.sources.package import PackageSource
from genba.edge.assistant import Question
from genba.edge.encoder import Encoder
from genba.edge.passages import ENCODER_FILE, Document, Entry, Passages
from genba.learn.bootstrap import interval
from genba.learn.encoder import load_encoder
from genba.learn.proportion import proportion
from genba.learn.retrieval import DEPTH, measured, rank_of
from genba.learn.threads import one_thread
from genba.runs.progress import SilentProgress

HERE = Path(__file__).parent
MANUALS: Final = ("package:nut-doc", "package:debian-faq")
WAYS: Final[Mapping[str, Mapping[str, float]]] = {
    "hybrid": {},
    "meaning": {"keywords": 0.0},
    "words": {"keywords": 1e3},
}
_NUMBER: Final = re.compile(r"^[\d.]+\s*")
_FEWEST_WORDS: Final = 3  # of a heading that is a question


class Corpus:
    """Passages of everything, and the questions they answer.

    Args:
        answers: (question, answer) of the helpdesk.
    """

    def __init__(self, answers: Sequence[tuple[str, str]]) -> None:
        sources = [Held(source=source) for source in MANUALS]
        self.read: Read = read_all(sources, lambda _text: "", SilentProgress())
        self.manuals = len(self.read.passages)
        self.questions: dict[str, list[tuple[str, frozenset[str]]]] = {
            "helpdesk": self._add(answers),
            "nut-faq": self._headings(lambda d: d.name == "FAQ.html"),
            "debian-faq": self._headings(lambda d: d.source.endswith("debian-faq")),
        }

    def _add(self, answers: Sequence[tuple[str, str]]) -> list[tuple[str, frozenset[str]]]:
        """Add the answers of the helpdesk as documents without headings."""
        asked = []
        for n, (question, answer) in enumerate(answers):
            document = Document(name=f"faq:{n}", title="", source="helpdesk", digest="")
            entry = Entry(id=f"faq:{n}", document=len(self.read.documents), place="", text=answer)
            self.read.documents.append(document)
            self.read.passages.append(entry)
            asked.append((question, frozenset({entry.id})))
        return asked

    def _headings(self, chosen: Any) -> list[tuple[str, frozenset[str]]]:
        """Take the headings of some documents away; they are what is asked."""
        asked: dict[str, set[str]] = {}
        for at, entry in enumerate(self.read.passages):
            document = self.read.documents[entry.document]
            if not chosen(document):
                continue
            heading = (entry.place or document.title).rpartition(" > ")[2]
            question = _NUMBER.sub("", heading)
            if len(question.split()) >= _FEWEST_WORDS and question not in entry.text:
                asked.setdefault(question, set()).add(entry.id)
            self.read.passages[at] = replace(entry, place="")
        for at, document in enumerate(self.read.documents):
            if chosen(document):
                self.read.documents[at] = replace(document, title="")
        return [(question, frozenset(ids)) for question, ids in asked.items()]


def library(
    read: Read, graph: bytes, encoder: Encoder, known: dict[str, bytes]
) -> dict[str, bytes]:
    """Return the files of a library."""
    files, _ = files_of(read, encoder.embed, digest_bytes(graph), SilentProgress(), known)
    return {**files, ENCODER_FILE: graph}


def ranks(found: Passages, questions: Sequence[tuple[str, frozenset[str]]]) -> list[int | None]:
    """Return the place of each question's answer."""
    return [
        rank_of([p.id for p in found.find(text, most=DEPTH)], wanted) for text, wanted in questions
    ]


def given(found: Passages, texts: Sequence[str], encoder: Encoder) -> Measure:
    """Return the share of questions that get a passage at all."""
    asked = [Question([{"role": "user", "content": text}], embed=encoder.embed) for text in texts]
    return proportion(sum(bool(found.search(question)) for question in asked), len(asked))


def gain(hybrid: Sequence[int | None], other: Sequence[int | None]) -> Measure:
    """Return the paired difference of the mean reciprocal rank with its interval."""
    each = np.array([[1 / r if r else 0.0 for r in ranks] for ranks in (hybrid, other)])
    sums = np.stack([each[0] - each[1], np.ones(len(hybrid))], axis=1)
    value, low, high = interval(lambda s: s[..., 0] / s[..., 1], sums)
    return Measure(value=value, low=low, high=high, n=len(hybrid))


def speed(found: Passages, texts: Sequence[str]) -> dict[str, float]:
    """Return milliseconds of a search, its question embedded."""
    took = []
    for text in texts:
        begun = time.perf_counter()
        found.find(text)
        took.append(1_000 * (time.perf_counter() - begun))
    return {
        "p50": round(float(np.median(took)), 2),
        "p99": round(float(np.quantile(took, 0.99)), 2),
    }


def helpdesk() -> list[tuple[str, str]]:
    """Return questions and answers of the construction company."""
    rows: list[tuple[str, str]] = []
    source = PackageSource("helpdesk-faq", Data(source="package:helpdesk-faq"))
    for batch, _ in source.batches():
        for row in batch.to_pylist():
            messages = json.loads(row["messages"])
            rows.append((messages[-1]["content"], row["answer"]))
    return rows


def main() -> int:
    """Measure and write the report."""
    graph = load_encoder()
    encoder = Encoder(graph)
    with one_thread():
        corpus = Corpus(helpdesk())
        files = library(corpus.read, graph, encoder, {})
        manuals = Read(
            documents=corpus.read.documents, passages=corpus.read.passages[: corpus.manuals]
        )
        only = library(manuals, graph, encoder, files)
        report: dict[str, Any] = {
            **stamp(),
            "passages": len(corpus.read.passages),
            "settings": encode(Passages.open(files, {}, encoder.embed).settings),
            "subjects": _subjects(corpus, files, encoder),
            "off_topic_given": encode(
                given(
                    Passages.open(only, {}, encoder.embed),
                    [text for text, _ in corpus.questions["helpdesk"]],
                    encoder,
                )
            ),
        }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (HERE / "report.json").write_text(f"{text}\n", encoding="utf-8")
    _print(report)
    return 0


def _subjects(corpus: Corpus, files: dict[str, bytes], encoder: Encoder) -> dict[str, Any]:
    told: dict[str, Any] = {}
    ways = {name: Passages.open(files, more, encoder.embed) for name, more in WAYS.items()}
    for subject, questions in corpus.questions.items():
        places = {name: ranks(way, questions) for name, way in ways.items()}
        texts = [text for text, _ in questions]
        told[subject] = {
            "questions": len(questions),
            "ways": {
                name: {key: encode(value) for key, value in measured(found).items()}
                for name, found in places.items()
            },
            "gain_over_meaning": encode(gain(places["hybrid"], places["meaning"])),
            "gain_over_words": encode(gain(places["hybrid"], places["words"])),
            "given": encode(given(ways["hybrid"], texts, encoder)),
            "search_ms": speed(ways["hybrid"], texts[:200]),
        }
    return told


def _print(report: Mapping[str, Any]) -> None:
    for subject, found in report["subjects"].items():
        print(f"{subject}: {found['questions']} questions, search {found['search_ms']} ms")
        for way, measures in found["ways"].items():
            print(f"  {way:8}", "  ".join(f"{k} {_told(v)}" for k, v in measures.items()))
        for name in ("gain_over_meaning", "gain_over_words", "given"):
            print(f"  {name} {_told(found[name])}")
    print(f"off topic, given: {_told(report['off_topic_given'])}")


def _told(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} [{found['low']:.3f} to {found['high']:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
