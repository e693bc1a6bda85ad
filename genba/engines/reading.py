"""Graphs that are given text: it is turned into numbers here, as the graph's metadata says.

Texts of like length are run together, so that little is computed for padding, and no more at a time
than a bounded number of pieces, so that memory stays bounded whatever comes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors
from genba.core.resolve import resolve

#: In the metadata of a graph: JSON with `reader` (an entry of the catalog), `input` (which one is
#: text), `padding` (the number behind the end of a text) and what the reader needs.
READING: Final = "genba.reading"
_PIECES: Final = 2_048  # of all texts that run together, padding included


class Reading:
    """Reads texts for a graph.

    Args:
        description: See `READING`.

    Raises:
        Problem: G580 when the description is not one, G901 when its library is not installed.
    """

    def __init__(self, description: str) -> None:
        try:
            body: Any = json.loads(description)
            name, self.input, self._padding = body["reader"], body["input"], int(body["padding"])
        except (ValueError, KeyError, TypeError) as error:
            raise Problem(
                "G580",
                "The graph does not say how text is read.",
                why=f"{type(error).__name__}: {error}",
                tries=["genba run LINE", "genba explain G580"],
            ) from error
        self._reader = resolve("reader", name)(description)

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> "Reading | None":
        """Return what a graph with this metadata needs, None when it is given numbers only."""
        return cls(metadata[READING]) if READING in metadata else None

    def run(self, tensors: Tensors, run: Callable[[Tensors], dict[str, Array]]) -> dict[str, Array]:
        """Run a batch of texts.

        Args:
            tensors: Those of the signature; the text as bytes or str (object [N]).
            run: Takes the same with the text as numbers (int64 [N, length]).

        Raises:
            Problem: G602 when there is no text or another number of texts than of other rows.
        """
        texts = self._texts(tensors)
        read: Sequence[Sequence[int]] = self._reader.read(texts)
        if len(texts) == 1:
            return run({**tensors, self.input: np.array(read, dtype=np.int64)})
        found: dict[str, Array] = {}
        for rows in self._groups(read):
            part = {name: tensor[rows] for name, tensor in tensors.items() if name != self.input}
            part[self.input] = self._padded([read[row] for row in rows])
            for name, values in run(part).items():
                if name not in found:
                    found[name] = np.empty((len(read), *values.shape[1:]), dtype=values.dtype)
                found[name][rows] = values
        return found

    def _texts(self, tensors: Tensors) -> list[bytes | str]:
        given = np.asarray(tensors.get(self.input, np.zeros(0)))
        texts: list[bytes | str] = given.tolist()
        if given.ndim != 1 or not all(isinstance(text, bytes | str) for text in texts):
            raise _unfit(f"{self.input} must be texts, one per row", self.input)
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if self.input not in tensors or set(lengths.values()) != {len(texts)}:
            raise _unfit(f"the tensors have {lengths} rows", self.input)
        return texts

    def _groups(self, read: Sequence[Sequence[int]]) -> Iterator[Array]:
        """Yield rows of like length, the shortest first; one empty group where there are none."""
        lengths = np.array([len(numbers) for numbers in read], dtype=np.int64)
        order = np.argsort(lengths, kind="stable")
        start = 0
        for stop in range(1, len(order) + 1):
            more = lengths[order[stop]] * (stop + 1 - start) if stop < len(order) else _PIECES + 1
            if more > _PIECES:
                yield order[start:stop]
                start = stop
        if not len(order):
            yield order

    def _padded(self, read: Sequence[Sequence[int]]) -> Array:
        longest = max(map(len, read), default=1)
        found = np.full((len(read), longest), self._padding, dtype=np.int64)
        for row, numbers in enumerate(read):
            found[row, : len(numbers)] = numbers
        return found


def _unfit(why: str, name: str) -> Problem:
    return Problem(
        "G602",
        "The graph did not accept the batch.",
        why=f"{why[:1].upper()}{why[1:]}.",
        tries=[f"give {name} as UTF-8 text, one per row", "genba explain G602"],
    )
