"""The forms of an exported graph: as it is, and lowered where an engine may gain by that."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from genba.core.protocols import JsonObject, Lowering, Lowers, Tensors, View
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.stages.samples import affordable, spread

AS_EXPORTED: Final = ""
_ROWS: Final = 64
_BYTES: Final = 8 << 20  # of all samples: some fifty images
_BATCH: Final = 4
#: Where samples are taken from: what the thresholds are set on, else what was learned from.
_SPLITS: Final = ("calibrate", "train")


class Forms:
    """The forms of one graph, each made when it is first asked for.

    Args:
        graph: As the task exported it.
        samples: Gives the batches that a lowering is calibrated on.
    """

    def __init__(self, graph: bytes, samples: Callable[[], Sequence[Tensors]]) -> None:
        self._samples = samples
        self._made: dict[str, bytes | None] = {AS_EXPORTED: graph}

    def of(self, form: str) -> bytes | None:
        """Return the graph in a form: "" or the name of a lowering; None where it gains nothing.

        Raises:
            Problem: G611 when the graph cannot be brought into that form.
        """
        if form not in self._made:
            lowering: Lowering = resolve("lowering", form)
            graph = self._made[AS_EXPORTED] or b""
            self._made[form] = lowering.lower(graph, self._samples())
        return self._made[form]


def lowered(kind: Any) -> Iterable[tuple[str, JsonObject]]:
    """Return the lowerings that an engine may gain by, with the settings for each."""
    return kind.lowered().items() if isinstance(kind, Lowers) else ()


def calibration(task: Task, view: View, settings: JsonObject) -> list[Tensors]:
    """Return a few batches to calibrate on, of any split but the test set."""
    split = next((name for name in _SPLITS if view.count(name)), _SPLITS[-1])
    rows = affordable(task.signature(settings), _BYTES, _ROWS)
    whole = spread(task, view, split, settings, rows)
    count = len(next(iter(whole.values()), ()))
    starts = range(0, count, _BATCH)
    return [{n: tensor[at : at + _BATCH] for n, tensor in whole.items()} for at in starts]
