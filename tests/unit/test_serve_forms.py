"""What is worked out once and used again: forms of requests and templates of answers."""

import json
import math
from typing import Any

import numpy as np
import pytest

from genba.core.protocols import Array
from genba.core.values import Signature, Tensor
from genba.serve.client import decode_answer, encode_request
from genba.serve.http.responses import Refusal
from genba.serve.oip.answers import server_metadata, write_answer
from genba.serve.oip.inputs import Bounds
from genba.serve.oip.requests import read_request
from genba.serve.oip.schema import Schema

SIGNATURE = Signature(
    inputs=(
        Tensor(name="x", datatype="FP32", shape=(-1, 2)),
        Tensor(name="on", datatype="BOOL", shape=(-1,)),
    ),
    outputs=(
        Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),
        Tensor(name="word", datatype="BYTES", shape=(-1,)),
    ),
)
NUMBERS = Signature(inputs=SIGNATURE.inputs[:1], outputs=SIGNATURE.outputs[:1])
ROWS = Bounds(8)


def asked(*values: float, **more: Array) -> tuple[bytes, bytes]:
    x = np.array(values, dtype=np.float32).reshape(-1, 2)
    body, length = encode_request({"x": x, **more})
    return body, b"%d" % length


def test_the_second_request_of_a_form_reads_its_own_numbers() -> None:
    schema = Schema(NUMBERS, ())
    first = read_request(*asked(1, 2), schema, ROWS)
    assert len(schema.forms) == 1
    second = read_request(*asked(3, 4), schema, ROWS)
    assert first.tensors["x"].tolist() == [[1, 2]]
    assert second.tensors["x"].tolist() == [[3, 4]]
    assert second.wanted is first.wanted


@pytest.mark.parametrize("extra", [b"", b"x" * 8], ids=["short", "long"])
def test_a_body_of_another_size_is_refused_as_ever(extra: bytes) -> None:
    schema = Schema(NUMBERS, ())
    body, length = asked(1, 2)
    read_request(body, length, schema, ROWS)
    with pytest.raises(Refusal) as caught:
        read_request(body[:-4] if not extra else body + extra, length, schema, ROWS)
    assert caught.value.status == 400


def test_a_form_that_was_kept_is_bounded_as_ever() -> None:
    schema = Schema(NUMBERS, ())
    read_request(*asked(1, 2, 3, 4), schema, ROWS)
    with pytest.raises(Refusal):
        read_request(*asked(1, 2, 3, 4), schema, Bounds(1))


def test_what_is_refused_or_more_than_numbers_is_not_kept() -> None:
    schema = Schema(SIGNATURE, ())
    body, length = asked(1, 2, on=np.array([True]))
    assert read_request(body, length, schema, ROWS).tensors["on"].tolist() == [True]
    assert not schema.forms
    with pytest.raises(Refusal):
        read_request(*asked(1, 2, y=np.zeros(1, np.float32)), schema, ROWS)
    assert not schema.forms


def test_forms_are_bounded() -> None:
    schema = Schema(NUMBERS, ())
    for n in range(300):
        body, length = asked(1, 2)
        head = json.loads(body[: int(length)]) | {"id": str(n)}
        text = json.dumps(head).encode()
        data = body[int(length) :]
        assert read_request(text + data, b"%d" % len(text), schema, ROWS).wanted.id == str(n)
    assert len(schema.forms) == 256


def answer(schema: Schema, prediction: str, rows: int = 1, **more: Any) -> tuple[Any, bytes]:
    wanted = schema.all_outputs(more.pop("id", ""), binary=True)
    outputs: dict[str, Array] = {"score": np.arange(rows, dtype=np.float32)}
    if "word" in schema.outputs:
        outputs["word"] = np.array([b"a" * len(prediction)] * rows, dtype=object)
    parameters = {"prediction": prediction, "package": "p", "role": more.get("role", "stable")}
    written = write_answer(schema, wanted, outputs, line="pump", parameters=parameters)
    body = b"".join(written.body)
    length = int(written.fields.split(b":")[1])
    return decode_answer(body, length), body[:length]


@pytest.mark.parametrize("signature", [NUMBERS, SIGNATURE], ids=["numbers", "words"])
def test_answers_of_one_wish_differ_where_they_must(signature: Signature) -> None:
    schema = Schema(signature, ())
    for prediction, rows, role in (
        ("s-7", 1, "stable"),
        ("s-1234", 1, "canary"),
        ("s-9", 3, "stable"),
    ):
        for _ in range(2):
            made, head = answer(schema, prediction, rows, role=role)
            assert made.predictions[0] == prediction
            assert (made.role, len(made.predictions)) == (role, rows)
            assert made.outputs["score"].tolist() == list(range(rows))
            assert json.loads(head)["outputs"][0]["shape"] == [rows]


def test_an_id_that_looks_like_our_own_mark_changes_nothing() -> None:
    schema = Schema(NUMBERS, ())
    mark = "<the id of the prediction>"
    made, head = answer(schema, "s-1", id=mark)
    assert json.loads(head)["id"] == mark
    assert made.predictions == ("s-1",)


def test_templates_are_bounded() -> None:
    schema = Schema(NUMBERS, ())
    for rows in range(1, 200):
        answer(schema, "s-1", rows)
    assert len(schema.all_outputs("", binary=True).templates) <= 64


def test_a_request_says_how_much_of_a_hurry_it_is_in() -> None:
    def hurried(**said: int) -> tuple[bool, float, bool]:
        sent = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
        body = json.dumps({"inputs": [sent], "parameters": said}).encode()
        inputs = read_request(body, None, Schema(NUMBERS, ()), ROWS)
        return inputs.said, inputs.timeout_s, inputs.urgent

    assert hurried() == (False, math.inf, True)
    assert hurried(timeout=1_500) == (True, 0.0015, True)
    assert hurried(priority=1) == (True, math.inf, True)
    assert hurried(priority=2) == (True, math.inf, False)
    with pytest.raises(Refusal):
        hurried(timeout=-1)


def test_metadata() -> None:
    assert "binary_tensor_data" in server_metadata("1")["extensions"]
