"""Graphs in 8-bit integers: which are worth it, what becomes of them, and who may run them."""

from typing import Any

import numpy as np
import onnx
import pytest

from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.engines import int8
from genba.engines.int8 import Int8, Layer, worth
from genba.engines.onnxruntime import OnnxRuntime
from genba.engines.openvino import OpenVino
from genba.testing.graphs import dense_batch, dense_graph, small_batch, small_graph

F32 = {"precision": "float32"}
INT8 = {"precision": "int8"}


@pytest.fixture(scope="module")
def lowered() -> bytes:
    made = Int8.lower(dense_graph(), [dense_batch(4, seed=seed) for seed in range(3)])
    assert made is not None
    return made


@pytest.mark.parametrize("kind", [OnnxRuntime, OpenVino])
def test_it_answers_nearly_as_before_and_not_exactly(kind: Any, lowered: bytes) -> None:
    batch = dense_batch(6, seed=9)
    wanted = kind(dense_graph(), F32).run(batch)["score"]
    found = kind(lowered, INT8).run(batch)["score"]
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    assert not np.array_equal(found, wanted)


def test_every_heavy_layer_has_its_weights_in_integers(lowered: bytes) -> None:
    graph = onnx.load_from_string(lowered).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    weights = [made.get(node.input[1]) for node in graph.node if node.op_type == "Conv"]
    assert weights == ["DequantizeLinear"] * 3


def test_the_same_samples_give_the_same_graph(lowered: bytes) -> None:
    again = Int8.lower(dense_graph(), [dense_batch(4, seed=seed) for seed in range(3)])
    assert again == lowered
    assert Int8.lower(dense_graph(), [dense_batch(4, seed=7)]) != lowered


def test_a_light_graph_and_one_without_samples_stay_as_they_are() -> None:
    assert Int8.lower(small_graph(), [small_batch(4)]) is None
    assert Int8.lower(dense_graph(), []) is None


def test_the_catalog_has_it() -> None:
    assert resolve("lowering", "int8") is Int8


@pytest.mark.parametrize("kind", [OnnxRuntime, OpenVino])
def test_a_graph_without_integers_does_not_pass_for_one(kind: Any) -> None:
    with pytest.raises(Problem) as refused:
        kind(dense_graph(), INT8)
    assert refused.value.code == "G601"


def test_a_graph_that_cannot_be_changed_is_a_problem_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("conv_1\nat /somewhere/quantize.cc:9")

    monkeypatch.setattr(int8, "quantize_static", fails)
    with pytest.raises(Problem) as refused:
        Int8.lower(dense_graph(), [dense_batch(4)])
    assert refused.value.code == "G611"
    assert "\n" not in refused.value.why


def layer(multiplications: float, moved: float = 1e5, name: str = "body") -> Layer:
    return Layer(name=name, multiplications=int(multiplications), moved=int(moved))


def test_what_is_worth_it() -> None:
    thin = layer(2e6, name="thin")  # with the others, if they are worth it
    assert worth([thin, layer(60e6)]) == ("thin", "body")
    assert worth([thin, layer(40e6)]) == ()  # too little work
    assert worth([thin, layer(60e6, moved=1e6)]) == ()  # more moving than multiplying
    assert worth([layer(60e6), layer(60e6, moved=1e7, name="depthwise")]) == ()
    assert worth([layer(60e6), layer(6e6, moved=1e6, name="depthwise")]) == ("body",)
    assert worth([layer(600e6), layer(0.5e6, moved=10, name="small")]) == ("body",)
    assert worth([]) == ()


def test_the_work_of_matrix_products_is_counted() -> None:
    from onnx import TensorProto, helper, numpy_helper

    wide = np.zeros((512, 8), dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"]),
        helper.make_node("Gemm", ["m", "b"], ["g"], transB=1),
        helper.make_node("MatMul", ["g", "g"], ["unknown"]),
        helper.make_node("MatMul", ["g", "vector"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [
            numpy_helper.from_array(wide, "a"),
            numpy_helper.from_array(wide, "b"),
            numpy_helper.from_array(wide[:, 0], "vector"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    found = int8._layers(int8._prepared(model))
    assert [(one.multiplications, one.moved) for one in found] == [
        (8 * 512, 520),
        (512 * 8, 520),
        (512, 513),
    ]
