"""The rows of one call of an assistant, and their outputs as they come to be known."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from genba.core.protocols import Array, Tensors
from genba.core.talk import Words
from genba.edge.assistant.guard import Ending
from genba.edge.assistant.plan import Plan
from genba.edge.texts import as_bytes, as_text, messages_of, written

MOST: Final = 128  # new tokens where nobody says how many


class Batch:
    """Rows that are asked together.

    Args:
        tensors: As for `Talks.run`.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._messages = [bytes(m) for m in tensors["messages"]]
        rows = len(self._messages)
        given = tensors.get("given")
        self._given = [bytes(g) for g in given] if given is not None else [b""] * rows
        self._parameters = {
            name: np.asarray(tensor)
            for name, tensor in tensors.items()
            if name not in ("messages", "given")
        }
        self.outputs: dict[str, Array] = {
            "answer": np.full(rows, b"", dtype=object),
            "log_probability": np.zeros(rows, dtype=np.float32),
            "tokens": np.zeros((rows, 2), dtype=np.int32),
            "by": np.full(rows, b"model", dtype=object),
            "sources": np.full(rows, b"[]", dtype=object),
        }

    def scored(self) -> set[int]:
        """Return the rows whose answer is given."""
        return {row for row, given in enumerate(self._given) if given}

    def questions(self) -> Iterator[tuple[int, Words, int]]:
        """Yield every other row, its messages, and how many new tokens it may have."""
        most = self._parameters.get("max_tokens")
        for row, message in enumerate(self._messages):
            if not self._given[row]:
                yield row, messages_of(message), MOST if most is None else int(most[row])

    def fill(
        self,
        rows: Sequence[int],
        plans: Mapping[int, Plan],
        run: Callable[[Tensors], dict[str, Array]],
    ) -> None:
        """Ask the language model, all rows at the same time."""
        texts = [
            written(plans[row].messages) if row in plans else self._messages[row] for row in rows
        ]
        asked = {name: tensor[list(rows)] for name, tensor in self._parameters.items()}
        asked["messages"] = as_bytes(texts)
        asked["given"] = as_bytes([self._given[row] for row in rows])
        for name, tensor in run(asked).items():
            self.outputs[name][list(rows)] = tensor

    def answer(self, row: int) -> str:
        """Return what the language model wrote."""
        return as_text(self.outputs["answer"][row])

    def end(self, row: int, ending: Ending) -> None:
        """Write down what is said in the end."""
        sources = [source.to_json() for source in ending.sources]
        self.outputs["answer"][row] = ending.answer.encode()
        self.outputs["by"][row] = ending.by.encode()
        self.outputs["sources"][row] = json.dumps(sources, ensure_ascii=False).encode()

    def count(self, row: int, plan: Plan) -> None:
        """Write down how sure somebody was who is no language model, and from what they know."""
        student = plan.student
        if student is None:
            return
        self.outputs["log_probability"][row] = math.log(max(student.confidence, 1e-9))
        if student.origin:
            origin = json.dumps([{"answer": student.origin}], ensure_ascii=False)
            self.outputs["sources"][row] = origin.encode()
