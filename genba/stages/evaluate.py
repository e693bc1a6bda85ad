"""Evaluate: measure the model, hold it against its gates and against what is in production.

A run stops here when a gate is missed, when the challenger is worse than the champion on the same
rows, or when the feedback it learned from is too noisy to be trusted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import safetensors.numpy as safetensors

from genba.core.codec import encode, nearest
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.core.task import Comparison, Task
from genba.core.values import Measure
from genba.data.live import ORIGIN as LIVE
from genba.data.view import DatasetView
from genba.learn.models import load_model
from genba.learn.retrieval import MEASURES
from genba.runs.stage import StageContext
from genba.stages import without
from genba.stages.gates import judge
from genba.stages.label_noise import label_noise, too_noisy
from genba.stages.rival import FROZEN, NEWEST, Mine, compared
from genba.targets.measure import MEASURED_LATER

_LATER: Final = MEASURED_LATER | MEASURES


def evaluate(context: StageContext) -> dict[str, Any]:
    """Measure the model that train has made and decide whether it may go on.

    Returns:
        `measures`, `verdict`, `scores` (blob: evidence per sample), `baselines`, `comparisons`
        and why there are none, `without` (the same without each sensor), `label_noise`, and `stop`
        with the reasons when it may not.

    Raises:
        Problem: G504 when a gate names a measure that does not exist.
    """
    line, store = context.line, context.store
    task: Task = resolve("task", line.task)()
    model = load_model(store, context.inputs["train"])
    view = DatasetView.open(store, str(context.inputs["prepare"]["dataset"]), line)
    predict = task.reference(model)
    context.progress.step("measuring the model on the test set")
    scores = task.score(predict, view, "test", model.settings)
    blind = without.measured(task, predict, view, scores, model.settings, context.progress)
    scores = replace(scores, measures={**scores.measures, **without.worst(blind)})
    check_gates(line, scores.measures)
    gates = {name: limit for name, limit in line.gates.items() if name not in _LATER}
    verdict = judge(gates, scores.measures)
    context.progress.step("measuring well-known methods on the same rows")
    baselines = task.baselines(view, model.settings)
    mine = Mine(predict=predict, settings=model.settings, scores=scores)
    comparisons, reason = compared(context, task, view, mine)
    noise = label_noise(task, predict, view.part(LIVE), model.settings)
    result = {
        "measures": encode(scores.measures),
        "verdict": encode(verdict),
        "scores": store.blobs.put(safetensors.save(_contiguous(scores.evidence))),
        "baselines": {name: encode(found.measures) for name, found in baselines.items()},
        "comparisons": [encode(c) for c in comparisons],
        "not_compared": reason,
        "without": blind,
        "label_noise": encode(noise.rate) if noise else None,
    }
    stop = [*verdict.reasons, *worse(comparisons), *too_noisy(noise, line)]
    return {**result, "stop": stop} if stop else result


def check_gates(line: Line, measures: Mapping[str, Measure]) -> None:
    """Refuse a gate that names no measure: a misspelt gate would otherwise guard nothing.

    Raises:
        Problem: G504 with the nearest measure there is.
    """
    for name in line.gates:
        if name not in measures and name not in _LATER:
            near = nearest(name, list(measures))
            raise Problem(
                "G504",
                f"There is no measure {name}" + (f"; did you mean {near}?" if near else "."),
                where=f"gates.{name}",
                why=f"On this data there are: {', '.join(sorted(measures))}.",
                tries=[
                    f"{near or next(iter(measures), 'NAME')} = {{ … }} under [gates]",
                    "genba explain G504",
                ],
            )


def worse(comparisons: Iterable[Comparison]) -> list[str]:
    """Return why a challenger is refused: it is worse, and the newest rows do not excuse it.

    Being worse on old rows is what adapting to a changed world looks like; so that is forgiven
    where the newest window shows the challenger better in the very same measure.
    """
    found = list(comparisons)
    adapted = {c.name for c in found if c.where == NEWEST and c.better}
    return [c.reason for c in found if c.worse and not (c.where == FROZEN and c.name in adapted)]


def _contiguous(evidence: Any) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array) for name, array in evidence.items()}
