"""Tuning: it learns, it ends, and it goes on bit for bit after it was stopped."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.line import Budget
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.learn.language import training
from genba.learn.language.bases import Base
from genba.learn.language.examples import Example, Pair, Tuned, Tuning
from genba.learn.language.export import write_gguf
from genba.learn.language.merge import merged
from genba.learn.language.tune import tune
from genba.runs.effort import Effort, FileCheckpoint, MemoryCheckpoint
from genba.runs.progress import SilentProgress
from genba.runs.stop import Cancelled, StopSign
from tests.unit.lang_train_parts import conversations, preferences, tiny_base

ROOT = Path(__file__).parents[2]
FAST: Mapping[str, Any] = {
    "precision": "fp32",
    "rank": 4,
    "alpha": 8,
    "learning_rate": 1e-2,
    "batch": 8,
    "epochs": 4,
    "warmup": 2,
    "threads": 1,
}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return tiny_base(tmp_path)


def effort(checkpoint: Any = None, stop: StopSign | None = None, minutes: float = 5) -> Effort:
    return Effort(
        seed=0,
        budget=Budget(minutes=minutes, trials=1),
        checkpoint=checkpoint or MemoryCheckpoint(),
        progress=SilentProgress(),
        stop=stop or StopSign(),
    )


def run(base: Base, settings: Mapping[str, Any], given: Effort | None = None) -> Tuned:
    return tune(
        base, conversations(40), conversations(12, seed=9), {**FAST, **settings}, given or effort()
    )


def same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_it_learns_and_the_merged_model_is_a_file(base: Base, kind: str) -> None:
    tuned = run(base, {"kind": kind, "learning_rate": 1e-2 if kind == "lora" else 3e-3})
    losses = [entry["validation"] for entry in tuned.curve]
    assert losses[0] == tuned.measures["base_loss"]
    assert tuned.measures["loss"] == min(losses) < losses[0] - 0.25
    assert tuned.measures["tokens"] > tuned.measures["tokens_run"] > 0  # beginnings are shared
    assert 0 < tuned.measures["share_of_peak"] < 1.5
    assert tuned.settings["precision"] == "fp32"
    assert tuned.settings["steps"] == 20
    tensors = merged(base, tuned.arrays, tuned.settings)
    assert tensors.keys() == base.file.tensors.keys()
    assert write_gguf(base.gguf, tensors, "f32") != base.gguf


def test_no_steps_merge_to_the_base_itself(base: Base) -> None:
    for name, array in merged(base, {}, {}).items():
        assert np.array_equal(array, base.file.array(name)), name


def test_preferences_are_learned(base: Base) -> None:
    pairs = preferences(24)
    settings = {**FAST, "kind": "dpo", "epochs": 8, "patience": 0}
    tuned = tune(base, pairs, pairs, settings, effort())
    assert tuned.curve[0]["validation"] == pytest.approx(np.log(2))  # nothing moved yet
    assert tuned.curve[0]["preferred"] == 0
    assert tuned.curve[-1]["preferred"] > 0.95
    assert tuned.measures["loss"] < 0.3


def test_equal_seeds_give_equal_arrays_and_others_do_not(base: Base) -> None:
    one, again = run(base, {"epochs": 1}), run(base, {"epochs": 1})
    assert same(one.arrays, again.arrays)
    other = effort()
    other.seed = 1
    assert not same(one.arrays, run(base, {"epochs": 1}, other).arrays)


def test_it_goes_on_from_an_adapter(base: Base) -> None:
    first = run(base, {"epochs": 2})
    more = tune(
        base,
        conversations(40),
        conversations(12, seed=9),
        {**FAST, "epochs": 1},
        effort(),
        start=first.arrays,
    )
    assert more.measures["base_loss"] == pytest.approx(first.measures["loss"])


def test_several_parts_of_a_step_add_up_to_the_whole(base: Base) -> None:
    whole = run(base, {"epochs": 0.2, "micro_tokens": 10_000})
    parts = run(base, {"epochs": 0.2, "micro_tokens": 30})
    again = run(base, {"epochs": 0.2, "micro_tokens": 30, "recompute": True})
    for name, array in whole.arrays.items():
        np.testing.assert_allclose(array, parts.arrays[name], atol=2e-4)
        np.testing.assert_allclose(array, again.arrays[name], atol=2e-4)


class StopAt(StopSign):
    """Says stop at the n-th question."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cancelled


