"""Search in the documents of a package: by meaning and words, for who may see what."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from genba.core.codec import encode
from genba.core.digest import canonical_json, digest_bytes
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.documents.index import files_of
from genba.data.documents.reading import Read
from genba.edge import passages as module
from genba.edge.assistant import Question
from genba.edge.assistant.seams import Embed
from genba.edge.encoder import Encoder
from genba.edge.keywords import Keywords
from genba.edge.passages import Document, Entry, LibrarySettings, Passages, read_shelf
from genba.learn.encoder import LETTERS, load_encoder
from genba.learn.retrieval import measured, rank_of
from genba.runs.progress import SilentProgress

NOW_MS = 1_800_000_000_000
TEXTS = (
    ("open.md", "Opening", "The office opens at eight and closes at five."),
    ("oil.md", "Oil", "Pump P3 takes two litres of mineral oil, changed every year."),
    ("salaries.md", "Salaries", "Salaries are paid on the last working day of the month."),
    ("offer.md", "Offer", "This winter the inspection of a pump costs half."),
)


@pytest.fixture(scope="module")
def graph() -> bytes:
    return load_encoder(LETTERS)


@pytest.fixture(scope="module")
def embed(graph: bytes) -> Embed:
    return Encoder(graph).embed


def document(name: str, title: str, **more: Any) -> Document:
    return Document(name=name, title=title, source="files:x", digest="0" * 64, **more)


def read(**changes: Mapping[str, Any]) -> Read:
    """Return four documents of one passage each; changes by name without its end."""
    found = Read()
    for number, (name, title, text) in enumerate(TEXTS):
        more = changes.get(name.partition(".")[0], {})
        found.documents.append(document(name, title, **more))
        found.passages.append(Entry(id=f"id{number}", document=number, place="", text=text))
    return found


@pytest.fixture
def library(graph: bytes, embed: Embed) -> Callable[..., Passages]:
    def make(clock_ms: int = NOW_MS, read: Read | None = None, **settings: Any) -> Passages:
        files, _ = files_of(read or READ, embed, digest_bytes(graph), SilentProgress())
        made = Passages.open({**files, "encoder.onnx": graph}, settings, embed)
        return Passages(
            made.shelf, made._vectors, embed, made.settings, clock=lambda: clock_ms / 1_000
        )

    return make


READ = read(
    salaries={"access": ("staff",)}, offer={"until_ms": NOW_MS, "changed_ms": 5}, oil={"access": ()}
)


def question(text: str, *access: str) -> Question:
    return Question([{"role": "user", "content": text}], access=frozenset(access))


def names(found: Any) -> list[str]:
    return [passage.document for passage in found]


def test_the_passage_that_answers_comes_first(library: Callable[..., Passages]) -> None:
    made = library()
    found = made.search(question("How much oil does the pump P3 take?"))
    assert names(found)[0] == "oil.md"
    assert found[0].title == "Oil"
    assert found[0].score >= made.settings.least
    assert made.search(question("   ")) == ()


def test_what_has_nothing_to_do_with_it_is_not_found(library: Callable[..., Passages]) -> None:
    made = library()
    assert made.search(question("zxqv wjkh")) == ()
    assert len(made.find("zxqv wjkh")) == 2  # however far they are


def test_only_who_may_see_a_document_finds_it(library: Callable[..., Passages]) -> None:
    made = library()
    asked = "When are salaries paid?"
    assert "salaries.md" not in names(made.find(asked, most=9))
    assert "salaries.md" not in names(made.find(asked, {"guests"}, most=9))
    assert names(made.find(asked, {"guests", "staff"}))[0] == "salaries.md"
    assert names(made.search(question(asked, "staff")))[0] == "salaries.md"


def test_a_document_ends(library: Callable[..., Passages]) -> None:
    asked = "What does the inspection cost this winter?"
    assert names(library(NOW_MS - 1).find(asked))[0] == "offer.md"
    assert "offer.md" not in names(library(NOW_MS).find(asked, most=9))


def test_of_two_that_say_the_same_the_newer_one_is_given(
    graph: bytes, embed: Embed, library: Callable[..., Passages]
) -> None:
    both = Read()
    for number, changed in enumerate((1, 9, 5)):
        both.documents.append(document(f"v{number}.md", "Oil", changed_ms=changed))
        both.passages.append(
            Entry(id=f"id{number}", document=number, place="", text="Two litres of oil." + " " * 9)
        )
    found = library(read=both).find("How much oil?")
    assert names(found) == ["v1.md"]
    assert found[0].updated_ms == 9


def test_an_answer_cites_what_it_says(library: Callable[..., Passages]) -> None:
    made = library()
    found = made.find("pump oil office", most=3)
    cited = made.cite("Pump P3 takes two litres of oil.", found)
    assert names(s.passage for s in cited) == ["oil.md"]
    assert cited[0].support > 0.8
    assert made.cite("Elephants are grey animals.", found) == ()
    assert made.cite("", found) == ()
    number = names(found).index("open.md") + 1
    named = made.cite(f"Elephants are grey [{number}].", found)
    assert names(s.passage for s in named) == ["open.md"]


def test_words_count_that_no_meaning_has(library: Callable[..., Passages]) -> None:
    weightless, usual = library(keywords=0.0), library()
    asked = "P3"
    gained = usual.find(asked)[0].score - weightless.find(asked)[0].score
    assert gained == pytest.approx(
        usual.settings.keywords
        * float(usual._keywords.coverage(asked, usual._open_to(()), 9).max()),
        abs=1e-5,
    )


def test_coverage_is_a_share_of_the_words() -> None:
    index = Keywords(["Pumps move water.", "Valves stop oil.", "Water, oil"], [0, 1, 0])
    everything = index.coverage("the pump moves", (0, 1), 9)
    assert everything[0] == everything.max() > 0.4
    assert everything[1] == everything[2] == 0
    assert index.coverage("oil", (0,), 9).tolist()[1] == 0
    assert index.coverage("oil", (1,), 9)[1] > 0
    assert index.coverage("", (0, 1), 9).max() == 0
    assert index.coverage("oil", (), 9).max() == 0
    assert index.coverage("oil AND (", (0, 1), 9).max() > 0  # there is no syntax


def test_languages_have_stems_of_their_own() -> None:
    swedish = Keywords(["Bilarna står ute."], [0], "sv")
    assert swedish.words("bilar") == swedish.words("bilarna")
    japanese = Keywords(["電源を切る。"], [0], "ja")
    assert japanese.coverage("電源", (0,), 1)[0] > 0
    assert Keywords(["naïve"], [0], "").coverage("naive", (0,), 1)[0] > 0


def files(graph: bytes, embed: Embed) -> dict[str, bytes]:
    made, _ = files_of(READ, embed, digest_bytes(graph), SilentProgress())
    return {**made, "encoder.onnx": graph}


def test_known_passages_are_not_embedded_again(graph: bytes, embed: Embed) -> None:
    before = files(graph, embed)
    same, new = files_of(READ, embed, digest_bytes(graph), SilentProgress(), before)
    assert (same["passages.safetensors"], new) == (before["passages.safetensors"], 0)
    changed = read()
    changed.passages[1] = replace(changed.passages[1], text="Pump P3 takes three litres.")
    _, new = files_of(changed, embed, digest_bytes(graph), SilentProgress(), before)
    assert new == 1
    _, new = files_of(READ, embed, "other", SilentProgress(), before)
    assert new == len(TEXTS)
    nothing, _ = files_of(Read(), embed, digest_bytes(graph), SilentProgress())
    empty = Passages.open({**nothing, "encoder.onnx": graph}, {}, embed)
    assert empty.find("oil") == []


def broken(name: str, data: bytes | None) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        if data is None:
            del files[name]
        else:
            files[name] = data

    return change


def altered(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        shelf = json.loads(files["passages.json"])
        files["passages.json"] = canonical_json({**shelf, **changes})

    return change


@pytest.mark.parametrize(
    "change",
    [
        broken("passages.json", b"{"),
        broken("passages.json", b"{}"),
        broken("passages.safetensors", None),
        broken("passages.safetensors", save({"embedding": np.zeros((3, 64), dtype=np.float16)})),
        broken("passages.safetensors", save({"other": np.zeros((4, 64), dtype=np.float16)})),
        broken(
            "passages.safetensors", save({"embedding": np.full((4, 64), np.nan, dtype=np.float16)})
        ),
        broken("encoder.onnx", b"another"),
        altered(format=2),
        altered(passages=[encode(Entry(id="a", document=9, place="", text="x"))]),
    ],
    ids=("text", "keys", "vectors", "fewer", "name", "nan", "encoder", "format", "document"),
)
def test_files_that_do_not_belong_together_are_refused(
    graph: bytes, embed: Embed, change: Callable[[dict[str, bytes]], None]
) -> None:
    given = files(graph, embed)
    change(given)
    with pytest.raises(Problem) as refused:
        resolve("part", "library").open(given, {}, embed)
    assert refused.value.code == "G653"


def test_documents_need_an_encoder(graph: bytes, embed: Embed) -> None:
    with pytest.raises(Problem, match="cannot be used"):
        Passages.open(files(graph, embed), {}, None)
    with pytest.raises(Problem, match="most"):
        Passages.open(files(graph, embed), {"mostt": 3}, embed)


def test_a_package_holds_so_many_passages(
    graph: bytes, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_PASSAGES", 3)
    with pytest.raises(Problem, match="cannot be used"):
        read_shelf(files(graph, embed)["passages.json"])


def test_settings_say_how_many_are_given(library: Callable[..., Passages]) -> None:
    assert len(library(most=1, least=-1.0).search(question("pump oil"))) == 1
    assert LibrarySettings().most == 3
    near = library(least=-1.0, gap=9.0, most=2)
    found = near.find("pump oil")
    behind = found[0].score - found[1].score
    assert len(near.given(found)) == 2
    assert len(library(least=-1.0, gap=behind / 2).given(found)) == 1
    assert library().given([]) == ()


def test_measures_of_a_search_have_intervals() -> None:
    found = measured([1, 1, 2, 4, None, 11])
    assert found["hit_rate_at_1"].value == pytest.approx(2 / 6)
    assert found["hit_rate_at_3"].value == pytest.approx(3 / 6)
    assert found["hit_rate_at_10"].value == pytest.approx(4 / 6)
    mrr = found["mrr"]
    assert mrr.value == pytest.approx((1 + 1 + 0.5 + 0.25) / 6)
    assert mrr.low is not None
    assert mrr.high is not None
    assert 0 <= mrr.low < mrr.value < mrr.high <= 1
    assert rank_of([str(n) for n in range(20)], frozenset({"15"})) is None
    with pytest.raises(ValueError, match="nothing"):
        measured([])
