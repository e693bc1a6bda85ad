import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.engines.batches import SLICE_ROWS, conform, in_slices, row_count
from genba.engines.graph import read_graph
from genba.engines.onnxruntime import OnnxRuntime
from genba.engines.openvino import OpenVino
from genba.testing.graphs import (
    graph_with_outside_data,
    graph_with_unknown_operator,
    small_batch,
    small_graph,
)

F32 = {"precision": "float32"}
ENGINES = [OnnxRuntime, OpenVino]


def pooling_graph() -> bytes:
    """A graph whose output does not have one row per row of the input."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "M"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    opset = helper.make_opsetid("", 18)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


def pairs_graph() -> bytes:
    """A graph that takes an even number of rows."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "pairs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 2, 2])],
        [numpy_helper.from_array(np.array([-1, 2, 2], dtype=np.int64), "shape")],
    )
    opset = helper.make_opsetid("", 18)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


def string_graph() -> bytes:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "text",
        [helper.make_tensor_value_info("x", TensorProto.STRING, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["N"])],
    )
    opset = helper.make_opsetid("", 18)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


def test_onnxruntime_refuses_a_graph_it_cannot_run() -> None:
    with pytest.raises(Problem) as refused:
        OnnxRuntime(string_graph(), F32)
    assert refused.value.code == "G601"
    damaged = small_graph().replace(b"ReduceL2", b"ReduceXX")
    with pytest.raises(Problem) as refused:
        OnnxRuntime(damaged, F32)
    assert refused.value.code == "G601"
    assert refused.value.what == "ONNX Runtime has no operator ReduceXX."


def test_a_refusal_is_one_sentence_and_its_reason_one_short_line() -> None:
    with pytest.raises(Problem) as refusal:
        OpenVino(graph_with_unknown_operator(), F32)
    assert refusal.value.what == "OpenVINO has no operator genba.example.Nothing."
    assert "://" not in refusal.value.why
    assert "pp:" not in refusal.value.why
    assert len(refusal.value.why) == 200
    with pytest.raises(Problem) as refusal:
        OpenVino(small_graph().replace(b"window", b"windom", 1), F32)
    assert refusal.value.what == "OpenVINO cannot run this graph."


def test_openvino_answers_one_row_as_it_answers_many() -> None:
    engine = OpenVino(small_graph(), F32)
    one = small_batch(1)
    assert engine._singles is not None
    single = engine._singles.get().run(one)
    engine._singles = None
    for name, value in engine.run(one).items():
        assert single[name].dtype == value.dtype
        np.testing.assert_allclose(single[name], value, rtol=1e-5)


def test_openvino_keeps_a_large_graph_and_one_of_other_batches_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for graph in (pooling_graph(), pairs_graph()):
        assert OpenVino(graph, F32)._singles is None
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert OpenVino(pairs_graph(), F32).run({"x": x})["y"].shape == (2, 2, 2)
    monkeypatch.setattr("genba.engines.openvino._TWICE_BYTES", 10)
    engine = OpenVino(small_graph(), F32)
    assert engine._singles is None
    assert len(engine.run(small_batch(1))["score"]) == 1


