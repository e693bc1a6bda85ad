"""Trees in standard operators: the same leaf for every row, in every runtime."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.engines import lowering
from genba.engines.lowering import lower_trees
from genba.engines.onnxruntime import OnnxRuntime
from genba.engines.openvino import OpenVino

F32 = {"precision": "float32"}
FEATURES = 3
TINY = np.finfo(np.float32).tiny
# Few values, so that readings often are exactly at a threshold or its neighbour.
POOL = np.array([-np.inf, -2.5, -1, -0.0, 0.0, 1 / 3, 1.0, 7e20, np.inf], np.float32)
POOL = np.concatenate([POOL, np.nextafter(POOL[1:3], 0), np.nextafter(POOL[5:8], np.inf)])


def random_trees(seed: int, *, targets: int, whole: bool, missing: bool) -> dict[str, Any]:
    """Return the attributes of a random ensemble; with whole leaves any order sums the same.

    Every row has a vote for every target: without one, ONNX Runtime leaves out the base value.
    """
    chance = np.random.default_rng(seed)
    found: dict[str, Any] = {
        name: []
        for name in (
            *("treeids", "nodeids", "featureids", "values", "modes", "truenodeids"),
            *("falsenodeids", "missing_value_tracks_true"),
        )
    }
    votes: list[tuple[int, int, int, float]] = []
    for tree in range(targets + int(chance.integers(6))):
        splits, free = int(chance.integers(0, 12)), [0]
        kids: dict[int, tuple[int, int]] = {}
        for _ in range(splits):  # a random leaf becomes a split, so depths differ
            node = free.pop(int(chance.integers(len(free))))
            kids[node] = (2 * len(kids) + 1, 2 * len(kids) + 2)
            free += kids[node]
        for node in range(2 * splits + 1):
            yes, no = kids.get(node, (0, 0))
            row = {
                "treeids": tree,
                "nodeids": node,
                "featureids": int(chance.integers(FEATURES)),
                "values": float(chance.choice(POOL)),
                "modes": "BRANCH_LEQ" if node in kids else "LEAF",
                "truenodeids": yes,
                "falsenodeids": no,
                "missing_value_tracks_true": int(missing and chance.integers(2)),
            }
            for name, value in row.items():
                found[name].append(value)
            if node not in kids:
                for target in {tree % targets, int(chance.integers(targets))}:
                    weight = chance.integers(-999, 999) if whole else chance.normal() * 10
                    votes.append((tree, node, target, float(weight)))
    names = ("treeids", "nodeids", "ids", "weights")
    columns = zip(*votes, strict=True)
    return {
        **{f"nodes_{name}": values for name, values in found.items()},
        **{f"target_{n}": list(column) for n, column in zip(names, columns, strict=True)},
        "n_targets": targets,
        "base_values": [float(t) for t in range(targets)],
    }


def one_split(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [1, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [10.0, 20.0],
    }
    return {name: value for name, value in (plain | changes).items() if value is not None}


def graph_of(*ensembles: dict[str, Any]) -> Any:
    nodes = [
        helper.make_node("TreeEnsembleRegressor", ["x"], [f"y{i}"], domain="ai.onnx.ml", **e)
        for i, e in enumerate(ensembles)
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "trees",
        [value("x", TensorProto.FLOAT, ["N", FEATURES])],
        [value(f"y{i}", TensorProto.FLOAT, ["N", e["n_targets"]]) for i, e in enumerate(ensembles)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def readings(seed: int, rows: int = 64) -> Array:
    chance = np.random.default_rng(seed + 1)
    pool = np.concatenate([POOL, np.array([np.nan], np.float32)])
    x = np.asarray(chance.choice(pool, size=(rows, FEATURES)), dtype=np.float32)
    x[::4] = chance.normal(size=x[::4].shape)
    return x


def answers(model: Any, x: Array) -> dict[str, list[Array]]:
    """Run the tree ensemble in ONNX Runtime, and what it is lowered to in both runtimes."""
    data = model.SerializeToString()
    lowered = lower_trees(model)
    onnx.checker.check_model(lowered, full_check=True)
    assert all(node.domain == "" for node in lowered.graph.node)
    engines: dict[str, Any] = {
        "wanted": OnnxRuntime(data, F32),
        "onnxruntime": OnnxRuntime(lowered.SerializeToString(), F32),
        "openvino": OpenVino(data, F32),
    }
    found: dict[str, list[Array]] = {}
    for name, engine in engines.items():
        together = engine.run({"x": x})
        alone = [engine.run({"x": x[i : i + 1]}) for i in range(8)]
        found[name] = [together[y] for y in sorted(together)]
        found[name] += [one[y] for one in alone for y in sorted(one)]
        engine.close()
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), targets=st.integers(1, 3), missing=st.booleans())
def test_every_row_reaches_the_same_leaves(seed: int, targets: int, missing: bool) -> None:
    """Leaves are whole numbers, whose sums are exact: one other leaf and the sums differ."""
    model = graph_of(random_trees(seed, targets=targets, whole=True, missing=missing))
    found = answers(model, readings(seed))
    for name in ("onnxruntime", "openvino"):
        for wanted, value in zip(found["wanted"], found[name], strict=True):
            assert value.dtype == np.float32
            assert np.array_equal(value, wanted), name


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), targets=st.integers(1, 3))
def test_real_leaves_are_summed_to_the_precision_of_float32(seed: int, targets: int) -> None:
    model = graph_of(
        *(random_trees(seed + i, targets=targets, whole=False, missing=False) for i in range(2))
    )
    found = answers(model, readings(seed))
    for name in ("onnxruntime", "openvino"):
        for wanted, value in zip(found["wanted"], found[name], strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("threshold", [TINY / 4, -TINY / 4, TINY, -TINY, 0.0])
def test_thresholds_below_the_smallest_normal_number_decide_as_before(threshold: float) -> None:
    x = np.zeros((6, FEATURES), np.float32)
    x[:, 1] = np.array([-1, -TINY, -0.0, 0.0, TINY, 1], np.float32)
    found = answers(graph_of(one_split(nodes_values=[threshold, 0.0, 0.0])), x)
    assert np.array_equal(found["openvino"][0], found["wanted"][0])
    assert np.array_equal(found["onnxruntime"][0], found["wanted"][0])


def test_without_base_values_the_leaves_alone_count() -> None:
    x = np.array([[9, 0.5, 9], [0, 0.6, 0], [0, np.nan, 0]], np.float32)
    engine = OpenVino(graph_of(one_split()).SerializeToString(), F32)
    assert engine.run({"x": x})["y0"].ravel().tolist() == [10, 20, 20]


def test_a_graph_without_trees_is_left_as_it_is() -> None:
    model = graph_of(one_split())
    lowered = lower_trees(model)
    assert lowered is not model
    assert [node.op_type for node in model.graph.node] == ["TreeEnsembleRegressor"]
    assert lower_trees(lowered) is lowered


@pytest.mark.parametrize(
    "ensemble",
    [
        one_split(nodes_modes=["BRANCH_LT", "LEAF", "LEAF"]),
        one_split(aggregate_function="MAX"),
        one_split(post_transform="LOGISTIC"),
        one_split(target_weights=[1.0, float("inf")]),
        one_split(
            nodes_values=None,
            nodes_values_as_tensor=helper.make_tensor("t", TensorProto.DOUBLE, [3], [0.5, 0, 0]),
        ),
        one_split(nodes_truenodeids=[0, 0, 0]),  # a circle
        one_split(nodes_truenodeids=[2, 0, 0]),  # two ways to one leaf
        one_split(nodes_truenodeids=[7, 0, 0]),  # nowhere
        one_split(nodes_treeids=[0, 0]),
        one_split(target_ids=[0, 5]),
        {"n_targets": 1},
    ],
)
def test_what_cannot_be_lowered_is_refused_in_one_sentence(ensemble: dict[str, Any]) -> None:
    model = graph_of(ensemble)
    assert lower_trees(model) is model
    with pytest.raises(Problem) as refused:
        OpenVino(model.SerializeToString(), F32)
    assert refused.value.code == "G601"
    assert refused.value.what == "OpenVINO has no operator ai.onnx.ml.TreeEnsembleRegressor."


def test_trees_too_large_for_matrices_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = graph_of(one_split())
    monkeypatch.setattr(lowering, "_MOST_NUMBERS", 4)  # one tree, two leaves, one split and a one
    assert lower_trees(model) is not model
    monkeypatch.setattr(lowering, "_MOST_NUMBERS", 3)
    assert lower_trees(model) is model
