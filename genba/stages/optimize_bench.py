"""Where the trials of a search are measured: a process of their own, here or on the device.

What is measured there answers the samples of the yardstick too, so that a candidate is opened once,
and one that crashes, hangs or eats memory is one refused trial with its reason.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from genba.codesign.quiet import Load, wait_for_quiet
from genba.codesign.runner import Order, open_engine
from genba.codesign.values import AS_EXPORTED, Point, Trial
from genba.core.problem import Problem
from genba.core.protocols import Engine, Predict, Tensors, View
from genba.core.resolve import resolve
from genba.core.task import Model, Task
from genba.core.values import Measure
from genba.runs.stage import StageContext
from genba.stages.optimize_forms import Forms
from genba.stages.optimize_yard import Judged, Yard
from genba.stages.samples import affordable, spread
from genba.targets.cost import Prices, bill, prices_of
from genba.targets.devices import Target, energy_of
from genba.targets.registry import HERE

_SAMPLE_BYTES: Final = 8 << 20  # some fifty images
_SAMPLE_ROWS: Final = 512
_SAMPLE_TEXTS: Final = 16
_WHOLE_S: Final = 0.6  # of measuring one trial; a brief measurement takes a third of it
_MIB: Final = 1 << 20
_MS_PER_S: Final = 1e3
_THOUSAND: Final = 1_000
_EXACT: Final = ("", "float32")  # precisions in which thresholds were calibrated
_WAITING: Final = 1  # callers beside those that are served: no stream stands idle
_NO_GAIN: Final = "Too little of the graph is dense arithmetic to gain from that form."
_UNKNOWN: Final = "Nothing can be measured on {}, and what is known of it models no such graph."
_MODELLED: Final = (
    "modelled from what is known of {}, not measured there; the tail of latencies is as far above "
    "the median as on this machine, memory is what it takes on this machine"
)
UNABLE: Final = "G601"
#: Of an engine, not of the run; G625 to G627 are what can happen to a process, the last three are
#: of language models.
REFUSALS: Final = frozenset(
    {
        *(UNABLE, "G602", "G607", "G611", "G617", "G621", "G625", "G626", "G627", "G901"),
        *("G640", "G641", "G643"),
    }
)


@dataclass(kw_only=True, slots=True)
class Variant:
    """A model as it was trained, its graph in every form, and the yardstick of both."""

    task: Task
    view: View
    model: Model
    forms: Forms
    reference: Predict
    yard: Yard
    sample: Tensors = field(repr=False)

    @property
    def graph(self) -> bytes:
        """The graph as exported."""
        return self.forms.of("") or b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refitted:
    """A model whose threshold fits what one form of it answers, and the graph in that form."""

    model: Model
    graph: bytes


def open_variant(
    task: Task, model: Model, view: View, forms: Forms, screened_bytes: int
) -> Variant:
    """Prepare to measure forms of a model: real samples, and what the reference answers.

    Args:
        task: Of the line.
        model: As it was trained.
        view: The dataset.
        forms: Of its graph.
        screened_bytes: Of the samples that every candidate is held against.
    """
    reference = task.reference(model)
    texts = any(t.role == "text" for t in task.signature(model.settings).inputs)
    most = _SAMPLE_TEXTS if texts else _SAMPLE_ROWS
    rows = affordable(task.signature(model.settings), _SAMPLE_BYTES, most)
    return Variant(
        task=task,
        view=view,
        model=model,
        forms=forms,
        reference=reference,
        yard=Yard(task, view, model.settings, reference, screened_bytes),
        sample=spread(task, view, "test", model.settings, rows),
    )


class Workbench:
    """Measures trials for a search, see `genba.codesign.search.Bench`.

    Args:
        context: Of the stage: to be stopped, and to say what is done.
        target: Where to measure.
        variants: By name; "" is the model of the line.
        patience_s: The longest to wait for a quiet machine before a verification.
    """

    def __init__(
        self,
        context: StageContext,
        target: Target,
        variants: Mapping[str, Variant],
        patience_s: float,
    ) -> None:
        self._context, self._target = context, target
        self._variants, self._patience_s = variants, patience_s
        self._python = target.profile.python if target.reach else ""  # here it is our own
        self._unable: dict[tuple[str, str, str], Problem] = {}  # engines that cannot run a graph
        self._refitted: dict[tuple[str, ...], Refitted | None] = {}  # by family
        self.loads: list[Load] = []
        self.seconds = _WHOLE_S

    def graph_of(self, point: Point) -> bytes | None:
        """Return the graph that a point runs; None where its form would gain nothing."""
        fitted = self._refitted.get(point.family)
        return fitted.graph if fitted else self._variants[point.variant].forms.of(point.form)

    def model_graph(self, point: Point) -> bytes:
        """Return the graph of a point that was measured."""
        graph = self.graph_of(point)
        assert graph is not None
        return graph

    def model_of(self, point: Point) -> Model:
        """Return the model behind a point, with the threshold that its form has."""
        fitted = self._refitted.get(point.family)
        return fitted.model if fitted else self._variants[point.variant].model

    def may_refit(self, point: Point) -> bool:
        """Say whether a point computes in fewer bits than its threshold was calibrated in."""
        exact = point.form == AS_EXPORTED and point.precision in _EXACT
        return not exact and point.family not in self._refitted

    def refit(self, point: Point, predict: Predict) -> bool:
        """Fit the threshold of a point to what it answers, once for all of its family.

        Args:
            point: Computed in fewer bits than the model was calibrated in; others are left alone.
            predict: What it answers with the threshold as trained.

        Returns:
            Whether the graph of the point is another one now.
        """
        if not self.may_refit(point):
            return False
        variant = self.variant_of(point)
        self._context.progress.step(f"fitting the threshold of {point.label} again")
        model = variant.task.refit(variant.model, predict, variant.view)
        self._refitted[point.family] = None
        if model is None:
            return False
        graph = variant.forms.remade(variant.task.export(model)).of(point.form)
        if graph is not None:
            self._refitted[point.family] = Refitted(model=model, graph=graph)
        return graph is not None

    def variant_of(self, point: Point) -> Variant:
        """Return the variant of the model that a point runs."""
        return self._variants[point.variant]

    def measure(self, trial: Trial, share: float) -> None:
        """Measure a trial and hold its answers against the reference, or refuse it."""
        self._context.effort.check()
        known = self._unable.get(_graph(trial.point))
        try:
            if known is not None:
                raise known
            graph = self.graph_of(trial.point)
            if graph is None:
                trial.rule_out(_NO_GAIN)
                return
            if not self._target.measurable and "cpu_ms" not in trial.expected:
                trial.rule_out(_UNKNOWN.format(self._target.name))
                return
            self._try(trial, graph, share * self.seconds)
        except Problem as problem:
            self._refuse(trial, problem)

    def verify(self, trial: Trial) -> None:
        """Measure a trial once more when the machine is quiet; these numbers are published."""
        self._context.effort.check()
        load = wait_for_quiet(self._patience_s) if self._target.name == HERE else None
        try:
            graph = self.model_graph(trial.point)
            with self._opened(trial, graph, self.seconds) as engine:
                trial.measures = self._measured(trial, graph, engine)
            trial.stand = "verified"
            if not self._target.measurable:
                trial.notes = (*trial.notes, _MODELLED.format(self._target.name))
        except Problem as problem:
            self._refuse(trial, problem)
        if load is not None:
            self.loads.append(load)
            trial.notes = (*trial.notes, f"wall time: {load.sentence}")

    def _try(self, trial: Trial, graph: bytes, seconds: float) -> None:
        yard = self.variant_of(trial.point).yard
        with self._opened(trial, graph, seconds) as engine:
            trial.measures = self._measured(trial, graph, engine)
            if trial.parity is not None:  # its answers are the same however long it is measured
                return
            judged = yard.judge(engine.run(yard.tensors))
            changed = not judged.fine and self.refit(trial.point, engine.run)
        if changed:
            judged = self._again(trial, seconds)
        self.hold(trial, judged)
        if not trial.refused:
            trial.stand = "measured"

    def _again(self, trial: Trial, seconds: float) -> Judged:
        """Hold a trial against the reference with its threshold fitted."""
        yard = self.variant_of(trial.point).yard
        with self._opened(trial, self.model_graph(trial.point), seconds) as engine:
            return yard.judge(engine.run(yard.tensors))

    def hold(self, trial: Trial, judged: Judged) -> None:
        """Keep how far a trial is from the reference, and refuse it when that is too far."""
        calibrated = self.variant_of(trial.point).forms.calibrated
        if trial.point.form != AS_EXPORTED and calibrated:
            trial.notes = (f"calibrated on {calibrated}",)
        parity = judged.parity
        trial.parity, trial.classes = parity, judged.classes
        if judged.right is not None:
            trial.measures = {**trial.measures, **_per_correct(trial.measures, judged.right)}
        if judged.fine:
            return
        trial.stand = "refused"
        trial.refused = judged.misses
        if not parity.passed:
            trial.refused = (
                f"Its answers are not close enough to the reference: they differ by up to "
                f"{parity.max_error:.2g} (relative), and decide the same in "
                f"{parity.decision_agreement:.3%} of {parity.samples} test samples.",
                *judged.misses,
            )

    def _measured(self, trial: Trial, graph: bytes, engine: Any) -> dict[str, Measure]:
        if isinstance(engine, _Local):
            found = dict(self._target.measure(engine.engine, engine.sample))
        else:
            found = engine.measure()
        if not self._target.measurable:
            found = self._carried_over(trial, found)
        if "energy_mj" not in found and "cpu_ms" in found:
            found["energy_mj"] = energy_of(found["cpu_ms"], self._target.profile)
        found["size_mib"] = Measure(value=len(graph) / _MIB, unit="MiB", n=1)
        found |= _cost(found, trial.point, prices_of(self._target.profile))
        right = trial.measures.get("right_decisions")
        return found if right is None else {**found, **_per_correct(found, right)}

    def _carried_over(self, trial: Trial, here: Mapping[str, Measure]) -> dict[str, Measure]:
        """Return what is modelled for a target where nothing can be measured.

        A tail of latencies cannot be modelled: it is as far above the median as it was here.
        Memory is that of the same runtime and graph here.
        """
        found = dict(trial.expected)
        median = found.get("latency_ms_p50")
        if median is not None:
            tail = here["latency_ms_p99"].value / here["latency_ms_p50"].value
            low, high = median.low, median.high
            found["latency_ms_p99"] = replace(
                median,
                value=median.value * tail,
                low=None if low is None else low * tail,
                high=None if high is None else high * tail,
            )
        if "memory_mib" in here:
            found["memory_mib"] = replace(here["memory_mib"], method="estimated")
        return found

    @contextmanager
    def _opened(self, trial: Trial, graph: bytes, seconds: float) -> Iterator[Any]:
        """Open a trial's engine where it is measured: in a process of its own, if it can be."""
        point, variant = trial.point, self.variant_of(trial.point)
        kind: Any = resolve("engine", point.engine)
        away = self._target.reach or self._target.name == HERE or not self._target.measurable
        if away and not hasattr(kind, "ask"):
            streams = point.streams
            order = Order(
                engine=point.engine,
                settings=point.settings,
                graph=graph,
                samples=variant.sample,
                batch=point.batch,
                callers=streams + _WAITING if streams > 1 else 1,
                seconds=seconds,
            )
            with open_engine(order, self._target.reach, self._python) as isolated:
                yield isolated
            return
        engine: Engine = kind(graph, point.settings)
        try:
            yield _Local(engine, variant.sample)
        finally:
            engine.close()

    @contextmanager
    def judging(self, point: Point, graph: bytes) -> Iterator[Any]:
        """Open an engine to judge with: on the device, or in this process.

        What crashes was measured in a process of its own before.
        """
        target = self._target
        if target.reach:
            sample = self.variant_of(point).sample
            order = Order(engine=point.engine, settings=point.settings, graph=graph, samples=sample)
            with open_engine(order, target.reach, self._python) as isolated:
                yield isolated
            return
        engine: Engine = resolve("engine", point.engine)(graph, point.settings)
        try:
            yield engine
        finally:
            engine.close()

    def _refuse(self, trial: Trial, problem: Problem) -> None:
        """Refuse a trial for a reason of its engine; a problem of the run is raised again."""
        if problem.code not in REFUSALS:
            raise problem
        trial.refuse(problem)
        trial.measures = {}
        if problem.code == UNABLE:
            self._unable[_graph(trial.point)] = problem


