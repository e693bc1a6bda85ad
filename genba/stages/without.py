"""How good a model is when a sensor is missing: each in turn, over the whole test set.

The truth stays as it was read; only what the model is given changes. So the two scores are of the
same rows, and their differences are paired.
"""

from typing import Any, Final

from genba.core.codec import decode, encode
from genba.core.protocols import JsonObject, Predict, Tensors, View
from genba.core.task import Scores, Task
from genba.core.values import Measure
from genba.runs.progress import Progress

#: What a gate may ask for: the main measure of the task without the sensor that is missed most.
WORST: Final = "worst_without_one_sensor"
WHERE: Final = "without it"


def measured(
    task: Task, predict: Predict, view: View, full: Scores, settings: JsonObject, progress: Progress
) -> dict[str, Any]:
    """Measure a model without each sensor, and without each joined source.

    Args:
        task: Its `absences` say what may be missing.
        predict: The model, in any form.
        view: Whose test set is used.
        full: How the model did with every sensor.
        settings: Of the model.
        progress: Who is told.

    Returns:
        `measure` (the main one), `larger_is_better`, `full` (its value), and by what is missing:
        `sensors`, `measures` and `differences` (paired, with intervals). {} where nothing may be
        missing or the task has no main measure.
    """
    name = next((name for name in task.main if name in full.measures), None)
    found: dict[str, Any] = {}
    if name is None:
        return found
    for absence, sensors in task.absences(settings).items():
        progress.step(f"measuring the model without {absence}")
        scores = task.score(_blind(task, predict, sensors, settings), view, "test", settings)
        found[absence] = {
            "sensors": list(sensors),
            "measures": encode(scores.measures),
            "differences": [encode(c) for c in task.compare(full, scores, WHERE)],
        }
    if not found:
        return {}
    return {
        "measure": name,
        "larger_is_better": task.main[name],
        "full": encode(full.measures[name]),
        "missing": found,
    }


def worst(found: JsonObject) -> dict[str, Measure]:
    """Return the main measure without the sensor that is missed most, as a measure for gates.

    Example:
        >>> r2 = {"measures": {"r2": {"value": 0.5}}}, {"measures": {"r2": {"value": 0.9}}}
        >>> found = {"measure": "r2", "larger_is_better": True, "missing": dict(zip("ab", r2))}
        >>> worst(found)["worst_without_one_sensor"].value
        0.5
    """
    values = [
        decode(Measure, one["measures"][found["measure"]])
        for one in (found.get("missing") or {}).values()
        if found["measure"] in one["measures"] and len(one.get("sensors", ())) < 2
    ]
    if not values:
        return {}
    pick = min if found["larger_is_better"] else max
    return {WORST: pick(values, key=lambda measure: measure.value)}


def sentences(found: JsonObject) -> list[str]:
    """Say what becomes of the main measure without each sensor, the most missed first.

    Example:
        >>> told = {"measures": {"r2": {"value": 0.95}}}
        >>> sentences({"measure": "r2", "larger_is_better": True, "full": {"value": 0.98},
        ...     "missing": {"Ot_avg": told}})
        ['without Ot_avg r2 falls from 0.98 to 0.95']
    """
    name = found.get("measure", "")
    told: list[tuple[float, str]] = []
    for absence, one in (found.get("missing") or {}).items():
        before, after = found["full"]["value"], one["measures"].get(name, {}).get("value")
        if after is None:
            told.append((float("-inf"), f"without {absence} there is no {name}"))
            continue
        gained = (after - before) * (1 if found["larger_is_better"] else -1)
        verb = "stays at" if f"{before:.3g}" == f"{after:.3g}" else _verb(before, after)
        change = f" {before:.3g}" if verb == "stays at" else f" from {before:.3g} to {after:.3g}"
        told.append((gained, f"without {absence} {name} {verb}{change}"))
    return [text for _, text in sorted(told, key=lambda item: item[0])]


def _verb(before: float, after: float) -> str:
    return "falls" if after < before else "rises"


def _blind(task: Task, predict: Predict, sensors: tuple[str, ...], settings: JsonObject) -> Predict:
    def blind(tensors: Tensors) -> dict[str, Any]:
        return predict(task.without(tensors, sensors, settings))

    return blind
