"""Train: search, train and calibrate within the budget, and record the model version."""

from typing import Any

from genba.core.resolve import resolve
from genba.core.task import Task
from genba.data.view import DatasetView
from genba.learn.models import save_model
from genba.runs.stage import StageContext


def train(context: StageContext) -> dict[str, Any]:
    """Make a model from the dataset version that prepare has made.

    The search resumes behind its last trial when the run was killed, and the model is then the
    same, digit for digit.

    Returns:
        `model` (id), `arrays` (blob), `candidate`, `settings`, `trials`, `derived` (every setting
        the line left open) and `budget_spent`: whether the minutes ended before the search did.

    Raises:
        Problem: G503 when there are too few normal rows.
    """
    line, store = context.line, context.store
    task: Task = resolve("task", line.task)()
    dataset = str(context.inputs["prepare"]["dataset"])
    view = DatasetView.open(store, dataset, line)
    derived = task.derive(line, view)
    result = save_model(store, task.fit(view, derived, context.effort))
    store.ledger.record(
        "model", result["model"], result, line=line.name, inputs=[("dataset", dataset)]
    )
    return {**result, "derived": derived, "budget_spent": context.effort.expired}
