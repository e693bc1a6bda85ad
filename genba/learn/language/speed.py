"""How fast this machine multiplies, and how much of that training uses."""

import time
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch

from genba.learn.language.examples import Precision
from genba.learn.language.shape import Shape

_TOKENS: Final = 1024
_TRIAL_S: Final = 0.1  # CPU time
_WORTH: Final = 1.3  # how much faster bfloat16 must be to be worth its rounding


@cache
def flops_per_s(kind: torch.dtype, outputs: int, inputs: int) -> float:
    """Measure matrix products of a size: floating-point operations per second of CPU time."""
    given = torch.ones(_TOKENS, inputs, dtype=kind)
    weight = torch.ones(outputs, inputs, dtype=kind)
    result = given @ weight.t()
    start, count = time.process_time(), 0
    while (spent := time.process_time() - start) < _TRIAL_S:
        torch.mm(given, weight.t(), out=result)
        count += 1
    return 2.0 * _TOKENS * outputs * inputs * count / spent


def peak_flops(kind: torch.dtype, shape: Shape) -> float:
    """Return the best rate of the products this model is made of, per second of CPU time."""
    return max(flops_per_s(kind, rows, columns) for _, rows, columns in shape.matrices())


def chosen_precision(wanted: Precision, shape: Shape) -> Precision:
    """Return the number format of the arithmetic: what is wanted, or the faster one."""
    if wanted != "auto":
        return wanted
    gain = peak_flops(torch.bfloat16, shape) / peak_flops(torch.float32, shape)
    return "bf16" if gain > _WORTH else "fp32"


@dataclass(slots=True)
class Work:
    """What training has done so far, evaluations apart."""

    read: int = 0  # tokens of the conversations
    run: int = 0  # tokens that went through the network
    learned: int = 0  # tokens whose probability was asked for
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def flops(self, shape: Shape, *, full: bool) -> float:
        """Return the operations of the matrix products; attention, about 3 %, is left out.

        Adapters: forward, and the gradient of the stream. Full: that of the weights besides. What
        is run a second time to save memory is not counted.
        """
        passes = 6 if full else 4
        head = shape.vocabulary * shape.width
        return float(passes) * (self.run * shape.layer_parameters + self.learned * head)

    def measures(self, shape: Shape, peak: float, *, full: bool) -> dict[str, float]:
        """Return the rates, per second of CPU time where they say so.

        Args:
            shape: Of the model.
            peak: See `peak_flops`.
            full: Whether every weight is learned.
        """
        flops, cpu_s, wall_s = self.flops(shape, full=full), self.cpu_s or 1e-9, self.wall_s or 1e-9
        return {
            "tokens": float(self.read),
            "tokens_run": float(self.run),
            "tokens_learned": float(self.learned),
            "cpu_s": self.cpu_s,
            "wall_s": self.wall_s,
            "tokens_per_s": self.read / wall_s,
            "tokens_per_cpu_s": self.read / cpu_s,
            "flops_per_cpu_s": flops / cpu_s,
            "peak_flops_per_cpu_s": peak,
            "share_of_peak": flops / cpu_s / peak,
        }
