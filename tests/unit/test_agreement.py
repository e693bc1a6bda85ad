"""Parity in bounded memory: judged in parts, with the verdict of the whole."""

from typing import Any

import numpy as np
import pytest

from genba.core.task import Parity
from genba.stages import agreement as stage
from genba.stages.agreement import Agreement, Compared, combined
from genba.tasks.sensor.anomaly import SensorAnomaly


def answers(count: int, off: float = 0.0, flips: tuple[int, ...] = ()) -> dict[str, Any]:
    score = np.linspace(0.0, 2.0, count)
    alarm = score > 1.0
    alarm[list(flips)] = ~alarm[list(flips)]
    return {"score": score + off, "alarm": alarm, "expected": score[:, None] + off}


def agreed(found: dict[str, Any], parts: int = 1) -> Parity:
    held = Agreement(SensorAnomaly())
    wanted = answers(len(found["score"]))
    for at in np.array_split(np.arange(len(found["score"])), parts):
        held.add(*({n: v[at] for n, v in side.items()} for side in (wanted, found)))
    return held.result()


def test_what_fits_into_memory_is_judged_by_the_task_at_once() -> None:
    assert agreed(answers(4_000), parts=7) == SensorAnomaly().parity(answers(4_000), answers(4_000))
    assert not agreed(answers(4_000, off=0.1)).passed
    one_off = agreed(answers(1_000, flips=(0,)), parts=3)
    assert not one_off.passed  # this task allows one in two thousand
    assert one_off.samples == 1_000


def test_what_does_not_fit_is_judged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_HELD_BYTES", 100)
    found = agreed(answers(1_000, off=1e-6, flips=(0,)), parts=20)
    assert found.passed  # as close as the others, and one in a thousand
    assert found.decision_agreement == pytest.approx(0.999)
    assert found.samples == 1_000
    assert not agreed(answers(1_000, flips=tuple(range(6))), parts=20).passed
    assert not agreed(answers(1_000, off=0.1), parts=20).passed


def part(alike: float, error: float, passed: bool, samples: int = 100) -> Parity:
    return Parity(decision_agreement=alike, max_error=error, samples=samples, passed=passed)


def test_a_part_is_forgiven_its_samples_on_the_threshold_not_its_numbers() -> None:
    good = part(1.0, 1e-6, True, 10_000)
    assert combined([good, part(0.9, 2e-6, False)]).passed
    assert not combined([good, part(0.9, 1e-2, False)]).passed
    assert not combined([good, part(1.0, 1e-2, False)]).passed
    assert not combined([part(0.99, 1e-6, True, 1_000)]).passed  # fewer than a task may allow
    nothing = combined([])
    assert (nothing.passed, nothing.samples) == (True, 0)


def test_an_exported_model_is_compared_wherever_it_is_asked() -> None:
    held = Agreement(SensorAnomaly())
    run = Compared(lambda t: answers(len(t["x"])), lambda t: answers(len(t["x"])), held)
    assert run({"x": np.zeros(5)})["score"].tolist() == answers(5)["score"].tolist()
    run({"x": np.zeros(3)})
    run({"x": np.zeros(0)})
    assert held.result().samples == 8
