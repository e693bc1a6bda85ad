"""Retrain when the model has reached an age."""

from typing import Final

from genba.loop.state import LineState

DAY_MS: Final = 86_400_000


class ScheduleTrigger:
    """Days since a training last came to an answer, whatever the answer was."""

    def reason(self, state: LineState, threshold: float, now_ms: int) -> str | None:
        """Say how old the last training is, or None.

        Args:
            state: The folded line.
            threshold: Age in days.
            now_ms: The time.
        """
        days = (now_ms - state.trained_ms) / DAY_MS
        if not state.trained_ms or days < threshold:
            return None
        return f"the last training was {days:.3g} days ago, {threshold:g} asked for"