@pytest.mark.parametrize("kind", ["lora", "full", "dpo"])
@pytest.mark.parametrize("at", [3, 9])
def test_a_stopped_training_goes_on_bit_for_bit(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, at: int
) -> None:
    settings = {**FAST, "kind": kind, "epochs": 2, "save_s": 0}
    items: Any = preferences(40) if kind == "dpo" else conversations(40)
    checked: Any = preferences(9, seed=9) if kind == "dpo" else conversations(9, seed=9)
    whole = tune(base, items, checked, settings, effort())
    folder = tmp_path / "work"
    with pytest.raises(Cancelled):
        tune(
            base,
            items,
            checked,
            settings,
            effort(FileCheckpoint(folder, attempt=1), StopAt(at)),
        )
    said: list[str] = []
    second = effort(FileCheckpoint(folder, attempt=2))
    monkeypatch.setattr(second.progress, "note", said.append)
    resumed = tune(base, items, checked, settings, second)
    assert len(said) == 1
    assert "goes on" in said[0]
    assert same(whole.arrays, resumed.arrays)
    loss = [entry["validation"] for entry in whole.curve]
    assert [entry["validation"] for entry in resumed.curve] == loss


def test_a_checkpoint_of_something_else_is_not_gone_on_with(base: Base) -> None:
    checkpoint = MemoryCheckpoint()
    run(base, {"epochs": 1, "save_s": 0}, effort(checkpoint))
    fresh = run(base, {"epochs": 1, "learning_rate": 5e-3})
    other = run(base, {"epochs": 1, "learning_rate": 5e-3}, effort(checkpoint))
    assert same(fresh.arrays, other.arrays)


def test_a_finished_training_is_not_done_again(base: Base) -> None:
    checkpoint = MemoryCheckpoint()
    first = run(base, {"epochs": 1}, effort(checkpoint))
    again = run(base, {"epochs": 1}, effort(checkpoint, StopAt(0)))  # it would stop at once
    assert same(first.arrays, again.arrays)


def test_it_ends_when_it_gets_worse(base: Base) -> None:
    settings = {"learning_rate": 0.3, "evaluations": 20, "patience": 2, "epochs": 20}
    tuned = run(base, settings)
    assert tuned.measures["steps"] < tuned.settings["steps"]
    assert tuned.measures["loss"] == min(entry["validation"] for entry in tuned.curve)
    assert tuned.curve[-1]["step"] == tuned.measures["steps"]


