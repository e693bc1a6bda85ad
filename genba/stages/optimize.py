"""Choose a runtime and its settings by measurement, and judge the exported model again.

Belief about runtimes is worth nothing: on one network the spread between the worst and the best
choice was 27 times. Every candidate must first give the decisions of the reference on the test
set (where that would take long, on some of it), then fit the limits of the target; the cheapest in
CPU time that does is measured a second time, and the second numbers are the ones that are
published. Who is chosen has been held against the reference on the whole test set.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from genba.catalog import DRILLS
from genba.core.codec import encode
from genba.core.line import Limits
from genba.core.problem import Problem
from genba.core.protocols import Array, Device, Engine, JsonObject, Predict, View
from genba.core.resolve import installed, resolve
from genba.core.talk import Talks
from genba.core.task import Model, Parity, Scores, Task
from genba.core.values import EngineChoice, Measure
from genba.data.view import DatasetView
from genba.edge.package import GGUF
from genba.learn.models import load_model
from genba.runs.stage import StageContext
from genba.stages import retrieval
from genba.stages.agreement import Agreement, Compared
from genba.stages.draft import as_served, drafted, files_around
from genba.stages.gates import judge
from genba.stages.optimize_forms import AS_EXPORTED, Forms, calibration, lowered
from genba.stages.samples import affordable, chosen, in_chunks, spread
from genba.targets.probe import probe

_SAMPLE_ROWS: Final = 512
_SAMPLE_BYTES: Final = 8 << 20  # some fifty images
_SCREENED_BYTES: Final = 16 << 20  # some hundred images, or some hundred thousand rows of a table
_UNABLE: Final = "G601"
_SCREENED_TEXTS: Final = 24  # conversations; each is read token by token
_SAMPLE_TEXTS: Final = 16
_LAST: Final = 1_000  # lowered graphs are tried after every setting of the graph as exported
#: Of an engine, not of the run; the last three are of language models.
_REFUSALS: Final = frozenset({_UNABLE, "G607", "G611", "G901", "G640", "G641", "G643"})
#: Seconds for measuring; on an overloaded machine the last candidates are left out, and it says so.
_MEASURING_S: Final = 30.0
_ROOM: Final = 1.1  # suggest limits a tenth above what was measured: the next run differs a little


@dataclass(slots=True)
class Candidate:
    """One engine with one choice of settings, and what became of it."""

    engine: str
    settings: JsonObject
    runtime: Engine | None = None
    parity: Parity | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    form: str = AS_EXPORTED  # of the graph
    why: str = ""  # what the runtime itself said, when it refused

    @property
    def label(self) -> str:
        """The candidate as people write it: openvino (bfloat16, threads 2)."""
        words = [v if isinstance(v, str) else f"{k} {v}" for k, v in self.settings.items()]
        return f"{self.engine} ({', '.join(words)})"

    def to_json(self) -> dict[str, Any]:
        """Return what the ledger keeps."""
        return {
            "engine": self.engine,
            "settings": dict(self.settings),
            "measures": encode(self.measures),
            "parity": encode(self.parity) if self.parity else None,
            "refused": list(self.refused),
            "why": self.why,
        }

    def hold(self, parity: Parity) -> None:
        """Keep how far it is from the reference, and refuse it when that is too far."""
        self.parity = parity
        if not parity.passed:
            self.refused = (
                f"Its answers are not close enough to the reference: they differ by up to "
                f"{parity.max_error:.2g} (relative), and decide the same in "
                f"{parity.decision_agreement:.3%} of {parity.samples} test samples.",
            )

    def refuse(self, problem: Problem) -> None:
        """Leave it out for a reason of the engine; a problem of the run is raised again."""
        if problem.code not in _REFUSALS:
            raise problem
        self.refused, self.why = (problem.what,), problem.why


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A model, the rows it is judged on, and the yardstick of its exported form."""

    task: Task
    model: Model
    view: View
    reference: Predict
    around: Callable[[Engine], Engine]  # an engine with what its package puts around it


