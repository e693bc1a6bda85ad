"""What a long stage may use, and how it survives being killed."""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self

import safetensors.numpy as safetensors

from genba.core import io
from genba.core.digest import canonical_json, digest_bytes
from genba.core.line import Budget
from genba.core.protocols import Array
from genba.runs.progress import Progress, SilentProgress
from genba.runs.stop import Cancelled, StopSign

__all__ = ["Cancelled", "Checkpoint", "Effort", "FileCheckpoint", "MemoryCheckpoint"]

_NAME: Final = re.compile(r"checkpoint-(\d+)\.json")


class Checkpoint(Protocol):
    """Where a stage keeps what it must not do twice."""

    @property
    def spent_s(self) -> float:
        """Seconds that earlier attempts had spent by their last save."""
        ...

    def load(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        """Return what was saved last, by this attempt or the ones before, or None."""
        ...

    def save(self, meta: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Replace what was saved; durable on return."""
        ...


class MemoryCheckpoint:
    """A checkpoint that lives as long as the process; for tests and short work."""

    spent_s = 0.0  # there are no earlier attempts

    def __init__(self) -> None:
        self._saved: tuple[dict[str, Any], dict[str, Array]] | None = None

    def load(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        """Return what was saved last, or None."""
        return self._saved

    def save(self, meta: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Replace what was saved."""
        copies = {name: array.copy() for name, array in (arrays or {}).items()}
        self._saved = (json.loads(canonical_json(meta)), copies)


class FileCheckpoint:
    """A checkpoint in the work directory of a stage key.

    Each attempt writes its own files, so an owner that was stalled and comes back cannot disturb
    the one that took over. `checkpoint-N.json` names `arrays-N-DIGEST.safetensors` by content and
    is replaced after it, so the pair is never torn.

    Example:
        >>> import tempfile, numpy as np
        >>> directory = Path(tempfile.mkdtemp())
        >>> FileCheckpoint(directory, attempt=1).save({"trial": 3}, {"w": np.zeros(2)})
        >>> meta, arrays = FileCheckpoint(directory, attempt=2).load()
        >>> meta, arrays["w"].tolist()
        ({'trial': 3}, [0.0, 0.0])
    """

    def __init__(self, directory: Path, *, attempt: int) -> None:
        self._directory = directory
        self._attempt = attempt
        self._started_s = time.monotonic()
        self._before_s = 0.0
        self._loaded = self._newest()

    @property
    def spent_s(self) -> float:
        """Seconds that earlier attempts had spent by their last save."""
        return self._before_s

    def load(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        """Return what was saved last, by this attempt or the ones before, or None."""
        return self._loaded

    def save(self, meta: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Replace what was saved; durable on return.

        Raises:
            Problem: G303 when the disk is full; the checkpoint before is then still whole.
        """
        name = ""
        if not self._directory.is_dir():
            io.make_dirs_durable(self._directory)
        if arrays:
            data = safetensors.save({k: _contiguous(v) for k, v in arrays.items()})
            name = f"arrays-{self._attempt}-{digest_bytes(data)}.safetensors"
            io.write_durable(self._directory / name, data)
        spent_s = self._before_s + time.monotonic() - self._started_s
        content = {"meta": meta, "spent_s": spent_s, "arrays": name}
        path = self._directory / f"checkpoint-{self._attempt}.json"
        io.write_durable(path, canonical_json(content))
        for old in self._directory.glob(f"arrays-{self._attempt}-*.safetensors"):
            if old.name != name:
                io.discard(old)
        self._loaded = (json.loads(canonical_json(meta)), dict(arrays or {}))

    def clear(self) -> None:
        """Remove the files of every attempt, once the stage has its result."""
        clear(self._directory)

    def _newest(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        found = [(int(m[1]), p) for p, m in _files(self._directory) if int(m[1]) <= self._attempt]
        for _, path in sorted(found, reverse=True):
            loaded = self._read(path)
            if loaded is not None:
                return loaded
        return None

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Array]] | None:
        """Read a checkpoint; one that is not whole is passed over, it only saves time."""
        try:
            content = json.loads(path.read_bytes())
            arrays = self._arrays(content["arrays"])
            self._before_s = float(content["spent_s"])
            return dict(content["meta"]), arrays
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _arrays(self, name: str) -> dict[str, Array]:
        if not name:
            return {}
        data = (self._directory / Path(name).name).read_bytes()
        if digest_bytes(data) not in name:
            raise ValueError(f"{name} is damaged")
        return dict(safetensors.load(data))


def clear(directory: Path) -> None:
    """Remove a stage's work directory with its checkpoints; what is not ours stays."""
    if not directory.is_dir():
        return
    for path in (*directory.glob("checkpoint-*.json"), *directory.glob("arrays-*.safetensors")):
        io.discard(path)
    if not any(directory.iterdir()):
        directory.rmdir()


def _files(directory: Path) -> list[tuple[Path, re.Match[str]]]:
    paths = directory.glob("checkpoint-*.json")
    return [(p, m) for p in paths if (m := _NAME.fullmatch(p.name))]


def _contiguous(array: Array) -> Array:
    return array if array.flags.c_contiguous else array.copy(order="C")


class Effort:
    """What a stage may use: a seed, a budget, a checkpoint, a way to say how far it is.

    Example:
        >>> effort = Effort.simple(minutes=1)
        >>> effort.check()
        >>> effort.expired, effort.elapsed_s < 60
        (False, True)
    """

    def __init__(
        self,
        *,
        seed: int,
        budget: Budget,
        checkpoint: Checkpoint,
        progress: Progress,
        stop: StopSign,
    ) -> None:
        self.seed = seed
        self.budget = budget
        self.checkpoint = checkpoint
        self.progress = progress
        self._stop = stop
        self._started_s = time.monotonic()

    @classmethod
    def simple(cls, seed: int = 0, minutes: float = 1.0, trials: int = 12) -> Self:
        """Return an effort that keeps its checkpoint in memory and says nothing."""
        return cls(
            seed=seed,
            budget=Budget(minutes=minutes, trials=trials),
            checkpoint=MemoryCheckpoint(),
            progress=SilentProgress(),
            stop=StopSign(),
        )

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on this stage, those of interrupted attempts included."""
        return self.checkpoint.spent_s + time.monotonic() - self._started_s

    @property
    def expired(self) -> bool:
        """Whether the minutes of the budget are used up."""
        return self.elapsed_s >= self.budget.minutes * 60

    def check(self) -> None:
        """Return if the work may go on; call it in every loop that may take long.

        Raises:
            Cancelled: If Ctrl-C was pressed.
            LeaseLost: If another process has taken the stage over.
        """
        self._stop.check()