@pytest.mark.parametrize("kind", ENGINES)
def test_a_graph_with_shapes_that_depend_on_more_than_the_batch_still_runs(kind: Any) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 6)
    assert kind(pooling_graph(), F32).run({"x": x})["y"] == pytest.approx(2.5)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({}, "G103"),
        ({"precision": "int3"}, "G103"),
        ({"precision": "float32", "threads": 0}, "G103"),
        ({"precision": "float32", "thread": 1}, "G102"),
    ],
)
def test_settings_are_checked_and_precision_has_no_default(
    kind: Any, settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(Problem) as refused:
        kind(small_graph(), settings)
    assert refused.value.code == code


def test_openvino_computes_in_the_precision_that_was_asked_for() -> None:
    batch = small_batch(200)
    exact = OnnxRuntime(small_graph(), F32).run(batch)["expected"]
    single = OpenVino(small_graph(), F32).run(batch)["expected"]
    assert np.abs(single - exact).max() < 1e-5
    engine = OpenVino(small_graph(), {"precision": "bfloat16"})
    half = engine.run(batch)["expected"]
    if any(c["precision"] == "bfloat16" for c in OpenVino.candidates(1)):
        assert 1e-4 < np.abs(half - exact).max() < 0.1


@pytest.mark.parametrize("kind", ENGINES)
def test_candidates_state_precision_and_keep_to_the_cores(kind: Any) -> None:
    for cores in (1, 2, 64):
        for settings in kind.candidates(cores):
            assert settings["precision"] in ("float32", "bfloat16")
            assert 1 <= settings["threads"] <= min(cores, 4)


def test_onnxruntime_answers_while_another_thread_holds_the_bound_memory() -> None:
    engine = OnnxRuntime(small_graph(), F32)
    one = small_batch(1)
    wanted = engine.run(one)["score"]
    with engine._bound_free:
        assert engine.run(one)["score"] == wanted


@pytest.mark.parametrize("kind", ENGINES)
def test_close_frees_and_later_use_fails(kind: Any) -> None:
    engine = kind(small_graph(), F32)
    engine.close()
    with pytest.raises(AttributeError):
        engine.run(small_batch(2))


@pytest.mark.parametrize("kind", ENGINES)
def test_an_index_beyond_the_table_is_a_problem_and_not_a_crash(kind: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    table = numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        "gather",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
        [table],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()
    engine = kind(model, F32)
    assert engine.run({"index": np.array([2, 0])})["y"].tolist() == [2.0, 0.0]
    if kind is OnnxRuntime:
        for rows in (1, 2):
            with pytest.raises(Problem) as refused:
                engine.run({"index": np.full(rows, 99)})
            assert refused.value.code == "G602"


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin"])
@pytest.mark.parametrize("kind", ENGINES)
def test_weights_outside_the_graph_are_refused_even_when_the_file_is_there(
    kind: Any, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / location).write_bytes(np.eye(4, dtype=np.float32).tobytes())
    with pytest.raises(Problem) as refused:
        kind(graph_with_outside_data(location), F32)
    assert refused.value.code == "G608"


def test_outside_data_is_found_in_attributes_subgraphs_and_functions() -> None:
    import onnx
    from onnx import TensorProto, helper

    outside = TensorProto(name="hidden", data_type=1, dims=[1])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="x.bin")
    constant = helper.make_node("Constant", [], ["c"], value=outside)
    inner = helper.make_graph([constant], "inner", [], [])
    branch = helper.make_node("If", ["q"], ["r"], then_branch=inner, else_branch=inner)
    sparse = onnx.SparseTensorProto(values=outside, indices=outside, dims=[1])
    function = helper.make_function(
        "own", "f", [], ["c"], [constant], [helper.make_opsetid("", 18)]
    )
    models = [
        helper.make_model(helper.make_graph([constant], "g", [], [])),
        helper.make_model(helper.make_graph([branch], "g", [], [])),
        helper.make_model(helper.make_graph([], "g", [], [], sparse_initializer=[sparse])),
        helper.make_model(helper.make_graph([], "g", [], []), functions=[function]),
    ]
    for model in models:
        with pytest.raises(Problem) as refused:
            read_graph(model.SerializeToString())
        assert refused.value.code == "G608"
    assert read_graph(small_graph()).graph.name == "generated"


def difference_graph() -> bytes:
    """A graph with two inputs of one shape: y = a - b."""
    from onnx import TensorProto, helper

    def rows(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1024])

    node = helper.make_node("Sub", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "difference", [rows("a"), rows("b")], [rows("y")])
    opset = helper.make_opsetid("", 18)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


@pytest.mark.parametrize("engine", ENGINES)
def test_tensors_from_a_socket_are_not_mixed_up(engine: Any) -> None:
    """What comes over HTTP is read-only; copies of it must live until they have been read."""
    runtime = engine(difference_graph(), F32)
    a = np.full((2, 1024), 5, dtype=np.float32)
    b = np.full((2, 1024), 2, dtype=np.float32)
    for tensor in (a, b):
        tensor.flags.writeable = False
    assert (runtime.run({"a": a, "b": b})["y"] == 3).all()


@pytest.mark.parametrize("module", ["onnxruntime", "openvino"])
def test_importing_a_runtime_leaves_no_identifier_and_opens_no_connection(
    module: str, tmp_path: Path
) -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        f"import genba.engines.{module}\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_slices_join_to_the_whole_and_are_bounded() -> None:
    seen: list[int] = []

    def run(tensors: Any) -> dict[str, Any]:
        seen.append(len(tensors["x"]))
        return {"y": tensors["x"] * 2}

    x = np.arange(2 * SLICE_ROWS + 3)
    assert np.array_equal(in_slices(run, {"x": x})["y"], x * 2)
    assert seen == [SLICE_ROWS, SLICE_ROWS, 3]
    assert in_slices(run, {"x": x[:0]})["y"].shape == (0,)


@pytest.mark.parametrize(
    "tensors",
    [{}, {"x": np.array(1.0)}, {"x": np.zeros(2), "y": np.zeros(3)}],
)
def test_rows_must_agree(tensors: dict[str, Any]) -> None:
    with pytest.raises(Problem) as refused:
        row_count(tensors)
    assert refused.value.code == "G602"


def test_conform_copies_only_what_differs() -> None:
    kinds: dict[str, np.dtype[Any]] = {"x": np.dtype(np.float32), "i": np.dtype(np.int64)}
    good: dict[str, Any] = {"x": np.zeros((2, 2), np.float32), "i": np.zeros(2, np.int64)}
    ready = conform(good, kinds)
    assert ready["x"] is good["x"]
    assert ready["i"] is good["i"]
    other = conform({"x": np.ones((2, 2)).T[::-1], "i": np.zeros(2, np.int32)}, kinds)
    assert other["x"].dtype == np.float32
    assert other["x"].flags.c_contiguous
    assert other["i"].dtype == np.int64
    with pytest.raises(Problem):
        conform({"x": good["x"], "i": np.array([1.5, 2.5])}, kinds)


def test_two_engines_in_two_threads_do_not_disturb_each_other() -> None:
    engines = [OnnxRuntime(small_graph(seed), F32) for seed in (0, 1)]
    batch = small_batch(1)
    wanted = [engine.run(batch)["score"][0] for engine in engines]
    assert wanted[0] != wanted[1]
    wrong: list[int] = []

    def ask(i: int) -> None:
        wrong.extend(i for _ in range(200) if engines[i].run(batch)["score"][0] != wanted[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
