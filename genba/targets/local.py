"""The machine Genba runs on."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, runtime_checkable

from genba.core.digest import digest_bytes, digest_json
from genba.core.line import Limits
from genba.core.protocols import Engine, JsonObject, Tensors
from genba.core.talk import Talks
from genba.core.values import Measure
from genba.edge.counters import metered
from genba.targets.cost import DeviceFile, energy_mj, read_device
from genba.targets.limits import exceeded
from genba.targets.measure import timings
from genba.targets.probe import load_average, probe
from genba.targets.runner import memory_mib
from genba.targets.talk import per_thousand, talk_timings


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
            "power_meter": "rapl" if metered() else None,
            "load": round(load_average(), 2),
            "python": platform.python_version(),
            "host_cores": os.cpu_count(),
        }

    def measure(self, engine: Engine, tensors: Tensors) -> dict[str, Measure]:
        """Measure an engine on real samples.

        Returns:
            `latency_ms_p50`, `latency_ms_p99`, `cpu_ms`, `energy_mj` (measured where a counter can
            be read, else modelled), `rows_per_s`, `load`, and `memory_mib` when the engine can be
            made again in another process. Of a language model see `genba.targets.talk`.

        Raises:
            Problem: G625, G626, G627 when the process that measures memory fails.
        """
        if isinstance(engine, Talks):
            found = talk_timings(engine, tensors)
            found |= per_thousand(found)
        else:
            found = timings(engine, tensors, seconds=self._seconds)
        modelled = energy_mj(found["cpu_ms"], self._device.watts_per_core)
        found.setdefault("energy_mj", modelled)  # measured where there is a counter
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
        return exceeded(self.name, measures, limits)
