"""What graphs compute, against what can be worked out with a pencil."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from genba.codesign.expected import Expectations
from genba.codesign.modelled_points import read
from genba.codesign.operations import Operations, in_integers, operations
from genba.codesign.values import Point, Trial
from genba.core.problem import Problem
from genba.core.values import Measure
from genba.testing.graphs import small_graph
from tests.unit.modelled_device import PROFILE

FLOAT = TensorProto.FLOAT


def graph(nodes: list[Any], weights: dict[str, Any], into: Any, out: Any) -> bytes:
    constants = [numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items()]
    values = [
        helper.make_tensor_value_info(name, FLOAT, shape)
        for name, shape in (("x", into), ("y", out))
    ]
    made = helper.make_graph(nodes, "test", values[:1], values[1:], initializer=constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def zeros(*shape: int, kind: Any = np.float32) -> Any:
    return np.zeros(shape, dtype=kind)


def conv(groups: int = 1) -> bytes:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], group=groups),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    weights = {"w": zeros(8, 8 // groups, 3, 3), "b": zeros(8)}
    return graph(nodes, weights, ["batch", 8, 10, 10], ["batch", 8, 10, 10])


class TestOperations:
    def test_a_convolution_and_what_is_computed_with_it(self) -> None:
        found = operations(conv())
        (row,) = found.rows  # the activation is computed with it
        assert (row.kind, row.operator) == ("conv", "Conv")
        assert row.flops.row == 2 * 800 * 8 * 9
        assert row.flops.once == 0
        assert row.bytes.row == 4 * (800 + 800)
        assert row.bytes.once == 4 * (8 * 8 * 9 + 8)
        assert found.weights_bytes == row.bytes.once
        assert found.total(batch=3) == 3 * row.flops.row
        assert found.unknown == 0

    def test_one_filter_for_each_channel_is_another_kind(self) -> None:
        (row,) = operations(conv(groups=8)).rows
        assert row.kind == "depthwise"
        assert row.flops.row == 2 * 800 * 9
        (row,) = operations(conv(groups=2)).rows
        assert row.kind == "conv"

    def test_what_several_read_is_not_computed_on_the_way(self) -> None:
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Relu", ["m"], ["r"]),
            helper.make_node("Add", ["m", "r"], ["y"]),
        ]
        found = operations(graph(nodes, {"w": zeros(4, 6)}, ["batch", 4], ["batch", 6]))
        assert [row.kind for row in found.rows] == ["gemm", "elementwise", "elementwise"]
        assert found.total("gemm") == 2 * 6 * 4
        assert found.by_kind(2)["elementwise"]["operators"] == 2

    def test_what_does_not_depend_on_the_input_costs_nothing_and_neither_do_names(self) -> None:
        nodes = [
            helper.make_node("Neg", ["w"], ["n"]),
            helper.make_node("Reshape", ["x", "s"], ["f"]),
            helper.make_node("Gemm", ["f", "n"], ["y"], transB=1),
        ]
        weights = {"w": zeros(5, 6), "s": np.array([-1, 6], dtype=np.int64)}
        (row,) = operations(graph(nodes, weights, ["batch", 2, 3], ["batch", 5])).rows
        assert (row.kind, row.flops.row) == ("gemm", 2 * 5 * 6)

    def test_what_is_there_once_per_call_does_not_grow_with_the_batch(self) -> None:
        nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
        (row,) = operations(graph(nodes, {"w": zeros(7)}, ["batch", 7], ["batch", 7])).rows
        assert (row.bytes.once, row.bytes.row) == (28, 56)

    def test_a_layer_in_integers_moves_a_quarter(self) -> None:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["q", "s", "o"], ["w"]),
            helper.make_node("MatMul", ["xd", "w"], ["y"]),
        ]
        weights = {
            "q": zeros(4, 6, kind=np.int8),
            "s": np.float32(1),
            "z": np.uint8(0),
            "o": np.int8(0),
        }
        found = operations(graph(nodes, weights, ["batch", 4], ["batch", 6]))
        layer = found.rows[-1]
        assert layer.integer
        assert layer.bytes.row == 4 * (4 + 6) / 4

    def test_the_form_in_integers_can_be_expected_before_it_is_made(self) -> None:
        plain = operations(conv())
        made = in_integers(plain)
        assert all(row.integer for row in made.rows)
        assert made.rows[0].bytes.row == plain.rows[0].bytes.row / 4
        assert made.total() == plain.total()

    def test_sizes_that_cannot_be_known_are_counted(self) -> None:
        nodes = [
            helper.make_node("NonZero", ["x"], ["n"]),
            helper.make_node("Cast", ["n"], ["y"], to=FLOAT),
        ]
        assert operations(graph(nodes, {}, ["batch", 4], ["a", "b"])).unknown > 0

    def test_bytes_that_are_no_graph_are_refused(self) -> None:
        with pytest.raises(Problem) as refused:
            operations(b"no graph")
        assert refused.value.code == "G608"


def trial(engine: str, form: str = "", **settings: Any) -> Trial:
    chosen = {"precision": "float32", "threads": 1, **settings}
    return Trial(point=Point(engine=engine, settings=chosen, form=form))


class TestExpectations:
    def test_trials_are_expected_something_and_what_was_measured_is_kept(
        self, tmp_path: Any
    ) -> None:
        trials = [
            trial("onnxruntime"),
            trial("openvino", threads=2),
            trial("openvino", form="int8", precision="int8"),
            trial("openvino", form="int4"),
        ]
        refused = trial("onnxruntime", threads=2)
        refused.rule_out("It asks for too much.")
        one = Expectations(tmp_path, PROFILE, {"": conv()})
        assert one.fill([*trials, refused]) == 3
        assert one.tested is None
        assert not trials[3].expected
        assert not refused.expected
        for made in trials[:3]:
            assert made.stand == "offered"
            assert made.expected["rows_per_s"].value > 0
            assert {m.method for m in made.expected.values()} == {"modelled"}
        slow = 100 * trials[0].expected["cpu_ms"].value
        for done in trials[:2]:
            done.measures = {
                "cpu_ms": Measure(value=slow, unit="ms"),
                "latency_ms_p50": Measure(value=slow, unit="ms"),
                "load": Measure(value=1.5),
            }
        before = trials[2].expected["cpu_ms"].value
        assert one.fill(trials) == 3
        assert trials[2].expected["cpu_ms"].value == before
        one.keep(trials)
        kept = read(tmp_path, PROFILE.name)
        assert [point.load for point in kept] == [1.5, 1.5]
        again, anew = trial("onnxruntime"), Expectations(tmp_path, PROFILE, {"": conv()})
        anew.fill([again])
        assert again.expected["cpu_ms"].value > slow / 10

    def test_a_language_model_is_expected_nothing_of(self) -> None:
        made = trial("llama-cpp")
        assert Expectations(None, PROFILE, {"": b"GGUF"}).fill([made]) == 0
        Expectations(None, PROFILE, {"": b"GGUF"}).keep([made])

    def test_the_back_test_needs_two_models(self, tmp_path: Any) -> None:
        for model in (conv(), small_graph()):
            made = Expectations(tmp_path, PROFILE, {"": model})
            done = trial("onnxruntime")
            done.measures = {
                "cpu_ms": Measure(value=0.5, unit="ms"),
                "latency_ms_p50": Measure(value=0.5, unit="ms"),
            }
            made.keep([done])
        tested = Expectations(tmp_path, PROFILE, {"": conv()}).tested
        assert tested is not None
        assert (tested.models, tested.points) == (2, 2)


def test_an_empty_table_adds_up_to_nothing() -> None:
    assert Operations(rows=(), weights_bytes=0).total() == 0
