"""Images in requests before any package sees them: framing, addresses, what fits what."""

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.core.values import Manifest, Signature, Tensor, Verdict
from genba.edge.images import encode_png
from genba.serve.client import encode_request
from genba.serve.http.responses import Refusal
from genba.serve.oip import images
from genba.serve.oip.images import is_file
from genba.serve.oip.inputs import Bounds
from genba.serve.oip.requests import json_size, read_image, read_request
from genba.serve.oip.schema import Schema, describe_model, same_requests
from genba.testing.serving import CLASSES, ENGINE, SIGNATURE, image_signature

SCHEMA = Schema(image_signature(8), (), CLASSES)
BOUNDS = Bounds(64, {8, 24})


@given(files=st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_files_arrive_byte_for_byte(files: list[bytes]) -> None:
    body, length = encode_request({"image": files}, ["score"])
    inputs = read_request(body, str(length).encode(), SCHEMA, BOUNDS)
    assert list(images.files(inputs.pictures)) == files
    assert inputs.rows == len(files)
    assert list(inputs.wanted.names) == ["score"]
    listed = {"name": "image", "datatype": "BYTES", "shape": [len(files)]}
    texts = [base64.b64encode(file).decode() for file in files]
    plain = json.dumps({"inputs": [{**listed, "data": texts}]}).encode()
    assert list(images.files(read_request(plain, None, SCHEMA, BOUNDS).pictures)) == files
    assert images.weight(inputs.pictures) == sum(map(len, files))
    assert images.kept(inputs.pictures).tolist() == files


@given(
    frame=st.binary(max_size=60),
    count=st.integers(0, 4),
)
def test_any_framing_is_read_or_refused(frame: bytes, count: int) -> None:
    listed = {"name": "image", "datatype": "BYTES", "shape": [count]}
    head = json.dumps({"inputs": [{**listed, "parameters": {"binary_data_size": len(frame)}}]})
    body = head.encode() + frame
    try:
        inputs = read_request(body, str(len(head)).encode(), SCHEMA, BOUNDS)
    except Refusal as refused:
        told = refused
    else:
        assert sum(4 + len(p) for p in inputs.pictures) == len(frame)
        return
    assert told.status == 400


@pytest.mark.parametrize(
    ("data", "what"),
    [([1], "must be BYTES"), (["a"], "has 1 values"), ([None, "a"], "must be BYTES")],
)
def test_texts_that_are_none(data: list[Any], what: str) -> None:
    listed = {"name": "image", "datatype": "BYTES", "shape": [2], "data": data}
    with pytest.raises(Refusal, match=what):
        read_request(json.dumps({"inputs": [listed]}).encode(), None, SCHEMA, BOUNDS)


def test_pixels_of_any_package_of_the_line_are_taken_and_scaled() -> None:
    pixels = np.full((2, 24, 24, 3), 7, np.uint8)
    body, length = encode_request({"image": pixels})
    inputs = read_request(body, str(length).encode(), SCHEMA, BOUNDS)
    made = images.pixels(inputs.pictures, 8)
    assert made.shape == (2, 8, 8, 3)
    assert (made == 7).all()
    with pytest.raises(Refusal, match="Send JPEG or PNG bytes instead"):
        read_request(body, str(length).encode(), SCHEMA, Bounds(64, {8}))
    wide, length = encode_request({"image": np.zeros((1, 24, 8, 3), np.uint8)})
    with pytest.raises(Refusal, match="must have shape"):
        read_request(wide, str(length).encode(), SCHEMA, BOUNDS)


def test_what_is_a_file() -> None:
    png, json_ = encode_png(np.zeros((8, 8), np.uint8)), b'{"inputs": []}'
    assert is_file(png, b"", None)
    assert is_file(b"\xff\xd8\xff\xe0", b"text/plain", None)
    assert is_file(b"", b"image/png", None)
    assert is_file(b"x", b"application/octet-stream", b"0")
    assert is_file(json_, b"application/octet-stream", None)
    assert not is_file(json_, b"application/octet-stream", b"14")
    assert not is_file(json_, b"application/json", None)
    assert not is_file(png, b"image/png", b"3")


def test_how_much_of_a_body_is_json() -> None:
    assert json_size(b"12345", None) == 5
    assert json_size(b"12345", b"2") == 2
    assert json_size(b"12345", b"99") == 5
    assert json_size(b"12345", b"x") == 5


def test_a_parameter_may_be_said_once_or_for_each_row() -> None:
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    for values, told in ([0.25], [0.25] * 3), ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]):
        body, length = encode_request({"image": pixels, "bar": np.array(values, np.float32)})
        inputs = read_request(body, str(length).encode(), SCHEMA, BOUNDS)
        assert inputs.tensors["bar"].tolist() == told
    body, length = encode_request({"image": pixels})
    assert "bar" not in read_request(body, str(length).encode(), SCHEMA, BOUNDS).tensors
    for wrong, what in (([1.0, 2.0], "2 rows, others have 3"), ([np.nan], "finite")):
        body, length = encode_request({"image": pixels, "bar": np.array(wrong, np.float32)})
        with pytest.raises(Refusal, match=what):
            read_request(body, str(length).encode(), SCHEMA, BOUNDS)


