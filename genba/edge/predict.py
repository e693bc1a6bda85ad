"""Predict with a package: one runtime, entities by name, a self-test before the first answer."""

from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Engine, Tensors
from genba.core.resolve import resolve
from genba.core.tuning import defaults
from genba.core.values import Tensor
from genba.edge.assistant import ASSISTANT_FILE, Assistant
from genba.edge.package import SAMPLE_FILE, TALK_FILE, LoadedPackage, encode_entities
from genba.edge.tensors import read_tensors
from genba.edge.texts import BYTES, unpack

# What another processor may change in the last digits; a decision may not change at all.
_TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 5e-2, "int8": 5e-2}
_TALK_TOLERANCE: Final = 5e-2  # of a logarithm of a probability per token, in few bits per weight


def open_engine(package: LoadedPackage) -> Engine:
    """Load the package's graph into the runtime it was measured and gated with.

    Returns:
        The runtime; where the package has an assistant, that, with the runtime inside.

    Raises:
        Problem: G901 when the runtime is not installed, G601 when it cannot run the graph here,
            G650 when the assistant cannot be read.
    """
    choice = package.manifest.engine
    engine: Any = resolve("engine", choice.name)(package.model, choice.settings)
    return surrounded(package, engine)


def surrounded(package: LoadedPackage, engine: Any) -> Engine:
    """Return an engine with what its package puts around it; closed if that cannot be opened.

    Raises:
        Problem: As `open_engine`.
    """
    if ASSISTANT_FILE not in package.files:
        made: Engine = engine
        return made
    try:
        return Assistant.open(package, engine)
    except BaseException:
        engine.close()
        raise


class Predictor:
    """A package that answers.

    Args:
        package: A verified package.
        engine: The runtime to use; the one the package names when None.
    """

    def __init__(self, package: LoadedPackage, engine: Engine | None = None) -> None:
        self.package = package
        self.engine = engine if engine is not None else open_engine(package)
        manifest = package.manifest
        self._entities = {name: index for index, name in enumerate(manifest.entities)}
        inputs = manifest.signature.inputs
        self._entity_inputs = {t.name for t in inputs if t.role == "entity"}
        self._defaults = defaults(manifest.signature)

    def predict(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch; entities may be given by name.

        Args:
            tensors: Named and shaped as the signature's inputs; images as `edge.images.decode`
                returns them. Parameters that are left out are as they were packaged.

        Raises:
            Problem: G602 when the tensors do not fit the graph.
        """
        ready = {
            name: encode_entities(tensor, self._entities) if name in self._entity_inputs else tensor
            for name, tensor in tensors.items()
        }
        rows = len(next(iter(ready.values()), ()))
        for name, value in self._defaults.items():
            if name not in ready:
                ready[name] = np.full(rows, value, dtype=np.float32)
        return self.engine.run(ready)

    def self_test(self) -> float:
        """Repeat the predictions that were recorded when the package was made.

        Returns:
            The largest relative difference of any number.

        Raises:
            Problem: G609 when this device answers differently.
        """
        inputs, expected = golden_samples(self.package)
        found = self.engine.run(inputs)
        worst = {name: difference(expected[name], found[name]) for name in expected}
        name = max(worst, key=lambda n: worst[n])
        if not worst[name] <= self._tolerance():
            raise Problem(
                "G609",
                "The package does not answer here as it did where it was made.",
                where=self.package.id,
                why=f"The output {name} differs by {worst[name]:.2g} (relative).",
                tries=["genba run LINE  # on this machine", "genba explain G609"],
            )
        return worst[name]

    def _tolerance(self) -> float:
        if TALK_FILE in self.package.files:
            return _TALK_TOLERANCE
        precision: Any = self.package.manifest.engine.settings.get("precision")
        return _TOLERANCE.get(precision, min(_TOLERANCE.values()))


def golden_samples(package: LoadedPackage) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the recorded inputs and the outputs they gave when the package was made."""
    tensors = read_tensors(package.files[SAMPLE_FILE])
    signature = package.manifest.signature
    return (
        _group(tensors, "input.", signature.inputs),
        _group(tensors, "output.", signature.outputs),
    )


def difference(expected: Array, found: Array) -> float:
    """Return the largest relative difference; infinite when a decision or a shape differs.

    Example:
        >>> difference(np.array([1.0, 2.0]), np.array([1.0, 2.2]))
        0.1
        >>> difference(np.array([True]), np.array([False]))
        inf
    """
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    if not np.array_equal(np.isnan(expected), np.isnan(found)):
        return float("inf")
    scale = np.maximum(np.abs(expected), 1.0)
    return float(np.nanmax(np.abs(found - expected) / scale, initial=0.0).round(9))


def _group(
    tensors: dict[str, Array], prefix: str, declared: tuple[Tensor, ...]
) -> dict[str, Array]:
    """Return the tensors of one side; texts were packed to fit into the file."""
    texts = {tensor.name for tensor in declared if tensor.datatype == BYTES}
    found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return {name: unpack(tensor) if name in texts else tensor for name, tensor in found.items()}
