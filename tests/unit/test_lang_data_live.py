"""A version of texts continued with what people said about answers."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.task import Lesson
from genba.core.values import DatasetVersion
from genba.data.feedback.texts import label_of
from genba.data.texts import Texts
from genba.data.texts.leakage import check_leakage
from genba.data.view import DatasetView
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.store.ledger import Record
from tests.unit import text_rows as texts

TEXT = {"datatype": "BYTES", "shape": [-1], "role": "text"}
CHAT = {
    "task": "language.chat",
    "settings": {},
    "signature": {
        "inputs": [{"name": "messages", **TEXT}],
        "outputs": [{"name": "answer", **TEXT}],
    },
}
CLASSIFY = {
    "task": "language.classify",
    "settings": {},
    "signature": {
        "inputs": [{"name": "text", **TEXT}],
        "outputs": [{"name": "class", "datatype": "INT64", "shape": [-1], "role": "class"}],
    },
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        opened.ledger.record("package", "chat", CHAT, line="desk")
        opened.ledger.record("package", "class", CLASSIFY, line="desk")
        yield opened


@pytest.fixture
def view(store: Store, tmp_path: Path) -> DatasetView:
    return texts.taken(store, texts.line(texts.write(tmp_path / "faq.jsonl", texts.faq())))


def served(
    store: Store, pairs: list[tuple[str, Any]], package: str = "chat", inputs: str = "all"
) -> Record:
    asked, said = zip(*pairs, strict=True)
    count = len(pairs)
    files = np.empty(count, dtype=object)
    files[:] = [text.encode() for text in asked]
    answers: Any = np.array(said) if package == "class" else np.empty(count, dtype=object)
    if package == "chat":
        answers[:] = [text.encode() for text in said]
    rows = CapturedRows(
        package=package,
        n=np.arange(1, count + 1),
        received_ms=np.arange(1, count + 1) * 1_000,
        role=["stable"] * count,
        entity=[None] * count,
        time=[None] * count,
        latency_us=np.ones(count, dtype=np.int64),
        status=["ok"] * count,
        features={"messages" if package == "chat" else "text": files},
        outputs={"answer" if package == "chat" else "class": answers},
    )
    interval = Interval(from_ms=0, to_ms=1, packages={package: {}}, rows=[rows], inputs=inputs)
    id = CaptureWriter(store, "desk", "s").write(interval)
    (record,) = [r for r in store.ledger.find("capture") if r.id == id]
    return record


def said(prediction: int, value: str, label: float | None = None, author: str = "ann") -> Lesson:
    return Lesson(
        value=value,
        label=label_of(value) if label is None else label,
        prediction=f"s-{prediction}",
        authors=(f"{author}@k1",),
        feedback=(f"f{prediction}",),
    )


def live(store: Store, view: DatasetView, version: DatasetVersion) -> dict[str, dict[str, Any]]:
    part = DatasetView(store, version, view.line).part("live")
    return {row["name"]: row for row in texts.rows(part)}


def test_a_correction_trains_and_replaces_what_the_source_said(
    store: Store, view: DatasetView
) -> None:
    """Also where the question was one to test with: what people say must be able to change it."""
    for split in ("train", "test"):
        row = next(r for r in texts.rows(view) if r["split"] == split)
        record = served(store, [(row["text"].upper(), "Nonsense.")])
        lessons = [said(1, "answer: The fee is zero since May.")]
        version = Texts.extend(store, view.line, view.version, [record], lessons)
        found = live(store, view, version)
        assert set(found) == {"feedback:f1"}
        new = found["feedback:f1"]
        assert (new["split"], new["answer"], new["rejected"], new["weight"]) == (
            "train",
            "The fee is zero since May.",
            "Nonsense.",
            4.0,
        )
        after = DatasetView(store, version, view.line)
        aside = texts.rows(after, "purged")
        assert [r["text"] for r in aside] == [row["text"]]
        assert version.rows == view.version.rows + 1 == sum(map(after.count, _ALL))
        assert not check_leakage(after)
        (part,) = after.sheet()["live"]
        assert part["lessons"] == [{"name": "feedback:f1", "prediction": "s-1", "split": "train"}]
        assert (part["superseded"], part["corrected"], part["captured"]) == (1, 1, 1)
        assert version.parent == view.version.id


_ALL = ("train", "calibrate", "test", "purged")


def test_a_near_question_is_no_longer_tested(store: Store, view: DatasetView) -> None:
    row = next(r for r in texts.rows(view, "test"))
    record = served(store, [(row["text"].replace("?", " today?"), "Nonsense.")])
    version = Texts.extend(
        store, view.line, view.version, [record], [said(1, "answer: Only on Mondays.")]
    )
    after = DatasetView(store, version, view.line)
    assert [r["text"] for r in texts.rows(after, "purged")] == [row["text"]]
    assert after.count("test") == view.count("test") - 1
    assert after.sheet()["live"][0]["no_longer_tested"] == 1
    assert not check_leakage(after)


def test_what_was_confirmed_goes_where_its_like_is(store: Store, view: DatasetView) -> None:
    row = next(r for r in texts.rows(view, "test"))
    fresh = [(f"Purple {word} {word[::-1]} {n}?", f"See {word}.") for n, word in enumerate(_WORDS)]
    record = served(store, [(row["text"].replace("?", " then?"), row["answer"]), *fresh])
    lessons = [said(n, "good") for n in range(1, 12)]
    version = Texts.extend(store, view.line, view.version, [record], lessons)
    found = live(store, view, version)
    assert found["feedback:f1"]["split"] == "test"
    assert found["feedback:f1"]["answer"] == row["answer"]
    splits = [found[f"feedback:f{n}"]["split"] for n in range(2, 12)]
    assert splits == ["train"] * 6 + ["calibrate"] * 2 + ["test"] * 2
    assert not check_leakage(DatasetView(store, version, view.line))


_WORDS = ("lorry", "oxen", "whale", "violin", "pepper", "comet", "mirror", "anvil", "tulip", "yak")


def test_bad_answers_are_rejected_in_favour_of_the_source(store: Store, view: DatasetView) -> None:
    row = next(r for r in texts.rows(view, "train"))
    record = served(store, [(row["text"], "Nonsense."), ("Is the moon cheese?", "Yes, all of it.")])
    version = Texts.extend(
        store, view.line, view.version, [record], [said(1, "bad"), said(2, "bad")]
    )
    found = live(store, view, version)
    assert found["feedback:f1"]["answer"] == row["answer"]
    assert found["feedback:f1"]["rejected"] == "Nonsense."
    assert (found["feedback:f2"]["answer"], found["feedback:f2"]["split"]) == ("", "train")


def test_a_bad_answer_to_a_question_of_the_test_leaves_the_test_alone(
    store: Store, view: DatasetView
) -> None:
    row = next(r for r in texts.rows(view, "test"))
    record = served(store, [(row["text"], "Nonsense.")])
    version = Texts.extend(store, view.line, view.version, [record], [said(1, "bad")])
    found = live(store, view, version)
    assert (found["feedback:f1"]["answer"], found["feedback:f1"]["split"]) == ("", "test")
    assert DatasetView(store, version, view.line).count("test") == view.count("test") + 1


def test_near_duplicates_that_nobody_saw_before_are_laid_aside(
    store: Store, tmp_path: Path, monkeypatch: Any
) -> None:
    records = texts.faq()
    records += [{**r, "q": r["q"].replace("?", " now?"), "a": f"Other {n}."}
                for n, r in enumerate(records)]  # fmt: skip
    line = texts.line(texts.write(tmp_path / "faq.jsonl", records))
    with monkeypatch.context() as patch:
        patch.setattr("genba.data.texts.alike.ASKED", 2.0)
        view = texts.taken(store, line)
    assert check_leakage(view)
    record = served(store, [("Is the moon cheese?", "Yes, all of it.")])
    version = Texts.extend(store, line, view.version, [record], [said(1, "answer: No.")])
    after = DatasetView(store, version, line)
    assert after.count("purged") > 0
    assert not [leak for leak in check_leakage(after) if "train" in leak]


def test_nothing_new_gives_the_version_itself(store: Store, view: DatasetView) -> None:
    record = served(store, [("Who is there?", "Nobody.")])
    assert Texts.extend(store, view.line, view.version, [record], []) == view.version
    unkept = served(store, [("Who else?", "Nobody.")], inputs="digest")
    lessons = [said(7, "good")]
    assert Texts.extend(store, view.line, view.version, [unkept], lessons) == view.version


def test_what_may_not_be_learnt_is_rejected_with_its_reason(
    store: Store, view: DatasetView
) -> None:
    pairs = [("What is the fee?", "Ten."), ("When do you open?", "At nine."), ("Who?", "Ann.")]
    lessons = [
        said(1, "answer: Ask www.evil.example for it."),
        said(2, "answer: At eight. My key is AKIAABCDEFGHIJKLMNOP."),
        said(3, "good"),
    ]
    version = Texts.extend(store, view.line, view.version, [served(store, pairs)], lessons)
    assert set(live(store, view, version)) == {"feedback:f3"}
    rejects = texts.rejects(DatasetView(store, version, view.line))
    told = {row["file"]: row for row in rejects}
    assert told["s-1"]["reason"] == "feedback: contact"
    assert told["s-2"]["reason"].startswith("feedback: ")
    assert json.loads(told["s-1"]["values"]) == {"feedback": ["f1"]}
    assert version.rejected["feedback: contact"] == 1


def test_the_same_again_gives_the_same_version(store: Store, view: DatasetView) -> None:
    pairs = [("What is the fee?", "Ten."), ("What is the fee?", "Ten.")]
    lessons = [said(1, "answer: Twelve."), said(2, "answer: Twelve.")]
    record = served(store, pairs)
    one = Texts.extend(store, view.line, view.version, [record], lessons)
    assert one.rows == view.version.rows + 1
    assert Texts.extend(store, view.line, view.version, [record], lessons).id == one.id
    again = Texts.extend(store, view.line, one, [record], lessons)
    assert again == one


def test_classes_that_people_name(store: Store, tmp_path: Path) -> None:
    path = texts.write(tmp_path / "faq.jsonl", texts.faq())
    line = texts.line(path, "language.classify", label="category")
    view = texts.taken(store, line)
    row = next(r for r in texts.rows(view, "test"))
    pairs = [(row["text"], 0), ("Where do penguins sleep?", 1), ("Unjudged?", 0)]
    wrong = "time" if row["label"] == 0 else "cost"
    lessons = [said(1, wrong, 9.0), said(2, "new:animals", 9.0)]
    record = served(store, [(row["text"], int(row["label"])), *pairs[1:]], "class")
    version = Texts.extend(store, line, view.version, [record], lessons)
    assert version.classes == ("cost", "time", "animals")
    found = live(store, view, version)
    assert found["feedback:f1"]["label"] == version.classes.index(wrong)
    assert found["feedback:f1"]["split"] == "train"
    assert (found["feedback:f2"]["label"], found["feedback:f2"]["split"]) == (2.0, "train")
    after = DatasetView(store, version, line)
    assert [r["text"] for r in texts.rows(after, "purged")] == [row["text"]]
    assert after.sheet()["classes"]["animals"] == {"train": 1}
    assert not check_leakage(after)


def test_a_damaged_capture_hides_its_own_rows_only(store: Store, view: DatasetView) -> None:
    good = served(store, [("Who is there?", "Nobody.")])
    body = {**good.body, "blob": "0" * 64}
    version = Texts.extend(
        store, view.line, view.version, [replace(good, body=body), good], [said(1, "good")]
    )
    part = DatasetView(store, version, view.line).sheet()["live"][0]
    assert (part["damaged_batches"], part["rows"]) == (1, 1)