def optimize(context: StageContext) -> dict[str, Any]:
    """Choose engine and settings for the line's target and judge the exported model again.

    Returns:
        `engine` {name, settings}, `candidates` (each with measures, parity and the reasons it was
        refused), `onnx` (blob, in the form that was chosen), `reevaluated` (measures of the
        exported model on the whole test set), `verdict` of those, `machine`, and `stop` when
        nothing fits or a gate is missed.
    """
    line, store = context.line, context.store
    task: Task = resolve("task", line.task)()
    device: Device = resolve("target", line.target.device)()
    model = load_model(store, context.inputs["train"])
    view = DatasetView.open(store, str(context.inputs["prepare"]["dataset"]), line)
    graph = task.export(model)
    forms = Forms(graph, lambda: calibration(task, view, model.settings))
    result: dict[str, Any] = {"onnx": store.blobs.put(graph), "machine": encode(probe())}

    candidates = _candidates(line.target.engines, forms)
    exported = Exported(
        task=task,
        model=model,
        view=view,
        reference=task.reference(model),
        around=_around(context, task, model, view),
    )
    try:
        context.progress.step("comparing every engine with the reference on the test set")
        whole = _screen(exported, candidates)
        talks = graph.startswith(GGUF)
        most = _SAMPLE_TEXTS if talks else _SAMPLE_ROWS
        rows = affordable(task.signature(model.settings), _SAMPLE_BYTES, most)
        sample = spread(task, view, "test", model.settings, rows)
        _measure(context, device, candidates, sample)
        settled = _settle(context, device, exported, candidates, sample, whole)
        if settled is None:
            stop = _nearest(candidates, line.target.limits, line.target.device)
            return {**result, "candidates": [c.to_json() for c in candidates], "stop": stop}
        best, scores = settled
    finally:
        for candidate in candidates:
            if candidate.runtime is not None:
                candidate.runtime.close()
    found = {**scores.measures, **retrieval.gated(store, line, context.progress)}
    verdict = judge(line.gates, {**best.measures, **found})
    result |= {
        "onnx": store.blobs.put(forms.of(best.form) or graph),
        "engine": {"name": best.engine, "settings": dict(best.settings)},
        "candidates": [c.to_json() for c in candidates],
        "reevaluated": encode(found),
        "verdict": encode(verdict),
    }
    if not verdict.passed:
        result["stop"] = [f"The exported model: {reason}" for reason in verdict.reasons]
    return result


def _candidates(asked: Sequence[str], forms: Forms) -> list[Candidate]:
    """Load the graph in every engine with every setting worth trying; keep who refused and why.

    An engine that cannot run the graph (G601) is one candidate: its other settings change nothing.
    """
    names = asked or [name for name in installed("engine") if name not in DRILLS]
    names = [name for name in names if _reads(resolve("engine", name), forms)] or list(names)
    cores = probe().whole_cores
    offers = [
        (place, Candidate(engine=name, settings=settings))
        for name in names
        for place, settings in enumerate(resolve("engine", name).candidates(cores))
    ]
    offers += [
        (_LAST, Candidate(engine=name, settings=settings, form=form))
        for name in names
        for form, settings in lowered(resolve("engine", name))
    ]
    found: list[Candidate] = []
    unable: set[str] = set()
    # The simplest settings of every engine come first, then the second of each, and so on.
    for _, candidate in sorted(offers, key=lambda offer: offer[0]):
        if candidate.engine in unable:
            continue
        try:
            graph = forms.of(candidate.form)
            if graph is None:
                continue
            candidate.runtime = resolve("engine", candidate.engine)(graph, candidate.settings)
        except Problem as problem:
            candidate.refuse(problem)
            if problem.code == _UNABLE:
                unable.add(candidate.engine)
        found.append(candidate)
    return found


def _around(
    context: StageContext, task: Task, model: Model, view: View
) -> Callable[[Engine], Engine]:
    """Return what puts around an engine what its package will."""

    def around(engine: Engine) -> Engine:
        files = files_around(context, task, model)
        draft = drafted(context, task, model, view, EngineChoice(name=engine.name))
        return as_served(draft, files, engine)

    return around


def _reads(kind: Any, forms: Forms) -> bool:
    """Say whether an engine is for what was exported: a language model, or a graph."""
    graph = forms.of(AS_EXPORTED) or b""
    return hasattr(kind, "ask") == graph.startswith(GGUF)


def _screen(exported: Exported, candidates: list[Candidate]) -> bool:
    """Compare every engine with the reference, decision by decision.

    Returns:
        Whether this was done on the whole test set. It is not where samples are so large that it
        would take long for each of many candidates.
    """
    task, view, settings = exported.task, exported.view, exported.model.settings
    signature, total = task.signature(settings), view.count("test")
    texts = any(tensor.role == "text" for tensor in signature.inputs)
    most = affordable(signature, _SCREENED_BYTES, min(total, _SCREENED_TEXTS) if texts else total)
    if whole := most >= total:
        parts = in_chunks(task, view, "test", settings)
    else:
        wanted = np.unique(np.linspace(0, total - 1, num=most).astype(np.int64))
        parts = chosen(task, view, "test", settings, wanted)
    loaded = [(c, c.runtime, Agreement(task)) for c in candidates if c.runtime is not None]
    for samples in parts:
        answers = exported.reference(samples.tensors)
        for _, runtime, agreement in loaded:
            agreement.add(answers, runtime.run(samples.tensors))
    for candidate, _, agreement in loaded:
        candidate.hold(agreement.result())
    return whole


def _settle(
    context: StageContext,
    device: Device,
    exported: Exported,
    candidates: list[Candidate],
    sample: Mapping[str, Array],
    whole: bool,
) -> tuple[Candidate, Scores] | None:
    """Return the cheapest candidate that fits and decides as the reference, and how good it is."""
    while best := _choose(device, candidates, sample, context.line.target.limits):
        context.progress.step(f"judging the exported model in {best.label}")
        scores = _judged(exported, best, whole=whole)
        if scores is not None:
            return best, scores
    return None


