"""The task `language.chat` on a tiny model: conversations, answers and feedback."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.task import Model, Scores
from genba.core.values import Measure
from genba.edge.texts import as_bytes
from genba.learn.language.distil import Answered
from genba.runs.effort import Effort
from genba.tasks.language.chat import (
    LanguageChat,
    compare,
    judge,
    parity,
    schema,
    score,
    teacher,
    yardstick,
)
from genba.tasks.language.chat.files import contacts
from genba.tasks.language.chat.quality import exact, fuzzy, normalised
from tests.unit.lang_view import TextView, objects

TASK = LanguageChat()


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> TextView:
    return TextView.of(TASK.example(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="module")
def settings(view: TextView) -> dict[str, Any]:
    return TASK.derive(view.line, view)


@pytest.fixture(scope="module")
def model(view: TextView, settings: dict[str, Any]) -> Model:
    return TASK.fit(view, settings, Effort.simple(minutes=1))


@pytest.fixture(autouse=True)
def nothing_said_before() -> Iterator[None]:
    yield
    yardstick._KEPT.clear()


def test_training_helps_and_it_is_measured(view: TextView, model: Model) -> None:
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    gain = scores.measures["loss_gain"]
    assert gain.low is not None
    assert gain.low > 0.5
    base, loss = scores.measures["base_loss"].value, scores.measures["loss"].value
    assert gain.value == pytest.approx(base - loss)
    assert scores.measures["perplexity"].value == pytest.approx(np.exp(loss))
    assert {"exact_match", "fuzzy_match", "similarity", "similarity_gain", "ended"} <= set(
        scores.measures
    )
    assert "lessons" not in scores.measures
    assert "judged_better" not in scores.measures


def test_the_package_answers_as_the_reference_thinks(view: TextView, model: Model) -> None:
    columns = next(iter(view.chunks("test")))
    tensors = TASK.samples(columns, model.settings).tensors
    engine = yardstick.open_talk(TASK.export(model))
    try:
        found = TASK.parity(TASK.reference(model)(tensors), engine.run(tensors))
    finally:
        engine.close()
    assert found.passed, found


def test_baselines_are_the_base_and_the_nearest_question(view: TextView, model: Model) -> None:
    found = TASK.baselines(view, model.settings)
    assert set(found) == {"the base model", "answer to the nearest question"}
    assert found["the base model"].measures["loss"].value > 5


def test_rows_without_an_answer_teach_nothing(view: TextView, settings: dict[str, Any]) -> None:
    empty = replace_rows(view, [(question, "") for question, _ in view.rows])
    assert not list(score.answered(empty, "test"))
    assert score.score(lambda t: {}, empty, "test", settings).measures == {}
    with pytest.raises(Problem) as refused:
        TASK.fit(empty, settings, Effort.simple())
    assert refused.value.code == "G572"


def test_preferences_need_pairs(view: TextView, settings: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refused:
        TASK.fit(view, {**settings, "method": "dpo"}, Effort.simple())
    assert refused.value.code == "G572"
    assert "pairs" in refused.value.what


def test_preferences_are_learned(view: TextView, settings: dict[str, Any]) -> None:
    rejected = {n: "No idea." for n in range(len(view.rows))}
    pairs = TextView(view.line, view.rows, rejected=rejected)
    made = TASK.fit(pairs, {**settings, "method": "dpo", "epochs": 2}, Effort.simple(minutes=1))
    assert made.candidate == "dpo"


def test_what_people_corrected_is_asked_again(view: TextView, model: Model) -> None:
    names, weights = {0: "feedback:f1", 1: "feedback:f2"}, {0: 4.0, 1: 1.0}
    taught = TextView(view.line, view.rows, names=names, weights=weights)
    found = score._lessons(TASK.reference(model), taught, model.settings)
    assert found["lessons"].n == 1  # the other was found good as it was


def test_another_base_is_noticed(model: Model, tmp_path: Path) -> None:
    said = {**model.settings["base"], "digest": "0" * 64}
    other = replace(model, settings={**model.settings, "base": said})
    with pytest.raises(Problem) as refused:
        TASK.export(other)
    assert refused.value.code == "G573"


def test_no_engine_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yardstick, "installed", lambda _: ("onnxruntime", "speller"))
    with pytest.raises(Problem) as refused:
        yardstick.open_talk(b"GGUF")
    assert refused.value.code == "G570"


def test_an_engine_that_cannot_says_why() -> None:
    with pytest.raises(Problem) as refused:
        yardstick.open_talk(b"GGUF, but nothing else")
    assert refused.value.code != "G570"


def test_candidates_are_methods(view: TextView) -> None:
    train = replace(view.line.train, candidates=("full",))
    assert TASK.derive(replace(view.line, train=train), view)["method"] == "full"
    train = replace(view.line.train, candidates=("fulll",))
    with pytest.raises(Problem) as refused:
        TASK.derive(replace(view.line, train=train), view)
    assert refused.value.code == "G105"


def test_suggested_gates_leave_those_that_are_there(view: TextView) -> None:
    assert TASK.suggest(view.line).gates["loss_gain"].min == 0.1
    assert TASK.suggest(replace(view.line, gates={})).gates["loss_gain"].min == 0.0


def test_the_system_message_goes_in_front() -> None:
    said = schema.with_system('[{"role":"user","content":"Hi"}]', {"system": "Be brief."})
    assert [m["role"] for m in json.loads(said)] == ["system", "user"]
    assert schema.with_system(said, {"system": "Another."}) == said
    assert schema.with_system("[]", {"system": "Be brief."}) == "[]"


def test_answers_are_compared_by_question() -> None:
    old = scores_of([1.0, 2.0, 1.5] * 20, 0.0)
    better = compare.compare(old, scores_of([0.5, 1.5, 1.0] * 20, 0.2), "frozen test set")
    assert [c.name for c in better] == ["loss", "unlike"]
    assert all(c.better for c in better)
    worse = compare.compare(old, scores_of([2.0, 3.0, 2.5] * 20, -0.2), "frozen test set")
    assert all(c.worse for c in worse)
    nothing = replace(old, evidence={"row": np.array([999])})
    assert compare.compare(old, nothing, "frozen test set") == ()


def scores_of(loss: list[float], alike: float) -> Any:
    rows = np.arange(len(loss))
    return Scores(
        measures={},
        evidence={
            "row": rows,
            "loss": np.array(loss),
            "tokens": np.full(len(rows), 10.0),
            "block": rows,
            "written_row": rows[:12],
            "written_similarity": np.linspace(0.4, 0.6, 12) + alike,
        },
    )


@pytest.mark.parametrize(
    ("off", "tokens", "passed"), [(0.01, 3, True), (0.5, 3, False), (0.01, 4, False)]
)
def test_parity_is_about_thoughts_and_tokens(off: float, tokens: int, passed: bool) -> None:
    one = {"log_probability": np.full(4, -2.0), "tokens": np.array([[9, 3]] * 4)}
    other = {"log_probability": np.full(4, -2.0 - off), "tokens": np.array([[9, tokens]] * 4)}
    assert parity.parity(one, other).passed == passed
    assert not parity.parity(one, {**one, "log_probability": np.full(4, np.nan)}).passed


def test_words_are_counted_as_people_read_them() -> None:
    assert normalised("The  “Valve”, of course!") == "valve of course"
    assert exact("close the valve", "Close valve.")
    assert not exact("open", "close")
    assert fuzzy("a b", "c d") == 0.0
    assert fuzzy("", "x") == 0.0


def test_contacts_of_the_house_may_be_told(view: TextView) -> None:
    told = replace_rows(view, [("Where?", "Write to info@example.com."), ("When?", "At nine.")])
    assert contacts(told) == ["Write to info@example.com."]


def test_the_parts_of_a_question_are_weighed() -> None:
    def sure_of_the_second(tensors: Any) -> dict[str, Any]:
        texts = [m.decode() for m in tensors["messages"]]
        p = [-1.0 if "leaks" in text else -3.0 for text in texts]
        return {"answer": as_bytes(["Call us."] * len(p)), "log_probability": np.array(p)}

    asked = {"messages": as_bytes(["Good morning. The valve leaks."])}
    found = TASK.explain(sure_of_the_second, asked, {"answer_tokens": 8})
    assert [a.name for a in found.attributions] == ["The valve leaks.", "Good morning."]
    assert found.attributions[0].share == 1.0
    word = TASK.explain(sure_of_the_second, {"messages": as_bytes(["leaks"])}, {"answer_tokens": 8})
    assert len(word.attributions) == 1


class Answers:
    """What a judge says, in turn."""

    def __init__(self, *said: str) -> None:
        self.said = list(said)

    def __call__(self, body: Any) -> Any:
        return {"choices": [{"message": {"content": self.said.pop(0)}}]}


@pytest.mark.parametrize(
    ("said", "points"),
    [(("A", "B"), 1.0), (("B.", "A"), 0.0), (("A", "A"), 0.5), (("?", "B"), 0.5)],
)
def test_a_judge_is_asked_in_both_orders(
    said: tuple[str, str], points: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = judge.Judge("http://127.0.0.1:9/v1")
    monkeypatch.setattr(asked, "_post", Answers(*said))
    assert asked.compare("Q", "right", "mine", "base") == points
    assert asked.compare("Q", "right", "same", "same") == 0.5


@pytest.mark.parametrize("address", ["127.0.0.1", "file:///x", "http://127.0.0.1:9/v1"])
def test_a_judge_that_is_not_there_is_a_problem(address: str) -> None:
    with pytest.raises(Problem) as refused:
        judge.judged(["Q"], ["r"], ["m"], ["b"], {"judge": f"{address} small"})
    assert refused.value.code == "G571"


def test_a_judge_that_babbles_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = judge.Judge("http://127.0.0.1:9/v1")
    monkeypatch.setattr(asked, "_post", lambda body: {"choices": []})
    with pytest.raises(Problem) as refused:
        asked.compare("Q", "right", "mine", "base")
    assert refused.value.code == "G571"


def test_nobody_judges_where_nobody_is_named() -> None:
    assert judge.judged(["Q"], ["r"], ["m"], ["b"], {"judge": ""}) == {}


def test_feedback_means_what_the_house_says(settings: dict[str, Any]) -> None:
    assert TASK.label("good") == 1.0
    assert TASK.label("answer: Call us.") > 1.0
    assert TASK.outcome({}, 1.0, settings) == "confirmed"
    assert TASK.outcome({}, TASK.label("bad"), settings) == "wrong"


def replace_rows(view: TextView, rows: list[tuple[str, str]]) -> TextView:
    return TextView(view.line, rows)


def test_a_measure_of_one_value_has_no_interval() -> None:
    assert score.mean([0.5]) == Measure(value=0.5, n=1)
    assert objects(["x"]).dtype == object


class Told:
    """A teacher that knows one answer and counts how often it is asked."""

    name = "told"
    asked = 0

    def answer(self, messages: Any, sampling: Any, seed: int) -> Answered:
        Told.asked += 1
        finish = "length" if "pump" in messages[-1]["content"] else "stop"
        return Answered(text="Ask Ann.", finish=finish, model="big")


def test_a_teacher_answers_what_nobody_has(
    view: TextView, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(q, "" if n % 2 else a) for n, (q, a) in enumerate(view.rows)]
    monkeypatch.setattr(teacher, "Endpoint", lambda address, model: Told())
    taught = {**settings, "teacher": "http://127.0.0.1:9/v1 big", "epochs": 1}
    effort = Effort.simple(minutes=1)
    made = TASK.fit(replace_rows(view, rows), taught, effort)
    asked = Told.asked
    assert 0 < made.settings["distilled"] < asked  # answers that were cut short teach nothing
    lines = TASK.files(made)["distilled.jsonl"].decode().splitlines()
    assert len(lines) == made.settings["distilled"]
    assert json.loads(lines[0])["provenance"]["model"] == "big"
    assert TASK.export(made).startswith(b"GGUF")
    again = teacher.ask_teacher(replace_rows(view, rows), taught, effort)
    assert (Told.asked, len(again.taught)) == (asked, asked)  # it is remembered


def test_a_local_model_may_teach(view: TextView, settings: dict[str, Any]) -> None:
    rows = [*view.rows[:10], ("Who?", ""), *view.rows[10:]]
    base = str(settings["base"]["name"])
    found = teacher.ask_teacher(
        replace_rows(view, rows), {**settings, "teacher": base}, Effort.simple()
    )
    assert [one.messages[-1]["content"] for one in found.taught] == ["Who?"]
    assert base in found.taught[0].provenance["teacher"]


class JudgeServer(BaseHTTPRequestHandler):
    """Says A to everybody with the right key."""

    def do_POST(self) -> None:  # as the library calls it
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = self.headers["authorization"] == "Bearer secret"
        said = {"choices": [{"message": {"content": "A" if body["model"] == "small" else "B"}}]}
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: Any) -> None:
        return


def test_a_judge_is_asked_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), JudgeServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        named = {"judge": f"http://127.0.0.1:{server.server_port}/v1 small"}
        texts = (["Q"] * 4, ["r"] * 4, ["m"] * 4, ["b"] * 4)
        with pytest.raises(Problem) as refused:
            judge.judged(*texts, named)
        assert "401" in refused.value.why
        monkeypatch.setenv(judge.KEY, "secret")
        assert judge.judged(*texts, named)["judged_better"].value == 0.5
        server.shutdown()
