"""Sentence encoders: the graph, how text is read for it, and what is refused."""

import json
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from genba.core.problem import Problem
from genba.core.values import Signature, Tensor
from genba.edge.encoder import Encoder
from genba.edge.wordpieces import WordPieces
from genba.engines import reading
from genba.engines.onnxruntime import OnnxRuntime
from genba.engines.openvino import OpenVino
from genba.engines.reading import Reading
from genba.engines.scan import scan
from genba.learn.encoder import LETTERS, READING, encoders, load_encoder, load_encoding
from genba.learn.encoder_bert import Shape, append_encoder
from genba.learn.graph import Graph, serialise

Floats = npt.NDArray[np.float32]
F32 = {"precision": "float32"}
DESCRIPTION = {"words": "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\n##b", "lowercase": True, "most": 6}
ONE = {"reader": "wordpiece", "input": "text", "padding": 0, **DESCRIPTION}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(load_encoder(LETTERS))


def test_alike_texts_lie_together_and_have_length_one(encoder: Encoder) -> None:
    same, other, far = encoder.embed(["building permit", "the building permit", "xylophone"])
    assert np.linalg.norm([same, other, far], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert same @ other > 0.7 > 0.5 > same @ far


def test_a_text_means_the_same_alone_and_among_others(encoder: Encoder) -> None:
    texts = [f"question {n} " + "why " * (n % 17) for n in range(300)]
    together = encoder.embed(texts)
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    assert encoder.embed([]).shape == (0, 64)


@pytest.mark.parametrize("text", ["", " ", "\ufffd\x00", "日本語", "a" * 1_000_000])
def test_any_text_is_read(encoder: Encoder, text: str) -> None:
    assert np.isfinite(encoder.embed([text])).all()


def test_bytes_are_read_too(encoder: Encoder) -> None:
    assert np.isfinite(encoder.embed([b"\xff\xfe", b"a"])).all()


@pytest.mark.parametrize("engine", [OnnxRuntime, OpenVino])
def test_a_bert_graph_computes_what_the_paper_says(engine: Callable[..., OnnxRuntime]) -> None:
    shape = Shape(layers=2, heads=2, numbers=8, epsilon=1e-12)
    weights = bert_weights(shape)
    graph = Graph()
    made = append_encoder(graph, "tokens", weights, shape)
    graph.add("Identity", made, name="embedding")
    signature = Signature(
        inputs=(Tensor(name="tokens", datatype="INT64", shape=(-1, -2)),),
        outputs=(Tensor(name="embedding", datatype="FP32", shape=(-1, 8)),),
    )
    model = serialise(graph, "tiny", signature)
    tokens = np.array([[2, 5, 6, 7], [3, 4, 0, 0]], dtype=np.int64)
    found = engine(model, F32).run({"tokens": tokens})["embedding"]
    wanted = np.stack([by_hand(row[row > 0], weights, shape) for row in tokens])
    assert np.abs(found - wanted).max() < 2e-3  # weights are kept in half precision


def bert_weights(shape: Shape) -> dict[str, Floats]:
    rng = np.random.default_rng(0)
    n = shape.numbers
    sizes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings": (10, n),
        "embeddings.position_embeddings": (16, n),
        "embeddings.token_type_embeddings": (2, n),
    }
    found = {f"{name}.weight": rng.standard_normal(size) for name, size in sizes.items()}
    norms = ["embeddings.LayerNorm"]
    for layer in range(shape.layers):
        begin = f"encoder.layer.{layer}"
        norms += [f"{begin}.attention.output.LayerNorm", f"{begin}.output.LayerNorm"]
        dense = {f"{begin}.attention.self.{p}": (n, n) for p in ("query", "key", "value")}
        dense |= {f"{begin}.attention.output.dense": (n, n)}
        dense |= {f"{begin}.intermediate.dense": (2 * n, n), f"{begin}.output.dense": (n, 2 * n)}
        for name, (out, into) in dense.items():
            found[f"{name}.weight"] = rng.standard_normal((out, into)) / math.sqrt(into)
            found[f"{name}.bias"] = rng.standard_normal(out)
    for name in norms:
        found[f"{name}.weight"] = 1.0 + 0.1 * rng.standard_normal(n)
        found[f"{name}.bias"] = 0.1 * rng.standard_normal(n)
    return {name: array.astype(np.float32) for name, array in found.items()}


