"""language.classify end to end: learn, answer, abstain, export, judge, explain."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.line import Budget, Line, Train
from genba.core.problem import Problem
from genba.core.task import Model
from genba.edge.texts import as_bytes
from genba.engines.onnxruntime import OnnxRuntime
from genba.learn.classes import chosen
from genba.learn.classes.heads import Lesson, train
from genba.learn.classes.scope import Scope, learn_scope, mixed
from genba.runs.effort import Cancelled, Effort
from genba.store.home import Store
from genba.tasks.language.classify import LanguageClassify, example, explain, fit, schema
from genba.testing.subject import Subject
from genba.testing.tasks import task_checks
from tests.unit.lang_classes import Row, TextView

TASK = LanguageClassify()
NAMES = ("delivery", "opening hours", "password", "refund")


def asked(each: int, *names: str, seed: int = 0) -> list[Row]:
    chance = np.random.default_rng(seed)
    rows = [(example.question(n, chance), n) for n in names or NAMES for _ in range(each)]
    return [rows[int(at)] for at in chance.permutation(len(rows))]


def view_of(each: int = 30, *names: str, **options: Any) -> TextView:
    splits = {
        "train": asked(each, *names, seed=1),
        "calibrate": asked(10, *names, seed=2),
        "test": asked(12, *names, seed=3),
    }
    view = TextView(splits)
    view.line = replace(view.line, options={"encoder": "letters", **options})
    return view


def learned(view: TextView, trials: int = 2) -> Model:
    settings = TASK.derive(view.line, view)
    return TASK.fit(view, settings, Effort.simple(trials=trials, minutes=5))


@pytest.fixture(scope="module")
def view() -> TextView:
    return view_of(30, *NAMES, "oos")


@pytest.fixture(scope="module")
def model(view: TextView) -> Model:
    return learned(view)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("classify") / "home") as opened:
        yield opened


@pytest.fixture(scope="module")
def subject(view: TextView, model: Model, store: Store) -> Subject:
    settings = TASK.derive(view.line, view)
    return Subject(
        task=TASK, store=store, view=view, settings=settings, model=fitted_as_kit(view, settings)
    )


def fitted_as_kit(view: TextView, settings: dict[str, Any]) -> Model:
    return TASK.fit(view, settings, Effort.simple(seed=0, minutes=1, trials=2))


def checks() -> list[str]:
    return list(task_checks(None))  # type: ignore[arg-type]  # only the names are wanted


@pytest.mark.parametrize("name", checks())
def test_the_contract_holds(name: str, subject: Subject) -> None:
    task_checks(subject)[name]()


def test_questions_are_told_apart_and_others_are_refused(view: TextView, model: Model) -> None:
    found = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert found.measures["accuracy"].value > 0.95
    assert found.measures["scope_auroc"].value > 0.95
    assert found.measures["out_refused"].value > 0.9
    assert found.measures["in_answered"].value > 0.9
    assert "recall_oos" not in found.measures
    assert len(found.evidence["row"]) == 48


def test_probabilities_leave_room_for_what_is_out_of_scope(model: Model) -> None:
    texts = as_bytes(["where is my parcel now", "fuzzy wizards vex jumpy nothing"])
    found = TASK.reference(model)({"text": texts, "abstain_below": np.zeros(2, np.float32)})
    inside, outside = found["probability"].sum(axis=1)
    assert inside > 0.8 > 0.3 > outside
    assert found["class"].tolist()[0] == model.settings["classes"].index("delivery")
    assert found["class"].tolist()[1] == -1 or found["probability"][1].max() < 0.3


def test_without_examples_of_it_scope_is_learned_by_leaving_classes_out() -> None:
    view = view_of(30, *NAMES)
    model = learned(view)
    assert model.settings["outside_class"] == -1
    assert model.settings["calibrated_on"]["outside"] > 50
    texts = as_bytes([text for text, _ in asked(20, "oos", seed=9)])
    inside = as_bytes([text for text, _ in asked(20, seed=9)])
    predict = TASK.reference(model)
    sums = [
        predict({"text": t, "abstain_below": np.zeros(len(t), np.float32)})["probability"].sum(1)
        for t in (texts, inside)
    ]
    assert np.median(sums[0]) < np.median(sums[1]) - 0.2
    assert "scope_auroc" not in TASK.score(predict, view, "test", model.settings).measures


def test_two_classes_are_enough_and_nothing_is_known_of_what_else_there_is() -> None:
    model = learned(view_of(20, "refund", "password"))
    assert model.arrays["scope.weight"].tolist() == [0.0, 0.0]
    always = learned(view_of(20, "refund", "password", abstain=0.0, outside=0.0))
    assert always.settings["abstain_below"] == 0.0


def test_one_class_is_refused() -> None:
    with pytest.raises(Problem, match="G582"):
        learned(view_of(10, "refund", "oos"))
    view = TextView({"train": [("a", None)], "calibrate": [], "test": asked(2)})
    with pytest.raises(Problem, match="G582"):
        learned(view)


def test_one_text_per_class_is_enough_to_begin() -> None:
    view = TextView({"train": asked(1), "calibrate": [], "test": asked(5, seed=3)})
    model = learned(view)
    assert model.candidate == "prototype"
    assert TASK.score(TASK.reference(model), view, "test", model.settings).measures


def test_few_texts_are_calibrated_on_what_was_held_out() -> None:
    view = TextView({"train": asked(8), "calibrate": asked(1, seed=5), "test": asked(5, seed=3)})
    model = learned(view)
    assert model.settings["calibrated_on"]["source"] == "training texts held out in turn"


def test_shots_bound_what_is_learned_from() -> None:
    view = view_of(30, *NAMES, shots=3)
    assert learned(view).settings["rows"]["train"] == 12


def test_every_candidate_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "_MANY", 100)
    for name in schema.CANDIDATES:
        view = view_of(40, *NAMES, balance=True)
        view.line = replace(view.line, train=Train(candidates=(name,), budget=Budget(trials=1)))
        monkeypatch.setattr(fit, "_FEW", 5)
        model = learned(view, trials=1)
        assert model.candidate == name
        measures = TASK.score(TASK.reference(model), view, "test", model.settings).measures
        assert measures["accuracy"].value > 0.9
        graph = OnnxRuntime(TASK.export(model), {"precision": "float32"})
        tensors = {"text": as_bytes(["I want money back"]), "abstain_below": np.zeros(1, "f4")}
        one, other = TASK.reference(model)(tensors), graph.run(tensors)
        assert TASK.parity(one, other).passed


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"options": {"out_of_scope": "refnd"}}, "G103"),
        ({"options": {"encoder": "word2vec"}}, "G103"),
        ({"train": Train(candidates=("forest",))}, "G105"),
    ],
)
def test_a_wrong_line_is_refused(line: dict[str, Any], code: str) -> None:
    view = view_of(5)
    view.line = replace(view.line, **line)
    with pytest.raises(Problem, match=code):
        TASK.derive(view.line, view)


def test_the_class_of_what_is_out_of_scope_can_be_named() -> None:
    view = view_of(5, *NAMES, out_of_scope="refund")
    assert TASK.derive(view.line, view)["outside_class"] == NAMES.index("refund")


def test_a_plain_text_without_messages_is_classified() -> None:
    columns = {
        "text": np.array(["", "asked"], dtype=object),
        "answer": np.array(["a plain text", ""], dtype=object),
    }
    assert schema.said(columns).tolist() == ["a plain text", "asked"]


def test_texts_come_back_as_messages() -> None:
    found = schema.rows({"text": as_bytes(["Why?", '[{"role": "user", "content": "How?"}]'])})
    assert found.columns["text"].tolist() == ["Why?", "How?"]
    assert found.columns["messages"][0] == '[{"role":"user","content":"Why?"}]'


def test_an_explanation_names_the_words(model: Model) -> None:
    predict = TASK.reference(model)
    one = {"text": as_bytes(["hello where is my parcel now"]), "abstain_below": np.zeros(1, "f4")}
    found = TASK.explain(predict, one, model.settings)
    assert {a.name for a in found.attributions} == {"hello", "where", "is", "my", "parcel", "now"}
    assert found.attributions[0].share >= found.attributions[-1].share
    nothing = explain.explain(
        predict, {"text": as_bytes([""]), "abstain_below": np.zeros(1, "f4")}, model.settings
    )
    assert [a.share for a in nothing.attributions] == [1.0]


def test_baselines_and_suggestions(view: TextView, model: Model) -> None:
    found = TASK.baselines(view, model.settings)
    words = found["logistic regression on words"].measures["accuracy"].value
    assert words > found["commonest class"].measures["accuracy"].value
    assert TASK.suggest(view.line).gates["accuracy"].min == 0.6


def test_a_champion_that_does_not_know_a_class_is_wrong_about_it(model: Model) -> None:
    view = TextView({"test": [*asked(3, seed=4), ("a new thing", "warranty")]})
    found = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert found.evidence["correct"].tolist()[-1] == 0.0
    empty = TextView({"test": [("nobody knows", None)]})
    assert not TASK.score(TASK.reference(model), empty, "test", model.settings).measures


def test_stopping_stops(view: TextView) -> None:
    effort = Effort.simple()
    effort._stop.cancel()
    with pytest.raises(Cancelled):
        TASK.fit(view, TASK.derive(view.line, view), effort)


def test_an_example_line_reads_what_it_wrote(tmp_path: Path) -> None:
    line: Line = TASK.example(tmp_path)
    assert line.data.label == "intent"
    assert len((tmp_path / "questions.jsonl").read_text().splitlines()) == 200
    turned = TASK.disturbed({"text": as_bytes(["abc def"])})
    assert turned["text"].tolist() == [b"cba fed"]


def test_scope_without_a_share_is_certain() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4)).astype(np.float32)
    y = np.repeat(np.arange(4, dtype=np.int64), 10)
    lesson = Lesson(x=x, y=y, classes=4, balance=False, seed=0)
    outside = np.zeros((0, 4), dtype=np.float32)

    def learn(part: Lesson) -> Any:
        return train("prototype", part, {"shrink": 0.9})

    scope, seen = learn_scope(lesson, outside, learn, 0.0)
    assert scope.weight.tolist() == [0.0, 0.0]
    assert len(seen.inside)
    kept = Scope.of(scope.to_arrays())
    assert kept.offset == scope.offset
    few = Lesson(x=x[:2], y=np.array([0, 1]), classes=4, balance=False, seed=0)
    assert not len(learn_scope(few, outside, learn, 0.5)[1].inside)


def test_nothing_out_of_scope_changes_nothing() -> None:
    sure, right = mixed(np.ones(3), np.ones(3, dtype=bool), np.zeros(0), 0.1)
    assert sure.tolist() == [1.0, 1.0, 1.0]
    assert right.all()


@pytest.mark.network
@pytest.mark.slow
def test_the_packaged_encoder_needs_few_examples() -> None:
    train_rows = [
        ("How do I reset my password?", "password"),
        ("I cannot log in any more", "password"),
        ("Where is my order?", "delivery"),
        ("When will my package arrive?", "delivery"),
        ("I want my money back", "refund"),
        ("Please return what I paid", "refund"),
        ("What are your opening times?", "opening hours"),
        ("Are you open on Sundays?", "opening hours"),
    ]
    test_rows = [
        ("forgot my login credentials", "password"),
        ("has the parcel been sent yet", "delivery"),
        ("can I get reimbursed", "refund"),
        ("at what hour does the store close", "opening hours"),
    ]
    view = TextView({"train": train_rows, "calibrate": [], "test": test_rows})
    view.line = replace(view.line, options={})
    model = learned(view)
    found = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert found.measures["accuracy"].value == 1.0
