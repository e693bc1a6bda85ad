"""The contract of a target: it says what it is, measures what is asked, and refuses by sentence."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from genba.core.codec import decode, encode
from genba.core.digest import canonical_json
from genba.core.line import Limits
from genba.core.protocols import Device
from genba.core.resolve import resolve
from genba.core.values import Measure
from genba.targets.devices import Target
from genba.targets.profile import Profile
from genba.targets.registry import open_target
from genba.testing.checks import CheckResult, Checks, require, require_problem, run_checks
from genba.testing.graphs import small_batch, small_graph

_UNITS: Final = {
    "latency_ms_p50": "ms",
    "latency_ms_p99": "ms",
    "cpu_ms": "ms",
    "memory_mib": "MiB",
    "energy_mj": "mJ",
}
_SAMPLES: Final = 100
_SMALL: Final = 0.01  # less than any device's own limits, which may be tighter than a line's


def check_target(name: str, home: Path | None = None) -> tuple[CheckResult, ...]:
    """Run a target through the contract: here, probed, or of the catalogue of devices.

    Args:
        name: As in `[target] device`.
        home: Where the profiles of probed devices are.
    """
    return run_checks(target_checks(name, home))


def target_checks(name: str, home: Path | None = None) -> Checks:
    """Return the checks of a target by name."""
    device = open_target(name, home)
    checks: dict[str, Callable[[], None]] = {
        "says what it is": partial(_facts, device),
        "refuses by sentence, the worst first": partial(_refuses, device),
        "does not accept what was not measured": partial(_unknown, device),
        "has a profile that reads back": partial(_profile, device),
    }
    if device.measurable:
        checks["measures with unit, interval and method"] = partial(_measures, device)
    else:
        checks["does not measure what is not there"] = partial(_not_there, device)
        checks["says where every number is from"] = partial(_sources, device)
    return checks


def _facts(device: Device) -> None:
    facts = device.facts()
    canonical_json(facts)
    require(float(facts["cores"]) > 0, "facts() has no cores")
    require(float(facts["memory_mib"]) > 0, "facts() has no memory_mib")
    require(bool(facts["processor"]), "facts() has no processor")


def _measures(device: Device) -> None:
    engine = resolve("engine", "onnxruntime")(small_graph(), {"precision": "float32"})
    found = device.measure(engine, small_batch(_SAMPLES))
    for name, unit in _UNITS.items():
        require(name in found, f"{name} was not measured")
        measure = found[name]
        require(measure.unit == unit, f"{name} is in {measure.unit!r}, not {unit}")
        require(math.isfinite(measure.value) and measure.value > 0, f"{name} is {measure.value}")
        low = measure.value if measure.low is None else measure.low
        high = measure.value if measure.high is None else measure.high
        require(low <= measure.value <= high, f"{name} is outside its own interval: {measure}")
    require(
        found["energy_mj"].method != "measured" or bool(device.facts().get("power_meter")),
        "energy_mj says measured, but facts() name no power_meter",
    )


def _profile(device: Target) -> None:
    profile = device.profile
    require(profile.name == device.name, f"the profile is of {profile.name!r}")
    require(decode(Profile, encode(profile)) == profile, "the profile does not read back the same")
    for rate in profile.rates:
        finite = all(math.isfinite(x) for x in (rate.low, rate.value, rate.high))
        require(finite and 0 < rate.low <= rate.value <= rate.high, f"a rate is senseless: {rate}")


def _not_there(device: Target) -> None:
    engine = resolve("engine", "onnxruntime")(small_graph(), {"precision": "float32"})
    measure = partial(device.measure, engine, small_batch(_SAMPLES))
    require_problem(measure, ["G617"], "for a device that nobody has")


def _sources(device: Target) -> None:
    profile = device.profile
    require(bool(profile.rates) and bool(profile.numbers), "the profile has no rates or numbers")
    for number in profile.numbers:
        require(bool(number.source), f"{number.name} has no source")
        seen = number.status != "seen" or "https://" in number.source
        require(seen, f"{number.name} was seen, but its source has no address")
        require(number.status != "measured", f"{number.name} says that somebody measured it")


def _refuses(device: Device) -> None:
    measures = {name: Measure(value=_SMALL, unit=unit) for name, unit in _UNITS.items()}
    exact = Limits(latency_ms_p99=_SMALL, memory_mib=_SMALL, energy_mj=_SMALL)
    require(device.fits(measures, Limits()) == (), "refuses where there is no limit")
    require(device.fits(measures, exact) == (), "refuses what is exactly at the limit")
    tight = Limits(latency_ms_p99=_SMALL * 0.5, memory_mib=_SMALL * 0.1, energy_mj=_SMALL * 0.8)
    misses = device.fits(measures, tight)
    require(len(misses) == 3, f"three limits are exceeded, and {len(misses)} sentences came")
    order = [next(n for n in _UNITS if n in sentence) for sentence in misses]
    wanted = ["memory_mib", "latency_ms_p99", "energy_mj"]
    require(order == wanted, f"the order is {', '.join(order)}, not the worst first")


def _unknown(device: Device) -> None:
    limits = Limits(latency_ms_p99=_SMALL)
    require(bool(device.fits({}, limits)), "accepts a latency that was never measured")
    unknown = {"latency_ms_p99": Measure(value=math.nan, unit="ms")}
    require(bool(device.fits(unknown, limits)), "accepts a latency that is NaN")
