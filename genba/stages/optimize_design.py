"""One search over what a model can run on and how, and the judgement of what it found.

Used by the `optimize` stage of a run, narrowly, and by `genba codesign`, widely.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from genba.catalog import DRILLS
from genba.codesign import constraints, rules, space
from genba.codesign.constraints import Bound
from genba.codesign.expected import Expectations
from genba.codesign.front import front
from genba.codesign.operations import operations
from genba.codesign.quiet import Load
from genba.codesign.search import Budget, Search, Want
from genba.codesign.values import Point, Trial
from genba.core.codec import encode
from genba.core.protocols import Engine, Predict, View
from genba.core.resolve import installed, resolve
from genba.core.talk import Talks
from genba.core.task import Model, Scores, Task
from genba.core.values import EngineChoice, Measure, Verdict
from genba.edge.package import GGUF
from genba.learn.models import save_model
from genba.runs.stage import StageContext
from genba.stages import retrieval, without
from genba.stages.agreement import Agreement, Compared
from genba.stages.draft import as_served, drafted, files_around
from genba.stages.gates import judge
from genba.stages.optimize_bench import UNABLE, Variant, Workbench
from genba.store.home import Store
from genba.targets.devices import Target, energy_of
from genba.targets.plausible import refuse_disagreement

_CONVOLVES: Final = 3  # convolutions, from which a graph is a convolutional network
_BATCHED: Final = "image"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How wide to search and what to spend."""

    wide: bool
    budget: Budget
    patience_s: float  # longest wait for a quiet machine before a verification
    again: str  # what to type with other limits: "genba run LINE"
    known: tuple[Point, ...] = ()  # found to be good before; offered first
    batches: tuple[int, ...] = ()  # rows of one call, of a wide search; the usual ones where empty


@dataclass(kw_only=True, slots=True)
class Design:
    """What a search found."""

    trials: list[Trial]
    bounds: Sequence[Bound]
    made: int  # measurements
    seconds: float
    best: Trial | None = None
    found: Mapping[str, Measure] | None = None  # of the exported model, on the whole test set
    verdict: Verdict | None = None
    stop: tuple[str, ...] = ()
    nearest: constraints.Nearest | None = None
    graph: bytes = b""
    model: Model | None = None  # where it is another one than was trained for the line
    threshold: str = ""  # whether it was fitted again, in a sentence
    later: tuple[str, ...] = ()  # gates that only a whole run can judge
    model_error: str = ""  # of the model of the target, from back-testing
    measurable: bool = True  # whether anything could be measured on the target
    loads: Sequence[Load] = ()  # before each verification
    #: Share of right decisions of each variant as it was trained, where samples are labelled.
    models: Mapping[str, Measure | None] = field(default_factory=dict)


