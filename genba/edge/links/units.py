"""Units of machines and the numbers between them.

Source of the factors: BIPM, The International System of Units, 9th edition (2019), and NIST Special
Publication 811 (2008), appendix B.
"""

from typing import Final

#: Unit -> (what it measures, factor, offset): value x factor + offset is in the first of its kind.
_UNITS: Final[dict[str, tuple[str, float, float]]] = {
    "K": ("temperature", 1.0, 0.0),
    "degC": ("temperature", 1.0, 273.15),
    "degF": ("temperature", 5 / 9, 459.67 * 5 / 9),
    "m/s": ("speed", 1.0, 0.0),
    "km/h": ("speed", 1 / 3.6, 0.0),
    "mph": ("speed", 0.44704, 0.0),
    "kn": ("speed", 1852 / 3600, 0.0),
    "W": ("power", 1.0, 0.0),
    "kW": ("power", 1e3, 0.0),
    "MW": ("power", 1e6, 0.0),
    "hp": ("power", 745.69987158227, 0.0),
    "J": ("energy", 1.0, 0.0),
    "Wh": ("energy", 3.6e3, 0.0),
    "kWh": ("energy", 3.6e6, 0.0),
    "MWh": ("energy", 3.6e9, 0.0),
    "Pa": ("pressure", 1.0, 0.0),
    "hPa": ("pressure", 1e2, 0.0),
    "kPa": ("pressure", 1e3, 0.0),
    "MPa": ("pressure", 1e6, 0.0),
    "mbar": ("pressure", 1e2, 0.0),
    "bar": ("pressure", 1e5, 0.0),
    "psi": ("pressure", 6894.757293168, 0.0),
    "m": ("length", 1.0, 0.0),
    "mm": ("length", 1e-3, 0.0),
    "um": ("length", 1e-6, 0.0),
    "cm": ("length", 1e-2, 0.0),
    "km": ("length", 1e3, 0.0),
    "in": ("length", 0.0254, 0.0),
    "s": ("time", 1.0, 0.0),
    "ms": ("time", 1e-3, 0.0),
    "min": ("time", 60.0, 0.0),
    "h": ("time", 3600.0, 0.0),
    "A": ("current", 1.0, 0.0),
    "mA": ("current", 1e-3, 0.0),
    "V": ("voltage", 1.0, 0.0),
    "mV": ("voltage", 1e-3, 0.0),
    "kV": ("voltage", 1e3, 0.0),
    "Hz": ("frequency", 1.0, 0.0),
    "kHz": ("frequency", 1e3, 0.0),
    "rpm": ("frequency", 1 / 60, 0.0),
    "rad": ("angle", 1.0, 0.0),
    "deg": ("angle", 0.017453292519943295, 0.0),
    "kg": ("mass", 1.0, 0.0),
    "g": ("mass", 1e-3, 0.0),
    "t": ("mass", 1e3, 0.0),
    "m3/s": ("flow", 1.0, 0.0),
    "m3/h": ("flow", 1 / 3600, 0.0),
    "l/s": ("flow", 1e-3, 0.0),
    "l/min": ("flow", 1e-3 / 60, 0.0),
    "N": ("force", 1.0, 0.0),
    "kN": ("force", 1e3, 0.0),
    "Nm": ("torque", 1.0, 0.0),
    "m/s2": ("acceleration", 1.0, 0.0),
    "g0": ("acceleration", 9.80665, 0.0),
    "mm/s": ("speed", 1e-3, 0.0),
    "%": ("share", 1e-2, 0.0),
    "1": ("share", 1.0, 0.0),
}
_OTHER_NAMES: Final = {
    "°C": "degC", "C": "degC", "celsius": "degC", "°F": "degF", "F": "degF", "kelvin": "K",
    "°": "deg", "degree": "deg", "µm": "um", "μm": "um", "m³/s": "m3/s", "m³/h": "m3/h",
    "m s-1": "m/s", "m/s²": "m/s2", "1/min": "rpm", "percent": "%", "knot": "kn", "L/min": "l/min",
    "L/s": "l/s",
}  # fmt: skip


def conversion(given: str, wanted: str) -> tuple[float, float] | None:
    """Return (factor, offset) from one unit to another; None where there is no way.

    A unit that nobody stated converts as it is.

    Example:
        >>> conversion("km/h", "m/s") == (1 / 3.6, 0.0), conversion("", "kW")
        (True, (1.0, 0.0))
        >>> factor, offset = conversion("degF", "degC")
        >>> round(factor * 212 + offset, 9)
        100.0
        >>> conversion("bar", "m/s") is None
        True
    """
    given, wanted = _OTHER_NAMES.get(given, given), _OTHER_NAMES.get(wanted, wanted)
    if given == wanted or not given or not wanted:
        return 1.0, 0.0
    here, there = _UNITS.get(given), _UNITS.get(wanted)
    if here is None or there is None or here[0] != there[0]:
        return None
    return here[1] / there[1], (here[2] - there[2]) / there[1]


def known() -> tuple[str, ...]:
    """Return every unit there is."""
    return tuple(_UNITS)
