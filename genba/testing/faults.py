"""An engine that misbehaves on purpose, to see that the factory notices."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from genba.core.codec import decode
from genba.core.protocols import Array, Engine, JsonObject, Tensors
from genba.core.resolve import resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultySettings:
    """Which engine to wrap, when it goes wrong and how."""

    engine: str
    settings: dict[str, Any] = field(default_factory=dict)
    after: int = 0  # predictions (rows, those of a warm-up too) that are still answered well
    delay_ms: float = 0.0
    not_a_number: bool = False


class FaultyEngine:
    """A real engine that after a number of predictions is slow or answers with NaN.

    A line never chooses it: it offers no candidates.

    Args:
        model: The graph, for the real engine.
        settings: See `FaultySettings`.
    """

    name: ClassVar[str] = "faulty"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        self._chosen = decode(FaultySettings, settings, where="engine.settings")
        self._real: Engine = resolve("engine", self._chosen.engine)(model, self._chosen.settings)
        self._predictions = 0

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:  # noqa: ARG003  # of the protocol
        """Return nothing: this engine is for drills."""
        return ()

    @classmethod
    def version(cls) -> str:
        """Return the version of the faults."""
        return "1"

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch, well or badly."""
        outputs = self._real.run(tensors)
        rows = len(next(iter(outputs.values())))
        self._predictions += rows
        bad = min(max(self._predictions - self._chosen.after, 0), rows)
        if bad and self._chosen.delay_ms:
            time.sleep(self._chosen.delay_ms / 1000)
        if bad and self._chosen.not_a_number:
            return {name: _spoil(output, bad) for name, output in outputs.items()}
        return outputs

    def close(self) -> None:
        """Free what the real engine holds."""
        self._real.close()


def _spoil(output: Array, rows: int) -> Array:
    """Return the output with its last rows not a number; decisions cannot be NaN and stay."""
    if output.dtype.kind != "f":
        return output
    spoiled = output.copy()
    spoiled[len(spoiled) - rows :] = np.nan
    return spoiled
