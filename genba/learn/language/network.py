"""A Llama network with its gradient written out by hand.

Why not autograd over a library's module: on a processor most of that time goes into what is not a
matrix product (attention's backward, copies, padding). Here every product is one call on all
tokens of a batch, the stream between layers stays float32, and what the gradient needs is kept, no
more. The tests hold it against transformers and PEFT.

Sources: Touvron et al. 2023 (https://arxiv.org/abs/2302.13971); grouped queries: Ainslie et al.
2023 (https://arxiv.org/abs/2305.13245); adapters: Hu et al. 2021
(https://arxiv.org/abs/2106.09685).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from genba.core.protocols import Array
from genba.learn.language.attention import Attended, attend, attend_back, rotate
from genba.learn.language.parameters import GROUPS, Parameters, tensor_of, weight_slots
from genba.learn.language.places import Places
from genba.learn.language.shape import Shape


@dataclass(slots=True, eq=False)
class Kept:
    """What a layer's gradient needs of its forward pass."""

    normed: torch.Tensor  # [T, width]
    scale: torch.Tensor  # [T, 1]
    attended: Attended
    seen: torch.Tensor  # [T, heads]
    middle: torch.Tensor  # the stream between the two parts
    normed2: torch.Tensor
    scale2: torch.Tensor
    both: torch.Tensor  # [T, 2 * inner]: gate and up
    opened: torch.Tensor  # [T, inner]: of the gate
    inner: torch.Tensor  # [T, inner]
    low: dict[str, torch.Tensor]  # what went through the adapters, by group


