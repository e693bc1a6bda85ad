"""A line as a person reads it: what it states, and what it leaves to be derived."""

from genba.core.codec import encode
from genba.core.line import Line
from genba.ui.cli.figures import number


def summary(line: Line) -> list[tuple[str, str]]:
    """Return what a line states and what it leaves to be derived, as names and values."""
    data, limits = line.data, encode(line.target.limits)
    gates = [f"{name} {bounds(limit.min, limit.max)}" for name, limit in line.gates.items()]
    stated = [
        ("time", data.time or ""),
        ("entity", data.entity or ""),
        ("inputs", ", ".join(data.inputs)),
        ("known", ", ".join(data.known)),
        ("output", data.output or ""),
        ("label", data.label or ""),
        ("options", "; ".join(f"{name} {value}" for name, value in line.options.items())),
    ]
    return [
        ("line", f"{line.name} ({line.task})"),
        ("source", data.source),
        *(
            (
                "" if i else "joined",
                f"{name}: {join.source}, at most {number(join.within_s)} s old",
            )
            for i, (name, join) in enumerate(data.join.items())
        ),
        *((name, value) for name, value in stated if value),
        ("derived", "what is not said here; the run prints it"),
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
