"""What is learned, as one flat vector with named views, and its gradient beside it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from genba.core.protocols import Array
from genba.learn.language.shape import Shape

#: Matrices of a layer that read the same input, and are multiplied with it at once.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def tensor_of(array: Array) -> torch.Tensor:
    """Return an array as float32 for torch; shared where it may be written to, else copied."""
    return torch.from_numpy(np.require(array, np.float32, ("C", "W")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Rows of a learned tensor that have a name of their own outside."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """A learned tensor."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]


class Parameters:
    """Learned tensors in one float32 vector, so that a step is one operation on it."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.slots = tuple(slots)
        size = sum(int(np.prod(slot.shape)) for slot in self.slots)
        self.values = torch.zeros(size)
        self.gradient = torch.zeros(size)
        self.view: dict[str, torch.Tensor] = {}
        self.gradient_of: dict[str, torch.Tensor] = {}
        at = 0
        for slot in self.slots:
            end = at + int(np.prod(slot.shape))
            self.view[slot.name] = self.values[at:end].view(slot.shape)
            self.gradient_of[slot.name] = self.gradient[at:end].view(slot.shape)
            at = end

    def set(self, arrays: Mapping[str, Array]) -> None:
        """Take values by their names outside; what is not named stays.

        Raises:
            ValueError: When an array has another shape.
        """
        for slot in self.slots:
            for part in slot.parts:
                if part.name in arrays:
                    target = self.view[slot.name][part.start : part.end]
                    given = tensor_of(arrays[part.name])
                    if target.shape != given.shape:
                        raise ValueError(f"{part.name} has the shape {tuple(given.shape)}")
                    target.copy_(given)

    def arrays(self, values: torch.Tensor | None = None) -> dict[str, Array]:
        """Return the learned tensors by their names outside.

        Args:
            values: A vector like `values`; by default that.
        """
        vector, found, at = self.values if values is None else values, {}, 0
        for slot in self.slots:
            end = at + int(np.prod(slot.shape))
            whole = vector[at:end].view(slot.shape).numpy()
            for part in slot.parts:
                found[part.name] = whole[part.start : part.end].copy()
            at = end
        return found


def adapter_slots(shape: Shape, rank: int) -> list[Slot]:
    """Return the tensors of an adapter on every matrix of every layer, named as PEFT does."""
    outputs = {name: rows for name, rows, _ in shape.matrices()}
    inputs = {name: columns for name, _, columns in shape.matrices()}
    slots = []
    for layer in range(shape.layers):
        for group, names in GROUPS.items():
            prefix = f"base_model.model.model.layers.{layer}."
            parts = tuple(
                Part(name=f"{prefix}{name}.lora_A.weight", start=i * rank, end=(i + 1) * rank)
                for i, name in enumerate(names)
            )
            rows = (len(names) * rank, inputs[names[0]])
            slots.append(Slot(name=f"{layer}.{group}.a", shape=rows, parts=parts))
            for i, name in enumerate(names):
                part = Part(name=f"{prefix}{name}.lora_B.weight", start=0, end=outputs[name])
                slots.append(
                    Slot(name=f"{layer}.{group}.b{i}", shape=(outputs[name], rank), parts=(part,))
                )
    return slots


def weight_slots(shape: Shape) -> list[Slot]:
    """Return every tensor of the model, those that are multiplied together as one."""
    tensors = shape.tensors()

    def alone(slot: str, name: str) -> Slot:
        part = Part(name=name, start=0, end=tensors[name][0])
        return Slot(name=slot, shape=tensors[name], parts=(part,))

    slots = [alone("embedding", "model.embed_tokens.weight"), alone("norm", "model.norm.weight")]
    if not shape.tied:
        slots.append(alone("head", "lm_head.weight"))
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        slots.append(alone(f"{layer}.norm1", prefix + "input_layernorm.weight"))
        slots.append(alone(f"{layer}.norm2", prefix + "post_attention_layernorm.weight"))
        for group, names in GROUPS.items():
            parts, at = [], 0
            for name in names:
                end = at + tensors[f"{prefix}{name}.weight"][0]
                parts.append(Part(name=f"{prefix}{name}.weight", start=at, end=end))
                at = end
            columns = tensors[parts[0].name][1]
            slots.append(Slot(name=f"{layer}.{group}", shape=(at, columns), parts=tuple(parts)))
    return slots


def new_adapter(parameters: Parameters, seed: int) -> None:
    """Set an adapter to where it begins: random inputs, no effect (Hu et al. 2021, section 4.1)."""
    random = torch.Generator().manual_seed(seed)
    for slot in parameters.slots:
        view = parameters.view[slot.name]
        if slot.name.endswith(".a"):
            bound = slot.shape[1] ** -0.5  # PEFT: Kaiming uniform with a = sqrt(5)
            view.uniform_(-bound, bound, generator=random)
        else:
            view.zero_()