def test_the_plan_fits_the_budget(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    given = effort(minutes=0.02)
    monkeypatch.setattr(type(given), "elapsed_s", 0.6)  # of 1.2 s; not yet expired
    tuned = run(base, {"epochs": 5000, "evaluations": 3}, given)
    assert 4 <= tuned.settings["steps"] < 10_000
    assert tuned.measures["steps"] == tuned.settings["steps"]


def test_a_spent_budget_ends_it_with_an_evaluation(base: Base) -> None:
    tuned = run(base, {"epochs": 3, "evaluations": 1}, effort(minutes=0.0))
    assert tuned.measures["steps"] == 0
    assert len(tuned.curve) == 1


def test_without_validation_the_last_one_is_kept(base: Base) -> None:
    tuned = tune(base, conversations(16), [], {**FAST, "epochs": 1}, effort())
    assert tuned.measures["best_step"] == tuned.measures["steps"] == 2
    assert "loss" not in tuned.measures


def test_a_part_of_the_validation_set_is_measured(base: Base) -> None:
    checked = conversations(30, seed=9)
    losses = {}
    for most in (0, 60, 61):
        settings = {**FAST, "epochs": 0.2, "validation_tokens": most}
        tuned = tune(base, conversations(8), checked, settings, effort())
        losses[most] = tuned.measures["base_loss"]
    assert losses[0] != losses[60]
    assert losses[60] == losses[61]  # up to the conversation that fills it


def test_a_rate_that_is_too_high_is_said(base: Base) -> None:
    with pytest.raises(Problem) as found:
        run(base, {"kind": "full", "learning_rate": 1e30, "clip": 1e30, "warmup": 0})
    assert found.value.code == "G563"


def test_what_cannot_be_learned_is_said(base: Base) -> None:
    nothing = Example(tokens=np.arange(5, dtype=np.int32), answer=np.zeros(5, np.bool_))
    long = Pair(chosen=conversations(1)[0], rejected=nothing)
    for items, kind in (([nothing], "lora"), ([long], "dpo")):
        with pytest.raises(Problem) as found:
            tune(base, items, [], {**FAST, "kind": kind}, effort())
        assert found.value.code == "G562"


def test_each_kind_has_a_rate_of_its_own() -> None:
    assert Tuning(kind="lora").learning_rate > Tuning(kind="full").learning_rate
    assert Tuning.of({"kind": "dpo", "learning_rate": 0.5, "other": 1}).learning_rate == 0.5


@pytest.mark.parametrize(
    "setting", [{"rank": 0}, {"epochs": 0}, {"kind": "rlhf"}, {"precision": "int8"}]
)
def test_unusable_settings_are_refused(setting: Mapping[str, Any]) -> None:
    with pytest.raises(Problem) as found:
        Tuning.of(setting)
    assert found.value.code == "G562"


def test_the_number_format_is_the_faster_one(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    for bf16, wanted in ((9e9, "bf16"), (1e9, "fp32")):
        monkeypatch.setattr(
            "genba.learn.language.speed.peak_flops",
            lambda kind, shape, bf16=bf16: bf16 if "bfloat16" in str(kind) else 1e9,
        )
        tuned = run(base, {"precision": "auto", "epochs": 0.2})
        assert tuned.settings["precision"] == wanted


CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from tests.unit.test_lang_train_tune import FAST, effort
from tests.unit.lang_train_parts import conversations, tiny_base
from genba.learn.language.tune import tune
from genba.runs.effort import FileCheckpoint
folder = Path(sys.argv[1])
given = effort(FileCheckpoint(folder / "work", attempt=int(sys.argv[2])))
given.progress.step = lambda text, done=None, total=None: print(text, done, flush=True)
settings = {**FAST, "epochs": 30, "save_s": 0, "patience": 0}
tuned = tune(tiny_base(folder), conversations(40), conversations(9, seed=9), settings, given)
total = {name: array.tobytes().hex() for name, array in tuned.arrays.items()}
(folder / f"result-{sys.argv[2]}.json").write_text(json.dumps(total))
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def start(folder: Path, attempt: int) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(attempt)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    with start(tmp_path / "whole", 1) as child:
        assert child.communicate()[0]
    for attempt in (1, 2):
        with start(tmp_path / "killed", attempt) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("tuning") and float(line.split()[-1]) >= 40 * attempt:
                    child.send_signal(signal.SIGKILL)
                    break
    with start(tmp_path / "killed", 3) as child:
        lines = child.communicate()[0].splitlines()
    first = next(line for line in lines if line.startswith("tuning"))
    assert float(first.split()[-1]) > 40  # it did not begin again
    whole = json.loads((tmp_path / "whole" / "result-1.json").read_text())
    assert json.loads((tmp_path / "killed" / "result-3.json").read_text()) == whole


def test_checkpoints_do_not_take_more_than_their_share(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(MemoryCheckpoint):
        saves = 0

        def save(self, meta: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
            super().save(meta, arrays)
            self.saves += 1
            time.sleep(0.05)

    checkpoint = Slow()
    monkeypatch.setattr(training, "_SAVING", 1e-6)
    run(base, {"epochs": 2, "save_s": 0}, effort(checkpoint))
    assert checkpoint.saves == 2  # the first, and the end
