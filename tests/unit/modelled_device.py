"""A device with round numbers."""

from typing import Any

from genba.targets.profile import Profile, Rate


def rate(kind: Any, value: float, precision: Any = "fp32", **more: Any) -> Rate:
    unit: Any = {"memory": "GB/s", "call": "calls/s"}.get(kind, "GFLOP/s")
    return Rate(
        kind=kind, precision=precision, value=value, low=value, high=value, unit=unit, **more
    )


PROFILE = Profile(
    name="desk",
    source="measured",
    dated="2026-11-23T00:00:00+00:00",
    processor="Test CPU",
    architecture="x86_64",
    cores=2.0,
    memory_mib=8192,
    rates=(
        rate("gemm", 100.0),
        rate("conv", 50.0, engine="onnxruntime"),
        rate("conv", 200.0, "int8", engine="onnxruntime"),
        rate("depthwise", 10.0),
        rate("memory", 10.0),
        rate("call", 100_000.0),
    ),
)