class Network:
    """The weights in the number format of the arithmetic, and what is learned of them.

    Args:
        shape: Of the model.
        arrays: Its tensors under the names of transformers.
        kind: Number format of the arithmetic: torch.float32 or torch.bfloat16.
    """

    def __init__(self, shape: Shape, arrays: Mapping[str, Array], kind: torch.dtype) -> None:
        self.shape = shape
        self.kind = kind
        self.weight: dict[str, torch.Tensor] = {}
        for slot in weight_slots(shape):
            found = [tensor_of(arrays[part.name]) for part in slot.parts]
            # Vectors are few and are applied in float32.
            to = torch.float32 if len(slot.shape) == 1 else kind
            self.weight[slot.name] = torch.cat(found).to(to)
        self.low: dict[str, torch.Tensor] = {}  # adapters, in the format of the arithmetic
        self.learned: Parameters | None = None
        self.adapter_scale = 0.0

    @property
    def head(self) -> torch.Tensor:
        """The output matrix [vocabulary, width]."""
        return self.weight["embedding" if self.shape.tied else "head"]

    def learn_adapter(self, parameters: Parameters, scale: float) -> None:
        """Use an adapter; call `refresh` when its values have changed."""
        self.learned, self.adapter_scale = parameters, scale
        self.refresh()

    def learn_all(self, parameters: Parameters) -> None:
        """Take the weights from parameters; call `refresh` when their values have changed."""
        self.learned = parameters
        self.refresh()

    def refresh(self) -> None:
        """Take over the values of what is learned."""
        if self.learned is None:
            return
        for name, view in self.learned.view.items():
            if not self.adapter_scale:
                self.weight[name].copy_(view)
            elif name.endswith(".a"):
                self.low[name] = view.to(self.kind)
            else:
                self.low[name] = (view * self.adapter_scale).to(self.kind)

    @property
    def learns_head(self) -> bool:
        """Whether the output matrix is learned."""
        name = "embedding" if self.shape.tied else "head"
        return self.learned is not None and name in self.learned.gradient_of

    def embed(self, places: Places) -> torch.Tensor:
        """Return the stream before the first layer, float32 [T, width]."""
        return self.weight["embedding"][places.tokens].float()

    def layer(self, layer: int, stream: torch.Tensor, places: Places) -> tuple[torch.Tensor, Kept]:
        """Run a batch through one layer; returns the stream after it."""
        low: dict[str, torch.Tensor] = {}
        normed, scale = self.norm(stream, f"{layer}.norm1")
        projected = self._times(layer, "qkv", normed, low)
        rotate(projected, places.cosine, places.sine, self.shape)
        seen, attended = attend(projected, places, self.shape)
        middle = stream + self._times(layer, "out", seen, low)
        normed2, scale2 = self.norm(middle, f"{layer}.norm2")
        both = self._times(layer, "gate_up", normed2, low)
        opened = functional.silu(both[:, : self.shape.inner])
        inner = opened * both[:, self.shape.inner :]
        after = middle + self._times(layer, "down", inner, low)
        kept = Kept(
            normed, scale, attended, seen, middle, normed2, scale2, both, opened, inner, low
        )  # fmt: skip
        return after, kept

    def layer_back(
        self,
        layer: int,
        gradient: torch.Tensor,
        stream: torch.Tensor,
        kept: Kept,
        places: Places,
    ) -> torch.Tensor:
        """Return the gradient before a layer; `gradient` is that after it, and is used up.

        Args:
            layer: Which.
            gradient: float32 [T, width].
            stream: What the layer was given.
            kept: What its forward pass left.
            places: The batch.
        """
        size = self.shape.inner
        back = gradient.to(self.kind)
        inner = self._times_back(layer, "down", back, kept.inner, kept.low)
        both = torch.empty_like(kept.both)
        torch.mul(inner, kept.opened, out=both[:, size:])
        inner.mul_(kept.both[:, size:])
        gate = kept.both[:, :size]
        torch.ops.aten.silu_backward.grad_input(inner, gate, grad_input=both[:, :size])
        normed = self._times_back(layer, "gate_up", both, kept.normed2, kept.low)
        gradient += self.norm_back(f"{layer}.norm2", normed, kept.middle, kept.scale2)
        back = gradient.to(self.kind)
        seen = self._times_back(layer, "out", back, kept.seen, kept.low)
        projected = attend_back(seen, kept.attended, places, self.shape)
        rotate(projected, places.cosine, -places.sine, self.shape)
        normed = self._times_back(layer, "qkv", projected, kept.normed, kept.low)
        gradient += self.norm_back(f"{layer}.norm1", normed, stream, kept.scale)
        return gradient

    def norm(self, stream: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the stream divided by its root mean square, weighted, and one over that."""
        square = torch.linalg.vector_norm(stream, dim=-1, keepdim=True).square_()
        scale = square.div_(self.shape.width).add_(self.shape.epsilon).rsqrt_()
        return (stream * scale).mul_(self.weight[name]).to(self.kind), scale

    def norm_back(
        self, name: str, gradient: torch.Tensor, stream: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """Return the gradient before a normalisation, float32."""
        straight = stream * scale
        gradient = gradient.float()
        self._learn_norm(name, gradient, straight)
        weighted = gradient * self.weight[name]
        along = (weighted * straight).sum(-1, keepdim=True).div_(self.shape.width)
        return weighted.sub_(straight.mul_(along)).mul_(scale)

    def _learn_norm(self, name: str, gradient: torch.Tensor, straight: torch.Tensor) -> None:
        if self.learned is not None and name in self.learned.gradient_of:
            self.learned.gradient_of[name].add_((gradient * straight).sum(0))

    def _times(
        self, layer: int, group: str, given: torch.Tensor, low: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Multiply with the matrices of a group, adapters included."""
        result = given @ self.weight[f"{layer}.{group}"].t()
        down = self.low.get(f"{layer}.{group}.a")
        if down is not None:
            low[group] = given @ down.t()
            for rows, columns, up in self._ups(layer, group):
                result[:, rows].addmm_(low[group][:, columns], up.t())
        return result

    def _times_back(
        self,
        layer: int,
        group: str,
        gradient: torch.Tensor,
        given: torch.Tensor,
        low: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """Return the gradient of what was given; add up that of what is learned."""
        name = f"{layer}.{group}"
        result = gradient @ self.weight[name]
        learned = self.learned.gradient_of if self.learned is not None else {}
        if name in learned:
            learned[name].add_(gradient.t() @ given)
        down = self.low.get(f"{name}.a")
        if down is None:
            return result
        back = torch.empty_like(low[group])
        for i, (rows, columns, up) in enumerate(self._ups(layer, group)):
            part = gradient[:, rows]
            torch.mm(part, up, out=back[:, columns])
            product = part.t() @ low[group][:, columns]
            learned[f"{name}.b{i}"].add_(product, alpha=self.adapter_scale)
        learned[f"{name}.a"].add_(back.t() @ given)
        return result.addmm_(back, down)

    def _ups(self, layer: int, group: str) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yield where the outputs of each matrix of a group are, its adapter's, and that."""
        start = 0
        for i in range(len(GROUPS[group])):
            up = self.low[f"{layer}.{group}.b{i}"]
            rank = up.shape[1]
            yield slice(start, start + len(up)), slice(i * rank, (i + 1) * rank), up
            start += len(up)

    def learn_head(
        self,
        likely: torch.Tensor,
        target: torch.Tensor,
        normed: torch.Tensor,
        counts: torch.Tensor,
    ) -> None:
        """Add up the gradient of the output matrix.

        Args:
            likely: [M, vocabulary]: the probability of each token; used up.
            target: int64 [M]: the right one.
            normed: [M, width]: what was multiplied with the matrix.
            counts: float32 [M]: the gradient of the loss by each log probability.
        """
        assert self.learned is not None
        gradient = self.learned.gradient_of["embedding" if self.shape.tied else "head"]
        gradient.sub_(likely.mul_(counts[:, None].to(likely.dtype)).t() @ normed)
        gradient.index_add_(0, target, normed.float() * counts[:, None])

    def learn_embedding(self, gradient: torch.Tensor, tokens: torch.Tensor) -> None:
        """Add up the gradient of the embedding, where it is learned."""
        if self.learned is not None and "embedding" in self.learned.gradient_of:
            self.learned.gradient_of["embedding"].index_add_(0, tokens, gradient)
