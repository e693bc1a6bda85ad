"""Gates: where a line stops when a model is not good enough, hardest miss first."""

import math
from collections.abc import Mapping
from typing import Final

from genba.core.line import Limit
from genba.core.values import GateResult, Measure, Verdict

_SMALL: Final = 1e-9


def judge(gates: Mapping[str, Limit], measures: Mapping[str, Measure]) -> Verdict:
    """Return whether every gate is passed, with a sentence for each.

    A measure that does not exist fails its gate: what was not measured is not known to be good.

    Args:
        gates: Name of a measure to what it must be.
        measures: What was measured.

    Example:
        >>> gates = {"r2": Limit(min=0.95)}
        >>> judge(gates, {"r2": Measure(value=0.9)}).reasons
        ('r2 is 0.9; at least 0.95 is asked for.',)
    """
    results = [_result(name, limit, measures.get(name)) for name, limit in gates.items()]
    ordered = sorted(results, key=lambda r: -_miss(r, gates[r.name], measures))
    return Verdict(passed=all(r.passed for r in results), gates=tuple(ordered))


def in_words(limit: Limit) -> str:
    """Return a limit as people write it.

    Example:
        >>> in_words(Limit(min=0.2, max=0.4))
        'between 0.2 and 0.4'
    """
    if limit.min is not None and limit.max is not None:
        return f"between {limit.min:g} and {limit.max:g}"
    if limit.min is not None:
        return f"at least {limit.min:g}"
    return f"at most {limit.max:g}" if limit.max is not None else "anything"


def _result(name: str, limit: Limit, measure: Measure | None) -> GateResult:
    words = in_words(limit)
    if measure is None or not math.isfinite(measure.value):
        reason = f"{name} was not measured; {words} is asked for."
        nothing = Measure(value=0.0, n=0)
        return GateResult(name=name, passed=False, measure=nothing, limit=words, reason=reason)
    passed = (limit.min is None or measure.value >= limit.min) and (
        limit.max is None or measure.value <= limit.max
    )
    reason = f"{name} is {measure}; {words} is asked for."
    return GateResult(name=name, passed=passed, measure=measure, limit=words, reason=reason)


def _miss(result: GateResult, limit: Limit, measures: Mapping[str, Measure]) -> float:
    """Return by how much of the limit the gate was missed; what is unknown comes first."""
    if result.passed:
        return -1.0
    if result.name not in measures or not math.isfinite(measures[result.name].value):
        return math.inf
    value = result.measure.value
    edge = limit.min if limit.min is not None and value < limit.min else limit.max
    assert edge is not None
    return abs(value - edge) / max(abs(edge), _SMALL)
