import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from genba.core.digest import canonical_json, digest_bytes
from genba.core.problem import Problem
from genba.core.values import (
    EngineChoice,
    GateResult,
    Manifest,
    Measure,
    PackageFile,
    Signature,
    Tensor,
    Verdict,
)
from genba.edge.package import (
    LoadedPackage,
    encode_entities,
    encode_manifest,
    load,
    load_directory,
)
from genba.edge.predict import Predictor, difference, golden_samples, open_engine
from genba.edge.signature import PackageSignature, encode_signature, open_package, sign, verify
from genba.edge.tensors import read_tensors
from genba.engines.onnxruntime import OnnxRuntime
from genba.testing.graphs import LAGS, SENSORS, small_batch, small_graph

F32 = {"precision": "float32"}


def golden() -> bytes:
    batch = small_batch(4)
    outputs = OnnxRuntime(small_graph(), F32).run(batch)
    return save(
        {f"input.{n}": t for n, t in batch.items()} | {f"output.{n}": t for n, t in outputs.items()}
    )


FILES = {"model.onnx": small_graph(), "sample.safetensors": golden(), "card.json": b'{"name":"x"}'}


def make_manifest(**changes: Any) -> Manifest:
    gate = GateResult(
        name="r2",
        passed=True,
        measure=Measure(value=1, low=0.5, high=1.0),  # a whole number where a float belongs
        limit="at least 0.5",
        reason="r2 is 1, at least 0.5 is asked for.",
    )
    values: dict[str, Any] = {
        "format": 1,
        "line": "pump",
        "task": "sensor.anomaly",
        "model": "m",
        "run": "r",
        "dataset": "d",
        "engine": EngineChoice(name="onnxruntime", settings=F32),
        "signature": Signature(
            inputs=(
                Tensor(name="window", datatype="FP32", shape=(-1, LAGS, SENSORS)),
                Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
            ),
            outputs=(Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),),
        ),
        "settings": {"lags": LAGS, "drift": {"window": [0.5, None]}},
        "entities": ("north", "süd"),
        "files": {n: PackageFile(digest=digest_bytes(f), size=len(f)) for n, f in FILES.items()},
        "verdict": Verdict(passed=True, gates=(gate,)),
    }
    return Manifest(**(values | changes))


BLOBS = {digest_bytes(f): f for f in FILES.values()}
DATA = encode_manifest(make_manifest())


def read(digest: str) -> bytes:
    return BLOBS[digest]


def write_package(folder: Path) -> Path:
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_bytes(DATA)
    return folder


def refusal(action: Any) -> str:
    with pytest.raises(Problem) as refused:
        action()
    assert refused.value.tries
    return refused.value.code


def test_a_package_loads_with_every_file_and_its_id_is_the_digest_of_its_manifest() -> None:
    package = load(DATA, read, expect=digest_bytes(DATA))
    assert package.id == digest_bytes(encode_manifest(make_manifest())) == digest_bytes(DATA)
    assert package.files == FILES
    assert package.model == FILES["model.onnx"]
    assert encode_manifest(package.manifest) == DATA
    assert package.manifest.verdict.gates[0].measure.value == 1.0


def test_the_id_does_not_depend_on_how_numbers_were_written() -> None:
    manifest = make_manifest()
    gate = manifest.verdict.gates[0]
    other = dataclasses.replace(gate, measure=dataclasses.replace(gate.measure, value=1.0))
    verdict = Verdict(passed=True, gates=(other,))
    changed = dataclasses.replace(manifest, verdict=verdict)
    assert encode_manifest(changed) == encode_manifest(manifest)


@given(st.integers(0, len(DATA) * 8 - 1))
def test_any_flipped_bit_of_the_manifest_is_refused(bit: int) -> None:
    damaged = bytearray(DATA)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Problem) as refused:
        load(bytes(damaged), read, expect=digest_bytes(DATA))
    assert refused.value.code == "G604"


