"""Texts of packages: what is made of their members, with small stand-ins for these."""

import json
from typing import Any

import pytest

from genba.core.line import Data
from genba.core.problem import Problem
from genba.data.sources import chitchat, helpdesk
from genba.data.sources.package import PackageSource

FAQ = [
    {
        "category": "roof",
        "q": "How long?",
        "a": "Two weeks. Zaragoza AB is quick. See PBL 9 kap. 3 §.",
    },
    {"category": "roof", "q": "Who is Zaragoza AB?", "a": "A firm."},
    {"category": "wall", "q": "Who paints?", "a": "Zaragoza AB paints."},
    {"category": "wall", "q": "What colour?", "a": "Any."},
]


def rows(batches: Any) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.to_pylist()]


def test_adverts_are_cut_or_left_out() -> None:
    files = {"a/faq-en.jsonl": "".join(json.dumps(r) + "\n" for r in FAQ).encode()}
    found = rows(helpdesk.batches(files, Data(source="x", label="category", entity="language")))
    assert [row["answer"] for row in found] == [
        "Two weeks. See PBL 9 kap. 3 §.",
        "A firm.",
        "",
        "Any.",
    ]
    assert [row["_reason"] for row in found] == [None, *["advertises the publisher"] * 2, None]
    assert found[0]["note"] == "a sentence that advertises the publisher was cut"
    assert (found[0]["label"], found[0]["entity"], found[0]["name"]) == (
        "roof",
        "en",
        "faq-en.jsonl:1",
    )


def test_columns_that_are_not_there_are_refused() -> None:
    with pytest.raises(Problem) as raised:
        rows(helpdesk.batches({}, Data(source="x", label="kind")))
    assert raised.value.code == "G204"
    assert raised.value.tries == ('label = "category"',)
    with pytest.raises(Problem, match="no column 'who'"):
        rows(chitchat.batches({}, Data(source="x", entity="who")))


def test_the_second_speaker_answers() -> None:
    def said(*texts: str) -> list[dict[str, str]]:
        return [{"text": t, "timestamp": f"2018-05-02T19:38:1{n}Z"} for n, t in enumerate(texts)]

    talks = {
        "0123456789": {"messages": [said("Hi", "there"), said("Hello"), said("Bye?"), said("Bye")]},
        "silence": {"messages": []},
    }
    files = {"x/dataset.json": json.dumps(talks).encode()}
    found = rows(chitchat.batches(files, Data(source="x", time="time")))
    assert [(r["name"], r["answer"], r["time"]) for r in found[:2]] == [
        ("dataset.json:01234567#1", "Hello", "2018-05-02T19:38:11Z"),
        ("dataset.json:01234567#2", "Bye", "2018-05-02T19:38:10Z"),
    ]
    assert json.loads(found[0]["messages"])[0]["content"] == "Hi\nthere"
    assert found[2]["_reason"] == "no answer of the assistant"


@pytest.mark.network
def test_the_helpdesk_package() -> None:
    source = PackageSource("helpdesk-faq", Data(source="package:helpdesk-faq"))
    assert source.facts().licence == "CC BY 4.0"
    found = [row for batch, _ in source.batches() for row in batch.to_pylist()]
    assert len(found) == 503
    assert sum(row["_reason"] is None for row in found) == 501
    assert not [r for r in found if r["_reason"] is None and "zaragoza" in r["answer"].lower()]


@pytest.mark.network
def test_languages_are_told() -> None:
    fasttext = pytest.importorskip("genba.data.texts.language").FastText()
    assert fasttext.language("The roof of the house is made of slate and will last.") == "en"
    assert fasttext.language("Taket på huset är gjort av skiffer och håller länge.") == "sv"
    assert fasttext.language("屋根はスレートで作られており、とても長持ちします。") == "ja"
    assert fasttext.language("Ja.") == ""
