"""Training in several processes: each takes its share of a step's examples, gradients are added up.

`torchrun`, Ray Train and `torch.multiprocessing` all start processes that share a process group;
`spread` finds it where there is one. Each process holds the whole model, as in PyTorch's own
DistributedDataParallel (Li et al. 2020, https://arxiv.org/abs/2006.15704).
"""

import torch
from torch import distributed


class Spread:
    """One process: the only one there is."""

    rank = 0
    size = 1

    def add_up(self, gradient: torch.Tensor) -> None:
        """Replace the gradient by the sum of all processes'."""

    def sums(self, *values: float) -> tuple[float, ...]:
        """Return the sums of all processes' values."""
        return values

    def any(self, value: bool) -> bool:
        """Return whether it is so in any process: all must stop at the same step."""
        return value

    def least(self, value: int) -> int:
        """Return the least of all processes' values."""
        return value


class Group(Spread):
    """The process group that torch was started with."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

    def add_up(self, gradient: torch.Tensor) -> None:
        """Replace the gradient by the sum of all processes'."""
        distributed.all_reduce(gradient)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Return the sums of all processes' values."""
        vector = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(vector)
        return tuple(vector.tolist())

    def any(self, value: bool) -> bool:
        """Return whether it is so in any process."""
        return bool(self.sums(float(value))[0])

    def least(self, value: int) -> int:
        """Return the least of all processes' values."""
        vector = torch.tensor([value])
        distributed.all_reduce(vector, distributed.ReduceOp.MIN)
        return int(vector)


def spread() -> Spread:
    """Return the process group of this process, or that it is alone."""
    return Group() if distributed.is_available() and distributed.is_initialized() else Spread()