@given(st.sampled_from(sorted(FILES)), st.data())
def test_any_flipped_bit_of_any_file_is_refused(name: str, data: st.DataObject) -> None:
    whole = FILES[name]
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Problem) as refused:
        load(DATA, lambda d: bytes(damaged) if d == digest_bytes(whole) else read(d))
    assert refused.value.code == "G604"
    assert name in refused.value.what


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize(
    "change",
    [lambda f: f[:-1], lambda f: f + b"x", lambda _: b""],
    ids=["a byte less", "a byte more", "nothing"],
)
def test_a_truncated_or_extended_file_is_refused(name: str, change: Any) -> None:
    wrong = digest_bytes(FILES[name])
    damaged = change(FILES[name])
    assert refusal(lambda: load(DATA, lambda d: damaged if d == wrong else read(d))) == "G604"


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_an_unknown_format_is_refused_before_anything_is_read(version: Any) -> None:
    body = {**json.loads(DATA), "format": version, "new": 1}
    assert refusal(lambda: load(canonical_json(body), _never)) == "G603"
    assert refusal(lambda: load(b"[1]", _never)) == "G603"


def _never(_digest: str) -> bytes:
    raise AssertionError("a file was read")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"files": "model.onnx"},
        {"verdict": {"passed": "yes"}},
        {"line": 3},
    ],
)
def test_a_manifest_with_other_keys_or_types_is_refused(change: dict[str, Any]) -> None:
    data = canonical_json({**json.loads(DATA), **change})
    assert refusal(lambda: load(data, _never)) == "G604"


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        json.dumps(json.loads(DATA)).encode(),  # the same values, written otherwise
        DATA.replace(b'"line":"pump"', b'"line":"pump","line":"pump"'),
        DATA + b"\n",
    ],
)
def test_a_manifest_that_is_not_canonical_is_refused(data: bytes) -> None:
    assert refusal(lambda: load(data, _never)) == "G604"


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "/etc/passwd",
        "a/b",
        "..",
        "a..b",
        "",
        "UPPER",
        "manifest.json",
        "x\0y",
        "ü",
    ],
)
def test_a_file_name_that_could_be_a_path_is_refused(name: str) -> None:
    files = {**make_manifest().files, name: PackageFile(digest="0" * 64, size=1)}
    data = encode_manifest(make_manifest(files=files))
    assert refusal(lambda: load(data, _never)) == "G604"


def test_a_package_without_a_graph_is_refused() -> None:
    files = {n: f for n, f in make_manifest().files.items() if n != "model.onnx"}
    data = encode_manifest(make_manifest(files=files))
    assert refusal(lambda: load(data, _never)) == "G604"


def test_another_package_than_asked_for_is_refused() -> None:
    other = encode_manifest(make_manifest(line="fan"))
    assert refusal(lambda: load(other, read, expect=digest_bytes(DATA))) == "G604"


def test_a_folder_loads(tmp_path: Path) -> None:
    assert load_directory(write_package(tmp_path / "p")).files == FILES


def test_a_folder_that_was_altered_is_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "p")
    (folder / "extra.bin").write_bytes(b"x")
    assert refusal(lambda: load_directory(folder)) == "G604"
    (folder / "extra.bin").unlink()
    (folder / "sub").mkdir()
    assert refusal(lambda: load_directory(folder)) == "G604"
    (folder / "sub").rmdir()
    moved = tmp_path / "card.json"
    (folder / "card.json").rename(moved)
    assert refusal(lambda: load_directory(folder)) == "G604"
    (folder / "card.json").symlink_to(moved)
    assert refusal(lambda: load_directory(folder)) == "G604"
    (folder / "card.json").unlink()
    moved.rename(folder / "card.json")
    assert load_directory(folder).files == FILES
    (folder / "model.onnx").write_bytes(FILES["model.onnx"] + b" ")
    assert refusal(lambda: load_directory(folder)) == "G604"


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: load_directory(tmp_path)) == "G604"
    assert refusal(lambda: load_directory(tmp_path / "nothing")) == "G604"


def test_entities_are_encoded_by_name_and_unknown_ones_pooled() -> None:
    names = ("north", "süd")
    assert encode_entities(["süd", "north", "west"], names).tolist() == [1, 0, -1]
    assert encode_entities(["süd".encode(), b"\xff"], names).tolist() == [1, -1]
    assert encode_entities(np.array(["north"], dtype=object), {"north": 7}).tolist() == [7]
    numbers = encode_entities(np.array([1, -1], dtype=np.int32), names)
    assert numbers.tolist() == [1, -1]
    assert numbers.dtype == np.int64
    assert encode_entities([], names).shape == (0,)


