"""A folder as transformers writes them becomes a GGUF file, and the other way round.

Read are `config.json`, `tokenizer.json`, `tokenizer_config.json` (or `chat_template.jinja`) and
safetensors; what else is there is not looked at, and nothing of it is run.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, deserialize

from genba.core.digest import digest_file, digest_json
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject
from genba.edge.gguf import Gguf
from genba.learn.language.export import Packed, Typed, entry, gguf_bytes, pack
from genba.learn.language.names import to_gguf
from genba.learn.language.shape import Shape, shape_of_config

_CONFIG, _TOKENS, _SETTINGS = "config.json", "tokenizer.json", "tokenizer_config.json"
_TEMPLATE, _INDEX = "chat_template.jinja", "model.safetensors.index.json"
_MOST_JSON: Final = 100_000_000  # bytes
_NORMAL, _CONTROL, _OWN = 1, 3, 4  # kinds of tokens in GGUF
_GPT4: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES: Final = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
#: How text is cut, by its name in GGUF. The first of those that are alike is written.
_CUTS: Final[Mapping[str, JsonObject]] = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {**_BYTES, "use_regex": True},
        ],
    },
    "gpt-2": {**_BYTES, "use_regex": True},
    **{
        name: {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": _GPT4 % digits},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {**_BYTES, "use_regex": False},
            ],
        }
        for name, digits in (("llama-bpe", "1,3"), ("qwen2", "1"))
    },
}


def digest_of_folder(folder: Path) -> str:
    """Return a digest of the files that are read.

    Raises:
        Problem: G561 when files are missing.
    """
    names = [n for n in (_CONFIG, _TOKENS, _SETTINGS, _TEMPLATE) if (folder / n).is_file()]
    names += [path.name for path in _weights(folder)]
    return digest_json([[name, digest_file(folder / name)] for name in sorted(names)])


def gguf_of_folder(folder: Path) -> bytes:
    """Return the model in a folder as a GGUF file, weights in the number format they have.

    Raises:
        Problem: G560 when it is of a kind that is not known here, G561 when files are missing or
            do not fit together.
    """
    config = _json(folder, _CONFIG)
    shape = shape_of_config(config)
    arrays: dict[str, Array] = {}
    kinds = set()
    for path in _weights(folder):
        for name, kind, array in _tensors(path):
            arrays[name] = array
            kinds.add(kind)
    wanted = shape.tensors()
    if not shape.tied and "lm_head.weight" not in arrays:
        raise _broken(folder, "The tensor lm_head.weight is missing.")
    for name, size in wanted.items():
        if name not in arrays or arrays[name].shape != size:
            has = arrays[name].shape if name in arrays else "missing"
            raise _broken(folder, f"The tensor {name} should be {size}, and is {has}.")
    quant = {frozenset({"BF16"}): "bf16", frozenset({"F16"}): "f16"}.get(frozenset(kinds), "f32")
    entries = [*_shape_entries(shape, folder.name), *_token_entries(folder, shape)]

    def packed() -> Iterator[Packed]:
        for name, array in to_gguf(shape, arrays).items():
            yield pack(name, array, quant)

    return gguf_bytes([entry(key, value) for key, value in entries], packed())


def write_folder(shape: Shape, file: Gguf, arrays: Mapping[str, Array], folder: Path) -> None:
    """Write a model as transformers reads it, for work with other tools.

    Args:
        shape: Of the model.
        file: Where its vocabulary and template are.
        arrays: Its tensors under the names of transformers.
        folder: Where to; must exist.
    """
    said = file.metadata
    tokens = {"bos": "bos_token_id", "eos": "eos_token_id"}
    ids = {t: said.get(f"tokenizer.ggml.{name}") for t, name in tokens.items()}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rope,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "float32",
        **{f"{t}_token_id": i for t, i in ids.items() if i is not None},
    }
    names: list[str] = file.metadata["tokenizer.ggml.tokens"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": said.get("tokenizer.chat_template", ""),
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        **{f"{t}_token": names[i] for t, i in ids.items() if i is not None},
    }
    padding = said.get("tokenizer.ggml.padding_token_id")
    if padding is not None:
        settings["pad_token"] = names[padding]
    contents = {_CONFIG: config, _SETTINGS: settings, _TOKENS: _tokenizer_json(file)}
    for name, content in contents.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / name).write_text(text, encoding="utf-8")
    plain = {name: np.ascontiguousarray(arrays[name]) for name in shape.tensors()}
    safetensors.numpy.save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer_json(file: Gguf) -> JsonObject:
    said = file.metadata
    names: list[str] = said["tokenizer.ggml.tokens"]
    kinds: list[int] = said["tokenizer.ggml.token_type"]
    added = [
        {
            "id": i,
            "content": names[i],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for i, kind in enumerate(kinds)
        if kind in (_CONTROL, _OWN)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if said["tokenizer.ggml.pre"] == "qwen2" else None,
        "pre_tokenizer": _CUTS.get(str(said["tokenizer.ggml.pre"]), _CUTS["gpt-2"]),
        "post_processor": None,
        "decoder": {**_BYTES, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": [merge.split(" ") for merge in said["tokenizer.ggml.merges"]],
        },
    }


def _shape_entries(shape: Shape, name: str) -> Iterator[tuple[str, Any]]:
    kind = shape.architecture
    yield "general.architecture", kind
    yield "general.name", name
    whole = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.width,
        "feed_forward_length": shape.inner,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.key_heads,
        "attention.key_length": shape.head_width,
        "attention.value_length": shape.head_width,
        "rope.dimension_count": shape.head_width,
        "vocab_size": shape.vocabulary,
    }
    for key, value in whole.items():
        yield f"{kind}.{key}", Typed(value)
    yield f"{kind}.attention.layer_norm_rms_epsilon", Typed(shape.epsilon, "f")
    yield f"{kind}.rope.freq_base", Typed(shape.rope, "f")


def _token_entries(folder: Path, shape: Shape) -> Iterator[tuple[str, Any]]:
    said, settings = _json(folder, _TOKENS), _json(folder, _SETTINGS)
    model = said.get("model", {})
    cut = _cut(said)
    if model.get("type") != "BPE" or cut is None or model.get("byte_fallback"):
        raise _unknown(folder, "Its vocabulary is no byte-level pair encoding known here.")
    added = {str(token["content"]): token for token in said.get("added_tokens", [])}
    ids = {**model["vocab"], **{name: token["id"] for name, token in added.items()}}
    names = [f"[unused{i}]" for i in range(shape.vocabulary)]
    kinds = [_NORMAL] * shape.vocabulary
    for name, i in ids.items():
        if not isinstance(i, int) or not 0 <= i < shape.vocabulary:
            raise _broken(folder, f"The token {name!r:.40} has the number {i!r:.20}.")
        names[i] = name
        if name in added:
            kinds[i] = _CONTROL if added[name].get("special") else _OWN
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    yield "tokenizer.ggml.model", "gpt2"
    yield "tokenizer.ggml.pre", cut
    yield "tokenizer.ggml.tokens", names
    yield "tokenizer.ggml.token_type", Typed(kinds, "i")
    yield "tokenizer.ggml.merges", merges
    for which, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        token = settings.get(f"{which}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token in ids:
            yield f"tokenizer.ggml.{key}_token_id", Typed(ids[token])
    yield "tokenizer.ggml.add_bos_token", settings.get("add_bos_token") is True
    if template := _template(folder, settings):
        yield "tokenizer.chat_template", template


def _cut(said: Mapping[str, Any]) -> str | None:
    """Return the name in GGUF of how text is cut; None when it is another way."""
    found = json.loads(json.dumps(said.get("pre_tokenizer")))
    for step in (found or {}).get("pretokenizers", [found or {}]):
        if step.get("type") == "ByteLevel":
            step["trim_offsets"] = True  # says nothing about tokens
    return next((name for name, steps in _CUTS.items() if steps == found), None)


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    if (folder / _TEMPLATE).is_file():
        return (folder / _TEMPLATE).read_text(encoding="utf-8")
    template = settings.get("chat_template")
    return template if isinstance(template, str) else ""


def _weights(folder: Path) -> list[Path]:
    """Return the files with the weights."""
    if (folder / _INDEX).is_file():
        names = sorted({str(n) for n in _json(folder, _INDEX).get("weight_map", {}).values()})
        found = [folder / Path(name).name for name in names]  # never outside of the folder
    else:
        found = [folder / "model.safetensors"]
    for path in found:
        if not path.is_file():
            raise _broken(folder, f"The file {path.name} is missing.")
    return found


def _tensors(path: Path) -> Iterator[tuple[str, str, Array]]:
    """Yield (name, number format, float32) of each tensor; numpy knows no bfloat16 of its own."""
    try:
        found = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]  # it has none
    except SafetensorError as error:
        raise _broken(path.parent, f"{path.name}: {error}") from error
    for name, said in found:
        kind, data = said["dtype"], bytes(said["data"])
        if kind == "BF16":
            array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind in ("F16", "F32"):
            array = np.frombuffer(data, "<f2" if kind == "F16" else "<f4").astype(np.float32)
        else:
            raise _broken(path.parent, f"The tensor {name} has the number format {kind}.")
        yield name, kind, array.reshape(said["shape"])


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(folder, f"The file {name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise _broken(folder, f"The file {name} holds no object.")
    return found


def _broken(folder: Path, why: str) -> Problem:
    return Problem(
        "G561",
        "The files of the base model do not fit together.",
        where=str(folder),
        why=why,
        tries=['base = "package:smollm2-135m"', "genba explain G561"],
    )


def _unknown(folder: Path, why: str) -> Problem:
    return Problem(
        "G560",
        "This language model cannot be trained here.",
        where=str(folder),
        why=why,
        tries=['base = "package:smollm2-135m"', "genba explain G560"],
    )
