"""What the checks of a task are run on: the task, a small dataset, settings and a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from genba.core.protocols import View
from genba.core.resolve import resolve
from genba.core.task import Model, Task
from genba.runs.effort import Effort
from genba.store.home import Store
from genba.testing.generated import generated_view


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A task with everything its checks need."""

    task: Task
    store: Store
    view: View
    settings: dict[str, Any]
    model: Model


@contextmanager
def prepared(name: str) -> Iterator[Subject]:
    """Make a generated dataset, derive the settings and fit one small model."""
    task: Task = resolve("task", name)()
    with generated_view(name) as (store, view):
        settings = task.derive(view.line, view)
        model = fitted(task, view, settings)
        yield Subject(task=task, store=store, view=view, settings=settings, model=model)


def fitted(task: Task, view: View, settings: dict[str, Any], seed: int = 0) -> Model:
    """Fit a small model within two trials."""
    return task.fit(view, settings, Effort.simple(seed=seed, minutes=1, trials=2))
