"""From the stream to the probability of the tokens that are learned, and back.

Logits are made for learned tokens only, some hundred at a time, and are gone before the next: the
output matrix is the largest of a small model, and its logits the largest array of all. The idea of
taking the gradient in the same pass is that of Liger (Hsu et al. 2024,
https://arxiv.org/abs/2410.10989).
"""

from dataclasses import dataclass
from typing import Final

import torch

from genba.learn.language.network import Network

_ROWS: Final = 128  # learned tokens at a time; their logits fit into the cache


@dataclass(slots=True, eq=False)
class Said:
    """How likely the learned tokens were."""

    log_probability: torch.Tensor  # float32 [M]
    slope: torch.Tensor | None  # [M, width]: its gradient where the stream is normalised


def say(
    network: Network,
    stream: torch.Tensor,
    target: torch.Tensor,
    counts: torch.Tensor | None = None,
    *,
    slope: bool = True,
) -> tuple[Said, torch.Tensor]:
    """Return how likely tokens are, and the scale of the normalisation.

    Args:
        network: The model.
        stream: float32 [M, width]: after the last layer, at the token before each learned one.
        target: int64 [M].
        counts: float32 [M]: the gradient of the loss by each log probability. Needed where the
            output matrix is learned; its gradient is added up here.
        slope: Whether the gradient is wanted.
    """
    normed, scale = network.norm(stream, "norm")
    head, count = network.head, len(target)
    found, slopes = torch.empty(count), torch.empty_like(normed) if slope else None
    for at in range(0, count, _ROWS):
        part = slice(at, min(at + _ROWS, count))
        share = torch.log_softmax((normed[part] @ head.t()).float(), -1)
        found[part] = share.gather(1, target[part, None])[:, 0]
        if slopes is None:
            continue
        # d log p[target] / d logits = (1 at the target) - p; times the output matrix:
        likely = share.exp_().to(network.kind)
        torch.sub(head[target[part]], likely @ head, out=slopes[part])
        if counts is not None:
            network.learn_head(likely, target[part], normed[part], counts[part])
    return Said(found, slopes), scale
