"""Numbers, times and ids as people read them."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from genba.core.digest import is_digest
from genba.core.values import Bill, Measure

_SHORT: Final = 12  # characters of a digest that are shown; commands accept them back
_LARGE: Final = 10_000
_SMALL: Final = 1e-3
_TINY: Final = 1e-6
_CLOCK_FROM_MS: Final = 10**11  # smaller times are counts, not dates since 1973
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def short(name: str) -> str:
    """Shorten a digest; other names stay as they are.

    Example:
        >>> short("0f" * 32), short("run-0123456789abcde")
        ('0f0f0f0f0f0f', 'run-0123456789abcde')
    """
    return name[:_SHORT] if is_digest(name) else name


def number(value: float) -> str:
    """Write a number with four figures and thousands separated.

    Example:
        >>> number(420480), number(0.0123456), number(12.5), number(8.2e-5), number(float("nan"))
        ('420,480', '0.01235', '12.5', '0.000082', 'not a number')
    """
    if math.isnan(value):
        return "not a number"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= _LARGE:
        return f"{value:,.1f}"
    if _TINY <= abs(value) < _SMALL:  # without an exponent: money and energy are often this small
        return f"{float(f'{value:.3g}'):.10f}".rstrip("0")
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """Write a duration in the unit that fits.

    Example:
        >>> seconds(0.0042), seconds(3.25), seconds(125), seconds(600), seconds(200_000)
        ('4.2 ms', '3.2 s', '2 min 5 s', '10 min', '2 d 7 h')
    """
    if value < 1:
        return f"{value * 1_000:.3g} ms"
    if value < _MINUTE:
        return f"{value:.1f} s"
    if value < _HOUR:
        return _two(value, _MINUTE, "min", 1, "s")
    if value < _DAY:
        return _two(value, _HOUR, "h", _MINUTE, "min")
    return _two(value, _DAY, "d", _HOUR, "h")


def _two(value: float, large_s: int, large: str, small_s: int, small: str) -> str:
    rest = int(value % large_s // small_s)
    return f"{int(value // large_s)} {large}" + (f" {rest} {small}" if rest else "")


def ago(time_ms: int, now_ms: int) -> str:
    """Say how long ago something was.

    Example:
        >>> ago(0, 90_000), ago(0, 500)
        ('1 min 30 s ago', 'just now')
    """
    passed_s = (now_ms - time_ms) / 1_000
    return f"{seconds(passed_s)} ago" if passed_s >= 1 else "just now"


def moment(time_ms: int) -> str:
    """Write a time in UTC.

    Example:
        >>> moment(0)
        '1970-01-01 00:00:00 UTC'
    """
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def when(time_ms: int) -> str:
    """Write the time of a row: a moment, or a count such as of cycles where it is small.

    Example:
        >>> when(1_420_030_800_000), when(226)
        ('2014-12-31 13:00:00 UTC', '226')
    """
    return moment(time_ms) if abs(time_ms) >= _CLOCK_FROM_MS else number(time_ms)


def size(count: float) -> str:
    """Write a number of bytes.

    Example:
        >>> size(512), size(54_200_000)
        ('512 B', '51.7 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1_024 or unit == "GiB":
            break
        count /= 1_024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def measure(value: Measure | Mapping[str, Any]) -> str:
    """Write a measure with unit, interval and, where it was not measured, how it is known.

    Example:
        >>> measure(Measure(value=56.04, unit="J", low=33.6, high=89.7, method="modelled"))
        '56.04 J [33.6 to 89.7] (modelled)'
    """
    if isinstance(value, Measure):
        value = {
            "value": value.value,
            "unit": value.unit,
            "low": value.low,
            "high": value.high,
            "method": value.method,
        }
    text = f"{number(value['value'])}{_unit(value.get('unit', ''))}"
    low, high = value.get("low"), value.get("high")
    if low is not None and high is not None and (low, high) != (value["value"],) * 2:
        text += f" [{number(low)} to {number(high)}]"
    method = value.get("method", "measured")
    return text if method == "measured" else f"{text} ({method})"


def _unit(unit: str) -> str:
    """Return a unit as it follows a number.

    Example:
        >>> "3" + _unit("1/day"), "3" + _unit("ms"), "3" + _unit("")
        ('3 per day', '3 ms', '3')
    """
    if unit.startswith("1/"):
        return f" per {unit[2:]}"
    return f" {unit}" if unit else ""


def bill_facts(bill: Bill) -> list[tuple[str, str]]:
    """Return a bill as names and values; time is measured, the rest says how it is known."""
    return [
        ("time", f"{seconds(bill.seconds)}, {number(bill.cpu_seconds)} CPU-seconds (measured)"),
        ("energy", measure(bill.joules)),
        ("money", measure(bill.cost_usd)),
        ("carbon", measure(bill.carbon_g)),
    ]
