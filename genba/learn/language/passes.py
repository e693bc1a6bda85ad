"""One batch through the network, forward and back: what a step of training adds up."""

from collections.abc import Callable, Sequence

import torch

from genba.core.protocols import Array
from genba.learn.language.examples import Example
from genba.learn.language.head import Said, say
from genba.learn.language.layout import Layout, lay_out
from genba.learn.language.network import Kept, Network
from genba.learn.language.places import places_of

#: Takes the log probability of each learned token, gives the gradient of the loss by it.
Blame = Callable[[torch.Tensor, Layout], torch.Tensor]


def log_probabilities(network: Network, examples: Sequence[Example]) -> tuple[Array, Array]:
    """Return the log probability of each learned token of a batch, and which example it is of."""
    layout = lay_out(examples)
    places = places_of(layout, network.shape, network.kind)
    stream = network.embed(places)
    for layer in range(network.shape.layers):
        stream, _ = network.layer(layer, stream, places)
    said = _said(network, stream, layout, None, slope=False)[0]
    return said.log_probability.double().numpy(), layout.of


def add_gradient(
    network: Network, examples: Sequence[Example], blame: Blame, *, recompute: bool = False
) -> tuple[torch.Tensor, Layout]:
    """Add the gradient of a batch to what is learned.

    Args:
        network: The model.
        examples: The batch.
        blame: The loss, as its gradient by each log probability.
        recompute: Whether layers are run a second time instead of being kept.

    Returns:
        The log probability of each learned token and the batch as it was laid out.
    """
    layout = lay_out(examples)
    places = places_of(layout, network.shape, network.kind)
    streams = [network.embed(places)]
    kept: list[Kept | None] = []
    for layer in range(network.shape.layers):
        after, found = network.layer(layer, streams[-1], places)
        streams.append(after)
        kept.append(None if recompute else found)
    rows = torch.from_numpy(layout.rows)
    counts = None
    if network.learns_head:
        counts = blame(torch.zeros(len(rows)), layout)
    said, scale = _said(network, streams[-1], layout, counts, slope=True)
    if counts is None:
        counts = blame(said.log_probability, layout)
    assert said.slope is not None
    back = said.slope.float().mul_(counts[:, None])
    back = network.norm_back("norm", back, streams.pop()[rows], scale)
    gradient = torch.zeros_like(streams[0]).index_add_(0, rows, back)
    for layer in reversed(range(network.shape.layers)):
        given, held = streams.pop(), kept.pop()
        if held is None:
            _, held = network.layer(layer, given, places)
        gradient = network.layer_back(layer, gradient, given, held, places)
    network.learn_embedding(gradient, places.tokens)
    return said.log_probability, layout


def _said(
    network: Network,
    stream: torch.Tensor,
    layout: Layout,
    counts: torch.Tensor | None,
    *,
    slope: bool,
) -> tuple[Said, torch.Tensor]:
    rows, target = torch.from_numpy(layout.rows), torch.from_numpy(layout.target)
    return say(network, stream[rows], target, counts, slope=slope)
