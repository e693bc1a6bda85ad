"""An engine that misbehaves on purpose, to see that the factory notices."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from genba.core.codec import decode
from genba.core.protocols import Array, Engine, JsonObject, Tensors
from genba.core.resolve import resolve

_FOREVER_S: Final = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultySettings:
    """Which engine to wrap, when it goes wrong and how."""

    engine: str
    settings: dict[str, Any] = field(default_factory=dict)
    after: int = 0  # predictions (rows, those of a warm-up too) that are still answered well
    switch: str = ""  # a file: it goes wrong only while this is there
    delay_ms: float = 0.0
    not_a_number: bool = False
    error: bool = False
    wrong_shape: bool = False
    hang: bool = False
    leak_bytes: int = 0  # held for ever, per batch
    signal: int = 0  # the process really gets it: 11 is a segmentation fault
    print_bytes: int = 0  # of rubbish on what the process takes for standard output, per batch
    spawn: str = ""  # a file: a process is begun that outlives this one, and its id written there


class FaultyEngine:
    """A real engine that after a number of predictions does one of the things engines do wrong.

    It is slow, answers with NaN or in another shape, raises, hangs, leaks memory or kills its
    process. A line never chooses it: it offers no candidates.

    Args:
        model: The graph, for the real engine.
        settings: See `FaultySettings`.
    """

    name: ClassVar[str] = "faulty"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        self._chosen = decode(FaultySettings, settings, where="engine.settings")
        self._real: Engine = resolve("engine", self._chosen.engine)(model, self._chosen.settings)
        self._predictions = 0
        self._leaked: list[bytearray] = []

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:  # noqa: ARG003  # of the protocol
        """Return nothing: this engine is for drills."""
        return ()

    @classmethod
    def version(cls) -> str:
        """Return the version of the faults."""
        return "3"

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch, well or badly."""
        outputs = self._real.run(tensors)
        rows = len(next(iter(outputs.values())))
        self._predictions += rows
        bad = min(max(self._predictions - self._chosen.after, 0), rows)
        if not bad or (self._chosen.switch and not Path(self._chosen.switch).exists()):
            return outputs
        for name, fault in _FAULTS.items():
            if getattr(self._chosen, name):
                outputs = fault(self, outputs, bad)
        return outputs

    def close(self) -> None:
        """Free what the real engine holds."""
        self._real.close()

    def _delay(self, outputs: dict[str, Array], _: int) -> dict[str, Array]:
        time.sleep(self._chosen.delay_ms / 1000)
        return outputs

    def _raise(self, _outputs: dict[str, Array], _: int) -> dict[str, Array]:
        raise RuntimeError("the drill makes this engine fail")

    def _hang(self, outputs: dict[str, Array], _: int) -> dict[str, Array]:
        time.sleep(_FOREVER_S)
        return outputs

    def _leak(self, outputs: dict[str, Array], _: int) -> dict[str, Array]:
        self._leaked.append(bytearray(os.urandom(1)) * self._chosen.leak_bytes)
        return outputs

    def _kill(self, outputs: dict[str, Array], _: int) -> dict[str, Array]:
        signal.pthread_kill(threading.get_ident(), self._chosen.signal)
        return outputs

    def _print(self, outputs: dict[str, Array], _: int) -> dict[str, Array]:
        os.write(1, b"\x93GENBA" + b"?" * self._chosen.print_bytes + b"\n")
        return outputs

    def _spawn(self, outputs: dict[str, Array], _: int) -> dict[str, Array]:
        waiting = [sys.executable, "-c", f"import time; time.sleep({_FOREVER_S})"]
        child = subprocess.Popen(waiting, start_new_session=True)  # noqa: S603  # this Python
        Path(self._chosen.spawn).write_text(str(child.pid))
        return outputs

    def _spoil(self, outputs: dict[str, Array], bad: int) -> dict[str, Array]:
        return {name: _not_a_number(output, bad) for name, output in outputs.items()}

    def _reshape(self, outputs: dict[str, Array], _: int) -> dict[str, Array]:
        return {name: np.stack([output, output], axis=-1) for name, output in outputs.items()}


_Fault = Callable[[FaultyEngine, dict[str, Array], int], dict[str, Array]]
_FAULTS: Final[Mapping[str, _Fault]] = {
    "spawn": FaultyEngine._spawn,
    "print_bytes": FaultyEngine._print,
    "delay_ms": FaultyEngine._delay,
    "hang": FaultyEngine._hang,
    "leak_bytes": FaultyEngine._leak,
    "signal": FaultyEngine._kill,
    "error": FaultyEngine._raise,
    "not_a_number": FaultyEngine._spoil,
    "wrong_shape": FaultyEngine._reshape,
}


def _not_a_number(output: Array, rows: int) -> Array:
    """Return the output with its last rows not a number; decisions cannot be NaN and stay."""
    if output.dtype.kind != "f":
        return output
    spoiled = output.copy()
    spoiled[len(spoiled) - rows :] = np.nan
    return spoiled
