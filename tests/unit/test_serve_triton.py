"""The official client of the protocol, as it is, over HTTP and over gRPC."""

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.grpc.aio as over_grpc_aio
import tritonclient.http as over_http
import tritonclient.http.aio as over_http_aio
from tritonclient.utils import InferenceServerException

from genba.edge.images import encode_png
from genba.testing.graphs import small_reference
from genba.testing.serving import RunningServer
from tests.unit.triton_clients import (
    FEW,
    OUTPUTS,
    factory,
    image_inputs,
    inputs,
    names,
    photographs,
)

Ask = Any


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with factory(tmp_path_factory.mktemp("triton")) as (started, _):
        yield started


@pytest.fixture
def http(server: RunningServer) -> Iterator[Any]:
    with over_http.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as client:
        yield client


@pytest.fixture
def grpc(server: RunningServer) -> Iterator[Any]:
    with over_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        yield client


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def module_of(client: Any) -> Any:
    return over_http if isinstance(client, over_http.InferenceServerClient) else over_grpc


def told(client: Any, answer: Any) -> Any:
    """Return what a client that has protobuf or JSON says, as plain data."""
    return answer if module_of(client) is over_http else over_grpc_plain(answer)


def over_grpc_plain(answer: Any) -> Any:
    from google.protobuf import json_format

    return json_format.MessageToDict(answer, preserving_proto_field_name=True)


def as_expected(answer: Any) -> None:
    expected = small_reference(FEW)
    for name in OUTPUTS:
        np.testing.assert_allclose(answer.as_numpy(name), expected[name], rtol=1e-5)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pump")
    server = told(client, client.get_server_metadata())
    assert server["name"] == "genba"
    assert {"binary_tensor_data", "model_repository", "statistics"} <= set(server["extensions"])
    model = told(client, client.get_model_metadata("pump"))
    assert [tensor["name"] for tensor in model["inputs"]] == ["window", "entity"]
    assert [int(n) for n in model["inputs"][0]["shape"]] == [-1, 3, 4]
    package = model["versions"][0]
    assert client.is_model_ready("pump", package)
    again = client.get_model_metadata("pump", package)
    assert told(client, again) == model


def test_configuration_says_the_shape_of_one_row(client: Any) -> None:
    config = told(client, client.get_model_config("shop"))
    config = config.get("config", config)
    assert config["backend"] == "onnxruntime"
    assert int(config["max_batch_size"]) == 64
    image, bar = config["input"]
    assert (image["name"], image["data_type"]) == ("image", "TYPE_UINT8")
    assert [int(n) for n in image["dims"]] == [16, 16, 3]
    assert bar["optional"]
    assert "classes" not in config


def test_predictions(client: Any) -> None:
    answer = client.infer("pump", inputs(module_of(client)), request_id="seven")
    as_expected(answer)
    response = told(client, answer.get_response())
    assert response["id"] == "seven"
    assert response["model_name"] == "pump"
    assert set(response["parameters"]) == {"prediction", "package", "role"}
    version = response["model_version"]
    again = client.infer("pump", inputs(module_of(client)), model_version=version)
    as_expected(again)
    assert again.get_output("nothing") is None


def test_only_the_outputs_that_are_asked_for(client: Any) -> None:
    module = module_of(client)
    wanted = [module.InferRequestedOutput("score")]
    answer = client.infer("pump", inputs(module), outputs=wanted)
    np.testing.assert_allclose(answer.as_numpy("score"), small_reference(FEW)["score"], rtol=1e-5)
    assert answer.as_numpy("alarm") is None


def test_machines_by_name(client: Any) -> None:
    answer = client.infer("pump", names(module_of(client)))
    index = FEW | {"window": np.nan_to_num(FEW["window"][:2]), "entity": np.array([0, 1])}
    expected = small_reference(index)["score"]
    np.testing.assert_allclose(answer.as_numpy("score"), expected, rtol=1e-5)