class Designer:
    """Searches for one line on one target.

    Args:
        context: Of the stage.
        task: Of the line.
        view: The dataset.
        target: What it is for.
        variants: Models by name; "" is the one of the line.
    """

    def __init__(
        self,
        context: StageContext,
        task: Task,
        view: View,
        target: Target,
        variants: Mapping[str, Variant],
    ) -> None:
        self._context, self._task, self._view = context, task, view
        self._target, self._variants = target, variants
        self._line = context.line

    def design(self, plan: Plan) -> Design:
        """Search, and judge the best on the whole test set until one is good enough."""
        began = time.monotonic()
        bench = Workbench(self._context, self._target, self._variants, plan.patience_s)
        trials = [Trial(point=point) for point in self._points(plan)]
        rules.apply(trials, self._facts())
        works = self._works()
        for trial in trials:
            trial.work = works.get(trial.point.variant, 1.0)
        hope = self._hopes()
        self._expect(hope, trials)
        bounds = constraints.of_limits(self._line.target.limits)
        limits = self._line.target.limits
        want = Want(
            prefer=self._line.target.prefer,
            bounds=bounds,
            fits=lambda measures: self._target.fits(measures, limits),
            device=self._target.name,
        )
        search = Search(
            trials,
            bench,
            want,
            plan.budget,
            self._context.progress.step,
            lambda left: self._expect(hope, left),
        )
        search.explore()
        if self._target.reach:
            refuse_disagreement(self._target.name, _pairs(trials))
        done = self._settle(search, bench, plan)
        done = done or Design(trials=trials, bounds=bounds, made=0, seconds=0.0)
        done.trials, done.bounds, done.made = _shown(trials), bounds, search.made
        if done.best is None:
            done.nearest = constraints.nearest(trials, bounds, self._target.name, {})
            done.stop = self._nobody(done, plan)
        done.seconds, done.model_error = time.monotonic() - began, str(hope.tested or "")
        done.measurable, done.loads = self._target.measurable, bench.loads
        done.models = {name: v.yard.right for name, v in self._variants.items()}
        if self._target.measurable:
            hope.keep(trials)
        return done

    def _expect(self, hope: Expectations, trials: Sequence[Trial]) -> None:
        """Set what is expected of trials, from the model of the target and what was measured."""
        said = [(t, t.expected) for t in trials if t.measures]
        hope.fill(trials)
        for trial, before in said:  # what was said before it was measured is what can be held to it
            trial.expected = before
        for trial in trials:
            if "cpu_ms" in trial.expected:
                energy = energy_of(trial.expected["cpu_ms"], self._target.profile)
                trial.expected = {**trial.expected, "energy_mj": energy}

    def _works(self) -> dict[str, float]:
        """Return how much each variant computes for a row, beside the model of the line."""
        if len(self._variants) == 1:
            return {}
        found = {name: operations(v.graph).total() for name, v in self._variants.items()}
        return {name: total / found[""] for name, total in found.items() if found[""] and total}

    def _hopes(self) -> Expectations:
        graphs = {name: variant.graph for name, variant in self._variants.items()}
        return Expectations(self._context.store.path, self._target.profile, graphs)

    def _points(self, plan: Plan) -> list[Point]:
        engines = self._engines()
        cores = max(1, int(self._target.profile.cores))
        if not plan.wide:
            points = space.narrow(engines, cores)
        else:
            images = any(t.role == _BATCHED for t in self._signature().inputs)
            talks = any(hasattr(kind, "ask") for kind in engines.values())
            points = space.wide(
                engines,
                cores,
                batches=plan.batches
                or ((1,) if talks else space.BATCHES["image" if images else "table"]),
                variants=tuple(self._variants),
            )
        first = [p for p in plan.known if p.engine in engines and p.variant in self._variants]
        return list({p.id: p for p in (*first, *points)}.values())

    def _engines(self) -> dict[str, Any]:
        """Return the engines that read what was exported: a language model, or a graph."""
        asked = self._line.target.engines
        names = asked or [name for name in installed("engine") if name not in DRILLS]
        return readers({n: resolve("engine", n) for n in names}, self._variants[""].graph)

    def _signature(self) -> Any:
        return self._task.signature(self._variants[""].model.settings)

    def _facts(self) -> rules.Facts:
        graph, profile = self._variants[""].graph, self._target.profile
        return rules.Facts(
            architecture=profile.architecture,
            instructions=frozenset(profile.instructions),
            cores=max(1, int(profile.cores)),
            memory_mib=float(profile.memory_mib),
            convolves=graph.count(b"Conv") >= _CONVOLVES,
            graph_bytes=len(graph),
            limits=self._line.target.limits,
        )

    def _settle(self, search: Search, bench: Workbench, plan: Plan) -> Design | None:
        """Judge the best on the whole test set; the next where it does not decide alike."""
        while best := search.best():
            self._context.progress.step(f"judging the exported model in {best.label}")
            done = self._judged(best, bench, plan)
            if done is not None:
                return done
        return None

    def _judged(self, best: Trial, bench: Workbench, plan: Plan) -> Design | None:
        line, variant, point = self._line, bench.variant_of(best.point), best.point
        if bench.may_refit(point):
            with bench.judging(point, bench.model_graph(point)) as engine:
                bench.refit(point, engine.run)
        graph, model = bench.model_graph(point), bench.model_of(point)
        with bench.judging(point, graph) as engine:
            scores = self._scores(best, bench, model, engine)
        if scores is None:
            return None
        context = self._context
        found = {
            **scores.measures,
            **retrieval.gated(context.store, line, context.progress),
            **without.worst(context.inputs.get("evaluate", {}).get("without") or {}),
        }
        known = {**best.measures, **found}
        # What only a whole run measures is left to the next run; it says so.
        later = [name for name in line.gates if plan.wide and name not in known]
        gates = {name: limit for name, limit in line.gates.items() if name not in later}
        verdict = judge(gates, known)
        done = Design(trials=[], bounds=(), made=0, seconds=0.0, best=best, graph=graph)
        done.found, done.verdict, done.threshold = found, verdict, _threshold(variant, model)
        done.later = tuple(later)
        if model is not variant.model:
            done.model = model
        if not verdict.passed:
            done.stop = tuple(f"The exported model: {reason}" for reason in verdict.reasons)
            bounds = constraints.of_gates(gates)
            done.nearest = constraints.nearest([best], bounds, self._target.name, found)
        return done

    def _scores(self, best: Trial, bench: Workbench, model: Model, engine: Engine) -> Scores | None:
        """Measure the exported model on the whole test set, and how it agrees, where unknown.

        Returns:
            None when it does not decide as the reference after all; it is refused then.
        """
        task, view, variant = self._task, self._view, bench.variant_of(best.point)
        if isinstance(engine, Talks):
            # What it writes is not what the reference writes, word by word; that both think alike
            # of given answers was seen on some. It is judged as it will be served: with rails.
            return task.score(self._around(variant)(engine).run, view, "test", model.settings)
        if variant.yard.whole and model is variant.model:
            return task.score(engine.run, view, "test", model.settings)
        agreement = Agreement(task)
        predict: Predict = Compared(engine.run, variant.reference, agreement)
        scores = task.score(predict, view, "test", model.settings)
        judged = variant.yard.judge(engine.run(variant.yard.tensors))
        bench.hold(best, replace(judged, parity=agreement.result()))
        return None if best.refused else scores

    def _around(self, variant: Variant) -> Callable[[Engine], Engine]:
        """Return what puts around an engine what its package will."""

        def around(engine: Engine) -> Engine:
            files = files_around(self._context, self._task, variant.model)
            choice = EngineChoice(name=engine.name)
            draft = drafted(self._context, self._task, variant.model, self._view, choice)
            return as_served(draft, files, engine)

        return around

    def _nobody(self, done: Design, plan: Plan) -> tuple[str, ...]:
        """Say who came nearest to the limits and what would have to be relaxed."""
        device, near = self._target.name, done.nearest
        if near is None:
            answered = any(t.parity is not None for t in done.trials)
            head = (
                f"No engine gives the answers of the reference on {device}."
                if answered
                else f"Nothing could be tried on {device}."
            )
            return (head, *_reasons(done.trials))
        return (
            f"No engine fits the limits of {device}; the nearest is {near.trial.label}.",
            *(near.trial.refused or near.misses),
            f"To accept it: {plan.again} {' '.join(near.relax)}",
        )