def test_entities_are_kept_also_where_the_graph_needs_none() -> None:
    inputs = read_image(b"file", b"/infer?entity=caf%C3%A9", SCHEMA)
    assert inputs.entity_names == ["café"]
    assert set(inputs.tensors) == set()
    named = {"name": "entity", "datatype": "INT64", "shape": [1], "data": [0]}
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [""]}
    with pytest.raises(Refusal, match="'entity' must be BYTES, not INT64"):
        read_request(json.dumps({"inputs": [image, named]}).encode(), None, SCHEMA, BOUNDS)


def test_classes_have_names_where_somebody_named_them() -> None:
    assert [SCHEMA.class_name(n) for n in (-1, 0, 2, 3)] == [None, "red", "blue", None]


def changed(signature: Signature, which: str, /, **changes: Any) -> Signature:
    def each(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(replace(t, **changes) if t.name == which else t for t in tensors)

    return Signature(inputs=each(signature.inputs), outputs=each(signature.outputs))


def test_which_packages_answer_the_same_requests() -> None:
    mine = image_signature(8)
    assert same_requests(mine, image_signature(24, bar=2.0))
    assert same_requests(mine, changed(mine, "probability", shape=(-1, 5)))
    assert same_requests(SIGNATURE, SIGNATURE)
    for name, changes in (
        ("probability", {"shape": (-1,)}),
        ("score", {"datatype": "FP64"}),
        ("bar", {"name": "threshold"}),
        ("score", {"role": "expected"}),
        ("image", {"role": "feature"}),
    ):
        assert not same_requests(mine, changed(mine, name, **changes))
    assert not same_requests(SIGNATURE, changed(SIGNATURE, "window", shape=(-1, 4, 4)))


def test_metadata_says_what_the_numbers_are() -> None:
    manifest = Manifest(
        format=1,
        line="parts",
        task="t",
        model="m",
        run="r",
        dataset="d",
        engine=ENGINE,
        signature=changed(image_signature(8), "score", unit="of the bar"),
        settings={"size": 8, "sensors": ["a", "b"], "arrays": "secret"},
        entities=(),
        files={},
        verdict=Verdict(passed=True),
        classes=CLASSES,
    )
    told = describe_model("parts", ["p"], manifest, {"bar": 0.75})
    assert told["parameters"] == {
        "sensors": ["a", "b"],
        "size": 8,
        "classes": CLASSES,
        "parameters": {"bar": 0.75},
    }
    image, bar = (t["parameters"] for t in told["inputs"])
    assert image["role"] == "image"
    assert "base64" in image["also"]
    assert bar == {"role": "parameter", "default": 0.5, "optional": True}
    assert told["outputs"][0]["parameters"] == {"role": "score", "unit": "of the bar"}


def test_only_problems_come_out_of_pixels() -> None:
    with pytest.raises(Problem) as caught:
        images.pixels([b"x"], 8)
    assert caught.value.code == "G230"
    with pytest.raises(Problem) as caught:
        images.files(["not base64!"])
    assert caught.value.code == "G730"
