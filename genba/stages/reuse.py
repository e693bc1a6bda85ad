"""What decides whether a stage's result can be reused: code, configuration, machine.

A run that reuses everything asks these questions and nothing else, so nothing heavy is imported
here: the stages themselves are named by their addresses.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from genba.catalog import DRILLS, LIBRARIES
from genba.core import tuning
from genba.core.codec import decode, encode
from genba.core.problem import Problem
from genba.core.resolve import address, names, resolve
from genba.core.values import Manifest
from genba.data.documents.held import AROUND, held
from genba.data.sources import source_of
from genba.runs.executor import find_function
from genba.runs.stage import StageContext
from genba.stages.carry import student_in_service
from genba.stages.optimize_known import newest_choice
from genba.targets.probe import fingerprint


def task_code(task: str) -> tuple[str, ...]:
    """Return the packages whose source decides what a task computes: those in its `uses`.

    Genba's own tasks are not imported for it: they use their own package, `genba.learn`, and
    `genba.edge` where it reads what they are given, such as images.

    Raises:
        Problem: G105 when there is no such task, G901 when its library is not installed.

    Example:
        >>> task_code("sensor.anomaly")
        ('genba.tasks.sensor.anomaly', 'genba.learn', 'genba.edge')
    """
    module = address("task", task).partition(":")[0]
    if module.startswith("genba."):
        return module, "genba.learn", "genba.edge"
    return tuple(dict.fromkeys([module, *resolve("task", task).uses]))


def prepare_config(context: StageContext) -> dict[str, Any]:
    """Return what decides a dataset version: an unchanged source is not read again.

    A version that is handed in (a retraining on extended data) is the result itself.
    """
    if dataset := context.extra.get("dataset"):
        return {"dataset": dataset}
    line = context.line
    facts = source_of(line, context.progress).facts()
    return {
        "line": line.name,
        "task": line.task,  # what kind of data it reads and how it wants them divided
        "data": encode(line.data),
        "fingerprint": facts.fingerprint,
        "seed": line.train.seed,
    }


def train_config(context: StageContext) -> dict[str, Any]:
    """Return what decides a model, besides the data."""
    line = context.line
    return {
        "task": line.task,
        # What is read into the package, long after the model is trained.
        "options": {k: v for k, v in encode(line.options).items() if k not in AROUND},
        "data": encode(line.data),
        "train": encode(line.train),
        "gates": encode(line.gates),
    }


def evaluate_config(context: StageContext) -> dict[str, Any]:
    """Return what decides a verdict, besides the model."""
    champion = _rival(context)
    config = {
        "gates": encode(context.line.gates),
        "label_noise": context.line.retrain.label_noise,
        "champion": champion,
    }
    if champion and (tuned := _tuned(context, champion)):
        config["tuned"] = tuned
    return config


def optimize_config(context: StageContext) -> dict[str, Any]:
    """Return what measurements hold for: this machine, these limits, these runtimes."""
    return {
        "target": encode(context.line.target),
        "gates": encode(context.line.gates),
        "engines": engine_versions(context.line.target.engines),
        "machine": fingerprint(),
        **_searched(context),
        **_around(context),
    }


def package_config(context: StageContext) -> dict[str, Any]:
    """Return what decides a package, besides what goes into it."""
    return {"name": context.line.name, **_around(context)}


def _searched(context: StageContext) -> dict[str, str]:
    """Name what `genba codesign` found for the line on its target; nothing without a search."""
    found = newest_choice(context.store, context.line)
    return {} if found is None else {"searched": found.id}


def _around(context: StageContext) -> dict[str, str]:
    """Return what decides the files around a model: documents, a student; nothing without them.

    What reads documents is imported for lines that have some.
    """
    found = {}
    student = student_in_service(context.store, context.line.name)
    if student is not None:
        found["student"] = student
    if held(context.store, context.line):
        digest: Any = find_function("genba.stages.documents:digest_for")
        found["documents"] = str(digest(context.store, context.line))
    return found


def engine_versions(chosen: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the version of each runtime; of all that are installed when none is chosen.

    The version is looked up, not asked for, where the catalog names the library: to import
    OpenVINO takes longer than to reuse a run.

    Example:
        >>> list(engine_versions(("onnxruntime",)))
        ['onnxruntime']
    """
    if chosen:
        return {name: _engine_version(name) for name in chosen}
    found = {}
    for name in names("engine"):
        try:
            if name not in DRILLS:
                found[name] = _engine_version(name)
        except Problem:
            continue
    return found


def _engine_version(name: str) -> str:
    try:
        return version(LIBRARIES[name])
    except (KeyError, PackageNotFoundError):
        # Unknown or absent: importing it knows better, or says which extra to install.
        return str(resolve("engine", name).version())


def _tuned(context: StageContext, package_id: str) -> dict[str, float]:
    """Return the parameters of a package that were set since it was packaged."""
    events = context.store.ledger.events(line=context.line.name, kinds=(tuning.KIND,))
    return dict(tuning.fold(events).get(package_id, {}))


def _rival(context: StageContext) -> str | None:
    """Name the champion, unless it is the very model this run has made."""
    package_id = context.extra.get("champion")
    if not package_id:
        return None
    manifest = decode(Manifest, context.store.ledger.get("package", package_id))
    return None if manifest.model == context.inputs["train"]["model"] else str(package_id)
