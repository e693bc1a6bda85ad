"""The gRPC port itself: messages, bounds, keys, deadlines, and what no client should send."""

import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from genba.serve.grpc import reading
from genba.serve.grpc.messages import FILE, SERVICE, message
from genba.serve.grpc.methods import METHODS
from genba.serve.http.responses import Refusal
from genba.testing.graphs import small_reference
from genba.testing.serving import RunningServer
from tests.unit.triton_clients import FEW, factory

PREFIX = f"/{SERVICE.full_name}/"
KEY = "the key of this test"
Request = message("ModelInferRequest")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("grpc")
    with factory(folder, environment={"GENBA_SERVE_KEY": KEY}) as (started, _):
        yield started


@pytest.fixture
def channel(running: RunningServer) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}", options=options) as made:
        yield made


def ask(channel: grpc.Channel, method: str, sent: Any = b"", key: str = KEY, **more: Any) -> bytes:
    body = sent if isinstance(sent, bytes) else sent.SerializeToString()
    metadata = [("authorization", f"Bearer {key}"), *more.pop("metadata", ())]
    made: bytes = channel.unary_unary(PREFIX + method)(
        body, metadata=metadata, timeout=more.pop("timeout", 20), **more
    )
    return made


def refused(call: Any) -> tuple[str, str]:
    """Return the status and the code of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    trailing = dict(error.trailing_metadata() or ())
    if (code := trailing.get("genba-code")) is not None:
        assert error.details().startswith(f"{code}: ")
    return error.code().name, code or ""


def question(**more: Any) -> Any:
    """Return a request with raw contents for three rows."""
    made = Request(model_name="pump", **more)
    window = made.inputs.add(name="window", datatype="FP32", shape=FEW["window"].shape)
    assert window.name
    made.inputs.add(name="entity", datatype="INT64", shape=[3])
    made.raw_input_contents.extend([FEW["window"].tobytes(), FEW["entity"].tobytes()])
    return made


def scores(body: bytes) -> Any:
    answer = message("ModelInferResponse").FromString(body)
    return np.frombuffer(answer.raw_output_contents[0], np.float32)


# The messages.


def same(ours: Any, theirs: Any) -> None:
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        for what in ("number", "type", "is_repeated"):
            assert getattr(field, what) == getattr(other, what), (ours.full_name, field.name)
        for kind in ("message_type", "enum_type", "containing_oneof"):
            mine, other_kind = getattr(field, kind), getattr(other, kind)
            assert (mine and mine.name) == (other_kind and other_kind.name)
    for nested in ours.nested_types:
        same(nested, theirs.nested_types_by_name[nested.name])


def test_messages_have_the_names_and_numbers_of_the_protocol() -> None:
    theirs = {
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
        **service_pb2.DESCRIPTOR.message_types_by_name,
    }
    for name, found in FILE.message_types_by_name.items():
        same(found, theirs[name])
    for name, found in FILE.enum_types_by_name.items():
        other = model_config_pb2.DESCRIPTOR.enum_types_by_name[name]
        assert {v.name: v.number for v in found.values} == {v.name: v.number for v in other.values}
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in SERVICE.methods:
        other = methods[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert (method.client_streaming, method.server_streaming) == (
            other.client_streaming,
            other.server_streaming,
        )


def test_every_method_of_the_file_is_answered_and_has_a_scope() -> None:
    answered = {*METHODS, "ModelInfer", "ModelStreamInfer"}
    assert answered == {method.name for method in SERVICE.methods}
    for name, method in METHODS.items():
        assert method.scope in {"anyone", "describe", "read", "deploy"}, name


def test_the_file_is_what_the_compiler_makes_of_it() -> None:
    """Our reader understands the file as protoc does, where protoc is installed."""
    tools = pytest.importorskip("grpc_tools.protoc")
    from importlib.resources import files
    from pathlib import Path
    from tempfile import TemporaryDirectory

    source = Path(str(files("genba.serve.grpc").joinpath("inference.proto")))
    with TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        arguments = ["", f"-I{source.parent}", f"--descriptor_set_out={out}", source.name]
        assert tools.main(arguments) == 0
        compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(compiled)
    theirs = pool.FindFileByName("inference.proto")
    assert set(theirs.message_types_by_name) == set(FILE.message_types_by_name)
    for name, found in FILE.message_types_by_name.items():
        same(found, theirs.message_types_by_name[name])
        same(theirs.message_types_by_name[name], found)


# Reading.


def test_contents_of_every_datatype_become_raw() -> None:
    for datatype, (field, dtype) in {
        "BOOL": ("bool_contents", np.bool_),
        "INT8": ("int_contents", np.int8),
        "INT16": ("int_contents", np.int16),
        "INT32": ("int_contents", np.int32),
        "INT64": ("int64_contents", np.int64),
        "UINT8": ("uint_contents", np.uint8),
        "UINT16": ("uint_contents", np.uint16),
        "UINT32": ("uint_contents", np.uint32),
        "UINT64": ("uint64_contents", np.uint64),
        "FP32": ("fp32_contents", np.float32),
        "FP64": ("fp64_contents", np.float64),
    }.items():
        sent = Request(model_name="pump")
        tensor = sent.inputs.add(name="x", datatype=datatype, shape=[2])
        getattr(tensor.contents, field).extend([1, 0])
        found = reading.read_question(sent.SerializeToString())
        assert found.data == [np.array([1, 0], dtype).tobytes()]
    sent = Request(model_name="pump")
    tensor = sent.inputs.add(name="x", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend([b"ab", b""])
    found = reading.read_question(sent.SerializeToString())
    assert found.data == [b"\2\0\0\0ab\0\0\0\0"]


def changed(**more: Any) -> Any:
    made = question()
    for name, value in more.items():
        setattr(made, name, value)
    return made


def wrong_requests() -> Iterator[tuple[str, Any]]:
    made = question()
    made.raw_input_contents.append(b"")
    yield "raw contents", made
    made = question()
    made.inputs[0].contents.fp32_contents.append(1)
    yield "both contents", made
    yield "The id of a request", changed(id="x" * 129)
    yield "name of the model", changed(model_name="x" * 2_000)
    yield "inference request", Request(model_name="pump")
    for words, datatype, shape, field, values in (
        ("no contents", "FP32", [1], None, ()),
        ("raw contents only", "FP16", [1], "fp32_contents", (1,)),
        ("which there is not", "FP8", [1], "fp32_contents", (1,)),
        ("not fp32_contents", "INT8", [1], "fp32_contents", (1,)),
        ("cannot hold", "INT8", [1], "int_contents", (300,)),
        ("has 1 values", "INT8", [2], "int_contents", (3,)),
        ("inference request", "INT8", [-1, -1], "int_contents", (3,)),
    ):
        made = Request(model_name="pump")
        tensor = made.inputs.add(name="x", datatype=datatype, shape=shape)
        if field:
            getattr(tensor.contents, field).extend(values)
        yield words, made
    made = question()
    for number in range(70):
        made.outputs.add(name=str(number))
    yield "at most 64", made
    made = question()
    for number in range(70):
        made.inputs[0].parameters[str(number)].bool_param = True
    yield "at most 64", made
    for name, kind, value in (
        ("timeout", "int64_param", -1),
        ("timeout", "string_param", "soon"),
        ("priority", "double_param", float("nan")),
        ("priority", "bool_param", True),
    ):
        made = question()
        setattr(made.parameters[name], kind, value)
        yield f"parameters.{name}", made


def test_what_cannot_be_read_is_refused_with_a_sentence() -> None:
    for words, sent in wrong_requests():
        with pytest.raises(Refusal) as caught:
            reading.read_question(sent.SerializeToString())
        assert caught.value.status == 400
        assert words in caught.value.what


@pytest.mark.parametrize("part", [b"\x2a\0", b"\x32\0", b"\x3a\0", b"\x22\0", b"\x78\1"])
def test_messages_of_very_many_parts_are_refused_unread(part: bytes) -> None:
    """Ten million parts are twenty megabytes; read, they take seconds and a gigabyte."""
    with pytest.raises(Refusal) as caught:
        reading.read_question(part * 1_000_000)
    assert "at most 64" in caught.value.what


def test_large_messages_are_read_whatever_fields_they_have() -> None:
    made = question()
    made.inputs[0].parameters["note"].string_param = "x" * 5_000
    body = made.SerializeToString()
    assert len(reading.read_question(body).data) == 2
    unknown = b"\x79" + bytes(8) + b"\x7d" + bytes(4) + b"\x78" + b"\xff" * 9 + b"\1"
    assert len(reading.read_question(body + unknown).data) == 2
    for end in (b"\x7b", b"\xff" * 12, b"\x3a\xff"):
        with pytest.raises(Refusal) as caught:
            reading.read_question(body + end)
        assert caught.value.code == "G747"


@given(st.binary(max_size=300))
def test_garbage_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        reading.read_question(body)


def test_priority_and_timeout_are_understood() -> None:
    sent = question()
    sent.parameters["priority"].uint64_param = 2
    sent.parameters["timeout"].int64_param = 250_000
    head = reading.read_question(sent.SerializeToString()).head
    assert (head.batch, head.timeout_s) == (True, 0.25)
    head = reading.read_question(question().SerializeToString()).head
    assert (head.batch, head.timeout_s) == (False, float("inf"))


# A running server.


def test_typed_contents_in_and_out(channel: grpc.Channel) -> None:
    sent = Request(model_name="pump", id="typed")
    window = sent.inputs.add(name="window", datatype="FP32", shape=[1, 3, 4])
    window.contents.fp32_contents.extend(range(12))
    machine = sent.inputs.add(name="entity", datatype="BYTES", shape=[1])
    machine.contents.bytes_contents.append(b"R80721")
    sent.parameters["binary_data_output"].bool_param = False
    answer = message("ModelInferResponse").FromString(ask(channel, "ModelInfer", sent))
    assert not answer.raw_output_contents
    score, alarm, expected = answer.outputs
    assert score.contents.fp32_contents
    assert len(alarm.contents.bool_contents) == 1
    assert list(expected.shape) == [1, 1]
    assert answer.id == "typed"
    sent.parameters["binary_data_output"].bool_param = True
    raw = scores(ask(channel, "ModelInfer", sent))
    assert raw.tolist() == list(score.contents.fp32_contents)


def test_keys(channel: grpc.Channel) -> None:
    np.testing.assert_allclose(
        scores(ask(channel, "ModelInfer", question())), small_reference(FEW)["score"], rtol=1e-5
    )
    for method in (*METHODS, "ModelInfer", "Nothing"):
        if method != "ServerLive":
            assert refused(lambda m=method: ask(channel, m, key="wrong"))[0] in (
                "UNAUTHENTICATED",
                "RESOURCE_EXHAUSTED",  # so many wrong keys
            )
    stranger = channel.unary_unary(PREFIX + "ModelInfer")
    assert refused(lambda: stranger(b"", timeout=20)) == ("UNAUTHENTICATED", "G709")
    nothing = channel.unary_unary(PREFIX + "Nothing")
    assert refused(lambda: nothing(b"", timeout=20)) == ("UNAUTHENTICATED", "G709")
    live = channel.unary_unary(PREFIX + "ServerLive")
    assert message("ServerLiveResponse").FromString(live(b"", timeout=20)).live
    stream = channel.stream_stream(PREFIX + "ModelStreamInfer")
    assert refused(lambda: list(stream(iter([b""]), timeout=20))) == ("UNAUTHENTICATED", "G709")


def test_refusals_have_their_code(channel: grpc.Channel) -> None:
    for method, sent, expected in (
        ("ModelInfer", b"\xff\xff\xff", ("INVALID_ARGUMENT", "G747")),
        ("ModelInfer", changed(model_name="pumps"), ("NOT_FOUND", "G703")),
        ("ModelReady", message("ModelReadyRequest")(name="no"), ("NOT_FOUND", "G703")),
        ("Nothing", b"", ("UNIMPLEMENTED", "G745")),
        ("TraceSetting", b"", ("UNIMPLEMENTED", "G745")),
    ):
        assert refused(lambda m=method, s=sent: ask(channel, m, s)) == expected
    assert refused(lambda: channel.unary_unary("/other/Method")(b"", timeout=20))[0] in (
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    )
    empty = channel.stream_unary(PREFIX + "ModelInfer")
    keys = [("authorization", f"Bearer {KEY}")]
    assert refused(lambda: empty(iter([]), metadata=keys)) == ("INVALID_ARGUMENT", "G747")


def test_messages_are_bounded_also_once_they_are_unpacked(channel: grpc.Channel) -> None:
    large = bytes(21 << 20)
    assert refused(lambda: ask(channel, "ModelInfer", large))[0] == "RESOURCE_EXHAUSTED"
    packed = {"compression": grpc.Compression.Gzip}
    assert refused(lambda: ask(channel, "ModelInfer", large, **packed))[0] == "RESOURCE_EXHAUSTED"
    np.testing.assert_allclose(
        scores(ask(channel, "ModelInfer", question(), **packed)),
        small_reference(FEW)["score"],
        rtol=1e-5,
    )


def test_what_metadata_says(channel: grpc.Channel) -> None:
    metadata = [
        ("x-genba-priority", "batch"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]
    assert len(scores(ask(channel, "ModelInfer", question(), metadata=metadata))) == 3


def test_large_requests_are_read_beside_the_event_loop(channel: grpc.Channel) -> None:
    rows = 4_096
    sent = Request(model_name="pump")
    window = sent.inputs.add(name="window", datatype="FP32", shape=[rows, 3, 4])
    window.contents.fp32_contents.extend([0.5] * (rows * 12))
    sent.inputs.add(name="padding", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        bytes(400_000)
    )
    assert refused(lambda: ask(channel, "ModelInfer", sent)) == ("INVALID_ARGUMENT", "G704")
    del sent.inputs[1]
    assert len(scores(ask(channel, "ModelInfer", sent))) == rows


def test_garbage_on_the_port_hurts_nobody(running: RunningServer, channel: grpc.Channel) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for sent in (
        b"\0" * 5_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        preface + b"\xff" * 3_000,
        preface + bytes.fromhex("00000004000000000000ffffff0104000000ff"),
        gzip.compress(bytes(100_000)),
    ):
        with socket.create_connection(("127.0.0.1", running.grpc_port), timeout=10) as made:
            made.sendall(sent)
            made.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while made.recv(65_536):
                    pass
    assert len(scores(ask(channel, "ModelInfer", question()))) == 3


def test_a_stream_that_breaks_off_leaves_nothing_behind(channel: grpc.Channel) -> None:
    keys = [("authorization", f"Bearer {KEY}")]
    hold = threading.Event()

    def requests() -> Iterator[bytes]:
        for _ in range(5):
            yield question().SerializeToString()
        hold.wait(20)

    answers = channel.stream_stream(PREFIX + "ModelStreamInfer")(requests(), metadata=keys)
    assert next(answers)
    answers.cancel()
    hold.set()
    with pytest.raises(grpc.RpcError):
        list(answers)
    assert len(scores(ask(channel, "ModelInfer", question()))) == 3
