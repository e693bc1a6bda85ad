"""Choose a runtime and its settings by measurement, and judge the exported model again.

Belief about runtimes is worth nothing: on one network the spread between the worst and the best
choice was 27 times. What a run tries is narrow (`genba.codesign.space.narrow`) and measured
briefly; `genba codesign` searches everything, by the same code, and what it found is tried first.
"""

from typing import Any, Final

from genba.codesign.search import Budget
from genba.core.codec import encode
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.data.view import DatasetView
from genba.learn.models import load_model
from genba.runs.stage import StageContext
from genba.stages.optimize_bench import open_variant
from genba.stages.optimize_design import Designer, Plan, as_result
from genba.stages.optimize_forms import Forms, calibration
from genba.stages.optimize_known import known_points
from genba.targets.probe import probe
from genba.targets.registry import open_target

#: A run makes at most so many measurements, and fewer where the line says so.
_MEASUREMENTS: Final = 9
#: Seconds for measuring; on an overloaded machine the last candidates are left out, and it says so.
_MEASURING_S: Final = 30.0
_SCREENED_BYTES: Final = 16 << 20  # some hundred images, or some hundred thousand rows of a table
_PATIENCE_S: Final = 0.5  # a run is not held up for long by others


def optimize(context: StageContext) -> dict[str, Any]:
    """Choose engine and settings for the line's target and judge the exported model again.

    Returns:
        `engine` {name, settings}, `candidates` (each with measures, parity and the reasons it was
        refused), `onnx` (blob, in the form that was chosen), `reevaluated` (measures of the
        exported model on the whole test set), `verdict` of those, `machine`, and `stop` when
        nothing fits or a gate is missed; then `nearest` says what to relax.
    """
    line, store = context.line, context.store
    task: Task = resolve("task", line.task)()
    target = open_target(line.target.device, store.path)
    model = load_model(store, context.inputs["train"])
    view = DatasetView.open(store, str(context.inputs["prepare"]["dataset"]), line)
    graph = task.export(model)
    context.progress.step("asking the reference for what every engine must answer")
    forms = Forms(graph, lambda: calibration(task, view, model.settings))
    variant = open_variant(task, model, view, forms, _SCREENED_BYTES)
    plan = Plan(
        wide=False,
        budget=Budget(
            measurements=min(_MEASUREMENTS, line.target.measurements),
            verified=1,
            seconds=_MEASURING_S,
        ),
        patience_s=_PATIENCE_S,
        again="genba run LINE",
        known=known_points(store, line),
    )
    done = Designer(context, task, view, target, {"": variant}).design(plan)
    result = as_result(done, store)
    return {"onnx": store.blobs.put(graph), "machine": encode(probe()), **result}
