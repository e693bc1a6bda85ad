"""What changes when a line goes from one target to another: accuracy, latency, energy, cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba.core.line import Line
from genba.core.problem import Problem
from genba.stages.optimize_known import newest_choice
from genba.store.home import Store

#: Of one prediction, in the order they are told.
_COSTS: Final = (
    *("cpu_ms", "latency_ms_p50", "latency_ms_p99", "rows_per_s", "memory_mib", "size_mib"),
    *("energy_mj", "energy_mj_per_correct", "cost_usd_per_1k"),
)
_QUALITY: Final = ("decision_agreement", "right_decisions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One measure on the old target and on the new one, each with how it is known."""

    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    times: float | None  # after by before
    sure: bool  # the intervals do not meet


def before(store: Store, line: Line) -> Mapping[str, Any]:
    """Return what is known of a line on the target it has: its newest run, or a search.

    Raises:
        Problem: G620 when it was neither run nor searched for there.
    """
    done = store.ledger.events(line=line.name, kinds=("stage.finished",))
    for event in reversed(done):
        if event.body.get("stage") == "optimize":
            result = store.attempts.result(str(event.body["key"])) or {}
            if result.get("engine") and _chosen(result):
                return result
    searched = newest_choice(store, line)
    if searched is not None:
        return searched.body
    raise Problem(
        "G620",
        f"{line.name} was never measured on {line.target.device}.",
        where=line.name,
        why="What a new target changes is told beside what the old one takes.",
        tries=[f"genba run {line.name}", f"genba codesign {line.name}", "genba explain G620"],
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any], gates: Sequence[str]) -> list[Change]:
    """Return measure by measure what is different on the new target.

    Args:
        old: Result of a run or a search on the old target.
        new: Result of a search on the new one.
        gates: Names of what the model is judged by.
    """
    one, other = _measures(old, gates), _measures(new, gates)
    names = [*(g for g in gates if g in one or g in other), *_QUALITY, *_COSTS]
    return [_change(n, one.get(n), other.get(n)) for n in names if n in one or n in other]


def _change(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Change:
    times, sure = None, False
    if old and new and old["value"]:
        times = float(new["value"]) / float(old["value"])
        sure = _low(new) > _high(old) or _high(new) < _low(old)
    return Change(name=name, before=old, after=new, times=times, sure=sure)


def _measures(result: Mapping[str, Any], gates: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    point = _chosen(result)
    if point is None:
        return {}
    found: dict[str, Mapping[str, Any]] = {**point["measures"]}
    judged = result.get("reevaluated") or {}
    found |= {name: judged[name] for name in gates if name in judged}
    if point["parity"]:
        agreement = point["parity"]
        found["decision_agreement"] = {
            "value": agreement["decision_agreement"],
            "n": agreement["samples"],
        }
    return found


def _chosen(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the point that was chosen, or the nearest where none was."""
    points = result.get("candidates", ())
    near = (result.get("nearest") or {}).get("point")
    for point in points:
        if point.get("chosen") or (near and point.get("id") == near):
            found: Mapping[str, Any] = point
            return found
    return None


def _low(measure: Mapping[str, Any]) -> float:
    return _end(measure, "low", -math.inf)


def _high(measure: Mapping[str, Any]) -> float:
    return _end(measure, "high", math.inf)


def _end(measure: Mapping[str, Any], name: str, unknown: float) -> float:
    """Return one end of an interval; of what was modelled without one, anything is possible."""
    if measure.get(name) is not None:
        return float(measure[name])
    return float(measure["value"]) if measure.get("method", "measured") == "measured" else unknown
