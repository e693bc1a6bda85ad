"""The probe: what a device is and how fast, in one file of the standard library and numpy.

It runs by itself, `ssh line7 python3 - --nonce 4f2a < probe.py`; nothing of Genba is needed there.
Kernels take turns, six rounds in all, so that whatever else runs on the device disturbs every one
alike, and the first round against the last shows whether it throttles. CPU and wall seconds of each
round are reported as they were read, never a finished rate.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":  # one thread for each caller; numpy reads these when it is loaded
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[_name] = "1"

import numpy as np

FORMAT: Final = "genba-probe-1"
ROUNDS: Final = 6  # the least and most of six bound their median with 97 % confidence (sign test)
_MIB: Final = 1 << 20
_PROOF: Final = (24, 48)  # rounds and width of the products of `prove`
_BUSY: Final = 0.8  # of the time asked for; the rest is compiling and warming up
_GEMM: Final = (256, 512, 512)
_CONV: Final = (64, 56)  # channels, pixels
#: Instruction sets that decide which precision pays: the rest does not change a choice.
_TELLING: Final = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "bf16", "i8mm"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimdhp", "asimddp", "sve", "sme"),
)
_RUNTIMES: Final = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "openvino-genai", "tensorrt"),
    *("torch", "ai-edge-litert", "tflite-runtime", "executorch", "xllamacpp", "cryptography"),
)


def machine(root: Path = Path("/")) -> dict[str, Any]:
    """Return processor, cores and memory that may be used, and instruction sets; see `probe`."""
    info = _fields(_read(root / "proc/cpuinfo"))
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "processor": info.get("model name")
        or info.get("Model")
        or _board(root)
        or platform.machine()
        or "unknown",
        "architecture": platform.machine(),
        "cores": _cores(root),
        "memory_mib": _memory_mib(root),
        "instructions": [name for name in _TELLING if name in flags],
        "system": f"{platform.system()} {platform.release()}",
    }


def surroundings(root: Path = Path("/")) -> dict[str, Any]:
    """Return what else bears on speed and energy: board, clock, cache, power, counters, heat."""
    most = _number(_read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"))
    nvidia = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    zones = sorted((root / "sys/class/powercap").glob("*/energy_uj"))
    return {
        "board": _board(root),
        "clock_max_mhz": most and most / 1000,
        "clock_mhz": _number(_fields(_read(root / "proc/cpuinfo")).get("cpu MHz", "")),
        "cache_mib": _cache_mib(root),
        "accelerators": [_fields(_read(path)).get("Model", "NVIDIA") for path in nvidia],
        "energy_counters": [_read(p.parent / "name").strip() for p in zones if _read(p)],
        "power": _power(root),
    }


def temperature_c(root: Path = Path("/")) -> float | None:
    """Return the hottest sensor in degrees Celsius, None where none can be read."""
    found = [
        value / 1000
        for pattern in ("class/thermal/thermal_zone*/temp", "class/hwmon/hwmon*/temp*_input")
        for path in (root / "sys").glob(pattern)
        if (value := _number(_read(path))) is not None
    ]
    return max(found, default=None)


def prove(nonce: str) -> str:
    """Return the digest of a chain of integer matrix products, the same on every processor.

    Nobody has it before the nonce is known: an answer that was prepared or recorded is found out.
    """
    rounds, width = _PROOF
    state = nonce.encode()
    for _ in range(rounds):
        drawn = hashlib.shake_256(state).digest(width * width * 8)
        matrix = np.frombuffer(drawn, dtype="<u8").reshape(width, width)
        state = (matrix @ matrix).astype("<u8").tobytes()
    return hashlib.sha256(state).hexdigest()


def bound(answer: dict[str, Any]) -> str:
    """Return the digest that binds every field of an answer to its nonce and its proof."""
    rest = {key: value for key, value in answer.items() if key != "bound"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Kernel:
    """Something to time: each call of `run` does so much `work`."""

    kind: str  # gemm, gemv, conv, depthwise, memory, call
    precision: str
    engine: str
    threads: int
    unit: str  # of `work`: GFLOP, GB or calls
    work: float
    run: Callable[[], object]


def numpy_kernels(threads: int, memory_mib: float, cache_mib: float) -> Iterator[Kernel]:
    """Yield matrix products, a matrix by a vector and copies, on one core and on all."""
    draw = np.random.default_rng(0)
    n = 384
    for precision, dtype in (("fp32", np.float32), ("fp64", np.float64)):
        a = draw.standard_normal((n, n)).astype(dtype)
        yield Kernel("gemm", precision, "numpy", 1, "GFLOP", 2e-9 * n**3, partial(np.matmul, a, a))
    size = int(min(max(32.0, 2 * cache_mib), memory_mib / (16 * threads)) * _MIB) // 4
    side = int(size**0.5)
    wide, tall = draw.random((side, side), dtype=np.float32), draw.random(side, dtype=np.float32)
    yield Kernel("gemv", "fp32", "numpy", 1, "GFLOP", 2e-9 * side**2, lambda: wide @ tall)
    pairs = [(np.ones(size, np.float32), np.empty(size, np.float32)) for _ in range(threads)]
    moved = 8e-9 * size  # four bytes read and four written for each number
    yield Kernel("memory", "fp32", "numpy", 1, "GB", moved, lambda: np.copyto(*pairs[0][::-1]))
    if threads > 1:
        pool = ThreadPoolExecutor(threads)
        b = draw.standard_normal((n, n)).astype(np.float32)
        run = partial(_together, pool, lambda a: a @ a, [b] * threads)
        yield Kernel("gemm", "fp32", "numpy", threads, "GFLOP", 2e-9 * n**3 * threads, run)
        run = partial(_together, pool, lambda p: np.copyto(p[1], p[0]), pairs)
        yield Kernel("memory", "fp32", "numpy", threads, "GB", moved * threads, run)


def _together(pool: ThreadPoolExecutor, call: Callable[[Any], object], of: Iterable[Any]) -> None:
    list(pool.map(call, of))


def graph_kernels(engine: str) -> Iterator[Kernel | dict[str, str]]:
    """Yield what an engine computes in each precision it has, or why one is left out."""
    load = _onnxruntime if engine == "onnxruntime" else _openvino
    (m, k, n), (channels, pixels) = _GEMM, _CONV
    image = [1, channels, pixels, pixels]
    gemm = ("gemm", [m, k], [k, n], 2e-9 * m * k * n)
    filters = 2e-9 * 9 * channels * pixels**2
    conv = ("conv", image, [channels, channels, 3, 3], filters * channels)
    depthwise = ("depthwise", image, [channels, 1, 3, 3], filters)
    for kind, shape, weights, work in (gemm, conv, depthwise, ("call", [1, 4], [], 1.0)):
        for precision in ("fp32", "bf16", "int8") if kind in ("gemm", "conv") else ("fp32",):
            graph = onnx_graph(kind, shape, weights, integers=precision == "int8")
            try:
                run = load(graph, precision, np.ones(shape, np.float32))
            except Exception as error:  # noqa: BLE001  any failure of a runtime is a finding
                reason = (str(error) or type(error).__name__).splitlines()[0][:160]
                yield {"kind": kind, "precision": precision, "engine": engine, "reason": reason}
                continue
            unit = "calls" if kind == "call" else "GFLOP"
            yield Kernel(kind, precision, engine, 1, unit, work, run)


def _onnxruntime(graph: bytes, precision: str, x: Any) -> Callable[[], object]:
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if precision == "bf16":
        if platform.machine() != "aarch64":
            raise ValueError("its bfloat16 products are for 64-bit Arm only")
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def _openvino(graph: bytes, precision: str, x: Any) -> Callable[[], object]:
    ov = importlib.import_module("openvino")
    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("this processor has no bfloat16 of its own")
    hint = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    settings = {**hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    request = compiled.create_infer_request()
    tensor = ov.Tensor(np.ascontiguousarray(x))
    request.set_input_tensor(tensor)
    return lambda: request.infer()


def onnx_graph(
    kind: str, shape: Sequence[int], weights: Sequence[int], *, integers: bool = False
) -> bytes:
    """Return an ONNX model of one operator; with `integers`, quantized as runtimes fuse it."""
    operator = {"gemm": "MatMul", "call": "Identity"}.get(kind, "Conv")
    attributes = _convolution(shape[1] if kind == "depthwise" else 1) if operator == "Conv" else b""
    data = np.random.default_rng(0).integers(-127, 128, weights, dtype=np.int8)
    if not integers:
        floats = _tensor("w", 1, weights, (data / np.float32(127)).astype("<f4").tobytes())
        inputs = ["x"] if kind == "call" else ["x", "w"]
        nodes, held = [_node(operator, inputs, "y", attributes)], [floats] if weights else []
    else:
        scales = [_tensor(n, 1, [], np.float32(v).tobytes()) for n, v in (("s", 0.02), ("t", 0.5))]
        zeros = [_tensor("z", 2, [], b"\x80"), _tensor("o", 3, [], b"\0")]
        held = [_tensor("q", 3, weights, data.tobytes()), *scales, *zeros]
        nodes = [
            _node("QuantizeLinear", ["x", "s", "z"], "xq"),
            _node("DequantizeLinear", ["xq", "s", "z"], "xd"),
            _node("DequantizeLinear", ["q", "s", "o"], "w"),
            _node(operator, ["xd", "w"], "r", attributes),
            _node("QuantizeLinear", ["r", "t", "z"], "rq"),
            _node("DequantizeLinear", ["rq", "t", "z"], "y"),
        ]
    out = [shape[0], weights[1]] if kind == "gemm" else shape
    parts = [*(_field(1, n) for n in nodes), _field(2, b"probe"), *(_field(5, t) for t in held)]
    graph = b"".join([*parts, _field(11, _value("x", shape)), _field(12, _value("y", out))])
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 13))


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):  # of a protocol buffer: a number, or bytes with their length
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _tensor(name: str, kind: int, shape: Sequence[int], raw: bytes) -> bytes:
    dims = b"".join(_field(1, n) for n in shape)
    return dims + _field(2, kind) + _field(8, name.encode()) + _field(9, raw)


def _value(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_field(1, _field(1, n)) for n in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def _node(operator: str, inputs: Iterable[str], output: str, attributes: bytes = b"") -> bytes:
    names = b"".join(_field(1, name.encode()) for name in inputs)
    return names + _field(2, output.encode()) + _field(4, operator.encode()) + attributes


def _convolution(group: int) -> bytes:
    pads = _field(1, b"pads") + _field(8, 1) * 4 + _field(20, 7)
    return _field(5, pads) + _field(5, _field(1, b"group") + _field(3, group) + _field(20, 2))


def time_kernels(kernels: Sequence[Kernel], seconds: float) -> list[dict[str, Any]]:
    """Time every kernel in turn, six times over; return CPU and wall seconds of each round."""
    share = seconds / max(1, len(kernels)) / ROUNDS
    rows: list[dict[str, Any]] = []
    for kernel in kernels:
        kernel.run()
        kernel.run()
        began = time.perf_counter()
        kernel.run()
        calls = max(1, round(share / max(time.perf_counter() - began, 1e-7)))
        rows.append({"calls": calls, "cpu_s": [], "wall_s": []})
    for _ in range(ROUNDS):
        for kernel, row in zip(kernels, rows, strict=True):
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(row["calls"]):
                kernel.run()
            row["wall_s"].append(time.perf_counter() - wall)
            row["cpu_s"].append(time.process_time() - cpu)
    told = [{k: v for k, v in vars(kernel).items() if k != "run"} for kernel in kernels]
    return [{**kernel, **row} for kernel, row in zip(told, rows, strict=True)]


def probe(nonce: str, seconds: float, engines: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure this device for about so many seconds; `engines` besides numpy: all when None."""
    began_ms, began = time.time_ns() // 1_000_000, time.perf_counter()
    facts = {**machine(), **surroundings()}
    load, heat = os.getloadavg()[0], temperature_c()
    runtimes = {d.name: d.version for d in importlib.metadata.distributions()}
    threads = max(1, int(facts["cores"]))
    found: list[Kernel | dict[str, str]] = []
    found += numpy_kernels(threads, facts["memory_mib"], facts["cache_mib"] or 0.0)
    for engine in ("onnxruntime", "openvino") if engines is None else engines:
        if engine in runtimes or f"{engine}-gpu" in runtimes:
            found += graph_kernels(engine)
    rows = time_kernels([k for k in found if isinstance(k, Kernel)], seconds * _BUSY)
    answer = {
        "format": FORMAT,
        "nonce": nonce,
        "machine": facts,
        "runtimes": {name: runtimes[name] for name in _RUNTIMES if name in runtimes},
        "python": platform.python_version(),
        "rates": rows,
        "skipped": [reason for reason in found if isinstance(reason, dict)],
        "load": [load, os.getloadavg()[0]],
        "temperature_c": [heat, temperature_c()],
        "began_ms": began_ms,
        "proof": prove(nonce),
        "spent_s": time.perf_counter() - began,
        "ended_ms": time.time_ns() // 1_000_000,
    }
    return {**answer, "bound": bound(answer)}


