"""What work costs: joules, money and carbon, modelled from measured seconds and dated tables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from genba.core.problem import Problem
from genba.core.values import Bill, Measure, Method
from genba.targets.energy import carbon_g, model, watts_per_core
from genba.targets.profile import Profile, profile_path, read_profile
from genba.targets.tables import HERE, Assumed, read_table

_HERE: Final = "this-machine"
_SECONDS_PER_HOUR: Final = 3600.0
_JOULES_PER_KWH: Final = 3.6e6
_SERVICE_HOURS: Final = 3 * 8766.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceFile:
    """A device as its TOML describes it."""

    name: str
    description: str
    watts_per_core: Assumed


@dataclass(frozen=True, kw_only=True, slots=True)
class Money:
    """`prices.toml`."""

    machine_usd_per_hour: Assumed
    electricity_usd_per_kwh: Assumed


@dataclass(frozen=True, kw_only=True, slots=True)
class Intensity:
    """`intensity.toml`."""

    carbon_g_per_kwh: Assumed


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """Everything a bill is computed from besides the measured seconds."""

    watts_per_core: Assumed
    money: Money
    intensity: Intensity
    calibrated: bool = False  # whether the watts are from a power meter, not assumed


def read_device(name: str) -> DeviceFile:
    """Return a device of `targets/devices`."""
    return read_table(DeviceFile, HERE / "devices" / f"{name}.toml")


def read_prices(environment: Mapping[str, str] = os.environ) -> Prices:
    """Return the tables in force.

    A file named by GENBA_PRICES or GENBA_INTENSITY comes first, then `prices.toml` and
    `intensity.toml` in the Genba home, then the ones that ship with Genba. Watts are those of the
    power meter that was read on this machine (`genba targets meter`), else assumed.

    Raises:
        Problem: G606 when a file cannot be read, G102 or G103 when a key in it is wrong.
    """
    metered = _metered_watts(environment)
    return Prices(
        watts_per_core=metered or read_device(_HERE).watts_per_core,
        calibrated=metered is not None,
        money=read_table(Money, _in_force("GENBA_PRICES", "prices.toml", environment)),
        intensity=read_table(
            Intensity, _in_force("GENBA_INTENSITY", "intensity.toml", environment)
        ),
    )


def prices_of(profile: Profile, environment: Mapping[str, str] = os.environ) -> Prices:
    """Return what a bill of work on a device is computed from.

    Watts are the device's own. An hour of it is its rent, or its price spread over three years of
    service, half and twice as much for what is not known of either; electricity and its carbon are
    those of the tables in force.

    Args:
        profile: The device.
        environment: Where the tables are looked for.

    Raises:
        Problem: As `read_prices`.

    Example:
        >>> from genba.targets.cataloged import cataloged
        >>> pi = prices_of(cataloged("raspberry-pi-5"))
        >>> print(f"{pi.money.machine_usd_per_hour.value:.4f} USD an hour")
        0.0030 USD an hour
    """
    known = read_prices(environment)
    if profile.name == _HERE:
        return known
    if profile.meter is not None:
        known = replace(
            known, watts_per_core=watts_per_core(profile.meter, profile.cores), calibrated=True
        )
    else:
        watts = profile.watts_per_core or read_device(_HERE).watts_per_core
        known = replace(known, watts_per_core=watts, calibrated=False)
    rent = _rent(profile)
    return (
        known
        if rent is None
        else replace(known, money=replace(known.money, machine_usd_per_hour=rent))
    )


def _rent(profile: Profile) -> Assumed | None:
    """Return what an hour of a device costs, None where its price is not known."""
    numbers = {number.name: number for number in profile.numbers}
    number = numbers.get("usd_per_hour") or numbers.get("price_usd")
    if number is None:
        return None
    hours = 1.0 if number.name == "usd_per_hour" else _SERVICE_HOURS
    each = number.value / hours
    return Assumed(
        value=each,
        low=each / 2,
        high=each * 2,
        dated=profile.dated[:10],
        source=f"{number.name} {number.value:g}, {number.status}: {number.source}",
    )


def energy_mj(cpu_ms: Measure, watts: Assumed) -> Measure:
    """Return the energy of one prediction: CPU time, measured, times watts per core, assumed.

    Milliseconds times watts are millijoules.

    Example:
        >>> watts = Assumed(value=5, low=3, high=8, dated="2026-11-22", source="assumed")
        >>> str(energy_mj(Measure(value=2.0, unit="ms"), watts))
        '10 mJ [6 to 16] (modelled)'
    """
    low = cpu_ms.value if cpu_ms.low is None else cpu_ms.low
    high = cpu_ms.value if cpu_ms.high is None else cpu_ms.high
    return Measure(
        value=cpu_ms.value * watts.value,
        unit="mJ",
        low=low * watts.low,
        high=high * watts.high,
        method="modelled",
        n=cpu_ms.n,
    )


def bill(seconds: float, cpu_seconds: float, prices: Prices | None = None) -> Bill:
    """Return what work cost.

    Joules are CPU seconds times watts per core. Money is the price of a rented machine for as long
    as it was held; the low end is the electricity alone, which is all it costs on a machine that
    is already there. Carbon is the energy times the grid's intensity.

    Args:
        seconds: Wall time, measured.
        cpu_seconds: CPU time of the work and its children, measured.
        prices: The tables; those in force when None.

    Example:
        >>> made = bill(60.0, 100.0)
        >>> str(made.joules)
        '500 J [300 to 800] (modelled)'
    """
    tables = prices or read_prices()
    watts, rent = tables.watts_per_core, tables.money.machine_usd_per_hour
    joules = _band(cpu_seconds, watts, "J", "estimated" if tables.calibrated else "modelled")
    hours = seconds / _SECONDS_PER_HOUR
    electricity = cpu_seconds * watts.low / _JOULES_PER_KWH
    cost = Measure(
        value=hours * rent.value,
        unit="USD",
        low=electricity * tables.money.electricity_usd_per_kwh.low,
        high=hours * rent.high,
        method="modelled",
    )
    carbon = carbon_g(model(cpu_seconds, watts), tables.intensity.carbon_g_per_kwh)
    return Bill(
        seconds=seconds, cpu_seconds=cpu_seconds, joules=joules, cost_usd=cost, carbon_g=carbon
    )


def _band(amount: float, assumed: Assumed, unit: str, method: Method) -> Measure:
    return Measure(
        value=amount * assumed.value,
        unit=unit,
        low=amount * assumed.low,
        high=amount * assumed.high,
        method=method,
    )


def _metered_watts(environment: Mapping[str, str]) -> Assumed | None:
    """Return what a power meter told of this machine; of a profile that was altered, nothing."""
    home = _home(environment)
    path = profile_path(home, _HERE)
    if path is None:
        return None
    return _watts_of(path, path.stat().st_mtime_ns, home)


@lru_cache(maxsize=4)
def _watts_of(path: Path, changed_ns: int, home: Path) -> Assumed | None:  # noqa: ARG001  # part of the key
    try:
        profile = read_profile(path, home)
    except Problem:
        return None
    return None if profile.meter is None else watts_per_core(profile.meter, profile.cores)


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("GENBA_HOME") or ".genba")


def _in_force(variable: str, name: str, environment: Mapping[str, str]) -> Path:
    if environment.get(variable):
        return Path(environment[variable])
    at_home = _home(environment) / name
    return at_home if at_home.is_file() else HERE / name
