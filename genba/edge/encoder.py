"""A sentence encoder: texts of like meaning become vectors that point the same way."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Engine
from genba.core.resolve import resolve

OUTPUT: Final = "embedding"
INPUT: Final = "text"


class Encoder:
    """Texts to vectors of length 1, by a graph that `genba.learn.encoder` made.

    May be called from several threads.

    Args:
        model: The graph, ONNX, with how text is read in its metadata.
        engine: The runtime.
        threads: Of the runtime.
        precision: "float32", or "int8" for a graph in 8-bit integers.

    Raises:
        Problem: G580 when the graph does not read text, G601 or G608 when it cannot be run.
    """

    def __init__(
        self,
        model: bytes,
        *,
        engine: str = "onnxruntime",
        threads: int = 1,
        precision: str = "float32",
    ) -> None:
        settings = {"precision": precision, "threads": threads}
        self._engine: Engine = resolve("engine", engine)(model, settings)

    def embed(self, texts: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return float32 [texts, numbers]; the product of two rows is the cosine of their angle.

        Args:
            texts: Any number; long ones are cut (256 pieces of words for MiniLM).
        """
        given = np.empty(len(texts), dtype=object)
        given[:] = texts
        return np.asarray(self._engine.run({INPUT: given})[OUTPUT], dtype=np.float32)

    def close(self) -> None:
        """Free what the runtime holds."""
        self._engine.close()
