"""How far an exported model is from its reference on a whole test set, held in bounded memory."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from genba.core.protocols import Array, Predict, Tensors
from genba.core.task import Parity, Task

#: Share of decisions that must be the same, whatever a task itself asks for.
FEWEST_ALIKE: Final = 0.995
#: Outputs that are judged together; those of a table all are, heat maps of images are not.
_HELD_BYTES: Final = 64 << 20
_SAME_ORDER: Final = 10.0


class Agreement:
    """Collects what two forms of a model answer, and judges them as soon as it is a lot.

    Args:
        task: Knows what a decision is, and how exact its numbers must be.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._parts: list[Parity] = []
        self._wanted: list[Tensors] = []
        self._found: list[Tensors] = []
        self._held = 0

    def add(self, wanted: Tensors, found: Tensors) -> None:
        """Add the answers of the reference and of the exported form to the same samples."""
        if not len(next(iter(wanted.values()), ())):
            return
        self._wanted.append(wanted)
        self._found.append(found)
        self._held += sum(np.asarray(tensor).nbytes for tensor in wanted.values())
        if self._held > _HELD_BYTES:
            self._judge()

    def result(self) -> Parity:
        """Return the verdict on everything that was added."""
        if self._wanted:
            self._judge()
        return combined(self._parts)

    def _judge(self) -> None:
        self._parts.append(self._task.parity(_joined(self._wanted), _joined(self._found)))
        self._wanted, self._found, self._held = [], [], 0


class Compared:
    """An exported model that is held against its reference wherever it is asked.

    Args:
        exported: Answers.
        reference: Is asked the same.
        agreement: Collects both.
    """

    def __init__(self, exported: Predict, reference: Predict, agreement: Agreement) -> None:
        self._exported, self._reference, self._agreement = exported, reference, agreement

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return the answers of the exported model."""
        found = self._exported(tensors)
        self._agreement.add(self._reference(tensors), found)
        return found


def combined(parts: Sequence[Parity]) -> Parity:
    """Return the verdict on a whole, of which the parts were judged one by one.

    Few samples of a part may fail it because one of them lies on the threshold. That is forgiven
    where the numbers of the part are as close as those of parts in which all decisions agree, as
    long as enough decisions agree in all.

    Example:
        >>> alike = Parity(decision_agreement=1.0, max_error=1e-6, samples=990, passed=True)
        >>> one_off = Parity(decision_agreement=0.9, max_error=2e-6, samples=10, passed=False)
        >>> combined([alike, one_off]).passed, combined([one_off]).passed
        (True, False)
    """
    samples = sum(p.samples for p in parts)
    alike = sum(p.decision_agreement * p.samples for p in parts) / samples if samples else 1.0
    usual = max((p.max_error for p in parts if p.passed), default=-1.0)
    sound = all(
        p.passed or (p.decision_agreement < 1.0 and p.max_error <= _SAME_ORDER * usual)
        for p in parts
    )
    return Parity(
        decision_agreement=alike,
        max_error=max((p.max_error for p in parts), default=0.0),
        samples=samples,
        passed=sound and alike >= FEWEST_ALIKE,
    )


def _joined(parts: Sequence[Tensors]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
