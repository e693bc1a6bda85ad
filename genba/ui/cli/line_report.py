"""A line as a person reads it: what it states, and what it leaves to be derived."""

from genba.core.codec import encode
from genba.core.line import Line
from genba.ui.cli.figures import number


def summary(line: Line) -> list[tuple[str, str]]:
    """Return what a line states and what it leaves to be derived, as names and values."""
    data, limits = line.data, encode(line.target.limits)
    gates = [f"{name} {bounds(limit.min, limit.max)}" for name, limit in line.gates.items()]
    return [
        ("line", f"{line.name} ({line.task})"),
        ("source", data.source),
        ("time", data.time or "no clock; rows in the order they come"),
        ("entity", data.entity or "one for all rows"),
        ("inputs", ", ".join(data.inputs) or "derived from the data"),
        ("output", data.output or "none: every sensor is judged by the others"),
        ("label", data.label or "none"),
        ("budget", f"{number(line.train.budget.minutes)} min, {line.train.budget.trials} trials"),
        ("gates", "; ".join(gates) or "none: nothing stops this line"),
        ("target", line.target.device),
        ("limits", "; ".join(f"{k} at most {number(v)}" for k, v in limits.items()) or "none"),
        ("decides", line.rollout.decide),
        (
            "retrain",
            "; ".join(f"{k} {number(v)}" for k, v in line.retrain.when.items())
            or "never by itself",
        ),
    ]


def bounds(low: float | None, high: float | None) -> str:
    """Write a gate as people say it.

    Example:
        >>> bounds(0.95, None), bounds(None, 1), bounds(0, 2)
        ('at least 0.95', 'at most 1', 'between 0 and 2')
    """
    if low is not None and high is not None:
        return f"between {number(low)} and {number(high)}"
    if low is not None:
        return f"at least {number(low)}"
    return f"at most {number(high)}" if high is not None else "measured, not limited"