def test_images_as_files(client: Any) -> None:
    files = photographs(3)
    answer = client.infer("shop", image_inputs(module_of(client), files))
    assert answer.as_numpy("map").shape == (3, 16, 16)
    one = client.infer("shop", image_inputs(module_of(client), files[:1]))
    np.testing.assert_array_equal(one.as_numpy("map")[0], answer.as_numpy("map")[0])
    red = encode_png(np.full((20, 20, 3), (250, 10, 10), np.uint8))
    parameters = client.infer("shop", image_inputs(module_of(client), [red])).get_response()
    assert "red" in str(told(client, parameters)["parameters"]["class_name"])


def test_parameters_of_a_request(client: Any) -> None:
    module = module_of(client)
    answer = client.infer(
        "pump", inputs(module), priority=2, timeout=2_000_000, parameters={"shift": "night"}
    )
    as_expected(answer)
    bar = module.InferInput("bar", [1], "FP32")
    bar.set_data_from_numpy(np.array([2.0], np.float32))
    strict = client.infer("shop", [*image_inputs(module, photographs(2)), bar])
    assert not strict.as_numpy("alarm").any()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_smaller_bodies(client: Any, algorithm: str) -> None:
    module = module_of(client)
    if module is over_http:
        more = {
            "request_compression_algorithm": algorithm,
            "response_compression_algorithm": algorithm,
        }
    else:
        more = {"compression_algorithm": algorithm}
    answer = client.infer("shop", image_inputs(module, photographs(8)), **more)
    assert answer.as_numpy("map").shape == (8, 16, 16)
    as_expected(client.infer("pump", inputs(module), **more))


def refused(call: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value)


def test_errors_say_what_is_wrong(client: Any) -> None:
    module = module_of(client)
    made = inputs(module)
    assert "did you mean pump" in refused(lambda: client.infer("pumps", made))
    assert "does not answer" in refused(lambda: client.infer("pump", made, model_version="9"))
    assert "does not answer" in refused(lambda: client.get_model_config("pump", "9"))
    assert "'window' is missing" in refused(lambda: client.infer("pump", made[1:]))
    wrong = module.InferInput("window", [1, 4], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 4), np.float32))
    assert "must have shape" in refused(lambda: client.infer("pump", [wrong]))
    classes = module.InferRequestedOutput("score", class_count=2)
    said = refused(lambda: client.infer("pump", made, outputs=[classes]))
    assert "classification extension" in said
    assert "Sequences" in refused(lambda: client.infer("pump", made, sequence_id=7))
    made[0].set_shared_memory("region", 144)
    assert "hared memory" in refused(lambda: client.infer("pump", made))
    damaged = image_inputs(module, [b"\x89PNG\r\n\x1a\nno"])
    assert "image" in refused(lambda: client.infer("shop", damaged)).lower()


def test_what_is_not_offered(grpc: Any) -> None:
    for call in (grpc.get_system_shared_memory_status, grpc.get_cuda_shared_memory_status):
        assert "G745: Shared memory is not offered" in refused(call)
    assert "UNIMPLEMENTED" in refused(grpc.get_trace_settings)
    assert "G745: Logs" in refused(grpc.get_log_settings)


def test_statistics_count_requests(client: Any) -> None:
    def count(which: str) -> tuple[int, int]:
        found = told(client, client.get_inference_statistics("spare"))["model_stats"]
        stats = found[0]
        return int(stats.get("inference_count", 0)), int(
            stats["inference_stats"].get(which, {}).get("count", 0)
        )

    rows, answered = count("success")
    for _ in range(2):
        client.infer("spare", inputs(module_of(client)))
    assert count("success") == (rows + 6, answered + 2)
    assert count("fail") == (rows + 6, 0)
    everything = told(client, client.get_inference_statistics())["model_stats"]
    assert {stats["name"] for stats in everything} == {"pump", "spare", "shop"}
    assert "was not in service" in refused(lambda: client.get_inference_statistics("spare", "9"))
    assert "no line" in refused(lambda: client.get_inference_statistics("spares"))


