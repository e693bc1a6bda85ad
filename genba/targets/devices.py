"""What a target can be besides this machine: a device that was probed, or one of the catalogue."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol, runtime_checkable

from genba.core.line import Limits
from genba.core.problem import Problem
from genba.core.protocols import Device, Engine, JsonObject, Tensors
from genba.core.values import Measure
from genba.targets.energy import ASSUMED, calibrated, model, watts_per_core
from genba.targets.limits import exceeded
from genba.targets.profile import Profile
from genba.targets.runner import Order, measure

_MS_PER_S: Final = 1000.0


@runtime_checkable
class Target(Device, Protocol):
    """A device as `open_target` returns it."""

    @property
    def name(self) -> str:
        """What the line file calls it."""
        ...

    @property
    def reach(self) -> tuple[str, ...]:
        """What to put before a command so that it runs there; () is here."""
        ...

    @property
    def measurable(self) -> bool:
        """Whether engines can be measured there; otherwise they can only be modelled."""
        ...

    @property
    def profile(self) -> Profile:
        """What is known of it."""
        ...


@runtime_checkable
class _Repeatable(Protocol):
    """An engine that says what it was made of, so that another process can make it again."""

    model: bytes
    settings: JsonObject


class ProbedDevice:
    """A device that is reached by a command, with the profile that was measured on it."""

    def __init__(self, profile: Profile, seconds: float = 0.2) -> None:
        self.profile, self.name, self.reach = profile, profile.name, profile.reach
        self.measurable = True
        self._seconds = seconds

    def facts(self) -> dict[str, Any]:
        """Return what the probe found."""
        return self.profile.facts()

    def measure(self, engine: Engine, tensors: Tensors) -> dict[str, Measure]:
        """Measure an engine on the device, which has the edge runtime, in a process of its own.

        Raises:
            Problem: G617 for an engine that cannot be made again there; G625 to G628 as
                `genba.targets.runner.measure`.
        """
        if not isinstance(engine, _Repeatable):
            raise _only_here(self.name, type(engine).name)
        order = Order(
            engine=type(engine).name,
            settings=engine.settings,
            graph=engine.model,
            samples=tensors,
            seconds=self._seconds,
        )
        found = dict(measure(order, self.reach, self.profile.python))
        found["energy_mj"] = energy_of(found["cpu_ms"], self.profile)
        return found

    def fits(self, measures: Mapping[str, Measure], limits: Limits) -> tuple[str, ...]:
        """Return one sentence per limit that is exceeded, the one exceeded most first."""
        return exceeded(self.name, measures, limits)


class CatalogedDevice:
    """A device nobody has at hand: what its documents say, from which the rest is modelled."""

    def __init__(self, profile: Profile) -> None:
        self.profile, self.name = profile, profile.name
        self.reach: tuple[str, ...] = ()
        self.measurable = False

    def facts(self) -> dict[str, Any]:
        """Return what is written of it."""
        return self.profile.facts()

    def measure(self, engine: Engine, tensors: Tensors) -> dict[str, Measure]:
        """Refuse: nothing can be measured on a device that is not there.

        Raises:
            Problem: G617 always.
        """
        del engine, tensors
        raise Problem(
            "G617",
            f"Nothing can be measured on {self.name}: it is known from its documents only.",
            why="What it would do is modelled, with a wide band, until its profile is measured.",
            tries=[
                f"genba targets probe {self.name} --reach 'ssh user@host'",
                "genba explain G617",
            ],
        )

    def fits(self, measures: Mapping[str, Measure], limits: Limits) -> tuple[str, ...]:
        """Return one sentence per limit that is exceeded, the one exceeded most first."""
        return exceeded(self.name, measures, limits)


def energy_of(cpu_ms: Measure, profile: Profile) -> Measure:
    """Return the energy of one prediction on a device, from its CPU time there.

    Calibrated where a meter was read, else modelled; without idling.
    """
    if profile.meter is not None:
        watts, known = watts_per_core(profile.meter, profile.cores), calibrated
    else:
        watts, known = profile.watts_per_core or ASSUMED, model
    each = known(cpu_ms.value / _MS_PER_S, watts).to("mJ")
    low = cpu_ms.value if cpu_ms.low is None else cpu_ms.low
    high = cpu_ms.value if cpu_ms.high is None else cpu_ms.high
    banded = replace(each, low=low * watts.low, high=high * watts.high)
    return banded.as_measure(cpu_ms.n)


def _only_here(name: str, engine: str) -> Problem:
    return Problem(
        "G617",
        f"{engine} cannot be measured on {name}.",
        why="It does not say what it was made of, so it cannot be made again there.",
        tries=['engines = ["onnxruntime"]', "genba explain G617"],
    )
