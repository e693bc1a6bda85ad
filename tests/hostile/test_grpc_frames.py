"""The gRPC port: bytes that are no frames, frames that are no calls, messages that ask nothing."""

import random
import struct
from collections import Counter
from typing import Any, Final

import pytest

from genba.testing.graphs import small_batch
from genba.testing.serving import RunningServer
from tests.hostile.mutations import damage
from tests.hostile.wire import connect, everything, good

grpc = pytest.importorskip("grpc")
messages = pytest.importorskip("genba.serve.grpc.messages")

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DELIBERATE: Final = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "UNIMPLEMENTED", "PERMISSION_DENIED",
}  # fmt: skip
_METHODS: Final = ("ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "ModelStatistics")


def frame(
    kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0, size: int = -1
) -> bytes:
    length = len(payload) if size < 0 else size
    return (
        struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
    )


_SETTINGS: Final = frame(4)
_OPENED: Final = _PREFACE + _SETTINGS
#: HPACK: POST, http, a path that is not compressed, and no end of the block unless flagged.
_BLOCK: Final = b"\x83\x86\x44\x02/x\x41\x01a"

FRAMES: Final = {
    "nothing": b"",
    "noise": random.Random(1).randbytes(4_096),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "half a preface": _PREFACE[:12],
    "a preface and noise": _PREFACE + random.Random(2).randbytes(4_096),
    "no settings": _PREFACE + frame(6, b"12345678"),
    "settings of seven bytes": _PREFACE + frame(4, b"1234567"),
    "a thousand settings": _OPENED + _SETTINGS * 1_000,
    "a frame of 16 MiB": _OPENED + frame(0, stream=1, size=2**24 - 1),
    "data for nobody": _OPENED + frame(0, b"hello", stream=1),
    "a head of noise": _OPENED + frame(1, b"\xff" * 99, flags=4, stream=1),
    "a head on stream 0": _OPENED + frame(1, _BLOCK, flags=4),
    "a head that goes on for ever": _OPENED
    + frame(1, _BLOCK, stream=1)
    + frame(9, b"\x40\x01a\x01b" * 1_000, stream=1) * 200,
    "a head and something else": _OPENED + frame(1, _BLOCK, stream=1) + frame(6, b"12345678"),
    "opened and reset at once": _OPENED
    + b"".join(
        frame(1, _BLOCK, flags=4, stream=n) + frame(3, b"\0\0\0\x08", stream=n)
        for n in range(1, 4_001, 2)
    ),
    "a table of 4 GiB": _OPENED + frame(1, b"\x3f\xff\xff\xff\xff\x0f", flags=4, stream=1),
    "a window that overflows": _OPENED + frame(8, b"\x7f\xff\xff\xff") * 3,
    "a window of nothing": _OPENED + frame(8, b"\0\0\0\0"),
    "pings": _OPENED + frame(6, b"12345678") * 5_000,
    "a stream that waits for itself": _OPENED + frame(2, b"\0\0\0\x01\x10", stream=1),
    "a push": _OPENED + frame(5, b"\0\0\0\x02" + _BLOCK, flags=4, stream=1),
    "a goodbye, then more": _OPENED + frame(7, b"\0" * 8) + frame(6, b"12345678"),
    "unknown frames": _OPENED + frame(200, b"hello") * 1_000,
    "padding beyond the frame": _OPENED + frame(0, b"\xff" * 5, flags=8, stream=1),
}


def request() -> Any:
    few = small_batch(3)
    made = messages.message("ModelInferRequest")(model_name="pump")
    made.inputs.add(name="window", datatype="FP32", shape=few["window"].shape)
    made.raw_input_contents.append(few["window"].tobytes())
    return made


def call(channel: Any, method: str, body: bytes) -> tuple[str, str]:
    """Return the status of a call, and the code in its trailers."""
    try:
        channel.unary_unary(f"/{messages.SERVICE.full_name}/{method}")(body, timeout=20)
    except grpc.RpcError as caught:
        error: Any = caught
        trailers = dict(error.trailing_metadata() or ())
        return error.code().name, str(trailers.get("genba-code", ""))
    return "OK", ""


@pytest.mark.parametrize("name", FRAMES)
def test_what_is_no_call_harms_nobody(victim: RunningServer, name: str) -> None:
    address = f"127.0.0.1:{victim.grpc_port}"
    with connect(victim.port) as friend, grpc.insecure_channel(address) as channel:
        assert good(friend).status == 200
        assert call(channel, "ModelInfer", request().SerializeToString()) == ("OK", "")
        with connect(victim.grpc_port) as connection:
            try:
                connection.sendall(FRAMES[name])
                connection.shutdown(1)
            except ConnectionError:
                pass  # cut off in the middle: just as well
            everything(connection)
        assert call(channel, "ModelInfer", request().SerializeToString()) == ("OK", "")
        assert good(friend).status == 200
    assert victim.process.poll() is None


def test_damaged_messages_are_told_so(victim: RunningServer) -> None:
    chance, found = random.Random(1), Counter[str]()
    whole = request().SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{victim.grpc_port}") as channel:
        for number in range(600):
            method = _METHODS[0] if number % 2 else chance.choice(_METHODS)
            status, code = call(channel, method, damage(bytearray(whole), chance))
            assert status in _DELIBERATE, status
            assert code.startswith("G") == (status != "OK"), (status, code)
            found[status] += 1
            if number % 50 == 0:
                assert call(channel, "ModelInfer", whole) == ("OK", "")
    assert found.keys() >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
