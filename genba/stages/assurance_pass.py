"""One pass of assurance over a package: fit, try without, inject, count, measure."""

from itertools import islice
from typing import Any, Final

import numpy as np

from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors, View
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.edge.package import LoadedPackage
from genba.edge.predict import Predictor, golden_samples
from genba.edge.safety.known import TOLERANCE, KnownCases
from genba.edge.safety.plan import Answers, SafetyPlan, Timing
from genba.runs.progress import Progress
from genba.stages import assurance_plan, assurance_without
from genba.stages.assurance_clean import (
    Clean,
    abstention,
    clean_images,
    clean_rows,
    samples_of,
    timed,
)
from genba.stages.assurance_episodes import Trial, causes
from genba.stages.assurance_faults import MODEL_FAULTS, SENSOR_FAULTS, WAY_FAULTS
from genba.stages.assurance_images import IMAGE_FAULTS
from genba.stages.assurance_limits import check_fallback, check_words
from genba.stages.assurance_manifest import Evidence, bare_manifest, manifest_of
from genba.stages.assurance_matrix import Bad, Cell, image_cells, judged, table_cells
from genba.stages.assurance_model import constant, garbled, inverted
from genba.stages.assurance_pictures import Pictures, image_sizes
from genba.stages.assurance_plan import Ground, Made
from genba.stages.assurance_rows import (
    Gathered,
    Outputs,
    decision_of,
    gather,
    output_of,
    sensors_of,
)
from genba.stages.assurance_tables import LASTS, WARM, Tables
from genba.stages.samples import chosen

EPISODES: Final = 100  # of each cell: none of them failed bounds the rate at 3 %
_SOME: Final = 3_000  # calibration samples on which the model is tried without a sensor
_ALARMS: Final = 500  # and so many with an alarm besides
_FILES: Final = 600  # image files whose size is looked at
_FEWEST: Final = 10  # episodes, to bound anything
_SEED: Final = 20_240_704
_TIMED: Final = 50  # episodes whose readings are timed


