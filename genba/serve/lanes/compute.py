"""Computing a batch, on whatever thread: join, run, look for what is not a number, write answers.

Nothing in here raises: an engine, a decoder or an encoder may fail in any way, and then the part
says so. State is only read, so a batch may be computed while the event loop goes on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.serve.http.responses import Refusal
from genba.serve.lanes.jobs import Job, Part
from genba.serve.lanes.models import LoadedModel
from genba.serve.oip import images

Write = Callable[[Part], None]
_LARGEST: Final = 1e30  # squares of larger numbers are infinite in float32
_SMALL: Final = 4_096  # elements


def compute(
    model: LoadedModel, jobs: Sequence[Job], parameters: Mapping[str, float], write: Write
) -> list[Part]:
    """Compute jobs as one batch; the parts say what came out for whom.

    Args:
        model: The package.
        jobs: At least one.
        parameters: What holds where a job sets none itself.
        write: Writes the answers of a part.
    """
    started = time.perf_counter()
    if model.schema.image is not None:
        return _with_images(model, jobs, parameters, write)
    return _run_all(Batch(model, parameters, write), jobs, started)


class Batch:
    """What all runs of one batch have in common."""

    __slots__ = ("model", "parameters", "pixels", "write")

    def __init__(self, model: LoadedModel, parameters: Mapping[str, float], write: Write) -> None:
        self.model = model
        self.parameters = parameters
        self.write = write
        self.pixels: dict[Job, Array] = {}  # decoded for this package

    def join(self, jobs: Sequence[Job], rows: int) -> Mapping[str, Array]:
        """Return the tensors of jobs as one batch, with the parameters that they do not set."""
        if len(jobs) == 1:
            tensors = jobs[0].tensors
        else:
            # The parameters are joined below, since only some of the jobs may set them.
            names = [name for name in jobs[0].tensors if name not in self.parameters]
            tensors = {name: np.concatenate([job.tensors[name] for job in jobs]) for name in names}
        if not self.parameters and not self.pixels:
            return tensors
        joined = dict(tensors)
        for name, value in self.parameters.items():
            joined[name] = _filled([job.tensors.get(name) for job in jobs], jobs, rows, value)
        if self.pixels:
            joined[self.model.schema.image or ""] = np.concatenate([self.pixels[j] for j in jobs])
        return joined


def _filled(given: list[Array | None], jobs: Sequence[Job], rows: int, value: float) -> Array:
    """Return a parameter for every row: as it was sent, else as it holds."""
    if not any(sent is not None for sent in given):
        return np.full(rows, value, dtype=np.float32)
    standing = [np.full(job.rows, value, dtype=np.float32) for job in jobs]
    pieces = [own if sent is None else sent for sent, own in zip(given, standing, strict=True)]
    return np.concatenate(pieces)


def _with_images(
    model: LoadedModel, jobs: Sequence[Job], parameters: Mapping[str, float], write: Write
) -> list[Part]:
    """Decode the images first; a job whose image is none does not spoil it for the others."""
    started = time.perf_counter()
    batch = Batch(model, parameters, write)
    parts: list[Part] = []
    for job in jobs:
        try:
            job.pictures = images.files(job.pictures)
            batch.pixels[job] = images.pixels(job.pictures, model.schema.size)
        except Exception as error:  # noqa: BLE001  # a file may make a decoder raise anything
            part = Part(model, (job,), started)
            part.refusal = _at_fault(error)
            parts.append(part)
    if batch.pixels:
        parts += _run_all(batch, list(batch.pixels), started)
    return parts


def _at_fault(error: Exception) -> Refusal:
    """Say what is wrong with an image, in one sentence."""
    if not isinstance(error, Problem):
        return Refusal(400, "G730", f"The image cannot be decoded: {reason(error)}.")
    why = " ".join(error.why.split())[:200].rstrip(".")
    return Refusal(400, error.code, f"{error.what.rstrip('.')}: {why}." if why else error.what)


def _run_all(batch: Batch, jobs: Sequence[Job], started: float) -> list[Part]:
    part = _run(batch, jobs, started)
    if part.error is None or len(jobs) == 1:
        return [part]
    # One request may have spoiled the batch for all: each gets a run of its own.
    return [_run(batch, (job,), time.perf_counter()) for job in jobs]


def _run(batch: Batch, jobs: Sequence[Job], started: float) -> Part:
    part = Part(batch.model, jobs, started)
    try:
        part.tensors = batch.join(jobs, part.rows)
        part.outputs = batch.model.run(part.tensors, part.rows)
        part.drop_pixels()
        part.bad_rows = _not_a_number(part)
        if part.bad_rows is not None:
            part.blameless = _without_bounds(part)
        part.seconds = time.perf_counter() - started
        batch.write(part)
    except Exception as error:  # noqa: BLE001  # an engine may raise anything; it is counted
        part.error = error
        part.outputs = {}
        part.drop_pixels()
    part.finished = time.perf_counter()
    part.seconds = part.seconds or part.finished - started
    return part


def _not_a_number(part: Part) -> Array | None:
    """Return the mask of rows with an output that is not finite, None when there is none."""
    mask: Array | None = None
    for name in part.model.schema.floats:
        finite = np.isfinite(part.outputs[name])
        # Looking for a zero byte takes a small array a third of what `all` takes.
        if b"\0" in finite.tobytes() if finite.size <= _SMALL else not finite.all():
            rows: Array = ~np.all(finite.reshape(part.rows, -1), axis=1)
            mask = rows if mask is None else mask | rows
    return mask


def _without_bounds(part: Part) -> Array:
    """Return the mask of rows with an input that no model can be asked to answer.

    Who may ask for predictions must not be able to have a good package rolled back.
    """
    mask: Array = np.zeros(part.rows, dtype=np.bool_)
    for name in part.model.schema.features:
        tensor = part.tensors.get(name)
        if tensor is not None and tensor.dtype.kind == "f":
            mask |= (np.abs(tensor) > _LARGEST).reshape(part.rows, -1).any(axis=1)
    return mask


def reason(error: BaseException) -> str:
    """Say in one line why a model failed."""
    text = error.what if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:200] if text else type(error).__name__