class _Local:
    """An engine in this process: a language model, or of a target that measures by itself."""

    def __init__(self, engine: Engine, sample: Tensors) -> None:
        self.engine, self.sample = engine, sample

    def run(self, tensors: Tensors) -> Mapping[str, Any]:
        """Answer a batch."""
        return self.engine.run(tensors)


def _graph(point: Point) -> tuple[str, str, str]:
    return point.engine, point.variant, point.form


def _cost(found: Mapping[str, Measure], point: Point, prices: Prices) -> dict[str, Measure]:
    """Return what a thousand predictions cost: one after the other, or as batched and spread."""
    if "cpu_ms" not in found or "latency_ms_p50" not in found:
        return {}
    if point.batch * point.streams > 1 and "rows_per_s" in found:
        seconds = _THOUSAND / found["rows_per_s"].value
    else:
        seconds = found["latency_ms_p50"].value * _THOUSAND / _MS_PER_S
    spent = bill(seconds, found["cpu_ms"].value * _THOUSAND / _MS_PER_S, prices)
    return {"cost_usd_per_1k": spent.cost_usd}


def _per_correct(found: Mapping[str, Measure], right: Measure) -> dict[str, Measure]:
    """Return the share of right decisions and the energy of one of those."""
    energy = found.get("energy_mj")
    if energy is None or right.value <= 0:
        return {"right_decisions": right}
    low, high = energy.low, energy.high
    each = replace(
        energy,
        value=energy.value / right.value,
        low=None if low is None else low / (right.high or 1.0),
        high=None if high is None or not right.low else high / right.low,
    )
    return {"right_decisions": right, "energy_mj_per_correct": each}