def _reasons(trials: Sequence[Trial]) -> list[str]:
    """Return each reason once, with the first point it holds for and how many more."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        for reason in trial.refused:
            found.setdefault(reason, []).append(trial.label)
    said = []
    for reason, labels in found.items():
        more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        said.append(f"{labels[0]}{more}: {reason}")
    return said


def readers(kinds: Mapping[str, Any], graph: bytes) -> dict[str, Any]:
    """Return the engines that are for what was exported, a language model or a graph; else all."""
    talk = graph.startswith(GGUF)
    able = {name: kind for name, kind in kinds.items() if hasattr(kind, "ask") == talk}
    return able or dict(kinds)


def _pairs(trials: Sequence[Trial]) -> list[tuple[Measure, Measure]]:
    """Return what was modelled and what was measured of it, to catch a profile that is wrong."""
    name = "cpu_ms"
    known = [t for t in trials if name in t.expected and name in t.measures]
    return [(t.expected[name], t.measures[name]) for t in known]


def _threshold(variant: Variant, model: Model) -> str:
    """Say whether the threshold was fitted to the exported form."""
    if model is variant.model:
        return ""
    moved = model.settings.get("calibration", {}).get("refitted")
    by = f", {100 * (moved - 1):+.2f} %" if moved else ""
    return f"fitted again to what the exported form answers to the calibration split{by}"


def as_result(done: Design, store: Store) -> dict[str, Any]:
    """Return what the ledger keeps of a design; graph and model go into the store."""
    rows = []
    members = {id(t) for t in front(done.trials)}
    for trial in done.trials:
        row = trial.to_json()
        row["front"] = id(trial) in members
        row["chosen"] = trial is done.best
        if trial.measures and not done.measurable:
            row["stand"] = "modelled"
        rows.append(row)
    result: dict[str, Any] = {
        "candidates": rows,
        "constraints": constraints.held(
            done.bounds, done.best.measures if done.best else _measures(done.nearest)
        ),
        "search": {
            "offered": len(done.trials),
            "measurements": done.made,
            "seconds": round(done.seconds, 3),
            "measured_there": done.measurable,
            "model": done.model_error,
            "loads": encode(done.loads),
        },
        "models": {name: encode(right) for name, right in done.models.items() if right},
    }
    if done.best is not None:
        result |= {
            "onnx": store.blobs.put(done.graph),
            "engine": {"name": done.best.point.engine, "settings": dict(done.best.point.settings)},
            "reevaluated": encode(done.found),
            "verdict": encode(done.verdict),
            "judged_later": list(done.later),
        }
    if done.model is not None:
        result |= {"model": save_model(store, done.model), "threshold": done.threshold}
    if done.nearest is not None:
        near = done.nearest
        result["nearest"] = {
            "point": near.trial.point.id,
            "label": near.trial.label,
            "misses": list(near.misses),
            "relax": list(near.relax),
        }
    return {**result, "stop": list(done.stop)} if done.stop else result


def _measures(near: constraints.Nearest | None) -> Mapping[str, Measure]:
    return near.trial.measures if near is not None else {}


def _shown(trials: Sequence[Trial]) -> list[Trial]:
    """Return trials without repetitions of an engine that cannot run the graph at all."""
    shown: list[Trial] = []
    unable: set[tuple[str, str, str]] = set()
    for trial in trials:
        key = (trial.point.engine, trial.point.variant, trial.point.form)
        if key in unable and not trial.measures:
            continue
        if trial.stand == "refused" and trial.code == UNABLE:
            unable.add(key)
        shown.append(trial)
    return shown
