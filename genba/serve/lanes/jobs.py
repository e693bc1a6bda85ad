"""Jobs: one request on its way through a lane, and parts: jobs that were computed together."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.core.values import Role
from genba.serve.http.responses import Refusal
from genba.serve.lanes.calls import Call
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.speech import Counts
from genba.serve.oip import images
from genba.serve.oip.images import Picture
from genba.serve.oip.inputs import Inputs
from genba.serve.oip.schema import Schema, Wanted

_NONE: Final[Mapping[str, Array]] = {}


class Job:
    """One request on its way through a lane.

    Args:
        call: Who asks.
        inputs: What was read of it.
        first: Number of its first prediction.
        role: Of the package that shall answer.
        pinned: Whether the caller wants that package and no other.
    """

    __slots__ = (
        "answer",
        "call",
        "deadline",
        "entity_names",
        "first",
        "given_up",
        "moved",
        "parent",
        "pictures",
        "pinned",
        "received",
        "received_ms",
        "role",
        "rows",
        "size",
        "speech",
        "tensors",
        "time",
        "trace",
        "urgent",
        "wanted",
    )

    def __init__(
        self, call: Call, inputs: Inputs, first: int, role: Role, *, pinned: bool = False
    ) -> None:
        self.call: Call | None = call  # None once it has its answer, and for a shadow
        self.answer: Any = None  # as the call wrote it
        self.tensors: Mapping[str, Array] = inputs.tensors
        self.pictures: Sequence[Picture] = inputs.pictures
        self.wanted: Wanted = inputs.wanted
        self.speech = inputs.speech
        self.rows = inputs.rows
        self.entity_names = inputs.entity_names
        self.time = inputs.time
        self.size = call.size  # bytes
        self.received = call.received
        self.deadline = call.deadline
        self.urgent = call.urgent
        self.trace = call.trace
        self.parent: str = getattr(call, "parent", "")  # only HTTP says so
        self.received_ms = time.time_ns() // 1_000_000
        self.first = first
        self.role: Role = role
        self.pinned = pinned
        self.given_up = False  # past its deadline; told so, and counted then
        self.moved = False  # asked a second time, because the first package was condemned

    def copy(self, role: Role, first: int, tensors: Mapping[str, Array]) -> "Job":
        """Return the same request for another package."""
        copy: Job = object.__new__(Job)
        for name in Job.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.answer = None
        copy.given_up = False
        copy.role = role
        copy.first = first
        copy.tensors = tensors
        return copy

    def shadow(self, tensors: Mapping[str, Array]) -> "Job":
        """Return the same request for a package that sees it without answering."""
        copy = self.copy("shadow", self.first, tensors)
        copy.call = None
        if copy.speech is not None:
            copy.speech = replace(copy.speech, listener=None)
        copy.urgent = False  # whoever is answered comes first
        return copy

    def tensors_for(self, theirs: Schema, ours: Schema) -> Mapping[str, Array]:
        """Return the tensors for another package: it may know entities by other numbers.

        Args:
            theirs: Schema of the other package.
            ours: Schema of the package that the tensors were made for.
        """
        if theirs.entity is None or theirs.entities == ours.entities:
            return self.tensors
        indices = self.tensors[ours.entity or ""]
        names = self.entity_names or [name or "" for name in ours.names(indices)]
        return {**self.tensors, theirs.entity: theirs.indices(names)}


class Part:
    """Jobs that were computed together, and what came out."""

    __slots__ = (
        "bad_rows", "blameless", "charge_s", "counts", "error", "finished", "jobs", "kept", "model",
        "outputs", "refusal", "rows", "seconds", "started", "tensors", "words",
    )  # fmt: skip

    def __init__(self, model: LoadedModel, jobs: Sequence[Job], started: float) -> None:
        self.model = model
        self.jobs = jobs
        self.counts = [job.rows for job in jobs]
        self.rows = sum(self.counts)
        self.tensors: Mapping[str, Array] = {}
        self.outputs: Mapping[str, Array] = {}
        self.error: Exception | None = None
        self.refusal: Refusal | None = None  # the request was at fault, not the package
        self.bad_rows: Array | None = None  # mask of rows with an output that is not a number
        self.blameless: Array | None = None  # of these, rows whose inputs were without bounds
        self.started = started
        self.seconds = 0.0  # of computing
        self.charge_s: float | None = None  # of it that counts as work; None: all
        self.kept = True  # whether these are predictions, which are captured
        self.words: Counts | None = None  # of a language model
        self.finished = 0.0

    @property
    def in_time(self) -> Array:
        """The mask of the rows that were answered, not given up while they were computed."""
        given_up = [job.given_up for job in self.jobs]
        return ~np.repeat(given_up, self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of what is held for the capture."""
        arrays = (*self.tensors.values(), *self.outputs.values())
        held = 0
        if self.model.schema.image is not None:
            held = sum(images.weight(job.pictures) for job in self.jobs)
        return held + sum(array.nbytes for array in arrays)

    def drop_pixels(self) -> None:
        """Let go of decoded images; the files are with the jobs."""
        if (image := self.model.schema.image) is not None:
            self.tensors = {name: t for name, t in self.tensors.items() if name != image}

    def let_go(self) -> None:
        """Let go of what is not captured: large outputs, answers, tensors the part has joined."""
        schema = self.model.schema
        if len(schema.kept_outputs) < len(self.outputs):
            self.outputs = {n: a for n, a in self.outputs.items() if n in schema.kept_outputs}
        for job in self.jobs:
            job.answer = None
            job.tensors = _NONE
