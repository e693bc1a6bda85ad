"""The wide search for one line on one target: everything a run leaves out, and other models.

The stages before it are those of a run, so what is trained is not trained again. A variant of the
model (another backbone, another resolution) is the line with other options: its training is the
`train` stage of that line, kept under the same key as if that line were run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from genba.codesign.search import Budget
from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import Line
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.core.values import Bill
from genba.data.view import DatasetView
from genba.learn.models import load_model
from genba.runs.progress import Progress
from genba.runs.run import execute
from genba.runs.stage import Stage, StageContext
from genba.stages import reuse
from genba.stages.optimize_bench import Variant, open_variant
from genba.stages.optimize_design import Designer, Plan, as_result
from genba.stages.optimize_forms import Forms, calibration
from genba.stages.optimize_known import KIND, known_points
from genba.stages.pipeline import stages_for
from genba.store.home import Store
from genba.targets.cost import bill
from genba.targets.probe import probe
from genba.targets.registry import open_target

_MEASURING_S: Final = 600.0
_PATIENCE_S: Final = 20.0  # for a quiet machine, before each of the verifications
_VERIFIED: Final = 2
_SCREENED_BYTES: Final = 64 << 20  # some four hundred images
_OF: Final = "train "  # begins the name under which a variant's training is found


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What to search for.

    Args of note: `recorded` is the line as it is known to the factory, without what was changed
    for this search alone; `variants` names those of the model to try, all of them where None.
    """

    line: Line
    recorded: Line
    variants: tuple[str, ...] | None = None
    batches: tuple[int, ...] = ()  # rows of one call; what is worth trying where empty
    patience_s: float = _PATIENCE_S


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What came of it."""

    outcome: str  # "done", "refused" or "cancelled"
    run: str
    result: Mapping[str, Any]
    bill: Bill


def search_line(asked: Asked, store: Store, progress: Progress | None = None) -> Searched:
    """Search for a line, training what is not trained yet, and record what was found.

    Raises:
        Problem: When the data, the store or the target fails in a way the user can mend.
    """
    done = execute(
        _stages(asked),
        line=asked.recorded,
        store=store,
        reason=KIND,
        progress=progress,
        extra={"patience_s": asked.patience_s, "batches": list(asked.batches)},
        summary=lambda results: {"dataset": results.get("prepare", {}).get("dataset")},
    )
    if done.problem:
        raise done.problem
    spent = bill(sum(s.seconds for s in done.stages), sum(s.cpu_seconds for s in done.stages))
    result = done.results.get(KIND, {})
    return Searched(outcome=done.outcome, run=done.run, result=result, bill=spent)


def codesign(context: StageContext) -> dict[str, Any]:
    """Search everything the runtimes offer for every variant of the model.

    Returns:
        As `genba.stages.optimize.optimize`, with `target`, `prefer`, `choice` (the point and, for
        a variant, the options it takes), and the id of the `record` in the ledger.
    """
    line, store = context.line, context.store
    task: Task = resolve("task", line.task)()
    target = open_target(line.target.device, store.path)
    view = DatasetView.open(store, str(context.inputs["prepare"]["dataset"]), line)
    options = {"": {}, **task.variants(line)}
    trained = {"": context.inputs["train"]}
    trained |= {
        name.removeprefix(_OF): result
        for name, result in context.inputs.items()
        if name.startswith(_OF)
    }
    context.progress.step("asking the reference for what every engine must answer")
    variants = {name: _opened(task, result, view, store) for name, result in trained.items()}
    plan = Plan(
        wide=True,
        budget=Budget(
            measurements=line.target.measurements, verified=_VERIFIED, seconds=_MEASURING_S
        ),
        patience_s=float(context.extra.get("patience_s", _PATIENCE_S)),
        again=f"genba codesign {line.name}",
        batches=tuple(context.extra.get("batches", ())),
        known=known_points(store, line),
    )
    done = Designer(context, task, view, target, variants).design(plan)
    result = {
        "target": target.name,
        "prefer": line.target.prefer,
        "machine": encode(probe()),
        **as_result(done, store),
    }
    if done.best is not None:
        chosen = done.best.point
        result["choice"] = {
            **encode(chosen),
            "label": chosen.label,
            "options": dict(options.get(chosen.variant, {})),
        }
    result["record"] = _record(context, result)
    return result


def _record(context: StageContext, result: Mapping[str, Any]) -> str:
    """Record what was found; a run of the line on that target tries it first."""
    kept = ("target", "prefer", "choice", "candidates", "nearest", "search", "constraints")
    body = {"run": context.run, **{name: result[name] for name in kept if name in result}}
    inputs = context.inputs
    name = digest_json([context.line.name, body])
    context.store.ledger.record(
        KIND,
        name,
        body,
        line=context.line.name,
        inputs=[
            ("dataset", str(inputs["prepare"]["dataset"])),
            ("model", str(inputs["train"]["model"])),
        ],
    )
    return name


def _opened(task: Task, trained: Mapping[str, Any], view: DatasetView, store: Store) -> Variant:
    model = load_model(store, trained)
    forms = Forms(task.export(model), lambda: calibration(task, view, model.settings))
    return open_variant(task, model, view, forms, _SCREENED_BYTES)


def _stages(asked: Asked) -> Sequence[Stage]:
    """Return the stages of a search: of a run as far as training, the variants, the search."""
    line = asked.line
    prepare, train = stages_for(line)[:2]
    optimize = next(s for s in stages_for(line) if s.name == "optimize")
    task: Task = resolve("task", line.task)()
    offered = task.variants(line)
    wanted = offered if asked.variants is None else asked.variants
    trained = [
        replace(train, alias=f"{_OF}{name}", line=_with_options(line, offered[name]))
        for name in wanted
    ]
    search = Stage(
        name=KIND,
        function="genba.stages.codesign:codesign",
        uses=optimize.uses,
        after=("prepare", "train", *(s.alias for s in trained)),
        config=_config,
        line=line,
    )
    first = [replace(prepare, line=line), replace(train, line=line)]
    return [*first, *trained, search]


def _config(context: StageContext) -> dict[str, Any]:
    """Return what a search holds for; it is made anew each time it is asked for."""
    return {**reuse.optimize_config(context), "run": context.run}


def _with_options(line: Line, options: Mapping[str, Any]) -> Line:
    return replace(line, options={**line.options, **options})
