"""The queue of a line about images: classes, known cases, and no twenty times the same picture."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from genba.data.feedback.labels import Meaning
from genba.edge.package import CASES_FILE
from genba.loop.queue import asking, queue
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from tests.unit.feedback_store import NOW, T0, prepare
from tests.unit.test_feedback_marks import CLASSES, MEANING, about, say, word


class Pictures:
    """Tells classes apart; only what the queue asks of a task."""

    modality = "image"

    def uncertainty(self, outputs: Any, settings: Any) -> Any:
        chances = np.sort(outputs["probability"], axis=1)
        return 1.0 - (chances[:, -1] - chances[:, -2])

    def embed(self, tensors: Any, outputs: Any, settings: Any) -> Any:
        assert "image" not in tensors, "the queue leaves pictures where they are"
        return outputs["embedding"]

    def label(self, correction: str, classes: Any = ()) -> float:
        return word(correction)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(asking, "task_of", lambda *_: Pictures())
    monkeypatch.setattr(asking, "meaning_of", lambda *_: MEANING)
    with Store.open(tmp_path / "home") as opened:
        prepare(opened)
        yield opened


def record(store: Store, package: str = "v", cases: Any = None, **more: Any) -> None:
    outputs = {
        "class": ("class", [-1]),
        "probability": ("probability", [-1, 3]),
        "embedding": ("embedding", [-1, 2]),
        "score": ("score", [-1]),
    }
    manifest: dict[str, Any] = {
        "settings": {},
        "classes": list(CLASSES),
        "signature": {
            "inputs": [{"name": "image", "role": "image", "shape": [-1, 8, 8, 3]}],
            "outputs": [{"name": n, "role": r, "shape": s} for n, (r, s) in outputs.items()],
        },
        "files": {},
        **more,
    }
    if cases is not None:
        file = save({"embedding": np.asarray(cases, np.float32)})
        manifest["files"] = {CASES_FILE: {"digest": store.blobs.put(file), "size": len(file)}}
    store.ledger.record("package", package, manifest, line="farm")


def serve(
    store: Store,
    chances: Any,
    looks: Any,
    *,
    package: str = "v",
    role: str = "stable",
    first: int = 0,
    answers: Any = None,
    time: int | None = None,
) -> None:
    count = len(chances)
    rows = CapturedRows(
        package=package,
        n=np.arange(first, first + count),
        received_ms=np.full(count, T0),
        role=[role] * count,
        entity=[None] * count,
        time=[time] * count,
        latency_us=np.ones(count, dtype=np.int64),
        status=["ok"] * count,
        features={"image": np.array([b"picture"] * count, dtype=object)},
        outputs={
            "class": np.array(np.argmax(chances, 1) if answers is None else answers, np.int64),
            "probability": np.array(chances, np.float32),
            "embedding": np.array(looks, np.float32),
            "score": np.full(count, 0.2, np.float32),
        },
    )
    CaptureWriter(store, "farm", "s1").write(
        Interval(from_ms=T0, to_ms=NOW, packages={package: {"n": count}}, rows=(rows,))
    )


SURE, TORN = [0.98, 0.01, 0.01], [0.1, 0.46, 0.44]


def test_what_the_model_is_torn_about_comes_first_in_words(store: Store) -> None:
    record(store)
    serve(store, [SURE, TORN, [0.5, 0.3, 0.2]], [[0, 0], [1, 0], [2, 0]], answers=[0, -1, 0])
    first, second, third = queue(store, "farm")
    assert first.prediction == "s1-1"
    assert first.reasons == ("scratch 46% or stain 44%",)
    assert (first.answer, second.answer, first.alarm) == ("undecided", "good", None)
    assert first.score == pytest.approx(0.2)
    assert third.reasons == ()


def test_what_is_like_no_known_case_is_asked(store: Store) -> None:
    grid = [[x, y] for x in range(5) for y in range(5)]
    record(store, cases=grid)
    serve(store, [SURE] * 3, [[2.0, 2.0], [30.0, 2.0], [1.5, 1.0]])
    first, second, _ = queue(store, "farm")
    assert first.prediction == "s1-1"
    assert first.reasons == ("it is like no known case",)
    assert 0.8 < first.priority < 1.1
    assert second.reasons == ()


def test_known_cases_that_are_damaged_leave_uncertainty(store: Store) -> None:
    record(store, cases=[[0.0, 0.0]] * 3)
    manifest = store.ledger.get("package", "v") or {}
    path = store.blobs.path(manifest["files"][CASES_FILE]["digest"])
    path.chmod(0o644)
    path.write_bytes(b"rust")
    serve(store, [TORN], [[9.0, 9.0]])
    assert [item.prediction for item in queue(store, "farm")] == ["s1-0"]


def test_the_first_twenty_are_not_the_same_picture(store: Store) -> None:
    record(store)
    chance = np.random.default_rng(0)
    alike = np.zeros((45, 2)) + chance.normal(0, 0.01, (45, 2))
    others = np.array([[10.0, 0], [0, 10.0], [10.0, 10.0], [-10.0, 0], [0, -10.0]])
    chances = np.tile(TORN, (50, 1))
    chances[:45, 1] += 0.001  # a little surer, so by worth alone the others would come first
    chances[45:, 1] += 0.002
    serve(store, chances[:45], alike)
    serve(store, chances[45:], others, first=45)
    asked = {int(item.prediction.rpartition("-")[2]) for item in queue(store, "farm", 6)}
    assert set(range(45, 50)) <= asked
    assert len(asked) == 6


def test_two_packages_that_see_differently_are_both_asked_about(store: Store) -> None:
    record(store)
    record(store, "w")
    serve(store, [TORN] * 10, [[n * 0.01, 0.0] for n in range(10)])
    serve(
        store,
        [TORN] * 10,
        [[n * 0.01, 0.0] for n in range(10)],
        package="w",
        role="canary",
        first=10,
    )
    assert {item.package for item in queue(store, "farm", 4)} == {"v", "w"}


def test_models_that_name_different_classes_disagree(store: Store) -> None:
    record(store)
    record(store, "w")
    for name, role, answer, first in (("v", "stable", 0, 0), ("w", "shadow", 2, 0)):
        serve(
            store, [SURE], [[0, 0]], package=name, role=role, answers=[answer], time=T0, first=first
        )
    assert queue(store, "farm")[0].reasons == ()  # they were asked in different captures
    one = together(store)
    assert one.reasons == ("the models disagree about the class",)


def together(store: Store) -> Any:
    rows = []
    for package, role, answer in (("v", "stable", 0), ("w", "shadow", 2)):
        rows.append(
            CapturedRows(
                package=package,
                n=np.array([7]),
                received_ms=np.array([T0]),
                role=[role],
                entity=["A"],
                time=[T0],
                latency_us=np.array([1]),
                status=["ok"],
                features={"image": np.array([b"x"], dtype=object)},
                outputs={
                    "class": np.array([answer]),
                    "probability": np.array([SURE], np.float32),
                    "embedding": np.zeros((1, 2), np.float32),
                    "score": np.zeros(1, np.float32),
                },
            )
        )
    packages: Mapping[str, Any] = {"v": {"n": 1}, "w": {"n": 1}}
    CaptureWriter(store, "farm", "s1").write(
        Interval(from_ms=T0, to_ms=T0, packages=packages, rows=rows)
    )
    return queue(store, "farm")[0]


def test_what_people_settled_is_not_asked_and_numbers_may_be_settled_by_the_middle(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store)
    serve(store, [TORN] * 3, [[0, 0], [1, 0], [2, 0]])
    say(store, about(0), about(1), about(1, "stain", "bob"))
    items = queue(store, "farm")
    assert [item.prediction for item in items] == ["s1-1", "s1-2"]
    assert items[0].reasons[-1] == "people disagree about it"
    numbers = dict(zip(CLASSES, (1.0, 2.0, 3.0), strict=True))
    plain = Meaning(label=numbers.__getitem__, judge=MEANING.judge, marks=False)
    monkeypatch.setattr(asking, "meaning_of", lambda *_: plain)
    say(store, about(1, "good", "eve"))
    assert [item.prediction for item in queue(store, "farm")] == ["s1-2"]  # 1, 2 and 3 are said


def test_drift_of_any_tensor_is_noticed_by_its_name(store: Store) -> None:
    columns = {
        "light": {"tensor": "score", "index": 0, "kind": "input", "edges": [0.0, 0.1]},
        "gone": {"tensor": "nowhere", "index": 0, "kind": "input", "edges": [0.0, 0.1]},
    }
    record(store, settings={"drift": {"columns": columns}})
    findings = [{"name": n, "kind": "input", "drifted": True} for n in ("light", "gone", "new")]
    store.ledger.append("watch", {"package": "v", "findings": findings}, line="farm")
    serve(store, [SURE], [[0, 0]])
    (item,) = queue(store, "farm")
    assert item.reasons == ()  # an output is not among what the package was given


def test_only_the_newest_captures_are_looked_through_and_damaged_ones_are_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store)
    for n in range(3):
        serve(store, [TORN], [[0, 0]], first=n)
    monkeypatch.setattr(asking, "CAPTURES", 2)
    path = store.blobs.path(store.ledger.find("capture")[0].body["blob"])
    path.chmod(0o644)
    path.write_bytes(b"rust")
    assert [item.prediction for item in queue(store, "farm")] == ["s1-1"]


def test_nothing_is_asked_of_nothing(store: Store) -> None:
    record(store)
    assert queue(store, "farm") == []
    serve(store, [TORN], [[0, 0]])
    assert queue(store, "farm", 0) == []


def test_inputs_that_were_not_kept_are_not_missed(store: Store) -> None:
    reading = {"name": "window", "role": "feature", "shape": [-1, 2]}
    outputs = [{"name": "probability", "role": "probability", "shape": [-1, 3]}]
    record(store, signature={"inputs": [reading], "outputs": outputs})
    serve(store, [SURE, TORN], [[0, 0], [1, 0]])
    first, second = queue(store, "farm")
    assert first.reasons == ("scratch 46% or stain 44%", "what it was given was not kept")
    assert second.reasons == ("what it was given was not kept",)
