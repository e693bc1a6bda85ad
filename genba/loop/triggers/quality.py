"""Retrain when people say that too many answers are mistaken."""

from typing import Final

from genba.loop.judge import interval
from genba.loop.state import LineState

#: Judged answers below which nothing is said about their quality.
MIN_JUDGED: Final = 20


class QualityTrigger:
    """The share of judged answers that were right, from feedback on the model in service.

    What raises alarms is judged by its alarms (precision); a miss is no alarm and does not count.
    What names a class or a value is judged by every answer.
    """

    def reason(self, state: LineState, threshold: float, now_ms: int) -> str | None:
        """Say how many were right, or None when it is not surely below the floor.

        Args:
            state: The folded line.
            threshold: Lowest acceptable share, 0 to 1.
            now_ms: Not used.
        """
        del now_ms
        seen = state.evidence
        judged = seen.confirmed + seen.false_alarms + seen.wrong
        if judged < MIN_JUDGED * state.patience:
            return None
        _, high = interval(seen.confirmed, judged)
        if high >= threshold:
            return None
        what = "answers were right: share" if seen.wrong else "alarms were anomalies: precision"
        return (
            f"{seen.confirmed} of {judged} judged {what} "
            f"{seen.confirmed / judged:.2f} (95 % surely below {high:.2f}), floor {threshold:g}"
        )
