"""One turn of the flywheel, on a model that says what its script tells it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.codec import encode
from genba.core.digest import canonical_json
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.core.rollout import fold
from genba.core.values import Measure
from genba.edge.assistant import Question
from genba.edge.assistant.settings import AssistantSettings, read_settings
from genba.edge.encoder import Encoder
from genba.edge.predict import open_engine
from genba.edge.student import Student
from genba.edge.texts import as_bytes, written
from genba.loop.flywheel import asked as asked_module
from genba.loop.flywheel import turn as turn_module
from genba.loop.flywheel.asked import CAPTURED, REPLAYED, Asked, traffic
from genba.loop.flywheel.proof import GATE, enough, prove
from genba.loop.flywheel.served import served
from genba.loop.flywheel.trial import Trial
from genba.loop.flywheel.turn import Turn, Wish, turn
from genba.runs.progress import SilentProgress
from genba.stages.carry import student_in_service
from genba.stages.repack import opened
from genba.stages.students import Pair, carried, pairs_of
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.testing.serving import place
from genba.testing.speller import Script
from genba.testing.talking import talk_package
from genba.ui.cli.flywheel import _answer
from tests.unit.lang_view import TextView

LINE = Line(
    name="helpdesk",
    task="language.chat",
    data=Data(source="files:questions.jsonl"),
    options={"encoder": "letters"},
)
THINGS = ("roof", "bathroom", "kitchen", "garage", "balcony", "cellar", "fence", "chimney")
ROWS = [
    row
    for thing in THINGS
    for row in (
        (f"What does a new {thing} cost?", f"A {thing} costs {len(thing)} thousand."),
        (f"How long does work on the {thing} take?", f"Work on a {thing}: {len(thing)} weeks."),
        (f"Who inspects the {thing} afterwards?", f"The {thing} is inspected by the town."),
        (f"Do I need a permit for my {thing}?", f"No permit is needed for a {thing}."),
        (f"Can you repair the {thing} in winter?", f"In winter no {thing} is repaired."),
    )
]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    class View:
        @staticmethod
        def open(*_: Any) -> TextView:
            return TextView(LINE, ROWS)

    monkeypatch.setattr(turn_module, "DatasetView", View)
    with Store.open(tmp_path / "home") as made:
        yield made


IGNORANT = Script(otherwise="No idea.")


def in_service(store: Store, script: Script = IGNORANT) -> str:
    files = {"assistant.json": canonical_json(encode(AssistantSettings()))}
    package = talk_package(store, LINE.name, script, files=files, settings={"encoder": "letters"})
    place(store, LINE.name, "promote", package)
    return package


def turned(store: Store, **wish: Any) -> Turn:
    return turn(store, LINE, Wish(**wish), SilentProgress())


def test_a_student_is_made_proved_and_tried(store: Store) -> None:
    before = in_service(store)
    found = turned(store)
    assert found.traffic.kind == REPLAYED
    assert found.proof.holds
    assert found.proof.difference.low is not None
    assert found.proof.difference.low > 0
    assert found.proof.share.value > 0.5
    assert found.made is not None
    rollout = fold(store.ledger.events(line=LINE.name, kinds=("deploy",)))
    assert rollout.canary is not None
    assert (rollout.canary.package, rollout.canary.share) == (found.made, LINE.rollout.canary)
    package = opened(store, found.made)
    assert package.manifest.verdict.gates[-1].name == GATE
    engine = open_engine(package)
    messages = [written([{"role": "user", "content": t}]) for t in (ROWS[0][0], "Sing a song!")]
    said = engine.run({"messages": as_bytes(messages)})
    engine.close()
    assert said["by"].tolist() == [b"student", b"model"]
    assert said["answer"].tolist() == [ROWS[0][1].encode(), b"No idea."]
    assert json.loads(said["sources"][0])[0]["answer"].startswith("questions.jsonl:")
    record = store.ledger.get("flywheel", found.record)
    assert record is not None
    assert record["proof"]["holds"] is True
    again = turned(store, hold=True)  # the large model alone is what a student is measured by
    assert again.package == before
    assert again.canary is None


def test_a_package_waits_while_another_is_tried(store: Store) -> None:
    in_service(store)
    other = talk_package(store, LINE.name, Script(otherwise="Other."))
    place(store, LINE.name, "canary", other, share=0.1)
    found = turned(store)
    assert found.made is not None
    assert found.canary is None
    assert found.waits


def test_nothing_is_made_where_the_model_is_better(store: Store) -> None:
    right = dict(ROWS)
    pairs = pairs_of(TextView(LINE, ROWS))
    replayed = traffic(store, LINE.name, pairs, most=120, replay=True)
    in_service(store, Script(answers={one.text: one.right for one in replayed.asked} | right))
    found = turned(store)
    assert found.proof.before.value == pytest.approx(1.0, abs=1e-5)
    assert (found.made is not None) == found.proof.holds
    if found.made is None:
        assert found.waits == "the proof does not hold"
        assert fold(store.ledger.events(line=LINE.name, kinds=("deploy",))).canary is None


def test_a_line_without_a_language_model_is_refused(store: Store) -> None:
    with pytest.raises(Problem, match="G584"):
        turned(store)


def test_too_few_questions_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    in_service(store)

    class View:
        @staticmethod
        def open(*_: Any) -> TextView:
            return TextView(LINE, ROWS[:5])

    monkeypatch.setattr(turn_module, "DatasetView", View)
    with pytest.raises(Problem, match="G585"):
        turned(store)


def capture(store: Store, rows: Sequence[tuple[str, str, str]], package: str) -> None:
    messages = [written([{"role": "user", "content": text}]) for text, _, _ in rows]
    count = len(rows)
    part = CapturedRows(
        package=package,
        n=np.arange(count, dtype=np.int64),
        received_ms=np.arange(count, dtype=np.int64),
        role=["stable"] * count,
        entity=[None] * count,
        time=[None] * count,
        latency_us=np.full(count, 2_000, dtype=np.int64),
        status=["ok"] * count,
        features={"messages": as_bytes(messages)},
        outputs={
            "answer": as_bytes([answer for _, answer, _ in rows]),
            "by": as_bytes([by for _, _, by in rows]),
        },
    )
    interval = Interval(from_ms=0, to_ms=1, packages={package: {"n": count}}, rows=[part])
    CaptureWriter(store, LINE.name, "server").write(interval)


def test_what_customers_asked_comes_before_a_replay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = in_service(store)
    monkeypatch.setattr(asked_module, "_FEWEST", 10)
    rows = [(text.upper(), "No idea.", "model") for text, _ in ROWS]
    rows += [(ROWS[0][0].upper(), "No idea.", "student"), ("Sing!", "No.", "rail:topic")]
    capture(store, rows, package)
    pairs = pairs_of(TextView(LINE, ROWS))
    found = traffic(store, LINE.name, pairs, most=1_000, replay=False)
    assert found.kind == CAPTURED
    assert (found.seen, found.without) == (len(ROWS) + 1, 1)
    assert max(one.count for one in found.asked) == 2
    assert traffic(store, LINE.name, pairs, most=5, replay=True).kind == REPLAYED
    who = served(store, LINE.name)
    assert who.by == {"model": len(ROWS), "student": 1, "rail": 1}
    assert who.latency_ms["model"] == 2.0
    assert "42 answers" in who.sentence
    answer = _answer(LINE, turned(store), who)
    assert answer.exit_code == 0
    assert answer.data["traffic"]["kind"] == CAPTURED
    answer.print_text()


def test_corrections_weigh_more_and_conversations_do_not_count() -> None:
    view = TextView(LINE, [("Why?", "Old."), ("why", "New."), ("Why", "Older.")])
    view.weights = {1: 4.0}
    view.names = {1: "feedback:7"}
    assert [pair.answer for pair in pairs_of(view)] == ["New."]
    assert pairs_of(view)[0].origin == "feedback:7"


def trial(answers: int, by: str, cpu: float) -> Trial:
    each = np.full(answers, cpu / answers)
    return Trial(answers=("a",) * answers, by=(by,) * answers, seconds=each, cpu_seconds=each)


def test_a_proof_does_not_hold_where_the_student_is_worse() -> None:
    questions = [Asked(messages=b"", text=str(n), right="x", group=str(n)) for n in range(40)]
    good = np.full(40, 0.9) + np.linspace(-0.05, 0.05, 40)
    model, student = trial(40, "model", 10.0), trial(40, "student", 0.1)
    known = np.arange(40) < 30
    worse = prove(questions, known, (model, good), (student, good - 0.2))
    assert not worse.holds
    assert not worse.gate().passed
    assert "worse" in worse.gate().reason
    same = prove(questions, known, (model, good), (student, good))
    assert same.holds
    assert enough(same)
    assert same.spared.value == pytest.approx(0.99)
    assert same.bill_before.cpu_seconds == pytest.approx(250.0)
    assert (same.share_known.n, same.share_new.n, same.spared_known.n) == (30, 10, 30)
    nobody = prove(questions, known & False, (model, good), (model, good))
    assert not nobody.holds
    nothing = Measure(value=0.0, n=0)
    assert (nobody.taken, nobody.share_known, nobody.spared_known) == (nothing,) * 3
    assert replace(nobody).to_json()["holds"] is False


def test_the_answer_says_why_nothing_was_made(store: Store) -> None:
    in_service(store)
    found = turned(store, hold=True)
    nothing = replace(found, made=None, canary=None, left=("What?",), moved=())
    shown = _answer(LINE, nothing, served(store, LINE.name))
    assert shown.exit_code == 1
    shown.print_text()
    held = _answer(LINE, found, served(store, LINE.name))
    assert held.data["canary"] is None
    held.print_text()


def test_pairs_know_their_split() -> None:
    view = TextView(LINE, ROWS)
    splits = {pair.split for pair in pairs_of(view)}
    assert splits == {"train", "calibrate", "test"}
    assert isinstance(pairs_of(view)[0], Pair)


def test_the_next_package_keeps_the_student_and_knows_what_was_corrected(store: Store) -> None:
    in_service(store)
    assert student_in_service(store, LINE.name) is None
    made = turned(store, hold=True).made
    assert made is not None
    place(store, LINE.name, "promote", made)
    settings = student_in_service(store, LINE.name)
    assert settings is not None
    view = TextView(LINE, [*ROWS, (ROWS[0][0], "Nobody knows.")])
    view.weights = {len(ROWS): 4.0}
    view.names = {len(ROWS): "feedback:7"}
    files = carried({}, store.blobs.read(settings), view, {"encoder": "letters"}, SilentProgress())
    student = Student.open(
        files,
        read_settings(files["assistant.json"], "").student,
        Encoder(files["encoder.onnx"]).embed,
    )
    found = student.answer(Question([{"role": "user", "content": ROWS[0][0]}]))
    assert found is not None
    assert (found.text, found.origin) == ("Nobody knows.", "feedback:7")
    nothing = TextView(LINE, [])
    assert carried({}, store.blobs.read(settings), nothing, {}, SilentProgress()) == {}
