"""A request to a language model while it is answered, and the part that comes of it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.talk import Piece
from genba.edge.texts import as_bytes
from genba.serve.http.responses import Refusal
from genba.serve.lanes.asking import GIVEN
from genba.serve.lanes.jobs import Job, Part
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.speech import Counts, Heard, Listener, Told
from genba.serve.lanes.voice import Voice

#: Codes of problems that the request is to blame for.
_ASKED_WRONGLY = frozenset({"G602", "G640", "G641", "G643"})
_NOTHING = Told(text="", finish="")
_NO_PIECES = Heard()


class Telling:
    """A request that is being answered.

    Args:
        job: The request.
        started: When it got its turn, on the clock of the lane.
    """

    __slots__ = ("begun", "first_s", "job", "looking", "pieces", "started", "told")

    def __init__(self, job: Job, started: float) -> None:
        self.job = job
        self.started = started
        self.begun = False  # whether one of its answers is being written
        self.first_s: dict[int, float] = {}  # from the request to the first text of each answer
        self.told: list[Told] = []
        self.pieces: dict[Voice, list[Piece]] = {}  # that rails have not looked at
        self.looking: set[Voice] = set()

    @property
    def listener(self) -> Listener | None:
        """Who hears the answers while they are written."""
        return self.job.speech.listener if self.job.speech is not None else None

    @property
    def spoken(self) -> bool:
        """Whether the client has got a part of an answer."""
        return self.listener is not None and self.listener.spoken

    @property
    def whole(self) -> bool:
        """Whether every answer is there."""
        return bool(self.told) and all(one is not _NOTHING for one in self.told)

    def expect(self, answers: Sequence[object]) -> None:
        """Take down how many answers there will be."""
        self.told = [_NOTHING] * len(answers)

    def hear(
        self, row: int, heard: Heard, now: float, parameters: Callable[[], Mapping[str, str]]
    ) -> None:
        """Hand on what may be said of one answer."""
        if heard.text:
            self.first_s.setdefault(row, now - self.job.received)
        if self.listener is not None and heard != _NO_PIECES:
            self.listener.hears(row, heard, parameters())

    def hear_whole(self, row: int, parameters: Callable[[], Mapping[str, str]]) -> None:
        """Hand on an answer that nobody had to write."""
        if self.listener is not None and self.told[row].text:
            self.listener.hears(row, Heard(text=self.told[row].text), parameters())


def as_part(
    telling: Telling,
    model: LoadedModel,
    standing: Mapping[str, float],
    now: float,
    error: Exception | None,
) -> Part:
    """Return what came of a request, as lanes of other packages hand it on.

    Args:
        telling: The request with its answers.
        model: The package.
        standing: The parameters that hold where the request says none.
        now: On the clock of the lane.
        error: Why there is no answer.
    """
    job = telling.job
    part = Part(model, (job,), telling.started)
    part.tensors = _tensors(job, model, standing)
    part.seconds = now - telling.started
    part.charge_s = 0.0  # the lane says how long it worked: answers are written side by side
    part.kept = job.speech is None or job.speech.kept
    if isinstance(error, Refusal):
        part.refusal = error
    elif isinstance(error, Problem) and error.code in _ASKED_WRONGLY:
        part.refusal = Refusal(400, error.code, error.what)
    elif isinstance(error, RecursionError):
        part.refusal = Refusal(400, "G704", "The request is nested too deeply.")
    elif error is not None:
        part.error = error
    else:
        part.outputs = _outputs(telling.told, model)
        part.words = Counts(
            prompt=sum(told.counted[0] for told in telling.told),
            answer=sum(told.counted[1] for told in telling.told),
            first_s=tuple(telling.first_s.values()),
        )
        bad = ~np.isfinite(part.outputs["log_probability"])
        part.bad_rows = bad if bad.any() else None
    return part


def _tensors(job: Job, model: LoadedModel, standing: Mapping[str, float]) -> dict[str, Array]:
    tensors = dict(job.tensors)
    for name, value in standing.items():
        if name not in tensors:
            tensors[name] = np.full(job.rows, value, dtype=np.float32)
    if model.schema.given is not None:
        tensors.setdefault(GIVEN, as_bytes([b""] * job.rows))
    return tensors


def _outputs(told: Sequence[Told], model: LoadedModel) -> dict[str, Array]:
    made: dict[str, Array] = {
        "answer": as_bytes([one.text for one in told]),
        "log_probability": np.array([one.log_probability for one in told], dtype=np.float32),
        "tokens": np.array([one.counted for one in told], dtype=np.int32),
        "by": as_bytes([one.by for one in told]),
        "sources": as_bytes([one.sources for one in told]),
    }
    return {name: array for name, array in made.items() if name in model.schema.outputs}
