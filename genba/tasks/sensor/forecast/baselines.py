"""Well-known methods on the same split: the report's yardstick."""

from collections.abc import Mapping

from genba.core.protocols import JsonObject, Predict, View
from genba.core.task import Scores
from genba.tasks.sensor.forecast.naive import Drift, Repeat
from genba.tasks.sensor.forecast.score import score
from genba.tasks.sensor.forecast.steps import DAY_MS, HOUR_MS


def baselines(view: View, settings: JsonObject) -> Mapping[str, Scores]:
    """Measure seasonal naive forecasts, one for every season, and the naive forecast with drift."""
    rivals: dict[str, Predict] = {
        f"what was read {duration(season * int(settings['step_ms']))} before": Repeat(
            settings, season
        )
        for season in settings["seasons"] or [1]
    }
    rivals["the last value, with drift"] = Drift(settings)
    return {
        name: Scores(measures=score(predict, view, "test", settings).measures)
        for name, predict in rivals.items()
    }


def duration(milliseconds: int) -> str:
    """Return a length of time as people say it.

    Example:
        >>> duration(HOUR_MS // 2), duration(24 * HOUR_MS), duration(7 * DAY_MS)
        ('30 min', '24 h', '7 days')
    """
    if milliseconds > DAY_MS and milliseconds % DAY_MS == 0:
        return f"{milliseconds // DAY_MS} days"
    for unit, name in ((HOUR_MS, "h"), (HOUR_MS // 60, "min"), (1_000, "s")):
        if milliseconds >= unit:
            return f"{milliseconds / unit:.3g} {name}"
    return f"{milliseconds} ms"
