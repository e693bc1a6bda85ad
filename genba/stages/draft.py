"""A package before it is one: what will be in it, to be opened and judged as a server opens it."""

from typing import Any

from genba.core.protocols import Engine, View
from genba.core.task import Model, Task
from genba.core.values import EngineChoice, Manifest, Verdict
from genba.data.view import DatasetView
from genba.edge.package import FORMAT, LoadedPackage
from genba.edge.predict import surrounded
from genba.runs.executor import find_function
from genba.runs.stage import StageContext
from genba.stages import documents
from genba.stages.carry import student_in_service


def files_around(context: StageContext, task: Task, model: Model) -> dict[str, bytes]:
    """Return what a package holds besides the graph and what is recorded with it.

    Raises:
        Problem: As `genba.stages.documents.index`, for documents that are not there.
    """
    found = dict(task.files(model))
    found |= documents.files_for(context.store, context.line, context.progress)
    return {**found, **_student(context, model, found)}


def _student(context: StageContext, model: Model, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the student of the package in service, with what the new data approve of."""
    store, line = context.store, context.line
    settings = student_in_service(store, line.name)
    if settings is None:
        return {}
    view = DatasetView.open(store, str(context.inputs["prepare"]["dataset"]), line)
    made: Any = find_function("genba.stages.students:carried")
    found: dict[str, bytes] = made(
        files, store.blobs.read(settings), view, model.settings, context.progress
    )
    return found


def drafted(
    context: StageContext, task: Task, model: Model, view: View, choice: EngineChoice
) -> Manifest:
    """Return the manifest of a package with nothing in it yet."""
    return Manifest(
        format=FORMAT,
        line=context.line.name,
        task=context.line.task,
        model=str(context.inputs["train"]["model"]),
        run=context.run,
        dataset=str(context.inputs["prepare"]["dataset"]),
        engine=choice,
        signature=task.signature(model.settings),
        settings={**model.settings, "corrections": list(task.corrections(view.classes))},
        entities=view.entities,
        classes=view.classes,
        files={},
        verdict=Verdict(passed=False),
    )


def as_served(draft: Manifest, files: dict[str, bytes], engine: Engine) -> Engine:
    """Return a loaded engine with what its package will put around it."""
    return surrounded(LoadedPackage(id="", manifest=draft, files=files), engine)
