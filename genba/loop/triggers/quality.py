"""Retrain when people say that too many alarms are false."""

from typing import Final

from genba.loop.judge import interval
from genba.loop.state import LineState

#: Judged alarms below which nothing is said about their quality.
MIN_JUDGED: Final = 20


class QualityTrigger:
    """The share of judged alarms that were anomalies (precision), from feedback on the model."""

    def reason(self, state: LineState, threshold: float, now_ms: int) -> str | None:
        """Say what the precision is, or None when it is not surely below the floor.

        Args:
            state: The folded line.
            threshold: Lowest acceptable precision, 0 to 1.
            now_ms: Not used.
        """
        del now_ms
        confirmed, false = state.evidence.confirmed, state.evidence.false_alarms
        judged = confirmed + false
        if judged < MIN_JUDGED * state.patience:
            return None
        _, high = interval(confirmed, judged)
        if high >= threshold:
            return None
        return (
            f"{confirmed} of {judged} judged alarms were anomalies: precision "
            f"{confirmed / judged:.2f} (95 % surely below {high:.2f}), floor {threshold:g}"
        )
