"""A tiny language model of our own making: a real one in form, that has learnt nothing.

Llama's architecture with a byte-level vocabulary and a chat template, in one GGUF file of some
400 kB that is made in a fraction of a second. What it writes is noise, but always the same noise.
"""

import json
from functools import cache
from typing import Final

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from genba.core.protocols import Array
from genba.learn.language.export import Typed, entry, gguf_bytes, pack

CONTEXT: Final = 512
WIDTH: Final = 64
LAYERS: Final = 2
HEADS: Final = 2
KEY_HEADS: Final = 1
INNER: Final = 128
SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END: Final = 2
_TOKENS: Final = 384
_SPREAD: Final = 0.9  # so that the likeliest token is clear in any number format
TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TEXT: Final = (
    "The pump of the third line stands still, and the oil is too warm. What should we do now?",
    "Please close the valve, wait ten minutes, and call the number on the door of the cabinet.",
    "You can find the answer in the manual of the machine, in the chapter about maintenance.",
    "How long does a new filter last? It lasts about six months if the air is clean and dry.",
    "Who may open the cabinet? Only people who have the training for it may open the cabinet.",
    "user assistant system question answer hello thanks yes no 0 1 2 3 4 5 6 7 8 9",
)


@cache
def tiny_talk(seed: int = 0, quant: str = "f32") -> bytes:
    """Return the model as GGUF.

    Args:
        seed: Of the weights; another seed, another model with the same vocabulary.
        quant: Number format of the matrices: "f32", "f16", "bf16", "q8_0" or "q4_0".
    """
    tensors = tiny_weights(seed)
    file_types = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
    entries = [*_entries(), entry("general.file_type", Typed(file_types[quant]))]
    return gguf_bytes(entries, (pack(name, array, quant) for name, array in tensors.items()))


def tiny_weights(seed: int = 0) -> dict[str, Array]:
    """Return the generated weights by their names in GGUF, float32, rows first."""
    chance = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Array:
        spread = _SPREAD / columns**0.5
        made: Array = (chance.normal(size=(rows, columns)) * spread).astype(np.float32)
        return made

    ones = np.ones(WIDTH, dtype=np.float32)
    head = WIDTH // HEADS
    tensors = {"token_embd.weight": matrix(_TOKENS, WIDTH), "output_norm.weight": ones}
    for layer in range(LAYERS):
        made = {
            "attn_norm": ones,
            "attn_q": matrix(WIDTH, WIDTH) * 2,
            "attn_k": matrix(KEY_HEADS * head, WIDTH) * 2,
            "attn_v": matrix(KEY_HEADS * head, WIDTH) * 2,
            "attn_output": matrix(WIDTH, WIDTH) * 2,
            "ffn_norm": ones,
            "ffn_gate": matrix(INNER, WIDTH) * 2,
            "ffn_up": matrix(INNER, WIDTH) * 2,
            "ffn_down": matrix(WIDTH, INNER) * 2,
        }
        tensors |= {f"blk.{layer}.{name}.weight": array for name, array in made.items()}
    return tensors


def _entries() -> list[bytes]:
    names, merges = _vocabulary()
    kinds = [3 if name in SPECIAL else 1 for name in names]
    head = WIDTH // HEADS
    values = {
        "general.architecture": "llama",
        "general.name": "tiny talk",
        "general.license": "apache-2.0",
        "llama.block_count": Typed(LAYERS),
        "llama.context_length": Typed(CONTEXT),
        "llama.embedding_length": Typed(WIDTH),
        "llama.feed_forward_length": Typed(INNER),
        "llama.attention.head_count": Typed(HEADS),
        "llama.attention.head_count_kv": Typed(KEY_HEADS),
        "llama.rope.freq_base": 10_000.0,
        "llama.rope.dimension_count": Typed(head),
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": Typed(_TOKENS),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": Typed(kinds, "i"),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": Typed(1),
        "tokenizer.ggml.eos_token_id": Typed(END),
        "tokenizer.ggml.padding_token_id": Typed(END),
        "tokenizer.ggml.unknown_token_id": Typed(0),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": TEMPLATE,
        "general.quantization_version": Typed(2),
    }
    return [entry(key, value) for key, value in values.items()]


@cache
def _vocabulary() -> tuple[list[str], list[str]]:
    """Return the tokens in order of their numbers, and the merges in order of their rank."""
    tokenizer = Tokenizer(BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENS,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    known = tokenizer.get_vocab()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return sorted(known, key=lambda name: known[name]), [" ".join(pair) for pair in merges]
