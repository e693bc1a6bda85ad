"""A package with its engine, ready to run: verified, loaded, warmed up and timed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Engine
from genba.core.resolve import resolve
from genba.core.talk import Talks
from genba.core.values import Manifest
from genba.edge.package import SAMPLE_FILE, LoadedPackage, load
from genba.edge.predict import Predictor, golden_samples, open_engine, surrounded
from genba.serve.lanes.curve import Curve, measured, stopwatch
from genba.serve.lanes.pace import Pace
from genba.serve.lanes.probe import Probe, Trial
from genba.serve.limits import Limits
from genba.serve.oip.schema import Schema
from genba.serve.oip.tensors import DTYPES

ENCODER_FILE: Final = "encoder.onnx"
_FREE_DIMENSION: Final = 1  # a dimension besides the batch that the signature leaves open
_GREETING: Final = b"Hello"
_FEW_TOKENS: Final = 8
_ONCE: Final = 2  # runs of one row that say whether a package is worth a probe


class LoadedModel:
    """An engine with one package in it.

    As many threads as `runners` may run batches at the same time; the engine's own threads and
    streams were set for that.

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
        self.most_rows = limits.batch_images if self.schema.image else limits.batch_rows
        self.curve = Curve({1: 0.0})  # until it is warm
        self.runners = 1
        self.engine = engine
        self.talks = engine if isinstance(engine, Talks) else None
        self.schema.vocabulary = None if self.talks is None else self.talks.vocabulary
        self.embed: Embed | None = None  # texts to vectors, where the package can do that
        self.pace = Pace()
        #: Called with whether a language model is at work, on threads that are not ours.
        self.busy: Callable[[bool], None] = _nobody
        self._trial: Trial | None = None
        self._promised = [(t.name, tuple(t.shape[1:])) for t in manifest.signature.outputs]

    @property
    def seconds(self) -> float:
        """Seconds of computing one row."""
        return self.curve.seconds(1)

    @property
    def batch_rows(self) -> int:
        """The batch that is worth waiting for, and no larger one."""
        return self.curve.best_rows

    @property
    def batch_seconds(self) -> float:
        """Seconds of computing a batch of `batch_rows`."""
        return self.curve.seconds(self.batch_rows)

    def run(self, tensors: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Run a batch and check that the graph gives what its signature promises.

        Images are run in pieces of a full batch: what a network holds in between grows with them.

        Raises:
            Problem: G707 when an output is missing or has another shape.
        """
        if self.schema.image is None or rows <= self.most_rows:
            return self._run(tensors, rows)
        pieces = [
            self._run({n: t[start:stop] for n, t in tensors.items()}, stop - start)
            for start, stop in _pieces(rows, self.most_rows)
        ]
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}

    def _run(self, tensors: Mapping[str, Array], rows: int) -> dict[str, Array]:
        outputs = self.engine.run(tensors)
        for name, rest in self._promised:
            shape = outputs[name].shape if name in outputs else ()
            if shape != (rows, *rest) and not _fits(shape, (rows, *rest)):
                wanted = [n if n >= 0 else "any" for n in (rows, *rest)]
                raise Problem(
                    "G707",
                    f"The model gave no output {name} of shape {wanted}.",
                    where=self.package,
                    tries=["genba explain G707"],
                )
        return outputs

    def runs_as(self, trial: Trial) -> None:
        """Take down that the engine uses the cores as a trial found best."""
        self.runners = trial.runners
        self._trial = trial

    def describe(self) -> dict[str, Any]:
        """Return how the package is run and what was measured, as JSON."""
        told: dict[str, Any] = {
            "settings": dict(self.manifest.engine.settings),
            "runners": self.runners,
            "batch_rows": self.batch_rows,
            "batch_ms": {str(n): round(1000 * s, 4) for n, s in self.curve.points().items()},
        }
        return told if self._trial is None else {**told, "layout": self._trial.describe()}

    def close(self) -> None:
        """Free what the engine holds."""
        self.engine.close()


def _nobody(_: bool) -> None:
    """Take no note."""


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Say whether a shape is the wanted one, where less than 0 stands for any size."""
    return len(shape) == len(wanted) and all(
        want < 0 or have == want for have, want in zip(shape, wanted, strict=True)
    )


def _pieces(rows: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


Embed = Callable[[Sequence[str]], Array]


def load_model(
    package: str, read: Callable[[str], bytes], limits: Limits, probe: Probe | None = None
) -> LoadedModel:
    """Load a package and warm it up; takes as long as it takes, so never on the event loop.

    A package that carries its golden samples must first answer them as it did where it was made.

    Args:
        package: Package id, which is the digest of its manifest.
        read: Gives the bytes of a blob and verifies them.
        limits: Of the server; full batches are tried too.
        probe: Finds out how a heavy package uses the cores best; without one it is run as it was
            packaged, one batch at a time.

    Raises:
        Problem: G302 or G604 for bytes that are missing or altered, G105 or G901 for an engine
            that is not here, G601 when it cannot run the graph, G609 when it answers differently
            here, G707 when a trial run fails.
    """
    loaded = load(read(package), read, expect=package)
    known = probe.remembered(loaded) if probe is not None else None
    model: LoadedModel | None = None
    engine: Engine | None = None
    try:
        engine = open_engine(loaded) if known is None else _open(loaded, known)
        _self_test(loaded, engine)
        model = LoadedModel(package, loaded.manifest, engine, limits)
        model.embed = _encoder(loaded, engine)
        if known is not None:
            model.runs_as(known)
        _prepare(model, loaded, limits, probe if known is None else None)
    except Exception as error:  # whatever a native runtime raises, the package is not usable
        if model is not None:
            model.close()
        elif engine is not None:
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


def _open(loaded: LoadedPackage, trial: Trial) -> Engine:
    engine: Engine = resolve("engine", loaded.manifest.engine.name)(loaded.model, trial.settings)
    return surrounded(loaded, engine)


def _self_test(loaded: LoadedPackage, engine: Engine) -> None:
    if SAMPLE_FILE in loaded.files:
        Predictor(loaded, engine).self_test()


def _prepare(
    model: LoadedModel, loaded: LoadedPackage, limits: Limits, probe: Probe | None
) -> None:
    """Check what the graph gives, spread it over the cores, and take down how long batches take."""
    if model.talks is not None:
        _speak(model)
        return
    samples = _samples(model, loaded)
    one = samples(1)
    _check_types(model, model.run(one, 1))
    if probe is not None and stopwatch(lambda: model.run(one, 1), _ONCE) >= limits.inline_s:
        _spread(model, loaded, samples, probe)
    model.curve = measured(
        model.run,
        samples,
        most_rows=model.most_rows,
        bound_s=limits.deadline_s * limits.batch_share,
    )


def _spread(model: LoadedModel, loaded: LoadedPackage, samples: "Samples", probe: Probe) -> None:
    """Run the package as the probe says, if it answers its golden samples that way too."""
    trial = probe.best(loaded, model.engine, samples)
    if trial is None:
        return
    model.engine.close()
    model.engine = _open(loaded, trial)
    model.runs_as(trial)
    _self_test(loaded, model.engine)


def _encoder(loaded: LoadedPackage, engine: Any) -> Embed | None:
    """Return what makes vectors of texts, if the package of a language model has it."""
    if ENCODER_FILE not in loaded.files or not isinstance(engine, Talks):
        return None
    opened: Embed | None = getattr(getattr(engine, "parts", None), "embed", None)
    if opened is None:
        opened = resolve("part", "encoder")(loaded.files[ENCODER_FILE]).embed
    return opened


def _speak(model: LoadedModel) -> None:
    """Have a language model say something, and take down how long that takes."""
    tensors = short(model)
    _check_types(model, model.run(tensors, 1))
    assert model.talks is not None
    started = time.perf_counter()
    prompt, answer = model.talks.run(tensors)["tokens"][0].tolist()
    model.pace.learn(prompt, answer, time.perf_counter() - started)


Samples = Callable[[int], Mapping[str, Array]]


def _samples(model: LoadedModel, loaded: LoadedPackage) -> Samples:
    """Return what makes batches to measure with: of golden samples, else of nothing."""
    if SAMPLE_FILE not in loaded.files:
        return lambda rows: zeros(model, rows)
    golden, _ = golden_samples(loaded)

    def tiled(rows: int) -> Mapping[str, Array]:
        return {name: tensor[np.arange(rows) % len(tensor)] for name, tensor in golden.items()}

    return tiled


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


def short(model: LoadedModel, rows: int = 1) -> dict[str, Array]:
    """Return a batch that tries a package out: of nothing, and for few words of an answer."""
    tensors = zeros(model, rows)
    if model.talks is not None:
        for tensor in model.manifest.signature.inputs:
            if tensor.role == "text":
                tensors[tensor.name][:] = _GREETING
            elif tensor.name == "max_tokens":
                tensors[tensor.name][:] = _FEW_TOKENS
    return tensors


def zeros(model: LoadedModel, rows: int) -> dict[str, Array]:
    """Return a batch of nothing that the package takes."""
    tensors: dict[str, Array] = {}
    for tensor in model.manifest.signature.inputs:
        shape = (rows, *(_FREE_DIMENSION if n < 0 else n for n in tensor.shape[1:]))
        known = DTYPES.get(tensor.datatype)
        nothing = b"" if known is None else tensor.default or 0
        tensors[tensor.name] = np.full(shape, nothing, known or object)
    return tensors
