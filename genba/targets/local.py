"""The machine Genba runs on."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from genba.core.digest import digest_bytes, digest_json
from genba.core.line import Limits
from genba.core.protocols import Engine, JsonObject, Tensors
from genba.core.talk import Talks
from genba.core.values import Measure
from genba.targets.cost import DeviceFile, energy_mj, read_device
from genba.targets.footprint import memory_mib
from genba.targets.measure import timings
from genba.targets.probe import load_average, probe
from genba.targets.talk import per_thousand, talk_timings

_UNITS: Final = {"latency_ms_p99": "ms", "memory_mib": "MiB", "energy_mj": "mJ"}
_TIMES: Final = 10  # above this factor a percentage says nothing


@runtime_checkable
class _Repeatable(Protocol):
    """An engine that says what it was made of, so that another process can make it again."""

    name: ClassVar[str]
    model: bytes
    settings: JsonObject


class ThisMachine:
    """This machine as a target: everything but power is measured on it.

    Args:
        seconds: About how long to measure one engine.
        device: What is assumed of it, its power draw above all; the shipped file when None.
    """

    name: ClassVar[str] = "this-machine"

    def __init__(self, seconds: float = 0.2, device: DeviceFile | None = None) -> None:
        self._seconds = seconds
        self._memory: dict[str, Measure] = {}  # a process is started once for each choice
        self._device = device or read_device(self.name)

    def facts(self) -> dict[str, Any]:
        """Return the processor, cores and memory within container limits, and the load now."""
        return {
            "name": self.name,
            "description": self._device.description,
            **asdict(probe()),
            "watts_per_core": asdict(self._device.watts_per_core),
            "load": round(load_average(), 2),
            "python": platform.python_version(),
            "host_cores": os.cpu_count(),
        }

    def measure(self, engine: Engine, tensors: Tensors) -> dict[str, Measure]:
        """Measure an engine on real samples.

        Returns:
            `latency_ms_p50`, `latency_ms_p99`, `cpu_ms`, `energy_mj` (modelled), `rows_per_s`,
            `load`, and `memory_mib` when the engine can be made again in another process. Of a
            language model see `genba.targets.talk`.

        Raises:
            Problem: G607 when the process that measures memory fails.
        """
        if isinstance(engine, Talks):
            found = talk_timings(engine, tensors)
            found |= per_thousand(found)
        else:
            found = timings(engine, tensors, seconds=self._seconds)
        found["energy_mj"] = energy_mj(found["cpu_ms"], self._device.watts_per_core)
        if isinstance(engine, _Repeatable):
            found["memory_mib"] = self._memory_of(engine, tensors)
        return found

    def _memory_of(self, engine: _Repeatable, tensors: Tensors) -> Measure:
        choice = digest_json([engine.name, engine.settings, digest_bytes(engine.model)])
        if choice not in self._memory:
            self._memory[choice] = memory_mib(engine.name, engine.settings, engine.model, tensors)
        return self._memory[choice]

    def fits(self, measures: Mapping[str, Measure], limits: Limits) -> tuple[str, ...]:
        """Return one sentence per limit that is exceeded, the one exceeded most first."""
        misses: dict[str, float] = {}  # sentence -> how many times the limit
        for name, unit in _UNITS.items():
            limit = getattr(limits, name)
            if limit is None:
                continue
            measure = measures.get(name)
            if measure is None:
                misses[f"{name} could not be measured; {self.name} allows {limit:g} {unit}."] = 0.0
            elif not measure.value <= limit:  # so that NaN is refused
                times = measure.value / max(limit, 1e-9)
                misses[_sentence(name, measure, limit, self.name)] = times
        return tuple(sorted(misses, key=lambda sentence: -misses[sentence]))


def _sentence(name: str, measure: Measure, limit: float, device: str) -> str:
    times = measure.value / max(limit, 1e-9)
    over = f"{times:.0f} times as much" if times > _TIMES else f"{(times - 1) * 100:.0f} % too much"
    return f"{name} is {measure}; {device} allows {limit:g} {measure.unit} ({over})."