def by_hand(tokens: npt.NDArray[np.int64], w: dict[str, Floats], shape: Shape) -> Floats:
    def norm(x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + shape.epsilon)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    def dense(x: Floats, name: str) -> Floats:
        return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])

    x = w["embeddings.word_embeddings.weight"][tokens]
    x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    each = shape.numbers // shape.heads
    for layer in range(shape.layers):
        name = f"encoder.layer.{layer}"
        q, k, v = (dense(x, f"{name}.attention.self.{p}") for p in ("query", "key", "value"))
        heads = []
        for head in range(shape.heads):
            part = slice(head * each, (head + 1) * each)
            alike = np.exp(q[:, part] @ k[:, part].T / math.sqrt(each))
            heads.append(alike / alike.sum(axis=-1, keepdims=True) @ v[:, part])
        seen = dense(np.concatenate(heads, axis=-1), f"{name}.attention.output.dense")
        x = norm(seen + x, f"{name}.attention.output.LayerNorm")
        wide = dense(x, f"{name}.intermediate.dense")
        gelu = wide * 0.5 * (1.0 + np.vectorize(math.erf)(wide / math.sqrt(2.0)))
        x = norm(dense(gelu, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")
    mean = x.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def test_words_are_read_as_pieces_and_long_texts_are_cut() -> None:
    reader = WordPieces(json.dumps(DESCRIPTION))
    assert reader.read(["A", b"ab", "c", "a a a a a a"]) == [
        [2, 4, 3],
        [2, 4, 6, 3],
        [2, 1, 3],
        [2, 4, 4, 4, 4, 3],
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"words": ""},
        {"words": "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na"},
        {"words": "[PAD]\n[UNK]\n[CLS]"},
        {"words": 3},
        {"lowercase": "yes"},
        {"most": 2},
        {"most": True},
        {"most": 1_000_000},
    ],
)
def test_a_description_that_is_none_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(Problem, match="G580"):
        WordPieces(json.dumps({**DESCRIPTION, **change}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reader": "wordpiece", "input": "text"}'])
def test_metadata_that_do_not_say_how_to_read_are_refused(text: str) -> None:
    with pytest.raises(Problem, match="G580"):
        Reading(text)


def test_a_reader_that_there_is_not_is_refused() -> None:
    with pytest.raises(Problem, match="G105"):
        Reading(json.dumps({**ONE, "reader": "tea-leaves"}))


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"text": np.zeros(2)},
        {"text": np.array([["a"]], dtype=object)},
        {"text": np.array(["a"], dtype=object), "bar": np.zeros(2)},
    ],
)
def test_what_is_no_text_is_refused(tensors: dict[str, npt.NDArray[np.float64]]) -> None:
    with pytest.raises(Problem, match="G602"):
        Reading(json.dumps(ONE)).run(tensors, lambda given: dict(given))


def test_texts_run_in_groups_of_like_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PIECES", 12)
    shapes = []

    def run(given: dict[str, npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.int64]]:
        shapes.append(given["text"].shape)
        assert given["bar"].shape == (len(given["text"]),)
        return {"sum": given["text"].sum(axis=1) + given["bar"]}

    texts = np.array(["a a a", "", "a", "a a a a", "b", ""], dtype=object)
    bars = np.array([100, 200, 300, 400, 500, 600])
    found = Reading(json.dumps(ONE)).run({"text": texts, "bar": bars}, run)  # type: ignore[arg-type]
    assert found["sum"].tolist() == [117, 205, 309, 421, 510, 605]
    assert sum(rows for rows, _ in shapes) == 6
    assert all(rows * length <= 12 for rows, length in shapes)


def test_metadata_are_found_in_the_bytes_of_a_graph() -> None:
    model = load_encoder(LETTERS)
    assert scan(model).metadata == load_encoding(LETTERS).metadata()
    assert READING == reading.READING


def test_an_encoder_that_there_is_not_is_refused() -> None:
    assert encoders()[-1] == LETTERS
    with pytest.raises(Problem, match="G581") as found:
        load_encoding("leters")
    assert "letters" in found.value.what
    with pytest.raises(Problem, match="G581"):
        load_encoding(LETTERS, version="0" * 64)


def test_an_encoder_can_be_closed() -> None:
    encoder = Encoder(load_encoder(LETTERS), engine="openvino", threads=1)
    assert encoder.embed(["a"]).shape == (1, 64)
    encoder.close()


@pytest.mark.network
def test_the_packaged_encoder_knows_meaning() -> None:
    encoder = Encoder(load_encoder())
    reset, forgot, weather = encoder.embed(
        ["How do I reset my password?", "I forgot my password", "The weather is nice today"]
    )
    assert reset @ forgot > 0.7
    assert abs(reset @ weather) < 0.2