def _cores(root: Path) -> float:
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    for path in _groups(root, "cpu"):
        quota, _, period = _read(path / "cpu.max").partition(" ")
        if not quota:
            quota = _read(path / "cpu.cfs_quota_us")
            period = _read(path / "cpu.cfs_period_us")
        if quota.strip().isdigit() and period.strip().isdigit():
            allowed = min(allowed, int(quota) / int(period))
    return round(allowed, 2)


def _memory_mib(root: Path) -> int:
    total = _fields(_read(root / "proc/meminfo")).get("MemTotal", "0 kB")
    allowed = int(total.split()[0]) << 10
    for path in _groups(root, "memory"):
        limit = (_read(path / "memory.max") or _read(path / "memory.limit_in_bytes")).strip()
        if limit.isdigit():
            allowed = min(allowed, int(limit))
    return allowed // _MIB


def _groups(root: Path, controller: str) -> list[Path]:
    mount, found = root / "sys/fs/cgroup", []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        base = mount / controller if names else mount
        inner = base / path.lstrip("/")
        found += [p for p in (inner, *inner.parents) if p == base or base in p.parents]
    return found


def _board(root: Path) -> str:
    return _read(root / "proc/device-tree/model").rstrip("\0").strip()


def _cache_mib(root: Path) -> float | None:
    found = (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [_number(_read(path).strip().removesuffix("K")) for path in found]
    return max((size / 1024 for size in sizes if size), default=None)


def _power(root: Path) -> str:
    supplies = (root / "sys/class/power_supply").glob("*")  # a container usually sees none
    states = {(_read(p / "status") or _read(p / "online")).strip() for p in supplies}
    if "Discharging" in states:
        return "battery"
    return "mains" if states & {"1", "Charging", "Full"} else "unknown"


def _fields(text: str) -> dict[str, str]:
    parts = [line.partition(":") for line in reversed(text.splitlines())]  # the first of a name
    return {name.strip(): value.strip() for name, _, value in parts}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the probe and print its answer as one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--nonce", required=True)
    parser.add_argument("--engines", nargs="*", help="those installed when not given")
    asked = parser.parse_args(arguments)
    answer = probe(asked.nonce, asked.seconds, asked.engines)
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
