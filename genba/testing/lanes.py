"""Stand-ins around a lane: a call that takes down what it is told, and a package that doubles."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.core.values import Signature, Tensor
from genba.serve.http.responses import Refusal
from genba.serve.lanes.curve import Curve
from genba.serve.oip.inputs import Inputs
from genba.serve.oip.schema import Schema, Wanted

SIGNATURE: Final = Signature(
    inputs=(Tensor(name="x", datatype="FP32", shape=(-1,)),),
    outputs=(
        Tensor(name="y", datatype="FP32", shape=(-1,), role="score"),
        Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
    ),
)
SCHEMA: Final = Schema(SIGNATURE, ())
#: Numbers with a meaning for `Doubler`.
UNLUCKY: Final = 13
NOT_A_NUMBER: Final = 99
_ALARM: Final = 100


class Heard:
    """A call that takes down what it is told: package and numbers, or the code of a refusal.

    Args:
        deadline_s: From now.
        urgent: Whether somebody waits.
        now: By the clock of the deadlines.
        size: Bytes.
    """

    def __init__(
        self,
        deadline_s: float = 5.0,
        *,
        urgent: bool = True,
        now: float | None = None,
        size: int = 4,
    ) -> None:
        self.received = time.perf_counter() if now is None else now
        self.deadline = self.received + deadline_s
        self.urgent = urgent
        self.size = size
        self.trace = ""
        self.caller = ""
        self.gone = False
        self.told: list[tuple[str, list[float]] | Refusal] = []

    def write(
        self,
        schema: Schema,  # noqa: ARG002  # of the protocol
        wanted: Wanted,  # noqa: ARG002  # of the protocol
        outputs: Mapping[str, Array],
        *,
        line: str,  # noqa: ARG002  # of the protocol
        parameters: Mapping[str, str],
    ) -> Any:
        """Take what was computed."""
        return parameters["package"], outputs["y"].tolist()

    def answer(self, written: Any) -> None:
        """Take an answer."""
        self.told.append(written)

    def refuse(self, refusal: Refusal) -> None:
        """Take a refusal."""
        self.told.append(refusal)

    @property
    def said(self) -> str:
        """The package that answered, or the code of the refusal; the only thing that was told."""
        (told,) = self.told
        return told.code if isinstance(told, Refusal) else told[0]


class Doubler:
    """A package that doubles numbers; 13 makes it fail, 99 makes it forget what a number is.

    Args:
        package: Its id.
        seconds: That a batch is said to take, whatever its rows.
        wait: Called in every run.
        runners: How many batches may run at once.
        batch_rows: Of a full batch.
    """

    def __init__(
        self,
        package: str = "p",
        seconds: float = 0.0,
        wait: Callable[[], object] = lambda: None,
        *,
        runners: int = 1,
        batch_rows: int = 8,
    ) -> None:
        self.package = package
        self.seconds = self.batch_seconds = seconds
        self.curve = Curve({1: seconds, batch_rows: seconds})
        self.runners = runners
        self.schema = SCHEMA
        self.talks = None
        self.batches: list[list[float]] = []
        self.threads: set[int] = set()
        self.closed = 0
        self.used_after_close = 0
        self._wait = wait

    def run(self, tensors: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """Double."""
        self.used_after_close += bool(self.closed)
        self._wait()
        x = tensors["x"]
        if len(x) != rows:
            raise ValueError("the rows do not add up")
        self.batches.append(x.tolist())
        self.threads.add(threading.get_ident())
        if UNLUCKY in x:
            raise ValueError("thirteen\nis unlucky")
        y = np.where(x == NOT_A_NUMBER, np.nan, x * 2).astype(np.float32)
        return {"y": y, "alarm": y > _ALARM}

    def close(self) -> None:
        """Take note."""
        self.closed += 1


def numbers(values: Sequence[float]) -> Inputs:
    """Return a request for `Doubler`."""
    return Inputs(
        {"x": np.array(values, dtype=np.float32)},
        len(values),
        entity_names=None,
        time=None,
        wanted=SCHEMA.all_outputs("", binary=True),
    )
