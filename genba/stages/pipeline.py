"""One pass of a line: the stages in order, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.rollout import Rollout, fold
from genba.core.values import Bill
from genba.runs.progress import Progress
from genba.runs.run import RunResult, StageReport, execute
from genba.runs.stage import Stage
from genba.stages import reuse
from genba.stages.deploy import NOT_FITTING, deploy
from genba.stages.reuse import task_code
from genba.store.home import Store
from genba.store.signing import write_checkpoint
from genba.targets.cost import bill
from genba.targets.registry import open_target

_PIXELS: Final = ("genba.edge.images", "genba.edge.imagefile", "pillow")  # as images are read
_READS: Final = ("genba.data.view", "numpy", "pillow")  # how every later stage sees the data
_OPTIMIZES: Final = ("bench", "design", "forms", "yard")  # beside the stage itself
_JUDGES: Final = ("genba.stages.gates", "genba.stages.samples")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """What one pass of a line came to.

    `outcome` is "done" (a package exists), "refused" (a gate or limit said no; `stop` has the
    reasons, hardest first) or "cancelled".
    """

    run: str
    outcome: str
    package: str | None
    model: str | None
    stages: tuple[StageReport, ...]
    results: Mapping[str, Mapping[str, Any]]
    stop: tuple[str, ...]
    bill: Bill
    deployed: bool


def run_line(
    line: Line,
    store: Store,
    *,
    reason: str = "asked",
    progress: Progress | None = None,
    dataset: str | None = None,
) -> RunOutcome:
    """Take a line from raw data to a package, reusing every stage whose inputs are unchanged.

    The first package of a line goes into production by itself, unless the line only observes:
    there is nothing it could make worse. Every later one is a challenger, which the controller
    takes through a canary (`genba up`).

    Args:
        line: What to build.
        store: Where everything is recorded.
        reason: Why this run exists, for the ledger: "asked", "drift", "labels", ...
        progress: Where to report what is going on; silent when None.
        dataset: Id of an existing dataset version to use instead of reading the source, as when
            live rows and labels have been added.

    Raises:
        Problem: When the data, the store or an engine fails in a way the user can mend.
    """
    open_target(line.target.device, store.path)  # refused now, not after training
    extra = {"champion": champion(store, line)}
    if dataset:
        extra["dataset"] = dataset
    result = execute(
        stages_for(line),
        line=line,
        store=store,
        reason=reason,
        progress=progress,
        extra=extra,
        summary=summarise,
    )
    if result.problem:
        raise result.problem
    deployed = result.outcome == "done" and _deploy_first(line, store, result)
    write_checkpoint(store)
    summary = summarise(result.results)
    return RunOutcome(
        run=result.run,
        outcome=result.outcome,
        package=summary["package"],
        model=summary["model"],
        stages=tuple(result.stages),
        results=result.results,
        stop=tuple(result.stop),
        bill=bill(sum(s.seconds for s in result.stages), sum(s.cpu_seconds for s in result.stages)),
        deployed=deployed,
    )


def champion(store: Store, line: Line) -> str | None:
    """Return the package in production, which a new model will be compared with."""
    stable = rollout_of(store, line.name).stable
    return stable.package if stable else None


def rollout_of(store: Store, line: str) -> Rollout:
    """Return what a line has in production."""
    return fold(store.ledger.events(line=line, kinds=("deploy",)))


def stages_for(line: Line) -> tuple[Stage, ...]:
    """Return the stages of a line, each with what decides whether its result can be reused."""
    task = task_code(line.task)
    return (
        Stage(
            name="prepare",
            function="genba.stages.prepare:prepare",
            uses=("genba.data", *_PIXELS, "polars", "pyarrow"),
            config=reuse.prepare_config,
        ),
        Stage(
            name="train",
            function="genba.stages.train:train",
            uses=(*task, *_READS, "scikit-learn"),
            after=("prepare",),
            config=reuse.train_config,
        ),
        Stage(
            name="evaluate",
            function="genba.stages.evaluate:evaluate",
            uses=(
                *(*task, *_READS, *_JUDGES, "scikit-learn"),
                *("genba.stages.rival", "genba.stages.label_noise"),
            ),
            after=("prepare", "train"),
            config=reuse.evaluate_config,
        ),
        Stage(
            name="optimize",
            function="genba.stages.optimize:optimize",
            uses=(
                *(*task, *_READS, *_JUDGES, "genba.stages.agreement"),
                *("genba.codesign", "genba.engines", "genba.targets", "onnx"),
                *(f"genba.stages.optimize_{part}" for part in _OPTIMIZES),
            ),
            after=("prepare", "train", "evaluate"),
            config=reuse.optimize_config,
        ),
        Stage(
            name="package",
            function="genba.stages.package:package",
            uses=(
                *task,  # genba.edge among them
                *("genba.stages.card", "genba.stages.samples", "genba.stages.hindsight"),
            ),
            after=("prepare", "train", "evaluate", "optimize"),
            config=reuse.package_config,
        ),
    )


def summarise(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Pick what the controller and `genba status` need to know of a run from its results."""
    evaluated = results.get("evaluate", {})
    return {
        "package": results.get("package", {}).get("package"),
        "model": results.get("train", {}).get("model"),
        "dataset": results.get("prepare", {}).get("dataset"),
        "verdict": evaluated.get("verdict"),
        "comparisons": evaluated.get("comparisons", []),
        "label_noise": evaluated.get("label_noise"),
    }


def _deploy_first(line: Line, store: Store, result: RunResult) -> bool:
    if line.rollout.decide == "observe" or rollout_of(store, line.name).stable:
        return False
    package_id = str(result.results["package"]["package"])
    try:
        deploy(
            store,
            line.name,
            "deploy",
            package_id,
            reason="the first model of the line passed all its gates",
            by="genba run",
            key=f"first:{line.name}:{package_id}",
        )
    except Problem as problem:
        if problem.code != NOT_FITTING:
            raise
        return False  # another run was first just now: this package is a challenger
    return True
