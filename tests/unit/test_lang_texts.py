"""Text in packages: packed into files, read as conversations, measured, explained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.values import (
    EngineChoice,
    Manifest,
    PackageFile,
    Signature,
    Tensor,
    Verdict,
)
from genba.edge.package import LoadedPackage
from genba.edge.predict import Predictor, golden_samples
from genba.edge.texts import (
    as_bytes,
    as_text,
    content_of,
    messages_of,
    pack,
    question_of,
    unpack,
    written,
)
from genba.learn.language.tiny import tiny_talk
from genba.stages.optimize_design import readers
from genba.stages.samples import affordable
from genba.targets.local import ThisMachine
from genba.targets.runner import memory_mib

HELLO = [{"role": "user", "content": "Where is the valve?"}]
SETTINGS = {"weights": "f32", "threads": 1}


@pytest.fixture(scope="module")
def engine() -> Any:
    opened = resolve("engine", "openvino-talk")(tiny_talk(), SETTINGS)
    yield opened
    opened.close()


def test_any_bytes_survive_the_file() -> None:
    values = as_bytes([b"\x00\xff\x00", "Grüße", "", b"\n"])
    assert unpack(pack(values)).tolist() == values.tolist()
    assert pack(as_bytes([])).shape == (0, 4)


@pytest.mark.parametrize("rows", [[[9, 0, 0, 0, 1]], [[255, 255, 255, 255]]])
def test_a_length_that_is_not_there_is_refused(rows: list[list[int]]) -> None:
    with pytest.raises(Problem) as refused:
        unpack(np.array(rows, dtype=np.uint8))
    assert refused.value.code == "G604"


@pytest.mark.parametrize("text", ["[1, 2]", "[not json", "{}", "[[]]", '[{"content": "x"}]'])
def test_what_is_no_conversation_is_what_the_user_says(text: str) -> None:
    assert messages_of(text.encode()) == [{"role": "user", "content": text}]


def test_a_conversation_is_read_as_it_was_written() -> None:
    talk = [{"role": "system", "content": "Kurz."}, *HELLO]
    assert messages_of(written(talk)) == talk
    assert question_of(talk) == "Where is the valve?"
    assert question_of([{"role": "system", "content": "Kurz."}]) == "Kurz."
    assert question_of([]) == ""
    assert content_of({"content": None}) == ""
    assert as_text("x") == "x"


def talk_package(engine: Any, spoil: float = 0.0) -> LoadedPackage:
    one = (-1,)
    signature = Signature(
        inputs=(
            Tensor(name="messages", datatype="BYTES", shape=one, role="text"),
            Tensor(name="given", datatype="BYTES", shape=one, role="given"),
        ),
        outputs=(
            Tensor(name="answer", datatype="BYTES", shape=one, role="text"),
            Tensor(name="log_probability", datatype="FP32", shape=one, role="confidence"),
            Tensor(name="tokens", datatype="INT32", shape=(-1, 2), role="count"),
        ),
    )
    inputs = {"messages": as_bytes([written(HELLO)]), "given": as_bytes(["Close the valve."])}
    outputs = engine.run(inputs)
    outputs["log_probability"] = outputs["log_probability"] + np.float32(spoil)
    named = {f"input.{n}": t for n, t in inputs.items()}
    named |= {f"output.{n}": t for n, t in outputs.items()}
    sample = save({n: pack(t) if t.dtype == object else t for n, t in named.items()})
    files = {"model.gguf": tiny_talk(), "sample.safetensors": sample}
    manifest = Manifest(
        format=1,
        line="talk",
        task="language.chat",
        model="m",
        run="r",
        dataset="d",
        engine=EngineChoice(name="openvino-talk", settings=SETTINGS),
        signature=signature,
        settings={},
        entities=("all",),
        files={n: PackageFile(digest="0" * 64, size=len(f)) for n, f in files.items()},
        verdict=Verdict(passed=True),
    )
    return LoadedPackage(id="p", manifest=manifest, files=files)


def test_a_package_of_text_tests_itself(engine: Any) -> None:
    package = talk_package(engine)
    inputs, outputs = golden_samples(package)
    assert inputs["given"].tolist() == [b"Close the valve."] == outputs["answer"].tolist()
    assert Predictor(package, engine).self_test() <= 5e-2


def test_a_model_that_thinks_otherwise_fails_its_test(engine: Any) -> None:
    with pytest.raises(Problem) as refused:
        Predictor(talk_package(engine, spoil=0.5), engine).self_test()
    assert refused.value.code == "G609"


def test_an_answer_is_measured_and_costed(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genba.targets.local.memory_mib", lambda *_: None)
    tensors = {"messages": as_bytes([f"Question {n}?" for n in range(3)])}
    found = ThisMachine().measure(engine, tensors)
    assert {"first_token_ms", "tokens_per_s", "tokens_per_s_together"} <= found.keys()
    assert found["latency_ms_p50"].value >= found["first_token_ms"].value > 0
    assert found["joules_per_1k_tokens"].method == "modelled"
    assert found["cost_usd_per_1k_tokens"].value > 0
    per_second = found["tokens_per_s_together"].value / 32
    assert found["rows_per_s"].value == pytest.approx(per_second, rel=1e-6)


def test_texts_reach_the_process_that_measures_memory() -> None:
    tensors = {"messages": as_bytes(["a", "bc"]), "max_tokens": np.full(2, 2, dtype=np.float32)}
    found = memory_mib("openvino-talk", SETTINGS, tiny_talk(), tensors)
    assert found.value > 1


def test_an_engine_reads_graphs_or_language_models() -> None:
    kinds = {name: resolve("engine", name) for name in ("onnxruntime", "openvino-talk")}
    assert list(readers(kinds, tiny_talk())) == ["openvino-talk"]
    assert list(readers(kinds, b"onnx")) == ["onnxruntime"]
    assert list(readers({"onnxruntime": kinds["onnxruntime"]}, tiny_talk())) == ["onnxruntime"]


def test_texts_count_when_samples_are_held(tmp_path: Path) -> None:
    text = Tensor(name="messages", datatype="BYTES", shape=(-1,), role="text")
    assert affordable(Signature(inputs=(text,), outputs=()), 640, 100) == 10
