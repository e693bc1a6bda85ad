"""The measurement of search: what is asked of what, and what the page says of it."""

from typing import Any

import pytest

from benchmarks.retrieval import page, run
from genba.data.documents.reading import Read
from genba.edge.encoder import Encoder
from genba.edge.passages import Document, Entry, Passages
from genba.learn.encoder import LETTERS, load_encoder

TEXTS = {
    "2.1. How is oil changed?": "Open the lower screw and let it run into a bowl.",
    "Short": "Pumps are heavy things to carry.",
    "3. Why is it so loud?": "3. Why is it so loud? Because of air.",
}


def read_all(*_: Any) -> Read:
    read = Read()
    for name, source in (("FAQ.html", "package:nut-doc"), ("other.html", "package:nut-doc")):
        read.documents.append(Document(name=name, title="Manual", source=source, digest=""))
        for place, text in TEXTS.items():
            number = len(read.documents) - 1
            read.passages.append(
                Entry(id=f"{name}{place}", document=number, place=f"A > {place}", text=text)
            )
    return read


def test_headings_are_asked_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read_all", read_all)
    corpus = run.Corpus([("Do I need a permit?", "Mostly not.")])
    assert corpus.questions == {
        "helpdesk": [("Do I need a permit?", frozenset({"faq:0"}))],
        "nut-faq": [
            ("How is oil changed?", frozenset({"FAQ.html2.1. How is oil changed?"})),
        ],
        "debian-faq": [],
    }
    places = [entry.place for entry in corpus.read.passages]
    assert places[:3] == ["", "", ""]
    assert all(places[3:6])
    assert corpus.manuals == 6
    graph = load_encoder(LETTERS)
    encoder = Encoder(graph)
    files = run.library(corpus.read, graph, encoder, {})
    del corpus.questions["debian-faq"]
    told = run._subjects(corpus, files, encoder)
    assert told["helpdesk"]["questions"] == 1
    assert 0 <= told["nut-faq"]["ways"]["hybrid"]["mrr"]["value"] <= 1
    none = run.given(Passages.open(files, {"least": 9}, encoder.embed), ["a"], encoder)
    report = {
        "measured": "today",
        "machine": {"processor": "P"},
        "passages": 7,
        "subjects": {n: _whole(found) for n, found in told.items()},
        "off_topic_given": {"value": none.value, "low": none.low, "high": none.high},
    }
    text = "\n".join(page.page(report))
    assert "| helpdesk (1) | words |" in text
    assert "0.000 [0.000 to" in text


def _whole(found: dict[str, Any]) -> dict[str, Any]:
    """Give what a single question has no interval for one."""
    for measure in (*found["ways"].values(), found):
        for one in measure.values():
            if isinstance(one, dict) and "value" in one:
                one.setdefault("low", one["value"])
                one.setdefault("high", one["value"])
    return found


def test_a_gain_is_paired() -> None:
    gain = run.gain([1, 2, 1, None], [2, 2, 1, None])
    assert gain.value == pytest.approx(0.125)
    assert gain.low is not None
    assert gain.low >= 0
