"""Inference requests and answers: every check, both encodings, and anything a client may send."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from genba.core.protocols import Array
from genba.core.values import Signature, Tensor
from genba.serve.client import decode_answer, encode_request
from genba.serve.http.responses import Refusal
from genba.serve.oip import answers, tensors
from genba.serve.oip.inputs import Bounds, Inputs
from genba.serve.oip.requests import read_request
from genba.serve.oip.schema import Schema

ROWS = 64
SIGNATURE = Signature(
    inputs=(
        Tensor(name="window", datatype="FP32", shape=(-1, 2, 3)),
        Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
    ),
    outputs=(
        Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),
        Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
    ),
)
SCHEMA = Schema(SIGNATURE, ("a", "b"))
WINDOW = {"name": "window", "datatype": "FP32", "shape": [1, 2, 3], "data": [1, 2, 3, 4, 5, 6]}


def window(**changes: Any) -> dict[str, Any]:
    return {**WINDOW, **changes}


def entity(**changes: Any) -> dict[str, Any]:
    return {"name": "entity", "datatype": "INT64", "shape": [1], "data": [0], **changes}


def json_body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def binary_body(
    *inputs: tuple[dict[str, Any], bytes], outputs: list[Any] | None = None
) -> tuple[bytes, bytes]:
    listed = []
    for given_, data in inputs:
        plain = {key: value for key, value in given_.items() if key != "data"}
        listed.append({**plain, "parameters": {"binary_data_size": len(data)}})
    head = json.dumps({"inputs": listed, "outputs": outputs or []}).encode()
    return head + b"".join(data for _, data in inputs), str(len(head)).encode()


def read(body: bytes, head_length: bytes | None = None, schema: Schema = SCHEMA) -> Inputs:
    return read_request(body, head_length, schema, Bounds(ROWS))


def refusal_of(body: bytes, head_length: bytes | None) -> Refusal | None:
    try:
        read(body, head_length)
    except Refusal as refusal:
        return refusal
    return None


def test_json_request() -> None:
    inputs = read(json_body(window(), entity(data=[1]), id="r1"))
    assert inputs.rows == 1
    assert inputs.tensors["window"].tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert inputs.tensors["window"].dtype == np.float32
    assert inputs.tensors["entity"].tolist() == [1]
    assert inputs.wanted.id == "r1"
    assert inputs.wanted.names == ("score", "alarm")
    assert not any(inputs.wanted.binary)


@pytest.mark.parametrize("data", [[[[1, 2, 3], [4, 5, 6]]], [[1, 2, 3], [4, 5, 6]]])
def test_nested_data(data: list[Any]) -> None:
    found = read(json_body(window(data=data))).tensors["window"]
    assert found.ravel().tolist() == [1, 2, 3, 4, 5, 6]


def test_null_is_not_a_number() -> None:
    array = read(json_body(window(data=[None, 2, 3, 4, 5, 6]))).tensors["window"]
    assert np.isnan(array[0, 0, 0])
    assert read(json_body(window(data=[[[None, 2, 3], [4, 5, 6]]]))).rows == 1


def test_binary_request_keeps_nan() -> None:
    sent = np.array([[[np.nan, np.inf, -np.inf], [1, 2, 3]]], dtype=np.float32)
    body, length = binary_body((window(), sent.tobytes()), (entity(), np.int64(1).tobytes()))
    inputs = read(body, length)
    np.testing.assert_array_equal(inputs.tensors["window"], sent)
    assert inputs.tensors["entity"].tolist() == [1]
    assert inputs.tensors["window"].flags.aligned


def test_mixed_json_and_binary() -> None:
    listed = [
        entity(data=[1]),
        {
            "name": "window",
            "datatype": "FP32",
            "shape": [1, 2, 3],
            "parameters": {"binary_data_size": 24},
        },
    ]
    head = json_body(*listed)
    body = head + np.arange(6, dtype=np.float32).tobytes()
    assert read(body, str(len(head)).encode()).tensors["window"].ravel().tolist() == list(range(6))


def test_raw_body_is_the_only_feature_and_answers_in_binary() -> None:
    sent = np.arange(12, dtype=np.float32)
    inputs = read(sent.tobytes(), b"0")
    assert inputs.tensors["window"].shape == (2, 2, 3)
    assert inputs.tensors["entity"].tolist() == [-1, -1]
    assert all(inputs.wanted.binary)


def test_entities_by_name_in_both_encodings() -> None:
    named = entity(datatype="BYTES", shape=[2], data=["b", "new"])
    two = window(shape=[2, 2, 3], data=list(range(12)))
    inputs = read(json_body(two, named))
    assert inputs.tensors["entity"].tolist() == [1, -1]
    assert inputs.entity_names == ["b", "new"]
    text = b"\x01\x00\x00\x00b\x03\x00\x00\x00new"
    body, length = binary_body((two, np.zeros(12, np.float32).tobytes()), (named, text))
    assert read(body, length).entity_names == ["b", "new"]


def test_no_entity_and_strange_entities_are_unknown() -> None:
    assert read(json_body(window())).tensors["entity"].tolist() == [-1]
    assert read(json_body(window(), entity(data=[99]))).tensors["entity"].tolist() == [-1]


def test_time_is_kept_and_not_given_to_the_graph() -> None:
    sent = {"name": "time", "datatype": "INT64", "shape": [1], "data": [1_700_000_000_000]}
    inputs = read(json_body(window(), sent))
    assert inputs.time is not None
    assert inputs.time.tolist() == [1_700_000_000_000]
    assert set(inputs.tensors) == {"window", "entity"}


@pytest.mark.parametrize("time_ms", [-1, 10**14, 1_700_000_000_000_000_000])
def test_a_time_in_another_unit_is_refused(time_ms: int) -> None:
    sent = {"name": "time", "datatype": "INT64", "shape": [1], "data": [time_ms]}
    with pytest.raises(Refusal, match="'time' must be milliseconds since 1970"):
        read(json_body(window(), sent))


def test_wanted_outputs() -> None:
    body = json_body(
        window(),
        outputs=[{"name": "alarm"}, {"name": "score", "parameters": {"binary_data": True}}],
    )
    wanted = read(body).wanted
    assert (list(wanted.names), list(wanted.binary)) == (["alarm", "score"], [False, True])
    body = json_body(
        window(),
        parameters={"binary_data_output": True},
        outputs=[{"name": "alarm", "parameters": {"binary_data": False}}, {"name": "score"}],
    )
    assert list(read(body).wanted.binary) == [False, True]
    assert list(
        read(json_body(window(), parameters={"binary_data_output": True})).wanted.binary
    ) == [
        True,
        True,
    ]


BAD = [
    (b"", "not an inference request"),
    (b"{}", "inputs"),
    (b"[]", "not an inference request"),
    (b'{"inputs": []}', "inputs"),
    (b'{"inputs": [{"name": "window"}]}', "datatype"),
    (b"\xff\xfe", "not an inference request"),
    (b"[" * 100_000, "not an inference request"),
    (json_body(window(name="windw")), "did you mean window"),
    (json_body(window(name="zzz")), "It has window, entity"),
    (json_body(window(), window()), "twice"),
    (json_body(entity()), "'window' is missing"),
    (json_body(window(datatype="FP64")), "must be FP32, not FP64"),
    (json_body(window(datatype="BYTES")), "must be FP32, not BYTES"),
    (json_body(window(datatype="HUGE")), "must be FP32, not HUGE"),
    (json_body(window(shape=[1, 3, 2])), "must have shape"),
    (json_body(window(shape=[6])), "must have shape"),
    (json_body(window(shape=[])), "shape"),
    (json_body(window(shape=[-1, 2, 3])), "shape"),
    (json_body(window(shape=[1.5, 2, 3])), "shape"),
    (json_body(window(shape=[2**62, 2, 3])), "shape"),
    (json_body(window(shape=[2**40, 2, 3])), "has 6 values"),
    (json_body(window(shape=[2, 2, 3])), "has 6 values; its shape [2, 2, 3] has 12"),
    (json_body(window(shape=[0, 2, 3], data=[])), "0 rows; from 1 to 64"),
    (json_body(window(shape=[65, 2, 3], data=[0] * 390)), "65 rows; from 1 to 64"),
    (json_body(window(data=["1"] * 6)), "must be FP32"),
    (json_body(window(data=[True] * 6)), "must be FP32"),
    (json_body(window(data=[[1, 2], [3, 4, 5, 6]])), "ragged"),
    (json_body(window(data=[[1, 2], 3])), "ragged"),
    (json_body(window(data=[1, [2]])), "must be FP32"),
    (json_body(window(data={"a": 1})), "must be a list"),
    (json_body(window(data="text")), "must be a list"),
    (json_body({k: v for k, v in WINDOW.items() if k != "data"}), "neither data nor"),
    (json_body(window(parameters={"binary_data_size": 24})), "both data and"),
    (json_body(window(), entity(shape=[2], data=[0, 1])), "2 rows, others have 1"),
    (json_body(window(), entity(data=[1.5])), "must be INT64"),
    (json_body(window(), entity(data=[None])), "must be INT64"),
    (json_body(window(), entity(data=[2**63])), "INT64 cannot hold"),
    (json_body(window(), entity(datatype="BYTES", data=[1])), "must be BYTES"),
    (json_body(window(), outputs=[{"name": "scor"}]), "did you mean score"),
    (json_body(window(), outputs=[{"name": "zzz"}]), "It has"),
    (
        json_body(window(), outputs=[{"name": "score", "parameters": {"classification": 3}}]),
        "classification",
    ),
    (json_body(window(), id="x" * 200), "id"),
]


@pytest.mark.parametrize(("body", "what"), BAD)
def test_refused_json(body: bytes, what: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(body)
    assert (caught.value.status, caught.value.code) == (400, "G704")
    assert what in caught.value.what


def test_refused_binary() -> None:
    good, length = binary_body((window(), bytes(24)))
    text = entity(datatype="BYTES")
    for body, head_length, what in [
        (good[:-1], length, "ends within the 24 bytes"),
        (good + b"x", length, "1 bytes that belong to no input"),
        (good, b"-1", "not a length"),
        (good, b"1e3", "not a length"),
        (good, str(len(good) + 1).encode(), "not a length"),
        (good, b"10", "not an inference request"),
        (*binary_body((window(), bytes(20))), "has 20 bytes; FP32 [1, 2, 3] needs 24"),
        (bytes(23), b"0", "23 bytes; one row has 24"),
        (b"", b"0", "0 rows"),
        (*binary_body((window(), bytes(24)), (text, b"\xff\xff\xff\xff")), "length-prefixed"),
        (*binary_body((window(), bytes(24)), (text, b"\x01\x00")), "length-prefixed"),
        (*binary_body((window(), bytes(24)), (text, b"")), "length-prefixed"),
        (*binary_body((window(), bytes(24)), (text, b"\x01\x00\x00\x00\xff")), "UTF-8"),
        (*binary_body((window(), bytes(24)), (text, bytes(4) + b"x")), "length-prefixed"),
    ]:
        with pytest.raises(Refusal, match=".") as caught:
            read(body, head_length)
        assert what in caught.value.what
        assert caught.value.status == 400


def test_raw_body_needs_one_plain_feature() -> None:
    two = Signature(
        inputs=(
            Tensor(name="x", datatype="FP32", shape=(-1, 1)),
            Tensor(name="y", datatype="FP32", shape=(-1, 1)),
        ),
        outputs=SIGNATURE.outputs,
    )
    text = Signature(
        inputs=(Tensor(name="x", datatype="BYTES", shape=(-1,)),), outputs=SIGNATURE.outputs
    )
    for signature, what in [(two, "one input"), (text, "cannot be sent")]:
        with pytest.raises(Refusal) as caught:
            read(bytes(4), b"0", Schema(signature, ()))
        assert what in caught.value.what


def test_models_without_entity_and_with_text() -> None:
    schema = Schema(
        Signature(
            inputs=(
                Tensor(name="x", datatype="BYTES", shape=(-1,)),
                Tensor(name="flag", datatype="BOOL", shape=(-1,)),
            ),
            outputs=(Tensor(name="y", datatype="BYTES", shape=(-1,)),),
        ),
        (),
    )
    body, length = binary_body(
        ({"name": "x", "datatype": "BYTES", "shape": [2]}, b"\x00\x00\x00\x00\x01\x00\x00\x00z"),
        ({"name": "flag", "datatype": "BOOL", "shape": [2]}, b"\x00\x07"),
    )
    inputs = read(body, length, schema)
    assert inputs.tensors["x"].tolist() == [b"", b"z"]
    assert inputs.tensors["flag"].tolist() == [False, True]
    for binary in (False, True):
        wanted = schema.all_outputs("", binary=binary)
        outputs = {"y": np.array([b"one", "two"], dtype=object)}
        answer = answers.write_answer(
            schema,
            wanted,
            outputs,
            line="l",
            parameters={"prediction": "s-0", "package": "p", "role": ""},
        )
        data = b"".join(answer.body)
        decoded = decode_answer(data, len(answer.body[0])).outputs["y"].tolist()
        assert decoded == ([b"one", b"two"] if binary else ["one", "two"])


_FLOATS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.just(2), st.just(3)),
    elements=st.floats(width=32, allow_nan=True),
)


@given(array=_FLOATS)
def test_what_the_client_sends_is_what_the_graph_gets(array: Array) -> None:
    body, length = encode_request({"window": array, "entity": np.array(["a"] * len(array))})
    assert length % 8 == 0
    got = read(body, str(length).encode())
    np.testing.assert_array_equal(got.tensors["window"], array)
    assert got.tensors["entity"].tolist() == [0] * len(array)


@given(score=hnp.arrays(np.float32, st.integers(1, 5), elements=st.floats(width=32)))
@pytest.mark.parametrize("binary", [False, True])
def test_what_the_graph_gives_is_what_the_client_gets(binary: bool, score: Array) -> None:
    outputs = {"score": score, "alarm": score > 0}
    answer = answers.write_answer(
        SCHEMA,
        SCHEMA.all_outputs("r", binary=binary),
        outputs,
        line="pump",
        parameters={"prediction": "s-1a-7", "package": "p", "role": "stable"},
    )
    head = json.loads(answer.body[0])
    assert (head["model_name"], head["model_version"], head["id"]) == ("pump", "p", "r")
    got = decode_answer(b"".join(answer.body), len(answer.body[0]))
    finite = np.isfinite(score)
    np.testing.assert_array_equal(got.outputs["score"][finite], score[finite])
    if binary:
        np.testing.assert_array_equal(got.outputs["score"], score)
    else:  # JSON has neither NaN nor infinity: both are null
        assert np.isnan(got.outputs["score"][~finite]).all()
    np.testing.assert_array_equal(got.outputs["alarm"], score > 0)
    assert got.predictions == tuple(f"s-1a-{7 + i}" for i in range(len(score)))


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["window", "entity", "time"]) | _JSON,
        "datatype": st.sampled_from([*tensors.DTYPES, "BYTES"]) | _JSON,
        "shape": st.lists(st.integers(0, 3), max_size=4) | st.just([1, 2, 3]) | _JSON,
        "data": st.lists(st.integers(0, 9), min_size=6, max_size=6) | _JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 30)}) | _JSON,
    },
)


@given(
    inputs=st.lists(_INPUT, max_size=3) | _JSON,
    outputs=st.lists(st.fixed_dictionaries({"name": st.just("score") | _JSON}), max_size=2) | _JSON,
    tail=st.binary(max_size=40),
    declared=st.none() | st.integers(-2, 3),
)
def test_nothing_but_a_refusal_comes_out(
    inputs: Any, outputs: Any, tail: bytes, declared: int | None
) -> None:
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    length = None if declared is None else str(len(head) + declared).encode()
    refusal = refusal_of(head + (tail if length else b""), length)
    assert refusal is None or (refusal.status == 400 and json.loads(refusal.body())["error"])


@given(body=st.binary(max_size=200), length=st.none() | st.binary(max_size=4))
def test_bytes_are_refused_or_read(body: bytes, length: bytes | None) -> None:
    refusal = refusal_of(body, length)
    assert refusal is None or refusal.status == 400


def test_datatypes_cover_the_protocol() -> None:
    for name in tensors.DTYPES:
        bits = 8 if name == "BOOL" else int("".join(filter(str.isdigit, name)))
        assert tensors.DTYPES[name].itemsize * 8 == bits


def test_overflowing_floats_become_infinite() -> None:
    array = read(json_body(window(data=[1e300, 2, 3, 4, 5, 6]))).tensors["window"]
    assert math.isinf(array[0, 0, 0])
