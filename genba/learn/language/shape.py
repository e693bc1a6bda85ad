"""What a language model is made of, read from its file by a schema of our own.

A foreign configuration file is never handed to a library: the entries named here are read, checked
against bounds, and everything else is ignored or, where it would change the numbers, refused.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from genba.core.problem import Problem
from genba.edge.gguf import Gguf

ARCHITECTURES: Final = ("llama",)
_MOST: Final = {
    "layers": 256,
    "width": 16_384,
    "heads": 256,
    "key_heads": 256,
    "head_width": 512,
    "inner": 65_536,
    "vocabulary": 1_000_000,
    "context": 10_000_000,
}
#: Settings of a configuration file that change the numbers, and the only value that is known here.
_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "rope_scaling": (None,),
    "pretraining_tp": (1, None),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The sizes of a Llama-like network (Touvron et al. 2023, https://arxiv.org/abs/2302.13971)."""

    architecture: str
    layers: int
    width: int  # of what flows through the network
    heads: int  # of queries
    key_heads: int  # of keys and values; each serves heads / key_heads queries
    head_width: int
    inner: int  # of the feed-forward part
    vocabulary: int  # tokens
    context: int  # most tokens the model was made for
    epsilon: float  # of the normalisation
    rope: float  # base of the rotary position embedding
    tied: bool  # whether the embedding is the output matrix too

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise _unusable(f"Its {name} is {value}, not between 1 and {most}.")
        fits = self.heads % self.key_heads == 0 and self.head_width % 2 == 0
        if not fits or not 0 < self.epsilon < 1 or not 1 < self.rope < math.inf:
            raise _unusable("Its heads, normalisation or positions are none a Llama model has.")

    def matrices(self) -> Iterator[tuple[str, int, int]]:
        """Yield (name within a layer, outputs, inputs) of each matrix of a layer."""
        queries, keys = self.heads * self.head_width, self.key_heads * self.head_width
        yield "self_attn.q_proj", queries, self.width
        yield "self_attn.k_proj", keys, self.width
        yield "self_attn.v_proj", keys, self.width
        yield "self_attn.o_proj", self.width, queries
        yield "mlp.gate_proj", self.inner, self.width
        yield "mlp.up_proj", self.inner, self.width
        yield "mlp.down_proj", self.width, self.inner

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor of the model with its shape, under the names transformers uses."""
        found: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.width)
        }
        for layer in range(self.layers):
            prefix = f"model.layers.{layer}."
            found[prefix + "input_layernorm.weight"] = (self.width,)
            for name, outputs, inputs in self.matrices():
                found[f"{prefix}{name}.weight"] = (outputs, inputs)
            found[prefix + "post_attention_layernorm.weight"] = (self.width,)
        found["model.norm.weight"] = (self.width,)
        if not self.tied:
            found["lm_head.weight"] = (self.vocabulary, self.width)
        return found

    @property
    def layer_parameters(self) -> int:
        """Numbers in the matrices of all layers."""
        return self.layers * sum(outputs * inputs for _, outputs, inputs in self.matrices())

    def to_json(self) -> dict[str, Any]:
        """Return the shape as plain data."""
        return asdict(self)


def shape_of_gguf(file: Gguf) -> Shape:
    """Return the shape of the model in a GGUF file.

    Raises:
        Problem: G560 when it is of an architecture not known here, G642 when entries are missing.
    """
    architecture = file.text("general.architecture")
    _known(architecture)
    scaling = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise _unusable(f"Its positions are scaled ({scaling!r:.40}), which is not known here.")

    def whole(name: str, default: int | None = None) -> int:
        return file.whole(f"{architecture}.{name}", default)

    heads, width = whole("attention.head_count"), whole("embedding_length")
    head_width = whole("attention.key_length", width // max(heads, 1))
    if whole("rope.dimension_count", head_width) != head_width:
        raise _unusable("Only a part of each head is rotated, which is not known here.")
    tokens = file.tensors.get("token_embd.weight")
    return Shape(
        architecture=architecture,
        layers=whole("block_count"),
        width=width,
        heads=heads,
        key_heads=whole("attention.head_count_kv", heads),
        head_width=head_width,
        inner=whole("feed_forward_length"),
        vocabulary=tokens.shape[0] if tokens else 0,
        context=whole("context_length"),
        epsilon=file.number(f"{architecture}.attention.layer_norm_rms_epsilon"),
        rope=file.number(f"{architecture}.rope.freq_base", 10_000.0),
        tied="output.weight" not in file.tensors,
    )


def shape_of_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a `config.json` describes.

    Args:
        config: What the file holds; only the entries known here are looked at.

    Raises:
        Problem: G560 when the model is none that is known here.
    """
    _known(str(config.get("model_type")))
    for name, values in _ONLY.items():
        if config.get(name) not in values and name in config:
            raise _unusable(f"Its {name} is {config[name]!r:.60}, which is not known here.")
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise _unusable("Its positions are scaled, which is not known here.")
    heads, width = _whole(config, "num_attention_heads"), _whole(config, "hidden_size")
    return Shape(
        architecture="llama",
        layers=_whole(config, "num_hidden_layers"),
        width=width,
        heads=heads,
        key_heads=_whole(config, "num_key_value_heads", heads),
        head_width=_whole(config, "head_dim", width // max(heads, 1)),
        inner=_whole(config, "intermediate_size"),
        vocabulary=_whole(config, "vocab_size"),
        context=_whole(config, "max_position_embeddings"),
        epsilon=_number(config, "rms_norm_eps", 1e-6),
        rope=_number({**config, **rope}, "rope_theta", 10_000.0),
        tied=config.get("tie_word_embeddings") is True,
    )


def _known(architecture: str) -> None:
    if architecture not in ARCHITECTURES:
        raise _unusable(
            f"It is of the architecture {architecture!r:.40}; known: {', '.join(ARCHITECTURES)}."
        )


def _whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise _unusable(f"Its {name} is {value!r:.60}, not a whole number.")
    return value


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _unusable(f"Its {name} is {value!r:.60}, not a number.")
    return float(value)


def _unusable(why: str) -> Problem:
    return Problem(
        "G560",
        "This language model cannot be trained here.",
        why=why,
        tries=['base = "package:smollm2-135m"', "genba explain G560"],
    )
