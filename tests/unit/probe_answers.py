"""A truthful answer of a made-up device to the probe, for tests to lie with."""

import json
import random
from typing import Any

from genba.edge.probe import FORMAT, ROUNDS, bound, prove

NONCE = "feedc0de"
ASKED_MS = 1_700_000_000_000
ANSWERED_MS = ASKED_MS + 30_000
MACHINE: dict[str, Any] = {
    "processor": "Broadcom BCM2712",
    "architecture": "aarch64",
    "cores": 4.0,
    "memory_mib": 8192,
    "instructions": ["asimd", "asimdhp", "asimddp"],
    "system": "Linux 6.6",
    "board": "Raspberry Pi 5 Model B",
    "clock_max_mhz": 2400.0,
    "clock_mhz": None,
    "cache_mib": 2.0,
    "accelerators": [],
    "energy_counters": [],
    "power": "mains",
}
# kind, precision, engine, threads, unit, work of a call, rate
KERNELS = [
    ("gemm", "fp32", "numpy", 1, "GFLOP", 0.1, 25.0),
    ("gemm", "fp64", "numpy", 1, "GFLOP", 0.1, 12.0),
    ("gemv", "fp32", "numpy", 1, "GFLOP", 0.02, 3.0),
    ("memory", "fp32", "numpy", 1, "GB", 0.06, 6.0),
    ("gemm", "fp32", "numpy", 4, "GFLOP", 0.4, 80.0),
    ("memory", "fp32", "numpy", 4, "GB", 0.25, 9.0),
    ("conv", "int8", "onnxruntime", 1, "GFLOP", 0.2, 70.0),
    ("call", "fp32", "onnxruntime", 1, "calls", 1.0, 40_000.0),
]


def rows(speed: float = 1.0) -> list[dict[str, Any]]:
    """What the kernels took, a little different in each round."""
    draw, found = random.Random(7), []
    for kind, precision, engine, threads, unit, work, rate in KERNELS:
        wall = [0.4 * draw.uniform(0.95, 1.05) for _ in range(ROUNDS)]
        calls = max(1, round(rate * speed * 0.4 / work))
        wall = [w * (calls * work / (rate * speed)) / 0.4 for w in wall]
        cpu = [w * threads * 0.99 for w in wall]
        told = {"kind": kind, "precision": precision, "engine": engine, "threads": threads}
        found.append(
            {**told, "unit": unit, "work": work, "calls": calls, "cpu_s": cpu, "wall_s": wall}
        )
    return found


def answer(nonce: str = NONCE, **changes: Any) -> dict[str, Any]:
    """A whole answer, bound after the changes: what a device that lies can say."""
    told: dict[str, Any] = {
        "format": FORMAT,
        "nonce": nonce,
        "machine": MACHINE,
        "runtimes": {"numpy": "2.4.6", "onnxruntime": "1.32.0"},
        "python": "3.11.2",
        "rates": rows(),
        "skipped": [],
        "load": [0.1, 0.9],
        "temperature_c": [48.0, 61.5],
        "began_ms": ASKED_MS + 900,
        "proof": prove(nonce),
        "spent_s": 28.0,
        "ended_ms": ASKED_MS + 29_000,
        **changes,
    }
    return {**told, "bound": bound(told)}


def machine(**changes: Any) -> dict[str, Any]:
    """An answer of a machine that says other things of itself."""
    return answer(machine={**MACHINE, **changes})


def with_row(index: int, **changes: Any) -> dict[str, Any]:
    """An answer with one kernel changed."""
    found = rows()
    found[index] = {**found[index], **changes}
    return answer(rates=found)


def faster(index: int, factor: float) -> dict[str, Any]:
    """An answer in which one kernel did so many times the work."""
    return with_row(index, calls=round(rows()[index]["calls"] * factor))


def as_bytes(told: dict[str, Any]) -> bytes:
    """The answer as it comes over the wire."""
    return json.dumps(told).encode() + b"\n"
