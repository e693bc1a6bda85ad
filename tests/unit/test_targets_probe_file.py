"""The one file that is sent to a device: what it reads there, computes, times and prints."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from genba.edge import probe

FILE = Path(probe.__file__)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class TestWhatItIs:
    def test_a_board_names_itself_where_the_processor_does_not(self, tmp_path: Path) -> None:
        root = write(
            tmp_path,
            **{"proc__device-tree__model": "Raspberry Pi 5 Model B Rev 1.0\0"},
            proc__cpuinfo="Features\t: fp asimd asimddp bf16\n",
            proc__meminfo="MemTotal: 8388608 kB\n",
        )
        found = probe.machine(root)
        assert found["processor"] == "Raspberry Pi 5 Model B Rev 1.0"
        assert sorted(found["instructions"]) == ["asimd", "asimddp", "bf16"]
        assert probe.surroundings(root)["board"] == "Raspberry Pi 5 Model B Rev 1.0"

    def test_an_empty_machine_is_described_as_far_as_it_goes(self, tmp_path: Path) -> None:
        found = {**probe.machine(tmp_path), **probe.surroundings(tmp_path)}
        assert found["processor"]
        assert found["memory_mib"] == 0
        assert found["clock_max_mhz"] is found["clock_mhz"] is found["cache_mib"] is None
        assert found["accelerators"] == found["energy_counters"] == []
        assert found["power"] == "unknown"
        assert probe.temperature_c(tmp_path) is None

    def test_clock_cache_counters_and_cards_are_read(self, tmp_path: Path) -> None:
        root = write(
            tmp_path,
            sys__devices__system__cpu__cpu0__cpufreq__cpuinfo_max_freq="2400000\n",
            sys__devices__system__cpu__cpu0__cache__index2__size="512K\n",
            sys__devices__system__cpu__cpu0__cache__index3__size="2048K\n",
            sys__class__thermal__thermal_zone0__temp="48312\n",
            sys__class__hwmon__hwmon0__temp1_input="61000\n",
            sys__class__hwmon__hwmon0__temp2_input="broken\n",
            proc__cpuinfo="cpu MHz\t\t: 1800.000\ncpu MHz\t\t: 2000.000\n",
        )
        zone = root / "sys/class/powercap/intel-rapl:0"
        write(zone, energy_uj="123", name="package-0\n")
        card = root / "proc/driver/nvidia/gpus/0000:01:00.0"
        write(card, information="Model: \t NVIDIA L4\nIRQ: 12\n")
        found = probe.surroundings(root)
        assert found["clock_max_mhz"] == 2400.0
        assert found["clock_mhz"] == 1800.0
        assert found["cache_mib"] == 2.0
        assert found["energy_counters"] == ["package-0"]
        assert found["accelerators"] == ["NVIDIA L4"]
        assert probe.temperature_c(root) == 61.0

    @pytest.mark.parametrize(
        ("files", "power"),
        [
            ({"AC__online": "1\n"}, "mains"),
            ({"AC__online": "0\n"}, "unknown"),
            ({"AC__online": "0\n", "BAT0__status": "Discharging\n"}, "battery"),
            ({"BAT0__status": "Charging\n"}, "mains"),
            ({"BAT0__status": "Full\n"}, "mains"),
        ],
    )
    def test_mains_or_battery(self, tmp_path: Path, files: dict[str, str], power: str) -> None:
        write(tmp_path / "sys/class/power_supply", **files)
        assert probe.surroundings(tmp_path)["power"] == power


class TestProof:
    def test_only_the_nonce_determines_it(self) -> None:
        assert probe.prove("4f2a") == probe.prove("4f2a")
        assert len({probe.prove(nonce) for nonce in ("", "a", "b", "ab")}) == 4

    def test_it_is_the_chain_that_it_says_it_is(self) -> None:
        rounds, width = probe._PROOF
        state = b"4f2a"
        for _ in range(rounds):
            drawn = hashlib.shake_256(state).digest(width * width * 8)
            flat = [int.from_bytes(drawn[i : i + 8], "little") for i in range(0, len(drawn), 8)]
            square = np.array(flat, dtype=object).reshape(width, width)
            product = square.dot(square)  # whole numbers of any size
            state = b"".join((int(n) % 2**64).to_bytes(8, "little") for n in product.reshape(-1))
        assert probe.prove("4f2a") == hashlib.sha256(state).hexdigest()

    def test_every_field_is_bound(self) -> None:
        answer = {"nonce": "a", "rates": [1.5], "spent_s": 2.0}
        whole = probe.bound(answer)
        assert probe.bound({**answer, "bound": "anything"}) == whole
        for change in ({"nonce": "b"}, {"rates": [1.50001]}, {"more": 1}):
            assert probe.bound({**answer, **change}) != whole


class TestGraphs:
    @pytest.mark.parametrize("integers", [False, True])
    @pytest.mark.parametrize(
        ("kind", "shape", "weights"),
        [
            ("gemm", [4, 8], [8, 6]),
            ("conv", [1, 4, 10, 10], [4, 4, 3, 3]),
            ("depthwise", [1, 4, 10, 10], [4, 1, 3, 3]),
        ],
    )
    def test_a_graph_written_by_hand_is_valid_and_computes(
        self, kind: str, shape: list[int], weights: list[int], integers: bool
    ) -> None:
        graph = probe.onnx_graph(kind, shape, weights, integers=integers)
        onnx.checker.check_model(onnx.load_model_from_string(graph), full_check=True)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
        (found,) = session.run(None, {"x": x})
        drawn = np.random.default_rng(0).integers(-127, 128, weights, dtype=np.int8)
        scale = 0.02 if integers else 1 / 127
        w = drawn.astype(np.float32) * np.float32(scale)
        if kind == "gemm":
            wanted = x @ w
        else:
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
            pattern = "bchwij,ocij->bohw" if kind == "conv" else "bchwij,cxij->bchw"
            wanted = np.einsum(pattern, windows, w)
        np.testing.assert_allclose(found, wanted, atol=1.0 if integers else 1e-4)

    def test_the_empty_call_gives_back_what_it_got(self) -> None:
        graph = probe.onnx_graph("call", [1, 4], [])
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        x = np.arange(4, dtype=np.float32).reshape(1, 4)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], x)

    def test_what_a_runtime_cannot_do_is_left_out_with_the_reason(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(graph: bytes, precision: str, x: Any) -> Any:
            if precision != "fp32":
                raise RuntimeError(f"no {precision} here\nand a long trace")
            return lambda: None

        monkeypatch.setattr(probe, "_openvino", refuse)
        found = list(probe.graph_kernels("openvino"))
        left_out = [entry for entry in found if isinstance(entry, dict)]
        assert {entry["reason"] for entry in left_out} == {"no bf16 here", "no int8 here"}
        assert len(left_out) == 4
        assert len(found) == 8

    def test_bfloat16_of_onnxruntime_is_for_arm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        graph = probe.onnx_graph("gemm", [4, 4], [4, 4])
        x = np.ones((4, 4), np.float32)
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        with pytest.raises(ValueError, match="Arm"):
            probe._onnxruntime(graph, "bf16", x)
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        probe._onnxruntime(graph, "bf16", x)()


class TestTiming:
    def test_kernels_take_turns_and_every_round_is_reported(self) -> None:
        order: list[str] = []
        kernels = [
            probe.Kernel(name, "fp32", "test", 1, "calls", 2.5, partial(order.append, name))
            for name in ("a", "b")
        ]
        found = probe.time_kernels(kernels, 1e-5)
        assert [row["kind"] for row in found] == ["a", "b"]
        assert all(len(row["cpu_s"]) == len(row["wall_s"]) == probe.ROUNDS for row in found)
        assert found[0]["work"] == 2.5
        assert "run" not in found[0]
        rounds = "".join(order).removeprefix("aaabbb")
        assert rounds.count("ab") == probe.ROUNDS

    def test_a_kernel_is_called_as_often_as_fits(self) -> None:
        calls: list[int] = []

        def work() -> None:
            time.sleep(0.01)
            calls.append(1)

        slow = probe.Kernel("a", "fp32", "t", 1, "calls", 1.0, work)
        (row,) = probe.time_kernels([slow], 0.24)
        assert 2 <= row["calls"] <= 4
        assert len(calls) == 3 + row["calls"] * probe.ROUNDS
        assert min(row["wall_s"]) >= 0.01 * row["calls"]

    def test_numpy_works_on_one_core_and_on_all(self) -> None:
        here, seen = threading.get_ident(), set()
        kernels = list(probe.numpy_kernels(2, 64.0, 0.0))
        assert [(k.kind, k.precision, k.threads) for k in kernels] == [
            ("gemm", "fp32", 1),
            ("gemm", "fp64", 1),
            ("gemv", "fp32", 1),
            ("memory", "fp32", 1),
            ("gemm", "fp32", 2),
            ("memory", "fp32", 2),
        ]
        for kernel in kernels:
            kernel.run()
        assert kernels[5].work == pytest.approx(kernels[3].work * 2)
        probe._together(ThreadPoolExecutor(2), lambda _: seen.add(threading.get_ident()), range(8))
        assert here not in seen
        assert len(list(probe.numpy_kernels(1, 64.0, 0.0))) == 4

    def test_a_small_device_is_not_filled_with_buffers(self) -> None:
        small = {k.kind: k for k in probe.numpy_kernels(1, 128.0, 64.0) if k.precision == "fp32"}
        large = {k.kind: k for k in probe.numpy_kernels(1, 1e6, 20.0) if k.precision == "fp32"}
        assert small["memory"].work == pytest.approx(2 * 8 * (1 << 20) / 1e9, rel=0.01)
        assert large["memory"].work == pytest.approx(2 * 40 * (1 << 20) / 1e9, rel=0.01)


def test_the_answer_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = probe.Kernel("gemm", "fp32", "numpy", 1, "GFLOP", 1.0, lambda: None)
    reason = {"kind": "gemm", "precision": "bf16", "engine": "onnxruntime", "reason": "none"}
    monkeypatch.setattr(probe, "numpy_kernels", lambda *_: iter([kernel]))
    monkeypatch.setattr(probe, "graph_kernels", lambda engine: iter([reason, kernel]))
    found = probe.probe("4f2a", 0.001, ["onnxruntime", "not-installed"])
    assert found["bound"] == probe.bound(found)
    assert found["proof"] == probe.prove("4f2a")
    assert len(found["rates"]) == 2
    assert found["skipped"] == [reason]
    assert found["runtimes"]["numpy"] == importlib.metadata.version("numpy")
    assert found["began_ms"] <= found["ended_ms"]


def test_it_runs_from_standard_input_with_nothing_but_numpy() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-", "--seconds", "0.05", "--nonce", "4f2a", "--engines"],
        input=FILE.read_bytes(),
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    found = json.loads(done.stdout)
    assert found["nonce"] == "4f2a"
    assert {row["engine"] for row in found["rates"]} == {"numpy"}
    assert found["bound"] == probe.bound(found)


def test_it_imports_nothing_of_genba() -> None:
    assert "genba" not in FILE.read_text().replace("genba-probe-1", "").replace("of Genba", "")