def _judged(exported: Exported, best: Candidate, *, whole: bool) -> Scores | None:
    """Measure the exported model on the whole test set, and its agreement where that is not known.

    Returns:
        None when it does not decide as the reference after all; it is refused then.
    """
    assert best.runtime is not None
    if isinstance(best.runtime, Talks):
        # What it writes is not what the reference writes, word by word; that both think alike of
        # given answers was seen on some of them. It is judged as it will be served: with rails.
        served = exported.around(best.runtime)
        return exported.task.score(served.run, exported.view, "test", exported.model.settings)
    agreement = Agreement(exported.task)
    run = Compared(best.runtime.run, exported.reference, agreement)
    predict: Predict = best.runtime.run if whole else run
    scores = exported.task.score(predict, exported.view, "test", exported.model.settings)
    if not whole:
        best.hold(agreement.result())
    return None if best.refused else scores


def _measure(
    context: StageContext, device: Device, candidates: list[Candidate], sample: Mapping[str, Array]
) -> None:
    """Measure everyone who gives the right answers, and refuse who exceeds a limit."""
    ready = [c for c in candidates if not c.refused]
    started = time.monotonic()
    for done, candidate in enumerate(ready):
        context.effort.check()
        spent = time.monotonic() - started
        if spent > _MEASURING_S and any(c.measures and not c.refused for c in ready):
            candidate.refused = (f"Not measured: the others took {spent:.1f} s already.",)
            continue
        context.progress.step(f"measuring {candidate.label}", done, len(ready))
        assert candidate.runtime is not None
        try:
            candidate.measures = device.measure(candidate.runtime, sample)
            candidate.refused = device.fits(candidate.measures, context.line.target.limits)
        except Problem as problem:
            candidate.refuse(problem)


def _choose(
    device: Device, candidates: list[Candidate], sample: Mapping[str, Array], limits: Limits
) -> Candidate | None:
    """Return the cheapest feasible candidate whose second measurement still fits.

    CPU time ranks, because it is the cost and hardly moves with the load. The numbers of the
    second measurement replace the first: those were selected for being small.
    """
    while feasible := [c for c in candidates if not c.refused]:
        best = cheapest(feasible)
        assert best.runtime is not None
        again = device.measure(best.runtime, sample)
        misses = device.fits(again, limits)
        best.measures = again
        if not misses:
            return best
        best.refused = tuple(f"Measured a second time: {miss}" for miss in misses)
    return None


def cheapest(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the least CPU time.

    Of those that CPU time cannot tell apart, the one with the least latency; of those that this
    cannot tell apart either, the one that was offered first, which is the simplest.
    """
    level = _level(_level(candidates, "cpu_ms"), "latency_ms_p50")
    return level[0]


def _level(candidates: Sequence[Candidate], name: str) -> list[Candidate]:
    """Return those whose interval reaches down to that of the smallest, in their order."""
    best = min((c.measures[name] for c in candidates), key=lambda m: m.value)
    edge = best.value if best.high is None else best.high
    lows = ((c, c.measures[name]) for c in candidates)
    return [c for c, m in lows if (m.value if m.low is None else m.low) <= edge]


def _nearest(candidates: Sequence[Candidate], limits: Limits, device: str) -> list[str]:
    """Say who came nearest to the limits and what would have to be relaxed."""
    measured = [c for c in candidates if c.measures]
    if not measured:
        return [
            f"No engine gives the answers of the reference on {device}.",
            *(f"{c.label}: {reason}" for c in candidates for reason in c.refused),
        ]
    best = min(measured, key=lambda c: _overrun(c.measures, limits))
    relax = " ".join(
        f"--set target.limits.{name}={_rounded_up(best.measures[name].value * _ROOM)}"
        for name, limit in _stated(limits).items()
        if name in best.measures and not best.measures[name].value <= limit
    )
    return [
        f"No engine fits the limits of {device}; the nearest is {best.label}.",
        *best.refused,
        f"To accept it: genba run LINE {relax}",
    ]


def _overrun(measures: Mapping[str, Measure], limits: Limits) -> float:
    ratios = [
        measures[name].value / max(limit, 1e-9) if name in measures else math.inf
        for name, limit in _stated(limits).items()
    ]
    return max(ratios, default=0.0)


def _stated(limits: Limits) -> dict[str, float]:
    return {name: float(limit) for name, limit in encode(limits).items()}


def _rounded_up(value: float) -> str:
    """Round up to two digits.

    Example:
        >>> _rounded_up(3.21), _rounded_up(0.0123)
        ('3.3', '0.013')
    """
    if not math.isfinite(value) or value <= 0:
        return "…"
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / digit, 6)) * digit:.6g}"
