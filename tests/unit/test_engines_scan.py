"""Reading a graph's encoding: what it finds, and that it is never more lenient than the library."""

from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from genba.core.problem import Problem
from genba.engines.graph import read_graph
from genba.engines.scan import refuse_floats, scan
from genba.testing.graphs import dense_graph, graph_with_outside_data, small_graph


def refusal(read: Any, data: bytes) -> str | None:
    try:
        read(data)
    except Problem as problem:
        return f"{problem.code} {problem.what}"
    return None


def models_with_outside_data() -> list[bytes]:
    """Graphs that hide the same tensor in every place there is."""
    outside = TensorProto(name="hidden", data_type=1, dims=[1])
    outside.data_location = TensorProto.EXTERNAL
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    several = helper.make_node("Several", [], ["c"])
    several.attribute.add(name="all", type=onnx.AttributeProto.TENSORS).tensors.append(outside)
    inner = helper.make_graph([constant], "inner", [], [])
    branch = helper.make_node("If", ["q"], ["r"], then_branch=inner)
    branches = helper.make_node("Switch", ["q"], ["r"])
    branches.attribute.add(name="all", type=onnx.AttributeProto.GRAPHS).graphs.append(inner)
    sparse = onnx.SparseTensorProto(values=TensorProto(name="fine"), indices=outside)
    scattered = helper.make_node("Constant", [], ["c"])
    scattered.attribute.add(
        name="v", type=onnx.AttributeProto.SPARSE_TENSOR
    ).sparse_tensor.CopyFrom(sparse)
    opset = helper.make_opsetid("", 18)
    function = helper.make_function("own", "f", [], ["c"], [constant], [opset])
    graphs = [helper.make_graph([node], "g", [], []) for node in (constant, several, branch)]
    graphs += [helper.make_graph([node], "g", [], []) for node in (branches, scattered)]
    graphs.append(helper.make_graph([], "g", [], [], initializer=[outside]))
    graphs.append(helper.make_graph([], "g", [], [], sparse_initializer=[sparse]))
    made = [helper.make_model(graph) for graph in graphs]
    made.append(helper.make_model(helper.make_graph([], "g", [], []), functions=[function]))
    return [model.SerializeToString() for model in made]


@pytest.mark.parametrize("data", models_with_outside_data())
def test_a_tensor_in_another_file_is_found_wherever_it_hides(data: bytes) -> None:
    assert refusal(scan, data) == refusal(read_graph, data)
    assert str(refusal(scan, data)).startswith("G608 The graph keeps 1 tensor(s) in other files")


def test_what_only_says_where_it_would_be_is_refused_as_well() -> None:
    tensor = TensorProto(name="odd", data_type=1, dims=[1])
    tensor.external_data.add(key="location", value="x.bin")
    graph = helper.make_graph([], "g", [], [], initializer=[tensor])
    assert "'odd'" in str(refusal(scan, helper.make_model(graph).SerializeToString()))


def test_a_long_number_that_readers_cut_to_one_does_not_pass() -> None:
    data = graph_with_outside_data("x.bin")
    tensor = onnx.load_from_string(data).graph.initializer[0]
    del tensor.external_data[:]
    plain = tensor.SerializeToString()
    assert plain.endswith(b"\x70\x01")  # field 14 is 1
    long = plain[:-1] + b"\x81\x80\x80\x80\x10"  # 1 + 2**32
    graph = b"\x2a" + bytes([len(long)]) + long
    model = b"\x3a" + bytes([len(graph)]) + graph
    assert refusal(scan, model)


def test_operators_of_subgraphs_count() -> None:
    assert "Conv" in scan(dense_graph()).operators
    constant = helper.make_node("QuantizeLinear", ["a", "b"], ["c"])
    branch = helper.make_node(
        "If", ["q"], ["r"], then_branch=helper.make_graph([constant], "i", [], [])
    )
    model = helper.make_model(helper.make_graph([branch], "g", [], []))
    found = scan(model.SerializeToString()).operators
    assert found == {"If", "QuantizeLinear"}
    refuse_floats(found, "X")
    with pytest.raises(Problem, match="X was told"):
        refuse_floats(scan(small_graph()).operators, "X")


@pytest.mark.parametrize(
    "data",
    [
        b"\x3a\xff",  # no end of the length
        b"\x3a\x05ab",  # less than the length says
        b"\x3b",  # a group
        b"\xff\xff\xff\xff\xff\x01",  # field number beyond what there is
        b"\xff" * 20,
        b"\x3d12",  # four bytes, of which two are there
        b"\x3a\x04\x0a\x02\x22\xff",  # in a node
    ],
)
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    assert "are not an ONNX graph" in str(refusal(scan, data))


@given(st.data())
def test_it_is_never_more_lenient_than_the_library(data: st.DataObject) -> None:
    """Whatever becomes of the bytes: what the library refuses for files, this refuses."""
    model = bytearray(data.draw(st.sampled_from(models_with_outside_data())))
    for _ in range(data.draw(st.integers(0, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(
        model[: data.draw(st.integers(0, len(model)))] if data.draw(st.booleans()) else model
    )
    if "in other files" in str(refusal(read_graph, changed)):
        assert refusal(scan, changed)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    refusal(scan, data)