class Pass:
    """One pass.

    Args:
        package: What is assured.
        line: States fallback, limits and what is accepted.
        view: The dataset of the package.
        progress: Told what is being done.

    Raises:
        Problem: G597 for a fallback that shares what fails, G598 for words that name nothing.
    """

    def __init__(self, package: LoadedPackage, line: Line, view: View, progress: Progress) -> None:
        self.package, self.line, self.view, self.progress = package, line, view, progress
        self.manifest = package.manifest
        self.images = view.modality == "image"
        names = tuple(view.sensors) if view.modality == "table" else ()
        self.sensors = sensors_of(self.manifest.signature, names)
        check_fallback(line, self.manifest.signature, sensors=len(self.sensors.names))
        check_words(line, self._words())
        self.decision = decision_of(self.manifest.signature)

    def run(self) -> dict[str, Any]:
        """Return the manifest."""
        if self.view.modality == "text":
            return bare_manifest(self.line, self._text_plan())
        self.task: Task = resolve("task", self.manifest.task)()
        self.predictor = Predictor(self.package)
        try:
            return self._run()
        finally:
            self.predictor.engine.close()

    def _run(self) -> dict[str, Any]:
        self.progress.step("reading what is usual")
        ground = self._ground()
        self.progress.step("trying the model without its sensors")
        found = assurance_without.look(ground, self.predictor.predict)
        self.progress.step("fitting the monitors")
        made = assurance_plan.fit_plan(ground, found)
        test = self._gather("test")
        world = self._world(made.plan, ground, test)
        made = self._with_deadline(made, world)
        trial = Trial(made.plan, self.decision)
        if isinstance(world, Tables):
            world.usual = [causes(trial.answers(episode)) for episode in world.plain()]
        self.progress.step("counting false trips")
        clean = self._clean(trial, world)
        bad = self._bad()
        try:
            cells = self._cells(world, bad)
            matrix = judged(cells, trial, self.line, self.progress.step)
        finally:
            if bad.predictor is not None:
                bad.predictor.engine.close()
        self.progress.step("measuring what the monitors cost")
        evidence = Evidence(
            ground=ground,
            made=made,
            clean=clean,
            matrix=matrix,
            timing=timed(made.plan, self.predictor, samples_of(islice(world.plain(), _TIMED))),
            curve=abstention(
                self.task, test.outputs, test.label, self.decision, self.manifest.settings
            ),
        )
        return manifest_of(evidence)

    def _ground(self) -> Ground:
        calibrate = self._gather("calibrate")
        return Ground(
            line=self.line,
            view=self.view,
            manifest=self.manifest,
            package=self.package.id,
            sensors=self.sensors,
            decision=self.decision,
            train=self._gather("train"),
            calibrate=calibrate,
            tensors={} if self.images else self._some(calibrate),
            sizes=image_sizes(self.view, _FILES) if self.images else (),
        )

    def _gather(self, split: str) -> Gathered:
        return gather(
            self.task, self.predictor.predict, self.view, self.manifest, split, self.sensors
        )

    def _some(self, calibrate: Gathered) -> dict[str, Array]:
        """Return calibration samples spread over the split, and those that raised an alarm."""
        raised = np.flatnonzero(self.decision.raised(calibrate.outputs))
        count = len(calibrate)
        every = np.linspace(0, max(0, count - 1), min(_SOME, count))
        some = raised[:: max(1, len(raised) // _ALARMS)]
        at = np.unique(np.concatenate([every, some]).astype(np.int64))
        warm = np.flatnonzero(
            calibrate.series.since_start() >= int(self.manifest.settings.get("context") or 0)
        )
        if len(kept := np.intersect1d(at, warm)):  # the others look back beyond the split
            at = kept
        parts = [
            s.tensors for s in chosen(self.task, self.view, "calibrate", self.manifest.settings, at)
        ]
        names = parts[0] if parts else {}
        return {name: np.concatenate([p[name] for p in parts]) for name in names}

    def _world(self, plan: SafetyPlan, ground: Ground, test: Gathered) -> Tables | Pictures:
        if self.images:
            pictures = Pictures(self.task, self.predictor.predict, self.manifest, plan)
            pictures.choose(self.view, EPISODES)
            return pictures
        spread = np.nanstd(ground.train.series.values[ground.train.series.normal], axis=0)
        tables = Tables(
            self.task, self.predictor.predict, self.manifest, self.sensors, spread, plan
        )
        tables.choose(self.view, test, self.decision, EPISODES)
        if len(tables.stretches) < _FEWEST:
            raise Problem(
                "G663",
                f"The test set has {len(tables.stretches)} stretches without a gap to put faults "
                f"into; at least {_FEWEST} are needed.",
                where=self.line.name,
                why=f"A stretch has {WARM + LASTS} readings of one entity in a row, whole and in "
                "range where it begins.",
                tries=["split = { test = 0.3 }  # under [data]", "genba explain G663"],
            )
        return tables

    def _with_deadline(self, made: Made, world: Tables | Pictures) -> Made:
        plan = made.plan
        timing = timed(plan, self.predictor, samples_of(islice(world.plain(), _TIMED)))
        plan = assurance_plan.with_deadline(plan, self.line, float(timing["answer_ms_p99"]))
        if isinstance(world, Tables):
            world.plan = plan
        return Made(plan=plan, fitted=made.fitted)

    def _clean(self, trial: Trial, world: Tables | Pictures) -> Clean:
        if isinstance(world, Pictures):
            return clean_images(trial, world)
        return clean_rows(
            trial, self.predictor.predict, self.task, self.view, self.manifest, self.sensors
        )

    def _bad(self) -> Bad:
        """Return bad models, and whether the package's own known answers give them away."""
        inputs, expected = golden_samples(self.package)
        roles = {t.name: t.role for t in self.manifest.signature.outputs}
        engine = garbled(self.package, _SEED)
        worse = Predictor(self.package, engine) if engine is not None else None
        models = {
            "constant": Said(constant(expected, 0), one=True),
            "inverted": Said(inverted(expected, roles)),
        }
        broken = {name: _noticed(model, inputs, expected) for name, model in models.items()}
        if worse is not None:
            broken["garbled"] = _noticed(worse, inputs, expected)
        return Bad(predictor=worse, broken=broken, roles=roles)

    def _cells(self, world: Tables | Pictures, bad: Bad) -> list[Cell]:
        if isinstance(world, Pictures):
            return image_cells(world, bad)
        return table_cells(world, bad)

    def _words(self) -> set[str]:
        faults = IMAGE_FAULTS if self.images else SENSOR_FAULTS
        names = {fault.name for fault in (*faults, *WAY_FAULTS, *MODEL_FAULTS)}
        return names | {
            f"{fault.name}:{sensor}"
            for fault in faults
            if fault.each
            for sensor in self.sensors.names
        }

    def _text_plan(self) -> SafetyPlan:
        signature = self.manifest.signature
        return SafetyPlan(
            line=self.line.name,
            package=self.package.id,
            inputs=signature.inputs,
            timing=Timing(ordered=False),
            answers=Answers(chosen=output_of(signature, "class")),
        )


class Said:
    """A predictor of recorded answers that were changed."""

    def __init__(self, outputs: Outputs, *, one: bool = False) -> None:
        self._outputs, self._one = outputs, one
        self._row = 0

    def predict(self, tensors: Tensors) -> Outputs:  # noqa: ARG002  known already
        """Return the next answer; always the first where there is one only."""
        at = 0 if self._one else self._row
        self._row += 1
        return {name: values[at : at + 1] for name, values in self._outputs.items()}


def _noticed(predictor: Any, inputs: Outputs, expected: Outputs) -> tuple[str, ...]:
    """Return what each known case says of a model, "" where it sees nothing wrong."""
    check = KnownCases(predictor, inputs, expected, TOLERANCE)
    return tuple(check() for _ in range(len(next(iter(inputs.values())))))