def test_repository(client: Any) -> None:
    def index() -> dict[str, tuple[str, str]]:
        entries = told(client, client.get_model_repository_index())
        entries = entries["models"] if isinstance(entries, dict) else entries
        return {entry["name"]: (entry["state"], entry["reason"]) for entry in entries}

    assert index() == {name: ("READY", "stable") for name in ("pump", "shop", "spare")}
    client.unload_model("spare")
    assert index()["spare"][0] == "UNAVAILABLE"
    client.load_model("spare")
    assert index()["spare"] == ("READY", "stable")
    client.infer("spare", inputs(module_of(client)))
    assert "neither configuration" in refused(lambda: client.load_model("spare", config="{}"))
    assert "no line" in refused(lambda: client.load_model("spares"))


def test_json_in_and_out(http: Any) -> None:
    wanted = [over_http.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS]
    window = over_http.InferInput("window", [1, 3, 4], "FP32")
    window.set_data_from_numpy(np.ones((1, 3, 4), np.float32), binary_data=False)
    answer = http.infer("pump", [window], outputs=wanted)
    assert "data" in answer.get_response()["outputs"][0]
    half = [
        over_http.InferRequestedOutput("score", binary_data=True),
        over_http.InferRequestedOutput("alarm", binary_data=False),
    ]
    mixed = http.infer("pump", names(over_http, binary_data=True), outputs=half)
    assert mixed.as_numpy("score").shape == mixed.as_numpy("alarm").shape == (2,)


def test_many_at_once_over_http(http: Any) -> None:
    asked = [http.async_infer("pump", inputs(over_http), request_id=str(n)) for n in range(16)]
    for number, one in enumerate(asked):
        answer = one.get_result()
        as_expected(answer)
        assert answer.get_response()["id"] == str(number)


def test_many_at_once_over_grpc(grpc: Any) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(16):
        grpc.async_infer("pump", inputs(over_grpc), lambda result, error: done.put((result, error)))
    for _ in range(16):
        result, error = done.get(timeout=30)
        assert error is None
        as_expected(result)


def test_asyncio_client_over_grpc(server: RunningServer) -> None:
    async def ask() -> None:
        address = f"127.0.0.1:{server.grpc_port}"
        async with over_grpc_aio.InferenceServerClient(address) as client:
            answers = await asyncio.gather(
                *(client.infer("pump", inputs(over_grpc)) for _ in range(8))
            )
            for answer in answers:
                as_expected(answer)
            with pytest.raises(InferenceServerException):
                await client.infer("pumps", inputs(over_grpc))

    asyncio.run(ask())


def test_asyncio_client_over_http(server: RunningServer) -> None:
    async def ask() -> None:
        async with over_http_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            answers = await asyncio.gather(
                *(client.infer("pump", inputs(over_http)) for _ in range(8))
            )
            for answer in answers:
                as_expected(answer)
            with pytest.raises(InferenceServerException, match="did you mean"):
                await client.infer("pumps", inputs(over_http))

    asyncio.run(ask())


def test_a_stream_answers_in_order_and_goes_on_after_a_refusal(grpc: Any) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    grpc.start_stream(lambda result, error: done.put((result, error)))
    for number in range(12):
        line = "pump" if number != 5 else "pumps"
        grpc.async_stream_infer(line, inputs(over_grpc), request_id=str(number))
    for number in range(12):
        result, error = done.get(timeout=30)
        if number == 5:
            assert "G703" in str(error)
            continue
        assert error is None
        assert result.get_response().id == str(number)
        assert result.get_response().parameters["triton_final_response"].bool_param
        as_expected(result)
    grpc.stop_stream()
    with pytest.raises(queue.Empty):
        done.get_nowait()
