"""A package with its engine, ready to run: verified, loaded, warmed up and timed."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Engine
from genba.core.values import Manifest
from genba.edge.package import SAMPLE_FILE, load
from genba.edge.predict import Predictor, open_engine
from genba.serve.limits import Limits
from genba.serve.schema import Schema
from genba.serve.tensors import DTYPES

_WARM_UP_RUNS: Final = 5
_FREE_DIMENSION: Final = 1  # a dimension besides the batch that the signature leaves open


class LoadedModel:
    """An engine with one package in it.

    The engine is called from one thread at a time: first by whoever loads it, afterwards by the
    lane that owns it.

    Args:
        package: Its id.
        manifest: Of the package.
        engine: With its graph.
        limits: Say how many rows make a full batch.
    """

    def __init__(self, package: str, manifest: Manifest, engine: Engine, limits: Limits) -> None:
        self.package = package
        self.manifest = manifest
        self.schema = Schema(manifest.signature, manifest.entities, manifest.classes)
        self.batch_rows = limits.batch_images if self.schema.image else limits.batch_rows
        self.seconds = 0.0  # of one row, once it is warm
        self.batch_seconds = 0.0  # of a full batch
        self._engine = engine

    def run(self, tensors: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Run a batch and check that the graph gives what its signature promises.

        Images are run in pieces of a full batch: what a network holds in between grows with them.

        Raises:
            Problem: G707 when an output is missing or has another number of rows.
        """
        if self.schema.image is None or rows <= self.batch_rows:
            return self._run(tensors, rows)
        pieces = [
            self._run({n: t[start:stop] for n, t in tensors.items()}, stop - start)
            for start, stop in _pieces(rows, self.batch_rows)
        ]
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}

    def _run(self, tensors: Mapping[str, Array], rows: int) -> dict[str, Array]:
        outputs = self._engine.run(tensors)
        for name in self.schema.output_names:
            if name not in outputs or outputs[name].shape[:1] != (rows,):
                raise Problem(
                    "G707",
                    f"The model gave no output {name} with {rows} rows.",
                    where=self.package,
                    tries=["genba explain G707"],
                )
        return outputs

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()


def _pieces(rows: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def load_model(package: str, read: Callable[[str], bytes], limits: Limits) -> LoadedModel:
    """Load a package and warm it up; takes as long as it takes, so never on the event loop.

    A package that carries its golden samples must first answer them as it did where it was made.

    Args:
        package: Package id, which is the digest of its manifest.
        read: Gives the bytes of a blob and verifies them.
        limits: Of the server; a full batch is tried too.

    Raises:
        Problem: G302 or G604 for bytes that are missing or altered, G105 or G901 for an engine
            that is not here, G601 when it cannot run the graph, G609 when it answers differently
            here, G707 when a trial run fails.
    """
    loaded = load(read(package), read, expect=package)
    engine: Engine | None = None
    try:
        engine = open_engine(loaded)
        if SAMPLE_FILE in loaded.files:
            Predictor(loaded, engine).self_test()
        model = LoadedModel(package, loaded.manifest, engine, limits)
        _warm_up(model)
    except Exception as error:  # whatever a native runtime raises, the package is not usable
        if engine is not None:
            engine.close()
        if isinstance(error, Problem):
            raise
        raise Problem(
            "G707",
            f"A trial run of package {package[:12]} failed: {error}",
            where=package,
            tries=["genba explain G707"],
        ) from error
    return model


def _warm_up(model: LoadedModel) -> None:
    """Run batches of one and full batches of nothing, and take down how long they take."""
    _check_types(model, model.run(_zeros(model, 1), 1))
    model.seconds = _typical_seconds(model, 1)
    model.batch_seconds = _typical_seconds(model, model.batch_rows)


def _typical_seconds(model: LoadedModel, rows: int) -> float:
    tensors = _zeros(model, rows)
    seconds = []
    for _ in range(_WARM_UP_RUNS):
        started = time.perf_counter()
        model.run(tensors, rows)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _check_types(model: LoadedModel, outputs: Mapping[str, Array]) -> None:
    for name, tensor in model.schema.outputs.items():
        expected = DTYPES.get(tensor.datatype, np.dtype(object))
        if outputs[name].dtype != expected:
            raise Problem(
                "G707",
                f"The output {name} is {outputs[name].dtype}, not {tensor.datatype}.",
                where=model.package,
                tries=["genba explain G707"],
            )


def _zeros(model: LoadedModel, rows: int) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for tensor in model.manifest.signature.inputs:
        shape = (rows, *(_FREE_DIMENSION if n < 0 else n for n in tensor.shape[1:]))
        known = DTYPES.get(tensor.datatype)
        nothing = b"" if known is None else tensor.default or 0
        tensors[tensor.name] = np.full(shape, nothing, known or object)
    return tensors
