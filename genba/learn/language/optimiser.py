"""AdamW on one vector.

Sources: Kingma & Ba 2015 (https://arxiv.org/abs/1412.6980); Loshchilov & Hutter 2019
(https://arxiv.org/abs/1711.05101). Written out, since importing torch's own costs three seconds.
"""

import math
from collections.abc import Mapping
from typing import Final

import torch

from genba.core.protocols import Array
from genba.learn.language.parameters import Parameters, tensor_of

_MEAN, _SQUARE = 0.9, 0.999  # how much of the past the moments keep
_LEAST: Final = 1e-8


class Optimiser:
    """Moves parameters against their gradient.

    Args:
        parameters: What is learned.
        clip: Largest norm of a gradient; a larger one is made that long.
        weight_decay: Share of each value that is taken away, times the rate.
    """

    def __init__(self, parameters: Parameters, clip: float, weight_decay: float) -> None:
        self._parameters = parameters
        self._clip = clip
        self._weight_decay = weight_decay
        self.moments = {name: torch.zeros_like(parameters.values) for name in ("mean", "square")}

    def move(self, rate: float, step: int) -> None:
        """Take a step, counted from 0; the gradient is used up."""
        gradient = self._parameters.gradient
        norm = float(torch.linalg.vector_norm(gradient))
        if norm > self._clip:
            gradient.mul_(self._clip / norm)
        mean, square = self.moments["mean"], self.moments["square"]
        mean.lerp_(gradient, 1 - _MEAN)
        square.mul_(_SQUARE).addcmul_(gradient, gradient, value=1 - _SQUARE)
        # Moments begin at zero; what they lack by that is made good.
        torch.sqrt(square, out=gradient)
        gradient.div_(math.sqrt(1 - _SQUARE ** (step + 1))).add_(_LEAST)
        values = self._parameters.values.mul_(1 - rate * self._weight_decay)
        values.addcdiv_(mean, gradient, value=-rate / (1 - _MEAN ** (step + 1)))

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take over the moments of a checkpoint."""
        for name, moment in self.moments.items():
            moment.copy_(tensor_of(arrays[name]))
