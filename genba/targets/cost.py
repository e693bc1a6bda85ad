"""What work costs: joules, money and carbon, modelled from measured seconds and dated tables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genba.core.values import Bill, Measure
from genba.targets.tables import HERE, Assumed, read_table

_SECONDS_PER_HOUR: Final = 3600.0
_JOULES_PER_KWH: Final = 3.6e6


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


def read_device(name: str) -> DeviceFile:
    """Return a device of `targets/devices`."""
    return read_table(DeviceFile, HERE / "devices" / f"{name}.toml")


def read_prices(environment: Mapping[str, str] = os.environ) -> Prices:
    """Return the tables in force.

    A file named by GENBA_PRICES or GENBA_INTENSITY comes first, then `prices.toml` and
    `intensity.toml` in the Genba home, then the ones that ship with Genba.

    Raises:
        Problem: G606 when a file cannot be read, G102 or G103 when a key in it is wrong.
    """
    return Prices(
        watts_per_core=read_device("this-machine").watts_per_core,
        money=read_table(Money, _in_force("GENBA_PRICES", "prices.toml", environment)),
        intensity=read_table(
            Intensity, _in_force("GENBA_INTENSITY", "intensity.toml", environment)
        ),
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
    joules = _band(cpu_seconds, watts, "J")
    hours = seconds / _SECONDS_PER_HOUR
    electricity = cpu_seconds * watts.low / _JOULES_PER_KWH
    cost = Measure(
        value=hours * rent.value,
        unit="USD",
        low=electricity * tables.money.electricity_usd_per_kwh.low,
        high=hours * rent.high,
        method="modelled",
    )
    grams = tables.intensity.carbon_g_per_kwh
    carbon = Measure(
        value=cpu_seconds * watts.value / _JOULES_PER_KWH * grams.value,
        unit="g CO2e",
        low=cpu_seconds * watts.low / _JOULES_PER_KWH * grams.low,
        high=cpu_seconds * watts.high / _JOULES_PER_KWH * grams.high,
        method="modelled",
    )
    return Bill(
        seconds=seconds, cpu_seconds=cpu_seconds, joules=joules, cost_usd=cost, carbon_g=carbon
    )


def _band(amount: float, assumed: Assumed, unit: str) -> Measure:
    return Measure(
        value=amount * assumed.value,
        unit=unit,
        low=amount * assumed.low,
        high=amount * assumed.high,
        method="modelled",
    )


def _in_force(variable: str, name: str, environment: Mapping[str, str]) -> Path:
    if environment.get(variable):
        return Path(environment[variable])
    at_home = Path(environment.get("GENBA_HOME") or ".genba") / name
    return at_home if at_home.is_file() else HERE / name
