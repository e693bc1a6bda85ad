"""The gRPC port of a server that is made up: overload, mistakes, patience, keys, TLS."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from genba.core.problem import Problem
from genba.serve.access.callers import ANYONE, DESCRIBE, Access, Caller
from genba.serve.grpc import server
from genba.serve.grpc.messages import SERVICE, message
from genba.serve.http.responses import Refusal
from genba.serve.limits import Limits
from genba.serve.watch.metrics import Metrics
from tests.unit.test_serve_tls import make_pair

PREFIX = f"/{SERVICE.full_name}/"
QUESTION = message("ModelInferRequest")(model_name="pump", id="one")
QUESTION.inputs.add(name="x", datatype="FP32", shape=[1])
QUESTION.raw_input_contents.append(b"\0\0\0\0")
BODY = QUESTION.SerializeToString()
Script = Callable[[Any, "Host", server.GrpcServer], Coroutine[Any, Any, None]]


class Line:
    """A line that does what a test wants of it."""

    name = "pump"
    ready = True

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.answer: Callable[[Any], None] = lambda call: call.answer(b"done")

    def services(self) -> list[Any]:
        return []

    def ask(self, call: Any, version: str | None, read: Any) -> None:
        self.calls.append(call)
        self.answer(call)


class Host:
    """A server with one made-up line."""

    ready = True

    def __init__(self, **limits: Any) -> None:
        self.limits = replace(Limits(), **limits)
        self.line = Line()
        self.lines: Mapping[str, Any] = {"pump": self.line}
        self.metrics = Metrics(5.0)
        self.draining = False
        self.held_bytes = 0
        self.failed: Mapping[str, str] = {}

    def memory(self, line: str, loaded: bool, done: Any) -> None:
        done(self.failed)


def drive(script: Script, host: Host | None = None, access: Any = None) -> None:
    """Run a script against a port in this very loop."""

    async def run() -> None:
        made = host or Host()
        whole: Any = made
        started = await server.start(whole, access or Access(), "127.0.0.1", 0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{started.port}") as channel:
                async with asyncio.timeout(30):
                    await script(channel, made, started)
        finally:
            await started.stop(0)

    asyncio.run(run())


async def ask(channel: Any, method: str = "ModelInfer", body: bytes = BODY, **more: Any) -> Any:
    return await channel.unary_unary(PREFIX + method)(body, **more)


async def refused(asked: Coroutine[Any, Any, Any]) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked
    trailing: Any = dict(caught.value.trailing_metadata() or ())
    return caught.value.code().name, trailing.get("genba-code", "")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_server_that_stops_or_is_full() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        assert await ask(channel) == b"done"
        host.draining = True
        assert await refused(ask(channel)) == ("UNAVAILABLE", "G706")
        live = message("ServerReadyResponse").FromString
        host.draining = False
        assert live(await ask(channel, "ServerReady", b"")).ready
        host.held_bytes = host.limits.held_bytes
        assert await refused(ask(channel)) == ("UNAVAILABLE", "G706")
        host.held_bytes = 0

    drive(script)


def test_only_predictions_are_large() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        large = message("ModelReadyRequest")(name="x" * 300_000).SerializeToString()
        assert await refused(ask(channel, "ModelReady", large)) == ("RESOURCE_EXHAUSTED", "G747")

    drive(script)


def test_a_mistake_of_ours_ends_one_call_only() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        def broken(call: Any) -> None:
            raise ZeroDivisionError

        host.line.answer = broken
        assert await refused(ask(channel)) == ("INTERNAL", "G711")
        stream = channel.stream_stream(PREFIX + "ModelStreamInfer")()
        await stream.write(BODY)
        said = message("ModelStreamInferResponse").FromString(await stream.read())
        assert said.error_message.startswith("G711: ")
        assert said.infer_response.id == "one"
        await stream.write(b"\xff")
        said = message("ModelStreamInferResponse").FromString(await stream.read())
        assert said.error_message.startswith("G747: ")
        host.line.answer = lambda call: call.answer(b"again")
        await stream.write(BODY)
        assert await stream.read() == b"again"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF

    drive(script)


def test_who_does_not_send_is_not_waited_for() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        call = channel.stream_unary(PREFIX + "ModelInfer")()
        await call.wait_for_connection()

        async def answered() -> Any:
            return await call

        assert await refused(answered()) == ("DEADLINE_EXCEEDED", "G708")

    drive(script, Host(body_s=0.05))


def test_streams_leave_room_for_single_requests() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        stream = channel.stream_stream(PREFIX + "ModelStreamInfer")
        first = stream()
        await first.write(BODY)
        assert await first.read() == b"done"
        second = stream()

        async def read() -> Any:
            await second.read()

        assert await refused(read()) == ("UNAVAILABLE", "G706")
        assert await ask(channel) == b"done"
        first.cancel()

    drive(script, Host(connections=2))


def test_a_client_that_goes_away_leaves_nothing_held() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        host.line.answer = lambda call: None  # it takes its time
        call = channel.unary_unary(PREFIX + "ModelInfer")(BODY)
        await until(lambda: bool(host.line.calls))
        assert host.held_bytes == len(BODY)
        call.cancel()
        await until(lambda: host.held_bytes == 0)
        host.line.calls[0].answer(b"too late")
        host.line.calls[0].refuse(Refusal(500, "G711", "too late"))
        assert (await refused(ask(channel, timeout=0.05)))[0] == "DEADLINE_EXCEEDED"
        await until(lambda: host.held_bytes == 0)
        host.line.answer = lambda call: call.refuse(Refusal(504, "G706", "too late"))
        assert await refused(ask(channel)) == ("DEADLINE_EXCEEDED", "G706")

    drive(script)


def test_the_deadline_of_a_call_is_the_clients() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        def left(call: Any) -> float:
            wait_s: float = call.deadline - time.perf_counter()
            return wait_s

        await ask(channel)
        await ask(channel, timeout=1_000)
        await ask(channel, timeout=20)
        sent = message("ModelInferRequest").FromString(BODY)
        sent.parameters["timeout"].int64_param = 500_000
        sent.parameters["priority"].uint64_param = 2
        await ask(channel, body=sent.SerializeToString())
        usual, patient, mine, short = host.line.calls
        assert left(usual) <= host.limits.deadline_s < left(mine) < 22  # gRPC rounds it up
        assert 22 < left(patient) <= host.limits.longest_deadline_s
        assert left(short) <= 0.5
        assert [call.urgent for call in host.line.calls] == [True, True, True, False]

    drive(script)


def test_packages_that_cannot_be_loaded() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        body = message("RepositoryModelLoadRequest")(model_name="pump").SerializeToString()
        assert await ask(channel, "RepositoryModelLoad", body) == b""
        assert await ask(channel, "RepositoryModelUnload", body) == b""
        host.failed = {"0123": "it is damaged"}
        call = ask(channel, "RepositoryModelLoad", body)
        assert await refused(call) == ("FAILED_PRECONDITION", "G746")

    drive(script)


class Keys:
    """Knows two keys: one for another line, and one that has asked too often."""

    version = 0

    def __init__(self) -> None:
        self.checked = 0
        self.done = 0

    def check(self, headers: Mapping[bytes, bytes]) -> Caller:
        self.checked += 1
        scopes = frozenset({ANYONE, DESCRIBE, "infer"})
        if headers[b"authorization"] == b"Bearer other":
            return Caller("k1", scopes, frozenset({"fan"}))
        keys = self

        class Busy(Caller):
            def admit(self) -> Refusal | None:
                if keys.done >= 2:
                    return Refusal(429, "G755", "Too often.", b"Retry-After: 3\r\n")
                return None

            def done(self) -> None:
                keys.done += 1

        return Busy("k2", scopes)


def test_keys_have_lines_scopes_and_limits() -> None:
    keys = Keys()

    async def script(channel: Any, host: Host, _: Any) -> None:
        other: Any = {"metadata": [("authorization", "Bearer other")]}
        assert await refused(ask(channel, **other)) == ("PERMISSION_DENIED", "G759")
        body = message("RepositoryModelLoadRequest")(model_name="fan").SerializeToString()
        load = ask(channel, "RepositoryModelLoad", body, **other)
        assert await refused(load) == ("PERMISSION_DENIED", "G758")
        busy: Any = {"metadata": [("authorization", "Bearer busy")]}
        assert await ask(channel, **busy) == b"done"
        assert host.line.calls[-1].caller == "k2"
        stream = channel.stream_stream(PREFIX + "ModelStreamInfer")(**busy)
        for expected in (b"done", b""):
            await stream.write(BODY)
            said = await stream.read()
            assert said == expected or b"G755: Too often." in said
        stream.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, **busy)
        trailing: Any = dict(caught.value.trailing_metadata() or ())
        assert (caught.value.code().name, trailing["retry-after"]) == ("RESOURCE_EXHAUSTED", "3")
        assert keys.checked == 2  # who asks again is known
        Keys.version = 1
        await refused(ask(channel, **busy))
        assert keys.checked == 3

    drive(script, access=keys)


def test_many_different_strangers_do_not_fill_the_memory() -> None:
    async def script(channel: Any, host: Host, _: Any) -> None:
        for number in range(300):
            metadata = [("authorization", f"Bearer {number}")]
            await ask(channel, "ServerLive", b"", metadata=metadata)

    drive(script)


def test_a_port_that_is_taken_and_one_that_is_shared() -> None:
    async def open_twice() -> None:
        host: Any = Host()
        first = await server.start(host, Access(), "127.0.0.1", 0)
        with pytest.raises(Problem) as caught:
            await server.start(host, Access(), "127.0.0.1", first.port)
        assert caught.value.code == "G701"
        await first.stop(0)
        shared = [
            await server.start(host, Access(), "::1", port, share_port=True)
            for port in (first.port, first.port)
        ]
        assert shared[0].port == shared[1].port
        for one in shared:
            await one.stop(0)

    asyncio.run(open_twice())


def test_tls(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "server")

    async def script() -> None:
        host: Any = Host()
        started = await server.start(host, Access(), "127.0.0.1", 0, tls=pair)
        trusted = grpc.ssl_channel_credentials(pair.cert.read_bytes())
        address = f"localhost:{started.port}"
        async with grpc.aio.secure_channel(address, trusted) as channel:
            assert await ask(channel) == b"done"
        async with grpc.aio.insecure_channel(address) as channel:
            assert (await refused(ask(channel)))[0] == "UNAVAILABLE"
        await started.stop(0)
        missing = replace(pair, key=tmp_path / "nothing")
        with pytest.raises(Problem) as caught:
            await server.start(host, Access(), "127.0.0.1", 0, tls=missing)
        assert caught.value.code == "G750"

    asyncio.run(script())
