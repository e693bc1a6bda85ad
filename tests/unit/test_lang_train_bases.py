"""Base models: found by name, read from files, refused when they are something else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from genba.core.problem import Problem
from genba.edge.vocabulary import GgufVocabulary
from genba.learn.language.bases import Base, base_of
from genba.learn.language.folder import write_folder
from genba.learn.language.names import from_gguf, gguf_name, to_gguf
from genba.learn.language.shape import shape_of_config, shape_of_gguf
from genba.runs.downloads import PackageFile
from genba.runs.progress import SilentProgress
from genba.testing.tiny_talk import tiny_talk
from tests.unit.lang_train_parts import SHAPE, tiny_base, weights

QUIET = SilentProgress()
MESSAGES = [{"role": "user", "content": "What is 12 x 3?\n <|im_end|> かな"}]
CONFIG = {
    "model_type": "llama",
    "hidden_act": "silu",
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 256,
    "rope_theta": 5e5,
    "tie_word_embeddings": True,
}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("GENBA_CACHE", str(tmp_path / "cache"))
    return tiny_base(tmp_path)


@pytest.fixture
def folder(base: Base, tmp_path: Path) -> Path:
    made = tmp_path / "small"
    made.mkdir()
    write_folder(base.shape, base.file, base.arrays(), made)
    return made


def code(name: object) -> str:
    with pytest.raises(Problem) as found:
        base_of(str(name), QUIET)
    return found.value.code


def change(folder: Path, name: str, **changes: Any) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **changes}))


def test_a_file_is_a_base(base: Base) -> None:
    assert base.shape.tensors().keys() == base.arrays().keys()
    assert len(base.digest) == 64
    assert base.licence == "apache-2.0"
    for name, array in to_gguf(base.shape, base.arrays()).items():
        assert np.array_equal(array, base.file.array(name)), name


def test_queries_are_turned_from_neighbours_to_halves(base: Base) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    stored = base.file.array(gguf_name(name)).reshape(base.shape.heads, -1, 2, base.shape.width)
    read = base.arrays()[name].reshape(base.shape.heads, 2, -1, base.shape.width)
    assert np.array_equal(stored[:, :, 0], read[:, 0])
    assert np.array_equal(stored[:, :, 1], read[:, 1])
    with pytest.raises(ValueError, match="no tensor"):
        gguf_name("model.vision.weight")


def test_a_folder_becomes_the_same_model(base: Base, folder: Path) -> None:
    read = base_of(str(folder), QUIET)
    assert read.shape == base.shape
    for name, array in base.arrays().items():
        assert np.array_equal(array, read.arrays()[name]), name
    one, other = GgufVocabulary(base.file), GgufVocabulary(read.file)
    assert one.prompt(MESSAGES) == other.prompt(MESSAGES)
    assert one.end == other.end
    assert base_of(str(folder), QUIET).digest == read.digest  # the second time from the cache


def test_a_folder_of_several_files_in_bfloat16(base: Base, folder: Path) -> None:
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    names = sorted(arrays)
    for part, mine in enumerate((names[:7], names[7:])):
        header: dict[str, Any] = {}
        data = b""
        for name in mine:
            half = (arrays[name].view(np.uint32) >> 16).astype(np.uint16).tobytes()
            header[name] = {
                "dtype": "BF16",
                "shape": list(arrays[name].shape),
                "data_offsets": [len(data), len(data) + len(half)],
            }
            data += half
        text = json.dumps(header).encode()
        whole = len(text).to_bytes(8, "little") + text + data
        (folder / f"part-{part}.safetensors").write_bytes(whole)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {n: f"part-{int(n in names[7:])}.safetensors" for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    read = base_of(str(folder), QUIET)
    assert read.file.tensors["token_embd.weight"].kind.name == "bf16"
    for name, array in read.arrays().items():
        np.testing.assert_allclose(array, arrays[name], rtol=0.01)


def test_an_untied_head_stays_its_own(tmp_path: Path, base: Base, folder: Path) -> None:
    change(folder, "config.json", tie_word_embeddings=False)
    assert code(folder) == "G561"  # the head is missing
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    head = arrays["model.embed_tokens.weight"] + 1
    safetensors.numpy.save_file({**arrays, "lm_head.weight": head}, folder / "model.safetensors")
    read = base_of(str(folder), QUIET)
    assert not read.shape.tied
    assert np.array_equal(read.arrays()["lm_head.weight"], head)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_transformers_reads_what_is_written(base: Base, folder: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    plain = [{"role": "user", "content": "What is 12 x 3?"}]
    tokens = tokenizer.apply_chat_template(plain, add_generation_prompt=True)["input_ids"]
    assert tokens == GgufVocabulary(base.file).prompt(plain)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    weight = model.state_dict()["model.layers.1.mlp.down_proj.weight"].float().numpy()
    assert np.array_equal(weight, base.arrays()["model.layers.1.mlp.down_proj.weight"])


def test_what_is_not_there_is_said(base: Base, folder: Path, tmp_path: Path) -> None:
    assert code("package:smollm2-135n") == "G560"
    assert code(tmp_path / "nothing") == "G560"
    empty = tmp_path / "empty.gguf"
    empty.write_bytes(b"")
    assert code(empty) == "G642"
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / name).unlink()
        assert code(folder) == "G561"


@pytest.mark.parametrize(
    ("name", "changes", "wanted"),
    [
        ("config.json", {"num_hidden_layers": 3}, "G561"),
        ("config.json", {"model_type": "mystery"}, "G560"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "G560"),
        ("tokenizer.json", {"pre_tokenizer": None}, "G560"),
        ("tokenizer.json", {"added_tokens": [{"content": "x", "id": 10**9}]}, "G561"),
    ],
)
def test_a_folder_that_is_something_else_is_refused(
    folder: Path, name: str, changes: dict[str, Any], wanted: str
) -> None:
    change(folder, name, **changes)
    assert code(folder) == wanted


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_a_folder_with_broken_files_is_refused(folder: Path, text: str) -> None:
    (folder / "tokenizer_config.json").write_text(text)
    assert code(folder) == "G561"


def test_weights_that_are_none_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    assert code(folder) == "G561"
    safetensors.numpy.save_file({"a": np.zeros(2, np.int8)}, folder / "model.safetensors")
    assert code(folder) == "G561"


def test_a_template_of_its_own_file_wins(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    change(folder, "tokenizer_config.json", eos_token={"content": "<|im_end|>"})
    read = base_of(str(folder), QUIET)
    assert read.file.metadata["tokenizer.chat_template"].startswith("{{ messages")


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gpt2"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"rope_scaling": {"type": "linear", "factor": 2}},
        {"rope_parameters": {"rope_type": "yarn"}},
        {"num_key_value_heads": 4},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": "2"},
        {"rms_norm_eps": "small"},
        {"rms_norm_eps": 2.0},
        {"rope_theta": True},
        {"head_dim": 7},
    ],
)
def test_a_description_of_another_network_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Problem) as found:
        shape_of_config({**CONFIG, **changes})
    assert found.value.code == "G560"


def test_a_description_is_read() -> None:
    shape = shape_of_config(CONFIG)
    assert (shape.head_width, shape.rope, shape.epsilon, shape.tied) == (8, 5e5, 1e-6, True)
    newer = {**CONFIG, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    assert shape_of_config(newer).rope == 1e6
    assert shape.to_json()["layers"] == 2
    assert shape.layer_parameters == 2 * (48 * 48 * 2 + 48 * 16 * 2 + 48 * 64 * 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"general.architecture": "mystery"},
        {"llama.rope.scaling.type": "linear"},
        {"llama.rope.dimension_count": 4},
    ],
)
def test_a_file_of_another_network_is_refused(base: Base, changes: dict[str, Any]) -> None:
    with pytest.raises(Problem) as found:
        shape_of_gguf(replace(base.file, metadata={**base.file.metadata, **changes}))
    assert found.value.code == "G560"


def test_tensors_that_do_not_fit_are_refused(base: Base) -> None:
    for wrong in (replace(base.shape, layers=5), replace(base.shape, inner=64)):
        with pytest.raises(Problem) as found:
            from_gguf(wrong, base.file, "here")
        assert found.value.code == "G561"


def test_a_packaged_model_comes_from_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "member.gguf"
    place.write_bytes(tiny_talk())
    asked: list[tuple[PackageFile, str, str]] = []

    def member(package: PackageFile, path: str, sha256: str, progress: object) -> Path:
        asked.append((package, path, sha256))
        return place

    monkeypatch.setattr("genba.runs.downloads.member", member)
    found = base_of("package:smollm2-135m", QUIET)
    assert found.licence == "Apache-2.0"
    assert asked[0][1].endswith(".gguf")
    assert asked[0][2] == found.digest


def test_names_are_those_of_the_shape() -> None:
    arrays = weights(SHAPE)
    assert len(to_gguf(SHAPE, arrays)) == len(arrays)
