"""Anomalies of sensors, as one trade speaks of them: a place to start from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

from genba.core.line import Line
from genba.core.protocols import View
from genba.tasks.sensor.anomaly import SensorAnomaly

# What the people at these machines write when something is wrong.
FAULTS: Final = frozenset({"seized", "leak", "worn", "blocked"})
MOST_LAGS: Final = 2  # rows in a window; whoever asks for predictions sends as many


class TemplateTask(SensorAnomaly):
    """A task made of another: what is not here is inherited.

    Every method of a task can be replaced one by one; `genba.core.task.Task` says what each must
    do, and each of those of `sensor.anomaly` is a function of one file.
    """

    name: ClassVar[str] = "template-name"
    # The modules whose source decides the numbers: when one changes, models are trained anew.
    uses: ClassVar[tuple[str, ...]] = ("genba_template.task", *SensorAnomaly.uses)

    def derive(self, line: Line, view: View) -> dict[str, Any]:
        """Derive every setting the line leaves open, as JSON that is printed and recorded."""
        settings = super().derive(line, view)
        lags = min(settings["lags"], MOST_LAGS)
        return {**settings, "lags": lags, "context": lags - 1}

    def label(self, correction: str, classes: Sequence[str] = ()) -> float:
        """Turn what a person said into the label of a sample; raises Problem G801 if it cannot."""
        if correction.strip().lower() in FAULTS:
            return 1.0
        return super().label(correction, classes)

    @staticmethod
    def example(folder: Path) -> Line:
        """Write a little data and return the line that reads it; `genba check` fits it.

        These pumps are generated. Data of your own kind makes a better check.
        """
        return replace(SensorAnomaly.example(folder), task=TemplateTask.name)
