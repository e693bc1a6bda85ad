"""How well a joined source aligned, in words. Nothing heavy is imported here."""

from collections.abc import Mapping
from typing import Any, Final

#: Why a row has no value of a source, in the words of the sheet.
BEFORE: Final = "nothing was read yet"
STALE: Final = "the newest value was too old"
ENDED: Final = "the source had ended"
STRANGER: Final = "the source does not have the machine"

_UNITS: Final = (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0))


def sentence(name: str, summary: Mapping[str, Any]) -> str:
    """Say how well a source aligned, in one line.

    Args:
        name: Of the source.
        summary: As the sheet holds it under `join`.

    Example:
        >>> found = {"rows": 100, "found": 95, "missing": {ENDED: 5}, "age_s_p50": 2.0}
        >>> sentence("plc", found)
        'plc: 95.0 % of 100 rows found a value; 5 not: the source had ended'
    """
    rows, found = int(summary["rows"]), int(summary["found"])
    share = 100.0 * found / rows if rows else 0.0
    shown = min(share, 99.9) if found < rows else share  # never rounded up to all of them
    text = f"{name}: {shown:.1f} % of {rows:,} rows found a value"
    p50, p99 = summary.get("age_s_p50"), summary.get("age_s_p99")
    if p50 is not None and p99 is not None:
        text += f", p50 {span(p50)} and p99 {span(p99)} old"
    lost = sorted((summary.get("missing") or {}).items(), key=lambda item: -item[1])
    told = "; ".join(f"{count:,} not: {why}" for why, count in lost)
    return f"{text}; {told}" if told else text


def span(seconds: float) -> str:
    """Return a stretch of time as people say it.

    Example:
        >>> span(0.02), span(90), span(7_200)
        ('0.02 s', '1.5 min', '2 h')
    """
    unit, size = next(((u, s) for u, s in _UNITS if seconds >= s), _UNITS[-1])
    return f"{seconds / size:.2g} {unit}"