class TestPredictor:
    package = load(DATA, read)

    def test_predicts_with_names_and_passes_its_self_test(self) -> None:
        predictor = Predictor(self.package)
        batch = small_batch(3)
        by_number = predictor.predict({**batch, "entity": np.array([0, 1, -1])})
        by_name = predictor.predict({**batch, "entity": ["north", "süd", "new"]})  # type: ignore[dict-item]  # names are allowed
        assert np.array_equal(by_number["score"], by_name["score"])
        assert predictor.self_test() == 0.0
        inputs, outputs = golden_samples(self.package)
        assert sorted(inputs) == ["entity", "window"]
        assert sorted(outputs) == ["alarm", "expected", "score"]

    def test_a_device_that_answers_otherwise_fails_the_self_test(self) -> None:
        other = OnnxRuntime(small_graph(seed=5), F32)
        assert refusal(Predictor(self.package, other).self_test) == "G609"

    def test_an_engine_that_answers_nan_fails_the_self_test(self) -> None:
        real = open_engine(self.package)

        class Broken(OnnxRuntime):
            def run(self, tensors: Any) -> dict[str, Any]:
                outputs = real.run(tensors)
                return outputs | {"score": np.full_like(outputs["score"], np.nan)}

        broken = Broken(small_graph(), F32)
        assert refusal(Predictor(self.package, broken).self_test) == "G609"


def test_difference_is_strict_about_shapes_and_nan() -> None:
    a = np.array([1.0, np.nan])
    assert difference(a, a) == 0.0
    assert difference(a, np.array([1.0, 2.0])) == float("inf")
    assert difference(a, a[:1]) == float("inf")
    assert difference(np.array([1, 2]), np.array([1, 2])) == 0.0
    assert difference(np.zeros(0), np.zeros(0)) == 0.0


class TestSignature:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = key.public_key().public_bytes_raw().hex()

    def signature(self, package_id: str) -> PackageSignature:
        return sign(package_id, self.public, lambda message: self.key.sign(message).hex())

    def test_a_signature_fits_one_package_and_one_key(self) -> None:
        package_id = digest_bytes(DATA)
        good = self.signature(package_id)
        verify(good, package_id, None)
        verify(good, package_id, [self.public])
        assert refusal(lambda: verify(good, "0" * 64, None)) == "G605"
        assert refusal(lambda: verify(good, package_id, ["00" * 32])) == "G605"
        for change in (
            {"signature": "00" * 64},
            {"signature": "no"},
            {"public_key": "00" * 32},
            {"public_key": "short"},
            {"signature": good.signature.upper()},
            {"public_key": self.public.upper()},
        ):
            bad = dataclasses.replace(good, **change)
            assert refusal(lambda b=bad: verify(b, package_id, None)) == "G605"

    def test_a_folder_is_opened_with_its_signature(self, tmp_path: Path) -> None:
        folder = write_package(tmp_path / "p")
        assert open_package(folder).files == FILES
        assert refusal(lambda: open_package(folder, trusted=[self.public])) == "G605"
        path = folder / "signature.json"
        path.write_bytes(encode_signature(self.signature(digest_bytes(DATA))))
        assert isinstance(open_package(folder, trusted=[self.public]), LoadedPackage)
        path.write_bytes(encode_signature(self.signature("0" * 64)))
        assert refusal(lambda: open_package(folder)) == "G605"
        good = encode_signature(self.signature(digest_bytes(DATA)))
        for damaged in (b"{", b"{}", b"[]", good + b" ", good.replace(b":", b": ")):
            path.write_bytes(damaged)
            assert refusal(lambda: open_package(folder)) == "G605"


class TestTensors:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([True, False]),
        "c": np.array(5, dtype=np.int64),
        "d": np.zeros((0, 2), dtype=np.float64),
    }

    def test_reads_what_the_library_writes(self) -> None:
        found = read_tensors(save(self.arrays, metadata={"made": "by a test"}))
        assert found.keys() == self.arrays.keys()
        for name, array in self.arrays.items():
            assert np.array_equal(found[name], array)
            assert found[name].dtype == array.dtype

    @given(st.binary(max_size=200))
    def test_garbage_is_a_problem(self, data: bytes) -> None:
        with pytest.raises(Problem):
            read_tensors(data)

    @pytest.mark.parametrize(
        "entry",
        [
            {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
            {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
            {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
            {"dtype": "F32", "shape": [1.0, 2], "data_offsets": [0, 8]},
            {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]},
            {"shape": [1], "data_offsets": [0, 4]},
            [],
        ],
    )
    def test_sizes_that_do_not_agree_are_refused(self, entry: Any) -> None:
        header = json.dumps({"x": entry}).encode()
        data = len(header).to_bytes(8, "little") + header + bytes(8)
        assert refusal(lambda: read_tensors(data)) == "G604"
