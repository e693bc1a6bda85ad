"""A lane: one package, its queue and its batches. No timers: waiting never makes a batch.

A fast package runs on the event loop, once per turn of the loop, with everything that turn read.
A slow one, and every one that takes images, runs on a thread of its own, where images are decoded
and answers are written too; whatever arrives while a batch is computed is the next batch. Either
way all state belongs to the event loop, so there are no locks.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.values import Role
from genba.serve import images
from genba.serve.answers import Answer
from genba.serve.images import Picture
from genba.serve.limits import Limits
from genba.serve.models import LoadedModel
from genba.serve.oip import Inputs
from genba.serve.protocol import Request
from genba.serve.responses import Refusal
from genba.serve.schema import Wanted


class Job:
    """One request on its way through a lane."""

    __slots__ = (
        "answer",
        "entity_names",
        "first",
        "given_up",
        "pictures",
        "received",
        "received_ms",
        "request",
        "role",
        "rows",
        "size",
        "tensors",
        "time",
        "wanted",
    )

    def __init__(
        self,
        request: Request,
        inputs: Inputs,
        first: int,
        role: Role,
        tensors: Mapping[str, Array] | None = None,
    ) -> None:
        self.request: Request | None = request  # None for a shadow: it answers nobody
        self.wanted: Wanted = inputs.wanted
        self.answer: Answer | None = None
        self.tensors = inputs.tensors if tensors is None else tensors
        self.pictures: Sequence[Picture] = inputs.pictures
        self.size = request.size  # bytes
        self.rows = inputs.rows
        self.entity_names = inputs.entity_names
        self.time = inputs.time
        self.first = first  # number of its first prediction
        self.role: Role = role
        self.received = request.received
        self.received_ms = time.time_ns() // 1_000_000
        self.given_up = False  # past its deadline; told so, and counted then

    def shadow(self, tensors: Mapping[str, Array]) -> "Job":
        """Return the same request for a package that sees it without answering."""
        copy: Job = object.__new__(Job)
        for name in Job.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.request = None
        copy.given_up = False
        copy.role = "shadow"
        copy.tensors = tensors
        return copy


class Part:
    """Jobs that were computed together, and what came out."""

    __slots__ = ("bad_rows", "error", "finished", "jobs", "model", "outputs", "refusal", "rows",
                 "seconds", "started", "tensors")  # fmt: skip

    def __init__(self, model: LoadedModel, jobs: Sequence[Job], started: float) -> None:
        self.model = model
        self.jobs = jobs
        self.rows = sum(job.rows for job in jobs)
        self.tensors: Mapping[str, Array] = {}
        self.outputs: Mapping[str, Array] = {}
        self.error: Exception | None = None
        self.refusal: Refusal | None = None  # the request was at fault, not the package
        self.bad_rows: Array | None = None  # mask of rows with an output that is not a number
        self.started = started
        self.seconds = 0.0  # of computing
        self.finished = 0.0

    @property
    def in_time(self) -> Array:
        """The mask of the rows that were answered, not given up while they were computed."""
        given_up = [job.given_up for job in self.jobs]
        return ~np.repeat(given_up, [job.rows for job in self.jobs])

    @property
    def nbytes(self) -> int:
        """Bytes of what is held for the capture."""
        arrays = (*self.tensors.values(), *self.outputs.values())
        held = sum(images.weight(job.pictures) for job in self.jobs)
        return held + sum(array.nbytes for array in arrays)

    def drop_pixels(self) -> None:
        """Let go of decoded images; the files are with the jobs."""
        if (image := self.model.schema.image) is not None:
            self.tensors = {name: t for name, t in self.tensors.items() if name != image}

    def drop_maps(self) -> None:
        """Let go of outputs that are not captured, and of the answers, which are sent."""
        schema = self.model.schema
        if len(schema.kept_outputs) < len(self.outputs):
            self.outputs = {n: a for n, a in self.outputs.items() if n in schema.kept_outputs}
        for job in self.jobs:
            job.answer = None


class Lane:
    """One loaded package and the jobs that wait for it.

    Args:
        model: The package.
        loop: The event loop that owns the lane.
        limits: Of the server.
        finished: Called on the event loop with every part that was computed.
        expired: Called on the event loop with every job that passed its deadline.
        answer: Called where a part was computed, to write the answers of its jobs.
    """

    def __init__(
        self,
        model: LoadedModel,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        finished: Callable[["Lane", Part], None],
        expired: Callable[["Lane", Job], None],
        answer: Callable[[Part], None],
    ) -> None:
        self.model = model
        self.inline = (
            model.schema.image is None
            and model.seconds < limits.inline_s
            and model.batch_seconds < limits.stall_s
        )
        self._answer = answer
        self._loop = loop
        self._limits = limits
        self._finished = finished
        self._expired = expired
        self._waiting: deque[Job] = deque()
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._running: Sequence[Job] = ()
        self._scheduled = False
        self._stalls = 0
        self._retired = False
        self._thread: ThreadPoolExecutor | None = None

    @property
    def waiting_rows(self) -> int:
        """Rows that wait to be computed."""
        return self._waiting_rows

    @property
    def idle(self) -> bool:
        """Whether the lane has nothing to do."""
        return not self._waiting and not self._running

    def has_room(self, rows: int, size: int) -> bool:
        """Say whether so many rows of so many bytes may still join the queue."""
        return (
            self._waiting_rows + rows <= self._limits.queue_rows
            and self._waiting_bytes + size <= self._limits.queue_bytes
        )

    def submit(self, job: Job) -> None:
        """Queue a job; ask `has_room` first."""
        self._waiting.append(job)
        self._waiting_rows += job.rows
        self._waiting_bytes += job.size
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def expire(self, now: float) -> None:
        """Give up on jobs that are older than the deadline; a stuck engine must not hold them."""
        oldest = now - self._limits.deadline_s
        for job in (*self._running, *self._waiting):
            if job.received < oldest and not job.given_up:
                job.given_up = True
                self._expired(self, job)

    def retire(self) -> None:
        """Free the package as soon as its last job is done."""
        self._retired = True
        self._close_if_done()

    # Everything below runs on the event loop, except `_compute`.

    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and not self._running:
            jobs = self._take()
            if not jobs:
                break
            if self.inline:
                self._finish(self._compute(jobs))
            else:
                self._hand_over(jobs)
        self._close_if_done()

    def _take(self) -> list[Job]:
        """Take jobs up to a full batch from the queue; at least one, whatever its size."""
        jobs: list[Job] = []
        rows = 0
        while self._waiting and (not jobs or rows + self._waiting[0].rows <= self.model.batch_rows):
            job = self._waiting.popleft()
            self._waiting_rows -= job.rows
            self._waiting_bytes -= job.size
            if not job.given_up:
                jobs.append(job)
                rows += job.rows
        return jobs

    def _hand_over(self, jobs: list[Job]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="genba-lane")
        self._running = jobs
        self._thread.submit(self._work, jobs)

    def _work(self, jobs: list[Job]) -> None:
        parts = self._compute(jobs)
        self._loop.call_soon_threadsafe(self._worked, parts)

    def _worked(self, parts: list[Part]) -> None:
        self._running = ()
        self._finish(parts)
        self._flush()

    def _finish(self, parts: list[Part]) -> None:
        for part in parts:
            self._finished(self, part)
        if self.inline:
            slow = sum(part.seconds for part in parts) > self._limits.stall_s
            self._stalls = self._stalls + 1 if slow else 0
            # It was fast when it was loaded and is not any more: off the event loop with it.
            self.inline = self._stalls < self._limits.stalls

    def _close_if_done(self) -> None:
        if not self._retired or not self.idle:
            return
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
        self._retired = False
        self.model.close()

    def _compute(self, jobs: Sequence[Job]) -> list[Part]:
        started = time.perf_counter()
        parts: list[Part] = []
        if self.model.schema.image is not None:
            parts = [part for job in jobs if (part := _undecoded(self.model, job, started))]
            refused = {part.jobs[0] for part in parts}
            jobs = [job for job in jobs if job not in refused]
        if jobs:
            parts += self._run_all(jobs, started)
        for part in parts:
            for job in part.jobs:
                job.tensors = {}  # the part has them, joined and without the pixels
        return parts

    def _run_all(self, jobs: Sequence[Job], started: float) -> list[Part]:
        part = _run(self.model, jobs, started, self._answer)
        if part.error is None or len(jobs) == 1:
            return [part]
        # One request may have spoiled the batch for all: each gets a run of its own.
        return [_run(self.model, [job], time.perf_counter(), self._answer) for job in jobs]


def _undecoded(model: LoadedModel, job: Job, started: float) -> Part | None:
    """Decode the images of a job for its package; return its end where one cannot be decoded."""
    try:
        job.pictures = images.files(job.pictures)
        made = images.pixels(job.pictures, model.schema.size)
    except Exception as error:  # noqa: BLE001  # a file may make a decoder raise anything
        part = Part(model, (job,), started)
        part.refusal = _at_fault(error)
        return part
    job.tensors = {**job.tensors, model.schema.image or "": made}
    return None


def _at_fault(error: Exception) -> Refusal:
    """Say what is wrong with an image, in one sentence."""
    if not isinstance(error, Problem):
        return Refusal(400, "G730", f"The image cannot be decoded: {reason(error)}.")
    why = " ".join(error.why.split())[:200].rstrip(".")
    return Refusal(400, error.code, f"{error.what.rstrip('.')}: {why}." if why else error.what)


def _run(
    model: LoadedModel, jobs: Sequence[Job], started: float, answer: Callable[[Part], None]
) -> Part:
    part = Part(model, jobs, started)
    try:
        part.tensors = _joined(jobs)
        part.outputs = model.run(part.tensors, part.rows)
        part.drop_pixels()
        part.bad_rows = _not_a_number(model, part)
        part.seconds = time.perf_counter() - started
        answer(part)
    except Exception as error:  # noqa: BLE001  # an engine may raise anything; it is counted
        part.error = error
        part.outputs = {}
        part.drop_pixels()
    part.finished = time.perf_counter()
    part.seconds = part.seconds or part.finished - started
    return part


def _joined(jobs: Sequence[Job]) -> Mapping[str, Array]:
    if len(jobs) == 1:
        return jobs[0].tensors
    return {name: np.concatenate([job.tensors[name] for job in jobs]) for name in jobs[0].tensors}


def _not_a_number(model: LoadedModel, part: Part) -> Array | None:
    """Return the mask of rows with an output that is not finite, None when there is none."""
    mask: Array | None = None
    for name in model.schema.floats:
        finite = np.isfinite(part.outputs[name])
        if not finite.all():
            rows: Array = ~np.all(finite.reshape(part.rows, -1), axis=1)
            mask = rows if mask is None else mask | rows
    return mask


def reason(error: Exception) -> str:
    """Say in one line why a model failed."""
    text = error.what if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:200] if text else type(error).__name__
