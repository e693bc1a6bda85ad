"""Predict with a package: one runtime, entities by name, a self-test before the first answer."""

from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Engine, Tensors
from genba.core.resolve import resolve
from genba.core.tuning import defaults
from genba.edge.package import SAMPLE_FILE, LoadedPackage, encode_entities
from genba.edge.tensors import read_tensors

# What another processor may change in the last digits; a decision may not change at all.
_TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 5e-2, "int8": 5e-2}


def open_engine(package: LoadedPackage) -> Engine:
    """Load the package's graph into the runtime it was measured and gated with.

    Raises:
        Problem: G901 when the runtime is not installed, G601 when it cannot run the graph here.
    """
    choice = package.manifest.engine
    engine: Engine = resolve("engine", choice.name)(package.model, choice.settings)
    return engine


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
        precision: Any = self.package.manifest.engine.settings.get("precision")
        if not worst[name] <= _TOLERANCE.get(precision, min(_TOLERANCE.values())):
            raise Problem(
                "G609",
                "The package does not answer here as it did where it was made.",
                where=self.package.id,
                why=f"The output {name} differs by {worst[name]:.2g} (relative).",
                tries=["genba run LINE  # on this machine", "genba explain G609"],
            )
        return worst[name]


def golden_samples(package: LoadedPackage) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the recorded inputs and the outputs they gave when the package was made."""
    tensors = read_tensors(package.files[SAMPLE_FILE])
    return _group(tensors, "input."), _group(tensors, "output.")


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


def _group(tensors: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
