"""From texts to a version: what is kept, what is rejected, and who trains or tests."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from genba.core.problem import Problem
from genba.data.texts.leakage import check_leakage, refuse_leakage
from genba.store.home import Store
from genba.ui.cli.sheet_report import blocks
from tests.unit import text_rows as texts


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def test_a_version_has_the_columns_and_is_the_same_again(store: Store, tmp_path: Path) -> None:
    line = texts.line(texts.write(tmp_path / "faq.jsonl", texts.faq()), label="category")
    view = texts.taken(store, line)
    assert (view.modality, view.classes, view.sensors) == ("text", ("cost", "time"), ())
    found = texts.rows(view)
    assert len(found) == 20
    assert {row["split"] for row in found} == {"train", "calibrate", "test"}
    by_name = {row["name"]: row for row in found}
    first = by_name["faq.jsonl:1"]
    assert json.loads(first["messages"]) == [{"role": "user", "content": first["text"]}]
    assert first["text"] == "What is paid for the permit?"
    assert (first["label"], first["weight"], first["rejected"], first["entity"]) == (
        1.0,
        1.0,
        "",
        0,
    )
    assert texts.taken(store, line).digest == view.digest
    refuse_leakage(view)


def test_near_duplicates_are_on_one_side_and_repeats_are_left_out(
    store: Store, tmp_path: Path
) -> None:
    records = texts.faq()
    for n in range(0, 20, 2):
        again = dict(records[n])
        records.append({**again, "q": again["q"].replace("?", " now?"), "a": f"Another {n}."})
    records.append({**records[3], "q": records[3]["q"].upper() + " !!", "category": "cost"})
    records.append(dict(records[4]))
    view = texts.taken(store, texts.line(texts.write(tmp_path / "faq.jsonl", records)))
    split = {row["name"]: row["split"] for row in texts.rows(view)}
    for n in range(10):
        assert split[f"faq.jsonl:{2 * n + 1}"] == split[f"faq.jsonl:{21 + n}"]
    assert view.version.rejected == {"near-duplicate": 1, "duplicate": 1}
    told = {row["reason"]: row for row in texts.rejects(view)}
    assert told["near-duplicate"]["detail"] == "like faq.jsonl:4"
    assert view.sheet()["alike"]["groups"] == 11
    assert not check_leakage(view)


def test_a_sheet_of_texts_can_be_read(store: Store, tmp_path: Path) -> None:
    records = [*texts.faq(), {**texts.faq()[0], "q": "WHAT IS PAID FOR THE PERMIT"}]
    records[1]["a"] += " Mail ann@shop.co.jp."
    view = texts.taken(store, texts.line(texts.write(tmp_path / "faq.jsonl", records)))
    shown = Console(width=200, record=True, file=StringIO())
    for block in blocks(view.sheet()):
        shown.print(block)
    told = shown.export_text()
    assert "20 answers; " in told
    assert "masked: 1 email" in told
    assert "2 texts in 1 groups, each on one side of the split" in told


def test_what_stands_within_another_answer_is_on_its_side(store: Store, tmp_path: Path) -> None:
    records = texts.faq()
    words = (
        "lorry",
        "oxen",
        "whale",
        "violin",
        "pepper",
        "comet",
        "mirror",
        "anvil",
        "tulip",
        "yak",
    )
    for n, word in enumerate(words):
        long = f"You asked before. {records[n]['a']} Thank you for calling us again number {n}."
        records.append({"q": f"{word} {word[::-1]} {n * 31}, {word}?", "a": long})
    view = texts.taken(store, texts.line(texts.write(tmp_path / "faq.jsonl", records)))
    split = {row["name"]: row["split"] for row in texts.rows(view)}
    for n in range(10):
        assert split[f"faq.jsonl:{n + 1}"] == split[f"faq.jsonl:{21 + n}"]


def test_conversations_stay_together(store: Store, tmp_path: Path) -> None:
    records = []
    for n, pair in enumerate(texts.faq()):
        turns = [pair["q"], pair["a"], f"And what if {n * 17} of them?", f"Then {n} more."]
        roles = ("user", "assistant") * 2
        said = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=True)]
        records.append({"messages": said})
    view = texts.taken(store, texts.line(texts.write(tmp_path / "talk.jsonl", records)))
    split = {row["name"]: row["split"] for row in texts.rows(view)}
    assert len(split) == 40
    for n in range(1, 21):
        assert split[f"talk.jsonl:{n}#1"] == split[f"talk.jsonl:{n}#2"]


def test_every_rejection_has_its_reason(store: Store, tmp_path: Path) -> None:
    bad = [
        {"q": "Empty?", "a": "  "},
        {"q": "Echo this one", "a": "Echo this one"},
        {"q": "Broken?", "a": "\ufffd\ufffd\ufffd"},
        {"q": "Long?", "a": "word " * 300 + "end"},
        {"q": "Short?", "a": "Yes"},
        {"nothing": 1},
        "text",
    ]
    path = tmp_path / "faq.jsonl"
    good = "".join(json.dumps(r) + "\n" for r in texts.faq())
    path.write_text(good + "".join(json.dumps(r) + "\n" for r in bad))
    checks = {"answer": {"min": 5, "max": 1000, "required": True}}
    view = texts.taken(store, texts.line(path, checks=checks))
    assert view.version.rejected == {
        "answer is missing": 1,
        "the answer repeats the question": 1,
        "broken characters": 1,
        "answer is longer than 1,000 characters": 1,
        "answer is shorter than 5 characters": 1,
        "no question and no answer": 1,
        "not a JSON object": 1,
    }
    rows = view.sheet()["rows"]
    assert rows["read"] == rows["kept"] + sum(rows["rejected"].values())
    assert {row["reason"] for row in texts.rejects(view)} == set(view.version.rejected)


def test_personal_data_are_masked_counted_and_may_be_refused(store: Store, tmp_path: Path) -> None:
    records = texts.faq()
    records[0]["a"] += " Mail ann@shop.co.jp or call 03-1234-5678."
    records[1]["q"] = "My card 4111 1111 1111 1111 was charged, why?"
    path = texts.write(tmp_path / "faq.jsonl", records)
    view = texts.taken(store, texts.line(path))
    by_name = {row["name"]: row for row in texts.rows(view)}
    assert by_name["faq.jsonl:1"]["answer"].endswith("Mail [email] or call [phone].")
    assert by_name["faq.jsonl:2"]["text"] == "My card [card] was charged, why?"
    assert "[card]" in by_name["faq.jsonl:2"]["messages"]
    assert view.sheet()["texts"]["personal_data"] == {"email": 1, "phone": 1, "card": 1}
    allowed = texts.taken(store, texts.line(path, checks={"personal": {"allowed": ("phone",)}}))
    answer = {row["name"]: row["answer"] for row in texts.rows(allowed)}["faq.jsonl:1"]
    assert answer.endswith("Mail [email] or call 03-1234-5678.")
    refused = texts.taken(store, texts.line(path, checks={"personal": {"max": 0}}))
    assert refused.version.rejected == {"personal data": 2}


def test_a_later_version_keeps_its_splits_and_segments(store: Store, tmp_path: Path) -> None:
    path = texts.write(tmp_path / "faq.jsonl", texts.faq(15))
    before = texts.taken(store, texts.line(path))
    texts.write(path, texts.faq(20))
    after = texts.taken(store, texts.line(path), before.version)
    old = {row["text"]: row["split"] for row in texts.rows(before)}
    new = {row["text"]: row["split"] for row in texts.rows(after)}
    assert len(new) == 20
    assert all(new[text] == split for text, split in old.items())
    assert set(before.version.segments) <= set(after.version.segments)
    assert after.version.parent == before.version.id


def test_splits_by_entity_and_time(store: Store, tmp_path: Path) -> None:
    records = [
        {**pair, "shop": f"s{n % 5}", "day": f"2026-01-{n + 1:02d}"}
        for n, pair in enumerate(texts.faq())
    ]
    path = texts.write(tmp_path / "faq.jsonl", records)
    by_entity = texts.taken(store, texts.line(path, entity="shop", split={"by": "entity"}))
    owners: dict[str, set[str]] = {}
    for row in texts.rows(by_entity):
        owners.setdefault(by_entity.entities[row["entity"]], set()).add(row["split"])
    assert len(owners) == 5
    assert all(len(splits) == 1 for splits in owners.values())
    by_time = texts.taken(store, texts.line(path, time="day", since="2026-01-03"))
    found = sorted(texts.rows(by_time), key=lambda row: row["time"])
    assert by_time.has_clock
    assert len(found) == 18
    assert [row["split"] for row in found] == ["train"] * 10 + ["calibrate"] * 4 + ["test"] * 4
    assert by_time.sheet()["rows"]["skipped"] == {"before since": 2}


def test_what_leaks_is_refused(store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    records = texts.faq()
    records += [{**r, "q": r["q"].replace("?", " now?"), "a": f"Other {n}."}
                for n, r in enumerate(records)]  # fmt: skip
    line = texts.line(texts.write(tmp_path / "faq.jsonl", records))
    with monkeypatch.context() as patch:
        patch.setattr("genba.data.texts.alike.ASKED", 2.0)
        view = texts.taken(store, line)
    with pytest.raises(Problem) as raised:
        refuse_leakage(view)
    assert raised.value.code == "G214"
    assert "near-duplicates are on two sides" in raised.value.what


@pytest.mark.parametrize(
    ("checks", "what"),
    [
        ({"anser": {"min": 1}}, "did you mean 'answer'"),
        ({"personal": {"allowed": ("mail",)}}, "no kind of personal data 'mail'"),
    ],
)
def test_checks_that_say_nothing_of_texts(
    store: Store, tmp_path: Path, checks: Any, what: str
) -> None:
    path = texts.write(tmp_path / "faq.jsonl", texts.faq())
    with pytest.raises(Problem, match=what) as raised:
        texts.taken(store, texts.line(path, checks=checks))
    assert raised.value.code == "G251"


def test_tables_are_no_texts_and_few_texts_are_too_few(store: Store, tmp_path: Path) -> None:
    path = texts.write(tmp_path / "faq.jsonl", texts.faq(2))
    with pytest.raises(Problem) as raised:
        texts.taken(store, texts.line(path))
    assert raised.value.code == "G211"
    assert "2 texts are too few" in raised.value.what
    (tmp_path / "none.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(Problem) as raised:
        texts.taken(store, texts.line(tmp_path / "none.jsonl"))
    assert raised.value.code == "G208"
