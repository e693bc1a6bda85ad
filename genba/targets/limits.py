"""Which limits of a line are exceeded on a target, in sentences."""

from collections.abc import Mapping
from typing import Final

from genba.core.line import Limits
from genba.core.values import Measure

UNITS: Final = {
    "latency_ms_p99": "ms",
    "memory_mib": "MiB",
    "energy_mj": "mJ",
    "size_mib": "MiB",
    "cost_usd_per_1k": "USD",
}
_TIMES: Final = 10  # above this factor a percentage says nothing


def exceeded(device: str, measures: Mapping[str, Measure], limits: Limits) -> tuple[str, ...]:
    """Return one sentence per limit that is exceeded, the one exceeded most first.

    Example:
        >>> exceeded("pi", {"memory_mib": Measure(value=90.0, unit="MiB")}, Limits(memory_mib=60))
        ('memory_mib is 90 MiB; pi allows 60 MiB (50 % too much).',)
    """
    misses: dict[str, float] = {}  # sentence -> how many times the limit
    for name, unit in UNITS.items():
        limit = getattr(limits, name)
        if limit is None:
            continue
        measure = measures.get(name)
        if measure is None:
            misses[f"{name} could not be measured; {device} allows {limit:g} {unit}."] = 0.0
        elif not measure.value <= limit:  # so that NaN is refused
            times = measure.value / max(limit, 1e-9)
            misses[_sentence(name, measure, limit, device)] = times
    return tuple(sorted(misses, key=lambda sentence: -misses[sentence]))


def _sentence(name: str, measure: Measure, limit: float, device: str) -> str:
    times = measure.value / max(limit, 1e-9)
    over = f"{times:.0f} times as much" if times > _TIMES else f"{(times - 1) * 100:.0f} % too much"
    return f"{name} is {measure}; {device} allows {limit:g} {measure.unit} ({over})."
